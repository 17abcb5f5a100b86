"""HTTP/1.1 messages: strict heads, parsed by llhttp after a grammar of our own has found nothing ambiguous in them.

llhttp is lenient here and there, and every leniency is a chance for two parsers to disagree about where a message
ends. So a head must match `REQUEST_HEAD` or `RESPONSE_HEAD` to the letter before llhttp sees it, and messages are
always written anew, never passed through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import httptools

from waitroom.errors import WaitroomError

Headers = list[tuple[bytes, bytes]]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELDS = rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
REQUEST_HEAD = re.compile(_TOKEN + rb" [\x21-\x7e\x80-\xff]+ HTTP/1\.[01]\r\n" + _FIELDS)
RESPONSE_HEAD = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t\x20-\x7e\x80-\xff]*)?\r\n" + _FIELDS)
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]+)(?::[0-9]{1,5})?\Z")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)\Z", re.IGNORECASE | re.DOTALL)
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")

LONGEST_TARGET = 32768
MOST_HEADERS = 200

# What is read of a request here; the rest only goes on to the shop.
_READ = frozenset(
    (
        *(b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"accept"),
        *(b"accept-language", b"origin", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-site"),
        *(b"sec-purpose", b"purpose", b"x-forwarded-uri", b"x-original-uri"),
        *(b"access-control-request-method", b"waitroom-ticket", b"waitroom-pass"),
        *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"),
    )
)
_SINGLE = (b"host", b"content-length", b"transfer-encoding")


class Malformed(WaitroomError):  # noqa: N818 - what it is of the message
    """A message that is ambiguous, too large or not HTTP.

    Args:
        status: What a client that sent it is answered.
        reason: A few plain words for the log and the answer.
    """

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


class Request:
    """The head of a request.

    Attributes:
        method, target: As sent; of an absolute target only what follows the host.
        path: The target up to its query.
        http10: Whether the client speaks HTTP/1.0.
        headers: Names and values in the order and case they came in.
        fields: Those read here by lower-case name; several values of one name are joined by ", ".
        cookies: The values of all Cookie headers.
        content_length: Bytes of the body, None where it has no length.
        chunked: Whether the body comes in chunks.
        keep_alive: Whether the client wants the connection kept.
        connection: The lower-case options of the Connection header.
    """

    __slots__ = (
        *("method", "target", "path", "http10", "headers", "fields", "cookies", "content_length", "chunked"),
        *("keep_alive", "connection"),
    )

    def __init__(self, method: bytes, target: bytes, http10: bool, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.http10 = http10
        self.headers = headers
        self.fields: dict[bytes, bytes] = {}
        self.cookies: list[bytes] = []
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = not http10
        self.connection: frozenset[bytes] = frozenset()
        self._read_fields()
        if b"connection" in self.fields:
            self.connection = options(self.fields[b"connection"])
            self.keep_alive = b"close" not in self.connection and (not http10 or b"keep-alive" in self.connection)
        self._read_framing()
        self._read_target()
        self.path = self.target.partition(b"?")[0]

    @property
    def has_body(self) -> bool:
        """Whether a body follows the head."""
        return self.chunked or bool(self.content_length)

    @property
    def upgrade(self) -> bytes | None:
        """The protocol the client wants to change to, or None."""
        return self.fields.get(b"upgrade") if b"upgrade" in self.connection and not self.http10 else None

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for ``100 Continue`` before it sends the body."""
        return self.fields.get(b"expect", b"").lower() == b"100-continue" and not self.http10

    def _read_fields(self) -> None:
        fields = self.fields
        for name, value in self.headers:
            lower = name.lower()
            if lower in _READ:
                if lower in fields:
                    if lower in _SINGLE:
                        raise Malformed(400, f"more than one {name.decode('latin-1')} header")
                    value = fields[lower] + b", " + value
                fields[lower] = value
            elif lower == b"cookie":
                self.cookies.append(value)

    def _read_framing(self) -> None:
        fields = self.fields
        length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
        if coding is not None:
            if length is not None:
                raise Malformed(400, "both Content-Length and Transfer-Encoding")
            if self.http10 or coding.lower() != b"chunked":
                raise Malformed(400, "a Transfer-Encoding other than chunked")
            self.chunked = True
        elif length is not None:
            if not _DIGITS.match(length):
                raise Malformed(400, "a Content-Length that is no number")
            self.content_length = int(length)
        expect = fields.get(b"expect")
        if expect is not None and expect.lower() != b"100-continue":
            raise Malformed(417, "an expectation other than 100-continue")

    def _read_target(self) -> None:
        host = self.fields.get(b"host")
        if host is None:
            if not self.http10:
                raise Malformed(400, "no Host header")
        elif host and not _HOST.match(host):
            raise Malformed(400, "a Host that is none")
        target = self.target
        if len(target) > LONGEST_TARGET:
            raise Malformed(414, "a target that is too long")
        if target[:1] == b"/" or (target == b"*" and self.method == b"OPTIONS"):
            return
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise Malformed(400, "a target that is neither a path nor a URL")
        if host is None or absolute[1].lower() != host.lower():
            raise Malformed(400, "a target whose host is not the Host header's")
        rest = absolute[2]
        self.target = rest if rest[:1] == b"/" else b"/" + rest


class Response:
    """The head of an upstream's response.

    Attributes:
        status: The code; ``reason`` the words behind it, as sent.
        http10: Whether the upstream speaks HTTP/1.0.
        headers: Names and values in the order and case they came in.
        content_length, chunked: How the body is framed; neither means until the upstream closes.
        keep_alive: Whether the upstream keeps the connection.
        connection: The lower-case options of the Connection header.
        cache_control: The lower-case Cache-Control header, or empty.
        commands: What the shop told the gateway by ``Waitroom-Command``, or empty.
    """

    __slots__ = (
        *("status", "reason", "http10", "headers", "content_length", "chunked", "keep_alive", "connection"),
        *("cache_control", "commands"),
    )

    def __init__(self, status: int, reason: bytes, http10: bool, headers: Headers) -> None:
        self.status = status
        self.reason = reason
        self.http10 = http10
        self.headers = headers
        self.content_length: int | None = None
        self.chunked = False
        self.cache_control = b""
        self.commands = b""
        connection: list[bytes] = []
        for name, value in headers:
            match name.lower():
                case b"content-length":
                    self._read_length(value)
                case b"transfer-encoding":
                    if self.chunked or value.lower() != b"chunked" or http10:
                        raise Malformed(502, "a Transfer-Encoding other than chunked")
                    self.chunked = True
                case b"connection":
                    connection.append(value)
                case b"cache-control":
                    self.cache_control += b"," + value.lower()
                case b"waitroom-command":
                    self.commands += b"," + value
        if self.chunked and self.content_length is not None:
            raise Malformed(502, "both Content-Length and Transfer-Encoding")
        self.connection = options(b",".join(connection))
        self.keep_alive = b"close" not in self.connection and (not http10 or b"keep-alive" in self.connection)

    def _read_length(self, value: bytes) -> None:
        if not _DIGITS.match(value):
            raise Malformed(502, "a Content-Length that is no number")
        if self.content_length not in (None, int(value)):
            raise Malformed(502, "several differing Content-Lengths")
        self.content_length = int(value)

    @property
    def bodiless(self) -> bool:
        """Whether this status never has a body."""
        return self.status < 200 or self.status in (204, 304)

    @property
    def uncacheable(self) -> bool:
        """Whether no shared cache may keep the response."""
        return b"no-store" in self.cache_control or b"private" in self.cache_control


def options(value: bytes) -> frozenset[bytes]:
    """The lower-case members of a comma-separated list."""
    return frozenset(part for piece in value.lower().split(b",") if (part := piece.strip(b" \t")))


class _Head:
    """Collects what llhttp finds in one head."""

    __slots__ = ("headers", "reason", "target")

    def __init__(self) -> None:
        self.target = b""
        self.reason = b""
        self.headers: Headers = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.rstrip(b" \t")))


def parse_request(head: bytes) -> Request:
    """Parses a request's head, up to and with its empty line. Raises `Malformed`."""
    if not REQUEST_HEAD.fullmatch(head):
        raise Malformed(400, "not a request in HTTP/1.1")
    found = _Head()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # whether to change protocols is decided later; the head is whole
    except httptools.HttpParserError as error:
        raise Malformed(400, "not a request in HTTP/1.1") from error
    method = parser.get_method()
    if method == b"CONNECT":
        raise Malformed(405, "CONNECT is not for a gateway")
    if len(found.headers) > MOST_HEADERS:
        raise Malformed(431, "too many headers")
    return Request(method, found.target, parser.get_http_version() == "1.0", found.headers)


def parse_response(head: bytes) -> Response:
    """Parses a response's head, up to and with its empty line. Raises `Malformed`, with the status 502."""
    if not RESPONSE_HEAD.fullmatch(head):
        raise Malformed(502, "not a response in HTTP/1.1")
    found = _Head()
    parser = httptools.HttpResponseParser(found)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise Malformed(502, "not a response in HTTP/1.1") from error
    return Response(parser.get_status_code(), found.reason, parser.get_http_version() == "1.0", found.headers)


def render_head(start: bytes, headers: Iterable[tuple[bytes, bytes]], more: bytes = b"") -> bytes:
    """Writes a head. ``more`` are further header lines, each with its line end."""
    lines = [start]
    lines += [b"%b: %b\r\n" % header for header in headers]
    lines.append(more)
    lines.append(b"\r\n")
    return b"".join(lines)
