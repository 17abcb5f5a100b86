"""What was done is in the audit log, once, whatever is killed between the doing and the writing down."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.admin_client import Operator
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.server import Shop
from waitroom.control.audit.log import STATE

pytestmark = pytest.mark.slow

KILLS = 4


async def kill_control(gateway: Gateway) -> None:
    old = gateway.children("control.worker")
    for one in old:
        one.kill()
    await gateway.replaced("control.worker", 1, old)


async def answers(gateway: Gateway) -> None:
    await eventually(gateway.is_ready)


async def test_a_change_is_audited_if_its_control_process_is_killed(tmp_path: Path, shop: Shop) -> None:
    async with running_gateway(tmp_path, [room("sale", upstream=shop.address)]) as gateway:
        operator = Operator(gateway, "sale")
        await operator.look()
        await operator.change(max_active=5, note="first")
        async with gateway.store() as redis:
            # The log takes nothing, as where the process is killed before it comes to it.
            await redis.rename(STATE, f"{STATE}:aside")
            await redis.set(STATE, "in the way")
            told = await operator.change(rate_per_minute=77, note="second")
            assert (told.status, told.body["rate_per_minute"]) == (200, 77)
            await kill_control(gateway)
            await redis.rename(f"{STATE}:aside", STATE)
        await answers(gateway)

        async def written() -> list[dict[str, Any]]:
            found = await operator.audit()
            return found if len(found) == 2 else []

        newest, first = await eventually(written)
        assert (first["note"], newest["note"]) == ("first", "second")
        assert (newest["who"], newest["role"], newest["address"], newest["via"]) == (
            "local",
            "admin",
            "127.0.0.1",
            "api",
        )
        assert (newest["old"], newest["new"]) == ({"rate_per_minute": 600_000.0}, {"rate_per_minute": 77.0})
        assert (await operator.verdict())["intact"]


async def test_changes_are_audited_once_while_control_processes_are_killed(tmp_path: Path, shop: Shop) -> None:
    async with running_gateway(tmp_path, [room("sale", upstream=shop.address)]) as gateway:
        operator = Operator(gateway, "sale")
        wanted = itertools.count(1)

        async def go_on() -> None:
            while True:
                try:
                    await operator.look()
                    await operator.change(max_active=next(wanted))
                except (aiohttp.ClientError, OSError, AssertionError, KeyError):
                    await asyncio.sleep(0.05)  # nobody is there for the moment, or they haven't seen the room yet

        busy = asyncio.create_task(go_on())
        try:
            for _ in range(KILLS):
                before = (await Operator(gateway, "sale").look())["version"]

                async def further(before: int = before) -> bool:
                    return (await Operator(gateway, "sale").look())["version"] >= before + 5

                await eventually(further)
                await kill_control(gateway)
                await answers(gateway)
        finally:
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)

        async def written() -> list[dict[str, Any]]:
            # What was asked for last may still be on its way.
            async with gateway.store() as redis:
                assert await redis.llen("waitroom:{sale}:notes") == 0
            entries = [one for one in await operator.audit(1000) if one["outcome"] == "done"]
            assert len(entries) == (await operator.look())["version"]
            return entries

        entries = await eventually(written)
        values = [one["new"]["max_active"] for one in reversed(entries)]
        assert [one["old"]["max_active"] for one in reversed(entries)] == [10_000, *values[:-1]]
        assert (await operator.verdict())["intact"]
