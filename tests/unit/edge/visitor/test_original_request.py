"""The original request of a forward-auth check, as each proxy names it."""

from __future__ import annotations

import pytest

from waitroom.edge.http.message import Request, parse_request
from waitroom.edge.visitor.original_request import (
    CHECK,
    UNKNOWN_METHOD,
    OriginalRequestError,
    is_check,
    read_original,
    split_check,
)
from waitroom.gate import Kind


def check(*lines: bytes, target: bytes = b"/.waitroom/check", method: bytes = b"GET") -> Request:
    head = b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), b"Host: shop.example", *lines])
    return parse_request(head + b"\r\n\r\n")[0]


def facts(request: Request) -> tuple[bytes, bytes, bytes, bytes | None]:
    fields = request.fields
    return request.method, fields[b"host"], request.target, fields.get(b"x-forwarded-proto")


TRAEFIK = (
    b"X-Forwarded-Method: POST",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: shop.example",
    b"X-Forwarded-Uri: /a?b=c",
)


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (check(*TRAEFIK), (b"POST", b"shop.example", b"/a?b=c", b"https")),
        (
            check(b"X-Original-URI: /a", b"X-Original-Method: DELETE", b"X-Forwarded-Proto: http"),
            (b"DELETE", b"shop.example", b"/a", b"http"),
        ),
        (
            check(b"X-Original-URL: https://shop.example/a?b", b"X-Original-Method: GET"),
            (b"GET", b"shop.example", b"/a?b", b"https"),
        ),
        (check(b"X-Original-URL: /a?b"), (UNKNOWN_METHOD, b"shop.example", b"/a?b", None)),
        (check(b"X-Original-URL: http://other.example"), (UNKNOWN_METHOD, b"other.example", b"/", b"http")),
        (check(target=b"/.waitroom/check/a?b=c", method=b"PUT"), (b"PUT", b"shop.example", b"/a?b=c", None)),
        (check(target=b"/.waitroom/check?answer=page/a?b=c"), (b"GET", b"shop.example", b"/a?b=c", None)),
        (check(b"X-Forwarded-Uri: /\xc3\xa4%20"), (UNKNOWN_METHOD, b"shop.example", b"/\xc3\xa4%20", None)),
        (
            check(*TRAEFIK, b"X-Original-URI: /a?b=c", b"X-Original-Method: POST"),
            (b"POST", b"shop.example", b"/a?b=c", b"https"),
        ),
        (
            check(
                b"X-Forwarded-Uri: /a", b"X-Forwarded-Host: shop.example:443", b"X-Original-URL: https://shop.example/a"
            ),
            (UNKNOWN_METHOD, b"shop.example:443", b"/a", b"https"),
        ),
        (check(b"X-Forwarded-Uri: /a", b"X-Forwarded-Proto: wss"), (UNKNOWN_METHOD, b"shop.example", b"/a", b"wss")),
    ],
)
def test_every_proxys_headers_are_read(request_: Request, found: tuple[bytes, bytes, bytes, bytes | None]) -> None:
    assert facts(read_original(request_)) == found


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "X-Forwarded-Uri is missing"),
        ((b"X-Forwarded-Uri:",), "X-Forwarded-Uri isn't one path"),
        ((b"X-Forwarded-Uri: /a", b"X-Forwarded-Uri: /a"), "X-Forwarded-Uri isn't one path"),
        ((b"X-Forwarded-Uri: /a, /b",), "X-Forwarded-Uri isn't one path"),
        ((b"X-Forwarded-Uri: http://shop.example/a",), "X-Forwarded-Uri isn't one path"),
        ((b"X-Forwarded-Uri: *",), "X-Forwarded-Uri isn't one path"),
        ((b"X-Forwarded-Uri: /a#b",), "X-Forwarded-Uri isn't one path"),
        ((b"X-Forwarded-Uri: /a b",), "X-Forwarded-Uri isn't one path"),
        ((b"X-Original-URI: /a", b"X-Forwarded-Uri: /free"), "X-Forwarded-Uri and X-Original-URI differ"),
        (
            (b"X-Original-URL: http://shop.example/a", b"X-Forwarded-Uri: /b"),
            "X-Forwarded-Uri and X-Original-URL differ",
        ),
        ((b"X-Original-URL: ftp://shop.example/a",), "X-Original-URL isn't an address"),
        ((b"X-Original-URL: a",), "X-Original-URL isn't an address"),
        ((b"X-Original-URL: http://a/b", b"X-Original-URL: http://a/b"), "X-Original-URL isn't one path"),
        ((b"X-Original-URL: http://e@vil/a",), "X-Original-URL isn't one host"),
        ((b"X-Forwarded-Uri: /a", b"X-Forwarded-Host: a, b"), "X-Forwarded-Host isn't one host"),
        ((b"X-Forwarded-Uri: /a", b"X-Forwarded-Host: a,b"), "X-Forwarded-Host isn't one host"),
        ((b"X-Forwarded-Uri: /a", b"X-Forwarded-Host: a@b"), "X-Forwarded-Host isn't one host"),
        (
            (b"X-Forwarded-Host: a.example", b"X-Original-URL: http://b.example/a"),
            "X-Forwarded-Host and X-Original-URL differ",
        ),
        ((b"X-Forwarded-Uri: /a", b"X-Forwarded-Proto: https, http"), "X-Forwarded-Proto isn't http or https"),
        (
            (b"X-Forwarded-Proto: http", b"X-Original-URL: https://shop.example/a"),
            "X-Forwarded-Proto and X-Original-URL differ",
        ),
        (
            (b"X-Forwarded-Uri: /a", b"X-Forwarded-Method: GET", b"X-Original-Method: POST"),
            "X-Forwarded-Method and X-Original-Method differ",
        ),
        ((b"X-Forwarded-Uri: /a", b"X-Forwarded-Method: get"), "X-Forwarded-Method isn't a method that is allowed"),
        ((b"X-Forwarded-Uri: /a", b"X-Forwarded-Method: TRACE"), "X-Forwarded-Method isn't a method that is allowed"),
        ((b"X-Forwarded-Uri: /a", b"X-Original-Method:"), "X-Original-Method isn't a method that is allowed"),
    ],
)
def test_what_cannot_be_read_for_certain_is_refused(lines: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(OriginalRequestError) as error:
        read_original(check(*lines))
    assert error.value.reason == reason


def test_the_path_behind_a_check_agrees_with_the_headers() -> None:
    behind = b"/.waitroom/check/sale"
    assert read_original(check(b"X-Forwarded-Uri: /sale", target=behind)).target == b"/sale"
    for line in (b"X-Forwarded-Uri: /free", b"X-Forwarded-Method: POST"):
        with pytest.raises(OriginalRequestError, match="differ"):
            read_original(check(line, target=behind))


@pytest.mark.parametrize(
    ("target", "split"),
    [
        (b"/.waitroom/check", (b"", None)),
        (b"/.waitroom/check?answer=page", (b"answer=page", None)),
        (b"/.waitroom/check?answer=page&room=a", (b"answer=page&room=a", None)),
        (b"/.waitroom/check?room=a&answer=page/x", (b"room=a&answer=page/x", None)),
        (b"/.waitroom/check?answer=page&to=/x", (b"answer=page&to=/x", None)),
        (b"/.waitroom/check/", (b"", b"/")),
        (b"/.waitroom/check/a?answer=redirect", (b"", b"/a?answer=redirect")),
        (b"/.waitroom/check?answer=page/", (b"answer=page", b"/")),
        (b"/.waitroom/check;answer=page", (b"answer=page", None)),
        (b"/.waitroom/check;answer=page/a?b&c=/d", (b"answer=page", b"/a?b&c=/d")),
        (b"/.waitroom/check?answer=page/a?b&c=/d", (b"answer=page", b"/a?b&c=/d")),
    ],
)
def test_the_parts_of_a_checks_target(target: bytes, split: tuple[bytes, bytes | None]) -> None:
    assert is_check(target)
    assert split_check(target) == split


@pytest.mark.parametrize("target", [b"/.waitroom/checked", b"/.waitroom/status", b"/sale/.waitroom/check", b"/"])
def test_other_targets_are_no_check(target: bytes) -> None:
    assert not is_check(target)


def test_an_unknown_method_is_a_page_if_it_looks_like_one_and_never_safe() -> None:
    page = read_original(check(b"X-Forwarded-Uri: /", b"Accept: text/html"))
    assert (page.method, page.kind) == (UNKNOWN_METHOD, Kind.NAVIGATION)
    assert read_original(check(b"X-Forwarded-Uri: /")).kind is Kind.OTHER


@pytest.mark.parametrize("line", [b"Upgrade: websocket", b"Sec-WebSocket-Key: x"])
def test_a_websocket_is_recognized_although_proxies_drop_its_upgrade(line: bytes) -> None:
    original = read_original(check(b"X-Forwarded-Uri: /", b"X-Forwarded-Method: GET", line))
    assert original.upgrade == b"websocket"


def test_a_body_stays_with_the_proxy() -> None:
    given = check(b"X-Forwarded-Uri: /", b"X-Forwarded-Method: POST", b"Content-Length: 5", method=b"POST")
    original = read_original(given)
    assert (original.content_length, original.has_body) == (None, True)
    assert not read_original(check(b"X-Forwarded-Uri: /", b"X-Forwarded-Method: GET")).has_body


@pytest.mark.parametrize(
    "behind",
    [
        *(b"/../status", b"/..", b"//../x", b"/a/../../x", b"/%2e%2e/x", b"/..%2fx", b"/a%2f..%2f..%2fx", b"/%252e./x"),
        *(b"/..;/x", b"/\\..\\x", b"/./../x", b"/a;v=1/..;v=2/../x"),
    ],
)
@pytest.mark.parametrize(
    "prefix", [b"/.waitroom/check", b"/.waitroom/check;answer=page", b"/.waitroom/check?answer=page"]
)
def test_a_path_that_leaves_the_check_may_be_a_visitors(prefix: bytes, behind: bytes) -> None:
    """A proxy that resolves dot segments takes it for another address of ours, which visitors may reach."""
    with pytest.raises(OriginalRequestError) as caught:
        read_original(check(target=prefix + behind))
    assert caught.value.reason == "the path leads out of the check"


@pytest.mark.parametrize("protocol", [b"h2c", b"H2C", b"websocket, h2c", b"TLS/1.2, HTTP/1.1", b"HTTP/2.0"])
def test_a_tunnel_of_http_would_carry_requests_past_the_check(protocol: bytes) -> None:
    with pytest.raises(OriginalRequestError) as caught:
        read_original(check(*TRAEFIK, b"Upgrade: " + protocol))
    assert caught.value.reason == "Upgrade names a protocol that carries HTTP"


@pytest.mark.parametrize("behind", [b"/a/../b", b"/a/..", b"/a?to=/../..", b"/..a/b", b"/a/b/../../c", b"/..."])
def test_other_dots_behind_the_check(behind: bytes) -> None:
    assert read_original(check(target=CHECK + behind)).target == behind


def test_only_a_check_has_a_path_behind_it() -> None:
    """The waiting page that a proxy serves in place is read the same way, and its query is the visitor's."""
    with pytest.raises(OriginalRequestError) as caught:
        read_original(check(target=b"/.waitroom/wait?/elsewhere"))
    assert caught.value.reason == "X-Forwarded-Uri is missing"
