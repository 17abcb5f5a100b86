"""The source of requests to the admin listener, and safe redirects after a login."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request

from waitroom.control.auth.request_source import RequestSource, is_same_origin, request_source, safe_path
from waitroom.net.forwarded import TrustedProxies

NOBODY = TrustedProxies(())
LOCAL_PROXY = TrustedProxies(["127.0.0.1", "10.0.0.0/8"])


def request(peer="127.0.0.1", *headers):
    transport = Mock()
    transport.get_extra_info = lambda name, default=None: (peer, 5000) if name == "peername" else default
    return make_mocked_request(
        "POST", "/", headers=[("Host", "10.1.1.1:8081"), *headers], transport=transport, sslcontext=None
    )


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_clients_are_local(peer):
    assert request_source(request(peer), NOBODY).is_local


@pytest.mark.parametrize("peer", ["10.0.0.9", "172.17.0.1", "::ffff:10.0.0.9", "fe80::1", "0.0.0.0", "nonsense"])
def test_remote_clients_are_not_local(peer):
    assert not request_source(request(peer), NOBODY).is_local


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via", "fORWARDED"]
)
@pytest.mark.parametrize("trusted", [NOBODY, LOCAL_PROXY])
def test_requests_forwarded_by_a_local_proxy_are_not_local(header, trusted):
    """Otherwise a proxy would make every client a local one."""
    assert not request_source(request("127.0.0.1", (header, "127.0.0.1")), trusted).is_local


def test_only_trusted_proxies_are_believed():
    said = (("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"))
    assert request_source(request("127.0.0.1", *said), LOCAL_PROXY) == RequestSource("203.0.113.9", True, False)
    assert request_source(request("127.0.0.1", *said), NOBODY) == RequestSource("127.0.0.1", False, False)
    assert request_source(request("192.0.2.1", *said), LOCAL_PROXY) == RequestSource("192.0.2.1", False, False)


def test_the_first_untrusted_hop_is_the_client():
    hops = (("X-Forwarded-For", "127.0.0.1, 198.51.100.7"), ("X-Forwarded-For", "10.2.2.2"))
    assert request_source(request("10.0.0.1", *hops), LOCAL_PROXY).address == "198.51.100.7"


@pytest.mark.parametrize(
    ("value", "address", "secure"),
    [
        ("for=203.0.113.9;proto=https", "203.0.113.9", True),
        ("for=203.0.113.9;proto=http", "203.0.113.9", False),
        ("for=1.1.1.1;proto=https, for=203.0.113.9;proto=http", "203.0.113.9", False),
        ("for=unknown;proto=https", "127.0.0.1", True),
        ("=;", "127.0.0.1", False),
    ],
)
def test_the_forwarded_header_is_understood(value, address, secure):
    found = request_source(request("127.0.0.1", ("Forwarded", value)), LOCAL_PROXY)
    assert found == RequestSource(address, secure, False)


@pytest.mark.parametrize(
    ("headers", "secure", "own"),
    [
        ({}, False, None),
        ({"Origin": "http://10.1.1.1:8081"}, False, True),
        ({"Origin": "https://10.1.1.1:8081"}, False, True),
        ({"Origin": "http://10.1.1.1:8081"}, True, False),
        ({"Origin": "http://10.1.1.1"}, False, False),
        ({"Origin": "http://10.1.1.1:8082"}, False, False),
        ({"Origin": "http://10.1.1.1:8081.evil.example"}, False, False),
        ({"Origin": "http://evil.example"}, False, False),
        ({"Origin": "http://evil.example#10.1.1.1:8081"}, False, False),
        ({"Origin": "http://evil.example@10.1.1.1:8081"}, False, False),
        ({"Origin": "10.1.1.1:8081"}, False, False),
        ({"Origin": "ftp://10.1.1.1:8081"}, False, False),
        ({"Origin": ""}, False, False),
        ({"Origin": "null"}, False, False),
        ({"Sec-Fetch-Site": "same-origin"}, False, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, False, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, False, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://10.1.1.1:8081"}, False, False),
        ({"Sec-Fetch-Site": "cross-site"}, False, False),
        ({"Sec-Fetch-Site": "none"}, False, False),
        ({"Sec-Fetch-Site": ""}, False, False),
    ],
)
def test_only_pages_of_the_same_origin_are_accepted(headers, secure, own):
    assert is_same_origin(request("127.0.0.1", *headers.items()), secure) is own


@pytest.mark.parametrize("target", ["/", "/rooms/sale", "/rooms?x=1&y=/a", "/a//b", "/%2F%2Fevil.example"])
def test_own_paths_are_redirected_to(target):
    assert safe_path(target) == target


@pytest.mark.parametrize(
    "target",
    [
        "",
        "rooms",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "/a\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/\r\nSet-Cookie: a=b",
        " //evil.example",
        "/ /evil.example",
        "http://evil.example/",
        "https:evil.example",
        "javascript:alert(1)",
        "/login",
        "/login?next=/login",
        "/logout",
        "/" + "a" * 3000,
        "/\x7f/evil.example",
    ],
)
def test_other_targets_become_the_root(target):
    assert safe_path(target) == "/"
