"""The order of the queue, judged from who came when: first come, first served, except in a shuffled prequeue.

Its order is known to nobody before, but it is one order: of two visitors the same one is ahead whenever both wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise


class QueueOrder:
    """Who is ahead of whom. Times in which visitors came are numbered; those of odd numbers are shuffled prequeues."""

    def __init__(self) -> None:
        self._now = 0
        self._came_in: dict[int, int] = {}
        self._ahead: set[tuple[int, int]] = set()

    def prequeue_opens(self, *, shuffled: bool) -> None:
        if shuffled:
            self._now += 1 + self._now % 2

    def prequeue_ends(self) -> None:
        self._now += self._now % 2

    def forget(self) -> None:
        """The store has lost data: tickets come back, and not all clients may know how their places were shuffled.

        A shuffled prequeue that is open may stay so.
        """
        self._now %= 2
        self._came_in.clear()
        self._ahead.clear()

    def joined(self, places: Iterable[int]) -> None:
        self._came_in.update(dict.fromkeys(places, self._now))

    def check(self, waiting: Sequence[int]) -> None:
        """``waiting``: in the order of the queue."""
        known = [place for place in waiting if place in self._came_in]
        assert len(set(waiting)) == len(waiting)
        times = [self._came_in[place] for place in known]
        assert times == sorted(times), "a latecomer is ahead of those who were in the prequeue"
        for place, other in pairwise(known):
            if self._came_in[place] == self._came_in[other] and self._came_in[place] % 2 == 0:
                assert place < other, f"{other} was overtaken by {place}"
        for pair in combinations([place for place in known if self._came_in[place] % 2], 2):
            assert pair[::-1] not in self._ahead, "the order of a prequeue changed"
            self._ahead.add(pair)
