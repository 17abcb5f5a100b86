"""Pipelines: one connection's requests don't delay others, and responses keep their order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.edge_world import World, get
from support.http_reader import read_responses, read_whole_responses
from waitroom.edge.client.connection import REQUESTS_PER_TURN
from waitroom.edge.client.request_cycle import READ_AHEAD

STATUS = get(b"/.waitroom/status?room=shop")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def answers(got: bytes) -> int:
    return len(read_whole_responses(got, [b"GET"] * 2000, closed=False)[0])


def one_turn(world: World) -> None:
    world.loop.call_soon(world.loop.stop)
    world.loop.run_forever()


def test_requests_per_turn_are_bounded(world):
    wires = [world.client() for _ in range(20)]
    for wire in wires:
        wire._incoming.append(STATUS * 300)
        wire._deliver_soon()
    before = [0] * len(wires)
    turns = 0
    while min(before) < 300:
        one_turn(world)
        now = [answers(wire.got) for wire in wires]
        assert all(after - earlier <= REQUESTS_PER_TURN for earlier, after in zip(before, now, strict=True))
        assert max(now) - min(now) <= REQUESTS_PER_TURN, "all are served equally"
        before = now
        turns += 1
        assert turns <= 300
    assert turns >= 300 / REQUESTS_PER_TURN


def test_input_between_turns_waits_for_the_next_turn(world):
    wire = world.client()
    for _ in range(5):
        wire._incoming.append(STATUS * 20)
    wire._deliver_soon()
    done = 0
    while done < 100:
        one_turn(world)
        assert answers(wire.got) - done <= REQUESTS_PER_TURN
        done = answers(wire.got)


def test_connection_lost_between_turns_leaves_nothing_behind(world):
    wire = world.client()
    wire._incoming.append(STATUS * 300)
    wire._deliver_soon()
    one_turn(world)
    assert wire.protocol._next_turn is not None
    turn = wire.protocol._next_turn
    wire._break(ConnectionResetError("reset"))
    assert turn.cancelled()
    world.loop.settle()
    assert answers(wire.got) == REQUESTS_PER_TURN


def test_half_close_between_turns_is_answered(world):
    wire = world.client()
    wire._incoming.extend([STATUS * 300, None])
    wire._deliver_soon()
    world.loop.settle()
    assert len(read_responses(wire.got, [b"GET"] * 300)) == 300
    assert wire.lost


def test_half_close_between_turns_with_connection_close(world):
    wire = world.client()
    last = STATUS.replace(b"Host:", b"Connection: close\r\nHost:")
    wire._incoming.extend([STATUS * 30 + last + STATUS, None])
    wire._deliver_soon()
    world.loop.settle()
    found = read_responses(wire.got, [b"GET"] * 31, closed=True)
    assert found[-1][b"Connection"] == b"close"
    assert len(found) == 31


def test_responses_stay_in_order_when_some_wait(world):
    waiting = get(b"/", b"Waitroom-Ticket: " + world.ticket(99))
    wire = world.client()
    wire.send((STATUS * 11 + waiting) * 10 + get(b"/.waitroom/none"))
    found = read_responses(wire.got, [b"GET"] * 121)
    assert [answer.status for answer in found] == ([200] * 11 + [503]) * 10 + [404]


def test_client_that_reads_nothing_gets_no_turns(world):
    wire = world.client()
    wire.taking = False
    wire.send(*[STATUS * 50] * 40)
    assert wire.protocol._next_turn is None
    assert len(wire.protocol._buffer) <= READ_AHEAD + len(STATUS) * 50
    wire.take()
    assert len(read_responses(wire.got, [b"GET"] * 2000)) == 2000


def test_draining_worker_takes_no_more_turns(world):
    wire = world.client()
    wire._incoming.append(STATUS * 300)
    wire._deliver_soon()
    one_turn(world)
    world.edge.draining = True
    world.loop.settle()
    assert wire.lost
    assert answers(wire.got) == REQUESTS_PER_TURN + 1
