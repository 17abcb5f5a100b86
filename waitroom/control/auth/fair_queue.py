"""A bounded queue that is fair between its sources: each gets its turn, however many others a source adds. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items in order of arrival for each source; sources take turns.

    Args:
        most: The maximum number of items.
        most_each: The maximum number of items of one source.
    """

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._queues: dict[str, deque[Item]] = {}  # in the order of their next turns; none is empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, source: str, item: Item) -> Item | None:
        """Adds an item. Returns the one there is no room for: this one, or the newest of the source with the most."""
        own = self._queues.get(source, ())
        if len(own) >= self._most_each:
            return item
        refused = None
        if self._count >= self._most:
            longest = max(self._queues.values(), key=len, default=None)
            if longest is None or len(longest) <= len(own) + 1:
                return item
            refused = longest[-1]
            self.remove(refused)
        self._queues.setdefault(source, deque()).append(item)
        self._count += 1
        return refused

    def pop(self) -> Item | None:
        """Removes and returns the item whose turn it is; None if there is none."""
        if not self._queues:
            return None
        source = next(iter(self._queues))
        queue = self._queues.pop(source)
        item = queue.popleft()
        self._count -= 1
        if queue:
            self._queues[source] = queue  # behind all others
        return item

    def remove(self, item: Item) -> None:
        """Removes an item, if it is there."""
        for source, queue in self._queues.items():
            if item in queue:
                queue.remove(item)
                self._count -= 1
                if not queue:
                    del self._queues[source]
                return
