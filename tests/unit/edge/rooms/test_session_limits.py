"""The limits of a session: excess requests wait in order, then get 429."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from support.asyncio_fakes import Wire
from support.edge_world import OK, PAGE, World, answer, get
from waitroom.edge.rooms.session import MAX_WAITING, Session, SessionLimits
from waitroom.edge.rooms.sessions import Sessions
from waitroom.tokens import Tokens

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket")
WAIT_SECONDS = 2


def ask(world: World, path: bytes, *lines: bytes, session: int = 90) -> Wire:
    wire = world.client()
    wire.send(get(path, world.inside(session), *lines))
    return wire


def at_shop(world: World) -> list[bytes]:
    """The paths of the requests that the shop has not answered yet."""
    return [wire.got.split(b" ", 2)[1] for wire in world.shop.open if wire.got]


def reply(world: World, path: bytes) -> None:
    (wire,) = (wire for wire in world.shop.open if wire.got.split(b" ", 2)[1:2] == [path])
    wire.clear()  # before the next request may follow
    wire.send(OK)


# At a time.


def test_requests_beyond_the_limit_wait_in_order():
    with World(session_requests_in_flight=2) as world:
        wires = [ask(world, b"/%d" % number) for number in range(5)]
        assert at_shop(world) == [b"/0", b"/1"]
        for done, others in (
            (b"/1", [b"/0", b"/2"]),
            (b"/0", [b"/2", b"/3"]),
            (b"/2", [b"/3", b"/4"]),
            (b"/4", [b"/3"]),
        ):
            reply(world, done)
            assert sorted(at_shop(world)) == others
        reply(world, b"/3")
        assert all(answer(wire).status == 200 for wire in wires)


def test_each_session_has_its_own_limit():
    with World(session_requests_in_flight=1) as world:
        for session in (90, 91, 92):
            ask(world, b"/%d" % session, session=session)
        assert at_shop(world) == [b"/90", b"/91", b"/92"]


def test_a_request_that_waits_too_long_gets_429_as_page_or_json():
    with World(session_requests_in_flight=1) as world:
        first = ask(world, b"/first")
        page, data = ask(world, b"/page", PAGE), ask(world, b"/data")
        world.pass_time(WAIT_SECONDS)
        got = answer(page)
        assert (got.status, got[b"Retry-After"], got[b"Content-Type"][:9]) == (429, b"1", b"text/html")
        got = answer(data)
        assert (got.status, json.loads(got.body)["status"]) == (429, 429)
        assert world.room.metrics.requests["session_limited"] == 2
        reply(world, b"/first")
        assert answer(first).status == 200
        reply_to = ask(world, b"/again")
        reply(world, b"/again")
        assert answer(reply_to).status == 200


def test_a_disconnecting_client_stops_waiting():
    with World(session_requests_in_flight=1) as world:
        ask(world, b"/0")
        gone, stays = ask(world, b"/1"), ask(world, b"/2")
        gone.reset()
        reply(world, b"/0")
        assert at_shop(world) == [b"/2"]
        reply(world, b"/2")
        assert answer(stays).status == 200


def test_a_client_that_disconnects_as_it_may_proceed_frees_its_slot():
    for turns in range(6):
        with World(session_requests_in_flight=1) as world:
            ask(world, b"/0")
            gone, stays = ask(world, b"/1"), ask(world, b"/2")
            world.loop.do(gone.reset_in, turns)
            reply(world, b"/0")
            if b"/1" in at_shop(world):
                reply(world, b"/1")
            assert at_shop(world) == [b"/2"], turns
            reply(world, b"/2")
            assert answer(stays).status == 200


def test_waiting_requests_are_bounded():
    with World(session_requests_in_flight=1) as world:
        ask(world, b"/0")
        waiting = [ask(world, b"/w") for _ in range(MAX_WAITING)]
        assert answer(ask(world, b"/one-more")).status == 429
        for wire in waiting:
            wire.reset()


def test_a_body_that_arrives_while_the_request_waits_is_not_lost():
    with World(session_requests_in_flight=1) as world:
        ask(world, b"/0")
        wire = world.client()
        wire.send(get(b"/post", world.inside(), b"Content-Length: 5", method=b"POST") + b"he", b"llo")
        reply(world, b"/0")
        assert world.shop.wire.got.endswith(b"\r\n\r\nhello")
        reply(world, b"/post")
        assert answer(wire, b"POST").status == 200


def test_tunnels_are_counted_separately():
    with World(session_requests_in_flight=2) as world:
        tunnels = [ask(world, b"/t%d" % number, *UPGRADE) for number in range(3)]
        requests = [ask(world, b"/r%d" % number) for number in range(3)]
        assert sorted(at_shop(world)) == [b"/r0", b"/r1", b"/t0", b"/t1"]
        for wire in list(world.shop.open):
            if b"GET /t" in wire.got:
                wire.send(SWITCHED)
                wire.clear()
        reply(world, b"/r0")
        assert sorted(at_shop(world)) == [b"/r1", b"/r2"], "a request that waits goes before no tunnel's slot is free"
        tunnels[0].reset()
        assert sorted(at_shop(world)) == [b"/r1", b"/r2", b"/t2"]
        for wire in (*tunnels, *requests):
            if not wire.lost:
                wire.reset()


# Per second.


@pytest.fixture
def limited() -> Sessions:
    return Sessions(Tokens(["a secret of sixteen characters"], "shop"), SessionLimits(per_second=10.0))


def burst(world: World, count: int) -> int:
    """How many of so many requests, one after the other, go on without a wait."""
    passed = 0
    for number in range(count):
        wire = ask(world, b"/b%d" % number)
        if b"/b%d" % number in at_shop(world):
            reply(world, b"/b%d" % number)
            passed += 1
        else:
            wire.reset()
    return passed


def test_a_burst_of_two_seconds_is_allowed():
    with World(session_requests_per_second=10) as world:
        assert burst(world, 30) == 20
        world.pass_time(1)
        assert burst(world, 30) == 10
        world.pass_time(0.5)
        assert burst(world, 30) == 5
        world.pass_time(2)
        assert burst(world, 30) == 20


def test_excess_requests_proceed_at_the_rate():
    with World(session_requests_per_second=2, upstream_wait_seconds=10) as world:
        assert burst(world, 4) == 4
        wires = [ask(world, b"/%d" % number) for number in range(4)]
        for number in range(4):
            assert at_shop(world) == []
            world.pass_time(0.51)
            assert at_shop(world) == [b"/%d" % number]
            reply(world, b"/%d" % number)
        assert all(answer(wire).status == 200 for wire in wires)


def test_a_request_that_would_wait_too_long_gets_retry_after():
    with World(session_requests_per_second=0.05) as world:
        assert burst(world, 1) == 1
        wire = ask(world, b"/late")
        world.pass_time(WAIT_SECONDS)
        got = answer(wire)
        assert got.status == 429
        assert 18 <= int(got[b"Retry-After"]) <= 20


def test_a_session_below_its_limits_has_no_throttle():
    with World(session_requests_per_second=10) as world:
        session = world.room.sessions.find(world.pass_())
        for _ in range(5):
            assert burst(world, 9) == 9
            assert session.throttle is None
            world.pass_time(1)
        assert burst(world, 15) == 15
        assert session.throttle is not None
        world.pass_time(2)
        assert burst(world, 1) == 1
        assert session.throttle is None, "it drops its throttle"


def test_in_any_window_a_session_sends_at_most_its_rate_and_one_burst(limited):
    """Random gaps: whatever the pattern, a second more than the bucket alone would let through at the most."""
    chance = random.Random(5)
    session = Session(1, 0, 0, 0)

    async def run() -> None:
        now, passed = 100.0, []
        for _ in range(5000):
            now += chance.choice((0.0, 0.0, 0.01, 0.05, 0.1, 0.3, 1.5))
            if limited.allow_request(session, now, False):
                passed.append(now)
        for start in range(0, len(passed), 7):
            for end in range(start, min(len(passed), start + 200)):
                assert end - start + 1 <= 10 * (passed[end] - passed[start]) + 30 + 1e-6

    asyncio.run(run())
