"""Reports and samples of events, on a real store whose clock is set by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from waitroom.control.api.report_routes import ReportApi
from waitroom.control.monitoring import event_samples as module
from waitroom.control.monitoring.event_samples import EventArchiver, EventSamples
from waitroom.control.monitoring.history import History, Sample, history_key
from waitroom.control.rooms.event_report import EventReport
from waitroom.control.rooms.event_reports import EventReports, NoReportError
from waitroom.errors import StoreUnavailable
from waitroom.queue.fields import Limits
from waitroom.queue.schedule import Event, EventRecord, Phase, encode_event, shuffle_seed
from waitroom.queue.store import QueueStore, SessionChange, Visit
from waitroom.store.connection import connect

pytestmark = pytest.mark.slow

NOON = 1_790_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE
LIMITS = Limits(6000, 3, 900, 180, 180, 3600)
SALE = Event("sale", "The sale", NOON + HOUR, NOON + HOUR // 2, NOON + 2 * HOUR, after="closed", units=10)
AUDIT = json.dumps({"who": "ada", "via": "api", "action": "event"})


@dataclass
class Shop:
    """A room on a server whose clock is set by hand."""

    redis: Redis
    store: QueueStore
    now: int = NOON

    async def open(self, *events: Event) -> None:
        definitions = {one.name: encode_event(one, shuffle_seed("s", "shop", one.name, one.opens_ms)) for one in events}
        await self.store.open(LIMITS, definitions)
        self.now += 1000  # the tokens of a second

    async def tick(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now += 1000
            await self.store.tick()

    async def claim(self, *places: int, waited: int, promised: int = 0) -> list[str]:
        times = {"waited_seconds": waited, "promised_seconds": promised}
        return [one.fate for one in await self.store.visit([Visit(place, 0, claim=True, **times) for place in places])]

    async def report(self, name: str = "sale") -> EventReport:
        return await EventReports({"shop": self.store}, EventSamples(self.redis)).report("shop", name)


@pytest.fixture
async def shop(valkey: str) -> AsyncIterator[Shop]:
    async with connect(valkey, timeout_seconds=10) as redis:
        shop = Shop(redis, QueueStore(redis, "shop", clock=lambda: shop.now, run_id=lambda: "run"))
        yield shop


async def test_a_sale_is_reported_while_it_runs_and_after_its_end(shop: Shop) -> None:
    await shop.open(SALE)
    shop.now = NOON + HOUR // 2
    first = (await shop.store.join(10)).first_place
    await shop.store.leave(first + 9, 0)
    prequeue = await shop.report()
    assert (prequeue.phase, prequeue.joined, prequeue.gave_up["left"]) == ("prequeue", 10, 1)
    assert prequeue.wait_seconds["p50"] is None

    shop.now = NOON + HOUR
    await shop.store.seen(range(first, first + 9))
    await shop.tick()
    assert await shop.claim(first, first + 1, waited=1800, promised=1700) == ["admitted"] * 2
    await shop.tick()
    await shop.store.set_remaining(9, by_api=True)
    await shop.store.change_sessions([SessionChange("release", first, 0)])
    await shop.store.leave(first + 1, 0, has_pass=True)
    await shop.store.set_remaining(7, by_api=True)
    await shop.store.set_remaining(8, by_api=True)
    running = await shop.report()
    assert (running.phase, running.admitted, running.sold, running.ended_at) == ("running", 2, 2, None)
    assert (await shop.store.events())[0].totals == {}

    await shop.tick(LIMITS.claim_seconds + 2)  # the third one was called and doesn't come
    shop.now = NOON + 2 * HOUR
    await shop.tick()
    report = await shop.report()
    assert report.json() == {
        **running.json(),
        "phase": "ended",
        "ended_at": "2026-09-21T16:13:21Z",
        "no_shows": report.no_shows,
        "voided": 7,
    }
    assert report.no_shows >= 1
    assert (report.joined, report.admitted, report.sold, report.sold_by, report.units) == (10, 2, 2, "stock", 10)
    assert report.gave_up == {"left": 1, "away": 0, "missed": 0, "total": 1}
    assert (report.peak_active, report.overshoot) == (2, 0)
    assert report.peak_waiting == 9
    assert set(report.wait_seconds) == {"p50", "p90", "max"}
    assert all(wait == pytest.approx(1800, rel=0.2) for wait in report.wait_seconds.values())
    assert report.eta_error_seconds["p90"] == pytest.approx(100, rel=0.2)


async def test_releases_by_the_shop_are_sales_and_departures_are_not(shop: Shop) -> None:
    await shop.open(Event("sale", "", NOON))
    first = (await shop.store.join(3)).first_place
    assert await shop.claim(first, waited=0) == ["admitted"]
    await shop.store.change_sessions([SessionChange("api_release", first, 0)] * 2)
    await shop.store.leave(first + 1, 0, has_pass=True)
    report = await shop.report()
    assert (report.sold, report.sold_by, report.joined, report.admitted) == (1, "release", 3, 3)
    assert report.wait_seconds == {"p50": 0, "p90": 0, "max": 0}


async def test_a_turn_missed_twice_is_two_no_shows_and_one_who_gave_up(shop: Shop) -> None:
    await shop.open(Event("sale", "", NOON, limits={"max_active": 1}))
    first = (await shop.store.join(2)).first_place
    await shop.store.leave(first, 0, has_pass=True)
    for _ in range(2):
        await shop.store.visit([Visit(first + 1, 0, claim=False, notify=False)])
        await shop.tick(int(LIMITS.claim_seconds) + 2)
    report = await shop.report()
    assert (report.no_shows, report.gave_up["missed"]) == (2, 1)


async def test_what_happened_before_the_start_does_not_count(shop: Shop) -> None:
    await shop.open(Event("sale", "", NOON + HOUR, before="open"))
    first = (await shop.store.join(3)).first_place
    await shop.store.change_sessions([SessionChange("release", first, 0)])
    shop.now = NOON + HOUR
    await shop.store.leave(first + 1, 0, has_pass=True)
    await shop.store.join(1)
    report = await shop.report()
    assert (report.joined, report.admitted, report.sold) == (1, 1, 0)


async def test_events_that_have_not_taken_place_have_no_report(shop: Shop) -> None:
    await shop.open(SALE, Event("past", "", NOON - HOUR, end_ms=NOON - MINUTE))
    reports = EventReports({"shop": shop.store}, EventSamples(shop.redis))
    for name in ("sale", "past", "unknown"):
        with pytest.raises(NoReportError):
            await reports.report("shop", name)
        with pytest.raises(NoReportError):
            await reports.samples("shop", name)
    shop.now = NOON + HOUR // 2
    await shop.store.change_event("cancel", "sale", expected=None, who="ada", audit_event=AUDIT)
    with pytest.raises(NoReportError, match="cancelled"):
        await reports.report("shop", "sale")
    assert await reports.ended("shop") == []


async def test_reports_of_past_events_begin_with_the_newest(shop: Shop) -> None:
    events = [Event(f"day-{day}", "", NOON + day * HOUR, end_ms=NOON + day * HOUR + MINUTE) for day in range(3)]
    await shop.open(*events)
    shop.now = NOON + HOUR + MINUTE
    await shop.store.tick()
    ended = await EventReports({"shop": shop.store}, EventSamples(shop.redis)).ended("shop")
    assert [report.name for report in ended] == ["day-1", "day-0"]


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[TestClient[Any, Any]]:
    app = web.Application()
    ReportApi(EventReports({"shop": shop.store}, EventSamples(shop.redis))).add_to(app)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_the_api_serves_report_and_samples(shop: Shop, client: TestClient[Any, Any]) -> None:
    await shop.open(Event("sale", "=SUM(A1)", NOON, end_ms=NOON + MINUTE))
    await shop.store.join(2)
    await add_samples(shop.redis, BEGIN, BEGIN + 50)
    shop.now = NOON + MINUTE
    await shop.store.tick()
    await EventArchiver({"shop": shop.store}, EventSamples(shop.redis), lambda: BEGIN + 90).archive_all()
    path = "/api/v1/rooms/shop/events/sale"
    async with client.get(f"{path}/report") as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        assert (await answer.json())["joined"] == 2
    async with client.get(f"{path}/report.csv") as answer:
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="shop-sale-report.csv"'
        header, row, rest = (await answer.text()).split("\r\n")
        assert (header.split(",")[:3], row.split(",")[:3], rest) == (
            ["room", "event", "title"],
            ["shop", "sale", "'=SUM(A1)"],
            "",
        )
    async with client.get(f"{path}/samples.csv") as answer:
        assert answer.headers["Content-Disposition"] == 'attachment; filename="shop-sale-samples.csv"'
        lines = (await answer.text()).split("\r\n")
        assert (len(lines), lines[1].split(",")[:3]) == (13, ["2026-09-21T14:13:20Z", "", "0"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/rooms/nothing/events/sale/report", 404),
        ("/rooms/shop/events/nothing/report", 404),
        ("/rooms/shop/events/nothing/samples.csv", 404),
        ("/rooms/shop/events/sale/report.csv", 404),
        ("/rooms/shop/events/sale/report?x=1", 422),
    ],
)
async def test_the_api_refuses_what_has_no_report(
    shop: Shop, client: TestClient[Any, Any], path: str, status: int
) -> None:
    await shop.open(SALE)
    async with client.get(f"/api/v1{path}") as answer:
        assert (answer.status, answer.content_type) == (status, "application/problem+json")


# Samples. Times are in seconds from here on.

BEGIN = NOON // 1000


def record(minutes: float, *, ended: bool = True) -> EventRecord:
    """An event that began at noon."""
    phase, end = (Phase.ENDED, NOON + int(minutes * MINUTE)) if ended else (Phase.RUNNING, None)
    return EventRecord(Event("sale", "", NOON), phase, "file", False, None, NOON, end, {}, {}, {})


async def add_samples(redis: Redis, first: int, last: int) -> None:
    history = History(redis)
    for at in range(first, last + 1, 5):
        await history.add("shop", Sample(at, {"waiting": at - BEGIN}))


async def archived(redis: Redis, event: EventRecord) -> list[int]:
    return [json.loads(one)["at"] for one in await EventSamples(redis).read_json("shop", event)]


async def test_two_controllers_copy_each_sample_of_an_event_once(shop: Shop) -> None:
    event = record(2)
    await add_samples(shop.redis, BEGIN - 30, BEGIN + 150)
    copies = [EventSamples(shop.redis).archive("shop", event, BEGIN + 200) for _ in range(2)]
    await asyncio.gather(*copies)
    assert await archived(shop.redis, event) == list(range(BEGIN, BEGIN + 121, 5))
    (key,) = await shop.redis.keys("*event_samples*")
    assert 89 * 86_400 < await shop.redis.ttl(key) <= 90 * 86_400


async def test_samples_that_one_call_leaves_are_copied_by_the_next(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COPIED", 10)
    event = record(2)
    await add_samples(shop.redis, BEGIN, BEGIN + 120)
    await EventSamples(shop.redis).archive("shop", event, BEGIN + 200)
    assert len(await archived(shop.redis, event)) == 25


async def test_an_event_longer_than_the_history_is_sampled_as_it_runs(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history keeps ten minutes here, and an event 50 samples."""
    monkeypatch.setattr(module, "MAX_SAMPLES", 50)
    samples = EventSamples(shop.redis)
    for minute in range(60):
        now = BEGIN + 60 * minute
        await add_samples(shop.redis, now, now + 55)
        await shop.redis.zremrangebyscore(history_key("shop"), "-inf", now - 600)
        await samples.archive("shop", record(0, ended=False), now + 59)
    await samples.archive("shop", record(59), BEGIN + 3600)
    kept = await archived(shop.redis, record(59))
    assert 25 <= len(kept) <= 50
    assert kept[0] == BEGIN
    assert kept[-1] >= BEGIN + 59 * 60 - 160
    assert max(later - earlier for earlier, later in pairwise(kept)) <= 2 * 80
    await samples.archive("shop", record(59), BEGIN + 7200)
    assert await archived(shop.redis, record(59)) == kept


async def test_a_later_event_of_the_same_name_has_samples_of_its_own(shop: Shop) -> None:
    await add_samples(shop.redis, BEGIN, BEGIN + 60)
    await EventSamples(shop.redis).archive("shop", record(1), BEGIN + 100)
    later = EventRecord(Event("sale", "", NOON), Phase.RUNNING, "file", False, None, NOON + HOUR, None, {}, {}, {})
    assert await archived(shop.redis, later) == []
    assert await archived(shop.redis, record(1)) != []


class Records:
    """The events of a room, or a failure."""

    def __init__(self, *records: EventRecord) -> None:
        self.records, self.fails = list(records), False

    async def events(self) -> list[EventRecord]:
        if self.fails:
            raise StoreUnavailable("gone")
        return self.records


async def test_a_job_archives_each_event_until_its_end_and_tries_again_after_a_failure(shop: Shop) -> None:
    now = BEGIN + 130
    lost, kept = Records(record(2)), Records(record(2))
    stores: Any = {"lost": lost, "shop": kept}
    calls: list[str] = []

    class Counting(EventSamples):
        async def archive(self, room: str, record: EventRecord, now: float) -> None:
            calls.append(room)
            await super().archive(room, record, now)

    archiver = EventArchiver(stores, Counting(shop.redis), lambda: now)
    await add_samples(shop.redis, BEGIN, BEGIN + 110)
    lost.fails = True
    await archiver.archive_all()
    assert calls == ["shop"]
    lost.fails = False
    await add_samples(shop.redis, BEGIN + 115, BEGIN + 120)  # a controller was late
    now += 60
    await archiver.archive_all()
    now += 60
    await archiver.archive_all()
    assert calls == ["shop", "lost", "shop"]
    assert await archived(shop.redis, record(2)) == list(range(BEGIN, BEGIN + 121, 5))

    restarted = EventArchiver(stores, EventSamples(shop.redis), lambda: now)
    await shop.redis.delete(history_key("shop"))
    await restarted.archive_all()
    assert len(await archived(shop.redis, record(2))) == 25


async def test_an_event_that_was_cancelled_or_has_not_begun_has_no_samples(shop: Shop) -> None:
    await shop.open(SALE)
    archiver = EventArchiver({"shop": shop.store}, EventSamples(shop.redis), lambda: shop.now / 1000)
    prequeue = NOON + HOUR // 2
    await add_samples(shop.redis, BEGIN, prequeue // 1000 + 10)
    await archiver.archive_all()
    shop.now = prequeue
    await shop.store.change_event("cancel", "sale", expected=None, who="ada", audit_event=AUDIT)
    assert (await shop.store.events())[0].prequeue_at_ms == prequeue
    shop.now += 10_000
    await archiver.archive_all()
    assert await shop.redis.keys("*event_samples*") == []
