"""The end of a client connection: by deadlines or by the client, with nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from support import edge_world
from support.asyncio_fakes import HIGH_WATER, Wire
from support.edge_world import LIMITS, OK, PAGE, QUIET, World, get, warm
from support.http_reader import read_responses
from waitroom.edge import app
from waitroom.edge.client.connection import LINGER_SECONDS, ClientConnection
from waitroom.edge.http import message
from waitroom.edge.http.message import Request
from waitroom.edge.proxy.exchange import Exchange

STATUS = b"/.waitroom/status?room=shop"


@pytest.fixture
def quiet() -> Iterator[World]:
    with World(view=QUIET) as world:
        yield world


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# Deadlines.


def test_silent_client_is_closed(world):
    wire = world.client()
    world.pass_time(LIMITS.head_seconds - 0.1)
    assert not wire.lost
    world.pass_time(0.1)
    assert wire.lost
    assert wire.got == b""


def test_dripping_head_times_out(world):
    wire = world.client()
    for _ in range(9):
        wire.send(b"G")
        world.pass_time(LIMITS.head_seconds / 10)
        assert not wire.got
    wire.send(b"E")
    world.pass_time(LIMITS.head_seconds / 10)
    assert read_responses(wire.got, [b"GET"])[0].status == 408
    assert wire.got_eof


def test_dripping_second_head_times_out(world):
    wire = world.client()
    wire.send(get(STATUS))
    wire.clear()
    world.pass_time(LIMITS.idle_seconds - 1)
    wire.send(b"GET / HT")
    world.pass_time(1)
    assert read_responses(wire.got, [b"GET"])[0].status == 408, "the time between two requests is the idle one"
    wire = world.client()
    wire.send(get(STATUS) + b"GET / HT")
    wire.clear()
    world.pass_time(LIMITS.head_seconds)
    assert read_responses(wire.got, [b"GET"])[0].status == 408


def test_idle_connection_times_out(world):
    wire = world.client()
    wire.send(get(STATUS))
    world.pass_time(LIMITS.idle_seconds - 0.1)
    wire.send(get(STATUS))
    world.pass_time(LIMITS.idle_seconds - 0.1)
    assert not wire.lost
    world.pass_time(0.1)
    assert wire.lost
    assert not wire.aborted


def test_request_waiting_for_the_store_has_no_deadline(world):
    """Store calls have their own timeouts."""
    world.store.hold("join")
    wire = world.client()
    wire.send(get(b"/", PAGE))
    world.pass_time(1000)
    assert not wire.lost
    world.store.let_go("join")
    assert read_responses(wire.got, [b"GET"])[0].status == 503


def flood(world: World) -> Wire:
    """A client that reads none of hundreds of responses."""
    wire = world.client()
    wire.taking = False
    wire.send(get(STATUS) * 500)
    assert wire.unsent > HIGH_WATER
    return wire


def test_client_that_reads_nothing_is_cut(world):
    wire = flood(world)
    world.pass_time(LIMITS.write_seconds - 0.1)
    assert not wire.lost
    wire.send(get(STATUS))
    world.pass_time(0.1)
    assert wire.aborted, "although it keeps sending"


def test_client_that_reads_a_little_keeps_its_timeout(world):
    wire = flood(world)
    for _ in range(5):
        world.pass_time(LIMITS.write_seconds - 1)
        wire.take(1000)
        assert not wire.lost
        world.pass_time(1)
        assert not wire.lost
    world.pass_time(LIMITS.write_seconds)
    assert wire.aborted


def test_client_that_reads_again_continues(world):
    wire = flood(world)
    world.pass_time(LIMITS.write_seconds - 1)
    wire.take()
    assert len(read_responses(wire.got, [b"GET"] * 500)) == 500
    world.pass_time(LIMITS.idle_seconds - 1)
    assert not wire.lost
    world.pass_time(1)
    assert wire.lost


def test_client_that_does_not_read_the_last_response(world):
    """Too little to pause the transport, so that nothing else would time it out."""
    wire = world.client()
    wire.taking = False
    wire.send(get(b"/", PAGE, b"Connection: close"))
    assert 0 < wire.unsent < HIGH_WATER
    world.pass_time(LINGER_SECONDS)
    assert not wire.lost
    world.pass_time(LIMITS.write_seconds)
    assert wire.aborted


def test_client_that_reads_the_last_response_late(world):
    wire = world.client()
    wire.taking = False
    wire.send(get(b"/", PAGE, b"Connection: close"))
    world.pass_time(LIMITS.write_seconds - 1)
    wire.take()
    assert not wire.aborted
    assert read_responses(wire.got, [b"GET"])[0].status == 503
    assert wire.lost


def test_idle_client_with_an_unread_response(world):
    wire = world.client()
    wire.taking = False
    wire.send(get(b"/", PAGE))
    world.pass_time(LIMITS.idle_seconds)
    assert wire.is_closing()
    assert not wire.lost
    world.pass_time(LINGER_SECONDS)
    world.pass_time(LIMITS.write_seconds)
    assert wire.aborted


def test_unread_error_response_times_out(world):
    wire = world.client()
    wire.taking = False
    wire.send(b"\n")
    world.pass_time(LINGER_SECONDS)
    assert not wire.lost
    world.pass_time(LIMITS.write_seconds)
    assert wire.aborted


# Clients that disconnect.


@pytest.mark.parametrize("call", ["join", "visit"])
def test_disconnect_during_a_store_call_cancels_it(world, call):
    world.store.hold(call)
    wire = world.client()
    wire.send(get(b"/", PAGE, *([] if call == "join" else [b"Waitroom-Ticket: " + world.ticket(99)])))
    assert len(world.store.named(call)) == 1
    wire.reset()
    assert len(asyncio.all_tasks(world.loop)) == 1, "only the store call continues"
    assert not world.edge.clients
    counted = world.room.metrics.requests.copy()
    world.store.let_go(call)
    assert world.room.metrics.requests == counted
    assert world.loop.errors == []


def test_error_during_cancellation_is_logged(world):
    async def clumsy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("a mistake")

    wire = world.client()
    (client,) = world.edge.clients
    world.loop.do(client.spawn, clumsy())
    wire.reset()
    assert [entry["event"] for entry in world.logs] == ["request failed"]
    assert world.loop.errors == []


@pytest.mark.parametrize("turns", range(1, 9))
@pytest.mark.parametrize("going", [Wire.reset_in, Wire.end_in])
@pytest.mark.parametrize("warmed", [False, True])
def test_disconnect_as_the_store_responds_leaves_nothing_behind(quiet, warmed, going, turns):
    """An admitted visitor who has disconnected isn't forwarded; a forwarded request is cancelled."""
    if warmed:
        warm(quiet)
    quiet.store.admits = 1
    quiet.store.hold("join")
    wire = quiet.client()
    wire.send(get(b"/", PAGE))
    going(wire, turns)
    quiet.store.let_go("join")
    assert wire.lost
    assert quiet.pool.in_flight == 0
    assert quiet.room.metrics.in_flight == 0
    assert quiet.loop.errors == []


def test_half_close_ends_the_request(world):
    world.store.hold("join")
    wire = world.client()
    wire.send(get(b"/", PAGE))
    wire.send_eof()
    assert wire.lost
    assert wire.got == b""
    world.store.let_go("join")


def test_half_close_after_connection_close_is_answered(world):
    world.store.hold("join")
    wire = world.client()
    wire.send(get(b"/", PAGE, b"Connection: close"))
    wire.send_eof()
    assert not wire.lost
    world.store.let_go("join")
    assert read_responses(wire.got, [b"GET"])[0].status == 503
    assert wire.lost
    assert not wire.aborted


def test_half_close_within_a_body_ends_the_request(world):
    world.store.hold("join")
    wire = world.client()
    wire.send(get(b"/", PAGE, b"Connection: close", b"Content-Length: 5", method=b"POST"))
    wire.send_eof()
    assert wire.lost
    world.store.let_go("join")


@pytest.mark.parametrize("data", [b"", b"GET /", get(STATUS), get(STATUS) + b"GET"])
def test_half_close_between_requests_closes_the_connection(world, data):
    wire = world.client()
    wire.send(data)
    wire.send_eof()
    assert wire.lost
    assert not wire.aborted


def test_half_close_after_a_shop_response_closes_the_connection(world):
    wire = world.client()
    wire.send(get(b"/", world.inside()))
    world.shop.wire.send(OK)
    wire.send_eof()
    assert wire.lost
    assert not wire.aborted


def test_half_closed_client_that_reads_nothing_is_cut(world):
    wire = world.client()
    wire.taking = False
    wire.send(get(b"/", PAGE))
    wire.send_eof()
    world.pass_time(LINGER_SECONDS)
    assert not wire.lost
    world.pass_time(LIMITS.write_seconds)
    assert wire.aborted


class Watched:
    """Tracks which requests, exchanges and connections still exist."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.references: list[weakref.ref[object]] = []
        for module, original in ((message, Request), (app, Exchange), (edge_world, ClientConnection)):
            monkeypatch.setattr(module, original.__name__, self.watched(original))

    def watched(self, original: type) -> type:
        references = self.references

        class Seen(original):
            __slots__ = ("__weakref__",)

            def __init__(self, *arguments: object) -> None:
                references.append(weakref.ref(self))
                super().__init__(*arguments)

        return Seen

    @property
    def kinds(self) -> list[str]:
        return [type(one).__mro__[1].__name__ for reference in self.references if (one := reference()) is not None]


@pytest.mark.interpreted
@pytest.mark.parametrize("way", ["reset", "eof", "idle", "close", "refused", "held", "at the shop", "in a body"])
def test_lost_connection_keeps_no_references(world, monkeypatch, way):
    """Not even until the garbage collector runs: cycles of thousands of requests cost a pause."""
    watched = Watched(monkeypatch)
    gc.disable()
    try:
        wire = world.client()
        cookie = world.inside()
        match way:
            case "reset":
                wire.send(get(STATUS))
                wire.reset()
            case "eof":
                wire.send(get(STATUS))
                wire.send_eof()
            case "idle":
                wire.send(get(STATUS))
                world.pass_time(LIMITS.idle_seconds)
            case "close":
                wire.send(get(STATUS, b"Connection: close"))
            case "refused":
                wire.send(get(STATUS) + b"x\n")
                world.pass_time(LINGER_SECONDS)
            case "held":
                world.store.hold("join")
                wire.send(get(b"/", PAGE))
                wire.reset()
                world.store.let_go("join")
            case "at the shop":
                wire.send(get(b"/", cookie))
                wire.reset()
            case "in a body":
                wire.send(get(b"/", cookie, b"Content-Length: 9", method=b"POST") + b"x")
                world.pass_time(LIMITS.buffer_seconds)
                world.pass_time(LIMITS.body_seconds)
                world.pass_time(LINGER_SECONDS)
        assert wire.lost
        assert len(watched.references) >= 2
        assert watched.kinds == []
    finally:
        gc.enable()


@pytest.mark.interpreted
def test_idle_connection_keeps_no_request(world, monkeypatch):
    watched = Watched(monkeypatch)
    wire = world.client()
    wire.send(get(STATUS), get(b"/", world.inside()))
    world.shop.wire.send(OK)
    assert len(read_responses(wire.got, [b"GET"] * 2)) == 2
    assert watched.kinds == ["ClientConnection"]
    assert not wire.protocol.cookies
    assert wire.protocol.deadline < float("inf")
