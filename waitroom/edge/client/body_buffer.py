"""The parts of request bodies that are held before a connection to the shop is taken. Pure."""

# mypyc: compile

from __future__ import annotations


class BufferBudget:
    """How many bytes may be held of all bodies together.

    Attributes:
        held: How many are.
    """

    __slots__ = ("_most", "held")

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def fits(self, size: int) -> bool:
        """Whether there is room for so many bytes more, and for one at least."""
        return self.held + max(size, 1) <= self._most


class BodyBuffer:
    """The first bytes of one body.

    The bytes are joined as they come: a body that arrives byte by byte must not cost an object for each of them.

    Args:
        budget: Of all bodies.
        wanted: How many bytes are waited for.
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
        """Whether all that is waited for has come."""
        return len(self._data) >= self._wanted

    def add(self, pieces: list[bytes]) -> None:
        """Holds what has come; the caller has asked whether it fits."""
        before = len(self._data)
        for piece in pieces:
            self._data += piece
        self._budget.held += len(self._data) - before

    def take(self) -> bytes:
        """Gives all that is held away."""
        data = bytes(self._data)
        self.drop()
        return data

    def drop(self) -> None:
        """Forgets all that is held."""
        self._budget.held -= len(self._data)
        self._data = bytearray()
