"""The origin of a request to the admin listener, as reported by trusted proxies."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from waitroom.net.forwarded import TrustedProxies, first_untrusted_hop, parse_forwarded, plain_address

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LONGEST_NEXT = 2048

# Headers that proxies add. A local connection with any of these is not a client on this machine.
_PASSED_ON = (
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Server", "X-Real-Ip"),
    *("Forwarded", "Via"),
)


class Whence(NamedTuple):
    """The origin of a request.

    Attributes:
        address: The client's address, in its shortest form; empty if unknown.
        secure: Whether the client's browser uses HTTPS.
        here: Whether the client is on this machine, and not behind a proxy on it.
    """

    address: str
    secure: bool
    here: bool


def whence(request: web.Request, trusted: TrustedProxies) -> Whence:
    """Returns the origin of a request. Only ``trusted_proxies`` are believed."""
    peer = plain_address(request.remote or "") or ""
    passed_on = any(name in request.headers for name in _PASSED_ON)
    if not passed_on:
        return Whence(peer, request.secure, bool(peer) and ipaddress.ip_address(peer).is_loopback)
    if peer not in trusted:
        return Whence(peer, request.secure, here=False)
    if any(name.startswith("X-Forwarded") and name in request.headers for name in _PASSED_ON):
        hops = ",".join(request.headers.getall("X-Forwarded-For", []))
        proto = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
        address = trusted.client(hops.encode("latin-1", "replace"), peer)
        return Whence(address, proto.lower() == "https" or request.secure, here=False)
    told = parse_forwarded(",".join(request.headers.getall("Forwarded", [])).encode("latin-1", "replace"))
    if not told:
        return Whence(peer, request.secure, here=False)
    address, index = first_untrusted_hop([hop.address for hop in told], peer, trusted.__contains__)
    secure = index < len(told) and (told[index].proto or b"").lower() == b"https"
    return Whence(address, secure or request.secure, here=False)


def from_own_page(request: web.Request, secure: bool) -> bool | None:
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


def own_path(target: str) -> str:
    """Returns the path to redirect to after a login: the requested one, or ``/`` if it might lead elsewhere."""
    if not target.startswith("/") or target.startswith("//") or len(target) > LONGEST_NEXT:
        return "/"
    if any(character <= " " or character in "\\\x7f" for character in target):
        return "/"  # browsers drop some of these, and the rest may begin with two slashes
    if urlsplit(target).path in {"/login", "/logout"}:
        return "/"
    return target
