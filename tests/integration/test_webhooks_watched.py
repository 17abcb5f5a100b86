"""What webhooks are told, by watching rooms over a real store: once, whichever control process has seen it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest_asyncio
from redis.asyncio import Redis

from support.edge_world import QUIET
from waitroom.control.webhooks.sender import Event
from waitroom.control.webhooks.watcher import CLAIM_SECONDS, FAILING_SECONDS, Webhooks
from waitroom.errors import StoreUnavailable
from waitroom.queue.schedule import Event as Sale
from waitroom.queue.schedule import EventRecord, Phase
from waitroom.queue.view import RoomState, RoomView
from waitroom.store.connection import connect

NOON = 1_790_000_000_000


@dataclass
class Seen:
    """A room as a control process sees it."""

    name: str = "sale"
    view: RoomView | None = QUIET
    store_up: bool = True
    ticked_at: float | None = None


@dataclass
class Figures:
    answers_per_minute: float = 0.0
    failures_per_minute: float = 0.0


@dataclass
class Watch:
    """How a shop does, as one gateway sees it."""

    now: Figures = field(default_factory=Figures)

    def stats(self, room: str, seconds: float) -> Figures:
        return self.now


@pytest_asyncio.fixture
async def store(valkey: str) -> AsyncIterator[Redis]:
    async with connect(valkey, timeout_seconds=10) as redis:
        yield redis


class Broken:
    """A way to the store that breaks when told to."""

    def __init__(self, store: Redis) -> None:
        self._store, self.broken = store, False
        self._lost = connect("unix:///nowhere/redis.sock", timeout_seconds=1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lost if self.broken else self._store, name)


class Control:
    """A control process: how it sees the room and its shop, and what it tells."""

    def __init__(self, store: Redis) -> None:
        self.seen, self.shop, self.way = Seen(), Watch(), Broken(store)
        self.now = 1000.0
        self.records: list[EventRecord] = []
        way: Any = self.way
        self._webhooks = Webhooks([], [self.seen], way, self.shop, lambda: self.now, records=self._records)

    async def _records(self, _room: str) -> list[EventRecord]:
        if self.way.broken:
            raise StoreUnavailable("gone")
        return self.records

    def reaches(self, *records: EventRecord, minutes: int = 0) -> None:
        """The room's events, as they are so many minutes after noon."""
        assert self.seen.view is not None
        self.records = list(records)
        version = self.seen.view.events_version + 1
        self.seen.view = replace(self.seen.view, events_version=version, wall_ms=NOON + minutes * 60_000)

    def becomes(self, state: RoomState) -> None:
        assert self.seen.view is not None
        self.seen.view = replace(self.seen.view, state=state)

    def loses_the_store(self, *, lost: bool = True) -> None:
        self.way.broken, self.seen.store_up = lost, not lost

    async def observe(self) -> list[Event]:
        self.now += 1
        return await self._webhooks.observe(self.seen)


async def told(seconds: int, *controls: Control) -> list[Event]:
    """What control processes tell that run for so many seconds, looking at the same time."""
    events: list[Event] = []
    for _ in range(seconds):
        for found in await asyncio.gather(*(control.observe() for control in controls)):
            events += found
    return events


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


async def test_one_of_several_control_processes_notifies(store: Redis) -> None:
    controls = [Control(store) for _ in range(3)]
    events: list[Event] = []
    for state in (RoomState.PAUSED, RoomState.OPEN, RoomState.PAUSED, RoomState.SOLD_OUT):
        for control in controls:
            control.becomes(state)
        events += await told(20, *controls)
    assert names(events) == ["paused", "resumed", "paused", "sold_out"]
    assert len({event.id for event in events}) == 4


async def test_a_notification_outlives_the_process_that_sent_it(store: Redis) -> None:
    first = Control(store)
    first.becomes(RoomState.PAUSED)
    assert names(await told(20, first)) == ["paused"]
    await store.delete("waitroom:{sale}:told:paused:1")  # as the time does

    next_one = Control(store)
    next_one.becomes(RoomState.PAUSED)
    assert await told(20, next_one) == []
    next_one.becomes(RoomState.OPEN)
    assert names(await told(20, next_one)) == ["resumed"]


async def test_a_lagging_control_process_reverts_nothing(store: Redis) -> None:
    quick, slow = Control(store), Control(store)
    for state, event in ((RoomState.PAUSED, "paused"), (RoomState.OPEN, "resumed"), (RoomState.PAUSED, "paused")):
        quick.becomes(state)
        assert names(await told(3, quick)) == [event]
        assert await told(1, quick, slow) == []
        slow.becomes(state)
        assert await told(20, quick, slow) == []


async def test_each_process_reports_the_lost_store_under_one_id_and_one_its_return(store: Redis) -> None:
    controls = [Control(store), Control(store)]
    ids = set()
    for _ in range(2):
        for control in controls:
            control.loses_the_store()
        lost = await told(20, *controls)
        assert names(lost) == ["store_lost", "store_lost"]
        assert lost[0].id == lost[1].id
        assert json.loads(lost[0].body)["data"]["store_up"] is False

        for control in controls:
            control.loses_the_store(lost=False)
        (back,) = await told(20, *controls)
        assert back.name == "store_back"
        ids |= {lost[0].id, back.id}
    assert len(ids) == 4
    assert await told(20, Control(store)) == []


async def test_a_gateway_that_alone_lost_the_store_reports_it(store: Redis) -> None:
    cut_off, other = Control(store), Control(store)
    cut_off.loses_the_store()
    assert names(await told(20, cut_off, other)) == ["store_lost"]
    cut_off.loses_the_store(lost=False)
    assert names(await told(20, cut_off, other)) == ["store_back"]


async def test_an_empty_store_does_not_repeat_notifications(store: Redis) -> None:
    control = Control(store)
    control.becomes(RoomState.PAUSED)
    events = await told(20, control)
    await store.flushall()
    assert await told(20, control) == []
    control.becomes(RoomState.OPEN)
    events += await told(20, control)
    assert names(events) == ["paused", "resumed"]
    assert len({event.id for event in events}) == 2


async def test_a_store_that_fails_during_a_check_is_harmless(store: Redis) -> None:
    control = Control(store)
    control.becomes(RoomState.PAUSED)
    control.way.broken = True
    assert await told(20, control) == []
    control.way.broken = False
    assert names(await told(20, control)) == ["paused"]


async def test_a_shop_is_healthy_only_if_no_gateway_finds_it_failing(store: Redis) -> None:
    ill, well = Control(store), Control(store)
    ill.shop.now, well.shop.now = Figures(600, 300), Figures(600, 0)
    events = await told(60, ill, well)
    assert names(events) == ["shop_failing"]
    assert json.loads(events[0].body)["data"]["shop"] == {"requests_per_minute": 600, "failures_per_minute": 300}

    ill.shop.now = Figures(600, 0)
    assert 0 < await store.ttl("waitroom:{sale}:told:failing") <= FAILING_SECONDS
    assert await told(20, ill, well) == []
    await store.delete("waitroom:{sale}:told:failing")  # as the time does
    assert names(await told(20, ill, well)) == ["shop_well"]


async def test_the_state_in_the_store_is_bounded(store: Redis) -> None:
    control = Control(store)
    for state in (RoomState.PAUSED, RoomState.OPEN) * 5:
        control.becomes(state)
        await told(5, control)
    keys = [key.decode() for key in await store.keys("*")]
    left = {key: await store.ttl(key) for key in keys}
    assert left.pop("waitroom:{sale}:told") == -1
    assert len(left) == 10
    assert all(0 < seconds <= CLAIM_SECONDS for seconds in left.values())


def sale(prequeue: int | None = None, started: int | None = None, ended: int | None = None) -> EventRecord:
    """An event whose phases began so many minutes after noon."""
    times = [None if one is None else NOON + one * 60_000 for one in (prequeue, started, ended)]
    reached = sum(one is not None for one in times)
    totals = {} if ended is None else {"admitted": 40, "sold": 7}
    event = Sale("drop", "The drop", NOON + 60_000, NOON, NOON + 120_000, units=9)
    return EventRecord(event, list(Phase)[reached], "file", False, *times, {}, totals, {})


async def test_the_phases_of_an_event_are_told_once_by_one_of_several(store: Redis) -> None:
    controls = [Control(store) for _ in range(3)]
    events: list[Event] = []
    for at, record in enumerate((sale(), sale(0), sale(0, 1), sale(0, 1, 2))):
        for control in controls:
            control.reaches(record, minutes=at)
        events += await told(3, *controls)
    assert names(events) == ["prequeue_opened", "event_started", "event_ended"]
    assert len({event.id for event in events}) == 3
    bodies = [json.loads(event.body)["data"]["event"] for event in events]
    assert {(body["name"], body["title"], body["units"]) for body in bodies} == {("drop", "The drop", 9)}
    assert ["totals" in body for body in bodies] == [False, False, True]
    assert bodies[2]["totals"] == {"admitted": 40, "sold": 7}


async def test_phases_reached_while_no_control_process_ran_are_told_by_the_next(store: Redis) -> None:
    first = Control(store)
    first.reaches(sale(0))
    assert names(await told(3, first)) == ["prequeue_opened"]
    restarted = Control(store)
    restarted.reaches(sale(0, 1, 2), minutes=10)
    assert names(await told(3, restarted)) == ["event_started", "event_ended"]
    assert await told(3, first) == []


async def test_phases_of_long_ago_and_cancelled_events_are_not_told(store: Redis) -> None:
    control = Control(store)
    control.reaches(sale(0, 1, 2), minutes=90)
    assert await told(3, control) == []
    control.reaches(replace(sale(), cancelled=True, phase=Phase.ENDED, ended_ms=NOON))
    assert await told(3, control) == []


async def test_a_phase_is_told_when_the_store_is_back(store: Redis) -> None:
    control = Control(store)
    control.reaches(sale(0))
    control.way.broken = True
    assert await told(3, control) == []
    control.way.broken = False
    assert names(await told(3, control)) == ["prequeue_opened"]


async def test_a_claim_whose_reply_was_lost_is_told_all_the_same(store: Redis, monkeypatch: Any) -> None:
    control, taken = Control(store), store.set

    async def lose_reply(*arguments: Any, **more: Any) -> None:
        monkeypatch.undo()
        await taken(*arguments, **more)
        raise ConnectionError

    monkeypatch.setattr(store, "set", lose_reply)
    control.reaches(sale(0))
    assert names(await told(3, control)) == ["prequeue_opened"]
