"""Request bodies of the admin listener: too long, too slow, incomplete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from waitroom.control.http import RequestError, read_body

MOST = 10
LENGTH = b"Content-Length: %d\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class Listener:
    """Reads bodies, and keeps each result."""

    def __init__(self) -> None:
        self.seconds = 30.0
        self.read: asyncio.Queue[bytes | RequestError] = asyncio.Queue()
        app = web.Application()
        app.router.add_post("/", self._answer)
        # Its handlers aren't cancelled when a connection is lost, as the admin listener's aren't; a TestServer's are.
        self.runner = web.AppRunner(app)
        self.port = 0

    async def start(self) -> None:
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            self.read.put_nowait(await read_body(request, MOST, self.seconds))
        except RequestError as error:
            self.read.put_nowait(error)
        return web.Response()

    async def gets(self, sent: bytes, *, gone: bool = False) -> bytes | RequestError:
        """Returns the result for a head's last lines and a body; the connection stays open or is cut meanwhile."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head, end, body = sent.partition(b"\r\n\r\n")
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n" + head + end)
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")
            writer.write(body)
            if gone:
                writer.transport.abort()
            try:
                return await self.read.get()
            finally:
                writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    await listener.start()
    yield listener
    await listener.runner.cleanup()


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (LENGTH % 4 + b"fair", b"fair"),
        (LENGTH % 10 + b"0123456789", b"0123456789"),
        (CHUNKED + b"2\r\nfa\r\n2\r\nir\r\n0\r\n\r\n", b"fair"),
        (CHUNKED + b"0\r\n\r\n", b""),
    ],
)
async def test_a_complete_body_is_read(listener: Listener, sent: bytes, body: bytes) -> None:
    assert await listener.gets(sent) == body


@pytest.mark.parametrize(
    ("sent", "gone", "status"),
    [
        (LENGTH % 11 + b"0123456789a", False, 413),
        (LENGTH % (1 << 40) + b"0123456789a", False, 413),
        (CHUNKED + b"b\r\n0123456789a\r\n", False, 413),
        (LENGTH % 4 + b"fai", True, 400),
        (CHUNKED + b"4\r\nfai", True, 400),
        (b"Content-Encoding: deflate\r\n" + LENGTH % 4 + b"fair", False, 400),
    ],
)
async def test_other_bodies_are_refused(listener: Listener, sent: bytes, gone: bool, status: int) -> None:
    error = await listener.gets(sent, gone=gone)
    assert isinstance(error, RequestError)
    assert error.status == status


@pytest.mark.parametrize("sent", [LENGTH % 4 + b"fai", CHUNKED + b"no size\r\n"])
async def test_slow_bodies_time_out(listener: Listener, sent: bytes) -> None:
    """Including malformed bodies: the server's parser doesn't report those to the reader."""
    listener.seconds = 0.01
    error = await listener.gets(sent)
    assert isinstance(error, RequestError)
    assert error.status == 408
