"""Clients without a pass take as many connections as they can, without effect on admitted visitors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.asyncio_fakes import HIGH_WATER, Wire
from support.edge_world import OK, World, answer, get, sent

CONNECTIONS = 256
UNCOVERED = b"/elsewhere"


@pytest.fixture
def world() -> Iterator[World]:
    """A room with a covered path; all other paths are forwarded without a pass."""
    with World(paths=("/a",), session_requests_in_flight=CONNECTIONS, session_requests_per_second=1000.0) as world:
        yield world


def slow_body(world: World, wire: Wire) -> None:
    wire.send(get(UNCOVERED, b"Content-Length: 1000000", method=b"POST"), b"x" * 70_000)


def slow_reader(world: World, wire: Wire) -> None:
    wire.taking = False
    before = len(world.shop.wires)
    wire.send(get(UNCOVERED))
    for shop in world.shop.wires[before:]:
        shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x" * (HIGH_WATER + 1))


def websocket(world: World, wire: Wire) -> None:
    before = len(world.shop.wires)
    wire.send(get(UNCOVERED, b"Connection: Upgrade", b"Upgrade: websocket"))
    for shop in world.shop.wires[before:]:
        shop.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")


@pytest.mark.parametrize("attack", [slow_body, slow_reader, websocket])
@pytest.mark.parametrize("addresses", [1, 100])
def test_admitted_visitor_gets_a_connection_immediately(world, attack, addresses):
    for number in range(CONNECTIONS + 44):
        attack(world, world.client(f"198.51.100.{number % addresses}"))
    inside = [sent(world) for _ in range(CONNECTIONS // 2)]
    for shop in world.shop.open[-len(inside) :]:
        assert shop.got.startswith(b"GET /a ")
        shop.send(OK)
    assert [answer(wire).status for wire in inside] == [200] * len(inside)
    assert world.room.metrics.upstream_failures == 0
    if addresses == 1:
        # The rest of the share serves another client on the same paths.
        for shop in world.shop.open:
            shop.clear()
        other = world.client("203.0.113.77")
        other.send(get(UNCOVERED))
        (shop,) = [shop for shop in world.shop.open if shop.got]
        shop.send(OK)
        assert answer(other).status == 200


def test_busy_pool_sends_retry_after_and_is_no_failure():
    with World(paths=("/a",), upstream_max_connections=2) as world:
        wires = [world.client() for _ in range(2)]
        for wire in wires:
            wire.send(get(UNCOVERED))
        assert len(world.shop.wires) == 1
        world.pass_time(world.room.settings.upstream_wait_seconds)
        assert not wires[0].got
        refused = answer(wires[1])
        assert refused.status == 503
        assert refused[b"retry-after"] == b"5"
        metrics = world.room.metrics
        assert metrics.requests == {"busy": 1}
        assert metrics.upstream_failures == 0
        assert sum(metrics.upstream_request_seconds.counts) == 0, "it never reached the shop"
        assert metrics.awaiting == 1
