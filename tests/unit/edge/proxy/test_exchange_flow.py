"""Back-pressure between both ends of an exchange, and tunnels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.asyncio_fakes import HIGH_WATER, Wire
from support.edge_world import LIMITS, OK, World, answer, at_shop, get, room_settings, sent
from support.http_reader import read_responses
from waitroom.edge.client.connection import LINGER_SECONDS
from waitroom.edge.client.request_cycle import READ_AHEAD
from waitroom.edge.proxy.exchange import TUNNEL_IDLE_SECONDS

FIRST_BYTE, IDLE = room_settings().upstream_first_byte_seconds, room_settings().upstream_idle_seconds


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# Back-pressure.


def test_client_that_reads_nothing_pauses_the_shop(world):
    wire = sent(world)
    shop = world.shop.wire
    wire.taking = False
    shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", *[b"x" * 10_000] * 100)
    assert HIGH_WATER < wire.unsent < HIGH_WATER + 11_000
    assert shop.unread > 900_000
    wire.take()
    assert shop.unread == 0
    assert answer(wire).body == b"x" * 1_000_000


def test_client_that_reads_in_small_steps_gets_everything(world):
    wire = sent(world)
    shop = world.shop.wire
    wire.taking = False
    shop.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"2710\r\n" + b"x" * 10_000 + b"\r\n"] * 50)
    shop.send(b"0\r\n\r\n")
    for _ in range(200):
        wire.take(3000)
        assert wire.unsent < HIGH_WATER + 11_000
    wire.take()
    assert answer(wire).body == b"x" * 500_000


def test_write_timeout_frees_the_shop(world):
    wire = sent(world)
    shop = world.shop.wire
    wire.taking = False
    shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", *[b"x" * 10_000] * 10)
    world.pass_time(LIMITS.write_seconds - 1)
    assert not wire.lost
    world.pass_time(1)
    assert wire.aborted
    assert shop.aborted


def test_slow_client_is_no_failure_of_the_shop(world):
    wire = sent(world)
    shop = world.shop.wire
    wire.taking = False
    shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", *[b"x" * 10_000] * 10)
    for _ in range(9):
        world.pass_time(LIMITS.write_seconds / 2)
        wire.take(1000)
    assert not wire.lost
    wire.take()
    assert len(answer(wire).body) == 100_000


def test_paused_client_pauses_a_new_exchange(world):
    """It hasn't read the previous response; the connection to the shop is yet to be opened."""
    world.shop.hangs = True
    wire = sent(world, b"Expect: 100-continue", b"Content-Length: 1", method=b"POST")
    wire.taking = False
    world.loop.do(wire.write, b"x" * (HIGH_WATER + 1))
    world.shop.let_in()
    wire.send(b"x")
    shop = world.shop.wire
    shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", *[b"x" * 10_000] * 10)
    assert shop.unread > 90_000
    wire.take()
    assert shop.unread == 0


def test_shop_that_reads_nothing_pauses_the_client(world):
    wire = sent(world, b"Content-Length: 1000000", method=b"POST")
    world.pass_time(LIMITS.buffer_seconds)
    shop = world.shop.wire
    shop.taking = False
    wire.send(*[b"x" * 10_000] * 100)
    assert HIGH_WATER < shop.unsent < HIGH_WATER + 11_000
    assert wire.unread > 900_000
    shop.take()
    assert wire.unread == 0
    assert at_shop(world).body == b"x" * 1_000_000
    shop.send(OK)
    assert answer(wire, b"POST").status == 200


def test_body_before_a_connection_pauses_reading(world):
    world.shop.hangs = True
    wire = sent(world, b"Content-Length: 1000000", method=b"POST")
    wire.send(*[b"x" * 10_000] * 100)
    assert wire.unread == 1_000_000 - 140_000, "only what is buffered before forwarding"
    assert wire.protocol._buffer == b""
    world.shop.let_in()
    assert at_shop(world).body == b"x" * 1_000_000


def test_requests_during_a_response_pause_reading():
    with World(session_requests_per_second=1e6) as world:
        wire = sent(world)
        world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        one = get(b"/b", world.inside())
        wire.send(*[one * 20] * 100)
        assert wire.unread > 0
        assert len(wire.protocol._buffer) <= READ_AHEAD + 20 * len(one)
        world.shop.wire.send(b"ok")
        for _ in range(1999):
            world.shop.wire.send(OK)
        assert wire.unread == 0
        world.shop.wire.send(OK)
        assert wire.got.count(b"HTTP/1.1 200 OK") == 2001


def test_early_response_resumes_a_paused_client(world):
    wire = sent(world, b"Content-Length: 1000000", method=b"POST")
    world.pass_time(LIMITS.buffer_seconds)
    shop = world.shop.wire
    shop.taking = False
    wire.send(*[b"x" * 10_000] * 20)
    assert not wire.is_reading()
    shop.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert answer(wire, b"POST").status == 413
    assert wire.unread == 0, "input in transit must not cost it the response"


# Tunnels.

UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: abc")
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Accept: xyz\r\n\r\n"
)


def tunnel(world: World, early: bytes = b"", *, after: float = 0.0) -> tuple[Wire, Wire]:
    wire = world.client()
    wire.send(get(b"/ws", world.inside(), *UPGRADE) + early)
    world.pass_time(after)
    shop = world.shop.wire
    shop.send(SWITCH)
    return wire, shop


def test_upgrade(world):
    wire, shop = tunnel(world)
    got = at_shop(world)
    assert (got[b"Connection"], got[b"Upgrade"], got[b"Sec-WebSocket-Key"]) == (b"Upgrade", b"websocket", b"abc")
    back = answer(wire)
    assert (back.status, back[b"Connection"], back[b"Upgrade"]) == (101, b"Upgrade", b"websocket")
    assert back[b"Sec-WebSocket-Accept"] == b"xyz"
    shop.clear()
    wire.clear()
    wire.send(b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff")
    shop.send(b"HTTP/1.1 500 No\r\n\r\n", b"\xff\x00")
    assert shop.got == b"GET / HTTP/1.1\r\n\r\n\x00\xff"
    assert wire.got == b"HTTP/1.1 500 No\r\n\r\n\xff\x00"


def test_early_tunnel_data_is_not_lost(world):
    wire = world.client()
    wire.send(get(b"/ws", world.inside(), *UPGRADE) + b"from the client")
    shop = world.shop.wire
    assert b"from the client" not in shop.got, "it may be a request if the shop declines the upgrade"
    shop.send(SWITCH + b"from the shop")
    assert shop.got.endswith(b"\r\n\r\nfrom the client")
    assert wire.got.endswith(b"\r\n\r\nfrom the shop")


def test_declined_upgrade(world):
    wire = world.client()
    wire.send(get(b"/ws", world.inside(), *UPGRADE) + get(b"/b", world.inside()))
    world.shop.wire.send(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n")
    world.shop.wire.send(OK)
    assert [one.status for one in read_responses(wire.got, [b"GET"] * 2)] == [426, 200]


@pytest.mark.parametrize(
    "lines", [(b"Connection: Upgrade", b"Upgrade: h2c"), (b"Upgrade: websocket",), (b"Connection: upgrade",)]
)
def test_other_upgrades_are_not_forwarded(world, lines):
    sent(world, *lines, b"HTTP2-Settings: x")
    got = at_shop(world)
    assert b"Upgrade" not in got
    assert b"Connection" not in got


@pytest.mark.parametrize("way", ["eof", "reset"])
def test_tunnel_closed_by_the_shop(world, way):
    wire, shop = tunnel(world)
    shop.send(b"last words")
    shop.send_eof() if way == "eof" else shop.reset()
    assert wire.got.endswith(b"last words")
    assert wire.got_eof
    wire.send(b"more")
    world.pass_time(LINGER_SECONDS)
    assert wire.lost


@pytest.mark.parametrize("way", ["eof", "reset"])
def test_tunnel_closed_by_the_client(world, way):
    wire, shop = tunnel(world)
    wire.send(b"last words")
    wire.send_eof() if way == "eof" else wire.reset()
    assert wire.lost
    assert shop.lost
    assert world.room.metrics.requests == {"admitted": 1}


def test_last_tunnel_data_reaches_a_slow_client(world):
    wire, shop = tunnel(world)
    wire.taking = False
    shop.send(b"x" * 30_000)
    shop.send_eof()
    world.pass_time(LINGER_SECONDS)
    assert not wire.lost
    wire.take()
    assert wire.got.endswith(b"x" * 30_000)
    assert wire.got_eof


def test_idle_tunnel_times_out(world):
    wire, shop = tunnel(world)
    for speaker, listener in ((wire, shop), (shop, wire)):
        world.pass_time(TUNNEL_IDLE_SECONDS - 1)
        speaker.send(b"still there")
        assert listener.got.endswith(b"still there")
    world.pass_time(TUNNEL_IDLE_SECONDS)
    assert wire.got_eof
    assert shop.lost
    world.pass_time(LINGER_SECONDS)
    assert wire.lost
    assert world.room.metrics.requests == {"idle": 1}
    assert world.room.metrics.upstream_failures == 0


def test_latency_of_a_tunnel_is_the_time_to_the_101(world):
    metrics = world.room.metrics
    wire, _ = tunnel(world, after=0.02)
    assert metrics.upstream_response_seconds.sum == pytest.approx(0.02)
    assert (metrics.in_flight, metrics.awaiting) == (1, 0)
    world.pass_time(8)
    assert sum(metrics.upstream_request_seconds.counts) == 0
    wire.send_eof()
    assert sum(metrics.upstream_response_seconds.counts) == 1
    assert metrics.upstream_response_seconds.sum == pytest.approx(0.02)
    assert metrics.upstream_request_seconds.sum == pytest.approx(8.02)
    assert (metrics.in_flight, metrics.awaiting) == (0, 0)


def test_latency_of_a_stream_is_the_time_to_its_head(world):
    metrics = world.room.metrics
    wire = sent(world)
    shop = world.shop.wire
    world.pass_time(0.5)
    shop.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert metrics.awaiting == 1
    world.pass_time(0.5)
    shop.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    for _ in range(5):
        world.pass_time(IDLE - 1)
        shop.send(b"data: x\n\n")
    assert (metrics.upstream_response_seconds.sum, metrics.awaiting) == (pytest.approx(1.0), 0)
    shop.send_eof()
    assert wire.got.endswith(b"0\r\n\r\n")
    assert sum(metrics.upstream_response_seconds.counts) == 1
    assert metrics.upstream_request_seconds.sum == pytest.approx(1 + 5 * (IDLE - 1))


def test_idle_stream_is_no_failure_but_a_broken_one_is(world):
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    metrics = world.room.metrics
    wire = sent(world)
    world.shop.wire.send(stream)
    world.pass_time(IDLE)
    assert wire.aborted
    assert (metrics.requests, metrics.upstream_failures) == ({"idle": 1}, 0)
    wire = sent(world)
    world.shop.wire.send(stream)
    world.shop.wire.send_eof()
    assert wire.aborted
    assert (metrics.requests, metrics.upstream_failures) == ({"idle": 1, "failed": 1}, 1)


def test_unanswered_request_has_no_latency(world):
    sent(world)
    world.pass_time(FIRST_BYTE)
    metrics = world.room.metrics
    assert (metrics.requests, metrics.upstream_failures) == ({"failed": 1}, 1)
    assert sum(metrics.upstream_response_seconds.counts) == 0
    assert metrics.awaiting == 0


def test_tunnel_has_back_pressure_in_both_directions(world):
    wire, shop = tunnel(world)
    for speaker, listener in ((wire, shop), (shop, wire)):
        listener.clear()
        listener.taking = False
        speaker.send(*[b"x" * 10_000] * 20)
        assert speaker.unread > 100_000
        assert listener.unsent < HIGH_WATER + 11_000
        listener.take()
        assert speaker.unread == 0
        assert listener.got == b"x" * 200_000


def test_paused_tunnel_gets_a_new_deadline(world):
    wire, shop = tunnel(world)
    wire.taking = False
    shop.send(b"x" * (HIGH_WATER + 1))
    wire.take()
    world.pass_time(TUNNEL_IDLE_SECONDS - 1)
    assert not wire.got_eof
    world.pass_time(1)
    assert wire.got_eof


def test_tunnel_client_that_reads_nothing_is_cut(world):
    wire, shop = tunnel(world)
    wire.taking = False
    shop.send(b"x" * (HIGH_WATER + 1))
    world.pass_time(LIMITS.write_seconds / 2)
    wire.send(b"ping")
    world.pass_time(LIMITS.write_seconds / 2)
    assert wire.aborted
    assert shop.lost
