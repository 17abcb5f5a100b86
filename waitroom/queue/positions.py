"""Positions and waits, estimated from memory.

The store provides a few hundred (rank, place) pairs of the queue: every one of the first 64, then ever fewer, and
finally the pair that the next newcomer will get. Positions between two pairs are interpolated; places are handed out
densely, so the error is the number of visitors who have left in between.
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
# Visitors who leave ahead of another shorten the wait, returning ones lengthen it; neither is known beforehand.
LOW_SHARE: Final = 0.75
HIGH_SHARE: Final = 1.3
SIGMAS: Final = 1.5  # standard deviations allowed between expected and actual values
# An index is at most two seconds old, and fewer visitors than this join in that time. A place further beyond its end
# belongs to a later generation, which begins after a gap.
GENERATION_GAP: Final = 1_000_000
# One turnover of the shop shows how long visitors stay; before that, only visitors who leave early have been seen.
MIN_TURNOVER_SLOTS: Final = 20
MIN_TURNOVER: Final = 0.5


@dataclass(frozen=True, slots=True)
class RankIndex:
    """Ranks (from 0) and their places, both ascending; the last pair is the next newcomer's."""

    stamp: str
    ranks: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def parse(cls, stamp: str, body: bytes) -> RankIndex:
        """Parses ``rank place rank place …``."""
        numbers = [int(number) for number in body.split()]
        return cls(stamp, tuple(numbers[::2]), tuple(numbers[1::2]))

    def position(self, place: int) -> int:
        """The number of visitors ahead of ``place``, plus one."""
        places, ranks = self.places, self.ranks
        right = bisect_left(places, place)
        if right == len(places):
            # Beyond the last known place: these visitors joined after the index was built.
            if not places:
                return 1
            behind = place - places[-1]
            return ranks[-1] + 1 + (behind if behind < GENERATION_GAP else 0)
        if right == 0:
            return 1
        left = right - 1
        low, high = ranks[left], ranks[right]
        share = (place - places[left]) / (places[right] - places[left])
        return min(high, low + max(1, round(share * (high - low)))) + 1


@dataclass(frozen=True, slots=True)
class Throughput:
    """The basis of wait estimates: how fast slots became free lately, and how many visitors were present at their turn.

    Older events have less weight, so the counts are fractions.

    Attributes:
        released: The number of slots that became free.
        per_slot_ms: The same for each slot in use and millisecond.
        slots: The number of slots in the room.
        turns, present: The number of visitors whose turn came, and how many of them were present.
    """

    released: float = 0.0
    per_slot_ms: float = 0.0
    slots: int = 0
    turns: float = 0.0
    present: float = 0.0

    @property
    def turnover(self) -> float:
        """The share of the shop's visitors that has been replaced, at most 1: the weight of `released_per_second`."""
        return min(1.0, self.released / max(self.slots, MIN_TURNOVER_SLOTS))

    @property
    def released_per_second(self) -> float | None:
        """Slots that become free per second while the shop is full; None until enough have."""
        if self.turnover < MIN_TURNOVER or self.per_slot_ms <= 0:
            return None
        return self.per_slot_ms * self.slots * 1000

    @property
    def present_share(self) -> float:
        """The share of visitors who were present when their turn came; 1 if unknown."""
        return self.present / self.turns if self.turns >= 1 else 1.0


class Forecast:
    """The expected waits, based on one view of a room.

    A visitor is called once the rate has admitted everyone ahead, and once there has been a slot for each of them:
    first the free slots, then those that become free. Both times are estimated; the later one is the wait. The rate at
    which slots become free is known only after some have.

    Args:
        rate_per_minute: The admit rate.
        throughput: The recent measurements.
        free_slots: The number of free slots; negative if more are in use than the limit allows.
    """

    __slots__ = ("_absent", "_fastest", "_free", "_limit", "_released", "_share")

    def __init__(self, rate_per_minute: float, throughput: Throughput, free_slots: int) -> None:
        self._limit = rate_per_minute / 60
        self._share = throughput.present_share
        self._absent = 1 - self._share
        self._free = free_slots
        self._released = throughput.released_per_second
        # While mostly early leavers have been seen to leave, the remaining visitors may leave faster than that.
        released = self._released or 0.0
        self._fastest = released + max(0.0, self._limit - released) * (1 - throughput.turnover)

    def wait(self, position: int) -> tuple[int, int] | None:
        """The range of the wait in seconds from a position, which counts from 1; None if it can't be known."""
        limit = self._limit
        if limit <= 0:
            return None  # the autopilot admits nobody, for an unknown time
        ahead = (position - 1) * self._share
        fewest = max(0.0, ahead - SIGMAS * sqrt(ahead * self._absent))
        low, high = fewest / limit * LOW_SHARE, position / limit * HIGH_SHARE
        if position > self._free:
            released = self._released
            if released is None:
                return None
            few, many = max(0.0, fewest - self._free), position - self._free
            low = max(low, (few - SIGMAS * sqrt(few)) / self._fastest * LOW_SHARE)
            high = max(high, (many + SIGMAS * sqrt(many)) / released * HIGH_SHARE)
        if high > LONGEST_WAIT_SECONDS:
            return None
        shortest = max(0, int(low))
        return shortest, max(shortest + 1, round(high + SHORTEST_POLL_SECONDS))


def poll_after(eta: tuple[int, int] | None, position: int, jitter: float) -> int:
    """Seconds until the next poll: short near the front, long at the back. ``jitter`` is uniform in [0, 1)."""
    wait = eta[0] if eta is not None else position / 4
    base = min(max(wait / 8, SHORTEST_POLL_SECONDS), LONGEST_POLL_SECONDS / 1.2)
    return max(1, round(base * (0.8 + 0.4 * jitter)))
