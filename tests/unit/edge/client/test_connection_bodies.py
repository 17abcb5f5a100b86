"""Request bodies: how much is buffered before the request is forwarded, for how long, and the minimum rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.asyncio_fakes import Wire
from support.edge_world import BUSY, LIMITS, OK, World, answer, at_shop, get, room_settings, sent
from waitroom.settings import BypassRule

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WANTED, SECONDS = LIMITS.buffer_bytes, LIMITS.buffer_seconds
CHUNKED = b"Transfer-Encoding: chunked"
PIECE = 4096


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def open_world(**settings: object) -> World:
    """A world with an uncovered path."""
    return World(paths=("/sale",), **settings)  # type: ignore[arg-type]


def upload(world: World, *lines: bytes, target: bytes = b"/free", address: str = "203.0.113.9") -> Wire:
    """A client without a pass sends the head of a request with a body."""
    wire = world.client(address)
    wire.send(get(target, *lines, method=b"POST"))
    return wire


# When a request is forwarded.


def test_small_body_is_forwarded_when_complete(world):
    wire = sent(world, b"Content-Length: 10", method=b"POST")
    wire.send(b"hello")
    assert world.shop.attempts == 0
    wire.send(b"hello")
    assert at_shop(world).body == b"hellohello"
    world.shop.wire.send(OK)
    assert answer(wire, b"POST").status == 200
    assert wire.is_reading()


def test_body_that_arrives_with_its_head_is_not_buffered(world, monkeypatch):
    monkeypatch.setattr("waitroom.edge.client.request_body.BodyBuffer", None)
    sent(world, method=b"POST", body=b"x" * 2 * WANTED)
    assert at_shop(world).body == b"x" * 2 * WANTED


def test_large_body_is_forwarded_once_the_buffer_is_full(world):
    size = 4 * WANTED
    wire = sent(world, b"Content-Length: %d" % size, method=b"POST")
    wire.send(*[b"x" * PIECE] * (WANTED // PIECE - 1))
    assert world.shop.attempts == 0
    assert world.edge.bodies.held == WANTED - PIECE
    wire.send(b"x" * PIECE)
    assert world.edge.bodies.held == 0
    wire.send(*[b"x" * PIECE] * ((size - WANTED) // PIECE))
    assert at_shop(world).body == b"x" * size


def test_body_is_forwarded_when_its_buffering_time_ends(world):
    wire = sent(world, b"Content-Length: 10", method=b"POST")
    wire.send(b"hello")
    world.pass_time(SECONDS - 0.5)
    assert world.shop.attempts == 0
    world.pass_time(0.5)
    assert world.shop.wire.got.endswith(b"\r\n\r\nhello")
    wire.send(b"world")
    assert at_shop(world).body == b"helloworld"


def test_stalled_body_times_out_while_buffered(world):
    with World(limits=replace(LIMITS, body_seconds=3.0)) as world:
        wire = sent(world, b"Content-Length: 10", method=b"POST")
        for _ in range(3):
            wire.send(b"x")
            world.pass_time(2)
        world.pass_time(1)
        assert answer(wire, b"POST").status == 408
        assert world.shop.attempts == 0
        assert world.room.metrics.requests == {"gone": 1}


@pytest.mark.parametrize("limits", [replace(LIMITS, buffer_bytes=0), replace(LIMITS, buffer_seconds=0.0)])
def test_buffering_can_be_switched_off(limits):
    with World(limits=limits) as world:
        sent(world, b"Content-Length: 10", method=b"POST")
        assert world.shop.attempts == 1


def test_chunked_body_with_a_pass_is_streamed(world):
    wire = sent(world, CHUNKED, method=b"POST")
    assert world.shop.attempts == 1
    wire.send(b"5\r\nhello\r\n0\r\n\r\n")
    assert at_shop(world).body == b"hello"


def test_chunked_body_without_a_pass_is_buffered():
    with open_world() as world:
        wire = upload(world, CHUNKED)
        wire.send(b"5\r\nhello\r\n")
        assert world.shop.attempts == 0
        wire.send(b"0\r\nX-Sum: 1\r\n\r\n")
        got = at_shop(world)
        assert (got.framing, got.body, got.trailers) == ("chunked", b"hello", [(b"X-Sum", b"1")])


def test_chunked_body_is_buffered_while_the_pool_is_half_full():
    with World(upstream_max_connections=4) as world:
        for _ in range(2):
            sent(world, CHUNKED, method=b"POST")
        assert world.shop.attempts == 2
        wire = sent(world, CHUNKED, method=b"POST")
        assert world.shop.attempts == 2
        wire.send(b"1\r\nx\r\n0\r\n\r\n")
        assert world.shop.attempts == 3


def test_malformed_chunks_in_the_buffer_never_reach_the_shop():
    with open_world() as world:
        wire = upload(world, CHUNKED)
        wire.send(b"5\r\nhello\r\n", b"x\r\n")
        assert answer(wire, b"POST").status == 400
        assert answer(wire, b"POST")[b"Connection"] == b"close"
        assert world.shop.attempts == 0


def test_requests_after_a_buffered_body_are_answered(world):
    wire = sent(world, b"Content-Length: 4", method=b"POST")
    wire.send(b"ab", b"cd" + get(b"/b", world.inside()))
    for _ in range(2):
        world.shop.wire.send(OK)
    assert wire.got.count(b"200 OK") == 2


# 100 Continue.


def test_continue_is_sent_once_when_buffering_begins(world):
    wire = sent(world, b"Expect: 100-continue", b"Content-Length: 5", method=b"POST")
    assert wire.got == CONTINUE
    assert world.shop.attempts == 0
    wire.send(b"he", b"llo")
    world.shop.wire.send(CONTINUE + OK)
    assert wire.got.count(b" 100 ") == 1


def test_expecting_client_that_sends_nothing_is_forwarded_in_the_end(world):
    wire = sent(world, b"Expect: 100-continue", b"Content-Length: 5", method=b"POST")
    world.pass_time(SECONDS)
    assert world.shop.attempts == 1
    wire.send(b"hello")
    assert at_shop(world).body == b"hello"
    assert wire.got == CONTINUE


# The size of the buffers.


def test_full_buffer_pauses_reading_until_a_connection_is_free(world):
    world.shop.hangs = True
    wire = sent(world, b"Content-Length: 1000000", method=b"POST")
    wire.send(*[b"x" * PIECE] * 240)
    assert world.edge.bodies.held == WANTED
    assert not wire.is_reading()
    assert wire.protocol._buffer == b""
    world.shop.let_in()
    assert world.edge.bodies.held == 0
    assert wire.unread == 0


def test_body_that_arrives_byte_by_byte_costs_no_more_memory(world):
    wire = sent(world, b"Content-Length: 1000", method=b"POST")
    wire.send(*[b"x"] * 999)
    held = wire.protocol._body.buffer
    assert (len(held), world.edge.bodies.held) == (999, 999)
    assert isinstance(held._data, bytearray)


@pytest.mark.parametrize("way", [Wire.reset, Wire.send_eof])
def test_disconnect_frees_the_buffer(world, way):
    wire = sent(world, b"Content-Length: 1000", method=b"POST")
    wire.send(b"x" * 500)
    assert world.edge.bodies.held == 500
    assert world.room.metrics.in_flight == 0, "it isn't in flight at the shop"
    way(wire)
    assert world.edge.bodies.held == 0
    assert world.room.metrics.requests == {"gone": 1}


def test_failed_request_frees_the_buffer():
    with World(upstream_max_connections=1, upstream_wait_seconds=1.0) as world:
        sent(world)
        wire = sent(world, b"Content-Length: 1000000", method=b"POST")
        wire.send(*[b"x" * PIECE] * 40)
        assert world.edge.bodies.held == WANTED
        world.pass_time(1.0)
        assert answer(wire, b"POST").status == 503
        assert world.edge.bodies.held == 0


def full(**settings: object) -> World:
    """A world with buffers of 1000 bytes in total, and an uncovered path."""
    return World(paths=("/sale",), most_buffered=1000, **settings)  # type: ignore[arg-type]


def test_body_without_a_pass_is_refused_when_buffers_are_full():
    with full() as world:
        first = upload(world, b"Content-Length: 2000")
        first.send(b"x" * 1000)
        second = upload(world, b"Content-Length: 10", b"Expect: 100-continue")
        got = answer(second, b"POST")
        assert (got.status, b"Retry-After" in got) == (503, True)
        assert CONTINUE not in second.got
        first.send(b"x")
        assert answer(first, b"POST").status == 503, "its buffer is needed by others"
        assert world.edge.bodies.held == 0
        assert world.shop.attempts == 0
        assert world.room.metrics.requests == {"buffers_full": 2}
        assert world.room.metrics.in_flight == 0
        assert world.room.metrics.upstream_request_seconds.counts[0] == 0
        assert world.logs == [], "any client can cause it"


def test_body_with_a_pass_is_streamed_when_buffers_are_full():
    with full() as world:
        held = upload(world, b"Content-Length: 2000")
        held.send(b"x" * 1000)
        inside = world.client()
        inside.send(get(b"/sale", world.inside(), b"Content-Length: 10", method=b"POST"))
        assert world.shop.attempts == 1
        inside.send(b"0123456789")
        assert at_shop(world).body == b"0123456789"
        inside.reset()


def test_body_with_a_pass_that_fills_the_buffers_is_streamed():
    with full() as world:
        wire = world.client()
        wire.send(get(b"/sale", world.inside(), b"Content-Length: 2000", method=b"POST"))
        wire.send(b"x" * 900)
        assert world.shop.attempts == 0
        wire.send(b"y" * 200)
        wire.send(b"z" * 900)
        assert at_shop(world).body == b"x" * 900 + b"y" * 200 + b"z" * 900


def test_complete_body_needs_no_buffer():
    with full() as world:
        held = upload(world, b"Content-Length: 2000")
        held.send(b"x" * 1000)
        wire = world.client()
        wire.send(get(b"/free", method=b"POST", body=b"hello"))
        assert at_shop(world).body == b"hello"


def test_buffering_time_is_not_latency_of_the_shop(world):
    wire = sent(world, b"Content-Length: 2", method=b"POST")
    wire.send(b"x")
    world.pass_time(SECONDS - 1)
    wire.send(b"x")
    world.shop.wire.send(OK)
    seconds = world.room.metrics.upstream_request_seconds
    assert (seconds.counts[0], seconds.sum) == (1, 0)


# The minimum rate of uploads.


def drip(world: World, wire: Wire, per_second: int, seconds: int) -> None:
    """Sends that many bytes a second."""
    for _ in range(seconds):
        if wire.got or wire.lost:
            return
        wire.send(b"x" * per_second)
        world.pass_time(1)


@pytest.mark.parametrize(("per_second", "cut"), [(400, True), (600, False)])
def test_slow_body_is_cut(world, per_second, cut):
    wire = sent(world, b"Content-Length: 10000000", method=b"POST")
    drip(world, wire, per_second, 10)
    shop = world.shop.wire
    drip(world, wire, per_second, 29)
    assert not wire.got
    drip(world, wire, per_second, 60)
    assert bool(wire.got) is cut
    if cut:
        assert answer(wire, b"POST").status == 408
        assert shop.aborted


def test_slow_body_with_a_started_response_is_aborted(world):
    wire = sent(world, b"Content-Length: 10000000", method=b"POST")
    world.pass_time(SECONDS)
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    for _ in range(31):
        wire.send(b"x")
        world.pass_time(1)
    assert wire.aborted


def test_waiting_for_the_shop_makes_no_upload_slow():
    with World(limits=replace(LIMITS, body_seconds=300.0)) as world:
        wire = sent(world, b"Content-Length: 10000000", method=b"POST")
        world.pass_time(SECONDS)
        shop = world.shop.wire
        shop.taking = False
        wire.send(b"x" * 70_000)
        for _ in range(100):
            world.pass_time(1)
        assert not wire.got
        shop.take()
        drip(world, wire, 600, 45)
        assert not wire.got


def test_minimum_rate_can_be_switched_off():
    with World(limits=replace(LIMITS, min_bytes_per_second=0.0)) as world:
        wire = sent(world, b"Content-Length: 10000000", method=b"POST")
        drip(world, wire, 1, 200)
        assert not wire.got


def test_stall_of_the_machine_makes_no_client_slow(world):
    wire = sent(world, b"Content-Length: 10000000", method=b"POST")
    drip(world, wire, 600, 12)
    for _ in range(5):
        world.pass_time(LIMITS.body_seconds - 2)
        wire.send(b"x" * 600)
    assert not wire.got


# The minimum rate of downloads.


def download(world: World) -> Wire:
    wire = sent(world)
    wire.taking = False
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n", *[b"x" * 10_000] * 1000)
    return wire


@pytest.mark.parametrize(("per_second", "cut"), [(400, True), (600, False)])
def test_slow_reader_is_cut(world, per_second, cut):
    wire = download(world)
    shop = world.shop.wire
    for _ in range(29):
        wire.take(per_second)
        world.pass_time(1)
    assert not wire.lost
    for _ in range(61):
        if not wire.lost:
            wire.take(per_second)
        world.pass_time(1)
    assert wire.aborted is cut
    assert shop.aborted is cut


def test_bytes_read_immediately_count(world):
    """It reads everything immediately, and nothing while the shop sends nothing."""
    wire = sent(world)
    shop = world.shop.wire
    shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    for _ in range(12):
        wire.taking = False
        shop.send(b"x" * 70_000)
        for _ in range(10):
            world.pass_time(1)
        wire.take()
    assert not wire.lost


def test_slow_shop_makes_no_client_slow(world):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    for _ in range(120):
        shop.send(b"x")
        world.pass_time(1)
    assert not wire.lost


def test_tunnels_have_no_minimum_rate(world):
    wire = world.client()
    wire.send(get(b"/ws", world.inside(), b"Connection: Upgrade", b"Upgrade: websocket"))
    shop = world.shop.wire
    shop.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    wire.taking = False
    shop.send(b"x" * 70_000)
    for _ in range(120):
        wire.take(10)
        wire.send(b"x")
        world.pass_time(0.9)
    assert not wire.lost


# Slow attacks take nothing from the pool.

BYPASS = room_settings(
    paths=("/sale",), upstream_max_connections=8, bypass=(BypassRule(paths=("/sale/hooks",), max_per_second=1000),)
)
PREFLIGHT = (b"Origin: https://app.example", b"Access-Control-Request-Method: POST")


@pytest.mark.parametrize("target", [b"/free", b"/sale/hooks/x"])
@pytest.mark.parametrize("lines", [(b"Content-Length: 1000000",), (CHUNKED,), (b"Content-Length: 9", *PREFLIGHT)])
def test_slow_bodies_take_no_connections(target, lines):
    with World(BYPASS, view=BUSY) as world:
        wires = [upload(world, *lines, target=target, address=f"192.0.2.{number % 250}") for number in range(300)]
        for _ in range(int(SECONDS) - 1):
            for wire in wires:
                wire.send(b"1\r\nx\r\n" if CHUNKED in lines else b"x" if PREFLIGHT[0] not in lines else b"")
            world.pass_time(1)
        assert world.shop.attempts == 0
        assert world.edge.bodies.held <= 300 * SECONDS
        inside = world.client("198.51.100.1")
        inside.send(get(b"/sale", world.inside()))
        world.shop.wire.send(OK)
        assert answer(inside).status == 200


def test_slow_heads_take_no_connections():
    with World(BYPASS) as world:
        wires = [world.client(f"192.0.2.{number % 250}") for number in range(300)]
        for _ in range(int(LIMITS.head_seconds) - 1):
            for wire in wires:
                wire.send(b"GET /free HTTP/1.1\r\nX: y\r\n" if not wire.protocol._buffer else b"X: y\r\n")
            world.pass_time(1)
        assert world.shop.attempts == 0
        inside = world.client("198.51.100.1")
        inside.send(get(b"/sale", world.inside()))
        world.shop.wire.send(OK)
        assert answer(inside).status == 200


def test_slow_readers_free_their_connections():
    with World(BYPASS) as world:
        wires = [world.client(f"192.0.2.{number % 250}") for number in range(4)]
        for wire in wires:
            wire.send(get(b"/free"))
            wire.taking = False
        for shop in list(world.shop.open):
            shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n", *[b"x" * 10_000] * 10)
        for _ in range(30):
            for wire in wires:
                wire.take(100)
            world.pass_time(1)
        assert all(wire.aborted for wire in wires)
        assert world.pool.in_flight == 0
