"""Forward-auth: reads the request that another proxy asks about from the headers it adds, or from the check's path.

Each proxy names the same facts in its own headers. A fact that is missing, named twice, contradictory or unreadable is
refused: a header that the proxy doesn't set may be the visitor's. Pure; the caller makes sure that the peer is trusted.
"""

# mypyc: compile

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from waitroom.edge.http.fields import Field
from waitroom.edge.http.message import MalformedError, Request, carries_http
from waitroom.errors import WaitroomError
from waitroom.gate import classify
from waitroom.net.authority import parse_authority, same_authority

CHECK: Final = b"/.waitroom/check"
_ANSWERS: Final = (b"?answer=", b";answer=")
# A request whose method no header names may be any: it is a page if it looks like one, and never safe.
UNKNOWN_METHOD: Final = b"UNKNOWN"

_METHOD = re.compile(rb"[A-Z][A-Z-]{0,31}\Z")
_REFUSED_METHODS: Final = (b"CONNECT", b"TRACE")
_TARGET = re.compile(rb"/[\x21\x22\x24-\x7e\x80-\xff]*\Z")
_URL = re.compile(rb"(https?)://([^/?#]*)(.*)\Z", re.DOTALL)
_SCHEMES: Final = {b"http": b"http", b"https": b"https", b"ws": b"http", b"wss": b"https"}
_SEPARATOR: Final = re.compile(rb"[/\\]")
_DEFAULT_PORTS: Final = {b"http": 80, b"https": 443}

# Headers of the check itself, and those from which the original request is read.
_LEFT_OUT: Final = frozenset(
    (
        *(b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"),
        *(b"x-forwarded-method", b"x-original-method", b"x-forwarded-uri", b"x-original-uri", b"x-original-url"),
    )
)

Fact = tuple[str, bytes]


class OriginalRequestError(WaitroomError):
    """The original request can't be read for certain.

    Args:
        reason: The problem, with the header's name.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def is_check(target: bytes) -> bool:
    """Whether a request's target is a check, perhaps with the original path behind it."""
    return target.startswith(CHECK) and target[len(CHECK) : len(CHECK) + 1] in (b"", b"/", b"?", b";")


def split_check(target: bytes) -> tuple[bytes, bytes | None]:
    """Splits a check's target into its query and the original target behind it, None if there is none.

    Proxies that append the original path make ``/.waitroom/check/sale?x=1`` of ``/sale?x=1``, and with the way of
    answering in the configured prefix ``/.waitroom/check?answer=page/sale?x=1``, or with a semicolon where the prefix
    may have no query. The query of the first is the visitor's.
    """
    rest = target[len(CHECK) :]
    if rest[:1] == b"/":
        return b"", rest
    if rest.startswith(_ANSWERS):
        at = rest.find(b"/")
        end = rest.find(b"&")
        if at >= 0 and (end < 0 or at < end):
            return rest[1:at], rest[at:]
    return rest[1:], None


def _leads_out(behind: bytes) -> bool:
    """Whether a path behind the check's address leads out of it, if a proxy resolves dot segments.

    Such a proxy keeps visitors from the check by the resolved path, but may send us the path as the visitor sent it.
    """
    path = behind.partition(b"?")[0]
    once = unquote_to_bytes(path)
    for one in (path, once, unquote_to_bytes(once)):
        depth = 0
        for segment in _SEPARATOR.split(one):
            name = segment.partition(b";")[0]
            if name == b"..":
                depth -= 1
            elif name not in (b"", b"."):
                depth += 1
            if depth < 0:
                return True
    return False


def read_original(check: Request) -> Request:
    """The original request of a check, or of a page that a proxy serves in place of the shop's.

    It is for decisions only: it has no body, and is never forwarded.

    Raises:
        OriginalRequestError: It can't be read for certain.
    """
    fields = check.fields
    behind = split_check(check.target)[1] if is_check(check.target) else None
    if behind is not None and _leads_out(behind):
        raise OriginalRequestError("the path leads out of the check")
    if carries_http(fields.get(b"upgrade", b"")):  # requests in such a tunnel would reach the shop without a check
        raise OriginalRequestError("Upgrade names a protocol that carries HTTP")
    url = _read_url(fields.get(b"x-original-url"))
    target = _read_target(fields, behind, url)
    method = _read_method(fields, None if behind is None else check.method)
    scheme = _read_scheme(fields, url)
    headers = [field for field in check.headers if field.lower not in _LEFT_OUT]
    headers.append(Field(b"Host", _read_host(fields, url)))
    if scheme and b"x-forwarded-proto" not in fields and b"forwarded" not in fields:
        headers.append(Field(b"X-Forwarded-Proto", scheme))
    if b"upgrade" in fields or any(field.lower == b"sec-websocket-key" for field in headers):
        headers += [Field(b"Connection", b"upgrade"), Field(b"Upgrade", fields.get(b"upgrade", b"websocket"))]
    try:
        original = Request(method, target, False, headers)
    except MalformedError as error:
        raise OriginalRequestError(error.reason) from error
    if method is UNKNOWN_METHOD:
        original.kind = classify(b"GET", original.fields)
    # The body stays with the proxy: a rule about bodies can only judge its type.
    original.has_body = method not in (b"GET", b"HEAD", b"OPTIONS")
    return original


def _read_url(value: bytes | None) -> tuple[bytes, bytes, bytes] | None:
    """Scheme, authority and target of X-Original-URL, which may also be a target only."""
    if value is None:
        return None
    if value[:1] == b"/":
        return b"", b"", value
    found = _URL.match(value)
    if found is None:
        raise OriginalRequestError("X-Original-URL isn't an address")
    rest = found[3]
    return found[1], found[2], rest if rest[:1] == b"/" else b"/" + rest


def _read_target(fields: dict[bytes, bytes], behind: bytes | None, url: tuple[bytes, bytes, bytes] | None) -> bytes:
    named = _named(fields, (("X-Forwarded-Uri", b"x-forwarded-uri"), ("X-Original-URI", b"x-original-uri")))
    if url is not None:
        named.append(("X-Original-URL", url[2]))
    if behind is not None:
        named.append(("the path", behind))
    if not named:
        raise OriginalRequestError("X-Forwarded-Uri is missing")
    target = _agreed(named)
    if not _TARGET.match(target):
        raise OriginalRequestError(f"{named[0][0]} isn't one path")
    return target


def _read_method(fields: dict[bytes, bytes], own: bytes | None) -> bytes:
    named = _named(fields, (("X-Forwarded-Method", b"x-forwarded-method"), ("X-Original-Method", b"x-original-method")))
    if own is not None:
        named.append(("the method", own))
    if not named:
        return UNKNOWN_METHOD
    method = _agreed(named)
    if not _METHOD.match(method) or method in _REFUSED_METHODS:
        raise OriginalRequestError(f"{named[0][0]} isn't a method that is allowed")
    return method


def _read_scheme(fields: dict[bytes, bytes], url: tuple[bytes, bytes, bytes] | None) -> bytes:
    named = _named(fields, (("X-Forwarded-Proto", b"x-forwarded-proto"),))
    for name, value in named:
        if value.lower() not in _SCHEMES:
            raise OriginalRequestError(f"{name} isn't http or https")
    named = [(name, _SCHEMES[value.lower()]) for name, value in named]
    if url is not None and url[0]:
        named.append(("X-Original-URL", url[0]))
    return _agreed(named) if named else b""


def _read_host(fields: dict[bytes, bytes], url: tuple[bytes, bytes, bytes] | None) -> bytes:
    named = _named(fields, (("X-Forwarded-Host", b"x-forwarded-host"),))
    if url is not None and url[1]:
        named.append(("X-Original-URL", url[1]))
    if not named:
        named = [("Host", fields.get(b"host", b""))]
    for name, value in named:
        if parse_authority(value) is None or b"," in value:
            raise OriginalRequestError(f"{name} isn't one host")
    port = _DEFAULT_PORTS.get(url[0], 80) if url is not None else 80
    for name, value in named[1:]:
        if not same_authority(named[0][1], value, port):
            raise OriginalRequestError(f"{named[0][0]} and {name} differ")
    return named[0][1]


def _named(fields: dict[bytes, bytes], names: Sequence[tuple[str, bytes]]) -> list[Fact]:
    """The values that are given, with the names of their headers."""
    return [(name, fields[lower]) for name, lower in names if lower in fields]


def _agreed(named: Sequence[Fact]) -> bytes:
    """The value that all headers give."""
    for name, value in named[1:]:
        if value != named[0][1]:
            raise OriginalRequestError(f"{named[0][0]} and {name} differ")
    return named[0][1]
