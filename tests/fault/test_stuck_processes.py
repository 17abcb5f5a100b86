"""A process that is stopped is replaced; visitors elsewhere notice nothing, and no place or session is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from support.gateway_process import Gateway, Process, eventually, room, running_gateway
from support.upstreams.server import Shop
from support.visitor_client import Visitor, Wire

pytestmark = pytest.mark.slow

LIMIT = 5
CONNECTIONS = 24  # so many that each of two workers has some, but for one chance in eight million
GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\nSec-Fetch-Mode: navigate\r\nCookie: %b\r\n\r\n"


async def outcome(wire: Wire) -> int:
    """The status of the response, or 0 if the connection was cut."""
    try:
        return (await wire.answer()).status
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0


async def suspend(gateway: Gateway, part: str) -> Process:
    process = gateway.children(part)[0]
    await process.suspend()
    return process


async def leave(visitor: Visitor) -> None:
    """Leaves; again if the worker's connection to the store was to the one that was killed."""

    async def left() -> bool:
        return (await visitor.call("leave")).status == 200

    await eventually(left)


async def assert_worker_replaced(gateway: Gateway, inside: Visitor) -> None:
    """Established connections to a stopped worker are cut, and those in its queue served; the others never notice."""
    request = GET % f"{inside.pass_cookie}={inside.cookies[inside.pass_cookie]}".encode()
    async with contextlib.AsyncExitStack() as stack:
        established = [await stack.enter_async_context(Wire.open(gateway)) for _ in range(CONNECTIONS)]
        for wire in established:
            await wire.send(request)
            assert (await wire.answer()).status == 200
        before = gateway.children("edge.worker")
        await suspend(gateway, "edge.worker")
        arriving = [await stack.enter_async_context(Wire.open(gateway)) for _ in range(CONNECTIONS)]
        for wire in (*established, *arriving):
            await wire.send(request)

        old = await asyncio.gather(*(outcome(wire) for wire in established))
        new = await asyncio.gather(*(outcome(wire) for wire in arriving))

        assert set(old) == {0, 200}
        assert set(new) == {200}
    after = await gateway.replaced("edge.worker", 2, before[:1])
    assert before[1].pid in {one.pid for one in after}


async def test_stuck_processes_are_replaced_three_times(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("shop", upstream=shop.address, max_active=1)]
    async with running_gateway(tmp_path, rooms, stuck_after_seconds=LIMIT) as gateway:
        inside, first, second = (Visitor(gateway, "shop") for _ in range(3))
        await inside.goes_in()
        await first.waits()
        await second.waits()

        await assert_worker_replaced(gateway, inside)
        assert gateway.log.count("process stuck, replacing it") == 1

        store = await suspend(gateway, "valkey")
        assert (await inside.navigate()).status == 200
        await gateway.replaced("valkey", 1, [store])
        await eventually(gateway.is_ready)
        await first.position(1)
        await second.position(2)
        assert (await inside.navigate()).status == 200

        control = await suspend(gateway, "control.worker")
        await leave(inside)
        await first.state("called")  # the replacement calls visitors
        await gateway.replaced("control.worker", 1, [control])
        await first.is_let_in()
        await second.position(1)

        worker = await suspend(gateway, "edge.worker")
        await eventually(lambda: "process stuck, not replaced" in gateway.log)
        for _ in range(4):  # whichever worker is asked
            async with gateway.http.get(f"{gateway.admin}/readyz") as ready:
                assert (ready.status, "no sign of life for" in await ready.text()) == (503, True)
        worker.kill(signal.SIGCONT)
        await eventually(gateway.is_ready)
        for _ in range(10):
            assert (await first.navigate()).status == 200
        assert worker.pid in {one.pid for one in gateway.children("edge.worker")}
        assert gateway.log.count("process stuck, replacing it") == 3
        assert await gateway.total("shop") == 3
