"""An independent, strict and plain reader of HTTP/1.1, to judge by what goes out at both ends of the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """A message as it was on the wire."""

    start: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    framing: str
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def method(self) -> bytes:
        return self.start.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __getitem__(self, name: bytes) -> bytes:
        (value,) = self.all(name)
        return value

    def __contains__(self, name: bytes) -> bool:
        return bool(self.all(name))


class UnreadableError(AssertionError):
    """What went out is no HTTP."""


TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
# Clients send what they should have percent-encoded, and servers take it; RFC 9112 allows ASCII only.
TARGET = frozenset(range(0x21, 0x100)) - {0x7F}
TEXT = frozenset((*range(0x20, 0x7F), 0x09, *range(0x80, 0x100)))


def _require(good: object, what: str, data: bytes) -> None:
    if not good:
        raise UnreadableError(f"{what}: {data[:200]!r}")


def _read_fields(lines: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        _require(colon and name and TOKEN.issuperset(name), "a header's name", line)
        _require(TEXT.issuperset(value), "a header's value", line)
        headers.append((name, value.strip(b" \t")))
    return headers


def _read_head(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes] | None:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    start, *lines = data[:end].split(b"\r\n")
    return start, _read_fields(lines), data[end + 4 :]


def _read_chunks(data: bytes, *, extensions: bool = False) -> tuple[bytes, list[tuple[bytes, bytes]], bytes] | None:
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
        if extensions:
            line = line.partition(b";")[0]
        _require(line and frozenset(b"0123456789abcdefABCDEF").issuperset(line), "a chunk's size", line)
        size = int(line, 16)
        if size == 0:
            break
        if len(data) < size + 2:
            return None
        _require(data[size : size + 2] == b"\r\n", "a chunk's end", data[size : size + 2])
        body, data = body + data[:size], data[size + 2 :]
    if data.startswith(b"\r\n"):
        return body, [], data[2:]
    end_of = data.find(b"\r\n\r\n")
    if end_of < 0:
        return None
    return body, _read_fields(data[:end_of].split(b"\r\n")), data[end_of + 4 :]


def _framing(headers: list[tuple[bytes, bytes]], otherwise: str) -> tuple[str, int]:
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    codings = [value for name, value in headers if name.lower() == b"transfer-encoding"]
    _require(len(lengths) + len(codings) <= 1, "framed twice", repr(headers).encode())
    if codings:
        _require([coding.lower() for coding in codings] == [b"chunked"], "a coding", codings[0])
        return "chunked", 0
    if lengths:
        _require(lengths[0].isdigit(), "a length", lengths[0])
        return "length", int(lengths[0])
    return otherwise, 0


def read_requests(data: bytes) -> tuple[list[Message], bytes]:
    """The whole requests in what a shop received, and the beginning of one more."""
    found = []
    while (head := _read_head(data)) is not None:
        start, headers, rest = head
        parts = start.split(b" ")
        _require(len(parts) == 3 and parts[2] == b"HTTP/1.1", "a request line", start)
        _require(parts[0] and TOKEN.issuperset(parts[0]), "a method", start)
        _require(parts[1] and TARGET.issuperset(parts[1]), "a target", start)
        _require([name.lower() for name, _ in headers].count(b"host") == 1, "a host", start)
        framing, length = _framing(headers, "none")
        body, trailers = b"", []
        if framing == "chunked":
            chunks = _read_chunks(rest)
            if chunks is None:
                break
            body, trailers, rest = chunks
        elif len(rest) < length:
            break
        else:
            body, rest = rest[:length], rest[length:]
        found.append(Message(start, headers, body, framing, trailers))
        data = rest
    return found, data


def read_responses(data: bytes, methods: Sequence[bytes], *, closed: bool = False) -> list[Message]:
    """The responses to requests with these methods in what a client received, all whole, interim ones left out."""
    found, rest = read_whole_responses(data, methods, closed=closed)
    _require(not rest, "cut short", rest)
    return found


def read_whole_responses(data: bytes, methods: Sequence[bytes], *, closed: bool) -> tuple[list[Message], bytes]:
    """The whole responses in what a client received, interim ones left out, and the beginning of one more."""
    found = []
    left = list(methods)
    while (head := _read_head(data)) is not None:
        start, headers, rest = head
        _require(start[:9] == b"HTTP/1.1 " and start[9:12].isdigit() and start[12:13] == b" ", "a status line", start)
        status = int(start[9:12])
        if 100 <= status < 200 and status != 101:
            data = rest
            continue
        _require(left, "more answers than requests", start)
        framing, length = _framing(headers, "close")
        body, trailers = b"", []
        if left.pop(0) == b"HEAD" or status in (101, 204, 304):
            framing = "none"
        elif framing == "chunked":
            chunks = _read_chunks(rest)
            if chunks is None:
                break
            body, trailers, rest = chunks
        elif framing == "length":
            if len(rest) < length:
                break
            body, rest = rest[:length], rest[length:]
        elif not closed:
            break
        else:
            body, rest = rest, b""
        found.append(Message(start, headers, body, framing, trailers))
        data = rest
        if status == 101:
            break
    return found, data


def read_sent(data: bytes) -> list[Message]:
    """The requests in what a client has sent, up to the first that is none, or isn't whole."""
    found = []
    try:
        while True:
            while data.startswith(b"\r\n"):
                data = data[2:]
            head = _read_head(data)
            if head is None:
                break
            start, headers, data = head
            parts = start.split(b" ")
            _require(len(parts) == 3 and parts[2] in (b"HTTP/1.1", b"HTTP/1.0"), "a request line", start)
            _require(parts[0] and TOKEN.issuperset(parts[0]), "a method", start)
            _require(parts[1] and TARGET.issuperset(parts[1]), "a target", start)
            framing, length = _framing(headers, "none")
            body, trailers = b"", []
            if framing == "chunked":
                _require(parts[2] == b"HTTP/1.1", "chunks in HTTP/1.0", start)
                chunks = _read_chunks(data, extensions=True)
                if chunks is None:
                    break
                body, trailers, data = chunks
            elif len(data) < length:
                break
            else:
                body, data = data[:length], data[length:]
            found.append(Message(start, headers, body, framing, trailers))
    except UnreadableError:
        pass
    return found
