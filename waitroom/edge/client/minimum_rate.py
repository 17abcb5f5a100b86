"""The minimum rate at which a client must send or read while it is waited for. Pure."""

# mypyc: compile

from __future__ import annotations

from typing import Final

WINDOW_SECONDS: Final = 30.0


class MinimumRate:
    """Adds up how long a client was waited for and how much it transferred meanwhile, one window after the other.

    Time in which nothing waits for the client isn't counted: pauses of the shop don't make a client slow.

    Args:
        per_second: The minimum number of bytes.
    """

    __slots__ = ("_bytes", "_per_second", "_seconds")

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._seconds = 0.0
        self._bytes = 0

    def add_bytes(self, size: int) -> None:
        """Counts bytes that the client has sent or read."""
        self._bytes += size

    def add_waiting_time(self, seconds: float) -> bool:
        """Counts time spent waiting for the client; False if a window has ended in which it was too slow."""
        self._seconds += seconds
        if self._seconds < WINDOW_SECONDS:
            return True
        enough = self._bytes >= self._per_second * self._seconds
        self._seconds = 0.0
        self._bytes = 0
        return enough
