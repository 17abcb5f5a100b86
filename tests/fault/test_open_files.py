"""Workers run out of file descriptors: they stop accepting for a moment, and go on serving."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.gateway_process import Gateway, eventually, needs, room, running_gateway
from support.upstreams.server import PAGE, Seen, Shop
from support.visitor_client import NAVIGATE, Visitor, Wire

pytestmark = pytest.mark.slow

BROWSERS = 1100
BROKEN = (ConnectionError, asyncio.IncompleteReadError)


class Browser:
    """A browser that waits: one connection, kept open as long as the gateway keeps it, and polls on it."""

    def __init__(self, gateway: Gateway, number: int) -> None:
        self._gateway = gateway
        self._source = f"127.0.{1 + number % 100}.{1 + number // 100}"
        self._wire: Wire | None = None
        self._stack = contextlib.AsyncExitStack()
        self._cookie = ""
        self.reset = 0

    async def ask(self, path: str) -> tuple[int, bytes]:
        """A request, on a new connection if the last one was closed while it was idle."""
        headers = "".join(f"{name}: {value}\r\n" for name, value in NAVIGATE.items())
        head = f"GET {path} HTTP/1.1\r\nHost: shop.test\r\nCookie: {self._cookie}\r\n{headers}\r\n".encode()
        for _ in range(50):
            try:
                if self._wire is None:
                    self._wire = await self._stack.enter_async_context(Wire.open(self._gateway, source=self._source))
                await self._wire.send(head)
                answer = await self._wire.answer()
            except BROKEN:
                self.reset += 1
                await self.close()
                await asyncio.sleep(0.2)
                continue
            for line in answer.cookie_lines:
                self._cookie = line.split(";")[0]
            return answer.status, answer.body
        raise AssertionError(f"{self._source} never got an answer")

    async def close(self) -> None:
        self._wire = None
        await self._stack.aclose()


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Enough for all the browsers in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.asynccontextmanager
async def crowd(gateway: Gateway, count: int) -> AsyncIterator[list[Browser]]:
    browsers = [Browser(gateway, number) for number in range(count)]
    try:
        yield browsers
    finally:
        for browser in browsers:
            await browser.close()


async def polls(browsers: list[Browser], path: str) -> Counter[int]:
    """The statuses of one request of each, some at a time."""
    turn = asyncio.Semaphore(50)

    async def one(browser: Browser) -> int:
        async with turn:
            return (await browser.ask(path))[0]

    return Counter(await asyncio.gather(*(one(browser) for browser in browsers)))


@pytest.mark.long
async def test_more_browsers_than_files(tmp_path: Path, shop: Shop) -> None:
    """`ulimit -n 1024`, and 1,100 browsers that each keep a connection."""
    rooms = [room("shop", upstream=shop.address, max_active=1)]
    wrapper = (needs("sh"), "-c", 'ulimit -n 1024 && exec "$@"', "sh")
    with many_files():
        async with running_gateway(tmp_path, rooms, workers=1, wrapper=wrapper) as gateway:
            before = gateway.children()
            inside = Visitor(gateway, "shop")
            await inside.goes_in()
            async with crowd(gateway, BROWSERS) as browsers, Wire.open(gateway, source="127.0.0.2") as kept:
                pass_ = f"{inside.pass_cookie}={inside.cookies[inside.pass_cookie]}"
                request = f"GET /page HTTP/1.1\r\nHost: shop.test\r\nCookie: {pass_}\r\n\r\n".encode()
                for path in ("/", "/.waitroom/status?room=shop"):
                    asking = asyncio.create_task(polls(browsers, path))
                    while not asking.done():
                        await kept.send(request)
                        assert (await kept.answer()).status == 200, "the connection of who is inside is kept"
                        # A new connection doesn't show yet that it is a visitor's who is inside.
                        await eventually(lambda: inside.goes_in("/new"))
                        await asyncio.wait([asking], timeout=0.1)
                    statuses = await asking
                    assert statuses == {503 if path == "/" else 200: BROWSERS}
                assert await gateway.total("shop", "joined") == BROWSERS + 1
                assert await gateway.is_ready()
            assert [one.pid for one in gateway.children()] == [one.pid for one in before]
            assert '"event": "open file limit too low"' in gateway.log
            assert '"client_connections": 640' in gateway.log


@contextlib.contextmanager
def files_of(pid: int, spare: int) -> Iterator[None]:
    """Leaves a process so many descriptors more than it has."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + spare, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_no_address_of_the_shop_is_blamed_for_a_lack_of_files(tmp_path: Path, shop: Shop) -> None:
    """Each request needs a connection to the shop of its own, and none can be opened."""
    held: list[asyncio.StreamWriter] = []
    arrived, ends = asyncio.Event(), asyncio.Event()

    async def slow(_: Seen, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        arrived.set()
        await ends.wait()
        writer.write(PAGE)

    shop.answers["/slow"] = slow
    rooms = [room("shop", upstream=shop.address, upstream_wait_seconds=1.0)]
    async with running_gateway(tmp_path, rooms, workers=1, client_connections_per_address=100) as gateway:
        visitor = Visitor(gateway, "shop")
        await visitor.goes_in()
        (edge,) = gateway.children("edge.worker")
        async with contextlib.AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(Wire.open(gateway)) for _ in range(3)]
            cookie = f"Cookie: {visitor.pass_cookie}={visitor.cookies[visitor.pass_cookie]}\r\n"
            for wire in wires:
                await wire.send(f"GET /page HTTP/1.1\r\nHost: shop.test\r\n{cookie}\r\n".encode())
                assert (await wire.answer()).status == 200
            # The one connection to the shop is taken, and there is no descriptor for another one.
            await wires[0].send(f"GET /slow HTTP/1.1\r\nHost: shop.test\r\n{cookie}\r\n".encode())
            await arrived.wait()
            with files_of(edge.pid, 0):
                await wires[1].send(f"GET /page HTTP/1.1\r\nHost: shop.test\r\n{cookie}\r\n".encode())
                refused = await wires[1].answer()
                assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
                # It gets the connection that is given back.
                await wires[2].send(f"GET /page HTTP/1.1\r\nHost: shop.test\r\n{cookie}\r\n".encode())
                await asyncio.sleep(0)
                ends.set()
                assert (await wires[2].answer()).status == 200
                assert (await wires[0].answer()).status == 200
        assert (await visitor.navigate("/page")).status == 200
        assert "upstream down" not in gateway.log
        assert "out of file descriptors" in gateway.log
        assert gateway.children("edge.worker") == [edge]
        await eventually(gateway.is_ready)
        metrics = await gateway.metrics()
        assert metrics["waitroom_upstream_failures_total",] == 0
