"""A sale from the settings file on a real gateway whose clock is set: before it, prequeue, start, a new file, end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from support.faketime import fake_clock
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.server import Shop
from support.visitor_client import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

JAKARTA = timezone(timedelta(hours=7))


def after(minutes: float) -> str:
    """A time as the settings file has it."""
    return (datetime.now(UTC) + timedelta(minutes=minutes)).astimezone(JAKARTA).isoformat("T", "seconds")


def closes(visitor: Visitor, state: str) -> Callable[[], Awaitable[bool]]:
    """Whether somebody who comes now is told that the room is in that state."""

    async def look() -> bool:
        answer = await visitor.navigate()
        return answer.status == 503 and answer.state == state

    return look


async def limits_become(gateway: Gateway, rate: float, max_active: int) -> None:
    """Waits until the admin API shows these limits: it reads the room twice a second."""

    async def look() -> bool:
        found = await gateway.room("sale")
        return (found["rate_per_minute"], found["max_active"]) == (rate, max_active)

    await eventually(look)


async def test_a_sale_from_the_file(tmp_path: Path, shop: Shop) -> None:
    sale: dict[str, Any] = {
        "name": "sale",
        "prequeue_start": after(30),
        "start": after(90),
        "end": after(150),
        "max_active": 2,
        "rate_per_minute": 600_000,
        "after": "sold_out",
        "units": 5,
    }
    rooms = [
        room("sale", upstream=shop.address, max_active=1, rate_per_minute=1, events=[sale]),
        room("shut", upstream=shop.address, method="reject", on_store_error="admit"),
    ]
    clock = fake_clock(tmp_path)
    async with running_gateway(tmp_path / "gateway", rooms, workers=1, environment=clock.environment) as gateway:
        first, second, third, late = (Visitor(gateway, "sale") for _ in range(4))
        assert (await first.navigate()).state == "closed"
        assert (await Visitor(gateway, "shut").navigate()).state == "closed"

        clock.set(1)

        async def joined() -> bool:
            return (await first.call("join")).status == 201

        await eventually(joined)
        assert [(await visitor.call("join")).status for visitor in (second, third)] == [201, 201]
        assert not await gateway.members("sale", "called")
        await limits_become(gateway, 1, 1)

        clock.set(2)
        for visitor in (first, second):
            await visitor.is_let_in()
        assert (await third.navigate()).state == "waiting"
        await limits_become(gateway, 600_000, 2)

        sale["max_active"] = 3
        await gateway.stop()
        await gateway.start()
        await third.is_let_in()

        clock.set(3)
        await eventually(closes(late, "sold_out"))
        for visitor in (first, second, third):
            assert (await visitor.navigate("/cart")).status == 200
        await limits_become(gateway, 1, 1)
