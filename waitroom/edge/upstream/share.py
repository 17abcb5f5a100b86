"""The share of an upstream pool available to requests without a pass, and the requests waiting for a connection.

Visitors with a pass always have at least half of a pool. Requests without one share the rest, and no neighbourhood
takes more than half of that, so that slow requests of one client block neither admitted visitors nor other clients.
"""

# mypyc: compile

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

WAITERS_PER_CONNECTION: Final = 10


class PoolShare:
    """Counts the connections that requests without a pass hold.

    Args:
        max_connections: The size of the whole pool.

    Attributes:
        most: The maximum they may hold together.
        most_each: The maximum one neighbourhood may hold.
        held: How many they hold.
    """

    __slots__ = ("_by_neighbourhood", "held", "most", "most_each")

    def __init__(self, max_connections: int) -> None:
        self.most = max(1, max_connections // 2)
        self.most_each = max(1, self.most // 2)
        self.held = 0
        self._by_neighbourhood: dict[str, int] = {}  # no more entries than connections held

    def has_room(self, neighbourhood: str) -> bool:
        """Whether a neighbourhood may hold one more."""
        return self.held < self.most and self._by_neighbourhood.get(neighbourhood, 0) < self.most_each

    def acquire(self, neighbourhood: str) -> None:
        """Counts one more connection."""
        self.held += 1
        self._by_neighbourhood[neighbourhood] = self._by_neighbourhood.get(neighbourhood, 0) + 1

    def release(self, neighbourhood: str) -> None:
        """Counts one connection less."""
        self.held -= 1
        left = self._by_neighbourhood[neighbourhood] - 1
        if left:
            self._by_neighbourhood[neighbourhood] = left
        else:
            del self._by_neighbourhood[neighbourhood]


class Waiter:
    """A request that waits for a connection.

    Attributes:
        neighbourhood: The neighbourhood of a request without a pass; None for requests with one.
        grant: A connection, or None for a slot to open one in.
    """

    __slots__ = ("grant", "neighbourhood")

    def __init__(self, neighbourhood: str | None, grant: asyncio.Future[Any]) -> None:
        self.neighbourhood = neighbourhood
        self.grant = grant


class Waiters:
    """The waiting requests: those with a pass first, the others in turn by neighbourhood.

    Each kind has its own bound, so that neither costs unbounded memory nor displaces the other.

    Args:
        share: Counts the connections of requests without a pass.
        max_connections: The size of the whole pool.
    """

    __slots__ = ("_most", "_most_each", "_share", "_with_pass", "_without_pass", "count")

    def __init__(self, share: PoolShare, max_connections: int) -> None:
        self._share = share
        self._most = WAITERS_PER_CONNECTION * max_connections
        self._most_each = WAITERS_PER_CONNECTION * share.most_each
        self._with_pass: deque[Waiter] = deque()
        self._without_pass: dict[str, deque[Waiter]] = {}  # the next neighbourhood in turn comes first
        self.count = 0

    def add(self, waiter: Waiter) -> bool:
        """Appends a request; False if too many are already waiting."""
        neighbourhood = waiter.neighbourhood
        if neighbourhood is None:
            if len(self._with_pass) >= self._most:
                return False
            self._with_pass.append(waiter)
        else:
            queue = self._without_pass.get(neighbourhood)
            others = self.count - len(self._with_pass)
            if others >= self._most or (queue is not None and len(queue) >= self._most_each):
                return False
            if queue is None:
                queue = self._without_pass[neighbourhood] = deque()
            queue.append(waiter)
        self.count += 1
        return True

    def remove(self, waiter: Waiter) -> None:
        """Removes a request that no longer waits. Idempotent."""
        neighbourhood = waiter.neighbourhood
        queue = self._with_pass if neighbourhood is None else self._without_pass.get(neighbourhood)
        if queue is None or waiter not in queue:
            return
        queue.remove(waiter)
        self.count -= 1
        if neighbourhood is not None and not queue:
            del self._without_pass[neighbourhood]

    def next(self) -> Waiter | None:
        """Removes and returns the next request in turn; None if no waiting request may have a connection."""
        while self._with_pass:
            waiter = self._with_pass.popleft()
            self.count -= 1
            if not waiter.grant.done():
                return waiter
        while self._without_pass and self._share.held < self._share.most:
            found = self._next_without_pass()
            if found is None or not found.grant.done():
                return found
        return None

    def _next_without_pass(self) -> Waiter | None:
        # At most three neighbourhoods are at their share while the total share isn't used up: the loop is short.
        for neighbourhood, queue in self._without_pass.items():
            if self._share.has_room(neighbourhood):
                waiter = queue.popleft()
                self.count -= 1
                del self._without_pass[neighbourhood]
                if queue:
                    self._without_pass[neighbourhood] = queue
                return waiter
        return None

    def cancel(self) -> None:
        """Rejects all of them."""
        for queue in (self._with_pass, *self._without_pass.values()):
            for waiter in queue:
                waiter.grant.cancel()
