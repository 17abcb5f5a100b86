"""Processes are killed under load, one after the other and then all: nothing is lost, and nobody comes in twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.crowd import Crowd, coming
from support.gateway_process import Gateway, assert_unlocked, eventually, room, running_gateway
from support.ports import port_is_free
from support.redis_server import system_redis
from support.upstreams.server import Shop
from support.visitor_client import Visitor
from waitroom.process.embedded_store import EmbeddedStore

pytestmark = pytest.mark.slow

SLOTS = 12


async def kill_one(gateway: Gateway, part: str, count: int = 1) -> None:
    """Kills a child outright; another takes its place and the gateway is ready again."""
    before = gateway.children(part)
    assert len(before) == count
    before[0].kill()
    after = await eventually(lambda: _others(gateway, part, count, before[0].pid))
    assert {one.pid for one in before[1:]} < {one.pid for one in after}

    await eventually(gateway.is_ready)


def _others(gateway: Gateway, part: str, count: int, pid: int) -> list:
    found = gateway.children(part)
    return found if len(found) == count and pid not in {one.pid for one in found} else []


async def kill_all(gateway: Gateway) -> None:
    """Kills the supervisor outright; what it had started goes by itself."""
    assert gateway.process is not None
    assert len(gateway.children()) == 4
    gateway.process.kill()
    assert await gateway.ended() == -signal.SIGKILL
    assert not EmbeddedStore(gateway.data_dir).socket.exists()
    assert_unlocked(gateway.data_dir)
    assert port_is_free(gateway.port)
    assert port_is_free(gateway.admin_port)


async def some_more(crowd: Crowd, count: int = 12) -> None:
    """Waits until so many more have come in: the line moves."""
    wanted = min(crowd.admitted + count, len(crowd.members))
    await eventually(lambda: crowd.admitted >= wanted, seconds=60)


async def assert_all_served(crowd: Crowd, gateway: Gateway, shop: Shop) -> None:
    everyone = len(crowd.members)
    await eventually(lambda: crowd.done == everyone, seconds=90)
    crowd.assert_right(SLOTS, shop)
    for counter in ("joined", "admitted"):
        assert everyone <= await gateway.total("sale", counter) <= everyone + crowd.unanswered
    assert await gateway.total("sale", "overshoot") == 0


async def test_nothing_is_lost_whatever_process_is_killed(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("sale", upstream=shop.address, max_active=SLOTS, rate_per_minute=1200)]
    async with running_gateway(tmp_path, rooms) as gateway, coming("sale", 150, gateway) as crowd:
        await some_more(crowd)
        await kill_one(gateway, "edge.worker", 2)
        await some_more(crowd)
        await kill_one(gateway, "control.worker")
        await some_more(crowd)
        await kill_one(gateway, "valkey")
        await some_more(crowd)
        assert len(await gateway.members("sale", "waiting")) > 20  # the worst is done to a line that is still long
        await kill_all(gateway)
        await gateway.start()
        await some_more(crowd)
        await assert_all_served(crowd, gateway, shop)


async def test_one_of_two_gateways_dies(tmp_path: Path, shop: Shop) -> None:
    """Both serve the same room over one store, and call visitors without knowing of each other."""
    rooms = [room("sale", upstream=shop.address, max_active=SLOTS, rate_per_minute=1200)]
    async with system_redis(tmp_path / "redis") as redis:
        one = running_gateway(tmp_path / "one", rooms, workers=1, redis_url=redis.url)
        two = running_gateway(tmp_path / "two", rooms, workers=1, redis_url=redis.url)
        async with one as stays, two as goes, coming("sale", 60, stays, goes) as crowd:
            await some_more(crowd)
            assert goes.process is not None
            goes.process.kill()
            await goes.ended()
            await some_more(crowd)
            await goes.start()
            await assert_all_served(crowd, stays, shop)


async def test_no_newcomer_takes_a_slot_ahead_of_the_queue(tmp_path: Path, shop: Shop) -> None:
    """Slots get free while nobody calls those who wait: the control process hangs."""
    rooms = [room("sale", upstream=shop.address, max_active=2)]
    async with running_gateway(tmp_path, rooms, workers=1) as gateway:
        inside = [Visitor(gateway, "sale") for _ in range(2)]
        line = [Visitor(gateway, "sale") for _ in range(3)]
        for visitor in inside:
            await visitor.goes_in()
        await line[0].waits()
        (control,) = gateway.children("control.worker")
        await control.suspend()
        try:
            for visitor in inside:
                assert (await visitor.call("leave")).status == 200
            assert not await gateway.members("sale", "active")
            for visitor in line[1:]:
                await visitor.waits()
            assert (await Visitor(gateway, "sale").call("join")).json["state"] == "waiting"
            assert not await gateway.members("sale", "active")
        finally:
            control.kill(signal.SIGCONT)

        for visitor in line[:2]:
            await visitor.state("called")
            await visitor.is_let_in()
        await line[2].position(1)
        assert {visitor.pass_.session for visitor in line[:2]} == (await gateway.members("sale", "active")).keys()
