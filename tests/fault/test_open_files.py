"""Workers run out of file descriptors: they stop accepting for a moment, and go on serving."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.faults import many_files
from support.gateway_process import Gateway, eventually, needs, room, running_gateway
from support.upstreams.server import Shop
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
