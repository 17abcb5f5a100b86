"""The limits on client connections, and which are closed to make room for others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.asyncio_fakes import Wire
from support.edge_world import LIMITS, OK, PAGE, QUIET, World, get
from support.http_reader import read_responses
from waitroom.edge.client.limiter import MAX_SCANS, MIN_IDLE_SECONDS, ConnectionLimiter

STATUS = get(b"/.waitroom/status?room=shop")
MOST = 8
FREE_TO_ALL = 6


@pytest.fixture
def world() -> Iterator[World]:
    with World(view=QUIET, most_connections=MOST, most_per_address=1000) as world:
        yield world


def client(world: World, number: int) -> Wire:
    return world.client(f"192.0.2.{number}")


def idle(world: World, count: int, first: int = 1) -> list[Wire]:
    """Answered connections, one a second, that have been idle for long enough to be evicted."""
    wires = []
    for number in range(first, first + count):
        wires.append(client(world, number))
        wires[-1].send(STATUS)
        world.pass_time(1)
    world.pass_time(MIN_IDLE_SECONDS)
    return wires


def inside(world: World, number: int, *, keeps: bool = False) -> Wire:
    """A connection with a pass; ``keeps``: its request stays in flight."""
    wire = client(world, number)
    before = len(world.shop.open)
    wire.send(get(b"/", world.inside(number)))
    if not keeps:
        shop = next(one for one in world.shop.open if b"Waitroom-Session: %x\r\n" % number in one.got)
        shop.send(OK)
        shop.clear()
    assert len(world.shop.open) >= before
    return wire


def test_client_that_is_still_reading_is_not_idle(world):
    slow = client(world, 1)
    slow.send(get(b"/picture"))
    slow.taking = False
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200000)
    world.pass_time(MIN_IDLE_SECONDS + 1)
    for number in range(100, 100 + 2 * MOST):
        client(world, number)
        world.pass_time(1)
    assert not slow.lost
    slow.take()
    (got,) = read_responses(slow.got, [b"GET"], closed=False)
    assert len(got.body) == 200000


def test_longest_idle_connection_is_evicted(world):
    wires = idle(world, FREE_TO_ALL)
    newcomer = client(world, 100)
    assert [wire.lost for wire in wires] == [True] + [False] * 5
    newcomer.send(STATUS)
    assert read_responses(newcomer.got, [b"GET"])[0].status == 200
    client(world, 101)
    assert [wire.lost for wire in wires] == [True] * 2 + [False] * 4


def test_newcomers_are_admitted_one_by_one(world):
    idle(world, FREE_TO_ALL)
    for number in range(100, 160):
        newcomer = client(world, number)
        newcomer.send(STATUS)
        assert read_responses(newcomer.got, [b"GET"])[0].status == 200
        world.pass_time(MIN_IDLE_SECONDS)
    assert len(world.edge.clients) == FREE_TO_ALL


def test_new_request_ends_idleness(world):
    wires = idle(world, FREE_TO_ALL)
    wires[0].send(STATUS)
    client(world, 100)
    assert [wire.lost for wire in wires] == [False, True] + [False] * 4


def test_busy_candidate_is_not_evicted(world):
    wires = idle(world, FREE_TO_ALL)
    client(world, 100)
    world.store.hold("join")
    wires[1].send(get(b"/", PAGE))
    client(world, 101)
    assert [wire.lost for wire in wires] == [True, False, True] + [False] * 3
    world.store.let_go("join")


def test_request_in_flight_is_never_evicted(world):
    world.store.hold("join")
    wires = [client(world, number) for number in range(FREE_TO_ALL)]
    for wire in wires:
        wire.send(get(b"/", PAGE))
    world.pass_time(60)
    assert client(world, 100).aborted
    assert not any(wire.lost for wire in wires)
    world.store.let_go("join")


def test_new_connection_is_not_evicted_immediately(world):
    wires = [client(world, number) for number in range(FREE_TO_ALL)]
    world.pass_time(MIN_IDLE_SECONDS / 2)
    assert client(world, 100).aborted
    assert not any(wire.lost for wire in wires)
    world.pass_time(MIN_IDLE_SECONDS / 2)
    assert not client(world, 100).lost


def test_dripping_head_is_evicted(world):
    wires = [client(world, number) for number in range(FREE_TO_ALL)]
    for _ in range(4):
        for wire in wires:
            wire.send(b"G" if not wire.protocol._buffer else b"E")
        world.pass_time(MIN_IDLE_SECONDS / 4)
    assert not client(world, 100).lost
    assert sum(wire.lost for wire in wires) == 1


def test_head_that_has_just_begun_is_not_evicted(world):
    wires = idle(world, FREE_TO_ALL)
    wires[0].send(STATUS[:10])
    client(world, 100)
    assert [wire.lost for wire in wires] == [False, True] + [False] * 4


def test_last_quarter_is_reserved_for_passes(world):
    world.store.hold("join")
    for number in range(FREE_TO_ALL):
        client(world, number).send(get(b"/", PAGE))
    assert client(world, 100).aborted
    world.store.let_go("join")
    world.pass_time(MIN_IDLE_SECONDS)
    first = inside(world, 50)
    second = inside(world, 51)
    assert world.edge.connections.with_pass == 2
    idle(world, FREE_TO_ALL)
    for number in range(100, 120):
        client(world, number)
        world.pass_time(MIN_IDLE_SECONDS)
    assert not first.lost
    assert not second.lost
    first.reset()
    assert world.edge.connections.with_pass == 1


def test_passes_beyond_the_reserved_quarter_are_evicted(world):
    wires = []
    for number in range(MOST):
        wires.append(inside(world, 50 + number))
        world.pass_time(1)
    world.pass_time(MIN_IDLE_SECONDS)
    assert len(world.edge.clients) == MOST
    newcomers = [client(world, 100 + number) for number in range(MOST)]
    assert [wire.lost for wire in wires] == [True] * FREE_TO_ALL + [False] * 2
    assert sum(not wire.lost for wire in newcomers) == FREE_TO_ALL


def test_single_connection_needs_no_pass():
    with World(most_connections=1) as world:
        assert not client(world, 1).lost
        assert client(world, 2).aborted


def test_connections_per_neighbourhood_are_limited():
    with World(most_per_address=2, trusted=["2001:db8:9::/48"]) as world:
        first = world.client("2001:db8::1")
        world.client("2001:db8::ffff:1")
        assert world.client("2001:db8::2").aborted
        assert not world.client("2001:db8:0:1::2").lost
        world.pass_time(MIN_IDLE_SECONDS)
        assert not world.client("2001:db8::3").lost, "its own idle connections are evicted"
        assert first.lost or len(world.edge.clients) == 3
        for number in range(5):
            assert not world.client(f"2001:db8:9::{number + 1}").lost, "a trusted proxy stands for many"


def test_loopback_is_a_neighbourhood():
    with World(most_per_address=2) as world:
        for _ in range(2):
            world.client("127.0.0.1")
        assert world.client("127.0.0.1").aborted


@pytest.mark.interpreted
def test_fruitless_scans_are_not_repeated(monkeypatch):
    scans = []
    monkeypatch.setattr(ConnectionLimiter, "_longest_idle", lambda *arguments: scans.append(arguments) or [])
    with World(most_connections=4, most_per_address=1000) as world:
        for number in range(3):
            client(world, number)
        for number in range(50):
            assert client(world, 100 + number).aborted
        assert len(scans) == 1
        world.pass_time(0.5)
        for number in range(50):
            assert client(world, 100 + number).aborted
        assert len(scans) == 2


@pytest.mark.interpreted
def test_scans_per_sweep_are_bounded(monkeypatch):
    scans = []
    monkeypatch.setattr(ConnectionLimiter, "_longest_idle", lambda *arguments: scans.append(arguments) or [])
    with World(most_connections=1000, most_per_address=1) as world:
        for number in range(100):
            client(world, number)
            assert client(world, number).aborted
        assert len(scans) == MAX_SCANS


# Behind a trusted proxy.

PROXY = "10.0.0.1"


def forwarded(world: World, visitor: bytes, *lines: bytes) -> Wire:
    wire = world.client(PROXY)
    wire.send(get(b"/free", b"X-Forwarded-For: " + visitor, *lines))
    return wire


def test_requests_in_flight_behind_a_proxy_are_limited():
    with World(paths=("/sale",), trusted=[PROXY], most_per_address=3) as world:
        wires = [forwarded(world, b"2001:db8::%d" % number) for number in range(3)]
        (refused,) = read_responses(forwarded(world, b"2001:db8::9").got, [b"GET"])
        assert (refused.status, b"Retry-After" in refused) == (503, True)
        other = forwarded(world, b"2001:db8:0:1::9")
        assert len(world.shop.open) == 4
        for shop in list(world.shop.open):
            shop.send(OK)
        assert all(b"200 OK" in wire.got for wire in (*wires, other))
        again = forwarded(world, b"2001:db8::9")
        assert not again.got
        assert world.room.metrics.requests == {"uncovered": 4, "too_many_at_once": 1}
        again.reset()
        assert world.edge._in_flight.counts == {}


def test_requests_with_a_pass_are_not_limited_behind_a_proxy():
    with World(paths=("/sale",), trusted=[PROXY], most_per_address=1) as world:
        for _ in range(3):
            wire = world.client(PROXY)
            wire.send(get(b"/sale", b"X-Forwarded-For: 192.0.2.1", world.inside()))
            assert not wire.got
        assert len(world.shop.open) == 3


def test_rate_checks_do_not_extend_deadlines(world):
    """An evicted connection leaves nothing behind."""
    wires = idle(world, FREE_TO_ALL)
    client(world, 100)
    assert wires[0].lost
    world.pass_time(LIMITS.idle_seconds)
    assert all(wire.lost for wire in wires)
    assert not world.edge.clients
