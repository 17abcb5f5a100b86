"""How a failing store affects each kind of visitor, pending updates, and simultaneous calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from support.asyncio_fakes import Wire
from support.edge_world import BUSY, OK, PAGE, QUIET, SECRET, World, answer, at_shop, get, sent
from support.http_reader import Message, read_requests, read_responses
from waitroom.edge.rooms import room as room_module
from waitroom.queue.schedule import file_events
from waitroom.queue.store import RoomNotOpen, SessionChange
from waitroom.queue.view import RoomState
from waitroom.settings import EventSettings
from waitroom.tokens import Tokens

JSON = b"Accept: application/json"
FOREIGN = Tokens(["another secret than ours"], "shop")
PREFLIGHT = (b"Origin: https://a.example", b"Access-Control-Request-Method: POST")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def quiet() -> Iterator[World]:
    with World(view=QUIET) as world:
        yield world


def state(got: Message) -> str:
    return str(json.loads(got.body)["state"])


def is_page(got: Message) -> bool:
    """Whether it is a page, and if so one that nobody may keep."""
    page = got[b"Content-Type"].startswith(b"text/html")
    assert got[b"Cache-Control"] == b"no-store"
    return page


def ticket(world: World, place: int = 120, **how: int) -> bytes:
    return b"Cookie: waitroom_ticket_shop=" + world.ticket(place, **how)


def given(world: World, got: Message, kind: str) -> bytes | None:
    """The value of one of our cookies, None where it isn't set; empty where it is deleted."""
    prefix = f"waitroom_{kind}_shop=".encode()
    values = [
        value.removeprefix(prefix).partition(b";")[0] for value in got.all(b"Set-Cookie") if value.startswith(prefix)
    ]
    return values[-1] if values else None


# A store that fails.


@pytest.mark.parametrize("broken", ["before", "just now", "never seen"])
@pytest.mark.parametrize(("setting", "line"), [("hold", PAGE), ("close", PAGE), ("admit", PAGE), ("hold", JSON)])
def test_newcomers_when_the_store_fails(broken, setting, line):
    view = None if broken == "never seen" else BUSY
    with World(view=view, store_up=broken == "just now", on_store_error=setting) as world:
        world.store.broken = "all"
        wire = world.client()
        wire.send(get(b"/a", line))
        if setting == "admit":
            session = int(at_shop(world)[b"Waitroom-Session"], 16)
            assert session >= 1 << 62
            world.shop.wire.send(OK)
            value = given(world, answer(wire), "pass") or b""
            assert world.tokens.read_pass(value).session == session
        else:
            got = answer(wire)
            assert got.status == 503
            assert not got.all(b"Set-Cookie")
            assert is_page(got) is (line is PAGE)
            if line is PAGE:
                assert b'data-state="%b"' % (b"closed" if setting == "close" else b"held") in got.body
            assert world.shop.attempts == 0
        asked = broken == "just now" and line is PAGE
        assert len(world.store.calls) == asked
        assert world.room.store_up is (broken == "just now" and not asked)


@pytest.mark.parametrize("setting", ["hold", "close", "admit"])
@pytest.mark.parametrize("broken", ["before", "just now", "never seen"])
def test_a_room_that_rejects_everybody_stays_closed_when_the_store_fails(broken, setting):
    view = None if broken == "never seen" else BUSY
    with World(view=view, store_up=broken == "just now", on_store_error=setting, method="reject") as world:
        world.store.broken = "all"
        got = world.ask(get(b"/a", PAGE))
        assert got.status == 503
        assert b'data-state="closed"' in got.body
        assert world.ask(get(b"/a", JSON)).status == 503
        assert world.shop.attempts == 0


@pytest.mark.parametrize(
    ("state", "shown"), [(RoomState.PREQUEUE, b"held"), (RoomState.CLOSED, b"closed"), (RoomState.SOLD_OUT, b"closed")]
)
@pytest.mark.parametrize("broken", ["before", "just now"])
def test_a_room_that_admitted_nobody_does_not_begin_to_when_the_store_fails(broken, state, shown):
    """An event may keep it closed."""
    view = replace(QUIET, state=state)
    with World(view=view, store_up=broken == "just now", on_store_error="admit", without_pass="all") as world:
        world.store.broken = "all"
        got = world.ask(get(b"/a", PAGE))
        assert got.status == 503
        assert b'data-state="%b"' % shown in got.body
        assert world.ask(get(b"/a", JSON)).status == 503
        assert world.shop.attempts == 0


def test_offline_sessions_are_distinct():
    with World(store_up=False, on_store_error="admit") as world:
        seen = set()
        for _ in range(20):
            world.pass_time(60 / BUSY.rate_per_minute)
            wire = world.client()
            wire.send(get(b"/a", PAGE))
            seen.add(read_requests(world.shop.wire.clear())[0][0][b"Waitroom-Session"])
            world.shop.wire.send(OK)
        assert len(seen) == 20


@pytest.mark.parametrize("setting", ["hold", "close", "admit"])
@pytest.mark.parametrize("place", [99, 120])
@pytest.mark.parametrize("line", [PAGE, JSON])
def test_waiting_visitors_when_the_store_fails(setting, place, line):
    with World(store_up=False, on_store_error=setting) as world:
        got = world.ask(get(b"/a", line, ticket(world, place)))
        assert got.status == 503
        assert is_page(got) is (line is PAGE)
        if line is JSON:
            assert state(got) == "waiting"
        assert all(line.startswith(b"waitroom_shown_") for line in got.all(b"Set-Cookie")), "the place is kept"
        assert world.store.calls == []


@pytest.mark.parametrize("setting", ["hold", "close", "admit"])
@pytest.mark.parametrize("line", [PAGE, JSON])
def test_possibly_called_visitors_when_the_store_call_fails(setting, line):
    with World(on_store_error=setting) as world:
        world.store.broken = {"visit"}
        got = world.ask(get(b"/a", line, ticket(world, 99)))
        assert got.status == 503
        assert all(line.startswith(b"waitroom_shown_") for line in got.all(b"Set-Cookie")), "the place is kept"
        assert not world.room.store_up
        assert world.room.metrics.store_errors == 1


@pytest.mark.parametrize("setting", ["hold", "close", "admit"])
def test_admitted_visitors_when_the_store_fails(setting):
    with World(store_up=False, on_store_error=setting) as world:
        world.store.broken = "all"
        for left in (900, -5):
            wire = world.client()
            wire.send(get(b"/a", b"Cookie: waitroom_pass_shop=" + world.pass_(left=left)))
            world.shop.wire.send(OK)
            assert answer(wire).status == 200
        assert world.store.calls == []


def test_visitors_with_an_expired_pass_when_the_store_call_fails(world):
    world.store.broken = {"change_sessions"}
    wire = world.client()
    wire.send(get(b"/a", b"Cookie: waitroom_pass_shop=" + world.pass_(left=-5)))
    world.shop.wire.send(OK)
    got = answer(wire)
    assert got.status == 200
    assert given(world, got, "pass"), "so that the store isn't asked again and again"


def test_a_room_that_is_not_open_is_opened_with_its_events():
    sale = EventSettings("sale", datetime(2026, 12, 12, 4, tzinfo=UTC))
    with World(events=(sale,)) as world:
        opened = opens(world)
        assert opened == [(world.room._limits, file_events(world.room.settings, SECRET))]
        assert list(opened[0][1]) == ["sale"]
        assert world.room.store_up


def opens(world):
    """Refreshes the view of a room that isn't open; what it is opened with."""
    opened = []

    async def view(known: object = None) -> object:
        if not opened:
            raise RoomNotOpen("not open")
        return BUSY

    async def open_(*given: object) -> int:
        opened.append(given)
        return 7

    world.store.view, world.store.open = view, open_
    world.loop.wait(world.room.refresh())
    return opened


def test_a_recovered_store_is_used_again():
    with World(store_up=False) as world:
        assert world.ask(get(b"/a", PAGE)).status == 503
        assert world.store.calls == []
        world.loop.wait(world.room.refresh())
        world.ask(get(b"/a", PAGE))
        assert [name for name, _ in world.store.calls] == ["view", "join"]


def test_visitors_seen_while_the_store_failed_are_reported_later(world):
    world.store.broken = {"seen"}
    world.ask(get(b"/a", ticket(world)))
    world.loop.wait(world.room.flush())
    world.ask(get(b"/a", ticket(world, 130)))
    world.loop.wait(world.room.flush())
    assert world.store.calls == [("seen", [120])], "it isn't asked while it is down"
    world.store.broken = set()
    world.loop.wait(world.room.refresh())
    world.loop.wait(world.room.flush())
    assert world.store.named("seen")[-1] == [120, 130]


def test_a_stopping_worker_sends_its_pending_updates(world):
    world.ask(get(b"/a", ticket(world)))
    sent(world)
    world.shop.wire.send(OK)
    world.loop.wait(world.room.close())
    assert [name for name, _ in world.store.calls] == ["seen", "change_sessions"]


# Many at once.


def test_simultaneous_newcomers_cost_one_call(world):
    world.store.hold("join")
    wires = [world.client() for _ in range(50)]
    for wire in wires:
        wire.send(get(b"/a", PAGE))
    world.store.let_go("join")
    assert world.store.named("join") == [1, 49]
    places = [world.tokens.read_ticket(given(world, answer(wire), "ticket") or b"").place for wire in wires]
    assert places == list(range(151, 201))


def positions(wires: list[Wire], world: World) -> list[int]:
    return [world.tokens.read_ticket(given(world, answer(wire), "ticket") or b"").start_position for wire in wires]


def test_simultaneous_newcomers_get_different_positions(world):
    world.store.hold("join")
    wires = [world.client() for _ in range(5)]
    for wire in wires:
        wire.send(get(b"/.waitroom/join", method=b"POST"))
    world.store.let_go("join")
    told = [json.loads(read_responses(wire.got, [b"POST"])[0].body)["position"] for wire in wires]
    assert told[1:] == [51, 52, 53, 54]
    assert positions(wires[1:], world) == told[1:]


def test_the_first_of_simultaneous_newcomers_are_admitted(quiet):
    quiet.store.hold("join")
    quiet.store.admits = 3
    wires = [quiet.client() for _ in range(5)]
    for wire in wires:
        wire.send(get(b"/a", PAGE))
    quiet.store.let_go("join")
    for shop in quiet.shop.wires:
        shop.send(OK)
    assert [answer(wire).status for wire in wires] == [200, 200, 200, 503, 503]


# What it is told.


def test_many_updates_are_sent_in_batches(world):
    """After an outage of the store: all in one script would take it longer than anybody waits for it."""
    for id_ in range(2500):
        session = world.room.sessions.read(world.pass_(id_))
        world.room.sessions.begin(session, world.unix_time())
        world.room.sessions.finish(session)
    world.loop.wait(world.room.flush())
    told = world.store.named("change_sessions")
    assert max(len(piece) for piece in told) <= 1000
    assert sorted(change.session for piece in told for change in piece) == list(range(2500))


def test_updates_of_a_failed_batch_are_sent_later(world):
    for id_ in range(2500):
        world.room.sessions.enqueue(world.room.sessions.read(world.pass_(id_)), "hold", 1000)

    async def change(changes: list[SessionChange]) -> list[bool]:
        told.append(changes)
        if len(told) == 2:
            raise room_module.StoreUnavailable("gone")
        return [True] * len(changes)

    told: list[list[SessionChange]] = []
    world.store.change_sessions = change
    world.loop.wait(world.room.flush())
    world.room.store_up = True
    first = [one.session for one in told[0]]
    world.loop.wait(world.room.flush())
    assert first + [one.session for piece in told[2:] for one in piece] == list(range(2500))
