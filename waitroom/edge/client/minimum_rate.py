"""The least that a client must send or take while it is waited for. Pure."""

# mypyc: compile

from __future__ import annotations

from typing import Final

WINDOW_SECONDS: Final = 30.0


class MinimumRate:
    """Adds up how long a client was waited for and what it moved meanwhile, one window after the other.

    Time in which nobody waits for the client is not counted: a shop that pauses makes no client slow.

    Args:
        per_second: The least number of bytes.
    """

    __slots__ = ("_bytes", "_per_second", "_seconds")

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._seconds = 0.0
        self._bytes = 0

    def moved(self, size: int) -> None:
        """The client has sent or taken so many bytes."""
        self._bytes += size

    def waited(self, seconds: float) -> bool:
        """The client was waited for; False where a window has ended in which it was too slow."""
        self._seconds += seconds
        if self._seconds < WINDOW_SECONDS:
            return True
        enough = self._bytes >= self._per_second * self._seconds
        self._seconds = 0.0
        self._bytes = 0
        return enough
