"""CORS preflights: what the shop receives and how often, and what is answered from memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.asyncio_fakes import Wire
from support.edge_world import BUSY, OK, PAGE, QUIET, World, answer, get, sent
from support.http_reader import Message, read_requests
from waitroom.edge.rooms.preflight import MAX_CACHED, MAX_KEY_BYTES, MAX_WAITING
from waitroom.queue.view import RoomState

ORIGIN = b"Origin: https://app.example"
ASKS = b"Access-Control-Request-Method: PUT"
ALLOWED = (
    b"HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: https://app.example\r\n"
    b"Access-Control-Allow-Methods: PUT\r\nAccess-Control-Max-Age: 60\r\nVary: Origin\r\n"
    b"Set-Cookie: shop=1\r\nX-Other: 1\r\n\r\n"
)


def preflight(path: bytes = b"/api", *lines: bytes, origin: bytes = ORIGIN) -> bytes:
    return get(path, origin, ASKS, *lines, method=b"OPTIONS")


def ask(world: World, request: bytes, *, wire: Wire | None = None, reply: bytes | None = ALLOWED) -> Wire:
    """Sends a preflight; the shop answers what reaches it."""
    wire = wire or world.client()
    wire.send(request)
    if reply is not None:
        serve(world, reply)
    return wire


def serve(world: World, reply: bytes = ALLOWED) -> list[Message]:
    """The preflights that the shop has received and answers now."""
    found = []
    for shop in world.shop.open:
        if shop.got:
            messages, rest = read_requests(shop.clear())
            assert rest == b""
            found += messages
            shop.send(reply)
    return found


def asked(world: World) -> int:
    """How many preflights have reached the shop."""
    return world.room.metrics.requests["preflight"]


def test_the_shop_gets_no_query_body_or_other_headers() -> None:
    with World() as world:
        wire = world.client()
        lines = (b"Access-Control-Request-Headers: x-token", b"Cookie: shop=1", b"Authorization: x", b"X-Other: 1")
        wire.send(preflight(b"/api/order?buy=1", *lines))
        (message,) = serve(world)
        assert message.start == b"OPTIONS /api/order HTTP/1.1"
        names = {name.lower() for name, _ in message.headers}
        assert names == {
            *(b"host", b"origin", b"access-control-request-method", b"access-control-request-headers"),
            *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"waitroom-room"),
        }
        got = answer(wire, b"OPTIONS")
        assert got.status == 204
        assert got[b"Access-Control-Allow-Methods"] == b"PUT"
        assert got[b"Vary"] == b"Origin"
        assert b"X-Other" not in got
        assert not got.all(b"Set-Cookie")


def test_a_request_with_a_body_is_no_preflight() -> None:
    with World(view=QUIET) as world:
        got = world.ask(get(b"/api", ORIGIN, ASKS, method=b"OPTIONS", body=b"order=1"))
        assert got.status == 503
        assert not world.shop.got


def test_a_response_is_cached_for_its_max_age() -> None:
    with World() as world:
        ask(world, preflight())
        for query in (b"", b"?a=1", b"?b=2"):
            got = world.ask(preflight(b"/api" + query))
            assert got[b"Access-Control-Allow-Origin"] == b"https://app.example"
        assert world.room.metrics.requests == {"preflight": 1, "preflight_cached": 3}
        world.pass_time(61.0)
        assert answer(ask(world, preflight()), b"OPTIONS").status == 204
        assert asked(world) == 2


@pytest.mark.parametrize(
    "other",
    [
        preflight(b"/other"),
        preflight(origin=b"Origin: https://other.example"),
        get(b"/api", ORIGIN, b"Access-Control-Request-Method: GET", method=b"OPTIONS"),
        preflight(b"/api", b"Access-Control-Request-Headers: x-token"),
    ],
)
def test_different_preflights_are_fetched_separately(other: bytes) -> None:
    with World() as world:
        ask(world, preflight())
        world.pass_time(2.0)
        ask(world, other)
        assert asked(world) == 2


@pytest.mark.parametrize("age", [b"Access-Control-Max-Age: 0\r\n", b"Access-Control-Max-Age: soon\r\n", b""])
def test_every_response_is_cached_briefly(age: bytes) -> None:
    refused = b"HTTP/1.1 403 Forbidden\r\n" + age + b"Content-Length: 2\r\n\r\nno"
    with World() as world:
        assert answer(ask(world, preflight(), reply=refused), b"OPTIONS").status == 403
        world.pass_time(4.0)
        got = world.ask(preflight())
        assert (got.status, got.body) == (403, b"")
        world.pass_time(2.0)
        ask(world, preflight())
        assert asked(world) == 2


def test_identical_preflights_share_one_request() -> None:
    with World() as world:
        wires = [ask(world, preflight(), reply=None) for _ in range(100)]
        assert len(serve(world)) == 1
        assert [answer(wire, b"OPTIONS").status for wire in wires] == [204] * 100
        assert world.pool.in_flight == 0


def test_a_disconnecting_client_does_not_cancel_the_shared_request() -> None:
    with World() as world:
        first = ask(world, preflight(), reply=None)
        second = ask(world, preflight(), reply=None)
        first.reset()
        assert len(serve(world)) == 1
        assert answer(second, b"OPTIONS").status == 204


def test_a_flood_of_distinct_preflights_stays_within_the_budget() -> None:
    with World(view=QUIET) as world:
        for number in range(200):
            ask(world, preflight(b"/%d" % number), wire=world.client(f"203.0.113.{number % 50}"))
        assert asked(world) == 4  # two a second, and two seconds' worth at first
        for _ in range(20):
            world.pass_time(0.25)
            serve(world)
        assert 8 <= asked(world) <= 4 + 2 * 5
        assert world.room.metrics.requests["preflight_refused"] + asked(world) == 200


def test_no_neighbourhood_uses_the_whole_budget() -> None:
    with World(preflights_per_second=10.0) as world:
        for number in range(100):
            ask(world, preflight(b"/%d" % number))
        assert asked(world) == 10
        ask(world, preflight(b"/x"), wire=world.client("198.51.100.7"))
        assert asked(world) == 11


def test_waiting_preflights_are_bounded() -> None:
    with World() as world:
        for number in range(2 * MAX_WAITING):
            ask(world, preflight(b"/%d" % number))
        assert world.room.preflights._waiting == MAX_WAITING
        world.pass_time(3.0)
        assert world.room.preflights._waiting == 0
        serve(world)


@pytest.mark.parametrize("state", list(RoomState))
def test_preflights_of_sessions_have_their_own_budget(state: RoomState) -> None:
    with World(view=replace(BUSY, state=state), session_requests_per_second=50.0) as world:
        world.room.neighbours.record("203.0.113.9", int(world.unix_time()))
        for number in range(80):
            ask(world, preflight(b"/%d" % number))
        assert asked(world) == 80
        for number in range(80, 200):
            ask(world, preflight(b"/%d" % number))
        assert asked(world) == 100


@pytest.mark.parametrize("state", [RoomState.CLOSED, RoomState.SOLD_OUT])
def test_in_a_closed_room_only_preflights_of_sessions_are_forwarded(state: RoomState) -> None:
    with World(view=replace(BUSY, state=state)) as world:
        wire = ask(world, preflight())
        world.pass_time(2.5)
        got = answer(wire, b"OPTIONS")
        assert got.status == 503
        assert not world.shop.got


def test_an_admission_marks_the_neighbourhood_as_active() -> None:
    with World(view=QUIET) as world:
        assert not world.room.neighbours.active("203.0.113.9", world.unix_time())
        world.store.admits = 1
        wire = world.client()
        wire.send(get(b"/a", PAGE))
        world.shop.wire.send(OK)
        assert world.room.neighbours.active("203.0.113.9", world.unix_time())


def test_an_admission_by_the_api_marks_the_neighbourhood_as_active() -> None:
    with World(view=QUIET) as world:
        world.store.admits = 1
        assert world.ask(get(b"/.waitroom/join", method=b"POST", body=b"")).status == 201
        assert world.room.neighbours.active("203.0.113.9", world.unix_time())


def test_a_busy_session_keeps_its_neighbourhood_active() -> None:
    with World() as world:
        sent(world)
        world.shop.wire.send(OK)
        assert world.room.neighbours.active("203.0.113.9", world.unix_time())


def test_a_waiting_preflight_is_forwarded_once_a_session_is_known() -> None:
    with World(view=replace(BUSY, state=RoomState.CLOSED)) as world:
        wire = ask(world, preflight(), reply=None)
        world.room.neighbours.record("203.0.113.9", int(world.unix_time()))
        world.pass_time(0.5)
        serve(world)
        assert answer(wire, b"OPTIONS").status == 204


@pytest.mark.parametrize(
    "reply",
    [b"HTTP/1.1 rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, None],
)
def test_a_shop_without_a_response(reply: bytes | None) -> None:
    with World() as world:
        wire = ask(world, preflight(), reply=reply)
        if reply is None:
            world.shop.wire.reset()
        assert answer(wire, b"OPTIONS").status == 502
        assert world.pool.in_flight == 0


def test_a_silent_shop() -> None:
    with World() as world:
        wire = ask(world, preflight(), reply=None)
        world.pass_time(60.0)
        assert answer(wire, b"OPTIONS").status == 502
        assert world.pool.in_flight == 0


def test_a_shop_that_refuses_connections() -> None:
    with World() as world:
        world.shop.refuses = ConnectionRefusedError("told to")
        wire = ask(world, preflight(), reply=None)
        assert answer(wire, b"OPTIONS").status == 502


def test_a_connection_is_reused_if_the_response_has_no_body() -> None:
    with World() as world:
        ask(world, preflight(b"/1"))
        ask(world, preflight(b"/2"))
        assert len(world.shop.wires) == 1
        world.pass_time(1.0)
        ask(world, preflight(b"/3"), reply=b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        assert not world.shop.open, "what it still sends belongs to nobody"


def test_what_is_kept_is_bounded() -> None:
    with World(preflights_per_second=1_000_000.0) as world:
        wire = world.client()
        for number in range(MAX_CACHED + 10):
            ask(world, preflight(b"/%d" % number), wire=wire)
        assert len(world.room.preflights._cached) == MAX_CACHED
        before = asked(world)
        for _ in range(2):
            ask(world, preflight(b"/" + b"x" * MAX_KEY_BYTES))
        assert asked(world) == before + 2


# Answered by the gateway itself.


def test_configured_origins_are_answered_from_memory() -> None:
    settings = {"cors_origins": ("https://app.example",), "cors_methods": ("PUT",), "cors_headers": ("X-Token",)}
    with World(view=replace(BUSY, state=RoomState.CLOSED), **settings) as world:
        for number in range(100):
            got = world.ask(preflight(b"/%d" % number, origin=b"Origin: https://APP.example"))
            assert got.status == 204
            assert got[b"Access-Control-Allow-Origin"] == b"https://app.example"
            assert got[b"Access-Control-Allow-Credentials"] == b"true"
            assert got[b"Access-Control-Allow-Methods"] == b"PUT"
            assert got[b"Access-Control-Allow-Headers"] == b"X-Token"
            assert got[b"Vary"] == b"Origin"
        got = world.ask(preflight(origin=b"Origin: https://other.example"))
        assert got.status == 204
        assert b"Access-Control-Allow-Origin" not in got
        assert not world.shop.wires
