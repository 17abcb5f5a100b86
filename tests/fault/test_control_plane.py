"""What operators did, and what they look at, outlives whatever is killed and restarted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.admin_client import Operator
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.redis_server import system_redis
from support.upstreams.server import Shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow

KEPT = ("rate_per_minute", "max_active", "state", "draining", "message", "version", "last_change")
CHANGE: dict[str, Any] = {"rate_per_minute": 321, "max_active": 7, "message": "Soon", "draining": True}


async def samples(gateway: Gateway, name: str) -> list[dict[str, Any]]:
    told = await Operator(gateway, name).ask("GET", "/history")
    assert told.status == 200
    return told.body["samples"]


async def killed(gateway: Gateway, part: str) -> None:
    old = gateway.children(part)
    for one in old:
        one.kill()
    await gateway.replaced(part, len(old), old)

    await eventually(gateway.is_ready)


def kept(room: dict[str, Any]) -> dict[str, Any]:
    return {name: room[name] for name in KEPT}


async def test_killing_control_loses_no_history_and_no_change(tmp_path: Path, shop: Shop) -> None:
    async with running_gateway(tmp_path, [room("sale", upstream=shop.address)]) as gateway:
        operator = Operator(gateway, "sale")
        await operator.look()
        changed = kept((await operator.change(**CHANGE, note="why not")).body)
        assert changed["max_active"] == 7
        entries = await operator.audit()

        async def sampled() -> list[dict[str, Any]]:
            return await samples(gateway, "sale")

        before = await eventually(sampled)
        assert before[-1]["rate_per_minute"] in (321, 600_000)

        await killed(gateway, "control.worker")

        assert kept(await operator.look()) == changed
        assert await operator.audit() == entries
        assert (await operator.verdict())["intact"]
        assert (await samples(gateway, "sale"))[: len(before)] == before

        async def goes_on() -> bool:
            return len(await samples(gateway, "sale")) > len(before)

        await eventually(goes_on)
        times = [one["at"] for one in await samples(gateway, "sale")]
        assert times == sorted(set(times))
        assert all(at % 5 == 0 for at in times)
        told = await operator.undo()
        assert (told.status, told.body["rate_per_minute"], told.body["state"]) == (200, 600_000, "open")


async def test_changes_survive_a_restart_unless_the_file_has_changed(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("sale", upstream=shop.address, rate_per_minute=600, max_active=50)]
    async with running_gateway(tmp_path, rooms) as gateway:
        operator = Operator(gateway, "sale")
        await operator.look()
        changed = kept((await operator.change(**CHANGE)).body)
        await gateway.stop()
        await gateway.start()
        assert kept(await operator.look()) == changed

        await gateway.stop()
        gateway.rooms[0]["max_active"] = 60
        await gateway.start()

        seen = operator.seen
        now = await operator.look()
        assert (now["max_active"], now["rate_per_minute"], now["message"]) == (60, 321, "Soon")
        assert (now["state"], now["draining"]) == ("paused", True)
        # Who decided on what the file has changed since is to look again.
        assert now["version"] == seen + 1
        told = await operator.ask("GET", "/diff")
        assert told.body["differs"] == ["rate_per_minute"]
        # What the last change set is the file's by now.
        assert now["last_change"]["undoable"] is False


async def test_a_change_holds_when_edges_are_replaced(tmp_path: Path, shop: Shop) -> None:
    async with running_gateway(tmp_path, [room("sale", upstream=shop.address)]) as gateway:
        operator = Operator(gateway, "sale")
        await operator.look()
        await operator.change(state="paused", message="Soon")
        await killed(gateway, "edge.worker")
        visitor = Visitor(gateway, "sale")

        async def told() -> bool:
            await visitor.navigate()
            for _ in range(12):
                status = await visitor.status()
                assert (status["state"], status["message"]) == ("paused", "Soon")
            return True

        await eventually(told)

        async def both() -> bool:
            return (await operator.look())["workers"] == {"alive": 2, "wanted": 2}

        await eventually(both)


async def test_two_gateways_show_each_others_changes(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("sale", upstream=shop.address)]
    async with system_redis(tmp_path / "redis") as redis:
        one = running_gateway(tmp_path / "one", rooms, workers=1, redis_url=redis.url)
        two = running_gateway(tmp_path / "two", rooms, workers=1, redis_url=redis.url)
        async with one as here, two as there:
            ada, ben = Operator(here, "sale"), Operator(there, "sale")
            await ada.look()
            await ben.look()
            await ada.change(rate_per_minute=77)
            assert (await ben.change(rate_per_minute=88)).status == 412

            async def shown() -> bool:
                return (await ben.look())["rate_per_minute"] == 77

            await eventually(shown)
            await ben.change(message="From there")
            assert [entry["new"] for entry in (await ada.audit())[:1]] == [{"message": "From there"}]
            assert (await ada.verdict())["intact"]

            async def three() -> list[dict[str, Any]]:
                found = await samples(here, "sale")
                return found if len(found) >= 3 else []

            found = await eventually(three)
            assert len({sample["at"] for sample in found}) == len(found)
            assert (await samples(there, "sale"))[: len(found)] == found
