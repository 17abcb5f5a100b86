"""What is dropped from, kept in and added to the heads that go on."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from waitroom.edge.http1 import Request, Response

COOKIE_PREFIX = b"waitroom_"

# RFC 9110, section 7.6.1: meant for the next hop alone. Framing is written anew; Expect was answered by us.
_HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"te", b"upgrade"),
        *(b"proxy-authorization", b"proxy-authenticate", b"expect"),
    )
)
# What only we may say to the shop.
_OURS = frozenset(
    (
        *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"),
        *(b"waitroom-room", b"waitroom-session", b"waitroom-ticket", b"waitroom-pass"),
    )
)
_DROPPED_FROM_REQUESTS = _HOP_BY_HOP | _OURS | {b"cookie"}
_DROPPED_FROM_STRANGERS = _DROPPED_FROM_REQUESTS | {b"forwarded"}
_DROPPED_FROM_RESPONSES = _HOP_BY_HOP | {b"waitroom-command"}
_CACHING = frozenset((b"cache-control", b"expires", b"pragma"))
# A Connection header may name further ones, but not to make these vanish on the way to the shop.
_HARMLESS_OPTIONS = frozenset((b"keep-alive", b"close", b"upgrade"))
_NEVER_BY_CONNECTION = frozenset(
    (b"host", b"content-length", b"cookie", b"authorization", b"content-type", b"set-cookie", b"cache-control")
)

# Shops that speak CGI or WSGI take an underscore for a hyphen: under such a name nothing of these goes on.
_NEVER_WITH_UNDERSCORES = _DROPPED_FROM_STRANGERS | _NEVER_BY_CONNECTION

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """The addresses whose forwarding headers are believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(network, strict=False) for network in networks)

    def __contains__(self, address: str) -> bool:
        if not self._networks:
            return False
        try:
            parsed: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a client's connection.

    Attributes:
        address: As the socket tells it.
        trusted: Whether it is one of ``trusted_proxies``.
        tls: Whether this connection is encrypted.
    """

    address: str
    trusted: bool
    tls: bool = False

    def secure(self, request: Request) -> bool:
        """Whether the visitor's browser speaks HTTPS."""
        if self.trusted and b"x-forwarded-proto" in request.fields:
            return request.fields[b"x-forwarded-proto"].lower() == b"https"
        return self.tls


class Cookies(NamedTuple):
    """A request's Cookie headers, taken apart.

    Attributes:
        ours: Our cookies by name. Of several with one name the first counts, as browsers sort.
        line: The header line for the shop, without ours; empty where nothing is left.
    """

    ours: dict[bytes, bytes]
    line: bytes


@lru_cache(maxsize=4096)
def _cookies(header: bytes) -> Cookies:
    """Takes a Cookie header apart; a visitor sends the same one with everything a page consists of."""
    if COOKIE_PREFIX not in header:
        return Cookies({}, b"Cookie: %b\r\n" % header if header else b"")
    ours: dict[bytes, bytes] = {}
    rest: list[bytes] = []
    for piece in header.split(b";"):
        pair = piece.strip(b" \t")
        if pair.startswith(COOKIE_PREFIX):
            name, equals, value = pair.partition(b"=")
            if equals:
                ours.setdefault(name, value.strip(b'"'))
        elif pair:
            rest.append(pair)
    return Cookies(ours, b"Cookie: %b\r\n" % b"; ".join(rest) if rest else b"")


def own_cookies(cookies: Sequence[bytes]) -> dict[bytes, bytes]:
    """Our cookies among all of a request's, by name."""
    if len(cookies) == 1:
        return _cookies(cookies[0]).ours
    found: dict[bytes, bytes] = {}
    for header in cookies:
        found = _cookies(header).ours | found
    return found


def foreign_cookies(cookies: Sequence[bytes]) -> bytes:
    """The Cookie header lines without our cookies."""
    return b"".join([_cookies(header).line for header in cookies])


def request_lines(request: Request, peer: Peer) -> bytes:
    """The header lines that go on to the shop, in their order; framing, session and upgrade are added by the caller."""
    dropped = _DROPPED_FROM_REQUESTS if peer.trusted else _DROPPED_FROM_STRANGERS
    named = request.connection - _HARMLESS_OPTIONS
    if named:
        dropped = dropped | (named - _NEVER_BY_CONNECTION)
    kept: list[bytes] = []
    cookies_due = True
    for field in request.headers:
        lower = field.lower
        if lower not in dropped:
            if b"_" not in lower or lower.replace(b"_", b"-") not in _NEVER_WITH_UNDERSCORES:
                kept.append(field.line)
        elif lower == b"cookie" and cookies_due:
            kept.append(foreign_cookies(request.cookies))
            cookies_due = False
    return b"".join(kept)


def forwarded_lines(request: Request, peer: Peer) -> bytes:
    """The forwarding headers; what a client that isn't trusted sent under these names is not believed."""
    address = peer.address.encode("latin-1")
    proto = b"https" if peer.tls else b"http"
    host = request.fields.get(b"host", b"")
    if peer.trusted:
        fields = request.fields
        if b"x-forwarded-for" in fields:
            address = fields[b"x-forwarded-for"] + b", " + address
        proto = fields.get(b"x-forwarded-proto", proto)
        host = fields.get(b"x-forwarded-host", host)
    lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (address, proto)
    return lines + b"X-Forwarded-Host: %b\r\n" % host if host else lines


def response_lines(response: Response, *, private: bool) -> bytes:
    """The header lines that go on to the client. ``private``: no cache may keep it, whatever the shop says."""
    dropped = _DROPPED_FROM_RESPONSES
    named = response.connection - _HARMLESS_OPTIONS
    if named:
        dropped = dropped | (named - _NEVER_BY_CONNECTION)
    if response.chunked or (response.bodiless and response.status != 304):
        dropped = dropped | {b"content-length"}
    if not private:
        return b"".join([field.line for field in response.headers if field.lower not in dropped])
    dropped = dropped | _CACHING
    kept = b"".join([field.line for field in response.headers if field.lower not in dropped])
    return kept + b"Cache-Control: private, no-store\r\n"


def set_cookie(name: str, value: str, *, secure: bool, max_age: int) -> bytes:
    """A Set-Cookie line. Over HTTPS it goes on cross-site requests too: payment providers send buyers back by POST."""
    site = "SameSite=None; Secure" if secure else "SameSite=Lax"
    return f"Set-Cookie: {name}={value}; Path=/; Max-Age={max_age}; HttpOnly; {site}\r\n".encode("latin-1")
