"""Drops, keeps and adds headers of forwarded heads."""

# mypyc: compile

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from waitroom.bounded import bounded_lru_cache
from waitroom.edge.http.caching import controls_caches
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.message import Request, Response
from waitroom.net.authority import parse_authority
from waitroom.net.forwarded import (
    MAX_CHAIN_BYTES,
    MAX_FORWARDED_BYTES,
    NO_PROXIES,
    TrustedProxies,
    first_untrusted_hop,
    nearest_hops,
    parse_forwarded,
)
from waitroom.net.proxy_only_headers import OUR_PREFIX, is_proxy_only, plain_name

COOKIE_PREFIX: Final = b"waitroom_"
MAX_SAME_COOKIES: Final = 8
_QUOTE: Final = ord('"')
_SEMICOLON: Final = ord(";")

# RFC 9110, section 7.6.1: only for the next hop. Framing is rewritten; we have answered Expect.
_HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"te", b"upgrade"),
        *(b"proxy-authorization", b"proxy-authenticate", b"expect"),
    )
)
# Headers that only the gateway may send to the shop, besides all names of its own.
_OURS = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"))
_DROPPED_FROM_REQUESTS = _HOP_BY_HOP | _OURS
_DROPPED_WITH_FORWARDED = _DROPPED_FROM_REQUESTS | {b"forwarded"}
_DROPPED_FROM_RESPONSES = _HOP_BY_HOP | {b"waitroom-command"}
# A Connection header may name further ones, but must not make these disappear on the way to the shop.
_HARMLESS_OPTIONS = frozenset((b"keep-alive", b"close", b"upgrade"))
_NEVER_BY_CONNECTION = frozenset(
    (b"host", b"content-length", b"cookie", b"authorization", b"content-type", b"set-cookie", b"cache-control")
)
# None of these is forwarded under another name that shops treat as the same.
_NEVER_RESPELLED = _DROPPED_WITH_FORWARDED | _NEVER_BY_CONNECTION

_FORWARDED_NAMES: Final = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"))
_PROTO = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,15}\Z")
_SECURE = frozenset((b"https", b"wss"))


class ClientInfo(NamedTuple):
    """The client of a request, as far as the proxies that forwarded it are trusted to name it.

    Attributes:
        address: The visitor's address.
        proto: The protocol of their browser: ``https`` or ``http``, or another word used by a proxy.
        host: The host their browser asked for, with its port; empty if it named none.
        hops: The addresses before the peer's, for X-Forwarded-For; only the nearest of a long chain.
    """

    address: str
    proto: bytes
    host: bytes
    hops: bytes = b""

    def with_forwarded(self, address: str, proto: bytes | None, host: bytes | None, hops: bytes) -> ClientInfo:
        """A copy with the values that proxies stated; missing or invalid ones stay as they are."""
        proto = proto if proto and _PROTO.match(proto) else self.proto
        known = host is not None and parse_authority(host) is not None
        return ClientInfo(address, proto, host if host is not None and known else self.host, hops)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a client connection.

    Attributes:
        address: The address given by the socket or the PROXY protocol.
        trusted: Whether it is one of ``trusted_proxies``.
        tls: Whether this connection is encrypted.
        proxies: The proxies trusted to name the hops before them.
    """

    address: str
    trusted: bool
    tls: bool = False
    proxies: TrustedProxies = NO_PROXIES

    def is_secure(self, request: Request) -> bool:
        """Whether the visitor's browser uses HTTPS."""
        return self.client_info(request).proto.lower() in _SECURE if self.trusted else self.tls

    def client_info(self, request: Request) -> ClientInfo:
        """The client of a request.

        A proxy uses one of two dialects. If it sends any X-Forwarded header, it doesn't set Forwarded: that header was
        made up by the visitor and passed on.
        """
        fields = request.fields
        own = ClientInfo(self.address, b"https" if self.tls else b"http", fields.get(b"host", b""))
        if not self.trusted:
            return own
        if not _FORWARDED_NAMES.isdisjoint(fields):
            hops = fields.get(b"x-forwarded-for", b"")
            proto = fields.get(b"x-forwarded-proto", b"").partition(b",")[0].strip(b" \t")
            host = fields.get(b"x-forwarded-host", b"").partition(b",")[0].strip(b" \t")
            address = self.proxies.client(hops, self.address)
            return own.with_forwarded(address, proto, host, nearest_hops(hops, MAX_CHAIN_BYTES))
        forwarded = parse_forwarded(fields[b"forwarded"]) if b"forwarded" in fields else None
        if not forwarded:
            return own
        addresses = [hop.address for hop in forwarded]
        address, index = first_untrusted_hop(addresses, self.address, self.proxies.__contains__)
        hops = b", ".join((address or "unknown").encode() for address in addresses)
        # A hop before an untrusted one could have been made up by anybody.
        return own.with_forwarded(address, forwarded[index].proto, forwarded[index].host, hops)


def gateway_cookies(cookies: Sequence[bytes], name: bytes) -> list[bytes]:
    """The values of one of our cookies in a request's Cookie headers, in order; at most `MAX_SAME_COOKIES`.

    A neighbouring site can set a cookie of the same name for a common parent domain, and browsers send both.

    Args:
        cookies: The headers' values.
        name: The cookie's name, followed by an equals sign.
    """
    found: list[bytes] = []
    for header in cookies:
        at = header.find(name)
        while at >= 0:
            before = at - 1
            while before >= 0 and header[before] in b" \t":
                before -= 1
            at += len(name)
            if before < 0 or header[before] == _SEMICOLON:  # it is a pair's name, not in the middle of another
                end = header.find(b";", at)
                value = header[at:] if end < 0 else header[at:end]
                if value and (value[-1] <= _QUOTE or value[0] == _QUOTE):  # no token has a character up to the quote
                    value = value.rstrip(b" \t").strip(b'"')
                if value and (not found or (value not in found and len(found) < MAX_SAME_COOKIES)):
                    found.append(value)
                if end < 0:
                    break
                at = end
            at = header.find(name, at)
    return found


def gateway_tokens(cookies: Sequence[bytes], name: bytes, header: bytes | None) -> list[bytes]:
    """The tokens of one kind in a request: from our cookies and the header that apps send, each within the bound.

    Args:
        cookies: The values of the Cookie headers.
        name: The cookie's name, followed by an equals sign.
        header: The value of the header; several headers are joined by commas.
    """
    found = gateway_cookies(cookies, name)
    if header is not None:
        found += [value.strip(b" \t") for value in header.split(b",", MAX_SAME_COOKIES)[:MAX_SAME_COOKIES]]
    return found


@bounded_lru_cache(4096, longest=2048)
def shop_cookies(header: bytes) -> HeaderBlock:
    """The Cookie header without our cookies; empty if nothing is left.

    A visitor sends the same header with every part of a page.
    """
    if COOKIE_PREFIX in header:
        pieces = [pair for piece in header.split(b";") if (pair := piece.strip(b" \t"))]
        header = b"; ".join([pair for pair in pieces if not pair.startswith(COOKIE_PREFIX)])
    return b"Cookie: %b\r\n" % header if header else b""


def request_headers(request: Request, cookies: Sequence[bytes], peer: Peer) -> HeaderBlock:
    """The headers to forward to the shop, in their order; the caller adds framing, session and upgrade."""
    trust = 0
    if peer.trusted:
        trust = 2 if _forwards_forwarded(request, peer) else 1
    kept = request.forward_headers.get(trust)
    if kept is None:
        kept = request.forward_headers[trust] = _filter_request_headers(request, peer, trust == 2)
    if len(cookies) == 1:
        return kept[0] + shop_cookies(cookies[0]) + kept[1]
    return b"".join((kept[0], *[shop_cookies(header) for header in cookies], kept[1]))


def _filter_request_headers(request: Request, peer: Peer, forwarded: bool) -> tuple[HeaderBlock, HeaderBlock]:
    dropped = _DROPPED_FROM_REQUESTS if forwarded else _DROPPED_WITH_FORWARDED
    named = request.connection - _HARMLESS_OPTIONS
    if named:
        dropped = dropped | (named - _NEVER_BY_CONNECTION)
    kept = [b"" if field.lower in dropped or _is_forged(field.lower, peer) else field.line for field in request.headers]
    return b"".join(kept[: request.cookies_at]), b"".join(kept[request.cookies_at :])


def _is_forged(lower: bytes, peer: Peer) -> bool:
    """Whether a header, under any name that shops treat as the same, states what this peer isn't trusted to state."""
    name = plain_name(lower)
    if name.startswith(OUR_PREFIX) or (name != lower and name in _NEVER_RESPELLED):
        return True
    return not peer.trusted and is_proxy_only(name) and name not in peer.proxies.kept_headers


def forwarding_headers(request: Request, peer: Peer) -> HeaderBlock:
    """The forwarding headers; those sent by an untrusted client are ignored."""
    if not peer.trusted:
        return _direct_headers(peer.address, b"https" if peer.tls else b"http", request.fields.get(b"host", b""))
    info = peer.client_info(request)
    address = peer.address.encode("latin-1")
    chain = info.hops + b", " + address if info.hops else address
    headers = _format_headers(chain, info.proto, info.host)
    if _forwards_forwarded(request, peer):
        headers += b'Forwarded: for="[%b]"\r\n' % address if b":" in address else b"Forwarded: for=%b\r\n" % address
    return headers


@lru_cache(4096)
def _direct_headers(address: str, proto: bytes, host: bytes) -> HeaderBlock:
    """The forwarding headers for a visitor who uses no proxy: the same with each request."""
    return _format_headers(address.encode("latin-1"), proto, host)


def _format_headers(chain: bytes, proto: bytes, host: bytes) -> HeaderBlock:
    headers = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (chain, proto)
    return headers + b"X-Forwarded-Host: %b\r\n" % host if host else headers


def _forwards_forwarded(request: Request, peer: Peer) -> bool:
    """Whether the Forwarded header is a trusted proxy's own, see `Peer.client_info`, and short enough to forward."""
    fields = request.fields
    if not peer.trusted or b"forwarded" not in fields or len(fields[b"forwarded"]) > MAX_FORWARDED_BYTES:
        return False
    return _FORWARDED_NAMES.isdisjoint(fields)


def response_headers(response: Response, date: HeaderBlock, *, private: bool) -> HeaderBlock:
    """The headers to forward to the client.

    Args:
        response: The shop's response.
        date: Its Date header, if that is kept separately.
        private: Whether to forbid caches to store it, whatever the shop's headers allow.
    """
    kept = response.forward_headers.get(private)
    if kept is None:
        kept = response.forward_headers[private] = _filter_response_headers(response, private)
    return kept[0] + date + kept[1]


def _filter_response_headers(response: Response, private: bool) -> tuple[HeaderBlock, HeaderBlock]:
    dropped = _DROPPED_FROM_RESPONSES
    named = response.connection - _HARMLESS_OPTIONS
    if named:
        dropped = dropped | (named - _NEVER_BY_CONNECTION)
    if response.chunked or (response.bodiless and response.status != 304):
        dropped = dropped | {b"content-length"}
    kept = [
        b"" if field.lower in dropped or (private and controls_caches(field.lower)) else field.line
        for field in response.headers
    ]
    before, behind = b"".join(kept[: response.date_at]), b"".join(kept[response.date_at :])
    return before, behind + b"Cache-Control: private, no-store\r\n" if private else behind


def set_cookie(name: str, value: str, *, secure: bool, max_age: int) -> HeaderBlock:
    """A Set-Cookie header. Over HTTPS also sent cross-site: payment providers send buyers back by POST."""
    site = "SameSite=None; Secure" if secure else "SameSite=Lax"
    return f"Set-Cookie: {name}={value}; Path=/; Max-Age={max_age}; HttpOnly; {site}\r\n".encode("latin-1")
