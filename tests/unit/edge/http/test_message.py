"""Request heads: valid ones, and invalid ones with their statuses."""

from __future__ import annotations

from contextlib import suppress
from time import process_time

import pytest

from waitroom.edge.http.fields import MAX_FIELDS, MAX_LINE_BYTES, FieldCache
from waitroom.edge.http.message import (
    MAX_HEADERS,
    MAX_TARGET_BYTES,
    MalformedError,
    Request,
    _cross_check,
    parse_request,
)


def request(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: shop") -> Request:
    wanted = [start, *([host] if host is not None else []), *lines]
    return parse_request(b"\r\n".join(wanted) + b"\r\n\r\n")[0]


def refused(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: shop") -> int:
    with pytest.raises(MalformedError) as raised:
        request(*lines, start=start, host=host)
    assert raised.value.reason
    return raised.value.status


def reason(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: shop") -> str:
    """The reason of the refusal, which shows the check that found it."""
    with pytest.raises(MalformedError) as raised:
        request(*lines, start=start, host=host)
    assert raised.value.status == 400
    return raised.value.reason


# Requests.


def test_request_fields():
    got = request(b"accept: text/html", b"X-A:1", b"x-a:  2\t", b"X-Empty:", start=b"POST /a?b HTTP/1.1")
    assert (got.method, got.target, got.path, got.http10) == (b"POST", b"/a?b", b"/a", False)
    assert [(field.name, field.value) for field in got.headers] == [
        (b"Host", b"shop"),
        (b"accept", b"text/html"),
        (b"X-A", b"1"),
        (b"x-a", b"2"),
        (b"X-Empty", b""),
    ]
    assert got.fields == {b"host": b"shop", b"accept": b"text/html"}
    assert (got.content_length, got.chunked, got.has_body) == (None, False, False)


@pytest.mark.parametrize(
    "target",
    [
        *(
            b"/",
            b"//",
            b"///a",
            b"//evil.example/a",
            b"/a//b/",
            b"/%2F%2f",
            b"/%zz%",
            b"/a;b=c;d",
            b"/it's",
            b"/a/../b",
        ),
        *(b"/./a", b"/..;/a", b"/a?b?c", b"/?a=//b", b"/a b".replace(b" ", b"+"), b"/a|b^c`d{e}\\f", b'/"<>"', b"/:80"),
        *(b"/a?" + b"x" * 16384, b"/" + b"%61" * 5000, b"/*", b"/http://a/"),
    ],
)
def test_target_is_kept_byte_for_byte(target):
    got = request(start=b"GET " + target + b" HTTP/1.1")
    assert got.target == target
    assert got.path == target.partition(b"?")[0]


def test_longest_target():
    longest = b"/" + b"a" * (MAX_TARGET_BYTES - 1)
    assert request(start=b"GET %b HTTP/1.1" % longest).target == longest
    assert refused(start=b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1") == 414


@pytest.mark.parametrize(
    ("target", "host", "left"),
    [
        (b"http://shop/a?b", b"shop", b"/a?b"),
        (b"HTTP://Shop/a", b"sHOP", b"/a"),
        (b"https://shop:8443/a", b"shop:8443", b"/a"),
        (b"http://shop", b"shop", b"/"),
        (b"http://shop?a=b/c", b"shop", b"/?a=b/c"),
        (b"http://[::1]:80//a", b"[::1]:80", b"//a"),
        (b"http://shop:80/a", b"shop", b"/a"),
    ],
)
def test_absolute_target_is_reduced_to_its_path(target, host, left):
    got = request(start=b"GET " + target + b" HTTP/1.1", host=b"Host: " + host)
    assert got.target == left


@pytest.mark.parametrize(
    "target",
    [
        *(b"http://other/", b"http://shop.evil/", b"http://shop@evil/", b"http://evil@shop/", b"http://shop:81/"),
        *(
            b"http:///a",
            b"http://",
            b"http:/a",
            b"ftp://shop/",
            b"shop/a",
            b"a",
            b"*",
            b"?a",
            b"shop:443",
            b"//"[:0] + b".",
        ),
        *(b"/a#b", b"/#", b"http://shop/a#b", b"http://shop#/a", b"/sale%20#?a"),
    ],
)
def test_invalid_targets(target):
    assert refused(start=b"GET " + target + b" HTTP/1.1") == 400


def test_asterisk_target_is_only_for_options():
    assert request(start=b"OPTIONS * HTTP/1.1").path == b"*"
    assert refused(start=b"POST * HTTP/1.1") == 400


@pytest.mark.parametrize(
    "start",
    [
        *(b"GET /", b"GET / HTTP/0.9", b"GET / HTTP/1.2", b"GET / HTTP/2.0", b"GET / HTTP/1", b"GET / http/1.1"),
        *(b"GET / HTTP/1.1 ", b"GET  / HTTP/1.1", b" GET / HTTP/1.1", b"GET /  HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET"),
        *(b"GET /a b HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET / HTTP/1.1\r", b"GET /\t HTTP/1.1"),
        *(b"GET / HTTP/1.1\n", b"GET /\r HTTP/1.1", b"G@T / HTTP/1.1", b"G\xe4T / HTTP/1.1", b"/ HTTP/1.1", b""),
        *(b"get / HTTP/1.1", b"Get / HTTP/1.1", b"PRI * HTTP/2.0", b"GET / ICE/1.0", b"A" * 33 + b" / HTTP/1.1"),
        *(b"HTTP/1.1 200 OK", b"\x16\x03\x01 / HTTP/1.1", b"-GET / HTTP/1.1"),
    ],
)
def test_invalid_request_lines(start):
    assert refused(start=start) == 400


def test_connect_is_refused():
    assert refused(start=b"CONNECT shop:443 HTTP/1.1") == 405


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"M-SEARCH"])
def test_common_methods(method):
    for length in (b"0", b"1"):
        assert request(b"Content-Length: " + length, start=method + b" / HTTP/1.1").method == method


@pytest.mark.parametrize("line", [b"Content-Length: 1", b"Transfer-Encoding: chunked", b"Upgrade: websocket"])
def test_unknown_method_has_no_body(line):
    """Whether one follows would be a guess, and two servers may guess differently."""
    assert request(start=b"FETCH / HTTP/1.1").method == b"FETCH"
    assert refused(line, start=b"FETCH / HTTP/1.1") == 400


@pytest.mark.parametrize(
    "line",
    [
        *(b"A : b", b"A\t: b", b" A: b", b"\tA: b", b": b", b"A", b"A b", b"A: b\x00", b"A: \x00b", b"A\x00: b"),
        *(b"A: b\rc: d", b"A: b\nc: d", b"A: b\r", b"\nA: b", b"A: b\r\n folded", b"A: b\r\n\tfolded", b"A: b\x7f"),
        *(b"A: b\x0b", b"A: b\x1f", b"A(: b", b"A/: b", b"A\xe4: b", b'"A": b', b"A@: b", b"\r"),
    ],
)
def test_invalid_header_lines(line):
    assert refused(line) == 400
    assert refused(line, b"B: c") == 400
    assert refused(b"B: c", line) == 400


@pytest.mark.parametrize("value", [b"a\tb", b"\xe4\xff", b"a: b", b'"', b"\\", b"a" * 30000])
def test_valid_header_values(value):
    assert request(b"A: " + value).headers[-1].value == value


@pytest.mark.parametrize(
    ("line", "value"), [(b"A:" + b" \t" * 9 + b"b", b"b"), (b"A: b" + b"\t " * 9, b"b"), (b"A:  ", b"")]
)
def test_whitespace_around_a_value_is_dropped(line, value):
    assert request(line).headers[-1].line == b"A: " + value + b"\r\n"


@pytest.mark.parametrize("end", [b"\x01", b"x", b""])
def test_spaces_are_parsed_in_linear_time(end):
    few, many = ([b"A:" + b" " * length + end] * count for length, count in ((250, 64), (16_000, 1)))

    def cost(lines: list[bytes]) -> float:
        times = []
        for _ in range(3):
            started = process_time()
            with suppress(MalformedError):
                request(*lines)
            times.append(process_time() - started)
        return min(times)

    assert cost(many) < 5 * cost(few) + 0.001


def test_maximum_number_of_headers():
    assert len(request(*[b"A: b"] * (MAX_HEADERS - 1)).headers) == MAX_HEADERS
    assert refused(*[b"A: b"] * MAX_HEADERS) == 431


def test_field_cache_is_bounded_and_skips_personal_lines():
    memo = FieldCache(frozenset((b"cookie",)))
    line = b"Accept: text/html"
    first, again, cookie, cookie_again = (memo.parse([one])[0] for one in (line, line, b"Cookie: a", b"Cookie: a"))
    assert first is again
    assert cookie is not cookie_again
    long = b"A: " + b"b" * MAX_LINE_BYTES
    assert memo.parse([long])[0] is not memo.parse([long])[0]
    for number in range(MAX_FIELDS + 10):
        memo.parse([b"X: %d" % number])
        assert len(memo._known) <= MAX_FIELDS
    assert memo.parse([b"X: 1", b"X"]) is None


# Hosts.


def test_host_is_required_except_in_http_1_0():
    assert refused(host=None) == 400
    assert request(start=b"GET / HTTP/1.0", host=None).fields == {}
    assert refused(start=b"GET http://shop/ HTTP/1.0", host=None) == 400


@pytest.mark.parametrize("second", [b"Host: shop", b"host: other", b"HOST:"])
@pytest.mark.parametrize("start", [b"GET / HTTP/1.1", b"GET / HTTP/1.0"])
def test_duplicate_host_is_refused(second, start):
    for first, last in ((b"Host: shop", second), (second, b"Host: shop")):
        assert reason(last, start=start, host=first).lower() == "duplicate host header"


@pytest.mark.parametrize(
    "host", [b"shop", b"shop.example.", b"shop:80", b"127.0.0.1:8080", b"[::1]", b"[2001:db8::1]:443", b"a-b_c", b""]
)
def test_valid_hosts(host):
    assert request(host=b"Host: " + host).fields[b"host"] == host


@pytest.mark.parametrize(
    "host",
    [
        *(b"a/b", b"a b", b"a,b c", b"a?b", b"a#b", b"user@a", b"a:", b"a:b", b"a:123456", b"::1", b"[::1", b"[::1]x"),
        *(b"a\\b", b"http://a", b"\xe4", b"[a]g", b"a:80:80", b"[]", b"a\tb", b"<a>"),
    ],
)
def test_invalid_hosts(host):
    assert refused(host=b"Host: " + host) == 400


# Framing.


def test_body_with_a_length():
    got = request(b"Content-Length: 12", start=b"POST / HTTP/1.1")
    assert (got.content_length, got.chunked, got.has_body) == (12, False, True)
    assert not request(b"Content-Length: 0").has_body


def test_chunked_body():
    got = request(b"Transfer-Encoding: Chunked", start=b"POST / HTTP/1.1")
    assert (got.content_length, got.chunked, got.has_body) == (None, True, True)


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 1"),
        (b"Transfer-Encoding: chunked", b"content-length: 0"),
        (b"Content-Length: 1", b"Content-Length: 1"),
        (b"Content-Length: 1", b"Content-Length: 2"),
        (b"Content-Length: 1, 1",),
        (b"Content-Length: 1,2",),
        (b"Content-Length: +1",),
        (b"Content-Length: -1",),
        (b"Content-Length: 1.0",),
        (b"Content-Length: 0x1",),
        (b"Content-Length: 1_0",),
        (b"Content-Length: 1 0",),
        (b"Content-Length: \xb2",),
        (b"Content-Length:",),
        (b"Content-Length: 9999999999999999999",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: chunked, gzip",),
        (b"Transfer-Encoding: gzip",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding: chunked;a=b",),
        (b'Transfer-Encoding: "chunked"',),
        (b"Transfer-Encoding: chunked,",),
        (b"Transfer-Encoding: \x0bchunked",),
        (b"Transfer-Encoding:",),
        (b"Transfer-Encoding : chunked",),
    ],
)
@pytest.mark.parametrize("start", [b"POST / HTTP/1.1", b"GET / HTTP/1.1"])
def test_ambiguous_framing_is_refused(lines, start):
    assert refused(*lines, start=start) == 400


LENGTH, CODING = b"Content-Length: 1", b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ((LENGTH, CODING), "both Content-Length and Transfer-Encoding"),
        ((CODING, LENGTH), "both Content-Length and Transfer-Encoding"),
        ((LENGTH, LENGTH), "duplicate Content-Length header"),
        ((CODING, CODING), "duplicate Transfer-Encoding header"),
    ],
)
def test_ambiguous_framing_is_refused_without_llhttp(lines, why):
    """llhttp would refuse it too; the tests below check that it is asked."""
    assert reason(*lines) == why


def agreed(*lines: bytes, method: bytes = b"POST", target: bytes = b"/a", count: int | None = None) -> None:
    """Cross-checks a head with llhttp, given these results of our parser."""
    head = b"\r\n".join((b"POST /a HTTP/1.1", *lines, b"", b""))
    _cross_check(head, method, target, len(lines) if count is None else count)


@pytest.mark.parametrize("lines", [(LENGTH, CODING), (CODING, LENGTH), (LENGTH, LENGTH), (b"Content-Length: 1x",)])
def test_ambiguous_framing_is_refused_by_llhttp(lines):
    with pytest.raises(MalformedError):
        agreed(b"Host: shop", *lines)


@pytest.mark.parametrize("made_of_it", [{"method": b"PUT"}, {"target": b"/b"}, {"count": 1}, {"count": 3}])
def test_disagreement_with_llhttp_is_refused(made_of_it):
    agreed(b"Host: shop", LENGTH)
    with pytest.raises(MalformedError):
        agreed(b"Host: shop", LENGTH, **made_of_it)


def test_chunked_http_1_0_request_is_refused():
    assert refused(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0") == 400


def test_framing_is_checked_for_upgrades_too():
    """llhttp treats everything after such a head as another protocol."""
    got = request(b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 5")
    assert got.content_length == 5
    got = request(b"Connection: upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked")
    assert got.chunked


# The connection.


@pytest.mark.parametrize(
    ("lines", "start", "keep"),
    [
        ((), b"GET / HTTP/1.1", True),
        ((), b"GET / HTTP/1.0", False),
        ((b"Connection: close",), b"GET / HTTP/1.1", False),
        ((b"Connection: Close",), b"GET / HTTP/1.1", False),
        ((b"Connection: x,close , y",), b"GET / HTTP/1.1", False),
        ((b"Connection: x", b"Connection: close"), b"GET / HTTP/1.1", False),
        ((b"Connection: closed",), b"GET / HTTP/1.1", True),
        ((b"Connection: keep-alive",), b"GET / HTTP/1.0", True),
        ((b"Connection: Keep-Alive",), b"GET / HTTP/1.0", True),
        ((b"Connection: keep-alive, close",), b"GET / HTTP/1.0", False),
        ((b"Connection: keep-alive, close",), b"GET / HTTP/1.1", False),
    ],
)
def test_keep_alive(lines, start, keep):
    assert request(*lines, start=start).keep_alive is keep


def test_upgrade():
    lines = (b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket")
    assert request(*lines).upgrade == b"WebSocket"
    assert request(*lines, start=b"GET / HTTP/1.0").upgrade is None
    assert request(*lines, b"Content-Length: 1").upgrade is None
    assert request(*lines, start=b"POST / HTTP/1.1").upgrade is None
    assert request(lines[0]).upgrade is None
    assert request(lines[1]).upgrade is None, "not for the next hop unless Connection says so"


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket, h2c", b"TLS/1.0", b"HTTP/2.0", b"h2", b"", b","])
def test_upgrade_to_a_protocol_that_carries_http_is_ignored(protocol):
    """In an HTTP/2 tunnel, requests would reach the shop without passing the gate."""
    assert request(b"Connection: Upgrade", b"Upgrade: " + protocol).upgrade is None


@pytest.mark.parametrize("protocol", [b"websocket/1", b"tcp", b"echo, websocket"])
def test_upgrade_to_other_protocols(protocol):
    assert request(b"Connection: Upgrade", b"Upgrade: " + protocol).upgrade == protocol


def test_expect_100_continue():
    assert request(b"Expect: 100-Continue", b"Content-Length: 1").expects_continue
    assert not request(b"Content-Length: 1").expects_continue
    assert not request(b"Expect: 100-continue", b"Content-Length: 1", start=b"POST / HTTP/1.0").expects_continue


@pytest.mark.parametrize("lines", [(b"Expect: 200-ok",), (b"Expect:",), (b"Expect: 100-continue", b"Expect: x")])
def test_other_expectations_are_refused(lines):
    assert refused(*lines) == 417


def test_repeated_headers_are_joined_and_cookies_are_not():
    lines = [b"GET / HTTP/1.1", b"Host: shop", b"X-Forwarded-For: a", b"Cookie: a=b", b"x-forwarded-for: b"]
    got, cookies = parse_request(b"\r\n".join([*lines, b"cookie: c=d; e=f"]) + b"\r\n\r\n")
    assert got.fields[b"x-forwarded-for"] == b"a, b"
    assert cookies == [b"a=b", b"c=d; e=f"]
    assert [field.lower for field in got.headers] == [b"host", b"x-forwarded-for", b"x-forwarded-for"]
    assert got.cookies_at == 2
    assert b"cookie" not in got.fields
