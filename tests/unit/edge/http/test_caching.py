"""Responses with a pass are uncacheable in every cache, and which responses count as cacheable."""

from __future__ import annotations

import pytest

from support.edge_world import World, answer, sent
from waitroom.edge.http.headers import response_headers
from waitroom.edge.http.message import Response, parse_response

TARGETED = [
    *(
        b"CDN-Cache-Control: max-age=600",
        b"Cloudflare-CDN-Cache-Control: max-age=600",
        b"Surrogate-Control: max-age=600",
    ),
    *(b"Edge-Control: !no-store, max-age=600", b"X-Accel-Expires: 600", b"X-Accel-Expires: @1790000000"),
    *(
        b"Vercel-CDN-Cache-Control: s-maxage=60",
        b"Akamai-Cache-Control: max-age=1",
        b"x-litespeed-cache-control: public",
    ),
]
OTHERS = [b"Vary: Cookie", b"Surrogate-Key: a b", b"Cache-Tag: a", b'ETag: "x"', b"X-Accel-Buffering: no", b"Age: 5"]


def response(*lines: bytes) -> Response:
    return parse_response(b"\r\n".join([b"HTTP/1.1 200 OK", *lines]) + b"\r\n\r\n")


@pytest.mark.parametrize("line", [*TARGETED, b"Cache-Control: max-age=9", b"Expires: x", b"Pragma: x"])
def test_private_response_has_only_our_cache_directive(line):
    kept = response_headers(response(*OTHERS, line, line.swapcase()), b"", private=True)
    assert kept == b"".join(other + b"\r\n" for other in OTHERS) + b"Cache-Control: private, no-store\r\n"
    assert line in response_headers(response(line), b"", private=False)


@pytest.mark.parametrize("line", TARGETED)
@pytest.mark.parametrize("before", [True, False])
def test_targeted_directive_makes_a_response_cacheable(line, before):
    no_store = b"Cache-Control: no-store"
    assert response(no_store).uncacheable
    assert not response(*((line, no_store) if before else (no_store, line))).uncacheable


@pytest.mark.parametrize(
    ("line", "uncacheable"),
    [
        (b"CDN-Cache-Control: no-store", True),
        (b"CDN-Cache-Control: Private", True),
        (b"CDN-Cache-Control:", False),
        (b"CDN-Cache-Control: max-age=0", False),
        (b"Surrogate-Control: no-store, content=ESI/1.0", True),
        (b"Surrogate-Control: private", False),
        (b"Edge-Control: no-store", True),
        (b"X-Accel-Expires: 0", True),
        (b"X-Accel-Expires: 00", False),
        (b"X-Accel-Expires: off", False),
        (b"Surrogate-Key: a", True),
    ],
)
def test_targeted_directive_that_forbids_storing(line, uncacheable):
    assert response(b"Cache-Control: no-store", line).uncacheable is uncacheable
    assert not response(line).uncacheable, "alone it has no effect on other caches"


@pytest.mark.parametrize(
    ("value", "uncacheable"),
    [
        (b'x="a, no-store, b", max-age=60', False),
        (b'x="a\\", no-store, b", max-age=60', False),
        (b'x="a, no-store', False),
        (b'x="a", no-store', True),
        (b'private="a, b", no-store', True),
    ],
)
def test_quoted_text_is_not_a_directive(value, uncacheable):
    assert response(b"Cache-Control: " + value).uncacheable is uncacheable


# Renewal of a pass.


def set_cookies(world: World, *lines: bytes) -> list[bytes]:
    wire = world.client()
    pass_ = b"Cookie: waitroom_pass_shop=" + world.pass_(left=10)
    wire.send(b"GET /a HTTP/1.1\r\nHost: shop.example\r\n%b\r\n\r\n" % pass_)
    world.shop.wire.send(b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: 2", *lines, b"", b"ok"]))
    return answer(wire).all(b"Set-Cookie")


@pytest.mark.parametrize("line", TARGETED)
def test_pass_is_not_renewed_on_a_cacheable_response(line):
    with World() as world:
        assert set_cookies(world, b"Cache-Control: no-store")
        assert not set_cookies(world, b"Cache-Control: no-store", line)


@pytest.mark.parametrize("line", TARGETED)
def test_new_pass_makes_the_response_uncacheable(line):
    """The shop's command renews it, whatever the response's cache headers say."""
    with World() as world:
        wire = sent(world)
        lines = (b"Waitroom-Command: hold=900", line, b"Content-Length: 2")
        world.shop.wire.send(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b"ok"]))
        got = answer(wire)
        assert got.all(b"Set-Cookie")
        assert line.partition(b":")[0] not in got
        assert got[b"Cache-Control"] == b"private, no-store"
