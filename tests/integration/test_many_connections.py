"""Many connections over real sockets: idle ones make room, and a worker without descriptors goes on serving."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Iterator

import pytest

from support.gateway_process import Gateway, eventually, room
from support.upstreams.server import PAGE, Seen, Shop
from support.visitor_client import Visitor, Wire

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

MOST = 40
ROOMS = [room("many", paths=["/sale"]), room("lacking", upstream_wait_seconds=1.0)]
SETTINGS = {"workers": 1, "client_connections": MOST, "client_connections_per_address": 1000}
FREE = b"GET /free HTTP/1.1\r\nHost: many.test\r\n\r\n"
SECONDS = 30


@contextlib.asynccontextmanager
async def silent(gateway: Gateway, count: int) -> AsyncIterator[list[Wire]]:
    """Connections that say nothing, from other addresses than the probe's."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Wire.open(gateway, source=f"127.0.1.{number % 200 + 1}"))
            for number in range(count)
        ]


async def served(gateway: Gateway) -> bool:
    try:
        async with Wire.open(gateway, source="127.0.2.1") as wire:
            await wire.send(FREE)
            return (await wire.answer()).status == 200
    except (ConnectionError, asyncio.IncompleteReadError):
        return False


async def test_a_worker_full_of_idle_connections_is_ready(gateway: Gateway, shop: Shop) -> None:
    async with silent(gateway, 3 * MOST):
        await eventually(gateway.is_ready)
        await eventually(lambda: served(gateway))
        await eventually(lambda: Visitor(gateway, "many").goes_in("/sale"))


async def test_a_worker_full_of_dripping_heads_is_ready(gateway: Gateway, shop: Shop) -> None:
    async with silent(gateway, MOST) as wires:
        for wire in wires:
            with contextlib.suppress(ConnectionError):
                await wire.send(b"GET / HTTP/1.1\r\nX-")
        await eventually(gateway.is_ready)


@contextlib.contextmanager
def files_of(pid: int, spare: int) -> Iterator[None]:
    """Leaves a process so many descriptors more than it has."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    now = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (now + spare, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_a_worker_without_descriptors_keeps_serving(gateway: Gateway, shop: Shop) -> None:
    """Also in the middle of it: what has nothing to say leaves its descriptors to others."""
    await eventually(lambda: served(gateway))
    (edge,) = gateway.children("edge.worker")
    with files_of(edge.pid, 12):
        async with silent(gateway, MOST - 5):
            await eventually(lambda: "accept failed" in gateway.log)
            await eventually(lambda: served(gateway))
    await eventually(lambda: served(gateway))
    await eventually(gateway.is_ready)
    assert gateway.children("edge.worker") == [edge], "it is still the same one"


async def test_no_address_of_the_shop_is_blamed_for_a_lack_of_descriptors(gateway: Gateway, shop: Shop) -> None:
    """The only connection to the shop is taken, and no other can be opened."""
    arrived, ends = asyncio.Event(), asyncio.Event()

    async def slow(_: Seen, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await ends.wait()
        writer.write(PAGE)

    shop.answers["/slow"] = slow
    visitor = Visitor(gateway, "lacking")
    await visitor.goes_in()
    (edge,) = gateway.children("edge.worker")
    cookie = f"{visitor.pass_cookie}={visitor.cookies[visitor.pass_cookie]}"
    page, slow_page = (
        f"GET {path} HTTP/1.1\r\nHost: lacking.test\r\nCookie: {cookie}\r\n\r\n".encode() for path in ("/page", "/slow")
    )
    async with contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(Wire.open(gateway)) for _ in range(3)]
        for wire in wires:
            await wire.send(page)
            assert (await wire.answer()).status == 200
        await wires[0].send(slow_page)
        await arrived.wait()
        with no_more_files_of(edge.pid):
            await wires[1].send(page)
            refused = await wires[1].answer()
            assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
            # It gets the connection that is given back.
            await wires[2].send(page)
            ends.set()
            for wire in (wires[2], wires[0]):
                assert (await wire.answer()).status == 200
    assert (await visitor.navigate("/page")).status == 200
    assert "upstream down" not in gateway.log
    assert "out of file descriptors" in gateway.log
    assert gateway.children("edge.worker") == [edge]
    metrics = await gateway.metrics_of("lacking")
    assert metrics["waitroom_upstream_failures_total",] == 0


@contextlib.contextmanager
def no_more_files_of(pid: int) -> Iterator[None]:
    """Lets a process open no file, also where it has closed one before."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
