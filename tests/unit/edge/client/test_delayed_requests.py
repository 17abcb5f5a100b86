"""Requests that wait before they are forwarded: for the store, a body, their session's limits, or a connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.asyncio_fakes import Wire
from support.edge_world import BUSY, OK, PAGE, QUIET, World, answer, at_shop, get, sent
from waitroom.edge.client.request_cycle import READ_AHEAD

LARGE = READ_AHEAD + 1000
PIECE = 4096


def pieces(size: int) -> list[bytes]:
    return [b"x" * min(PIECE, size - start) for start in range(0, size, PIECE)]


# Bodies that arrive meanwhile.


def test_large_body_resumes_after_a_store_call():
    with World() as world:
        world.store.hold("change_sessions")
        cookie = b"Cookie: waitroom_pass_shop=" + world.pass_(left=-5)
        wire = world.client()
        wire.send(get(b"/order", cookie, b"Content-Length: %d" % LARGE, method=b"POST"), *pieces(LARGE - 10))
        assert not wire.is_reading()
        world.store.let_go("change_sessions")
        wire.send(b"x" * 10)
        assert len(at_shop(world).body) == LARGE, "without waiting for the end of client_body_buffer_seconds"


def test_large_body_resumes_after_an_earlier_request():
    with World() as world:
        wire = sent(world)
        head = get(b"/order", world.inside(), b"Content-Length: %d" % (2 * READ_AHEAD), method=b"POST")
        wire.send(head, *pieces(LARGE))
        assert not wire.is_reading()
        world.shop.wire.send(OK)
        assert wire.is_reading()
        wire.send(*pieces(2 * READ_AHEAD - LARGE))
        assert world.shop.wire.got.endswith(b"x" * 2 * READ_AHEAD)


# Sessions that end meanwhile.


def look(world: World, **ends: tuple[int, ...]) -> None:
    """The worker's next view of the room lists these sessions as ended."""
    world.store.view_ = replace(BUSY, **ends)
    world.loop.wait(world.room.refresh())
    world.store.view_ = BUSY


def ask(world: World, path: bytes, *lines: bytes, method: bytes = b"GET") -> Wire:
    wire = world.client()
    wire.send(get(path, world.inside(), *lines, method=method))
    return wire


@pytest.mark.parametrize("end", ["ended", "released"])
@pytest.mark.parametrize("complete", [True, False], ids=["whole", "in part"])
def test_buffered_body_of_an_ended_session_is_not_forwarded(end, complete):
    with World() as world:
        wire = ask(world, b"/order", b"Content-Length: 10", method=b"POST")
        wire.send(b"hello")
        look(world, **{end: (90,)})
        if complete:
            wire.send(b"world")
        else:
            world.pass_time(10)
        assert answer(wire, b"POST").status == 503
        assert world.shop.attempts == 0
        assert world.room.metrics.requests == {"session_ended": 1}


def test_buffered_body_of_an_expired_session_is_not_forwarded():
    with World() as world:
        wire = world.client()
        cookie = b"Cookie: waitroom_pass_shop=" + world.pass_(left=5, ends=5)
        wire.send(get(b"/order", cookie, b"Content-Length: 10", method=b"POST"))
        world.pass_time(6)
        wire.send(b"helloworld")
        assert answer(wire, b"POST").status == 503
        assert world.shop.attempts == 0


@pytest.mark.parametrize(
    ("method", "lines"), [(b"POST", ()), (b"GET", (b"Connection: Upgrade", b"Upgrade: websocket"))]
)
def test_waiting_request_of_a_released_session_is_not_forwarded(method, lines):
    with World(upstream_max_connections=1) as world:
        first = ask(world, b"/first")
        wire, read = ask(world, b"/order", *lines, method=method), ask(world, b"/thanks.png")
        look(world, released=(90,))
        world.shop.wire.send(OK)
        assert answer(first).status == 200
        assert answer(wire, method).status == 503
        assert b"GET /thanks.png" in world.shop.wire.got, "reads have a grace"
        world.shop.wire.send(OK)
        assert answer(read).status == 200


def test_connection_freed_by_a_session_end_is_reused():
    with World(upstream_max_connections=1) as world:
        ask(world, b"/first")
        ask(world, b"/order", method=b"POST")
        other = world.client()
        other.send(get(b"/other", world.inside(91)))
        look(world, ended=(90,))
        world.shop.wire.send(OK)
        assert b"GET /other" in world.shop.wire.got
        world.shop.wire.send(OK)
        assert answer(other).status == 200


def test_throttled_reads_of_a_released_session_are_forwarded():
    with World(session_requests_in_flight=1) as world:
        wires = [ask(world, b"/%d" % number) for number in range(4)]
        look(world, released=(90,))
        for number in range(4):
            shop = world.shop.wire
            assert b"GET /%d " % number in shop.got
            shop.clear()
            shop.send(OK)
        assert [answer(wire).status for wire in wires] == [200] * 4


def test_throttled_request_of_an_expired_session_is_not_forwarded():
    with World(session_requests_in_flight=1) as world:
        cookie = b"Cookie: waitroom_pass_shop=" + world.pass_(left=1, ends=1)
        wires = [world.client(), world.client()]
        for wire in wires:
            wire.send(get(b"/order", cookie, method=b"POST"))
        world.loop.now += 1.5
        world.store.over.add(90)
        world.shop.wire.send(OK)
        assert [answer(wire, b"POST").status for wire in wires] == [200, 503]


# Limits of a session that another request has just freed.


def test_throttled_request_continues_below_the_limits():
    with World(session_requests_in_flight=1) as world:
        first, second, third = ask(world, b"/0"), world.client(), world.client()
        world.pass_time(5)

        def in_one_turn() -> None:
            second.protocol.data_received(get(b"/1", world.inside()))
            world.shop.wire.protocol.data_received(OK)
            third.protocol.data_received(get(b"/2", world.inside()))

        world.loop.do(in_one_turn)
        assert answer(first).status == 200
        for _ in range(2):
            world.shop.wire.send(OK)
        assert [answer(wire).status for wire in (second, third)] == [200, 200]


# Newcomers whose body never becomes complete.


@pytest.mark.parametrize("rest", [b"", b"xyz\r\n"])
def test_newcomer_keeps_the_pass_when_the_body_fails(rest: bytes) -> None:
    with World(view=QUIET) as world:
        world.store.admits = 1
        wire = world.client()
        framing = b"Transfer-Encoding: chunked" if rest else b"Content-Length: 5"
        wire.send(get(b"/order", PAGE, framing, method=b"POST") + rest)
        if not rest:
            for _ in range(2):  # for the buffer, and for the silence that follows
                world.pass_time(31.0)
        got = answer(wire, b"POST")
        assert got.status == (400 if rest else 408)
        assert any(line.startswith(b"waitroom_pass_shop=") for line in got.all(b"Set-Cookie"))
