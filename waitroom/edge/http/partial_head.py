"""A request head that arrives in pieces; each of its bytes is examined only one time."""

# mypyc: compile

from __future__ import annotations

import re
from typing import Final

_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_END: Final = b"\r\n\r\n"
# This many bytes before a piece may belong to an end that the piece completes.
_OVERLAP: Final = 3


def has_bare_line_feed(data: bytes, start: int = 0) -> bool:
    """Whether a line ends without a carriage return, at ``start`` or after it, which no line of a request may."""
    return _BARE_LF.search(data, start) is not None


class PartialHead:
    """A head that isn't complete yet.

    Args:
        begun: Its beginning, already examined.
        longest_line: The longest request line in bytes.
        longest: The number of bytes from which a head is too long.

    Attributes:
        examined: How many bytes have been examined since.
    """

    __slots__ = ("_bytes", "_first_line_ended", "_longest", "_longest_line", "examined")

    def __init__(self, begun: bytes, longest_line: int, longest: int) -> None:
        self._bytes = bytearray(begun)
        self._longest_line = longest_line
        self._longest = longest
        self._first_line_ended = b"\r\n" in begun
        self.examined = 0

    def add(self, piece: bytes) -> bool:
        """Takes the next piece. True: parse the whole head, which is complete, too long, or invalid."""
        before = bytes(self._bytes[-_OVERLAP:])
        self._bytes += piece
        size = len(self._bytes)
        if size >= self._longest:
            return True
        self.examined += len(before) + len(piece)
        if b"\n" in piece:
            seen = before + piece
            # An empty line before a request is not its first line.
            if _END in seen or self._bytes.startswith(b"\r\n") or has_bare_line_feed(seen, len(before)):
                return True
            self._first_line_ended = True
        return not self._first_line_ended and size > self._longest_line

    def whole(self) -> bytes:
        """All received bytes."""
        return bytes(self._bytes)
