"""Gateways over one store compare their secrets and clocks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from waitroom.control.monitoring.gateways import GatewayInfo
from waitroom.control.monitoring.store_watch import ALIVE_MS, KEY, StoreWatch
from waitroom.store.connection import connect

FIRST, SECOND = "the secret of some gateways", "the secret of one more gateway"


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    async with connect(valkey, timeout_seconds=10) as redis:
        await redis.delete(KEY)
        yield redis
        await redis.delete(KEY)


def watch(redis: Redis, host: str, *secrets: str) -> StoreWatch:
    return StoreWatch(redis, GatewayInfo.of(host, secrets))


async def test_gateways_with_other_secrets_find_each_other(redis: Redis) -> None:
    one, other = watch(redis, "one", FIRST), watch(redis, "other", SECOND)
    with capture_logs() as logs:
        for _ in range(2):
            await one.check()
            await other.check()
    assert (one.strangers, other.strangers) == (("other",), ("one",))
    assert "other" in one.hints()[0]
    warned = [line for line in logs if line["log_level"] == "warning"]
    assert [line["hosts"] for line in warned] == [("one",), ("other",)], "once each"
    stored = b"".join((await redis.hgetall(KEY)).values())
    assert FIRST.encode() not in stored

    await other.leave()
    with capture_logs() as logs:
        await one.check()
    assert one.strangers == ()
    assert [line["event"] for line in logs] == ["all gateways over this store share a secret"]


async def test_a_rotation_of_secrets_is_no_reason_to_warn(redis: Redis) -> None:
    one, other = watch(redis, "one", SECOND, FIRST), watch(redis, "other", FIRST)
    for _ in range(2):
        await one.check()
        await other.check()
    assert one.strangers == other.strangers == ()


async def test_gateways_that_are_gone_are_forgotten(redis: Redis) -> None:
    one = watch(redis, "one", FIRST)
    seconds, _ = await redis.time()
    old = GatewayInfo.of("other", [SECOND]).json()
    for name, at in (("gone", seconds * 1000 - ALIVE_MS), ("ahead", seconds * 1000 + 25_200_000)):
        await redis.hset(KEY, name, f"{at} {old}")
    await redis.hset(KEY, "odd", "no gateway")
    await one.check()
    assert one.strangers == ()
    assert len(await redis.hkeys(KEY)) == 1


async def test_the_clock_is_compared_with_the_store(redis: Redis) -> None:
    one = watch(redis, "one", FIRST)
    await one.check()
    assert one.reading is not None
    assert abs(one.reading.ahead) <= one.reading.error + 0.002
    assert not one.clock_differs
    assert one.hints() == []


async def test_the_store_s_clock_is_known_without_asking_it_again(redis: Redis) -> None:
    one = watch(redis, "one", FIRST)
    assert time.time() - one.now() == pytest.approx(0, abs=60)
    await one.check()
    assert one.reading is not None
    one.reading = dataclasses.replace(one.reading, ahead=7200.0)
    assert time.time() - one.now() == pytest.approx(7200, abs=60)
