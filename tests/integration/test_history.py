"""The samples of the last hours, in a real store."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from waitroom.control.monitoring import history as module
from waitroom.control.monitoring.history import History, Sample
from waitroom.store.connection import connect

SHOP = {
    "requests_per_minute": 1.0,
    "failures_per_minute": 0.0,
    "p50_seconds": None,
    "p95_seconds": None,
    "in_flight": 0,
}
FIGURES = {
    "state": "open",
    "waiting": 3,
    "active": 5,
    "max_active": 10,
    "joined": 11,
    "wait_seconds": [10, 20],
    "shop": SHOP,
}


@pytest.fixture
async def redis_client(valkey: str) -> AsyncIterator[Redis]:
    async with connect(valkey, timeout_seconds=10) as client:
        yield client


def sample(age: int, **changed: object) -> Sample:
    return Sample(int(time.time()) - age, {**FIGURES, **changed})


async def read(history: History, room: str, seconds: float) -> list[Sample]:
    stored = [json.loads(one) for one in await history.read_json(room, seconds)]
    return [Sample(one.pop("at"), one) for one in stored]


async def test_samples_are_returned_oldest_first(redis_client: Redis) -> None:
    history = History(redis_client)
    kept = [sample(300), sample(200, wait_seconds=None), sample(100)]
    for one in (kept[1], kept[0], kept[2]):
        assert await history.add("shop", one)

    assert await read(history, "shop", 400) == kept
    assert await read(history, "shop", 150) == kept[2:]
    assert await read(history, "other", 60) == []
    assert await read(History(redis_client), "shop", 400) == kept


async def test_two_controllers_store_one_sample_per_time(redis_client: Redis) -> None:
    first, second = sample(10, waiting=3), sample(10, waiting=4)
    second = replace(second, at=first.at)
    assert await History(redis_client).add("shop", first)
    assert not await History(redis_client).add("shop", second)
    assert await read(History(redis_client), "shop", 60) == [first]


async def test_the_oldest_samples_are_dropped(redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SAMPLES", 3)
    history = History(redis_client)
    kept = [sample(age) for age in (25, 20, 15, 10, 5)]
    for one in kept:
        await history.add("shop", one)
    assert await read(history, "shop", 60) == kept[2:]


async def test_samples_of_another_day_are_dropped(redis_client: Redis) -> None:
    history = History(redis_client)
    await history.add("shop", sample(module.RETENTION_SECONDS + 10))
    new = sample(5)
    await history.add("shop", new)
    assert await read(history, "shop", 10 * module.RETENTION_SECONDS) == [new]
