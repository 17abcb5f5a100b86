"""Clients that are slow, silent or too many, over real sockets: each is bounded, and nobody else suffers from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.gateway_process import Gateway, eventually, room
from support.upstreams.server import Seen, Shop
from support.visitor_client import Visitor, Wire

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

MOST, MOST_PER_ADDRESS = 40, 10
WITHOUT_PASS = 30  # a quarter is kept for those who show a pass
ROOMS = [room("slow", without_pass="all", without_pass_per_second=1000)]
SETTINGS = {
    "workers": 1,
    "client_head_seconds": 2,
    "client_body_seconds": 2,
    "client_idle_seconds": 2,
    "client_write_seconds": 2,
    "client_connections": MOST,
    "client_connections_per_address": MOST_PER_ADDRESS,
}
HEAD = b"GET / HTTP/1.1\r\nHost: slow.test\r\n"
SECONDS = 30


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _others_are_served(gateway: Gateway) -> AsyncIterator[None]:
    """Whatever is done to the gateway, somebody else gets in meanwhile, and afterwards."""
    await eventually(lambda: Visitor(gateway, "slow").goes_in())
    yield
    await eventually(lambda: Visitor(gateway, "slow").goes_in())


async def ended(wire: Wire) -> bytes:
    """What else comes until the gateway ends the connection."""
    async with asyncio.timeout(SECONDS):
        try:
            return await wire.reader.read()
        except ConnectionError:
            return b""


async def test_a_head_that_stalls(gateway: Gateway) -> None:
    async with Wire.open(gateway) as wire:
        await wire.send(HEAD)
        answer = await wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (408, "close")
        assert await ended(wire) == b""


async def test_a_head_that_drips_in(gateway: Gateway) -> None:
    """Each drop is one more sign of life, and none of them gives it more time."""
    async with Wire.open(gateway) as wire:
        await wire.send(HEAD + b"X-Drops: ")
        got = b""
        async with asyncio.timeout(SECONDS):
            while not got:
                with contextlib.suppress(TimeoutError):
                    got = await asyncio.wait_for(wire.reader.read(12), 0.1)
                with contextlib.suppress(ConnectionError):
                    await wire.send(b"x")
        assert got == b"HTTP/1.1 408"


async def test_a_body_that_stalls_never_reaches_the_shop(gateway: Gateway, shop: Shop) -> None:
    async with Wire.open(gateway) as wire:
        await wire.send(b"POST /body HTTP/1.1\r\nHost: slow.test\r\nContent-Length: 10\r\n\r\nhalf")
        answer = await wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (408, "close")
        assert await ended(wire) == b""
    assert "/body" not in shop.paths()


async def test_a_large_body_that_stalls(gateway: Gateway, shop: Shop) -> None:
    broken = shop.broken
    async with Wire.open(gateway) as wire:
        head = b"POST /large HTTP/1.1\r\nHost: slow.test\r\nContent-Length: 200000\r\n\r\n"
        await wire.send(head + b"x" * 150_000)
        answer = await wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (408, "close")
        assert await ended(wire) == b""
    await eventually(lambda: shop.broken == broken + 1)


async def test_an_idle_connection(gateway: Gateway) -> None:
    async with Wire.open(gateway) as wire:
        await wire.send(HEAD + b"\r\n")
        assert (await wire.answer()).status == 200
        assert await ended(wire) == b"", "there is nothing to say to nobody"


async def test_a_client_that_sends_nothing(gateway: Gateway) -> None:
    async with Wire.open(gateway) as wire:
        assert await ended(wire) == b""


async def test_a_client_that_reads_nothing_of_a_response(gateway: Gateway, shop: Shop) -> None:
    cut = asyncio.Event()

    async def flood(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 1_000_000)
                await writer.drain()
        except ConnectionError:
            cut.set()
            raise

    shop.answers["/flood"] = flood
    async with Wire.open(gateway) as wire:
        await wire.send(HEAD.replace(b" / ", b" /flood ") + b"\r\n")
        await wire.head()
        async with asyncio.timeout(SECONDS):
            await cut.wait()


@contextlib.asynccontextmanager
async def crowd(gateway: Gateway, shop: Shop, *sources: str) -> AsyncIterator[list[Wire]]:
    """As many connections as one address may have, from each of these, all of them in the middle of a request."""
    async with contextlib.AsyncExitStack() as stack:
        wires: list[Wire] = []
        for source in [source for source in sources for _ in range(MOST_PER_ADDRESS)]:
            wires.append(await eventually(lambda source=source: held_one(stack, gateway, shop, source)))
        yield wires


async def held_one(stack: contextlib.AsyncExitStack, gateway: Gateway, shop: Shop, source: str) -> Wire | None:
    """A connection whose request is at the shop; None where it was turned away, as one that ended may still count."""
    before = shop.paths().count("/held")
    wire = await stack.enter_async_context(Wire.open(gateway, source=source))
    await wire.send(b"GET /held HTTP/1.1\r\nHost: slow.test\r\n\r\n")
    await eventually(lambda: shop.paths().count("/held") > before or wire.reader.at_eof() or wire.reader.exception())
    return wire if shop.paths().count("/held") > before else None


async def served(gateway: Gateway, source: str) -> bool:
    try:
        async with Wire.open(gateway, source=source) as wire:
            await wire.send(HEAD + b"\r\n")
            return (await wire.answer()).status == 200
    except (ConnectionError, asyncio.IncompleteReadError):
        return False


def held(shop: Shop) -> asyncio.Event:
    """Requests for /held are answered when this is set."""
    go = asyncio.Event()

    async def hold(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    shop.answers["/held"] = hold
    return go


async def test_too_many_connections_from_one_address(gateway: Gateway, shop: Shop) -> None:
    go = held(shop)
    async with crowd(gateway, shop, "127.0.0.50") as wires:
        assert not await served(gateway, "127.0.0.50")
        await eventually(lambda: served(gateway, "127.0.0.51"))
        go.set()
        assert [(await wire.answer()).status for wire in wires] == [200] * MOST_PER_ADDRESS

    await eventually(lambda: served(gateway, "127.0.0.50"))


async def test_too_many_connections_in_total(gateway: Gateway, shop: Shop) -> None:
    go = held(shop)
    sources = [f"127.0.0.{60 + number}" for number in range(WITHOUT_PASS // MOST_PER_ADDRESS)]
    async with crowd(gateway, shop, *sources) as wires:
        assert not await served(gateway, "127.0.0.70")
        go.set()
        assert [(await wire.answer()).status for wire in wires] == [200] * WITHOUT_PASS

    await eventually(lambda: served(gateway, "127.0.0.70"))
