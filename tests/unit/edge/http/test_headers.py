"""The headers of a head that are forwarded, and those that are added."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitroom.edge.http.headers import (
    MAX_SAME_COOKIES,
    Peer,
    forwarding_headers,
    gateway_cookies,
    request_headers,
    response_headers,
    set_cookie,
    shop_cookies,
)
from waitroom.edge.http.message import Request, parse_request, parse_response
from waitroom.net.forwarded import MAX_FORWARDED_BYTES, TrustedProxies, parse_forwarded

STRANGER = Peer("203.0.113.9", trusted=False)
PROXY = Peer("10.0.0.1", trusted=True)
OURS = b"waitroom_ticket_shop=t.1; waitroom_pass_shop=p.1"


def request(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> Request:
    return parse_request(b"\r\n".join([start, b"Host: shop", *lines]) + b"\r\n\r\n")[0]


def sent_on(*lines: bytes, peer: Peer = STRANGER) -> list[bytes]:
    """The headers that reach the shop, without Host."""
    sent, cookies = parse_request(b"\r\n".join([b"GET / HTTP/1.1", b"Host: shop", *lines]) + b"\r\n\r\n")
    first, *rest, last = request_headers(sent, cookies, peer).split(b"\r\n")
    assert (first, last) == (b"Host: shop", b"")
    return rest


def answered(*lines: bytes, status: int = 200, private: bool = False) -> list[bytes]:
    """The headers that reach the client."""
    head = b"\r\n".join([b"HTTP/1.1 %d x" % status, *lines]) + b"\r\n\r\n"
    *rest, last = response_headers(parse_response(head), b"", private=private).split(b"\r\n")
    assert last == b""
    return rest


# To the shop.


def test_order_case_and_duplicates_of_headers_are_kept():
    lines = [
        b"accept: text/html",
        b"X-b: 1",
        b"x-A: 2",
        b"X-B: 1",
        b"ETag: \xe4",
        b"Te-x: y",
        b"X-Empty: ",
        b"Trailer: A",
    ]
    assert sent_on(*lines) == lines


@pytest.mark.parametrize(
    "line",
    [
        *(b"Connection: close", b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"TE: trailers"),
        *(b"Proxy-Authorization: x", b"Proxy-Authenticate: x", b"Upgrade: h2c", b"Expect: 100-continue"),
    ],
)
def test_hop_by_hop_headers_are_dropped(line):
    assert sent_on(line, b"A: b", line.upper() if b"Expect" not in line else b"C: d")[0] == b"A: b"
    assert not any(kept.lower().startswith(line.split(b":")[0].lower()) for kept in sent_on(line, b"A: b"))


def test_framing_headers_are_dropped():
    assert sent_on(b"Transfer-Encoding: chunked") == []
    assert sent_on(b"Content-Length: 5") == [b"Content-Length: 5"]


@pytest.mark.parametrize(
    "name",
    [
        *(b"X-Forwarded-For", b"X-Forwarded-Proto", b"x-forwarded-host", b"X-Request-Id", b"Waitroom-Room"),
        *(b"WAITROOM-SESSION", b"Waitroom-Ticket", b"Waitroom-Pass"),
    ],
)
@pytest.mark.parametrize("peer", [STRANGER, PROXY])
def test_gateway_headers_are_dropped(name, peer):
    for spelling in (name, name.lower(), name.upper()):
        assert sent_on(spelling + b": 1", b"A: b", spelling + b": 2", peer=peer) == [b"A: b"]


@pytest.mark.parametrize(
    "name",
    [
        *(b"Waitroom_Session", b"waitroom_room", b"X_Forwarded_For", b"X-Forwarded_Proto", b"x_forwarded-host"),
        *(b"Content_Length", b"Transfer_Encoding", b"X_Request_Id", b"content_Type", b"Proxy_Connection"),
    ],
)
def test_gateway_headers_are_dropped_in_every_spelling(name):
    """CGI and WSGI write hyphens and underscores alike: HTTP_WAITROOM_SESSION."""
    assert sent_on(name + b": 1", b"A: b") == [b"A: b"]
    assert sent_on(name + b": 1", b"A: b", peer=PROXY) == [b"A: b"]


def test_other_names_with_underscores_are_kept():
    assert sent_on(b"api_key: 1", b"X_y-Z: 2") == [b"api_key: 1", b"X_y-Z: 2"]


def test_forwarded_is_trusted_only_from_proxies():
    assert sent_on(b"Forwarded: for=1.2.3.4") == []
    assert sent_on(b"forwarded: for=1.2.3.4", peer=PROXY) == [b"forwarded: for=1.2.3.4"]


def test_headers_named_by_connection_are_dropped():
    assert sent_on(b"A: 1", b"Connection: a, close ,B", b"b: 2", b"C: 3", b"connection: c") == []


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Authorization", b"Content-Type"])
def test_connection_cannot_drop_essential_headers(name):
    lines = [] if name == b"Host" else [name + b": 5"]
    assert sent_on(b"Connection: keep-alive, " + name.lower(), *lines) == lines


def test_connection_cannot_drop_cookies():
    assert sent_on(b"Connection: cookie", b"Cookie: a=b") == [b"Cookie: a=b"]


# Cookies.


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([b"a=b"], [b"a=b"]),
        ([b"a=b;c=d;  e", b"f=g"], [b"a=b;c=d;  e", b"f=g"]),
        ([OURS], []),
        ([b"a=b; " + OURS], [b"a=b"]),
        ([OURS + b"; a=b"], [b"a=b"]),
        ([b"a=b; waitroom_x=1;c=d"], [b"a=b; c=d"]),
        ([OURS, b"a=b", OURS], [b"a=b"]),
        ([b"a=waitroom_pass_shop=1; xwaitroom_y=2"], [b"a=waitroom_pass_shop=1; xwaitroom_y=2"]),
        ([b"waitroom_flag; ;a=b;"], [b"a=b"]),
        ([b'a="x; waitroom_pass_shop=1"; c=d'], [b'a="x; c=d']),
    ],
)
def test_gateway_cookies_are_not_forwarded(lines, kept):
    assert b"".join(shop_cookies(line) for line in lines) == b"".join(b"Cookie: %b\r\n" % line for line in kept)


def test_cookies_keep_their_place_among_the_headers():
    lines = [b"A: 1", b"Cookie: a=b; " + OURS, b"B: 2", b"cookie: c=d", b"C: 3"]
    assert sent_on(*lines) == [b"A: 1", b"Cookie: a=b", b"Cookie: c=d", b"B: 2", b"C: 3"]
    assert sent_on(b"A: 1", b"Cookie: " + OURS, b"B: 2") == [b"A: 1", b"B: 2"]


PASS, TICKET = b"waitroom_pass_shop=", b"waitroom_ticket_shop="


def test_gateway_cookies_are_read_from_all_headers():
    lines = [b"a=b", b"c=d; waitroom_pass_shop=1", b'waitroom_pass_shop=2;waitroom_ticket_shop="3"; x']
    assert gateway_cookies(lines, PASS) == [b"1", b"2"]
    assert gateway_cookies(lines, TICKET) == [b"3"]
    assert gateway_cookies([b"waitroom_flag; a=waitroom_pass_shop=1"], PASS) == []
    line = b"xwaitroom_pass_shop=1; waitroom_pass_shops=2;\t waitroom_pass_shop=b=c \t; d"
    assert gateway_cookies([line], PASS) == [b"b=c"]
    assert gateway_cookies([b" waitroom_pass_shop="], PASS) == []
    assert gateway_cookies([], PASS) == []


def test_duplicate_cookies_are_read_once_and_within_a_bound():
    line = b"; ".join([PASS + b"%d" % (number // 2) for number in range(100)])
    assert gateway_cookies([line, line], PASS) == [b"%d" % number for number in range(MAX_SAME_COOKIES)]


PIECES = st.sampled_from([b"waitroom_pass_shop", b"waitroom_ticket_shop", b"=", b";", b" ", b"\t", b'"', b"a", b"1"])


@given(st.lists(st.lists(PIECES, max_size=12).map(b"".join), max_size=3))
def test_cookie_syntax(lines):
    pairs = [piece.strip(b" \t").partition(b"=") for line in lines for piece in line.split(b";")]
    values = [value.strip(b'"') for name, equals, value in pairs if equals and name == PASS[:-1]]
    distinct = list(dict.fromkeys(value for value in values if value))
    assert gateway_cookies(lines, PASS) == distinct[:MAX_SAME_COOKIES]


def test_cookies_are_read_in_linear_time():
    def cost(line: bytes) -> float:
        times = []
        for _ in range(5):
            since = process_time()
            assert gateway_cookies([line], PASS) == []
            times.append(process_time() - since)
        return min(times)

    assert cost((b" " * 20 + b"x" + PASS) * 1000) < 20 * cost((b" " * 20 + b"x" + PASS) * 100) + 0.001


def test_short_cookie_headers_are_cached_and_long_ones_not():
    """A cache full of long ones would take a quarter of a gigabyte."""
    assert shop_cookies(b"remembered=1") is shop_cookies(b"remembered=1")
    long = b"a=" + b"b" * 3000
    assert shop_cookies(long) == shop_cookies(long)
    assert shop_cookies(long) is not shop_cookies(long)


def test_cookie_is_sent_with_the_payment_provider_s_post():
    assert set_cookie("n", "v", secure=True, max_age=5) == (
        b"Set-Cookie: n=v; Path=/; Max-Age=5; HttpOnly; SameSite=None; Secure\r\n"
    )
    assert set_cookie("n", "v", secure=False, max_age=0) == (
        b"Set-Cookie: n=v; Path=/; Max-Age=0; HttpOnly; SameSite=Lax\r\n"
    )


# Forwarding headers.


def test_forwarding_headers_of_an_untrusted_client_are_ignored():
    got = forwarding_headers(
        request(b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil"), STRANGER
    )
    assert got == b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: shop\r\n"


def test_trusted_proxy_is_appended_to_its_forwarding_headers():
    lines = (
        b"X-Forwarded-For: 1.1.1.1",
        b"x-forwarded-for: 2.2.2.2",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: www",
    )
    assert forwarding_headers(request(*lines), PROXY) == (
        b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: www\r\n"
    )
    assert forwarding_headers(request(), PROXY) == (
        b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: shop\r\n"
    )


def test_missing_host_is_not_forwarded():
    sent, _ = parse_request(b"GET / HTTP/1.0\r\n\r\n")
    got = forwarding_headers(sent, Peer("2001:db8::1", trusted=False, tls=True))
    assert got == b"X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\n"


@pytest.mark.parametrize(
    ("peer", "lines", "secure"),
    [
        (STRANGER, (), False),
        (STRANGER, (b"X-Forwarded-Proto: https",), False),
        (Peer("203.0.113.9", trusted=False, tls=True), (b"X-Forwarded-Proto: http",), True),
        (PROXY, (), False),
        (PROXY, (b"X-Forwarded-Proto: HTTPS",), True),
        (PROXY, (b"X-Forwarded-Proto: http",), False),
    ],
)
def test_whether_the_browser_speaks_https(peer, lines, secure):
    assert peer.is_secure(request(*lines)) is secure


def test_trusted_peers():
    trusted = TrustedProxies(["10.0.0.0/8", "127.0.0.1", "2001:db8::/32"])
    for address in ("10.1.2.3", "127.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "2001:db8::1%eth0"):
        assert address in trusted
    for address in ("11.0.0.1", "127.0.0.2", "::1", "::ffff:11.0.0.1", "", "unix", "10.0.0"):
        assert address not in trusted
    assert "10.0.0.1" not in TrustedProxies([])


@pytest.mark.parametrize("blanks", [b" ", b"\t", b"a=b; "])
def test_blanks_in_forwarded_are_parsed_in_linear_time(blanks):
    def cost(value: bytes) -> float:
        times = []
        for _ in range(3):
            started = process_time()
            assert not parse_forwarded(value)
            times.append(process_time() - started)
        return min(times)

    assert len(blanks) * 200 < MAX_FORWARDED_BYTES
    assert cost(blanks * 200 + b"x") < 24 * cost(blanks * 25 + b"x") + 0.001
    assert cost(blanks * 8000 + b"x") < 24 * cost(blanks * 200 + b"x") + 0.001


# To the client.


def test_set_cookie_headers_keep_their_order():
    lines = [b"Set-Cookie: a=%d" % number for number in range(12)] + [b"set-cookie: a=; Max-Age=0", b"X: y", b"x: Y"]
    assert answered(*lines) == lines


@pytest.mark.parametrize(
    "line",
    [
        *(b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"Proxy-Authenticate: x", b"Upgrade: h2c", b"TE: x"),
        *(b"Waitroom-Command: release", b"WAITROOM-COMMAND: junk", b"Proxy-Connection: close"),
    ],
)
def test_commands_are_not_forwarded(line):
    assert answered(line, b"A: b", line.swapcase()) == [b"A: b"]


def test_response_headers_named_by_connection_are_dropped():
    assert answered(b"A: 1", b"Connection: a, set-cookie, cache-control, content-length, content-type") == []
    kept = [b"Set-Cookie: a=b", b"Cache-Control: no-store", b"Content-Length: 0", b"Content-Type: text/html"]
    assert answered(b"Connection: set-cookie, cache-control, content-length, content-type", *kept) == kept


@pytest.mark.parametrize(
    ("status", "lines", "kept"),
    [
        (200, [b"Content-Length: 5"], [b"Content-Length: 5"]),
        (200, [b"Transfer-Encoding: chunked"], []),
        (204, [b"Content-Length: 5"], []),
        (103, [b"Content-Length: 5"], []),
        (304, [b"Content-Length: 5"], [b"Content-Length: 5"]),
    ],
)
def test_content_length_of_responses(status, lines, kept):
    assert answered(*lines, status=status) == kept


def test_private_response_headers():
    lines = [b"cache-control: public, max-age=9", b"A: b", b"Expires: x", b"Pragma: y", b"Cache-Control: immutable"]
    assert answered(*lines, private=True) == [b"A: b", b"Cache-Control: private, no-store"]
    assert answered(*lines) == lines
