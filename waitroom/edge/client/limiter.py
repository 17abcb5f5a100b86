"""The clients' connections of one worker: how many there may be, and which are closed to make room for others.

A connection is idle while no request is under way on it, however much of a head may have dripped in. The longest idle
ones are looked for only when there is no room: keeping them in order would cost every request something, and one walk
through all connections finds hundreds of them.
"""

# mypyc: compile

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING, Final

from waitroom.budgets import neighbourhood

if TYPE_CHECKING:
    from waitroom.edge.client.acceptor import Arrival
    from waitroom.edge.client.connection import ClientConnection

# The first request on a new connection is on its way for a round trip or two, and so is a browser's next one. What has
# said nothing for longer than this, or not come to the end of a head, can be missed.
LEAST_IDLE_SECONDS: Final = 2.0
KEPT_SHARE: Final = 4  # one of so many connections is kept for clients that have shown a pass
MOST_FOUND: Final = 512  # by one walk
MOST_WALKS: Final = 8  # between two sweeps


class Connections:
    """Counts connections, and closes the longest idle where there are too many.

    Clients that have shown no pass can't have the last quarter of all connections, and as long as those that have shown
    one hold no more than that quarter, none of theirs is closed for a newcomer.

    Args:
        most: In all.
        most_per_neighbourhood: From one neighbourhood, unless it is exempt.

    Attributes:
        clients: All that are connected.
        arriving: Those that are about to be.
        per_neighbourhood: How many connections each has.
        with_pass: How many connections have carried a request under a pass.
    """

    __slots__ = (
        *("_barren", "_found", "_most", "_most_here", "_total", "_walked_at", "_walks", "arriving", "clients"),
        *("per_neighbourhood", "with_pass"),
    )

    def __init__(self, most: int, most_per_neighbourhood: int) -> None:
        self._most = most
        self._most_here = most_per_neighbourhood
        self._total = 0
        self._found: dict[tuple[str, bool], list[ClientConnection | Arrival]] = {}
        self._barren: set[tuple[str, bool]] = set()  # nobody is idle there before the next sweep
        self._walked_at = 0.0
        self._walks = 0
        self.clients: set[ClientConnection] = set()
        self.arriving: set[Arrival] = set()
        self.per_neighbourhood: dict[str, int] = {}
        self.with_pass = 0

    @property
    def most_without_pass(self) -> int:
        """How many connections clients may have that have shown no pass."""
        return self._most - min(max(1, self._most // KEPT_SHARE), self._most - 1)

    def enter(self, address: str, now: float, *, exempt: bool) -> bool:
        """Counts one connection more; False where there is no room for it, and none can be made."""
        here = neighbourhood(address)
        if self.per_neighbourhood.get(here, 0) >= self._most_here and not exempt and not self._close(here, False, now):
            return False
        crowded = self._total - self.with_pass >= self.most_without_pass
        if (crowded or self._total >= self._most) and not self._make_room(now, any_of_them=not crowded):
            return False
        self.per_neighbourhood[here] = self.per_neighbourhood.get(here, 0) + 1
        self._total += 1
        return True

    def leave(self, address: str) -> None:
        """Undoes `enter`."""
        here = neighbourhood(address)
        self._total -= 1
        count = self.per_neighbourhood[here] - 1
        if count:
            self.per_neighbourhood[here] = count
        else:
            del self.per_neighbourhood[here]

    def shed(self, count: int, now: float) -> None:
        """Closes so many of the longest idle connections, if there are so many."""
        while count and self._make_room(now, any_of_them=True):
            count -= 1

    def _make_room(self, now: float, *, any_of_them: bool) -> bool:
        """Closes an idle connection; one that has shown a pass only if it may be any of them, and there is no other."""
        return self._close("", False, now) or (any_of_them and self._close("", True, now))

    def _close(self, here: str, has_pass: bool, now: float) -> bool:
        """Closes the longest idle connection of a neighbourhood, or of all (``""``)."""
        if now != self._walked_at:
            self._walked_at = now
            self._walks = 0
            self._found.clear()
            self._barren.clear()
        key = (here, has_pass)
        while found := self._candidates(key, now):
            client = found.pop()
            # Since it was found it may have gone, become busy or shown a pass.
            if self._may_close(client, has_pass, now) and (client in self.clients or client in self.arriving):
                client.displace()
                return True
        return False

    def _candidates(self, key: tuple[str, bool], now: float) -> list[ClientConnection | Arrival]:
        """Those that the last walk has found, or another one, as long as walks find any."""
        found = self._found.get(key)
        if found or key in self._barren or self._walks >= MOST_WALKS:
            return found or []
        self._walks += 1
        found = self._found[key] = self._longest_idle(key[0], key[1], now)
        if not found:
            self._barren.add(key)
        return found

    def _longest_idle(self, here: str, has_pass: bool, now: float) -> list[ClientConnection | Arrival]:
        """The longest idle of them, the very longest last."""
        everybody: list[ClientConnection | Arrival] = [*self.clients, *self.arriving]
        idle = [
            one
            for one in everybody
            if self._may_close(one, has_pass, now) and (not here or _neighbourhood_of(one) == here)
        ]
        if len(idle) > MOST_FOUND:
            return nsmallest(MOST_FOUND, idle, key=lambda one: one.idle_since())[::-1]
        idle.sort(key=lambda one: one.idle_since(), reverse=True)
        return idle

    def _may_close(self, one: ClientConnection | Arrival, has_pass: bool, now: float) -> bool:
        return one.has_pass is has_pass and one.idle_since() <= now - LEAST_IDLE_SECONDS


def _neighbourhood_of(one: ClientConnection | Arrival) -> str:
    return "" if one.peer is None else neighbourhood(one.peer.address)
