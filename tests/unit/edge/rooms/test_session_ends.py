"""Ends of sessions: immediate here, with the next view elsewhere, and what is allowed after a release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.asyncio_fakes import Wire
from support.edge_world import BUSY, OK, PAGE, QUIET, World, answer, at_shop, get, sent
from support.http_reader import Message
from waitroom.edge.rooms.room import MAX_VIEW_GAP_SECONDS
from waitroom.errors import StoreUnavailable
from waitroom.queue.store import SessionChange
from waitroom.tokens import Pass

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
RELEASE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nWaitroom-Command: release\r\n\r\n"
GRACE = 30


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def look(world: World, session_max_ms: int = BUSY.session_max_ms, **ends: tuple[int, ...]) -> None:
    """The worker's next look at the room tells of these ends."""
    world.store.view_ = replace(BUSY, session_max_ms=session_max_ms, **ends)
    world.loop.wait(world.room.refresh())
    world.store.view_ = BUSY


def shop_at(world: World, path: bytes) -> Wire:
    """The shop's connection that has received a request for a path."""
    (wire,) = (wire for wire in world.shop.open if b" %b HTTP" % path in wire.got)
    return wire


def tunnel(world: World, session: int = 90) -> tuple[Wire, Wire]:
    """A visitor's open WebSocket, and the shop's end of it."""
    wire = world.client()
    wire.send(get(b"/socket", world.inside(session), *UPGRADE))
    shop = shop_at(world, b"/socket")
    shop.send(SWITCHED)
    assert b" 101 " in wire.clear()
    shop.clear()
    return wire, shop


def reaches(world: World, method: bytes = b"GET", *lines: bytes, session: int = 90) -> bool:
    """Whether a request under a pass for the session reaches the shop, which answers it."""
    wire = world.client()
    wire.send(get(b"/x", world.inside(session), *lines, method=method))
    if not wire.got:
        shop = shop_at(world, b"/x")
        shop.send(OK)
        shop.clear()
        return True
    assert answer(wire, method).status == 503
    return False


# Ended by an operator, or by the visitor on another worker.


def test_an_end_in_the_view_takes_effect(world):
    assert reaches(world)
    look(world, ended=(90,))
    assert not reaches(world)
    assert not reaches(world, b"POST")
    assert reaches(world, session=91), "nobody else's session ends"


def test_an_end_in_the_view_applies_to_passes_first_seen_later(world):
    look(world, ended=(90,), released=(91,))
    assert not reaches(world)
    assert reaches(world, session=91)
    assert not reaches(world, b"POST", session=91)
    world.pass_time(GRACE)
    assert not reaches(world, session=91)


def test_an_end_is_remembered_as_long_as_a_pass_can_be_valid(world):
    """A session's passes last until its hard end at the most, and holds prolong that once more."""
    late = world.tokens.sign_pass(Pass(90, 1_900_000_000, 1_900_000_000)).encode()
    look(world, ended=(90,))
    for _ in range(2):
        world.pass_time(14_399)
        assert world.ask(get(b"/x", b"Cookie: waitroom_pass_shop=" + late)).status == 503
    world.pass_time(3)
    assert len(world.room.sessions._ended) == 0


def test_requests_in_flight_finish_and_their_responses_remove_the_pass(world):
    wire = sent(world)
    look(world, ended=(90,))
    world.shop.wire.send(OK)
    got = answer(wire)
    assert got.body == b"ok"
    assert b"waitroom_pass_shop=; Path=/; Max-Age=0" in got[b"Set-Cookie"]
    assert got[b"Cache-Control"] == b"private, no-store"


def test_tunnels_end_with_their_session(world):
    wire, shop = tunnel(world)
    other, _ = tunnel(world, session=91)
    look(world, ended=(90,))
    assert wire.got_eof
    assert shop.lost or shop.got_eof or shop._closing
    assert not other.got_eof
    other.reset()


def test_a_tunnel_that_opens_as_its_session_ends_is_closed_by_the_next_sweep(world):
    wire = world.client()
    wire.send(get(b"/socket", world.inside(), *UPGRADE))
    look(world, ended=(90,))
    world.shop.wire.send(SWITCHED)
    world.pass_time(0.5)
    assert wire.got_eof


def test_a_tunnel_that_opens_after_a_release_is_closed_by_the_next_sweep(world):
    """The grace is for reads, not for what has asked for a tunnel before."""
    wire = world.client()
    wire.send(get(b"/socket", world.inside(), *UPGRADE))
    look(world, released=(90,))
    shop_at(world, b"/socket").send(SWITCHED)
    world.pass_time(0.5)
    assert wire.got_eof


def test_a_tunnel_closes_when_its_session_expires(world):
    wire = world.client()
    wire.send(get(b"/socket", b"Cookie: waitroom_pass_shop=" + world.pass_(left=20, ends=20), *UPGRADE))
    world.shop.wire.send(SWITCHED)
    world.pass_time(19)
    assert not wire.got_eof
    world.store.over.add(90)
    world.pass_time(1)
    assert wire.got_eof


def test_a_tunnel_continues_if_its_session_does_by_the_clock_of_the_store(world):
    wire = world.client()
    wire.send(get(b"/socket", b"Cookie: waitroom_pass_shop=" + world.pass_(left=20, ends=20), *UPGRADE))
    world.shop.wire.send(SWITCHED)
    world.store.left[90] = 60_000
    world.pass_time(21)
    assert not wire.got_eof
    [asked] = world.store.named("change_sessions")
    assert SessionChange("resume", 90, 0) in asked
    world.pass_time(59)
    assert not wire.got_eof
    world.store.over.add(90)
    world.pass_time(2)
    assert wire.got_eof


def test_a_tunnel_closes_at_its_end_while_the_store_is_unavailable(world):
    wire = world.client()
    wire.send(get(b"/socket", b"Cookie: waitroom_pass_shop=" + world.pass_(left=20, ends=20), *UPGRADE))
    world.shop.wire.send(SWITCHED)
    world.room.store_failed(StoreUnavailable("gone"))
    world.pass_time(19)
    assert not wire.got_eof
    world.pass_time(1)
    assert wire.got_eof


def test_a_hold_prolongs_a_tunnel(world):
    pass_ = world.pass_(left=20, ends=20)
    wire = world.client()
    wire.send(get(b"/socket", b"Cookie: waitroom_pass_shop=" + pass_, *UPGRADE))
    world.shop.wire.send(SWITCHED)
    held = world.client()
    held.send(get(b"/pay", b"Cookie: waitroom_pass_shop=" + pass_))
    shop_at(world, b"/pay").send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nWaitroom-Command: hold=60\r\n\r\n")
    world.pass_time(59)
    assert not wire.got_eof
    world.store.over.add(90)
    world.pass_time(1)
    assert wire.got_eof


def test_a_tunnel_that_closes_by_itself_is_unregistered(world):
    wire, shop = tunnel(world)
    assert world.room.sessions._tunnels
    shop.send_eof()
    assert wire.got_eof
    assert not world.room.sessions._tunnels


@pytest.mark.parametrize(("gap", "asked"), [(MAX_VIEW_GAP_SECONDS - 1, False), (MAX_VIEW_GAP_SECONDS + 1, True)])
def test_after_a_long_gap_between_views_each_session_is_checked(world, gap, asked):
    """It lists ends for half a minute: after that a look doesn't tell of all."""
    look(world)
    world.pass_time(gap)
    assert reaches(world)
    world.loop.wait(world.room.flush())
    look(world)
    world.store.calls.clear()
    assert reaches(world)
    world.loop.wait(world.room.flush())
    assert bool(world.store.named("change_sessions")) == asked


@pytest.mark.interpreted
def test_if_ends_were_dropped_the_store_is_asked(world, monkeypatch):
    monkeypatch.setattr("waitroom.edge.rooms.ended.MAX_ENDED", 3)
    assert reaches(world, session=7)
    look(world, ended=(1, 2, 3, 4))
    world.pass_time(0.5)
    assert len(world.room.sessions._ended) == 3
    world.store.over.add(1)
    assert not reaches(world, session=1), "this worker dropped it, but the store knows"
    asked = [change for batch in world.store.named("change_sessions") for change in batch]
    assert [change.session for change in asked if change.operation == "resume"] == [1]
    assert reaches(world, session=7), "a known session needs no check"
    assert reaches(world, session=8)


# Left.


def test_leaving_ends_the_session_immediately(world):
    wire, _ = tunnel(world)
    got = world.ask(get(b"/.waitroom/leave", world.inside(), method=b"POST", body=b""))
    assert got.status == 200
    assert [left[0] for left in world.store.named("leave")] == [90]
    assert wire.got_eof
    assert not reaches(world)


# Released.


def released(world: World, session: int = 90) -> Message:
    wire = world.client()
    wire.send(get(b"/order", world.inside(session), method=b"POST", body=b""))
    shop = shop_at(world, b"/order")
    shop.send(RELEASE)
    shop.clear()
    return answer(wire, b"POST")


def test_a_release_is_sent_to_the_store_immediately(world):
    released(world)
    assert [change for batch in world.store.named("change_sessions") for change in batch] == [
        SessionChange("release", 90, 28800_000)
    ]


def test_releases_during_a_call_are_sent_together(world):
    world.store.hold("change_sessions")
    released(world)
    for session in (91, 92, 93):
        released(world, session)
    world.store.let_go("change_sessions")
    told = [[change.session for change in batch] for batch in world.store.named("change_sessions")]
    assert told == [[90], [91, 92, 93]]


def test_a_release_that_failed_to_send_is_sent_later(world):
    world.store.broken = {"change_sessions"}
    released(world)
    assert not reaches(world, b"POST")
    world.store.broken = set()
    world.store.calls.clear()
    world.loop.wait(world.room.refresh())
    world.loop.wait(world.room.flush())
    assert world.store.named("change_sessions") == [[SessionChange("release", 90, 28800_000)]]


def test_a_second_release_neither_prolongs_the_grace_nor_is_sent(world):
    first, second = world.client(), world.client()
    for wire, path in ((first, b"/first"), (second, b"/second")):
        wire.send(get(path, world.inside(), method=b"POST", body=b""))
    for wire, path in ((first, b"/first"), (second, b"/second")):
        shop_at(world, path).send(RELEASE)
        assert answer(wire, b"POST").status == 200
        world.pass_time(GRACE / 2)
    assert [change for batch in world.store.named("change_sessions") for change in batch] == [
        SessionChange("release", 90, 28800_000)
    ]
    assert not reaches(world)


def test_the_browser_keeps_a_pass_during_the_grace(world):
    got = released(world)
    now = int(world.unix_time())
    assert b"Waitroom-Command" not in got
    (cookie,) = got.all(b"Set-Cookie")
    value, _, attributes = cookie.partition(b"; ")
    assert attributes == b"Path=/; Max-Age=%d; HttpOnly; SameSite=Lax" % GRACE
    assert world.tokens.read_pass(value.partition(b"=")[2]) == Pass(90, now + GRACE, now + GRACE)
    assert got[b"Cache-Control"] == b"private, no-store"
    assert world.ask(get(b"/x", b"Cookie: " + value, method=b"POST", body=b"")).status == 503


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_reads_are_forwarded_during_the_grace(world, method):
    released(world)
    world.pass_time(GRACE - 1)
    assert reaches(world, method)
    world.pass_time(1)
    assert not reaches(world, method)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"])
def test_writes_of_a_released_session_are_refused(world, method):
    released(world)
    assert not reaches(world, method)


def test_a_released_session_opens_no_tunnels_and_its_tunnels_close(world):
    wire, _ = tunnel(world)
    released(world)
    assert wire.got_eof
    assert not reaches(world, b"GET", *UPGRADE)


def test_a_response_in_progress_survives_a_release(world):
    long = sent(world)
    shop = world.shop.wire
    shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
    released(world)
    shop.send(b"ok")
    assert answer(long).body == b"okok"


def test_during_the_grace_a_pass_is_neither_renewed_nor_removed(world):
    released(world)
    wire = sent(world)
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCache-Control: private\r\n\r\n")
    assert b"Set-Cookie" not in answer(wire)
    wire = sent(world)
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nWaitroom-Command: hold=900, extend=900\r\n\r\n")
    assert b"Set-Cookie" not in answer(wire)
    world.loop.wait(world.room.flush())
    operations = {change.operation for batch in world.store.named("change_sessions") for change in batch}
    assert operations == {"release"}


def test_a_released_session_is_not_admitted(world):
    released(world)
    got = world.ask(get(b"/.waitroom/status", world.inside()))
    assert b'"state":"unknown"' in got.body


def test_a_release_on_another_worker_grants_the_grace(world):
    wire, _ = tunnel(world)
    look(world, released=(90,))
    assert wire.got_eof
    assert not reaches(world, b"POST")
    world.pass_time(GRACE - 1)
    assert reaches(world)
    look(world, released=(90,))
    world.pass_time(1)
    assert not reaches(world), "seeing it twice does not extend the grace"


def test_a_session_reported_over_may_have_been_released(world):
    """This worker learns that the session is over before its view says how it ended."""
    assert reaches(world)
    world.store.over.add(90)
    world.loop.wait(world.room.flush())
    assert reaches(world)
    look(world, released=(90,))
    world.pass_time(GRACE - 1)
    assert reaches(world)
    assert not reaches(world, b"POST")


def test_an_operators_end_ends_the_grace(world):
    released(world)
    look(world, ended=(90,))
    assert not reaches(world)
    look(world, released=(90,))
    assert not reaches(world)


def test_a_newcomer_released_immediately_can_load_the_page():
    with World(view=QUIET) as world:
        world.store.admits = 1
        wire = world.client()
        wire.send(get(b"/", PAGE))
        world.shop.wire.send(RELEASE)
        cookie = answer(wire).all(b"Set-Cookie")[-1]
        assert b"Max-Age=%d" % GRACE in cookie
        world.view = BUSY
        part = world.client()
        part.send(get(b"/part.png", b"Cookie: " + cookie.partition(b";")[0]))
        world.shop.wire.send(OK)
        assert answer(part).status == 200


def test_a_response_that_begins_as_the_grace_ends_removes_the_pass(world):
    released(world)
    wire = sent(world)
    world.pass_time(GRACE)
    world.shop.wire.send(OK)
    assert b"waitroom_pass_shop=; Path=/; Max-Age=0" in answer(wire)[b"Set-Cookie"]


def test_without_a_grace_a_release_removes_the_pass():
    with World(release_grace_seconds=0) as world:
        got = released(world)
        assert got.all(b"Set-Cookie") == [b"waitroom_pass_shop=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]
        assert not reaches(world)


def test_a_waiting_request_is_refused_if_its_session_ends():
    with World(session_requests_in_flight=1) as world:
        sent(world)
        shop = world.shop.wire
        later = sent(world)
        assert at_shop(world)
        look(world, ended=(90,))
        shop.send(OK)
        assert answer(later).status == 503


# The maximum length of sessions while an event runs, and afterwards.


def test_the_maximum_length_of_an_event_counts_for_its_sessions_and_outlasts_it(world):
    now = int(world.unix_time())
    for number, seconds in ((7, 600), (8, 30_000), (9, 14_400)):
        look(world, session_max_ms=seconds * 1000)
        session, _ = world.room.start_session(number, now, binding=0)
        assert session.ends_at - now == seconds
    world.loop.wait(world.room.leave(8, has_pass=True))
    assert world.store.named("leave") == [(8, 30_000_000, True)], "a pass of the event may last longer"


def test_an_ended_session_of_an_event_is_remembered_for_as_long_as_its_pass_lasts(world):
    look(world, session_max_ms=30_000_000)
    look(world, ended=(90,), session_max_ms=14_400_000)
    world.pass_time(30_000 - 1)
    world.room.sweep()
    assert 90 in world.room.sessions._ended
