"""Positions and waits, from memory.

The store gives a few hundred (rank, place) pairs of the line: every one of the first 64, then ever fewer. Between two
of them a position is interpolated; places are handed out densely, so that the error is what has left in between.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

LONGEST_POLL_SECONDS = 30
SHORTEST_POLL_SECONDS = 2
PACE_KNOWN_AFTER_MS = 10_000
# Who leaves ahead of a visitor shortens the wait, who comes back lengthens it; nobody knows either beforehand.
LOW_SHARE = 0.75
HIGH_SHARE = 1.25


@dataclass(frozen=True, slots=True)
class PositionTable:
    """Ranks (from 0) and the places that have them, both ascending."""

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
            return ranks[-1] + 1 + (place - places[-1]) if places else 1
        if right == 0:
            return 1
        left = right - 1
        low, high = ranks[left], ranks[right]
        if high - low == 1:
            return high + 1
        share = (place - places[left]) / (places[right] - places[left])
        return min(high, low + max(1, round(share * (high - low)))) + 1


@dataclass(frozen=True, slots=True)
class Pace:
    """Visitors called of late and the milliseconds that took, both fading with a time constant of a minute."""

    called: float
    ms: float

    @property
    def known(self) -> bool:
        """Whether there has been a line for long enough to tell."""
        return self.ms >= PACE_KNOWN_AFTER_MS

    @property
    def per_second(self) -> float:
        """Visitors called per second, of late."""
        return self.called / self.ms * 1000 if self.ms else 0.0


def expected_wait(position: int, rate_per_minute: float, pace: Pace, free_slots: int) -> tuple[int, int] | None:
    """The range of the wait in seconds, or None where it can't be known.

    The rate bounds the pace; where the shop is full, the line moves as fast as visitors leave it, which only the pace
    of late tells.
    """
    limit = rate_per_minute / 60
    if pace.known:
        if pace.per_second <= 0:
            return None
        speed = min(limit, pace.per_second)
    elif free_slots > 0:
        speed = limit
    else:
        return None
    fastest = limit if free_slots >= position else speed
    ahead = position - 1
    low = ahead / fastest * LOW_SHARE
    high = (ahead + 1) / speed * HIGH_SHARE + SHORTEST_POLL_SECONDS
    return int(low), max(int(low) + 1, round(high))


def poll_after(eta: tuple[int, int] | None, position: int, jitter: float) -> int:
    """Seconds until the next poll: short near the front, long at the back. ``jitter`` is uniform in [0, 1)."""
    wait = eta[0] if eta is not None else position / 4
    base = min(max(wait / 8, SHORTEST_POLL_SECONDS), LONGEST_POLL_SECONDS / 1.2)
    return max(1, round(base * (0.8 + 0.4 * jitter)))
