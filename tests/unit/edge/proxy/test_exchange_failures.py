"""What becomes of a request when the shop fails, is late or takes no connections, and when the client goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.asyncio_fakes import Wire
from support.edge_world import LIMITS, OK, PAGE, World, answer, get, room_settings, sent, warm
from waitroom.edge.proxy.exchange import LONGEST_RESPONSE_HEAD

FIRST_BYTE, IDLE = room_settings().upstream_first_byte_seconds, room_settings().upstream_idle_seconds
IDEMPOTENT = [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# The shop fails.


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
        b"x" * (LONGEST_RESPONSE_HEAD + 1),
    ],
)
def test_what_is_no_answer(world, response):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(response)
    assert answer(wire).status == 502
    assert shop.aborted
    assert [entry["event"] for entry in world.logs][-1] == "upstream failed"
    sent(world, wire=wire)
    world.shop.wire.send(OK)
    assert wire.got.endswith(b"\r\n\r\nok"), "the client's connection goes on"


@pytest.mark.parametrize("sent_before", [b"", b"HTTP", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 103 Hint\r\n\r\n"])
@pytest.mark.parametrize("way", ["eof", "reset"])
def test_a_shop_that_ends_before_its_answer_begins(world, sent_before, way):
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
def test_an_answer_that_is_cut_short_does_not_look_complete(world, response, way, version):
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


def test_an_answer_that_ends_with_a_broken_connection_is_cut_short(world):
    wire = sent(world)
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
    world.shop.wire.reset()
    assert wire.aborted


def test_broken_chunks_in_the_middle_of_an_answer(world):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"x\r\n")
    assert wire.aborted
    assert shop.aborted


def test_more_than_the_length_says_is_not_the_next_answer(world):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert answer(wire).body == b"ok"
    assert shop.aborted
    sent(world, wire=wire)
    assert b"evil" not in wire.got


def test_a_shop_that_takes_no_connections(world):
    world.shop.refuses = ConnectionRefusedError("refused")
    assert world.ask(get(b"/", world.inside(), PAGE)).status == 502


def test_a_shop_that_is_full():
    with World(upstream_max_connections=1) as world:
        first, second = sent(world), sent(world)
        world.pass_time(room_settings().upstream_wait_seconds)
        assert answer(second).status == 503
        world.shop.wire.send(OK)
        assert answer(first).status == 200


def test_a_shop_that_is_full_for_a_moment():
    with World(upstream_max_connections=1) as world:
        first, second = sent(world), sent(world, method=b"POST", body=b"hello")
        world.shop.wire.send(OK)
        assert answer(first).status == 200
        world.shop.wire.send(OK)
        assert answer(second, b"POST").status == 200
        assert len(world.shop.wires) == 1


# Once more.


@pytest.mark.parametrize("method", IDEMPOTENT)
@pytest.mark.parametrize("way", ["eof", "reset"])
def test_a_connection_that_died_idle_is_no_reason_to_fail(world, method, way):
    shop = warm(world)
    wire = sent(world, method=method)
    first = shop.got
    shop.send_eof() if way == "eof" else shop.reset()
    assert len(world.shop.wires) == 2
    again = world.shop.wire
    assert again.got == first
    again.send(OK.removesuffix(b"ok") if method == b"HEAD" else OK)
    assert answer(wire, method).status == 200


def test_but_only_once(world):
    shop = warm(world)
    wire = sent(world)
    shop.send_eof()
    world.shop.wire.send_eof()
    assert answer(wire).status == 502
    assert world.shop.attempts == 2


@pytest.mark.parametrize("how", [{"method": b"POST"}, {"method": b"PATCH"}, {"method": b"PUT", "body": b"x"}])
def test_and_never_what_may_do_harm_twice(world, how):
    shop = warm(world)
    wire = sent(world, **how)
    shop.send_eof()
    assert answer(wire, how["method"]).status == 502
    assert world.shop.attempts == 1


@pytest.mark.parametrize("heard", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hint\r\nLink: a\r\n\r\n"])
def test_nor_what_the_shop_has_begun_to_answer(world, heard):
    shop = warm(world)
    wire = sent(world)
    shop.send(heard)
    shop.send_eof()
    assert answer(wire).status == 502
    assert world.shop.attempts == 1


def test_a_second_attempt_that_comes_too_late_is_not_made(world):
    """Its connection is there only after the visitor was answered: nobody would ever give it back."""
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


# What a visitor can provoke.

BAD = b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n"
DOWN = "upstream down"


@pytest.fixture
def two() -> Iterator[World]:
    """A shop with two addresses."""
    with World(upstream=("http://one.internal:3000", "http://two.internal:3000")) as world:
        yield world


def provoke(world: World, what: str, address: str, **how: Any) -> Wire:
    """A request that the shop answers with rubbish, or by hanging up."""
    wire = sent(world, wire=world.client(address), **how)
    shop = world.shop.wire
    shop.send(BAD) if what == "rubbish" else shop.send_eof()
    return wire


def down(world: World) -> list[str]:
    return [line["address"] for line in world.logs if line["event"] == DOWN]


@pytest.mark.parametrize("what", ["rubbish", "hang up"])
def test_one_visitor_cannot_take_an_address_out_of_rotation(two, what):
    for _ in range(20):
        assert answer(provoke(two, what, "192.0.2.1", method=b"POST", body=b"x"), b"POST").status == 502
        two.pass_time(0.1)
    assert down(two) == []
    assert two.room.metrics.upstream_failures == 20
    assert {two.pool.balancer.pick(two.loop.now), two.pool.balancer.pick(two.loop.now, {0})} == {0, 1}
    assert all(not one.failures for one in two.pool.balancer._addresses)


def test_rubbish_for_many_visitors_takes_no_address_out_either(two):
    for number in range(20):
        provoke(two, "rubbish", f"192.0.2.{number}")
    assert down(two) == []


def test_an_address_that_hangs_up_on_many_visitors_goes_out(two):
    for number in range(6):
        provoke(two, "hang up", f"192.0.2.{number}", method=b"POST", body=b"x")
    assert sorted(down(two)) == ["http://one.internal:3000", "http://two.internal:3000"]


def test_an_address_that_refuses_a_connection_goes_out_at_once(two):
    two.shop.refuses = ConnectionRefusedError("refused")
    sent(two)
    assert sorted(down(two)) == ["http://one.internal:3000", "http://two.internal:3000"]


def test_what_an_address_hung_up_on_is_asked_again_elsewhere(two):
    """Although the address is still in rotation, and the other one has more to do."""
    sent(two)
    wire = sent(two)
    first, second = two.shop.wires
    went = [wire.protocol.index for wire in (first, second)]
    second.send_eof()
    third = two.shop.wires[2]
    assert third.protocol.index == went[0]
    third.send(OK)
    assert answer(wire).status == 200


def test_failures_of_one_kind_make_one_line_in_ten_seconds(world):
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
    assert len(world.logs) == 3, "another kind has a line of its own"


def test_unknown_commands_of_the_shop_make_one_line_in_ten_seconds(world):
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


def test_a_shop_that_does_not_begin_to_answer(world):
    wire = sent(world)
    shop = world.shop.wire
    world.pass_time(FIRST_BYTE - 0.1)
    assert not wire.got
    world.pass_time(0.1)
    assert answer(wire).status == 504
    assert shop.aborted


def test_interim_answers_are_no_beginning(world):
    wire = sent(world)
    for _ in range(10):
        world.shop.wire.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        world.pass_time(FIRST_BYTE / 10)
    assert answer(wire).status == 504


def test_a_shop_that_falls_silent(world):
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


def test_a_client_whose_body_does_not_come(world):
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


def test_when_the_body_has_come_the_shop_has_its_time(world):
    wire = sent(world, b"Content-Length: 2", method=b"POST")
    wire.send(b"xx")
    world.pass_time(LIMITS.body_seconds)
    assert not wire.got
    world.pass_time(FIRST_BYTE - LIMITS.body_seconds)
    assert answer(wire, b"POST").status == 504


def test_a_shop_that_does_not_take_the_body_is_to_blame(world):
    wire = sent(world, b"Content-Length: 1000000", method=b"POST")
    world.pass_time(LIMITS.buffer_seconds)
    world.shop.wire.taking = False
    wire.send(*[b"x" * 10_000] * 20)
    assert wire.unread > 0
    world.pass_time(max(LIMITS.body_seconds, FIRST_BYTE))
    assert answer(wire, b"POST").status == 504


# Clients that go.


@pytest.mark.parametrize("way", ["reset", "eof"])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"])
def test_when_the_client_goes_the_shop_need_not_go_on(world, way, begun):
    wire = sent(world)
    shop = world.shop.wire
    shop.send(begun)
    wire.reset() if way == "reset" else wire.send_eof()
    assert wire.lost
    assert shop.aborted
    assert wire.aborted is (way == "eof" and b"\r\n\r\n" in begun)
    assert repr(world.pool) == "<UpstreamPool in_use=0 idle=0 connecting=0 wait=0>"
    assert world.room.metrics.requests == {"gone": 1}


def test_when_the_client_goes_while_a_connection_is_made(world):
    world.shop.hangs = True
    wire = sent(world)
    wire.reset()
    assert repr(world.pool) == "<UpstreamPool in_use=0 idle=0 connecting=0 wait=0>"
    world.shop.let_in()
    assert world.shop.got == b""


def test_when_the_client_goes_while_it_waits_for_a_connection():
    with World(upstream_max_connections=1) as world:
        first, second = sent(world), sent(world)
        second.reset()
        assert repr(world.pool) == "<UpstreamPool in_use=1 idle=0 connecting=0 wait=0>"
        world.shop.wire.send(OK)
        assert answer(first).status == 200


def test_a_client_that_has_said_all_it_had_to_say_is_answered(world):
    wire = sent(world, b"Connection: close")
    wire.send_eof()
    shop = world.shop.wire
    shop.send(OK)
    assert answer(wire).body == b"ok"
    assert wire.lost
    assert not wire.aborted
    assert repr(world.pool) == "<UpstreamPool in_use=0 idle=1 connecting=0 wait=0>"
