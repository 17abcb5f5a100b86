"""The origin of a request to the admin listener, as reported by trusted proxies."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from waitroom.net.forwarded import TrustedProxies, first_untrusted_hop, parse_forwarded, plain_address

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_PATH_LENGTH = 2048

# Headers that proxies add. A local connection with any of these is not a client on this machine.
_FORWARDING_HEADERS = (
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Server", "X-Real-Ip"),
    *("Forwarded", "Via"),
)


class RequestSource(NamedTuple):
    """The origin of a request.

    Attributes:
        address: The client's address, in its shortest form; empty if unknown.
        secure: Whether the client's browser uses HTTPS.
        is_local: Whether the client is on this machine, and not behind a proxy on it.
    """

    address: str
    secure: bool
    is_local: bool


def request_source(request: web.Request, trusted: TrustedProxies) -> RequestSource:
    """Returns the origin of a request. Only ``trusted_proxies`` are believed."""
    peer = plain_address(request.remote or "") or ""
    forwarded = any(name in request.headers for name in _FORWARDING_HEADERS)
    if not forwarded:
        return RequestSource(peer, request.secure, bool(peer) and ipaddress.ip_address(peer).is_loopback)
    if peer not in trusted:
        return RequestSource(peer, request.secure, is_local=False)
    if any(name.startswith("X-Forwarded") and name in request.headers for name in _FORWARDING_HEADERS):
        hops = ",".join(request.headers.getall("X-Forwarded-For", []))
        proto = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
        address = trusted.client(hops.encode("latin-1", "replace"), peer)
        return RequestSource(address, proto.lower() == "https" or request.secure, is_local=False)
    elements = parse_forwarded(",".join(request.headers.getall("Forwarded", [])).encode("latin-1", "replace"))
    if not elements:
        return RequestSource(peer, request.secure, is_local=False)
    address, index = first_untrusted_hop([hop.address for hop in elements], peer, trusted.__contains__)
    secure = index < len(elements) and (elements[index].proto or b"").lower() == b"https"
    return RequestSource(address, secure or request.secure, is_local=False)


def is_same_origin(request: web.Request, secure: bool) -> bool | None:
    """Whether a page of this listener sent a request; None if the browser doesn't say.

    Browsers set both headers themselves; pages can't. On a page with a no-referrer policy, Origin is ``null`` even for
    its own forms, so that value is ignored.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is None and origin is None:
        return None
    if site is not None and site != "same-origin":
        return False
    if origin is None or (origin == "null" and site is not None):
        return True
    scheme, _, host = origin.partition("://")
    return (scheme == "https" or (scheme == "http" and not secure)) and host.lower() == request.host.lower()


def safe_path(target: str) -> str:
    """Returns the path to redirect to after a login: the requested one, or ``/`` if it might lead elsewhere."""
    if not target.startswith("/") or target.startswith("//") or len(target) > MAX_PATH_LENGTH:
        return "/"
    if any(character <= " " or character in "\\\x7f" for character in target):
        return "/"  # browsers drop some of these, and the rest may begin with two slashes
    if urlsplit(target).path in {"/login", "/logout"}:
        return "/"
    return target
