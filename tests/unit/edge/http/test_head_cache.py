"""Cached heads equal parsed ones, and the caches are bounded."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitroom.edge.http import head_cache
from waitroom.edge.http.head_cache import RequestHeadCache, ResponseHeadCache
from waitroom.edge.http.headers import Peer, request_headers, response_headers
from waitroom.edge.http.message import MalformedError, Request, Response, parse_request, parse_response

STRANGER = Peer("203.0.113.9", trusted=False)
OF_BOTH = ("http10", "content_length", "chunked", "keep_alive", "connection")
OF_REQUESTS = ("method", "target", "path", "fields", "has_body", "upgrade", "expects_continue")
OF_RESPONSES = ("status", "reason", "cache_control", "commands", "bodiless", "uncacheable")


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


def told(message: Request | Response, *names: str) -> list[object]:
    return [getattr(message, name) for name in (*OF_BOTH, *names)]


def of_request(parsed: tuple[Request, Sequence[bytes]]) -> tuple[object, ...]:
    request, cookies = parsed
    return told(request, *OF_REQUESTS), list(cookies), request_headers(request, cookies, STRANGER)


def of_response(parsed: Response | tuple[Response, bytes]) -> tuple[object, ...]:
    response, date = parsed if isinstance(parsed, tuple) else (parsed, b"")
    return told(response, *OF_RESPONSES), *(
        response_headers(response, date, private=private) for private in (False, True)
    )


LINES = st.sampled_from(
    [
        *(
            b"Accept: text/html",
            b"accept:text/html",
            b"Accept-Language: de",
            b"X-Empty:",
            b"Connection: close, x-empty",
        ),
        *(b"Cookie: a=b; waitroom_pass_shop=1", b"Cookie: c=d", b"Cookie:  waitroom_ticket_shop=2 ", b"cookie: e=f"),
        *(
            b"Cookie:g=h",
            b"Cookie: \xe9",
            b"Cookie: \x00",
            b"Cookie: a\nb",
            b"Cookie: a\rb",
            b"Authorization: Basic eA==",
        ),
        *(b"Waitroom-Pass: 1", b"Content-Length: 0", b"Content-Length: 5", b"X_Y: 1", b"broken", b"Host: other"),
        *(b"X-Forwarded-For: 192.0.2.1", b"Upgrade: websocket", b"Connection: upgrade", b"Connection: cookie"),
    ]
)
STARTS = st.sampled_from([b"GET / HTTP/1.1", b"GET /a?b HTTP/1.0", b"POST /a HTTP/1.1", b"get / HTTP/1.1"])


def outcome(parse, told, sent: bytes) -> object:
    try:
        return told(parse(sent))
    except MalformedError as error:
        return error.status, error.reason


@given(st.lists(st.tuples(STARTS, st.lists(LINES, max_size=5)), min_size=1, max_size=6), st.integers(1, 3))
def test_cached_request_equals_parsed_request(sent, times):
    memo = RequestHeadCache()
    for start, lines in sent * times:
        one = head(start, b"Host: shop", *lines)
        assert outcome(memo.parse, of_request, one) == outcome(parse_request, of_request, one)


RESPONSE_LINES = st.sampled_from(
    [
        *(b"Date: Sun, 22 Nov 2026 01:23:14 GMT", b"Date: Sun, 22 Nov 2026 01:23:15 GMT", b"date: now", b"Date:x"),
        *(b"Date:  y \t", b"Date: \x7f", b"Date: a\nb", b"Connection: date", b"Connection: close", b"Set-Cookie: a=b"),
        *(b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Cache-Control: private", b"Expires: 0", b"Server: x"),
        *(b"Waitroom-Command: release", b"X-A: 1", b"broken"),
    ]
)
STATUSES = st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 404 ", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 999"])


@given(st.lists(st.tuples(STATUSES, st.lists(RESPONSE_LINES, max_size=5)), min_size=1, max_size=6), st.integers(1, 3))
def test_cached_response_equals_parsed_response(sent, times):
    memo = ResponseHeadCache()
    for start, lines in sent * times:
        one = head(start, *lines)
        assert outcome(memo.parse, of_response, one) == outcome(parse_response, of_response, one)


def test_requests_that_differ_only_in_cookies_share_derived_values():
    memo = RequestHeadCache()
    asked = [
        memo.parse(head(b"GET / HTTP/1.1", b"Host: shop", b"Cookie: a=%d" % number, b"Accept: x"))
        for number in range(4)
    ]
    assert asked[2][0] is asked[3][0]
    assert [list(cookies) for _, cookies in asked] == [[b"a=0"], [b"a=1"], [b"a=2"], [b"a=3"]]
    elsewhere, _ = memo.parse(head(b"GET / HTTP/1.1", b"Host: shop", b"Accept: x", b"Cookie: a=4"))
    assert elsewhere is not asked[3][0], "the shop gets the cookies at their place"


@pytest.mark.parametrize(
    "received",
    [
        b"GET / HTTP/1.1\r\nHost: shop\r\n\r\nAccept: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: shop\r\n\r\nAccept: x\r\nCookie: a=b\r\n",
        b"GET / HTTP/1.1\r\nHost: shop\r\nCookie: a=b\r\nAccept: x\r\n\r\nGET",
        b"GET / HTTP/1.1\r\nHost: shop\r\nCookie: a=b\r\nAccept: x\r\n",
        b"GET / HTTP/1.1\r\nHost: shop\r\nCookie: a=b",
        b"GET / HTTP/1.1\r\nHost: shop\r\nCookie: a\nb\r\nAccept: x\r\n\r\n",
    ],
)
def test_only_exactly_one_head_is_found(received):
    """Although the same bytes are left once a line is cut out."""
    memo = RequestHeadCache()
    whole = head(b"GET / HTTP/1.1", b"Host: shop", b"Cookie: a=b", b"Accept: x")
    for _ in range(2):
        memo.parse(whole)
    assert memo.find(whole)
    assert memo.find(received) is None


def test_newcomers_and_returning_visitors_have_separate_caches():
    memo = RequestHeadCache()
    bare, with_cookies = (head(b"GET / HTTP/1.1", b"Host: shop", *lines) for lines in ((), (b"Cookie: a=b",)))
    for _ in range(2):
        memo.parse(bare)
        memo.parse(with_cookies)
    assert memo.find(bare)
    assert memo.find(with_cookies)


def test_cookies_are_not_cached():
    memo = RequestHeadCache()
    for number in range(4):
        memo.parse(head(b"GET / HTTP/1.1", b"Host: shop", b"Cookie: secret=%d" % number))
    assert memo._with_cookies.entries
    for key, (_, request) in memo._with_cookies.entries.items():
        assert b"secret" not in key
        assert not [field for field in request.headers if field.lower == b"cookie"]


@pytest.mark.parametrize(
    "line", [b"Authorization: x", b"Proxy-Authorization: x", b"Waitroom-Ticket: x", b"waitroom-pass: x", b"cookie: a"]
)
def test_personal_requests_are_not_cached(line):
    memo = RequestHeadCache()
    for _ in range(4):
        memo.parse(head(b"GET / HTTP/1.1", b"Host: shop", line))
    assert not memo._with_cookies.entries
    assert not memo._without_cookies.entries


@pytest.mark.parametrize("line", [b"Set-Cookie: a=b", b"Waitroom-Command: release", b"Date: y", b"Connection: date"])
def test_personal_responses_are_not_cached(line):
    memo = ResponseHeadCache()
    for _ in range(4):
        memo.parse(head(b"HTTP/1.1 200 OK", b"Date: x", line))
    assert not memo._entries


def test_heads_seen_once_evict_nothing_and_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(head_cache, "MAX_HEADS", 10)
    monkeypatch.setattr(head_cache, "MAX_SEEN_ONCE", 20)
    memo = RequestHeadCache()

    def ask(number: int) -> Request:
        return memo.parse(head(b"GET /%d HTTP/1.1" % number, b"Host: shop"))[0]

    ask(0)
    ask(0)
    kept = ask(0)
    for number in range(1, 100):
        ask(number)
        assert len(memo._without_cookies._seen_once) <= 20
    assert ask(0) is kept
    for number in range(200, 230):
        ask(number)
        ask(number)
        assert len(memo._without_cookies.entries) <= 10
    assert ask(0) is not kept
    long = b"GET /" + b"x" * head_cache.MAX_HEAD_BYTES + b" HTTP/1.1"
    assert memo.parse(head(long, b"Host: shop"))[0] is not memo.parse(head(long, b"Host: shop"))[0]
    assert all(len(key) <= head_cache.MAX_HEAD_BYTES for key in memo._without_cookies.entries)
