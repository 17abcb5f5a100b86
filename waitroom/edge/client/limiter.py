"""The client connections of one worker: limits their number, and closes idle ones to make room for others.

A connection is idle while no request is in flight on it, even if part of a head has arrived. The longest idle
connections are looked for only when there is no room: keeping them in order would add work to every request, and one
scan of all connections finds hundreds of them.
"""

# mypyc: compile

from __future__ import annotations

from abc import ABC, abstractmethod
from heapq import nsmallest
from typing import Final

from waitroom.budgets import neighbourhood

# The first request on a new connection takes a round trip or two to arrive, and so does a browser's next one. A
# connection that has sent nothing for longer than this, or no complete head, can be closed.
MIN_IDLE_SECONDS: Final = 2.0
RESERVED_SHARE: Final = 4  # one in this many connections is reserved for clients that have shown a pass
MAX_CANDIDATES: Final = 512  # by one scan
MAX_SCANS: Final = 8  # between two sweeps


class Evictable(ABC):
    """A connection that counts, and can be closed to make room for another one.

    Attributes:
        has_pass: Whether a request with a pass has arrived on it.
    """

    __slots__ = ()

    has_pass: bool

    @property
    @abstractmethod
    def address(self) -> str:
        """The address under which it is counted; empty if it isn't."""

    @abstractmethod
    def idle_since(self) -> float:
        """Since when it has been idle; infinity while it isn't."""

    @abstractmethod
    def evict(self) -> None:
        """Closes it: another connection needs the slot."""


class ConnectionLimiter:
    """Counts connections, and closes the longest idle if there are too many.

    Clients that have shown no pass can't have the last quarter of all connections, and as long as clients that have
    shown one hold no more than that quarter, none of their connections is closed for a newcomer.

    Args:
        most: The maximum in total.
        most_per_neighbourhood: The maximum from one neighbourhood, unless it is exempt.

    Attributes:
        evictable: All connections that may be closed while they are idle.
        per_neighbourhood: The number of connections of each neighbourhood.
        with_pass: How many connections have carried a request with a pass.
    """

    __slots__ = (
        *("_candidates", "_exhausted", "_most", "_most_per_neighbourhood", "_scanned_at", "_scans", "_total"),
        *("evictable", "per_neighbourhood", "with_pass"),
    )

    def __init__(self, most: int, most_per_neighbourhood: int) -> None:
        self._most = most
        self._most_per_neighbourhood = most_per_neighbourhood
        self._total = 0
        self._candidates: dict[tuple[str, bool], list[Evictable]] = {}
        self._exhausted: set[tuple[str, bool]] = set()  # no connection can become idle there before the next sweep
        self._scanned_at = 0.0
        self._scans = 0
        self.evictable: set[Evictable] = set()
        self.per_neighbourhood: dict[str, int] = {}
        self.with_pass = 0

    @property
    def most_without_pass(self) -> int:
        """The maximum number of connections of clients that have shown no pass."""
        return self._most - min(max(1, self._most // RESERVED_SHARE), self._most - 1)

    def acquire(self, address: str, now: float, *, exempt: bool) -> bool:
        """Counts one more connection; False if there is no room for it, and none can be made."""
        here = neighbourhood(address)
        count = self.per_neighbourhood.get(here, 0)
        if count >= self._most_per_neighbourhood and not exempt and not self._evict(here, False, now):
            return False
        crowded = self._total - self.with_pass >= self.most_without_pass
        if (crowded or self._total >= self._most) and not self._make_room(now, any_of_them=not crowded):
            return False
        self.per_neighbourhood[here] = self.per_neighbourhood.get(here, 0) + 1
        self._total += 1
        return True

    def release(self, address: str) -> None:
        """Reverts `acquire`."""
        here = neighbourhood(address)
        self._total -= 1
        count = self.per_neighbourhood[here] - 1
        if count:
            self.per_neighbourhood[here] = count
        else:
            del self.per_neighbourhood[here]

    def evict_idle(self, count: int, now: float) -> None:
        """Closes up to this many of the longest idle connections."""
        while count and self._make_room(now, any_of_them=True):
            count -= 1

    def _make_room(self, now: float, *, any_of_them: bool) -> bool:
        """Closes an idle connection; one that has shown a pass only if ``any_of_them`` is set and there is no other."""
        return self._evict("", False, now) or (any_of_them and self._evict("", True, now))

    def _evict(self, here: str, has_pass: bool, now: float) -> bool:
        """Closes the longest idle connection of a neighbourhood, or of all (``""``)."""
        if now != self._scanned_at:
            self._scanned_at = now
            self._scans = 0
            self._candidates.clear()
            self._exhausted.clear()
        key = (here, has_pass)
        while found := self._find_candidates(key, now):
            connection = found.pop()
            # Since the scan it may have gone, become busy or shown a pass.
            if self._may_evict(connection, has_pass, now) and connection in self.evictable:
                connection.evict()
                return True
        return False

    def _find_candidates(self, key: tuple[str, bool], now: float) -> list[Evictable]:
        """The connections found by the last scan, or by a new one, as long as scans find any."""
        found = self._candidates.get(key)
        if found or key in self._exhausted or self._scans >= MAX_SCANS:
            return found or []
        self._scans += 1
        found = self._candidates[key] = self._longest_idle(key[0], key[1], now)
        if not found:
            self._exhausted.add(key)
        return found

    def _longest_idle(self, here: str, has_pass: bool, now: float) -> list[Evictable]:
        """The longest idle connections of this kind, the very longest last."""
        idle = [
            one
            for one in self.evictable
            if self._may_evict(one, has_pass, now) and (not here or _neighbourhood_of(one) == here)
        ]
        if len(idle) > MAX_CANDIDATES:
            return nsmallest(MAX_CANDIDATES, idle, key=lambda one: one.idle_since())[::-1]
        idle.sort(key=lambda one: one.idle_since(), reverse=True)
        return idle

    def _may_evict(self, one: Evictable, has_pass: bool, now: float) -> bool:
        return one.has_pass is has_pass and one.idle_since() <= now - MIN_IDLE_SECONDS


def _neighbourhood_of(one: Evictable) -> str:
    return neighbourhood(one.address) if one.address else ""
