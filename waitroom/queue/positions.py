"""Positions and waits, from memory.

The store gives a few hundred (rank, place) pairs of the line: every one of the first 64, then ever fewer, and at last
the pair that the next newcomer will get. Between two of them a position is interpolated; places are handed out densely,
so that the error is what has left in between.
"""

# mypyc: compile

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import sqrt
from typing import Final

LONGEST_POLL_SECONDS: Final = 30
SHORTEST_POLL_SECONDS: Final = 2
LONGEST_WAIT_SECONDS: Final = 7 * 86400  # no ticket lasts longer
# Who leaves ahead of a visitor shortens the wait, who comes back lengthens it; nobody knows either beforehand.
LOW_SHARE: Final = 0.75
HIGH_SHARE: Final = 1.3
CHANCE: Final = 1.5  # so many standard deviations may lie between what is expected and what comes
# A table is two seconds old at the most, and fewer join in that time than this. Who is so far behind its end has a
# place of a later generation, which begins after a leap.
LEAP: Final = 1_000_000
# One turn-over of the shop tells how long visitors stay; before, those who leave early are all that was seen.
SMALLEST_TURN_OVER: Final = 20
KNOWN_AFTER_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class PositionTable:
    """Ranks (from 0) and the places that have them, both ascending; the last pair is the next newcomer's."""

    stamp: str
    ranks: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def parse(cls, stamp: str, body: bytes) -> PositionTable:
        """Reads ``rank place rank place …``."""
        numbers = [int(number) for number in body.split()]
        return cls(stamp, tuple(numbers[::2]), tuple(numbers[1::2]))

    def position(self, place: int) -> int:
        """How many are ahead of ``place``, plus one."""
        places, ranks = self.places, self.ranks
        right = bisect_left(places, place)
        if right == len(places):
            # Behind the last one the table knows: they joined since it was made.
            if not places:
                return 1
            behind = place - places[-1]
            return ranks[-1] + 1 + (behind if behind < LEAP else 0)
        if right == 0:
            return 1
        left = right - 1
        low, high = ranks[left], ranks[right]
        share = (place - places[left]) / (places[right] - places[left])
        return min(high, low + max(1, round(share * (high - low)))) + 1


@dataclass(frozen=True, slots=True)
class Pace:
    """What tells how fast the line will move: how slots got free of late, and who was there when called.

    Older events count less, so that the counts are fractions.

    Attributes:
        freed: How many slots got free.
        per_slot_ms: How many did for each slot in use and millisecond.
        slots: How many there are, ``max_active``.
        met, called: Of so many whose turn had come so many were there.
    """

    freed: float = 0.0
    per_slot_ms: float = 0.0
    slots: int = 0
    met: float = 0.0
    called: float = 0.0

    @property
    def turned_over(self) -> float:
        """How much of the shop's visitors has been replaced, at most 1: the weight of what `freed_per_second` tells."""
        return min(1.0, self.freed / max(self.slots, SMALLEST_TURN_OVER))

    @property
    def freed_per_second(self) -> float | None:
        """Slots that get free per second while the shop is full; None before enough have."""
        if self.turned_over < KNOWN_AFTER_SHARE or self.per_slot_ms <= 0:
            return None
        return self.per_slot_ms * self.slots * 1000

    @property
    def present_share(self) -> float:
        """The share of those whose turn came who were there; 1 where nobody knows."""
        return self.called / self.met if self.met >= 1 else 1.0


class Forecast:
    """The waits to be expected, as far as one look at a room tells.

    A visitor is called once the rate has let in all who are ahead, and once there has been a slot for each of them:
    the free ones, then those that get free. Both are reckoned; the later is the wait. How fast slots get free is known
    only after some have.

    Args:
        rate_per_minute: The admit rate.
        pace: Of late.
        free_slots: How many are free; negative where more are in use than the limit allows.
    """

    __slots__ = ("_absent", "_fastest", "_free", "_freed", "_limit", "_share")

    def __init__(self, rate_per_minute: float, pace: Pace, free_slots: int) -> None:
        self._limit = rate_per_minute / 60
        self._share = pace.present_share
        self._absent = 1 - self._share
        self._free = free_slots
        self._freed = pace.freed_per_second
        # As long as mostly those who left early have been seen to leave, the rest may do so faster than that.
        freed = self._freed or 0.0
        self._fastest = freed + max(0.0, self._limit - freed) * (1 - pace.turned_over)

    def wait(self, position: int) -> tuple[int, int] | None:
        """The range of the wait in seconds from a position on, which counts from 1; None where it can't be known."""
        limit = self._limit
        if limit <= 0:
            return None  # the autopilot lets nobody in, for nobody knows how long
        ahead = (position - 1) * self._share
        fewest = max(0.0, ahead - CHANCE * sqrt(ahead * self._absent))
        low, high = fewest / limit * LOW_SHARE, position / limit * HIGH_SHARE
        if position > self._free:
            freed = self._freed
            if freed is None:
                return None
            few, many = max(0.0, fewest - self._free), position - self._free
            low = max(low, (few - CHANCE * sqrt(few)) / self._fastest * LOW_SHARE)
            high = max(high, (many + CHANCE * sqrt(many)) / freed * HIGH_SHARE)
        if high > LONGEST_WAIT_SECONDS:
            return None
        shortest = max(0, int(low))
        return shortest, max(shortest + 1, round(high + SHORTEST_POLL_SECONDS))


def poll_after(eta: tuple[int, int] | None, position: int, jitter: float) -> int:
    """Seconds until the next poll: short near the front, long at the back. ``jitter`` is uniform in [0, 1)."""
    wait = eta[0] if eta is not None else position / 4
    base = min(max(wait / 8, SHORTEST_POLL_SECONDS), LONGEST_POLL_SECONDS / 1.2)
    return max(1, round(base * (0.8 + 0.4 * jitter)))
