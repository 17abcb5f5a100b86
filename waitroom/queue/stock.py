"""The stock of a room: whether it lasts for those who wait, and for how long. Pure.

The shop reports the units left. How many of them a visitor takes is measured, and measurements of few visitors are
uncertain, so everything here that discourages visitors uses a lower bound.
"""

# mypyc: compile

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final

from waitroom.queue.view import RoomState, RoomView

MIN_ENDED_SESSIONS: Final = 30
# Standard deviations between an expected and the smallest likely value: 95 % are above.
Z: Final = 1.645
PACE_MS: Final = 60_000
MIN_PACE_MS: Final = 2_000
MOST_AHEAD: Final = 1_000_000_000  # more visitors than ever wait

# The stock nears its end if what is left lasts for less than this at the measured pace.
NEARS_END_SECONDS: Final = 60.0
NEAR_END_POLL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Share:
    """The units that an admitted visitor takes, on average.

    Attributes:
        measured: The measured value.
        lower: Its lower bound.
    """

    measured: float
    lower: float


def measured_share(sold: int, ended: int, active: int) -> Share | None:
    """The units sold per admitted visitor, since the stock began.

    Visitors inside count as if they bought nothing more. Units sold per ended session would be far too many at the
    beginning, and for as long as sessions last that the shop doesn't release: buyers are still inside then.

    Args:
        sold: The units sold, less those that came back.
        ended: The sessions that have ended.
        active: The visitors inside.

    Returns:
        The share; None with fewer than `MIN_ENDED_SESSIONS` ended sessions.
    """
    if ended < MIN_ENDED_SESSIONS:
        return None
    visitors, units = ended + max(0, active), max(0, sold)
    return Share(units / visitors, lowest_mean(units) / visitors)


def lowest_mean(count: int) -> float:
    """The smallest mean of a Poisson distribution under which a count is not improbably large (5 %).

    Byar's approximation: Breslow and Day, Statistical Methods in Cancer Research II (IARC, 1987), p. 69. Orders of
    several units vary more than a Poisson distribution; orders of at most one, as in most sales, vary less.
    """
    if count <= 0:
        return 0.0
    root = 1 - 1 / (9 * count) - Z / (3 * sqrt(count))
    return float(count * root**3) if root > 0 else 0.0


def sold_out_from(called: int, remaining: int, share: Share, present_share: float) -> int | None:
    """The first position from which on `likely_sold_out` is true; None if it is true for none."""
    if remaining <= 0:
        return 1
    # So many units are expected that even few of them, by chance, are all: mean - Z * sqrt(mean) >= remaining.
    root = (Z + sqrt(Z * Z + 4 * remaining)) / 2
    taken = share.lower * present_share
    if taken * MOST_AHEAD < root * root:
        return None
    return max(1, ceil(root * root / taken - called) + 1)


def likely_sold_out(position: int, called: int, remaining: int, share: Share, present_share: float) -> bool:
    """Whether those ahead of a waiting visitor are likely to take everything, even if they take few.

    Visitors inside are left out, although they may take some of what is left: nobody knows how many of them have
    bought already. So it turns true late rather than early. A visitor who leaves because of it misses nothing; one who
    stays has lost some time.

    Args:
        position: The visitor's position.
        called: The number of called visitors, who are ahead too.
        remaining: The units left.
        share: The units that a visitor takes.
        present_share: The share of visitors who are present when their turn comes.
    """
    first = sold_out_from(called, remaining, share, present_share)
    return first is not None and position >= first


def share_of(view: RoomView) -> Share | None:
    """The share in a view; None if it is unknown, or if the shop reports no stock."""
    if view.remaining is None or view.stock_began is None:
        return None
    sold, ended = view.stock_began
    return measured_share(view.sold - sold, view.sessions_ended - ended, view.active)


def first_sold_out_position(view: RoomView) -> int | None:
    """The first position for which the stock is likely to be sold out.

    Returns:
        The position; 0 if it is for none, and None if that is unknown, as before the sale.
    """
    share = share_of(view)
    if share is None or view.remaining is None or view.state in (RoomState.PREQUEUE, RoomState.CLOSED):
        return None
    return sold_out_from(view.called, view.remaining, share, view.throughput.present_share) or 0


class SellingPace:
    """How fast a room sells, from successive views: over the last minute, or since the sale began if that is less."""

    __slots__ = ("_generation", "_sold")

    def __init__(self) -> None:
        self._generation = 0
        self._sold: deque[tuple[int, int]] = deque()

    def observe(self, view: RoomView) -> None:
        """Takes in a view. Each sale is measured by itself, and so is the time after a loss of data."""
        sells = view.remaining is not None and view.state in (RoomState.OPEN, RoomState.PAUSED)
        if not sells or view.generation != self._generation:
            self._sold.clear()
            self._generation = view.generation
        if sells:
            self._sold.append((view.clock_ms, view.sold))
        while len(self._sold) > 2 and view.clock_ms - self._sold[1][0] >= PACE_MS:
            self._sold.popleft()

    @property
    def per_minute(self) -> float | None:
        """Units sold per minute, less those that came back; None while it is unknown."""
        if len(self._sold) < 2:
            return None
        (since, before), (until, now) = self._sold[0], self._sold[-1]
        if until - since < MIN_PACE_MS:
            return None
        return max(0, now - before) * 60_000 / (until - since)

    def seconds_left(self, remaining: int | None) -> float | None:
        """How long the units left last at this pace; None if that is unknown, or if nothing is being sold."""
        pace = self.per_minute
        if remaining is None or not pace:
            return None
        return remaining * 60 / pace


def near_end_poll_seconds(seconds_left: float | None, waiting: int, polls_per_second: float) -> float | None:
    """The longest time between polls as the stock nears its end; None before that.

    Args:
        seconds_left: How long the stock lasts.
        waiting: The number of waiting visitors.
        polls_per_second: The polls that all workers together can answer.
    """
    if seconds_left is None or seconds_left >= NEARS_END_SECONDS:
        return None
    return max(NEAR_END_POLL_SECONDS, waiting / polls_per_second)
