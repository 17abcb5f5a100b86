"""The visitor's address behind proxies, and the forwarding headers for the shop."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitroom.edge.http.headers import Peer, forwarding_headers, request_headers
from waitroom.edge.http.message import Request, parse_request
from waitroom.net.forwarded import (
    MAX_CHAIN_BYTES,
    MAX_FORWARDED_BYTES,
    MAX_HOPS,
    Hop,
    TrustedProxies,
    ipv4_bytes,
    nearest_hops,
    parse_forwarded,
    plain_address,
    visitor_address,
)

TRUSTED = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1"])
PROXY = Peer("10.0.0.1", True, proxies=TRUSTED)
STRANGER = Peer("203.0.113.9", False, proxies=TRUSTED)


def request(*lines: bytes) -> Request:
    return parse_request(b"\r\n".join([b"GET / HTTP/1.1", b"Host: shop", *lines]) + b"\r\n\r\n")[0]


def told(*lines: bytes, peer: Peer = PROXY) -> dict[str, str]:
    """The forwarding headers that reach the shop; each at most once, except Forwarded, which is a list."""
    sent = request(*lines)
    found: dict[str, str] = {}
    for line in (request_headers(sent, (), peer) + forwarding_headers(sent, peer)).decode().split("\r\n"):
        name, _, value = line.partition(": ")
        if "forwarded" in name.lower():
            assert name not in found or name == "Forwarded"
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4:567", "1.2.3.4"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:567", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[::ffff:1.2.3.4]:80", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:5", "fe80::1"),
        *((junk, None) for junk in ("", "unknown", "_hidden", "shop.example", "1.2.3", "1.2.3.4.5", "1.2.3.256")),
        *((junk, None) for junk in ("1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456", "[::1", "::1]", "[::1]x", "[::1]:")),
        *(
            (junk, None)
            for junk in ("[1.2.3.4]", "[::1]:1:2", "[]", "[", "1::2::3", "1.2.3.4%eth0", "1.2.3.4 5", "٣.1.1.1")
        ),
    ],
)
def test_spellings_of_addresses(text: str, plain: str | None):
    assert plain_address(text) == plain


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        *(("10.0.0.1", True), ("10.255.0.1", True), ("192.0.2.7", True), ("192.0.2.8", False), ("::1", True)),
        *(("::ffff:10.0.0.1", True), ("::ffff:192.0.2.8", False), ("fd00::1%eth0", True), ("junk", False), ("", False)),
    ],
)
def test_trusted_proxies_are_addresses_and_networks(address: str, trusted: bool):
    assert (address in TRUSTED) is trusted
    assert address not in TrustedProxies([])


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"", "10.0.0.1"),
        (b"203.0.113.9", "203.0.113.9"),
        (b"203.0.113.9:4711", "203.0.113.9"),
        (b"[2001:db8::9]:4711", "2001:db8::9"),
        (b"::ffff:203.0.113.9", "203.0.113.9"),
        (b"203.0.113.9, 10.0.0.2", "203.0.113.9"),
        (b"203.0.113.9,10.0.0.2\t,  [fd00::1]:80 , 192.0.2.7:1", "203.0.113.9"),
        # What a visitor made up is to the left of what a proxy saw.
        (b"6.6.6.6, 203.0.113.9", "203.0.113.9"),
        (b"10.9.9.9, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        (b"6.6.6.6, ::ffff:10.0.0.2", "6.6.6.6"),
        # All of them trusted: the farthest.
        (b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # Hops before one without an address are unknown.
        (b"203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
        (b"203.0.113.9, junk", "10.0.0.1"),
        (b'"203.0.113.9"', "10.0.0.1"),
        (b"\xff\xfe", "10.0.0.1"),
        # Empty members of a list count for nothing (RFC 9110, section 5.6.1).
        (b", 203.0.113.9, , 10.0.0.2,", "203.0.113.9"),
    ],
)
def test_visitor_is_the_rightmost_untrusted_hop(header: bytes, client: str):
    assert TRUSTED.client(header, "10.0.0.1") == client
    sent = request(b"X-Forwarded-For: " + header)
    assert PROXY.client_info(sent).address == client
    assert STRANGER.client_info(sent).address == "203.0.113.9"


@given(st.lists(st.ip_addresses(), max_size=4), st.ip_addresses().filter(lambda one: str(one) not in TRUSTED))
def test_visitor_cannot_hide_the_address_a_proxy_saw(made_up, seen):
    header = ", ".join([*map(str, made_up), str(seen), "10.0.0.2"]).encode()
    assert TRUSTED.client(header, "10.0.0.1") == plain_address(str(seen))


@pytest.mark.parametrize(
    ("value", "hops"),
    [
        (b"for=1.2.3.4", [Hop("1.2.3.4", None, None)]),
        (b'For="[2001:db8::9]:4711";Proto=https;HOST=shop.test', [Hop("2001:db8::9", b"https", b"shop.test")]),
        (b'for="1.2.3.4:80" ; by=_x;host="shop.test:8443"', [Hop("1.2.3.4", None, b"shop.test:8443")]),
        (b"for=1.2.3.4, for=_hidden ,for=unknown;proto=http", [Hop("1.2.3.4", None, None), *[Hop(None, None, None)]]),
        (b'proto="ht\\tps"', [Hop(None, b"https", None)]),
        (b'for="a,b;c=\\"d";proto=https', [Hop(None, b"https", None)]),
        (b"", []),
        (b", ,;,", []),
        (b";for=1.2.3.4;", [Hop("1.2.3.4", None, None)]),
    ],
)
def test_forwarded_is_parsed(value: bytes, hops: list[Hop]):
    found = parse_forwarded(value)
    assert found is not None
    if b"unknown" in value:
        assert found.pop() == Hop(None, b"http", None)
    assert found == hops


@pytest.mark.parametrize(
    "value",
    [
        *(b"for", b"for=", b"=1.2.3.4", b"for=1.2.3.4 proto=https", b"for = 1.2.3.4", b'for="1.2.3.4', b'for=1.2.3.4"'),
        *(b"for=[::1]", b"for=1.2.3.4:80", b"for=1.2.3.4;for=1.2.3.4", b"for=a;FOR=b", b'for="\x01"', b'for="a"b'),
        b'for="6.6.6.6, for=203.0.113.9',
    ],
)
def test_malformed_forwarded_is_ignored(value: bytes):
    assert parse_forwarded(value) is None
    if b"\x01" not in value:
        assert PROXY.client_info(request(b"Forwarded: " + value)) == ("10.0.0.1", b"http", b"shop", b"")


@given(st.binary(max_size=80))
def test_random_forwarded_headers(value: bytes):
    parse_forwarded(value)


def test_forwarding_headers_of_a_direct_client():
    lies = [
        b"X-Forwarded-For: 6.6.6.6",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: evil",
        b"Forwarded: for=6.6.6.6",
    ]
    expected = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop"}
    assert told(*lies, peer=STRANGER) == expected
    assert not STRANGER.is_secure(request(*lies))
    over_tls = Peer("203.0.113.9", False, tls=True, proxies=TRUSTED)
    assert told(*lies, peer=over_tls) == expected | {"X-Forwarded-Proto": "https"}
    assert over_tls.is_secure(request(b"X-Forwarded-Proto: http"))


def test_proxy_is_appended_to_its_statement():
    lines = [b"X-Forwarded-For: 6.6.6.6, 203.0.113.9", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: www.shop:8443"]
    assert told(*lines) == {
        "X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "www.shop:8443",
    }
    assert PROXY.is_secure(request(*lines))


def test_first_proxy_states_the_protocol():
    lines = [b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: www.shop , inner"]
    assert told(*lines) == {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "www.shop",
    }
    assert PROXY.is_secure(request(*lines))


@pytest.mark.parametrize("line", [b"X-Forwarded-Proto: ht tp", b"X-Forwarded-Proto: ,https", b"X-Forwarded-Host: a b"])
def test_invalid_protocol_and_host_are_ignored(line: bytes):
    assert told(line) == {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop"}


@pytest.mark.parametrize(("proto", "secure"), [(b"https", True), (b"HTTPS", True), (b"wss", True), (b"http", False)])
def test_whether_the_browser_speaks_https(proto: bytes, secure: bool):
    assert PROXY.is_secure(request(b"X-Forwarded-Proto: " + proto)) is secure
    assert PROXY.is_secure(request(b"Forwarded: proto=" + proto)) is secure


def test_forwarded_equals_x_forwarded():
    line = b'Forwarded: for=6.6.6.6;proto=http;host=evil, for="[2001:db8::9]:5";proto=https;host=www.shop, for=10.0.0.2'
    assert told(line) == {
        "X-Forwarded-For": "6.6.6.6, 2001:db8::9, 10.0.0.2, 10.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "www.shop",
        "Forwarded": line.decode().partition(": ")[2] + ", for=10.0.0.1",
    }
    assert PROXY.client_info(request(line)).address == "2001:db8::9"
    six = Peer("fd00::1", True, proxies=TRUSTED)
    assert told(b"Forwarded: for=203.0.113.9", peer=six)["Forwarded"] == 'for=203.0.113.9, for="[fd00::1]"'


def test_element_with_a_hidden_visitor_counts():
    origin = PROXY.client_info(request(b"Forwarded: for=6.6.6.6;proto=http, for=_hidden;proto=https;host=www.shop"))
    assert origin == ("10.0.0.1", b"https", b"www.shop", b"6.6.6.6, unknown")


def test_forwarded_beside_x_forwarded_is_dropped():
    """A proxy that doesn't know the header forwards it unchanged."""
    lie = b"Forwarded: for=6.6.6.6;proto=https;host=evil"
    for line in (b"X-Forwarded-For: 203.0.113.9", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: shop"):
        found = told(lie, line)
        assert "Forwarded" not in found
        assert (found["X-Forwarded-Proto"], found["X-Forwarded-Host"]) == ("http", "shop")
        assert "6.6.6.6" not in found["X-Forwarded-For"]


# Long chains made up by a visitor. Trusted proxies append on the right, and that part counts.


def test_only_the_needed_hops_are_parsed():
    asked: list[str] = []

    def trusted(address: str) -> bool:
        asked.append(address)
        return address.startswith("10.")

    many = b", ".join(b"6.6.%d.%d" % (number // 250, number % 250) for number in range(800))
    assert visitor_address(many + b", 203.0.113.9, 10.0.0.2", "10.0.0.1", trusted) == "203.0.113.9"
    assert asked == ["10.0.0.2", "203.0.113.9"]


def test_hops_beyond_the_bound_are_ignored():
    """A visitor may send addresses of trusted proxies, too."""
    asked: list[str] = []

    def trusted(address: str) -> bool:
        asked.append(address)
        return True

    many = b",".join(b"10.0.%d.%d" % (number // 250, number % 250) for number in range(800))
    assert visitor_address(b"203.0.113.9," + many, "10.0.0.1", trusted) == asked[-1]
    assert len(asked) == MAX_HOPS
    asked.clear()
    assert visitor_address(b"203.0.113.9" + b"," * MAX_HOPS, "10.0.0.1", trusted) == "10.0.0.1"
    assert asked == []


def test_trusted_addresses_are_cached():
    found = TrustedProxies(["10.0.0.0/8", "fd00::/8"])
    assert "10.0.0.9" in found
    assert "fd00::9" in found
    found._ipv4.clear()
    found._ipv6.pop()
    found._ipv4.append((0xFFFFFFFF, 0))
    assert "10.0.0.9" in found
    assert "fd00::9" in found
    assert "10.0.0.8" not in found


@given(st.text("0123456789.", max_size=16) | st.ip_addresses(v=4).map(str) | st.text(max_size=8))
def test_ipv4_syntax_agrees_with_the_standard_library(text: str):
    try:
        expected = ipaddress.IPv4Address(text).packed
    except ValueError:
        expected = None
    assert ipv4_bytes(text) == expected


@given(st.ip_addresses(), st.integers(0, 128), st.ip_addresses())
def test_networks_agree_with_the_standard_library(address, length, other):
    network = ipaddress.ip_network((other, min(length, other.max_prefixlen)), strict=False)
    mapped = getattr(address, "ipv4_mapped", None)
    assert (str(address) in TrustedProxies([str(network)])) is ((mapped or address) in network)


@pytest.mark.interpreted
@pytest.mark.parametrize("address", ["10.0.0.9", "junk"])
def test_cache_of_addresses_is_bounded(monkeypatch, address):
    monkeypatch.setattr("waitroom.net.forwarded._MAX_KNOWN", 10)
    found = TrustedProxies(["10.0.0.0/8"])
    for number in range(100):
        assert f"10.0.0.{number}" in found
        assert (address in found) is (address != "junk")
        assert len(found._known) <= 10
    assert "x" * 1000 not in found
    assert "x" * 1000 not in found._known


@pytest.mark.parametrize(
    ("value", "longest", "end"),
    [
        (b"", 9, b""),
        (b"a, b", 4, b"a, b"),
        (b"a, b", 3, b"b"),
        (b"aaaaa", 4, b""),
        (b"a,bbbbb", 4, b""),
        (b"a," * MAX_HOPS + b"b", 999, b",".join([b"a"] * (MAX_HOPS - 1) + [b"b"])),
        (b"," * 5000, 999, b"," * (MAX_HOPS - 1)),
    ],
)
def test_end_of_a_long_list_is_kept(value, longest, end):
    assert nearest_hops(value, longest) == end


@given(st.lists(st.binary(max_size=9).map(lambda one: one.replace(b",", b"")), max_size=60), st.integers(0, 300))
def test_nearest_hops_are_whole_and_bounded(members, longest):
    left = nearest_hops(b",".join(members), longest)
    assert len(left) <= longest
    count = left.count(b",") + 1 if left else 0
    assert count <= MAX_HOPS
    if 0 < count < len(members):
        assert left == b",".join(members[-count:]).strip(b" \t")


def test_nearest_hops_are_forwarded():
    many = [b"6.6.6.%d" % (number % 250) for number in range(800)]
    found = told(b"X-Forwarded-For: " + b", ".join([*many, b"203.0.113.9"]), peer=PROXY)["X-Forwarded-For"]
    assert found.endswith("6.6.6.49, 203.0.113.9, 10.0.0.1")
    assert found.count(",") == MAX_HOPS
    long = told(b"X-Forwarded-For: " + b"x" * 7000 + b", 203.0.113.9")["X-Forwarded-For"]
    assert long == "203.0.113.9, 10.0.0.1"
    assert len(told(b"X-Forwarded-For: " + b"x" * 50 + b", y" * 2000)["X-Forwarded-For"]) <= MAX_CHAIN_BYTES + 10


def test_end_of_a_long_forwarded_header_counts():
    line = b"Forwarded: " + b"for=6.6.6.6, " * 500 + b"for=203.0.113.9;proto=https, for=10.0.0.2"
    found = told(line)
    assert PROXY.client_info(request(line)).address == "203.0.113.9"
    assert found["X-Forwarded-Proto"] == "https"
    assert found["X-Forwarded-For"].endswith("6.6.6.6, 203.0.113.9, 10.0.0.2, 10.0.0.1")
    assert found["X-Forwarded-For"].count(",") == MAX_HOPS
    assert "Forwarded" not in found


@pytest.mark.parametrize("fill", [b"x", b",", b", for=6.6.6.6", b'\\"', b"\\\\"])
@pytest.mark.parametrize("seen", [b"for=203.0.113.9", b'for="[2001:db8::9]:4711"'])
def test_cutting_never_hides_what_the_proxy_saw(fill: bytes, seen: bytes):
    """The cut may fall within a quoted string of the visitor's; at worst the header is then ignored."""
    for more in range(40):
        made_up = b'for="' + b"y" * more + fill * (2 * MAX_FORWARDED_BYTES // len(fill)) + b'"'
        address = PROXY.client_info(request(b"Forwarded: " + made_up + b", " + seen)).address
        assert address in ("203.0.113.9", "2001:db8::9", "10.0.0.1")
