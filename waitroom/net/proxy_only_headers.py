"""Headers that only proxies may set: they could redirect a request to another path, method, host, address or user.

Shops trust these headers, because in their own networks only a proxy sends them. From other peers they are forged: a
path that the gateway has not seen, or an address that no limit counts. docs/headers.md lists them.
"""

# mypyc: compile

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_NOT_ALPHANUMERIC = re.compile(rb"[^0-9a-z]")
OUR_PREFIX: Final = b"waitroom-"

# Whole names, and prefixes of names before a hyphen.
_PROXY_ONLY: Final = frozenset(
    (
        # The path, the method and the host that a proxy rewrote.
        *(b"x-original", b"x-rewrite", b"x-http-method", b"x-method-override", b"x-http-host-override"),
        *(b"x-http-path-override", b"x-http-destinationurl", b"x-override-url", b"x-host", b"x-backend-host"),
        *(b"x-proxy-url", b"x-script-name", b"script-name", b"path-info", b"x-envoy", b"x-accel", b"x-sendfile-type"),
        # The client's address and protocol.
        *(b"forwarded", b"x-real", b"x-client-ip", b"client-ip"),
        *(b"x-cluster-client-ip", b"true-client-ip", b"cf-connecting-ip", b"cf-connecting-ipv6", b"cf-pseudo-ipv4"),
        *(b"cf-ipcountry", b"cf-visitor", b"fastly-client", b"fastly-client-ip", b"fastly-ssl", b"fly-client-ip"),
        *(b"do-connecting-ip", b"x-nf-client-connection-ip", b"incap-client-ip", b"ali-cdn-real-ip"),
        *(b"x-originating-ip", b"x-custom-ip-authorization", b"x-proxyuser-ip", b"proxy-client-ip", b"http-client-ip"),
        *(b"wl-proxy", b"x-azure", b"x-appengine", b"x-arr", b"x-scheme", b"x-url-scheme", b"x-proto"),
        *(b"front-end-https", b"x-https"),
        # The user: a client certificate that a proxy verified, or a login it handled.
        *(b"x-remote", b"remote", b"x-ssl", b"ssl-client", b"x-client-cert", b"x-client-certificate"),
        *(
            b"x-client-verify",
            b"x-client-dn",
            b"client-cert",
            b"x-auth-request",
            b"x-authenticated",
            b"x-webauth",
            b"x-authentik",
        ),
        *(b"x-goog-authenticated", b"x-ms-client-principal", b"x-amzn-oidc"),
    )
)
# CGI passes it to programs as the environment variable HTTP_PROXY.
_PROXY: Final = b"proxy"
# X-Forwarded-For and all related headers.
_FORWARD: Final = b"x-forward"


def plain_name(lower: bytes) -> bytes:
    """A lower-case header name as seen by shops that treat each odd character as a hyphen, as CGI and WSGI do."""
    return _NOT_ALPHANUMERIC.sub(b"-", lower)


def plain_names(names: Iterable[str]) -> frozenset[bytes]:
    """`plain_name` of names in any case."""
    return frozenset(plain_name(name.lower().encode("ascii")) for name in names)


def is_proxy_only(name: bytes) -> bool:
    """Whether a header could redirect a request; such headers are dropped unless the peer is a trusted proxy.

    Args:
        name: As `plain_name` returns it.
    """
    if name == _PROXY or name in _PROXY_ONLY or name.startswith(_FORWARD):
        return True
    at = name.find(b"-")
    while at >= 0:
        if name[:at] in _PROXY_ONLY:
            return True
        at = name.find(b"-", at + 1)
    return False
