"""The store loses what it knew: nobody takes the slots of those inside, and nobody overtakes those who wait."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.faults import emptied, evicted, flushed, rolled_back
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.redis_server import SystemRedis, system_redis
from support.upstreams.server import Shop
from support.visitor_client import Visitor
from waitroom.queue.store import KEYS

pytestmark = pytest.mark.slow

SLOTS = 6
WAITING = 12


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[SystemRedis]:
    async with system_redis(tmp_path / "redis") as redis:
        yield redis


@dataclass
class Sale:
    """A full room: so many are inside and so many wait, in the order of their places."""

    gateway: Gateway
    slots: int
    inside: list[Visitor] = field(default_factory=list)
    waiting: list[Visitor] = field(default_factory=list)

    async def fill(self, waiting: int) -> None:
        for _ in range(self.slots):
            visitor = Visitor(self.gateway, "sale")
            await visitor.goes_in()
            self.inside.append(visitor)
        for _ in range(waiting):
            visitor = Visitor(self.gateway, "sale")
            assert (await visitor.call("join")).json["state"] == "waiting"
            self.waiting.append(visitor)
        await self.is_known()

    async def is_known(self) -> None:
        """Waits until the control process has seen all of them, and workers for as long."""
        for _ in range(2):
            at = (await self.gateway.metrics_of("sale"))[("waitroom_last_tick_timestamp_seconds",)]

            async def ticked(at: float = at) -> bool:
                found = await self.gateway.metrics_of("sale")
                inside, waiting = found[("waitroom_active_sessions",)], found[("waitroom_waiting_visitors",)]
                assert (inside, waiting) == (self.slots, len(self.waiting))
                return found[("waitroom_last_tick_timestamp_seconds",)] > at + 0.6

            await eventually(ticked)

    async def taken(self) -> int:
        """How many slots are taken at one moment."""
        async with self.gateway.store() as client, client.pipeline(transaction=True) as together:
            for name in ("active", "called"):
                together.zcard(f"waitroom:{{sale}}:{KEYS[name]}")
            return sum(await together.execute())

    async def report(self, visitors: Sequence[Visitor]) -> None:
        """Visitors poll, in this order; none of them has been called."""
        for visitor in visitors:
            await visitor.state("waiting")

    async def one_leaves(self) -> None:
        visitor = self.inside.pop()

        async def leaves() -> bool:  # a worker may not have heard of the store yet
            assert (await visitor.call("leave")).status == 200
            return True

        await eventually(leaves)

    async def are_called_in_order(self, visitors: Sequence[Visitor]) -> None:
        """One leaves for each of them, and each is the next one called."""
        for visitor in visitors:
            await self.one_leaves()
            called = await eventually(lambda: self.gateway.members("sale", "called"), seconds=60)
            assert list(called) == [visitor.ticket.place]
            await visitor.is_let_in()
            self.inside.insert(0, visitor)
            self.waiting.remove(visitor)

    @contextlib.asynccontextmanager
    async def never_beyond_the_limit(self, redis: SystemRedis) -> AsyncIterator[None]:
        """Watches the store while this lasts."""
        most, ended = 0, False

        async def watch() -> None:
            nonlocal most
            while not ended:  # not cancelled: before Python 3.12 the store's client may swallow that
                with contextlib.suppress(Exception):  # the store is killed meanwhile
                    most = max(most, await self.taken())
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            ended = True
            await watching
        assert 0 < most <= self.slots


@contextlib.asynccontextmanager
async def sale(
    folder: Path, shop: Shop, redis: SystemRedis, slots: int = SLOTS, waiting: int = WAITING, **limits: Any
) -> AsyncIterator[Sale]:
    rooms = [room("sale", upstream=shop.address, max_active=slots, **limits)]
    async with running_gateway(folder / "gateway", rooms, redis_url=redis.url) as gateway:
        sale = Sale(gateway, slots)
        await sale.fill(waiting)
        yield sale


async def recovering(gateway: Gateway) -> dict[str, Any]:
    """The recovery, once there is one."""

    async def look() -> dict[str, Any] | None:
        return (await gateway.room("sale"))["recovery"]

    found = await eventually(look)
    assert found is not None
    return found


def deleted(*names: str) -> Callable[[SystemRedis, Gateway], Awaitable[None]]:
    async def delete(redis: SystemRedis, gateway: Gateway) -> None:
        async with gateway.store() as client:
            assert await client.delete(*(f"waitroom:{{sale}}:{KEYS[name]}" for name in names)) == len(names)

    return delete


LOSSES = {
    "emptied": emptied,
    "flushed": flushed,
    "waiting deleted": deleted("waiting"),
    "room evicted": deleted("room"),
    "active and hard ends evicted": deleted("active", "hard_ends"),
}


async def assert_recovers(sale: Sale, redis: SystemRedis, loss: Callable[[SystemRedis, Gateway], Any]) -> None:
    gateway = sale.gateway
    everyone = list(sale.waiting)
    inside = {visitor.pass_.session for visitor in sale.inside}
    async with sale.never_beyond_the_limit(redis):
        await loss(redis, gateway)
        recovery = await recovering(gateway)
        assert recovery["waiting"]["expected"] == len(everyone)
        assert recovery["active"]["expected"] == sale.slots
        await eventually(gateway.is_ready)

        # Those inside do nothing: their workers report them. Of those who wait the last come first; a newcomer waits.
        await eventually(lambda: _same(gateway, "active", inside))
        newcomer = Visitor(gateway, "sale")
        await newcomer.waits()
        late = everyone[: len(everyone) // 2]
        early = everyone[len(late) :]
        random.Random(1).shuffle(early)
        await sale.report(early)
        await sale.one_leaves()
        await sale.report(early[:3])
        assert not await gateway.members("sale", "called"), "called before those in front could report"
        await sale.report(late)

        async def enough_reported() -> bool:  # a worker answers from memory until it has heard of the loss
            recovery = (await gateway.room("sale"))["recovery"]
            if recovery is None or 10 * recovery["waiting"]["reported"] >= 9 * recovery["waiting"]["expected"]:
                return True
            for visitor in everyone:  # one of them may be called meanwhile
                await visitor.state("waiting", "called")
            return False

        await eventually(enough_reported)

        # Most have reported, so calls go on before the time is over.
        called = await eventually(lambda: gateway.members("sale", "called"))
        assert list(called) == [everyone[0].ticket.place]
        await everyone[0].is_let_in()
        sale.inside.insert(0, everyone[0])
        sale.waiting.remove(everyone[0])
        await sale.are_called_in_order(everyone[1:3])
        assert newcomer.ticket.place > everyone[-1].ticket.place
    assert await gateway.total("sale", "overshoot") == 0
    assert await gateway.total("sale", "recoveries") == 1


async def _same(gateway: Gateway, key: str, wanted: set[int]) -> bool:
    assert set(await gateway.members("sale", key)) == wanted
    return True


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "emptied" else pytest.mark.long) for name in LOSSES]
)
async def test_those_who_were_there_report_first(tmp_path: Path, shop: Shop, redis: SystemRedis, name: str) -> None:
    async with sale(tmp_path, shop, redis, recovery_seconds=600) as full:
        await assert_recovers(full, redis, LOSSES[name])


@pytest.mark.long
async def test_calls_resume_after_recovery_seconds_though_nobody_reports(
    tmp_path: Path, shop: Shop, redis: SystemRedis
) -> None:
    async with sale(tmp_path, shop, redis, waiting=3, recovery_seconds=2) as full:
        await emptied(redis, full.gateway)
        await recovering(full.gateway)
        last = full.waiting[-1]
        await last.state("waiting")
        await full.one_leaves()
        await last.state("called")
        await last.is_let_in()


async def test_a_restart_that_lost_nothing_costs_no_recovery(tmp_path: Path, shop: Shop, redis: SystemRedis) -> None:
    async with sale(tmp_path, shop, redis, recovery_seconds=600) as full:
        await redis.kill()
        await redis.start()
        await full.are_called_in_order(list(full.waiting[:2]))
        assert await full.gateway.total("sale", "recoveries") == 0


@pytest.mark.long
async def test_what_a_rollback_holds_of_visitors_who_left_runs_out(
    tmp_path: Path, shop: Shop, redis: SystemRedis
) -> None:
    """As after a failover to a replica that lagged."""
    async with sale(tmp_path, shop, redis, recovery_seconds=5) as full:
        gateway = full.gateway
        shutil.copytree(redis.file, tmp_path / "older")
        left = {visitor.pass_.session for visitor in full.inside[-3:]}
        await full.are_called_in_order(list(full.waiting[:3]))
        inside = {visitor.pass_.session for visitor in full.inside}
        await rolled_back(redis, tmp_path / "older")
        await recovering(gateway)
        await full.report(full.waiting)
        await eventually(lambda: _holds(gateway, inside))

        async def gone() -> bool:
            assert not left & set(await gateway.members("sale", "active"))
            assert (await gateway.room("sale"))["recovery"] is None
            return True

        await eventually(gone, seconds=60)
        assert set(await gateway.members("sale", "active")) == inside
        assert (await full.inside[0].navigate()).status == 200
        await full.are_called_in_order(list(full.waiting[:2]))


async def _holds(gateway: Gateway, sessions: set[int]) -> bool:
    assert sessions <= set(await gateway.members("sale", "active"))
    return True


@pytest.mark.long
async def test_a_store_that_evicts_lets_nobody_in_and_says_so(tmp_path: Path, shop: Shop, redis: SystemRedis) -> None:
    async with sale(tmp_path, shop, redis, waiting=3, recovery_seconds=600) as full:
        gateway = full.gateway
        await evicted(gateway, "sale")
        recovery = await recovering(gateway)
        assert recovery["seconds_left"] > 0
        newcomers = [Visitor(gateway, "sale") for _ in range(6)]
        for newcomer in newcomers:
            await newcomer.waits()
        assert not await gateway.members("sale", "called")

        async def hinted() -> bool:
            hints = (await gateway.room("sale"))["hints"]
            assert any("maxmemory-policy is allkeys-random" in hint for hint in hints)
            return True

        await eventually(hinted, seconds=60)
        assert "store may evict keys" in gateway.log
