"""Operations on events and their API, on a real store whose clock is set by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from waitroom.control.api.event_routes import EventApi
from waitroom.control.audit.keys import AuditKeys
from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor, Role
from waitroom.control.auth.middleware import ACTOR
from waitroom.control.rooms.admission_loop import Admission
from waitroom.control.rooms.changes import (
    InvalidChangeError,
    RoomChanges,
    RoomStateError,
    StaleVersionError,
    UnknownEventError,
)
from waitroom.control.rooms.event_changes import EventChange
from waitroom.control.rooms.event_operations import EventMove, EventOperations
from waitroom.control.rooms.operations import Change, Operations
from waitroom.control.rooms.presenter import Rooms
from waitroom.metrics.upstream_window import UpstreamWindow
from waitroom.queue.fields import limits_of
from waitroom.queue.schedule import Event, EventRecord, encode_event, shuffle_seed
from waitroom.queue.store import QueueStore
from waitroom.queue.view import RoomState, RoomView
from waitroom.settings import RoomSettings, Settings
from waitroom.store.connection import connect

pytestmark = pytest.mark.slow

NOON = 1_790_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE
SECRETS = ["a secret of sixteen characters"]
AUDIT = json.dumps({"who": "ben", "via": "api", "action": "set_event"})
ADA = Actor("ada", Role.OPERATOR, "192.0.2.7", "dashboard")
SALE = Event("sale", "The sale", NOON + HOUR, NOON + HOUR // 2, NOON + 2 * HOUR)


@dataclass
class Desk:
    """One room with an event in its settings file, and an operator."""

    store: QueueStore
    audit: Audit
    now: int = NOON

    def __post_init__(self) -> None:
        settings = RoomSettings("shop", "http://127.0.0.1:9", rate_per_minute=60.0, max_active=2)
        self.admission = Admission(settings, self.store)
        gateway = Settings(rooms=(settings,), workers=2)
        self.rooms = Rooms(gateway, [self.admission], UpstreamWindow(Path("/nowhere")), lambda: 2)
        stores = {"shop": self.store}
        changes = RoomChanges(self.rooms, stores, self.audit, lambda: None)
        self.events = EventOperations(self.rooms, stores, changes, SECRETS)
        self.operations = Operations(self.rooms, stores, changes, SECRETS)
        self.limits = limits_of(settings)

    async def open(self, *events: Event) -> None:
        await self.store.open(self.limits, {event.name: encode_event(event, "abc") for event in events})
        await self.look()

    async def look(self) -> RoomView:
        return await self.admission.refresh()

    async def set(self, name: str = "sale", expected: int | None = None, **values: Any) -> bool:
        return await self.events.set("shop", name, EventChange(values), expected=expected, actor=ADA, note="why")

    async def move(self, move: EventMove, name: str = "sale", expected: int | None = None) -> int:
        return await self.events.move(move, "shop", name, expected=expected, actor=ADA)

    async def event(self, name: str = "sale") -> EventRecord:
        return (await self.events.events("shop")).find(name)

    async def entries(self) -> list[dict[str, Any]]:
        return [entry.json() for entry in await self.audit.read(before="+", count=100)]


@pytest.fixture
async def desk(valkey: str) -> AsyncIterator[Desk]:
    async with connect(valkey, timeout_seconds=10) as redis:
        store = QueueStore(redis, "shop", clock=lambda: desk.now, run_id=lambda: "first")
        desk = Desk(store, Audit(redis, AuditKeys(["the key of the audit log in tests"])))
        yield desk


async def problems(call: Any) -> dict[str, str]:
    with pytest.raises(InvalidChangeError) as raised:
        await call
    return raised.value.problems


async def test_a_new_event_is_scheduled_recorded_and_shown(desk: Desk) -> None:
    await desk.open()
    assert await desk.set(title="The sale", start=NOON + HOUR, end=NOON + 2 * HOUR, rate_per_minute=900.0, units=7)
    record = await desk.event()
    assert (record.event.limits, record.event.units) == ({"rate_per_minute": 900.0, "autopilot": False}, 7)
    stored = json.loads((await desk.store._redis.hget(desk.store.keys["events"], "sale")) or "")
    assert stored["seed"] == shuffle_seed(SECRETS[0], "shop", "sale", NOON + HOUR)
    room = desk.rooms.one("shop")
    assert room["event"]["start"] == "2026-09-21T15:13:20Z"
    assert (room["event"]["phase"], room["event"]["limits"]) == ("scheduled", {"rate_per_minute": 900})
    assert (room["event_actions"], room["state"]) == (["set", "start", "cancel"], "closed")
    assert room["last_change"]["what"] == "event sale: scheduled"
    entry = (await desk.entries())[0]
    assert (entry["who"], entry["action"], entry["note"]) == ("ada", "set_event", "why")
    assert (entry["new"]["start"], entry["new"]["rate_per_minute"]) == ("2026-09-21T15:13:20Z", 900)


async def test_a_partial_change_keeps_the_rest_and_null_removes(desk: Desk) -> None:
    await desk.open(SALE)
    assert not await desk.set(end=NOON + 3 * HOUR, max_active=9)
    assert not await desk.set(prequeue_start=None)
    event = (await desk.event()).event
    assert event == Event("sale", "The sale", NOON + HOUR, None, NOON + 3 * HOUR, limits={"max_active": 9})
    await desk.set(max_active=None, rate_per_minute="auto")
    assert (await desk.event()).event.limits == {"autopilot": True}
    await desk.set(start=NOON + HOUR + MINUTE)
    change = "event sale: start 2026-09-21T15:13:20Z → 2026-09-21T15:14:20Z"
    assert desk.rooms.one("shop")["last_change"]["what"] == change
    entry = (await desk.entries())[0]
    assert (entry["old"], entry["new"]["start"]) == ({"start": "2026-09-21T15:13:20Z"}, "2026-09-21T15:14:20Z")
    version = (await desk.look()).version
    await desk.set(rate_per_minute="auto")
    assert (await desk.look()).version == version, "nothing had to change"


async def test_contradictions_are_refused_and_recorded(desk: Desk) -> None:
    later = Event("later", "", NOON + 4 * HOUR, None, NOON + 5 * HOUR)
    await desk.open(SALE, later)
    assert set(await problems(desk.set("new", title="x"))) == {"start"}
    assert set(await problems(desk.set("New!", start=NOON + 9 * HOUR))) == {"event"}
    assert set(await problems(desk.set())) == {"change"}
    assert "in the future" in (await problems(desk.set(start=NOON, prequeue_start=None)))["start"]
    assert set(await problems(desk.set(end=NOON))) == {"end"}
    assert "overlap" in (await problems(desk.set(end=NOON + 4 * HOUR + 1)))["start"]
    assert "overlap" in (await problems(desk.set("later", prequeue_start=NOON + HOUR)))["prequeue_start"]
    assert "only the last event" in (await problems(desk.set(end=None)))["end"]
    assert set(await problems(desk.set(prequeue_start=NOON + 2 * HOUR))) == {"prequeue_start"}
    found = await problems(desk.set(rate_per_minute=0, claim_seconds=5, title="x" * 101, units=0))
    assert set(found) == {"rate_per_minute", "claim_seconds", "title", "units"}
    found = await problems(desk.set(session_seconds=86_400))
    assert found == {"session_seconds": "Must be at most session_max_seconds, which is 14400 while the event runs."}
    assert set(await problems(desk.set(title="two\nlines"))) == {"title"}
    assert set(await problems(desk.set(keep_place_seconds=90))) == {"keep_place_seconds"}
    assert (await desk.event()).event == SALE
    refused = [entry for entry in await desk.entries() if entry["outcome"] == "refused"]
    assert len(refused) == 13
    assert {entry["action"] for entry in refused} == {"set_event"}


async def test_a_started_event_keeps_its_start_and_may_be_extended(desk: Desk) -> None:
    await desk.open(SALE)
    desk.now = NOON + HOUR // 2
    assert set(await problems(desk.set(prequeue_start=desk.now + MINUTE, method="random"))) == {
        "prequeue_start",
        "method",
    }
    desk.now = NOON + HOUR
    assert set(await problems(desk.set(start=NOON + HOUR + MINUTE, units=5))) == {"start", "units"}
    await desk.set(end=NOON + 3 * HOUR, start=SALE.start_ms, rate_per_minute=600.0)
    assert (await desk.look()).rate_per_minute == 600
    desk.now = NOON + 2 * HOUR
    assert desk.rooms.one("shop")["event_actions"] == ["set", "end"]
    assert (await desk.look()).event.phase == "running"


async def test_an_ended_event_is_scheduled_again_without_its_times(desk: Desk) -> None:
    await desk.open(SALE)
    await desk.move("cancel")
    assert set(await problems(desk.set(title="Again"))) == {"start"}
    assert await desk.set(start=NOON + 4 * HOUR)
    event = (await desk.event()).event
    assert (event.title, event.prequeue_ms, event.end_ms) == ("The sale", None, None)


async def test_an_event_is_started_and_ended_by_hand(desk: Desk) -> None:
    later = Event("later", "", NOON + 4 * HOUR, None, NOON + 5 * HOUR)
    await desk.open(SALE, later)
    with pytest.raises(RoomStateError, match="hasn't started"):
        await desk.move("end")
    with pytest.raises(UnknownEventError):
        await desk.move("end", "nothing")
    with pytest.raises(RoomStateError, match="overlap"):
        await desk.move("start", "later")
    await desk.move("start")
    assert desk.rooms.one("shop")["state"] == "open"
    assert desk.rooms.one("shop")["last_change"]["what"].startswith("event sale: running")
    with pytest.raises(RoomStateError, match="has started"):
        await desk.move("cancel")
    await desk.move("end")
    with pytest.raises(RoomStateError, match="has ended"):
        await desk.move("end")
    await desk.move("cancel", "later")
    assert (await desk.event("later")).cancelled
    done = [entry["action"] for entry in await desk.entries() if entry["outcome"] == "done"]
    assert done == ["cancel_event", "event", "end_event", "event", "start_event"]


async def test_a_change_is_tried_again_unless_it_names_a_version(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.open(SALE)
    version = (await desk.look()).version
    read, others = desk.store.events, ["hello"]

    async def overtaken() -> list[EventRecord]:
        if others:
            await desk.store.change({"message": others.pop()}, expected=None, who="ben")
        return await read()

    monkeypatch.setattr(desk.store, "events", overtaken)
    await desk.set(title="Mine")
    assert (await desk.event()).event.title == "Mine"
    with pytest.raises(StaleVersionError):
        await desk.set(title="Another", expected=version)
    others.append("hello again")
    with pytest.raises(StaleVersionError):
        await desk.set(title="Another", expected=(await desk.look()).version)
    assert (await desk.event()).event.title == "Mine"


async def test_a_change_that_is_tried_again_is_checked_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.open(SALE)
    read, others = (
        desk.store.events,
        [replace(SALE, name="other", start_ms=NOON + 3 * HOUR, prequeue_ms=None, end_ms=None)],
    )

    async def overtaken() -> list[EventRecord]:
        found = await read()
        if others:
            definition = others.pop(), "abc"
            await desk.store.change_event(
                "set", "other", expected=None, who="ben", audit_event=AUDIT, definition=definition
            )
        return found

    monkeypatch.setattr(desk.store, "events", overtaken)
    assert "overlap" in (await problems(desk.set(end=NOON + 4 * HOUR)))["start"]
    assert (await desk.event()).event == SALE


async def test_events_are_read_again_only_after_a_change(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.open(SALE)
    read, count = desk.store.events, [0]

    async def counted() -> list[EventRecord]:
        count[0] += 1
        return await read()

    monkeypatch.setattr(desk.store, "events", counted)
    for _ in range(3):
        await desk.events.events("shop")
    assert count == [1]
    desk.now = NOON + HOUR // 2
    await desk.look()
    assert (await desk.event()).phase == "prequeue"
    assert count == [2]


async def test_no_more_events_than_a_room_holds(desk: Desk) -> None:
    await desk.open(*(Event(f"e{n}", "", NOON + n * HOUR, None, NOON + (n + 1) * HOUR) for n in range(1, 65)))
    with pytest.raises(RoomStateError, match="64 events"):
        await desk.set("more", start=NOON + 99 * HOUR)


async def test_a_room_without_a_queue_has_no_events(desk: Desk) -> None:
    await desk.open()
    desk.rooms._settings["shop"] = replace(desk.rooms.settings("shop"), method="passthrough")
    with pytest.raises(RoomStateError, match="needs a queue"):
        await desk.set(start=NOON + HOUR)


async def test_no_operator_sets_the_state_prequeue(desk: Desk) -> None:
    await desk.open()
    found = await problems(desk.operations.change("shop", Change(state=RoomState.PREQUEUE), expected=None, actor=ADA))
    assert found == {"state": "Must be open, paused, closed or sold_out. Events open prequeues."}


# The API.


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[TestClient[Any, Any]]:
    @web.middleware
    async def as_ada(request: web.Request, handler: Any) -> web.StreamResponse:
        request[ACTOR] = ADA
        return await handler(request)

    app = web.Application(middlewares=[as_ada])
    EventApi(desk.rooms, desk.events, desk.audit).add_to(app)
    async with TestClient(TestServer(app)) as client:
        yield client


async def ask(
    client: TestClient[Any, Any], method: str, path: str, body: object = None, version: int | None = None
) -> tuple[int, str, Any]:
    headers = {} if version is None else {"If-Match": f'"{version}"'}
    url = f"/api/v1/rooms/shop/events{path}"
    async with client.request(method, url, json=body, headers=headers) as answer:
        return answer.status, answer.headers.get("ETag", ""), await answer.json()


async def test_the_api_lists_events_with_their_timeline(desk: Desk, client: TestClient[Any, Any]) -> None:
    limits = {"rate_per_minute": 900.0, "autopilot": False}
    await desk.open(Event("sale", "", NOON + HOUR, None, NOON + 2 * HOUR, after="sold_out", limits=limits))
    desk.now = NOON + HOUR
    await desk.look()
    status, tag, body = await ask(client, "GET", "")
    assert (status, tag) == (200, f'"{body["version"]}"')
    assert [event["name"] for event in body["events"]] == ["sale"]
    assert [(one["from"], one["to"], one["state"]) for one in body["timeline"]] == [
        (None, "2026-09-21T16:13:20Z", "open"),
        ("2026-09-21T16:13:20Z", None, "sold_out"),
    ]
    rates = [one["limits"]["rate_per_minute"] for one in body["timeline"]]
    assert rates == [900, 60], "as before the event, not as in force"
    assert body["timeline"][0]["limits"]["session_seconds"] == 900


async def test_the_api_creates_changes_and_moves(desk: Desk, client: TestClient[Any, Any]) -> None:
    await desk.open()
    version = (await desk.look()).version
    body = {"start": "2026-09-21T17:13:20+02:00", "end": "2026-09-21T16:00:00Z", "note": "the big one"}
    assert (await ask(client, "PUT", "/sale", body))[0] == 428
    status, tag, effect = await ask(client, "PUT", "/sale?dry_run=true", body, version)
    assert (status, tag, set(effect["effect"])) == (200, f'"{version}"', {"now", "after", "summary", "warnings"})
    status, tag, event = await ask(client, "PUT", "/sale", body, version)
    assert (status, event["start"], event["phase"]) == (201, "2026-09-21T15:13:20Z", "scheduled")
    assert tag == f'"{version + 1}"'
    status, _, found = await ask(client, "PUT", "/sale", {"title": "Sale"}, version)
    assert (status, found["room"]["version"]) == (412, version + 1)
    status, _, event = await ask(client, "PUT", "/sale", {"title": "Sale"}, version + 1)
    assert (status, event["title"]) == (200, "Sale")
    assert await ask(client, "GET", "/sale") == (200, f'"{version + 2}"', event)
    status, _, event = await ask(client, "POST", "/sale/start", None, version + 2)
    assert (status, event["phase"]) == (200, "running")
    assert (await ask(client, "POST", "/sale/cancel", {}, version + 4))[0] == 409
    status, _, event = await ask(client, "POST", "/sale/end", {"note": "done"}, version + 4)
    assert (status, event["phase"], event["ended_at"]) == (200, "ended", "2026-09-21T14:13:20Z")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"start": "2026-09-21T16:53:20"}, "start"),
        ({"start": None}, "start"),
        ({"start": 5}, "start"),
        ({"start": "9999-09-21T16:53:20Z"}, "start"),
        ({"start": "2026-13-21T16:53:20Z"}, "start"),
        ({"end": "tomorrow"}, "end"),
        ({"method": "best"}, "method"),
        ({"rate_per_minute": "quick"}, "rate_per_minute"),
        ({"max_active": 1.5}, "max_active"),
        ({"units": "many"}, "units"),
        ({"unit": 5}, "unit"),
        ({"note": None}, "note"),
    ],
)
async def test_the_api_names_invalid_fields(
    desk: Desk, client: TestClient[Any, Any], body: dict[str, Any], field: str
) -> None:
    await desk.open(SALE)
    status, _, problem = await ask(client, "PUT", "/sale", body, (await desk.look()).version)
    assert (status, set(problem["errors"])) == (422, {field})


async def test_the_api_knows_no_other_events(desk: Desk, client: TestClient[Any, Any]) -> None:
    await desk.open(SALE)
    version = (await desk.look()).version
    for method, path in (("GET", "/other"), ("POST", "/other/start"), ("POST", "/other/end?dry_run=true")):
        status, _, problem = await ask(client, method, path, {} if method == "POST" else None, version)
        assert (status, problem["title"]) == (404, "Unknown event")
