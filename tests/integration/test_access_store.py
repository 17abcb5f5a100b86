"""Logins slowed, codes used once, sessions ended: on real stores, by a clock set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from support.gateway_process import eventually
from waitroom.control.auth.login_store import (
    ADDRESS_BACKOFF,
    COUNTER_SECONDS,
    DEVICE_BACKOFF,
    EVERYWHERE_BACKOFF,
    NAME_BACKOFF,
    PREFIX,
    LoginStore,
)
from waitroom.store.connection import connect

pytestmark = pytest.mark.slow

HOME = "203.0.113.9"


@dataclass
class Clock:
    ms: int = 1_790_000_000_123

    def __call__(self) -> int:
        return self.ms

    def forward(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def redis_client(each_server: str) -> AsyncIterator[Redis]:
    async with connect(each_server, timeout_seconds=10) as client:
        yield client


@pytest.fixture
def store(redis_client: Redis, clock: Clock) -> LoginStore:
    return LoginStore(redis_client, clock=clock)


async def pauses(clock: Clock, tries: int, attempt: Callable[[int], Awaitable[float]]) -> list[float]:
    """How long one has to wait before each of so many tries, each made as soon as it may be."""
    found = []
    for n in range(tries):
        wait = await attempt(n)
        found.append(wait)
        if wait:
            clock.forward(wait)
            assert await attempt(n) == 0
    return found


async def test_after_a_few_attempts_with_a_name_each_pause_doubles(store: LoginStore, clock: Clock) -> None:
    found = await pauses(clock, 12, lambda _: store.attempt("anna", HOME))
    free = [0] * (NAME_BACKOFF.free + 1)
    assert found[: len(free)] == free
    assert found[len(free) :] == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_strangers_lock_no_name_out_elsewhere(store: LoginStore, clock: Clock) -> None:
    """One who tries a name as often as they may, from some addresses, delays nobody at another one."""
    for n in range(5):
        while (wait := await store.attempt("anna", f"198.51.100.{n}")) < NAME_BACKOFF.max_seconds:
            clock.forward(wait)
    for _ in range(NAME_BACKOFF.free):
        assert await store.attempt("anna", HOME) == 0


async def test_a_known_device_has_attempts_of_its_own(store: LoginStore, clock: Clock, redis_client: Redis) -> None:
    everywhere = await pauses(clock, EVERYWHERE_BACKOFF.free + 4, lambda n: store.attempt("anna", f"2001:db8:{n:x}::1"))
    assert everywhere == [0] * (EVERYWHERE_BACKOFF.free + 1) + [1, 2, 4]
    while await store.attempt("anna", HOME) < EVERYWHERE_BACKOFF.max_seconds:
        clock.forward(EVERYWHERE_BACKOFF.max_seconds)
    found = await pauses(clock, 8, lambda _: store.attempt("anna", HOME, "a-device"))
    assert found == [0] * (DEVICE_BACKOFF.free + 1) + [1, 2]
    assert await store.attempt("anna", HOME, "another-device") == 0
    await store.succeeded("anna", HOME, "a-device")
    assert await store.attempt("anna", HOME, "a-device") == 0
    assert await store.attempt("anna", HOME) > 0, "others still wait"
    async for key in redis_client.scan_iter(f"{PREFIX}:tries:*"):
        assert b"anna" not in key
        assert b"a-device" not in key


async def test_names_that_share_a_counter_cannot_be_found_without_the_key(redis_client: Redis) -> None:
    for key in ("one", "another"):
        await LoginStore(redis_client, key=key).attempt("anna", HOME)
    assert await redis_client.dbsize() == 6


async def test_pauses_for_an_address_double_whatever_names_it_tries(store: LoginStore, clock: Clock) -> None:
    found = await pauses(clock, 23, lambda n: store.attempt(f"name-{n}", HOME))
    assert found == [0] * (ADDRESS_BACKOFF.free + 1) + [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


async def test_concurrent_attempts_count_like_sequential_ones(store: LoginStore) -> None:
    waits = await asyncio.gather(*(store.attempt("anna", HOME) for _ in range(50)))
    assert sum(wait == 0 for wait in waits) == NAME_BACKOFF.free + 1


async def test_attempts_during_a_pause_do_not_prolong_it(store: LoginStore, clock: Clock) -> None:
    while await store.attempt("anna", HOME) == 0:
        pass
    waits = []
    for _ in range(5):
        waits.append(await store.attempt("anna", HOME))
        clock.forward(0.1)
    assert waits == [1, 0.9, 0.8, 0.7, 0.6]


async def test_success_clears_the_name_and_one_attempt_of_the_address(store: LoginStore, redis_client: Redis) -> None:
    for _ in range(3):
        await store.attempt("anna", HOME)
    await store.succeeded("anna", HOME)
    left = [key async for key in redis_client.scan_iter(f"{PREFIX}:tries:*")]
    assert sorted(key.split(b":")[-2] for key in left) == [b"address", b"everywhere"]
    for key in left:
        assert await redis_client.hget(key, "tries") == b"2"
    await store.succeeded("nobody", "192.0.2.1")
    assert await redis_client.dbsize() == 2, "nothing is made by it"


async def test_a_success_clears_no_attempts_with_other_names(store: LoginStore, clock: Clock) -> None:
    for n in range(ADDRESS_BACKOFF.free * 2):
        if wait := await store.attempt(f"victim-{n}", HOME):
            clock.forward(wait)
            assert await store.attempt(f"victim-{n}", HOME) == 0
        clock.forward(ADDRESS_BACKOFF.max_seconds)
        assert await store.attempt("mallory", HOME) == 0
        await store.succeeded("mallory", HOME)
    await store.attempt("victim", HOME)
    assert await store.attempt("another", HOME) > 60


async def test_attempts_expire_and_use_bounded_memory(store: LoginStore, redis_client: Redis) -> None:
    await store.attempt("anna", HOME)
    async for key in redis_client.scan_iter("*"):
        assert 0 < await redis_client.pttl(key) <= COUNTER_SECONDS * 1000
        kind, counter = key.decode().split(":")[-2:]
        assert kind in {"name", "address", "everywhere"}
        assert len(counter) == 4, "there are 65,536 of a kind, whatever is typed in"


async def test_an_ipv6_network_counts_as_one_address(store: LoginStore, redis_client: Redis) -> None:
    for address in ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1", "unknown"):
        await store.attempt("anna", address)
    counted = [key async for key in redis_client.scan_iter(f"{PREFIX}:tries:address:*")]
    assert len(counted) == 3


async def test_setting_the_clock_back_locks_nobody_out(store: LoginStore, clock: Clock) -> None:
    while await store.attempt("anna", HOME) == 0:
        pass
    clock.forward(-86400)
    assert await store.attempt("anna", HOME) <= NAME_BACKOFF.max_seconds


async def test_controllers_share_the_attempts(redis_client: Redis, each_server: str, clock: Clock) -> None:
    async with connect(each_server, timeout_seconds=10) as other:
        one, two = LoginStore(redis_client, clock=clock), LoginStore(other, clock=clock)
        for store in (one, two, one, two):
            assert await store.attempt("anna", HOME) == 0
        assert await one.attempt("anna", HOME) == 1
        await one.end_session("an-id", 100)
        assert await two.ended("an-id")
        assert not await two.ended("another")
        assert await one.use_code("anna", 5)
        assert not await two.use_code("anna", 5)


async def test_the_servers_clock_is_the_default(redis_client: Redis) -> None:
    store = LoginStore(redis_client)
    # As many as it takes: each pause is twice as long as the last.
    wait = await eventually(lambda: store.attempt("anna", HOME), every=0.0)
    assert 0 < wait <= NAME_BACKOFF.max_seconds


async def test_a_used_code_is_rejected_for_its_user_and_interval(store: LoginStore) -> None:
    used = await asyncio.gather(*(store.use_code("anna", 5) for _ in range(20)))
    assert used.count(True) == 1
    assert await store.use_code("anna", 6)
    assert await store.use_code("bob", 5)


async def test_an_ended_session_is_remembered_until_it_would_have_expired(
    store: LoginStore, redis_client: Redis
) -> None:
    await store.end_session("an-id", 100)
    assert 40_000 < await redis_client.pttl(f"{PREFIX}:ended:an-id") <= 100_000
    await store.end_session("over", -5)
