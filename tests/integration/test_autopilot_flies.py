"""The autopilot for real: the gateway's processes, the demo shop that changes its size, and a crowd."""

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
from waitroom.control.autopilot.state import Logbook, Said
from waitroom.drill.load.crowd import Crowd, Plan
from waitroom.drill.load.visitor import Outcome
from waitroom.drill.processes import ChildProcess, ChildProcesses

pytestmark = [pytest.mark.slow, pytest.mark.alone]

# Long queries: what the shop bears is then its pool's doing, and little of it the busy machine's.
QUERY_SECONDS = 0.05
LARGE, SMALL = 6, 4
SHRINKS_AT, ENDS_AT = 55.0, 95.0
LOOK_SECONDS = 0.1
SETTLING_SECONDS = 5.0
FIRST_LOOK_AT = 30.0
# The shop gives a request two seconds. Where the whole machine stands still for one, what fails isn't the autopilot's
# doing, and the flight tells nothing.
NO_MACHINE_SECONDS = 1.0


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


async def decisions(gateway: Gateway) -> list[Said]:
    async with gateway.store() as redis:
        return await Logbook(redis, "shop", "nobody").decisions()


async def resize(http: aiohttp.ClientSession, shop: str, connections: int) -> None:
    async with http.post(f"{shop}/capacity", params={"connections": str(connections)}) as answer:
        assert answer.status == 200


@dataclass
class Flight:
    """What came of one.

    Attributes:
        large, small: Of what the best fixed rate sells, before and after the shop shrank.
        failed: The share of requests.
        waiting: How many were in the line at its end.
        stood_still: For how long, in seconds, this process got no processor at a time.
        told: All of it, for whoever reads why it failed.
    """

    large: float
    small: float
    failed: float
    waiting: int
    stood_still: float
    told: str


async def fly(folder: Path) -> Flight:
    loop = asyncio.get_running_loop()
    async with demo_shop(folder, LARGE) as (shop, _), aiohttp.ClientSession() as http, standing_still() as stood_still:
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
            told = "\n".join(f"{one.rate:.0f}: {one.said}" for one in reversed(await decisions(gateway)))
    large = share_of_the_best(seen, FIRST_LOOK_AT, SHRINKS_AT)
    small = share_of_the_best(seen, SHRINKS_AT + SETTLING_SECONDS, ENDS_AT)
    failed = figures["failures"] / figures["requests"]
    told += f"\n{figures['orders']} sold; {large:.1%} and {small:.1%} of the best; {failed:.2%} failed"
    told += f"; stood still for {max(stood_still):.1f} s at most"
    return Flight(large, small, failed, waiting, max(stood_still), told)


@asynccontextmanager
async def standing_still() -> AsyncIterator[list[float]]:
    """By how many seconds each of a row of short sleeps was too long."""
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


async def test_it_finds_the_rate_and_finds_it_again_when_the_shop_shrinks(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    flight = await fly(tmp_path_factory.mktemp("first"))
    print(flight.told)
    if flight.stood_still > NO_MACHINE_SECONDS:
        flight = await fly(tmp_path_factory.mktemp("second"))
        print(flight.told)
    assert flight.waiting > 0, "there must be somebody to let in"
    assert "Lowered" in flight.told
    assert flight.large >= 0.85, flight.told
    assert flight.small >= 0.85, flight.told
    assert flight.failed < 0.01, flight.told


async def test_a_shop_that_hangs_gets_nobody_and_gets_visitors_again_by_itself(tmp_path: Path) -> None:
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
