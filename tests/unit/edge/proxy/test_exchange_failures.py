"""Requests while the shop fails, is slow or refuses connections, and when the client disconnects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.asyncio_fakes import Wire
from support.edge_world import LIMITS, OK, PAGE, World, answer, get, room_settings, sent, warm
from waitroom.edge.proxy.exchange import MAX_RESPONSE_HEAD_BYTES

FIRST_BYTE, IDLE = room_settings().upstream_first_byte_seconds, room_settings().upstream_idle_seconds
IDEMPOTENT = [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# Failures of the shop.


@pytest.mark.parametrize(
    "response",
    [
        b"<html>\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"x" * (MAX_RESPONSE_HEAD_BYTES + 1),
    ],
)
def test_malformed_responses(world, response):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(response)
    assert answer(wire).status == 502
    assert shop.aborted
    assert [entry["event"] for entry in world.logs][-1] == "upstream failed"
    sent(world, wire=wire)
    world.shop.wire.send(OK)
    assert wire.got.endswith(b"\r\n\r\nok"), "the client's connection stays open"


@pytest.mark.parametrize("sent_before", [b"", b"HTTP", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 103 Hint\r\n\r\n"])
@pytest.mark.parametrize("way", ["eof", "reset"])
def test_connection_closed_before_the_response(world, sent_before, way):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(sent_before)
    shop.send_eof() if way == "eof" else shop.reset()
    assert answer(wire).status == 502
    assert world.shop.attempts == 1


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n",
    ],
)
@pytest.mark.parametrize("way", ["eof", "reset", "late"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_truncated_response_does_not_look_complete(world, response, way, version):
    wire = world.client()
    wire.send(get(b"/", world.inside()).replace(b"HTTP/1.1", b"HTTP/" + version))
    shop = world.shop.wire
    shop.send(response)
    if way == "late":
        world.pass_time(IDLE)
    else:
        shop.send_eof() if way == "eof" else shop.reset()
    assert wire.aborted
    assert not wire.got_eof


def test_response_ended_by_a_broken_connection_is_truncated(world):
    wire = sent(world)
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
    world.shop.wire.reset()
    assert wire.aborted


def test_malformed_chunks_within_a_response(world):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"x\r\n")
    assert wire.aborted
    assert shop.aborted


def test_bytes_beyond_the_length_are_not_the_next_response(world):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert answer(wire).body == b"ok"
    assert shop.aborted
    sent(world, wire=wire)
    assert b"evil" not in wire.got


def test_refused_connection(world):
    world.shop.refuses = ConnectionRefusedError("refused")
    assert world.ask(get(b"/", world.inside(), PAGE)).status == 502


def test_full_pool():
    with World(upstream_max_connections=1) as world:
        first, second = sent(world), sent(world)
        world.pass_time(room_settings().upstream_wait_seconds)
        assert answer(second).status == 503
        world.shop.wire.send(OK)
        assert answer(first).status == 200


def test_briefly_full_pool():
    with World(upstream_max_connections=1) as world:
        first, second = sent(world), sent(world, method=b"POST", body=b"hello")
        world.shop.wire.send(OK)
        assert answer(first).status == 200
        world.shop.wire.send(OK)
        assert answer(second, b"POST").status == 200
        assert len(world.shop.wires) == 1


# Retries.


@pytest.mark.parametrize("method", IDEMPOTENT)
@pytest.mark.parametrize("way", ["eof", "reset"])
def test_request_on_a_dead_idle_connection_is_retried(world, method, way):
    shop = warm(world)
    wire = sent(world, method=method)
    first = shop.got
    shop.send_eof() if way == "eof" else shop.reset()
    assert len(world.shop.wires) == 2
    again = world.shop.wire
    assert again.got == first
    again.send(OK.removesuffix(b"ok") if method == b"HEAD" else OK)
    assert answer(wire, method).status == 200


def test_retry_happens_only_once(world):
    shop = warm(world)
    wire = sent(world)
    shop.send_eof()
    world.shop.wire.send_eof()
    assert answer(wire).status == 502
    assert world.shop.attempts == 2


@pytest.mark.parametrize("how", [{"method": b"POST"}, {"method": b"PATCH"}, {"method": b"PUT", "body": b"x"}])
def test_non_idempotent_request_is_not_retried(world, how):
    shop = warm(world)
    wire = sent(world, **how)
    shop.send_eof()
    assert answer(wire, how["method"]).status == 502
    assert world.shop.attempts == 1


@pytest.mark.parametrize("heard", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hint\r\nLink: a\r\n\r\n"])
def test_request_with_a_started_response_is_not_retried(world, heard):
    shop = warm(world)
    wire = sent(world)
    shop.send(heard)
    shop.send_eof()
    assert answer(wire).status == 502
    assert world.shop.attempts == 1


def test_retry_after_a_disconnect_is_not_made(world):
    """Its connection is there only after the visitor was answered, and would never be released."""
    shop = warm(world)
    wire = sent(world)
    world.shop.hangs = True
    world.pass_time(FIRST_BYTE - 1)
    shop.send_eof()
    world.pass_time(1)
    assert answer(wire).status == 504
    world.shop.let_in()
    assert world.shop.wire.got == b""
    assert repr(world.pool) == "<UpstreamPool in_use=0 idle=1 connecting=0 wait=0>"


# Failures that a visitor can cause.

BAD = b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n"
DOWN = "upstream down"


@pytest.fixture
def two() -> Iterator[World]:
    """A shop with two addresses."""
    with World(upstream=("http://one.internal:3000", "http://two.internal:3000")) as world:
        yield world


def provoke(world: World, what: str, address: str, **how: Any) -> Wire:
    """A request that the shop answers with a malformed response, or by closing the connection."""
    wire = sent(world, wire=world.client(address), **how)
    shop = world.shop.wire
    shop.send(BAD) if what == "rubbish" else shop.send_eof()
    return wire


def down(world: World) -> list[str]:
    return [line["address"] for line in world.logs if line["event"] == DOWN]


@pytest.mark.parametrize("what", ["rubbish", "hang up"])
def test_one_visitor_cannot_mark_an_address_down(two, what):
    for _ in range(20):
        assert answer(provoke(two, what, "192.0.2.1", method=b"POST", body=b"x"), b"POST").status == 502
        two.pass_time(0.1)
    assert down(two) == []
    assert two.room.metrics.upstream_failures == 20
    assert {two.pool.balancer.pick(two.loop.now), two.pool.balancer.pick(two.loop.now, {0})} == {0, 1}
    assert all(not one.failures for one in two.pool.balancer._addresses)


def test_malformed_responses_mark_no_address_down(two):
    for number in range(20):
        provoke(two, "rubbish", f"192.0.2.{number}")
    assert down(two) == []


def test_disconnects_of_many_visitors_mark_an_address_down(two):
    for number in range(6):
        provoke(two, "hang up", f"192.0.2.{number}", method=b"POST", body=b"x")
    assert sorted(down(two)) == ["http://one.internal:3000", "http://two.internal:3000"]


def test_refused_connection_marks_an_address_down(two):
    two.shop.refuses = ConnectionRefusedError("refused")
    sent(two)
    assert sorted(down(two)) == ["http://one.internal:3000", "http://two.internal:3000"]


def test_disconnected_request_is_retried_on_another_address(two):
    """Although the address is still in rotation, and the other one has more requests in flight."""
    sent(two)
    wire = sent(two)
    first, second = two.shop.wires
    went = [wire.protocol.index for wire in (first, second)]
    second.send_eof()
    third = two.shop.wires[2]
    assert third.protocol.index == went[0]
    third.send(OK)
    assert answer(wire).status == 200


def test_failures_of_one_kind_are_rate_limited_in_the_log(world):
    for number in range(50):
        sent(world)
        world.shop.wire.send(b"HTTP/1.1 200 OK\r\n%c : y\r\n\r\n" % (97 + number % 26))
    assert len(world.logs) == 1
    world.pass_time(10)
    sent(world)
    world.shop.wire.send(BAD)
    assert [line.get("suppressed") for line in world.logs] == [None, 49]
    sent(world)
    world.shop.wire.send_eof()
    assert len(world.logs) == 3, "another kind has its own line"


def test_unknown_commands_are_rate_limited_in_the_log(world):
    wire = world.client()
    for number in range(50):
        sent(world, wire=wire)
        world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nWaitroom-Command: x%d\r\n\r\n" % number)
    assert [line["event"] for line in world.logs] == ["ignoring unknown Waitroom-Command"]


def test_a_logged_command_is_cut_to_64_bytes(world):
    sent(world)
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nWaitroom-Command: %b\r\n\r\n" % (b"x" * 4_000))
    assert [line["command"] for line in world.logs] == [repr(b"x" * 64)]


# Deadlines.


def test_response_timeout(world):
    wire = sent(world)
    shop = world.shop.wire
    world.pass_time(FIRST_BYTE - 0.1)
    assert not wire.got
    world.pass_time(0.1)
    assert answer(wire).status == 504
    assert shop.aborted


def test_interim_responses_do_not_extend_the_timeout(world):
    wire = sent(world)
    for _ in range(10):
        world.shop.wire.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        world.pass_time(FIRST_BYTE / 10)
    assert answer(wire).status == 504


def test_idle_timeout_within_a_response(world):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
    for _ in range(3):
        world.pass_time(IDLE - 1)
        shop.send(b"x")
        assert not wire.lost
    world.pass_time(IDLE)
    assert wire.aborted
    assert shop.aborted


def test_body_timeout(world):
    wire = sent(world, b"Content-Length: 100", method=b"POST")
    world.pass_time(LIMITS.buffer_seconds)
    shop = world.shop.wire
    for _ in range(3):
        world.pass_time(LIMITS.body_seconds - 1)
        wire.send(b"x")
        assert not wire.got
    world.pass_time(LIMITS.body_seconds)
    assert answer(wire, b"POST").status == 408
    assert shop.aborted


def test_response_timeout_counts_from_the_end_of_the_body(world):
    wire = sent(world, b"Content-Length: 2", method=b"POST")
    wire.send(b"xx")
    world.pass_time(LIMITS.body_seconds)
    assert not wire.got
    world.pass_time(FIRST_BYTE - LIMITS.body_seconds)
    assert answer(wire, b"POST").status == 504


def test_timeout_of_a_shop_that_does_not_read_the_body(world):
    wire = sent(world, b"Content-Length: 1000000", method=b"POST")
    world.pass_time(LIMITS.buffer_seconds)
    world.shop.wire.taking = False
    wire.send(*[b"x" * 10_000] * 20)
    assert wire.unread > 0
    world.pass_time(max(LIMITS.body_seconds, FIRST_BYTE))
    assert answer(wire, b"POST").status == 504


# Clients that disconnect.


@pytest.mark.parametrize("way", ["reset", "eof"])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"])
def test_disconnect_cancels_the_request(world, way, begun):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(begun)
    wire.reset() if way == "reset" else wire.send_eof()
    assert wire.lost
    assert shop.aborted
    assert wire.aborted is (way == "eof" and b"\r\n\r\n" in begun)
    assert repr(world.pool) == "<UpstreamPool in_use=0 idle=0 connecting=0 wait=0>"
    assert world.room.metrics.requests == {"gone": 1}


def test_disconnect_while_connecting(world):
    world.shop.hangs = True
    wire = sent(world)
    wire.reset()
    assert repr(world.pool) == "<UpstreamPool in_use=0 idle=0 connecting=0 wait=0>"
    world.shop.let_in()
    assert world.shop.got == b""


def test_disconnect_while_waiting_for_a_connection():
    with World(upstream_max_connections=1) as world:
        first, second = sent(world), sent(world)
        second.reset()
        assert repr(world.pool) == "<UpstreamPool in_use=1 idle=0 connecting=0 wait=0>"
        world.shop.wire.send(OK)
        assert answer(first).status == 200


def test_half_closed_client_is_answered(world):
    wire = sent(world, b"Connection: close")
    wire.send_eof()
    shop = world.shop.wire
    shop.send(OK)
    assert answer(wire).body == b"ok"
    assert wire.lost
    assert not wire.aborted
    assert repr(world.pool) == "<UpstreamPool in_use=0 idle=1 connecting=0 wait=0>"
