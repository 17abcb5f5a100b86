"""Authorities: which are valid and which are equal, and requests with them."""

from __future__ import annotations

import pytest

from waitroom.edge.http.message import MalformedError, Request, parse_request
from waitroom.net.authority import Authority, is_loopback, parse_authority, same_authority


def request(target: bytes, host: bytes) -> Request:
    return parse_request(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host))[0]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"shop.test", (b"shop.test", None)),
        (b"Shop.TEST.", (b"shop.test", None)),
        (b"shop.test:080", (b"shop.test", 80)),
        (b"shop.test:65535", (b"shop.test", 65535)),
        (b"127.0.0.1:0", (b"127.0.0.1", 0)),
        (b"[2001:DB8:0:0::1]:443", (b"[2001:db8::1]", 443)),
        (b"[::ffff:1.2.3.4]", (b"[::ffff:102:304]", None)),
    ],
)
def test_authority_is_normalized(value, found):
    assert parse_authority(value) == Authority(*found)


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b".", b":80", b"127.0.0.1:80@evil", b"evil@127.0.0.1", b"user:1@shop", b"shop:65536", b"shop:99999"),
        *(
            b"shop:",
            b"shop:-1",
            b"shop:8o",
            b"shop:80:80",
            b"[::1",
            b"::1",
            b"[::1]x",
            b"[::1]:",
            b"[:::1]",
            b"[1::2::3]",
        ),
        *(b"[1:2:3]", b"[127.0.0.1]", b"[::1.2.3.256]", b"[::1%25eth0]", b"[]", b"[.]", b"[:]", b"[fffff::]", b"a b"),
        *(
            b"shop/",
            b"shop?",
            b"shop#",
            b"shop\\",
            b"sh\xf6p",
            b"shop\n",
            b"shop:80\n",
            b"shop\x00",
            b"<shop>",
            b"a[::1]",
        ),
    ],
)
def test_invalid_authorities(value):
    assert parse_authority(value) is None
    if value:
        with pytest.raises(MalformedError) as raised:
            request(b"/", value)
        assert raised.value.status == 400


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://shop.test:80/a", b"shop.test"),
        (b"http://shop.test/a", b"shop.test:80"),
        (b"https://shop.test:443/a", b"shop.test"),
        (b"https://shop.test/a", b"SHOP.test:443"),
        (b"HTTP://SHOP.TEST:80/a", b"shop.test"),
        (b"http://shop.test./a", b"shop.test"),
        (b"http://shop.test:080/a", b"shop.test"),
        (b"https://shop.test:8443/a", b"shop.test:8443"),
        (b"http://[0:0:0:0:0:0:0:1]/a", b"[::1]:80"),
        (b"https://[2001:DB8::0:1]:443/a", b"[2001:db8::1]"),
        (b"http://[::ffff:1.2.3.4]/a", b"[::FFFF:102:304]"),
    ],
)
def test_absolute_target_with_the_same_host(target, host):
    got = request(target, host)
    assert got.target == b"/a"
    assert got.fields[b"host"] == host, "the shop gets it unchanged"


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://shop.test:443/a", b"shop.test"),
        (b"https://shop.test:80/a", b"shop.test"),
        (b"https://shop.test/a", b"shop.test:80"),
        (b"http://shop.test/a", b"shop.test:8080"),
        (b"http://shop.test:80/a", b"other.test"),
        (b"http://shop.test:65616/a", b"shop.test"),  # 80, in 16 bits
        (b"http://user@shop.test/a", b"shop.test"),
        (b"http://shop.test:80@evil/a", b"shop.test"),
        (b"http://[::1]/a", b"[::2]"),
        (b"http://[::1/a", b"[::1]"),
        (b"http://[::1]/a", b"::1"),
        (b"http://[::ffff:1.2.3.4]/a", b"1.2.3.4"),
        (b"http:///a", b""),
        (b"http://shop.test/a", b""),
    ],
)
def test_absolute_target_with_another_host(target, host):
    with pytest.raises(MalformedError) as raised:
        request(target, host)
    assert raised.value.status == 400


def test_same_authority_needs_both_to_be_valid():
    assert not same_authority(b"a@b", b"a@b", 80)
    assert not same_authority(b"", b"", 80)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("x", False)],
)
def test_loopback_hosts(host: str, local: bool) -> None:
    assert is_loopback(host) is local
