"""HTTP/1.1 messages: parsed strictly, and always rewritten, never passed through.

A head is split into lines, and every line must match a strict grammar (`http/fields.py` and below): each leniency is a
chance for two parsers to disagree about where a message ends. A request with headers about a body or another protocol
is parsed by llhttp as well, and refused if the two disagree.
"""

# mypyc: compile

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import httptools

from waitroom.bounded import bounded_lru_cache
from waitroom.edge.http.caching import forbids_storing, is_targeted
from waitroom.edge.http.fields import Field, FieldCache, HeaderBlock
from waitroom.errors import WaitroomError
from waitroom.net.authority import parse_authority, same_authority

if TYPE_CHECKING:
    from waitroom.gate import Kind

# The names and values of a chunked body's trailer fields.
Trailers: TypeAlias = list[tuple[bytes, bytes]]

# Some shops cut a target at a "#", others don't: the gate must see the same target as they do.
REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]{0,31}) ([\x21\x22\x24-\x7e\x80-\xff]+) HTTP/1\.([01])")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)(.*)\Z", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS = {b"http": 80, b"https": 443}
_NO_OPTIONS: frozenset[bytes] = frozenset()
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")

MAX_TARGET_BYTES = 32768
MAX_HEADERS = 200
# TRACE would reveal to a script cookies it can't read, and headers meant only for the shop.
_REFUSED_METHODS = (b"CONNECT", b"TRACE")

# The request headers read here; the others are only forwarded to the shop.
_REQUEST_READ = frozenset(
    (
        *(b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"accept"),
        *(b"accept-language", b"origin", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-site"),
        *(b"sec-purpose", b"purpose", b"x-purpose", b"x-moz", b"x-forwarded-uri", b"x-original-uri"),
        *(b"access-control-request-method", b"access-control-request-headers"),
        *(b"waitroom-ticket", b"waitroom-pass", b"waitroom-arrival", b"waitroom-shown", b"user-agent"),
        *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"),
        *(b"x-forwarded-method", b"x-original-method", b"x-original-url"),
    )
)
_NEGOTIATION_FIELDS = frozenset(
    (
        *(b"accept", b"accept-language", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-site"),
        *(b"sec-purpose", b"purpose", b"x-purpose", b"x-moz"),
    )
)
_RESPONSE_READ = frozenset(
    (b"content-length", b"transfer-encoding", b"connection", b"cache-control", b"waitroom-command", b"date")
)
_SINGLETONS = (b"host", b"content-length", b"transfer-encoding")
_HTTP_PROTOCOLS = (b"h2", b"h3", b"http", b"tls")
_CROSS_CHECKED = (b"content-length", b"transfer-encoding", b"upgrade")

_REQUEST_FIELDS = FieldCache(
    frozenset(
        (
            *(b"cookie", b"authorization", b"proxy-authorization", b"referer"),
            *(b"waitroom-ticket", b"waitroom-pass", b"waitroom-arrival", b"waitroom-shown"),
        )
    )
)
_RESPONSE_FIELDS = FieldCache(frozenset((b"set-cookie", b"location", b"etag", b"date", b"waitroom-command")))


class MalformedError(WaitroomError):
    """A message that is ambiguous, too large or not HTTP.

    Args:
        status: The status of the response to a client that sent it.
        reason: A few plain words for the log and the response.
    """

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


class Request:
    """The head of a request, without its cookies: requests that differ in nothing else share it.

    Nothing in it changes after parsing. Values derived from it are stored here, so that they are derived once for all
    these requests.

    Attributes:
        method, target: As sent; of an absolute target only the part after the host.
        path: The target up to its query.
        http10: Whether the client speaks HTTP/1.0.
        headers: The header lines without the cookies, in their order.
        cookies_at: How many of them precede the first Cookie header.
        fields: The headers read here, by lower-case name; several values of one name are joined by ", ".
        content_length: Bytes of the body, None if it has no length.
        chunked: Whether the body is chunked.
        has_body: Whether a body follows the head.
        keep_alive: Whether the client wants to keep the connection open.
        connection: The lower-case options of the Connection header.
        upgrade: The protocol the client wants to change to, or None.
        expects_continue: Whether the client waits for ``100 Continue`` before it sends the body.
        kind: Derived: the kind of request.
        handler: Derived: the handler of such requests, called with the client's connection and the request.
        forward_headers: Derived: the headers to forward to the shop, those before the cookies and those after; from an
            untrusted peer (0), from a trusted proxy (1), and from one that sends Forwarded (2).
    """

    __slots__ = (
        *("method", "target", "path", "http10", "headers", "cookies_at", "fields", "content_length", "chunked"),
        *("has_body", "keep_alive", "connection", "upgrade", "expects_continue", "kind", "handler", "forward_headers"),
    )

    def __init__(
        self, method: bytes, target: bytes, http10: bool, headers: Sequence[Field], cookies_at: int = 0
    ) -> None:
        self.method = method
        self.target = target
        self.http10 = http10
        self.headers = headers
        self.cookies_at = cookies_at
        self.fields: dict[bytes, bytes] = {}
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = not http10
        self.connection = _NO_OPTIONS
        self.kind: Kind | None = None
        self.handler: Callable[[Any, Request], None] | None = None
        self.forward_headers: dict[int, tuple[HeaderBlock, HeaderBlock]] = {}
        self._read_fields()
        if b"connection" in self.fields:
            self.connection = options(self.fields[b"connection"])
            self.keep_alive = b"close" not in self.connection and (not http10 or b"keep-alive" in self.connection)
        self._read_framing()
        self._read_target()
        self.path = self.target.partition(b"?")[0]
        self.upgrade = self._read_upgrade()
        self.expects_continue = not http10 and b"expect" in self.fields

    def _read_upgrade(self) -> bytes | None:
        """The protocol the client wants to change to.

        Protocols that carry HTTP are left out: in such a tunnel, requests would reach the shop without passing the
        gate.
        """
        wanted = self.fields.get(b"upgrade")
        if wanted is None or b"upgrade" not in self.connection or self.http10 or self.has_body:
            return None
        if not options(wanted) or self.method != b"GET" or carries_http(wanted):
            return None
        return wanted

    def _read_fields(self) -> None:
        fields = self.fields
        for field in self.headers:
            lower = field.lower
            if lower in _REQUEST_READ:
                value = field.value
                if lower in fields:
                    if lower in _SINGLETONS:
                        raise MalformedError(400, f"duplicate {field.name.decode('latin-1')} header")
                    value = fields[lower] + b", " + value
                fields[lower] = value

    def _read_framing(self) -> None:
        fields = self.fields
        length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
        if coding is not None:
            if length is not None:
                raise MalformedError(400, "both Content-Length and Transfer-Encoding")
            if self.http10 or coding.lower() != b"chunked":
                raise MalformedError(400, "unsupported Transfer-Encoding")
            self.chunked = True
        elif length is not None:
            if not _DIGITS.match(length):
                raise MalformedError(400, "invalid Content-Length")
            self.content_length = int(length)
        self.has_body = self.chunked or bool(self.content_length)
        expect = fields.get(b"expect")
        if expect is not None and expect.lower() != b"100-continue":
            raise MalformedError(417, "unsupported expectation")

    def _read_target(self) -> None:
        host = self.fields.get(b"host")
        if host is None:
            if not self.http10:
                raise MalformedError(400, "missing Host header")
        elif host and parse_authority(host) is None:
            raise MalformedError(400, "invalid Host header")
        target = self.target
        if len(target) > MAX_TARGET_BYTES:
            raise MalformedError(414, "request target too long")
        if target[:1] == b"/" or (target == b"*" and self.method == b"OPTIONS"):
            return
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise MalformedError(400, "invalid request target")
        if host is None or not same_authority(absolute[2], host, _DEFAULT_PORTS[absolute[1].lower()]):
            raise MalformedError(400, "request target and Host header name different hosts")
        rest = absolute[3]
        self.target = rest if rest[:1] == b"/" else b"/" + rest


class Response:
    """The head of an upstream's response.

    Attributes:
        status: The code; ``reason`` is the text after it, as sent.
        http10: Whether the upstream speaks HTTP/1.0.
        headers: The header lines, in their order.
        content_length, chunked: How the body is framed; if neither is set, it ends when the upstream closes.
        keep_alive: Whether the upstream keeps the connection open.
        connection: The lower-case options of the Connection header.
        cache_control: The Cache-Control header, or empty.
        uncacheable: Whether no shared cache may store the response, either by Cache-Control or by a header that
            overrides it.
        commands: The shop's commands to the gateway in ``Waitroom-Command``, or empty.
        dated: Whether there is a Date header.
        date_at: How many header lines precede it, if that is kept separately.
        forward_headers: Derived, see `Request`: the headers to forward to the client, those before the date and those
            after, by whether caches are forbidden to store them.
    """

    __slots__ = (
        *("status", "reason", "http10", "headers", "content_length", "chunked", "keep_alive", "connection"),
        *("cache_control", "commands", "dated", "date_at", "forward_headers", "uncacheable"),
    )

    def __init__(
        self,
        status: int,
        reason: bytes,
        http10: bool,
        headers: Sequence[Field],
        *,
        dated: bool = False,
        date_at: int = 0,
    ) -> None:
        self.status = status
        self.reason = reason
        self.http10 = http10
        self.headers = headers
        self.content_length: int | None = None
        self.chunked = False
        self.cache_control = b""
        self.commands = b""
        targeted = False
        self.dated = dated
        self.date_at = date_at
        self.forward_headers: dict[bool, tuple[HeaderBlock, HeaderBlock]] = {}
        connection: list[bytes] = []
        for field in headers:
            if field.lower in _RESPONSE_READ:
                self._read(field, connection)
            elif is_targeted(field.lower):
                targeted = targeted or not forbids_storing(field.lower, field.value)
        self._check_framing()
        self.uncacheable = not targeted and forbids_storing(b"cache-control", self.cache_control)
        self.connection = options(b",".join(connection)) if connection else _NO_OPTIONS
        self.keep_alive = b"close" not in self.connection and (not http10 or b"keep-alive" in self.connection)

    def _read(self, field: Field, connection: list[bytes]) -> None:
        value = field.value
        match field.lower:
            case b"content-length":
                self._read_length(value)
            case b"transfer-encoding":
                if self.chunked or value.lower() != b"chunked" or self.http10:
                    raise MalformedError(502, "unsupported Transfer-Encoding")
                self.chunked = True
            case b"connection":
                connection.append(value)
            case b"date":
                self.dated = True
            case b"cache-control":
                self.cache_control += b"," + value
            case _:
                self.commands += b"," + value

    def _check_framing(self) -> None:
        # In a method of its own: after __init__ assigns None, mypyc narrows the attribute to None for the rest of it.
        if self.chunked and self.content_length is not None:
            raise MalformedError(502, "both Content-Length and Transfer-Encoding")

    def _read_length(self, value: bytes) -> None:
        if not _DIGITS.match(value):
            raise MalformedError(502, "invalid Content-Length")
        if self.content_length is not None:
            raise MalformedError(502, "duplicate Content-Length header")
        self.content_length = int(value)

    @property
    def bodiless(self) -> bool:
        """Whether this status never has a body."""
        return self.status < 200 or self.status in (204, 304)


@bounded_lru_cache(256, longest=512)
def options(value: bytes) -> frozenset[bytes]:
    """The lower-case members of a comma-separated list."""
    return frozenset(part for piece in value.lower().split(b",") if (part := piece.strip(b" \t")))


def carries_http(upgrade: bytes) -> bool:
    """Whether an Upgrade header names a protocol that carries HTTP."""
    return any(one.startswith(_HTTP_PROTOCOLS) for one in options(upgrade))


def peek_head(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The method and some fields of a refused head, which decide the form of the response. For nothing else."""
    start, *lines = head.split(b"\r\n")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() in _NEGOTIATION_FIELDS:
            fields.setdefault(name.lower(), value.strip(b" \t"))
    return start.partition(b" ")[0], fields


class _LlhttpResult:
    """The result of parsing a head with llhttp."""

    __slots__ = ("count", "target")

    def __init__(self) -> None:
        self.target = b""
        self.count = 0

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.count += 1


def parse_request(head: bytes) -> tuple[Request, Sequence[bytes]]:
    """Parses a request's head, up to and including its empty line; returns it and the values of its Cookie headers.

    Raises:
        MalformedError: It isn't a request that may be forwarded.
    """
    start, *lines, _, _ = head.split(b"\r\n")
    found = REQUEST_LINE.fullmatch(start)
    fields = _REQUEST_FIELDS.parse(lines)
    if found is None or fields is None:
        raise MalformedError(400, "malformed request head")
    method, target, minor = found.groups()
    if method in _REFUSED_METHODS:
        raise MalformedError(405, "method not allowed")
    if len(fields) > MAX_HEADERS:
        raise MalformedError(431, "too many headers")
    cookies = [field.value for field in fields if field.lower == b"cookie"]
    cookies_at = 0
    if cookies:
        cookies_at = next(index for index, field in enumerate(fields) if field.lower == b"cookie")
        fields = [field for field in fields if field.lower != b"cookie"]
    request = Request(method, target, minor == b"0", fields, cookies_at)
    if any(name in request.fields for name in _CROSS_CHECKED):
        _cross_check(head, method, target, len(fields) + len(cookies))
    return request, cookies


def _cross_check(head: bytes, method: bytes, target: bytes, count: int) -> None:
    result = _LlhttpResult()
    parser = httptools.HttpRequestParser(result)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # whether to change protocols is decided later; the head is complete
    except httptools.HttpParserError as error:
        raise MalformedError(400, "malformed request head") from error
    if (parser.get_method(), result.target, result.count) != (method, target, count):
        raise MalformedError(400, "malformed request head")


def parse_response(head: bytes) -> Response:
    """Parses a response's head, up to and including its empty line. Raises `MalformedError`, with the status 502."""
    status, reason, http10, fields = response_parts(head)
    return Response(status, reason, http10, fields)


def response_parts(head: bytes) -> tuple[int, bytes, bool, Sequence[Field]]:
    """The arguments of `Response`, from a head with its empty line. Raises `MalformedError`, with the status 502."""
    start, *lines, _, _ = head.split(b"\r\n")
    found = STATUS_LINE.fullmatch(start)
    fields = _RESPONSE_FIELDS.parse(lines)
    if found is None or fields is None:
        raise MalformedError(502, "malformed response head")
    return int(found[2]), found[3] or b"", found[1] == b"0", fields
