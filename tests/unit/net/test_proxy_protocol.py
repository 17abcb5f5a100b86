"""The PROXY protocol header: every error, and any pieces."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitroom.net.proxy_protocol import LOCAL, MAX_BLOCK_BYTES, MAX_LINE_BYTES, SIGNATURE, ProxyHeader, ProxyHeaderError

V4 = b"PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\r\n"
V6 = b"PROXY TCP6 2001:db8::9 2001:db8::1 56324 443\r\n"
TCP4 = ipaddress.ip_address("203.0.113.9").packed + ipaddress.ip_address("10.0.0.1").packed + b"\xdc\x04\x01\xbb"
TCP6 = ipaddress.ip_address("2001:db8::9").packed + ipaddress.ip_address("2001:db8::1").packed + b"\xdc\x04\x01\xbb"


def block(command: int, family: int, data: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(data)) + data


def extension(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def read(header: bytes, rest: bytes = b"GET / HTTP/1.1\r\n") -> ProxyHeader:
    """A header that arrives in one piece, with the bytes after it."""
    parsed = ProxyHeader()
    assert parsed.feed(header + rest) == len(header)
    assert parsed.done
    return parsed


def drip(parsed: ProxyHeader, data: bytes) -> None:
    for at in range(len(data)):
        assert parsed.feed(data[at : at + 1]) == 1


GOOD = [
    (V4, "203.0.113.9"),
    (V6, "2001:db8::9"),
    (b"PROXY TCP6 2001:DB8:0::0:9 ::ffff:10.0.0.1 0 65535\r\n", "2001:db8::9"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (b"PROXY UNKNOWN anything at all\r\n", None),
    (b"PROXY UNKNOWN " + b"x" * (MAX_LINE_BYTES - 16) + b"\r\n", None),
    (block(0x21, 0x11, TCP4), "203.0.113.9"),
    (block(0x21, 0x21, TCP6), "2001:db8::9"),
    (block(0x21, 0x31, bytes(216)), None),
    (block(0x21, 0x31, bytes(216) + extension(4, b"x")), None),
    (block(0x21, 0x00, b""), None),
    (block(0x21, 0x00, b"whatever"), None),
    (block(0x21, 0x11, TCP4 + extension(1, b"h2") + extension(4, b"") + extension(0x20, bytes(300))), "203.0.113.9"),
    (block(0x21, 0x11, TCP4 + extension(4, bytes(MAX_BLOCK_BYTES - 15))), "203.0.113.9"),
]


@pytest.mark.parametrize(("header", "address"), GOOD)
def test_address_is_read_and_the_rest_is_left(header: bytes, address: str | None):
    for rest in (b"", b"\r\n", b"\x16\x03\x01", b"PROXY ", SIGNATURE):
        parsed = read(header, rest)
        assert (parsed.address, parsed.local) == (address, False)


@pytest.mark.parametrize("header", [LOCAL, block(0x20, 0x11, TCP4), block(0x20, 0xFF, b"no\0matter")])
def test_local_connection_has_no_address(header: bytes):
    parsed = read(header)
    assert (parsed.address, parsed.local) == (None, True)


BAD_LINES = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\r\n\r\nGET / HTTP/1.1\r\n",
    b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
    b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
    b"PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
    b"PROXY UNKNOWN\n",
    b"PROXY UNKNOWN x\ry\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX\n",
    b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 nowhere 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.999 1 2\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY TCP6 ::1 1.2.3.4 1 2\r\n",
    b"PROXY TCP6 ::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP6 [::1] [::1] 1 2\r\n",
    b"PROXY TCP6 1::2::3 ::1 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 0x2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \xb2\r\n",
    b"PROXY UNKNOWN " + b"x" * (MAX_LINE_BYTES - 15) + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * 1000,
]
BAD_BLOCKS = [
    block(0x11, 0x11, TCP4),
    block(0x31, 0x11, TCP4),
    block(0x01, 0x11, TCP4),
    block(0x22, 0x11, TCP4),
    block(0x2F, 0x11, TCP4),
    block(0x21, 0x12, TCP4),
    block(0x21, 0x22, TCP6),
    block(0x21, 0x32, bytes(216)),
    block(0x21, 0x10, TCP4),
    block(0x21, 0x01, TCP4),
    block(0x21, 0x41, TCP4),
    block(0x21, 0x13, TCP4),
    block(0x21, 0x11, b""),
    block(0x21, 0x11, TCP4[:-1]),
    block(0x21, 0x21, TCP6[:-1]),
    block(0x21, 0x31, bytes(215)),
    block(0x21, 0x11, TCP4 + b"\x04"),
    block(0x21, 0x11, TCP4 + b"\x04\x00"),
    block(0x21, 0x11, TCP4 + b"\x04\x00\x01"),
    block(0x21, 0x11, TCP4 + extension(4, b"x") + b"\x04\x00\x09xxx"),
    block(0x21, 0x11, TCP4 + extension(4, bytes(MAX_BLOCK_BYTES - 14))),
    block(0x20, 0x00, bytes(MAX_BLOCK_BYTES + 1)),
    SIGNATURE + b"\x21\x11\xff\xff",
    SIGNATURE[:-1] + b"\r",
]


@pytest.mark.parametrize("data", BAD_LINES + BAD_BLOCKS)
def test_invalid_proxy_headers(data: bytes):
    with pytest.raises(ProxyHeaderError):
        ProxyHeader().feed(data)


@pytest.mark.parametrize("data", BAD_LINES + BAD_BLOCKS)
def test_invalid_proxy_headers_byte_by_byte(data: bytes):
    parsed = ProxyHeader()
    with pytest.raises(ProxyHeaderError):
        drip(parsed, data)
    assert not parsed.done


@pytest.mark.parametrize("first", [b"G", b"\x16", b"P\r", b"\r\n\r\r", b"PROXX"])
def test_hopeless_beginnings_are_refused_early(first: bytes):
    with pytest.raises(ProxyHeaderError):
        ProxyHeader().feed(first)


@given(st.sampled_from([header for header, _ in GOOD] + [LOCAL]), st.binary(max_size=40), st.data())
def test_proxy_header_in_any_pieces(header: bytes, rest: bytes, data: st.DataObject):
    whole = read(header, rest)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(header) + len(rest)), max_size=8)))
    stream = header + rest
    parsed, taken = ProxyHeader(), 0
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        used = parsed.feed(stream[start:end])
        taken += used
        assert used == end - start or parsed.done
    assert taken == len(header)
    assert (parsed.done, parsed.address, parsed.local) == (True, whole.address, whole.local)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: SIGNATURE + tail))
def test_junk_is_refused_or_incomplete(data: bytes):
    parsed = ProxyHeader()
    try:
        assert 0 <= parsed.feed(data) <= len(data)
    except ProxyHeaderError:
        assert not parsed.done


def test_complete_header_takes_no_more_bytes():
    parsed = read(V4)
    assert parsed.feed(V4) == 0
