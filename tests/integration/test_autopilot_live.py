"""The autopilot with real processes: the gateway, the demo shop as its capacity changes, and a crowd."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.gateway_process import Gateway, eventually, running_gateway
from support.models.discrete_shop import share_of_the_best
from waitroom.control.autopilot.state import DecisionLog, RecordedDecision
from waitroom.drill.load.crowd import Crowd, Plan
from waitroom.drill.load.visitor import Outcome
from waitroom.drill.processes import ChildProcess, ChildProcesses

pytestmark = [pytest.mark.slow, pytest.mark.alone]

# Long queries: the shop's capacity then depends on its pool, and hardly on other load on the machine.
QUERY_SECONDS = 0.05
LARGE, SMALL = 6, 4
SHRINKS_AT, ENDS_AT = 55.0, 95.0
LOOK_SECONDS = 0.1
SETTLING_SECONDS = 5.0
FIRST_LOOK_AT = 30.0
# The shop's timeout is two seconds. If the whole machine stalls for one, the autopilot didn't cause the failures, and
# the run proves nothing.
MAX_STALL_SECONDS = 1.0


@asynccontextmanager
async def demo_shop(folder: Path, capacity: int) -> AsyncIterator[tuple[str, ChildProcess]]:
    async with ChildProcesses() as children:
        options = ["--port", "0", "--stock", "100000", "--capacity", str(capacity)]
        options += ["--query-seconds", str(QUERY_SECONDS), "--data", str(folder / "shop.db")]
        child = await children.start(
            "shop", [sys.executable, "-m", "waitroom.drill.shop.app", *options], folder, pipe=True
        )
        yield (await child.first_line(30)).rsplit(" ", 1)[-1], child


def room(shop: str, **settings: Any) -> dict[str, Any]:
    return {"name": "shop", "upstream": shop, "max_active": 5000, "session_seconds": 60, **settings}


async def decisions(gateway: Gateway) -> list[RecordedDecision]:
    async with gateway.store() as redis:
        return await DecisionLog(redis, "shop", "nobody").decisions()


async def resize(http: aiohttp.ClientSession, shop: str, connections: int) -> None:
    async with http.post(f"{shop}/capacity", params={"connections": str(connections)}) as answer:
        assert answer.status == 200


@dataclass
class Run:
    """The result of a run.

    Attributes:
        large, small: The share of the best fixed rate's sales, before and after the shop shrank.
        failed: The share of requests that failed.
        waiting: The number of waiting visitors at the end.
        stalls: The longest time in seconds for which this process got no processor.
        report: All of it, to explain a failure.
    """

    large: float
    small: float
    failed: float
    waiting: int
    stalls: float
    report: str


async def run_shop(folder: Path) -> Run:
    loop = asyncio.get_running_loop()
    async with demo_shop(folder, LARGE) as (shop, _), aiohttp.ClientSession() as http, stall_times() as stalls:
        settings = room(shop, rate_per_minute=360, autopilot=True, autopilot_floor=60, autopilot_ceiling=5000)
        async with running_gateway(folder / "gateway", [settings]) as gateway:
            plan = Plan(800, burst_share=0.1, trickle_seconds=ENDS_AT, impatient_share=0, returning_share=0)
            crowd = Crowd(gateway.url, "shop", plan, random.Random(1))
            begun, seen, shrunk = loop.time(), [], False
            visits = asyncio.create_task(crowd.run(ENDS_AT + 30))
            figures: dict[str, int] = {}
            while (now := loop.time() - begun) < ENDS_AT:
                if now >= SHRINKS_AT and not shrunk:
                    shrunk = True
                    await resize(http, shop, SMALL)
                async with http.get(f"{shop}/stats") as answer:
                    figures = await answer.json()
                seen.append((now, min(1.0, figures["database_busy"] / figures["capacity"])))
                await asyncio.sleep(LOOK_SECONDS)
            waiting = crowd.waiting()
            visits.cancel()
            await asyncio.gather(visits, return_exceptions=True)
            report = "\n".join(f"{one.rate:.0f}: {one.summary}" for one in reversed(await decisions(gateway)))
    large = share_of_the_best(seen, FIRST_LOOK_AT, SHRINKS_AT)
    small = share_of_the_best(seen, SHRINKS_AT + SETTLING_SECONDS, ENDS_AT)
    failed = figures["failures"] / figures["requests"]
    report += f"\n{figures['orders']} sold; {large:.1%} and {small:.1%} of the best; {failed:.2%} failed"
    report += f"; stalled for {max(stalls):.1f} s at most"
    return Run(large, small, failed, waiting, max(stalls), report)


@asynccontextmanager
async def stall_times() -> AsyncIterator[list[float]]:
    """Yields by how many seconds each of many short sleeps was too long."""
    loop = asyncio.get_running_loop()
    late = [0.0]

    async def look() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(LOOK_SECONDS)
            late.append(loop.time() - before - LOOK_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield late
    finally:
        looking.cancel()


async def test_it_finds_the_capacity_and_finds_it_again_when_the_shop_shrinks(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    run = await run_shop(tmp_path_factory.mktemp("first"))
    print(run.report)
    if run.stalls > MAX_STALL_SECONDS:
        run = await run_shop(tmp_path_factory.mktemp("second"))
        print(run.report)
    assert run.waiting > 0, "there must be visitors to admit"
    assert "Lowered" in run.report
    assert run.large >= 0.85, run.report
    assert run.small >= 0.85, run.report
    assert run.failed < 0.01, run.report


async def test_a_shop_that_hangs_gets_no_visitors_until_it_recovers(tmp_path: Path) -> None:
    async with demo_shop(tmp_path, LARGE) as (shop, child):
        settings = room(shop, rate_per_minute=120, autopilot=True, autopilot_floor=60, autopilot_ceiling=5000)
        settings["upstream_first_byte_seconds"] = 5
        async with running_gateway(tmp_path / "gateway", [settings]) as gateway:
            plan = Plan(300, burst_share=0.2, trickle_seconds=90, impatient_share=0, returning_share=0)
            crowd = Crowd(gateway.url, "shop", plan, random.Random(1))
            visits = asyncio.create_task(crowd.run(180))

            async def rate() -> float:
                return float((await gateway.room("shop"))["rate_per_minute"])

            await eventually(lambda: crowd.count(Outcome.BOUGHT) >= 10)
            child.process.send_signal(signal.SIGSTOP)
            try:

                async def held() -> bool:
                    return await rate() == 0

                await eventually(held)
                stands = await gateway.room("shop")
                assert stands["state"] == "open"
            finally:
                child.process.send_signal(signal.SIGCONT)

            async def let_in_again() -> bool:
                return await rate() > 0

            await eventually(let_in_again, seconds=90)
            sold = crowd.count(Outcome.BOUGHT)
            await eventually(lambda: crowd.count(Outcome.BOUGHT) >= sold + 10)
            visits.cancel()
            await asyncio.gather(visits, return_exceptions=True)
            assert [one.move for one in await decisions(gateway)].count("hold") == 1
