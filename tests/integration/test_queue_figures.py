"""The queue's cost for the store, as ``benchmarks/queue.py`` measures it, and its bounds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from waitroom.queue.fields import Limits
from waitroom.queue.store import QueueStore
from waitroom.store.connection import connect

SERVER_SECONDS = 30.0
NOON = 1_790_000_000_000
LIMITS = Limits(600, 1_000, 900, 180, 180, 3600)


def _benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "queue.py"
    spec = importlib.util.spec_from_file_location("queue_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
async def test_a_hundred_thousand_waiting_take_little_memory(each_server: str) -> None:
    """`make bench` measures the time that they take."""
    figures = await _benchmark().measure(each_server, 100_000)
    assert figures.bytes_per_visitor <= 130
    assert figures.skipped == 1_000


@pytest.mark.slow
async def test_a_tick_stops_at_its_budget_and_the_next_continues(valkey: str) -> None:
    """Fifty thousand at the head have gone; the first who is there is called, over as many calls as it takes."""
    now = NOON
    async with connect(valkey, timeout_seconds=SERVER_SECONDS) as redis:
        store = QueueStore(redis, "shop", clock=lambda: now)
        await store.open(LIMITS)
        await store.join(1)
        for _ in range(50):
            await store.join(1_000)
        for _ in range(25):
            now += 10_000
            await store.view()
        last = await store.join(1)
        now += 1_000
        budget, ticks, skipped = 700, 0, 0
        while True:
            ticked = await store.tick(budget)
            ticks += 1
            skipped += ticked.skipped
            assert ticked.called + ticked.skipped <= budget
            if not ticked.stopped_early:
                break
            assert ticked.called == 0
        assert skipped == 50_000
        assert ticked.called == 1
        assert ticks == -(-50_001 // budget)
        view = await store.view()
        assert (view.waiting, view.called, view.away, view.high_water_mark) == (0, 1, 50_000, last.first_place)


@pytest.mark.slow
async def test_a_tick_ends_a_thousand_of_a_kind_and_says_that_more_are_due(valkey: str) -> None:
    now = NOON
    async with connect(valkey, timeout_seconds=SERVER_SECONDS) as redis:
        store = QueueStore(redis, "shop", clock=lambda: now)
        await store.open(Limits(600, 1_000, 60, 180, 180, 3600, method="passthrough"))
        await store.join(2_500)
        for _ in range(10):
            now += 10_000
            await store.view()
        ended = []
        while True:
            ticked = await store.tick()
            ended.append(ticked.ended)
            if not ticked.stopped_early:
                break
        assert ended == [1_000, 1_000, 500]


@pytest.mark.slow
async def test_marks_expire_by_the_rooms_time_only(valkey: str) -> None:
    """A wall clock that leaps forgets nobody; the room's own time forgets them all, and their memory is free."""
    now = NOON
    async with connect(valkey, timeout_seconds=SERVER_SECONDS) as redis:
        store = QueueStore(redis, "shop", clock=lambda: now)

        async def bitmaps() -> list[int]:
            return [await redis.ttl(key) for key in await redis.keys("*:seen:*")]

        await store.open(LIMITS)
        await store.join(100)
        now += 3_600_000
        await store.tick()
        assert await bitmaps() == [-1]
        for _ in range(25):
            now += 10_000
            await store.tick()
        assert await bitmaps() == []
