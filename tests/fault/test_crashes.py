"""Processes are killed under load, one after the other and then all: nothing is lost, and nobody comes in twice."""

from __future__ import annotations

import signal
from collections import defaultdict
from pathlib import Path

import pytest
from crowd import Crowd, coming
from gateway import Gateway, assert_unlocked, eventually, port_is_free, room, running_gateway
from shop_server import Shop
from visitors import Visitor

from waitroom.embedded import EmbeddedStore

pytestmark = pytest.mark.slow

SLOTS = 12
VISITORS = 150


async def kill_one(gateway: Gateway, part: str, count: int = 1) -> None:
    """Kills a child outright; another takes its place and the gateway is ready again."""
    before = gateway.children(part)
    assert len(before) == count
    before[0].kill()
    after = await eventually(lambda: _others(gateway, part, count, before[0].pid))
    assert {one.pid for one in before[1:]} < {one.pid for one in after}

    async def ready() -> bool:
        return await gateway.ready() == 200

    await eventually(ready)


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
    wanted = min(crowd.admitted + count, VISITORS)
    await eventually(lambda: crowd.admitted >= wanted, seconds=60)


async def test_nothing_is_lost_whatever_is_killed(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("sale", upstream=shop.address, max_active=SLOTS, rate_per_minute=1200)]
    async with running_gateway(tmp_path, rooms) as gateway, coming(gateway, "sale", VISITORS) as crowd:
        await some_more(crowd)
        await kill_one(gateway, "edge.worker", 2)
        await some_more(crowd)
        await kill_one(gateway, "control.process")
        await some_more(crowd)
        await kill_one(gateway, "valkey")
        await some_more(crowd)
        waiting = await gateway.members("sale", "waiting")
        assert len(waiting) > 20  # the worst is done to a line that is still long
        await kill_all(gateway)
        await gateway.start()
        await some_more(crowd)
        await eventually(lambda: crowd.done == VISITORS, seconds=90)

        crowd.assert_right()
        assert crowd.looks > 100
        assert 0 < crowd.most <= SLOTS
        assert 0 < crowd.most_told <= SLOTS
        unanswered = sum(member.unanswered for member in crowd.members)
        assert VISITORS <= await gateway.total("sale", "joined") <= VISITORS + unanswered
        assert VISITORS <= await gateway.total("sale", "admitted") <= VISITORS + unanswered
        assert await gateway.total("sale", "overshoot") == 0
    sessions, visitors = defaultdict(set), defaultdict(set)
    for seen in shop.seen:
        if seen.path.startswith("/visit/"):
            sessions[seen.path].add(seen.session)
            visitors[seen.session].add(seen.path)
    assert len(sessions) == VISITORS
    assert {len(one) for one in visitors.values()} == {1}
    doubled = [path for path, ids in sessions.items() if len(ids) > 1]
    assert len(doubled) <= unanswered


async def test_no_newcomer_takes_a_slot_ahead_of_the_line(tmp_path: Path, shop: Shop) -> None:
    """Slots get free while nobody calls those who wait: the control process hangs."""
    rooms = [room("sale", upstream=shop.address, max_active=2)]
    async with running_gateway(tmp_path, rooms, workers=1) as gateway:
        inside = [Visitor(gateway, "sale") for _ in range(2)]
        line = [Visitor(gateway, "sale") for _ in range(3)]
        for visitor in inside:
            await visitor.goes_in()
        await line[0].waits()
        (control,) = gateway.children("control.process")
        control.kill(signal.SIGSTOP)
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
