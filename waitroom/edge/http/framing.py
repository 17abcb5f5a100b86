"""Finds the end of a message's body: by length, by chunks, or at the end of the connection. Pure and incremental."""

# mypyc: compile

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final

from waitroom.edge.http.caching import controls_caches
from waitroom.edge.http.message import MalformedError, Trailers
from waitroom.net.proxy_only_headers import OUR_PREFIX, is_proxy_only, plain_name

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
# For requests, strictly: request smuggling exploits two parsers that see a body's end in two places.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*\Z")
# For responses, with the padding some shops send (for example old Java servers), if it has only one interpretation.
_PADDED_CHUNK_LINE = re.compile(rb"0*([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\Z")
_TRAILER_LINE = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)\Z")

MAX_CHUNK_LINE_BYTES = 1024
MAX_TRAILER_BYTES = 8192
# These decide how a message is framed, routed or interpreted: in a trailer they come too late to be valid.
_NO_TRAILERS = frozenset(
    (
        *(b"transfer-encoding", b"content-length", b"host", b"connection", b"cookie", b"set-cookie", b"te"),
        *(b"authorization", b"content-encoding", b"content-type", b"content-range", b"trailer"),
        *(b"upgrade", b"expect"),
    )
)


class Body(ABC):
    """A body being received.

    Attributes:
        done: Whether all of it has arrived.
        trailers: The trailers that followed it, once it is done.
    """

    __slots__ = ()

    done: bool
    trailers: Trailers

    @abstractmethod
    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Takes received bytes; returns the pieces of the body in them and the bytes after the body's end.

        Raises:
            MalformedError: The framing is invalid.
        """


class LengthBody(Body):
    """A body of ``length`` bytes."""

    __slots__ = ("_left", "done", "trailers")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.trailers = []

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See `Body.feed`."""
        size = len(data)
        if size < self._left:
            self._left -= size
            return [data], b""
        piece, rest = data[: self._left], data[self._left :]
        self._left = 0
        self.done = True
        return ([piece] if piece else []), rest


NO_BODY: Final = LengthBody(0)


class CloseBody(Body):
    """A body that ends with the connection."""

    __slots__ = ("done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers = []

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See `Body.feed`."""
        return [data], b""


class ChunkedBody(Body):
    """A body in chunks (RFC 9112, section 7.1); extensions are dropped.

    Args:
        status: The status of `MalformedError`: 400 for a client's body, which is parsed strictly; 502 for a shop's,
            whose chunk sizes may be padded.
    """

    __slots__ = ("_at", "_buffer", "_left", "_status", "_step", "_trailer_bytes", "done", "trailers")

    def __init__(self, status: int) -> None:
        self._status = status
        self._buffer = b""
        self._at = 0  # the bytes before it have been read; cutting them off each time would be quadratic
        self._left = 0
        self._step = self._size_line
        self._trailer_bytes = 0
        self.done = False
        self.trailers = []

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See `Body.feed`."""
        self._buffer = self._buffer + data if self._buffer else data
        pieces: list[bytes] = []
        while not self.done and self._step(pieces):
            pass
        rest = self._buffer[self._at :]
        self._at = 0
        self._buffer = b"" if self.done else rest
        return pieces, rest if self.done else b""

    def _line(self, limit: int) -> bytes | None:
        start = self._at
        end = self._buffer.find(b"\r\n", start, start + limit + 2)
        if end < 0:
            if len(self._buffer) - start > limit + 1:
                raise MalformedError(self._status, "chunk line too long")
            # A client that ends lines with a bare line feed may never send more: no valid line has one, so reject it
            # now.
            bare = self._buffer.find(b"\n", start)
            return None if bare < 0 else self._buffer[start : bare + 1]
        self._at = end + 2
        return self._buffer[start:end]

    def _size_line(self, pieces: list[bytes]) -> bool:
        line = self._line(MAX_CHUNK_LINE_BYTES)
        if line is None:
            return False
        found = (_PADDED_CHUNK_LINE if self._status == 502 else _CHUNK_LINE).match(line)
        if found is None:
            raise MalformedError(self._status, "invalid chunk size")
        self._left = int(found[1], 16)
        self._step = self._data if self._left else self._trailer_line
        return True

    def _data(self, pieces: list[bytes]) -> bool:
        piece = self._buffer[self._at : self._at + self._left]
        if not piece:
            return False
        self._at += len(piece)
        self._left -= len(piece)
        pieces.append(piece)
        if self._left == 0:
            self._step = self._data_end
        return True

    def _data_end(self, pieces: list[bytes]) -> bool:
        end = self._buffer[self._at : self._at + 2]
        if not b"\r\n".startswith(end):
            raise MalformedError(self._status, "chunk longer than its size")
        if len(end) < 2:
            return False
        self._at += 2
        self._step = self._size_line
        return True

    def _trailer_line(self, pieces: list[bytes]) -> bool:
        line = self._line(MAX_TRAILER_BYTES - self._trailer_bytes)
        if line is None:
            return False
        if not line:
            self.done = True
            return True
        self._trailer_bytes += len(line) + 2
        found = _TRAILER_LINE.match(line)
        if found is None or self._trailer_bytes > MAX_TRAILER_BYTES:
            raise MalformedError(self._status, "invalid trailer field")
        name = plain_name(found[1].lower())
        if not (name in _NO_TRAILERS or name.startswith(OUR_PREFIX) or is_proxy_only(name) or controls_caches(name)):
            self.trailers.append((found[1], found[2].strip(b" \t")))
        return True


def encode_chunk(piece: bytes) -> bytes:
    """One chunk that contains ``piece``, which isn't empty."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def encode_last_chunk(trailers: Trailers) -> bytes:
    """The end of a chunked body."""
    return b"0\r\n" + b"".join(b"%b: %b\r\n" % trailer for trailer in trailers) + b"\r\n"
