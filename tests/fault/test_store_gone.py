"""The store is away, dead, or back with nothing in it: who is inside goes on, who waits keeps the place."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.faults import emptied, flushed
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.redis_server import SystemRedis, system_redis
from support.upstreams.server import Shop, response
from support.visitor_client import Visitor
from waitroom.queue.store import QueueStore, RoomNotOpen
from waitroom.queue.view import RoomState

pytestmark = pytest.mark.slow

# A request is answered from memory, or gives the store up after a third of a second; no visitor ever waits for it.
PROMPT_SECONDS = 8.0


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[SystemRedis]:
    async with system_redis(tmp_path / "redis") as redis:
        yield redis


NAMES = ("hold", "admit", "close")


def three_rooms(shop: Shop) -> list[dict[str, Any]]:
    """One for each thing that newcomers may meet while the store is away."""
    return [room(name, upstream=shop.address, max_active=1, on_store_error=name) for name in NAMES]


async def readiness(gateway: Gateway, status: int) -> None:
    async def look() -> bool:
        return await gateway.ready() == status

    await eventually(look)


async def full(gateway: Gateway, name: str) -> tuple[Visitor, Visitor]:
    """One inside and one who waits."""
    inside, waiting = Visitor(gateway, name), Visitor(gateway, name)
    await inside.goes_in()
    await waiting.waits()
    return inside, waiting


async def assert_inside_and_line_hold(everyone: dict[str, tuple[Visitor, Visitor]]) -> None:
    """Passes go on working; who waits is told that the place is kept."""
    for inside, waiting in everyone.values():
        ticket = waiting.cookies[waiting.ticket_cookie]
        assert (await inside.navigate()).status == 200

        async def held(waiting: Visitor = waiting) -> bool:
            page = await waiting.navigate()
            assert (page.status, page.state) == (503, "held")
            return b"place is kept" in page.body

        await eventually(held)
        told = await waiting.fetch()
        assert (told.status, told.json["state"]) == (503, "waiting")
        assert (await waiting.status())["state"] == "waiting"
        assert (await inside.navigate()).status == 200
        assert waiting.cookies[waiting.ticket_cookie] == ticket


async def assert_newcomers_meet_what_is_set(gateway: Gateway) -> Visitor:
    """Gives the one who was let in without the store."""
    for _ in range(2):
        held, admitted, turned_away = (Visitor(gateway, name) for name in NAMES)
        page = await held.navigate()
        assert (page.status, page.state) == (503, "held")
        assert not held.cookies
        page = await turned_away.navigate()
        assert (page.status, page.state) == (503, "closed")
        assert not turned_away.cookies
        await admitted.goes_in()
    assert (await held.call("join")).status == 503
    assert (await turned_away.call("join")).status == 503
    joined = await Visitor(gateway, "admit").call("join")
    assert (joined.status, joined.json["state"]) == (201, "admitted")
    assert (await held.call("claim")).status == 409
    return admitted


async def assert_all_is_well_again(everyone: dict[str, tuple[Visitor, Visitor]]) -> None:
    for inside, waiting in everyone.values():
        place = waiting.ticket.place

        async def waits(waiting: Visitor = waiting) -> bool:
            return (await waiting.navigate()).state == "waiting"

        await eventually(waits)
        await waiting.position(1)
        newcomer = Visitor(waiting.gateway, waiting.room)
        await newcomer.waits()
        assert newcomer.ticket.place > place
        await newcomer.position(2)
        assert (await inside.navigate()).status == 200
        assert (await newcomer.call("leave")).status == 200
        assert waiting.ticket.place == place


async def test_a_store_that_stops_and_one_that_dies(tmp_path: Path, shop: Shop, redis: SystemRedis) -> None:
    async with running_gateway(tmp_path / "gateway", three_rooms(shop), workers=1, redis_url=redis.url) as gateway:
        everyone = {name: await full(gateway, name) for name in NAMES}

        redis.signal(signal.SIGSTOP)
        await readiness(gateway, 503)
        async with asyncio.timeout(PROMPT_SECONDS):
            await assert_inside_and_line_hold(everyone)
        offline = await assert_newcomers_meet_what_is_set(gateway)
        redis.signal(signal.SIGCONT)
        await readiness(gateway, 200)
        await assert_all_is_well_again(everyone)

        # Who was let in meanwhile has a slot now, beyond the limit, and it is said so.
        assert (await offline.navigate()).status == 200

        async def has_slot() -> bool:
            return offline.pass_.session in await gateway.members("admit", "active")

        await eventually(has_slot)
        assert await gateway.total("admit", "overshoot") >= 1

        await redis.kill()
        await readiness(gateway, 503)
        await assert_inside_and_line_hold(everyone)
        await assert_newcomers_meet_what_is_set(gateway)
        await redis.start()
        await readiness(gateway, 200)
        await assert_all_is_well_again(everyone)

        inside, waiting = everyone["hold"]
        await inside.call("leave")
        await waiting.state("called")
        await waiting.is_let_in()
        assert await gateway.total("hold", "overshoot") == 0
        samples = await gateway.metrics_of("hold")
        assert samples[("waitroom_store_errors_total",)] > 0


async def test_a_store_that_starts_after_the_gateway(tmp_path: Path, shop: Shop, redis: SystemRedis) -> None:
    await redis.kill()
    rooms = [
        room(name, upstream=shop.address, max_active=1, on_store_error=name) for name in ("hold", "admit", "close")
    ]
    gateway = Gateway(tmp_path, {"workers": 1, "redis_url": redis.url}, rooms)
    try:
        await gateway.spawn()
        await eventually(lambda: Visitor(gateway, "hold").navigate())
        await assert_newcomers_meet_what_is_set(gateway)
        await readiness(gateway, 503)
        await redis.start()
        await readiness(gateway, 200)
        visitor = Visitor(gateway, "hold")

        async def goes_in() -> bool:
            return (await visitor.navigate()).status == 200

        await eventually(goes_in)
        assert await gateway.total("hold") == 1
    finally:
        await gateway.close()


@pytest.mark.parametrize("empty", [flushed, emptied])
async def test_a_store_that_comes_back_empty(
    tmp_path: Path, shop: Shop, redis: SystemRedis, empty: Callable[[SystemRedis, Gateway], Awaitable[None]]
) -> None:
    rooms = [room("lost", upstream=shop.address, max_active=1)]
    async with running_gateway(tmp_path / "gateway", rooms, workers=1, redis_url=redis.url) as gateway:
        inside, first = await full(gateway, "lost")
        second, third = Visitor(gateway, "lost"), Visitor(gateway, "lost")
        await second.waits()
        await third.waits()
        line = [first, second, third]
        places = [visitor.ticket.place for visitor in line]
        assert places == sorted(places)

        await empty(redis, gateway)
        await readiness(gateway, 200)
        # An operator looks first: else the slot that the store has forgotten goes to whoever is back first.
        await eventually(lambda: _set(gateway, RoomState.PAUSED))

        # They come back in any order, and each gets the old place.
        for visitor in (third, first, second):
            await eventually(lambda visitor=visitor: _back(gateway, visitor))
        newcomer = Visitor(gateway, "lost")
        assert (await newcomer.navigate()).state in ("waiting", "paused")
        assert newcomer.ticket.place > max(places)
        assert [visitor.ticket.place for visitor in line] == places
        waiting = await gateway.members("lost", "waiting")
        assert list(waiting) == [*places, newcomer.ticket.place]
        # Who is inside stays there, and has a slot again as soon as the store must know.
        shop.answers["/pay"] = response(b"paying", "Waitroom-Command: hold=900")
        assert (await inside.navigate("/pay")).body == b"paying"
        await eventually(lambda: _has_slot(gateway, inside))
        await eventually(lambda: _set(gateway, RoomState.OPEN))
        for position, visitor in enumerate([*line, newcomer], 1):
            await visitor.position(position)

        leaving = inside
        for visitor in line:
            await leaving.call("leave")
            await visitor.state("called")
            await visitor.is_let_in()
            leaving = visitor
        assert list(await gateway.members("lost", "active")) == [third.pass_.session]
        assert await gateway.total("lost", "returned") == 3


async def _set(gateway: Gateway, state: RoomState) -> bool:
    async with gateway.store() as client:
        try:
            await QueueStore(client, "lost").set_state(state)
        except RoomNotOpen:
            return False  # nobody has opened it since
    return True


async def _back(gateway: Gateway, visitor: Visitor) -> bool:
    assert (await visitor.status())["state"] in ("waiting", "paused")
    return visitor.ticket.place in await gateway.members("lost", "waiting")


async def _has_slot(gateway: Gateway, visitor: Visitor) -> bool:
    return visitor.pass_.session in await gateway.members("lost", "active")
