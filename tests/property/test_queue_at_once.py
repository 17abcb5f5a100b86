"""The line under many workers and controllers at once, each over its own connection, on the server's own clock."""

from __future__ import annotations

import asyncio
import random

import pytest

from waitroom.queue.fields import Limits
from waitroom.queue.store import QueueStore, SessionChange, Visit
from waitroom.queue.view import RoomView
from waitroom.store.connection import connect

SERVER_SECONDS = 30.0
SLOTS = 12
RATE_PER_SECOND = 400
LIMITS = Limits(RATE_PER_SECOND * 60, SLOTS, 900, 180, 180, 3600)
WORKERS = 4
CONTROLLERS = 3
JOINS_OF_EACH = 40


class Worker:
    """Joins visitors a few at a time, lets in who is called, and lets them go soon after."""

    def __init__(self, url: str, number: int) -> None:
        self.url = url
        self.chance = random.Random(number)
        self.places: list[int] = []
        self.admitted: list[int] = []

    async def work(self) -> None:
        async with connect(self.url, timeout_seconds=SERVER_SECONDS) as redis:
            store = QueueStore(redis, "shop")
            waiting: dict[int, int] = {}
            inside: list[int] = []
            joins = JOINS_OF_EACH
            while joins or waiting:
                if joins:
                    joins -= 1
                    await self._join(store, waiting, inside)
                visits = [Visit(place, generation, claim=True) for place, generation in waiting.items()]
                for visit, visited in zip(visits, await store.visit(visits), strict=True):
                    assert visited.fate != "unknown"
                    if visited.fate == "admitted":
                        del waiting[visit.place]
                        inside.append(visit.place)
                        self.admitted.append(visit.place)
                await store.change_sessions([SessionChange("end", session, 0) for session in inside[:-1]])
                del inside[:-1]
            await store.change_sessions([SessionChange("end", session, 0) for session in inside])

    async def _join(self, store: QueueStore, waiting: dict[int, int], inside: list[int]) -> None:
        count = self.chance.randrange(1, 4)
        joined = await store.join(count)
        places = range(joined.first_place, joined.first_place + count)
        self.places += places
        inside += places[: joined.admitted]
        self.admitted += places[: joined.admitted]
        waiting |= dict.fromkeys(places[joined.admitted :], joined.generation)


async def control(url: str) -> None:
    async with connect(url, timeout_seconds=SERVER_SECONDS) as redis:
        store = QueueStore(redis, "shop")
        while True:
            await store.tick()


async def watch(url: str, views: list[RoomView]) -> None:
    async with connect(url, timeout_seconds=SERVER_SECONDS) as redis:
        store = QueueStore(redis, "shop")
        while True:
            views.append(await store.view())


@pytest.mark.slow
async def test_many_visitors_at_the_same_time(each_server: str) -> None:
    views: list[RoomView] = []
    workers = [Worker(each_server, number) for number in range(WORKERS)]
    async with connect(each_server, timeout_seconds=SERVER_SECONDS) as redis:
        store = QueueStore(redis, "shop")
        await store.open(LIMITS)
        views.append(await store.view())
        async with asyncio.timeout(2 * SERVER_SECONDS):
            others = [asyncio.create_task(control(each_server)) for _ in range(CONTROLLERS)]
            others.append(asyncio.create_task(watch(each_server, views)))
            try:
                async with asyncio.TaskGroup() as group:
                    for worker in workers:
                        group.create_task(worker.work())
            finally:
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
        views.append(await store.view())
    places = [place for worker in workers for place in worker.places]
    assert len(set(places)) == len(places)
    assert sorted(place for worker in workers for place in worker.admitted) == sorted(places)
    assert all(view.active + view.called <= SLOTS for view in views)
    assert [view.high_water_mark for view in views] == sorted(view.high_water_mark for view in views)
    elapsed = (views[-1].clock_ms - views[0].clock_ms) / 1000
    assert len(places) <= RATE_PER_SECOND * (elapsed + 1)
    assert views[-1].totals == {"joined": len(places), "admitted": len(places), "left:ended": len(places)}
