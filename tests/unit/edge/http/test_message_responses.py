"""Response heads: valid and invalid ones."""

from __future__ import annotations

import pytest

from waitroom.edge.http.message import MalformedError, Response, options, parse_response


def response(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> Response:
    return parse_response(b"\r\n".join([start, *lines]) + b"\r\n\r\n")


def bad_response(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> str:
    with pytest.raises(MalformedError) as raised:
        response(*lines, start=start)
    assert raised.value.status == 502
    return raised.value.reason


def test_response_fields():
    got = response(
        b"set-cookie: a=b", b"Set-Cookie: a=c", b"X-Empty:", b"Content-Length: 3", start=b"HTTP/1.1 200 Fine "
    )
    assert (got.status, got.http10, got.content_length, got.chunked) == (200, False, 3, False)
    assert [field.line for field in got.headers[:3]] == [
        b"set-cookie: a=b\r\n",
        b"Set-Cookie: a=c\r\n",
        b"X-Empty: \r\n",
    ]
    assert got.keep_alive


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 200 Any \xe4 thing", b"HTTP/1.0 999 x"]
)
def test_valid_status_lines(start):
    assert response(start=start).status in (200, 999)


@pytest.mark.parametrize(
    "start",
    [
        *(b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK", b"HTTP/1.1 099 x", b"HTTP/1.1 20 x", b"HTTP/1.1 2000 x", b"200 OK"),
        *(b"HTTP/1.1  200 OK", b"http/1.1 200 OK", b"HTTP/1.1 200\tOK", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\rK"),
        *(b"HTTP/1.1 200 O\nK", b"ICY 200 OK", b"<html>", b"", b"GET / HTTP/1.1", b"HTTP/1.1 2x0 OK"),
    ],
)
def test_invalid_status_lines(start):
    bad_response(start=start)


@pytest.mark.parametrize(
    "lines",
    [
        (b"A : b",),
        (b" A: b",),
        (b"A: b\r\n folded",),
        (b"A: b\nC: d",),
        (b"A: b\x00",),
        (b"A",),
        (b"Content-Length: 1", b"Content-Length: 2"),
        (b"Content-Length: 1", b"Content-Length: 1"),
        (b"Content-Length: 1, 1",),
        (b"Content-Length: -1",),
        (b"Content-Length: x",),
        (b"Content-Length:",),
        (b"Content-Length: 99999999999999999999",),
        (b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: gzip",),
        (b"Transfer-Encoding: identity",),
    ],
)
def test_invalid_response_headers(lines):
    bad_response(*lines)


def test_chunked_http_1_0_response_is_refused():
    bad_response(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK")


@pytest.mark.parametrize(
    ("lines", "start", "keep"),
    [
        ((), b"HTTP/1.1 200 OK", True),
        ((b"Connection: close",), b"HTTP/1.1 200 OK", False),
        ((b"Connection: a", b"connection: CLOSE"), b"HTTP/1.1 200 OK", False),
        ((), b"HTTP/1.0 200 OK", False),
        ((b"Connection: keep-alive",), b"HTTP/1.0 200 OK", True),
    ],
)
def test_keep_alive_of_responses(lines, start, keep):
    assert response(*lines, start=start).keep_alive is keep


@pytest.mark.parametrize(
    ("status", "bodiless"), [(100, True), (103, True), (200, False), (204, True), (304, True), (404, False)]
)
def test_bodiless_statuses(status, bodiless):
    assert response(start=b"HTTP/1.1 %d x" % status).bodiless is bodiless


@pytest.mark.parametrize(
    ("values", "uncacheable"),
    [
        ((), False),
        ((b"no-store",), True),
        ((b"Private",), True),
        ((b"max-age=0, no-store",), True),
        ((b"max-age=0", b"private"), True),
        ((b"public, max-age=60",), False),
        ((b"no-cache",), False),
        ((b"max-age=60, x-private=1",), False),
        ((b"not-private, no-storeroom",), False),
        ((b'private="x-name", max-age=60',), False),
    ],
)
def test_uncacheable_responses(values, uncacheable):
    """Only the whole directive counts: a pass on a cached response would admit everybody."""
    assert response(*(b"Cache-Control: " + value for value in values)).uncacheable is uncacheable


def test_commands_of_the_shop():
    got = response(b"Waitroom-Command: hold=9, release", b"waitroom-command: sold-out")
    assert got.commands.split(b",") == [b"", b"hold=9", b" release", b"sold-out"]


def test_options_of_a_list():
    assert options(b" a,B\t,, c d ") == {b"a", b"b", b"c d"}
    assert options(b"") == frozenset()


def test_short_options_are_cached_and_long_ones_not():
    assert options(b"keep-alive, Upgrade") is options(b"keep-alive, Upgrade")
    long = b",".join(b"%d" % number for number in range(1000))
    assert options(long) == options(long)
    assert options(long) is not options(long)
