"""Buffers for request bodies, used before a connection to the shop is acquired. Pure."""

# mypyc: compile

from __future__ import annotations


class BufferBudget:
    """The limit on buffered bytes of all bodies together.

    Attributes:
        held: How many bytes are buffered.
    """

    __slots__ = ("_most", "held")

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def fits(self, size: int) -> bool:
        """Whether there is room for that many more bytes, and for at least one."""
        return self.held + max(size, 1) <= self._most


class BodyBuffer:
    """The first bytes of one body.

    The bytes are joined as they arrive: a body that arrives byte by byte must not cost an object for each byte.

    Args:
        budget: The budget of all bodies.
        wanted: How many bytes to wait for.
    """

    __slots__ = ("_budget", "_data", "_wanted")

    def __init__(self, budget: BufferBudget, wanted: int) -> None:
        self._budget = budget
        self._data = bytearray()
        self._wanted = wanted

    def __len__(self) -> int:
        return len(self._data)

    @property
    def full(self) -> bool:
        """Whether all the wanted bytes have arrived."""
        return len(self._data) >= self._wanted

    def add(self, pieces: list[bytes]) -> None:
        """Buffers pieces; the caller has checked that they fit."""
        before = len(self._data)
        for piece in pieces:
            self._data += piece
        self._budget.held += len(self._data) - before

    def take(self) -> bytes:
        """Returns all the buffered bytes and empties the buffer."""
        data = bytes(self._data)
        self.drop()
        return data

    def drop(self) -> None:
        """Discards all the buffered bytes."""
        self._budget.held -= len(self._data)
        self._data = bytearray()
