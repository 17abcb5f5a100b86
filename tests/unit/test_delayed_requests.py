"""Requests that had to wait before they could go to the shop: for the store, their session's bounds, or a connection."""

from __future__ import annotations

import pytest
from edge_harness import OK, World, at_shop, get, sent

from waitroom.edge.client import READ_AHEAD

LARGE = READ_AHEAD + 1000
PIECE = 4096


def pieces(size: int) -> list[bytes]:
    return [b"x" * min(PIECE, size - start) for start in range(0, size, PIECE)]


# Bodies that come meanwhile.


def test_a_large_body_that_began_while_the_store_was_asked_is_read_on():
    with World() as world:
        world.store.hold("change_sessions")
        cookie = b"Cookie: waitroom_pass_shop=" + world.pass_(left=-5)
        wire = world.client()
        wire.send(get(b"/order", cookie, b"Content-Length: %d" % LARGE, method=b"POST"), *pieces(LARGE - 10))
        assert not wire.is_reading()
        world.store.let_go("change_sessions")
        wire.send(b"x" * 10)
        assert len(at_shop(world).body) == LARGE, "without waiting for the end of client_body_buffer_seconds"


def test_a_large_body_behind_an_earlier_request_is_read_on():
    with World() as world:
        wire = sent(world)
        head = get(b"/order", world.inside(), b"Content-Length: %d" % (2 * READ_AHEAD), method=b"POST")
        wire.send(head, *pieces(LARGE))
        assert not wire.is_reading()
        world.shop.wire.send(OK)
        assert wire.is_reading()
        wire.send(*pieces(2 * READ_AHEAD - LARGE))
        assert world.shop.wire.got.endswith(b"x" * 2 * READ_AHEAD)
