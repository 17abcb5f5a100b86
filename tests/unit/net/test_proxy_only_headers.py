"""Headers that could redirect a request are dropped unless the peer is a trusted proxy, in every spelling."""

from __future__ import annotations

import pytest

from waitroom.edge.http.framing import ChunkedBody
from waitroom.edge.http.headers import Peer, request_headers
from waitroom.edge.http.message import parse_request
from waitroom.net.forwarded import TrustedProxies

MOVING = [
    # A path, a method or a host.
    *("X-Original-URL", "X-Original-URI", "X-Original-Method", "X-Original-Host", "X-Original-Forwarded-For"),
    *("X-Rewrite-URL", "X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Path-Override"),
    *("X-Host", "X-HTTP-Host-Override", "X-Script-Name", "Path-Info", "X-Envoy-Original-Path", "X-Sendfile-Type"),
    # Where it comes from.
    *("X-Forwarded", "X-Forwarded-Prefix", "X-Forwarded-Port", "X-Forwarded-Ssl", "X-Forwarded-Server"),
    *("X-Forwarded-Scheme", "X-Forwarded-Path", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-User"),
    *("X-Forwarded-Client-Cert", "X-Forward-For", "X-Forwarder-For", "Forwarded-For", "Forwarded", "X-Real-IP"),
    *("X-Client-IP", "Client-IP", "X-Cluster-Client-IP", "True-Client-IP", "CF-Connecting-IP", "CF-Visitor"),
    *("Fastly-Client-IP", "X-Envoy-External-Address", "X-Originating-IP", "X-Remote-IP", "X-Remote-Addr"),
    *("WL-Proxy-Client-IP", "X-Azure-ClientIP", "X-Appengine-User-IP", "Front-End-Https", "X-Scheme"),
    # The user.
    *("Remote-User", "Remote-Addr", "Remote-Groups", "X-Remote-User", "SSL-Client-Cert", "SSL-Client-S-DN"),
    *("X-SSL-Client-Verify", "X-SSL-Cert", "X-Client-Cert", "Client-Cert", "Client-Cert-Chain", "X-Auth-Request-User"),
    "Proxy",
]
OURS = ["Waitroom-Session", "Waitroom-Room", "Waitroom-Proof", "Waitroom-Anything"]
# Shops use them, and visitors' browsers and apps send them.
KEPT = [
    *("Accept", "Origin", "Referer", "User-Agent", "X-Requested-With", "X-CSRF-Token", "X-Api-Key", "X-Client-Version"),
    *(
        "X-Client-Data",
        "X-HTTP-Version",
        "X-Hostname",
        "X-Realtime",
        "X-SSLess",
        "Proxyish",
        "Remotely",
        "Via",
        "X-Https2",
    ),
    *(
        "Forwarder",
        "Early-Data",
        "Upgrade-Insecure-Requests",
        "DNT",
        "Sec-GPC",
        "X-Original0",
        "Waitroom",
        "Authorization",
    ),
]
TRUSTED = TrustedProxies(["10.0.0.0/8"])
VISITOR = Peer("203.0.113.9", trusted=False, proxies=TRUSTED)
PROXY = Peer("10.0.0.1", trusted=True, proxies=TRUSTED)


def sent_on(*names: str, peer: Peer) -> list[str]:
    lines = b"".join(b"%b: 1\r\n" % name.encode() for name in names)
    request, cookies = parse_request(b"GET / HTTP/1.1\r\nHost: shop\r\n%b\r\n" % lines)
    _, *kept, _ = request_headers(request, cookies, peer).decode().split("\r\n")
    return [line.partition(":")[0] for line in kept]


def spellings(name: str) -> list[str]:
    return [name, name.lower(), name.upper(), *(name.replace("-", other) for other in ("_", ".", "!", "~"))]


@pytest.mark.parametrize("name", MOVING)
def test_rewriting_headers_of_visitors_are_dropped(name):
    assert sent_on("A", *spellings(name), "B", peer=VISITOR) == ["A", "B"]


@pytest.mark.parametrize("name", [name for name in MOVING if name != "Forwarded"])
def test_rewriting_headers_of_trusted_proxies_are_kept(name):
    assert sent_on(name, name.lower(), peer=PROXY) == [name, name.lower()]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("peer", [VISITOR, PROXY])
def test_gateway_headers_are_dropped_from_everybody(name, peer):
    assert sent_on("A", *spellings(name), peer=peer) == ["A"]


@pytest.mark.parametrize("peer", [VISITOR, PROXY])
def test_other_headers_are_kept_in_every_spelling(peer):
    for name in KEPT:
        assert sent_on(*spellings(name), peer=peer) == spellings(name)


def test_keep_headers_applies_to_every_spelling():
    kept = TrustedProxies(
        [], ["X-HTTP-Method-Override", "x_real_ip", "Waitroom-Session", "X-Forwarded-For", "Forwarded"]
    )
    peer = Peer("203.0.113.9", trusted=False, proxies=kept)
    assert sent_on("x-http-method-override", "X_HTTP_Method_Override", "X-HTTP-Method", "X-Real-IP", peer=peer) == [
        *("x-http-method-override", "X_HTTP_Method_Override", "X-Real-IP")
    ]
    assert sent_on("Waitroom-Session", "X-Forwarded-For", "Forwarded", "X_Forwarded_For", peer=peer) == []


def test_shared_heads_depend_on_the_sender():
    """Recurring heads are parsed once, for visitors and proxies alike."""
    request, cookies = parse_request(b"GET / HTTP/1.1\r\nHost: shop\r\nX-Real-IP: 1.1.1.1\r\n\r\n")
    for _ in range(2):
        assert b"X-Real-IP" in request_headers(request, cookies, PROXY)
        assert b"X-Real-IP" not in request_headers(request, cookies, VISITOR)


@pytest.mark.parametrize("name", ["X-Real-IP", "Waitroom-Proof", "CDN-Cache-Control", "Expires", "x_original_url"])
def test_rewriting_headers_are_dropped_from_trailers(name):
    body = ChunkedBody(400)
    body.feed(b"0\r\n%b: 1\r\nX: y\r\n\r\n" % name.encode())
    assert body.trailers == [(b"X", b"y")]
