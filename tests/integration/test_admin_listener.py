"""The admin listener's connections: slow heads, idle and too many ones, and what its responses disclose."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from support.admin_app import Diary, Gone, settings_in
from waitroom.control import listener
from waitroom.control.app import make_app
from waitroom.control.auth.middleware import Access
from waitroom.control.listener import AdminListener
from waitroom.control.monitoring.readiness import WorkerReports
from waitroom.net.forwarded import TrustedProxies

pytestmark = pytest.mark.slow

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
SOON = 0.05
HOURS = 3600.0


class Client:
    """A client, one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes = HEALTH) -> bytes:
        """The head and the body of the answer."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        return head + await self.reader.readexactly(int(length.split(b":")[1]))

    async def ended(self) -> bytes:
        """What still comes until the other side closes the connection."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""


class Served:
    """The admin listener on a port of its own."""

    def __init__(self, served: AdminListener, address: tuple[str, int]) -> None:
        self.listener, self.address = served, address
        self.clients: list[Client] = []

    async def connect(self, source: str = "127.0.0.1") -> Client:
        client = Client(*await asyncio.open_connection(*self.address, local_addr=(source, 0)))
        self.clients.append(client)
        return client


async def read_body(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


@pytest.fixture
def settings() -> dict[str, object]:
    return {}


@pytest.fixture
async def served(tmp_path: Path, settings: dict[str, object]) -> AsyncIterator[Served]:
    given = settings_in(tmp_path, **settings)
    app = make_app(given, [], Access(given, Gone(), Diary(), "a token"), WorkerReports())
    app.router.add_post("/metrics", read_body)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        admin = AdminListener(app, TrustedProxies(given.trusted_proxies), shutdown_seconds=1.0)
        await admin.start(bound)
        served = Served(admin, bound.getsockname())
        try:
            async with asyncio.timeout(60):
                yield served
        finally:
            for client in served.clients:
                client.writer.close()
            await admin.stop()
    assert len(admin.connections) == 0


@pytest.fixture
def deadlines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_deadlines(head: float = HOURS, idle: float = HOURS) -> None:
        monkeypatch.setattr(listener, "HEAD_SECONDS", head)
        monkeypatch.setattr(listener, "IDLE_SECONDS", idle)

    return set_deadlines


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_a_slow_first_head_ends_the_connection(
    served: Served, deadlines: Callable[..., None], sent: bytes
) -> None:
    deadlines(head=SOON)
    client = await served.connect()
    client.writer.write(sent)
    assert await client.ended() == b""


async def test_bytes_that_drip_in_prolong_no_deadline(served: Served, deadlines: Callable[..., None]) -> None:
    deadlines(head=SOON)
    client = await served.connect()
    client.writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
    ending = asyncio.create_task(client.ended())
    while not ending.done():
        client.writer.write(b"x")
        await asyncio.wait([ending], timeout=SOON / 10)
    assert await ending == b""


async def test_a_slow_later_head_ends_the_connection(served: Served, deadlines: Callable[..., None]) -> None:
    deadlines()
    client = await served.connect()
    for _ in range(2):
        assert (await client.ask()).startswith(b"HTTP/1.1 200 OK")
    deadlines(head=SOON)
    client.writer.write(HEALTH[:-2])
    assert await client.ended() == b""


async def test_an_idle_connection_is_closed(served: Served, deadlines: Callable[..., None]) -> None:
    deadlines(idle=SOON)
    client = await served.connect()
    assert (await client.ask()).startswith(b"HTTP/1.1 200 OK")
    assert await client.ended() == b""


async def test_idle_connections_make_room_for_new_ones(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.listener.connections, "_most", 4)
    monkeypatch.setattr(served.listener.connections, "_most_each", 2)
    first = await served.connect()
    assert (await first.ask()).startswith(b"HTTP/1.1 200 OK")
    slow = await served.connect()
    slow.writer.write(b"GET")
    await first.ask()
    third = await served.connect()
    assert await slow.ended() == b"", "the longest idle one of this address"
    elsewhere = [await served.connect(f"127.0.0.{n}") for n in (2, 3, 4)]
    assert await first.ended() == b"", "the longest idle one of all"
    for client in (third, *elsewhere):
        assert (await client.ask()).startswith(b"HTTP/1.1 200 OK")


async def test_connections_with_requests_in_progress_stay(
    served: Served, deadlines: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines()
    monkeypatch.setattr(served.listener.connections, "_most_each", 1)
    busy = await served.connect()
    head = b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    busy.writer.write(head)
    assert await busy.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    for _ in range(2):
        assert await (await served.connect()).ended() == b""
    assert (await (await served.connect("127.0.0.2")).ask()).startswith(b"HTTP/1.1 200 OK")
    busy.writer.write(b"body")
    assert (await busy.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("settings", [{"trusted_proxies": ("127.0.0.1",)}])
async def test_a_trusted_proxy_may_have_all_connections(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.listener.connections, "_most_each", 1)
    clients = [await served.connect() for _ in range(3)]
    for client in clients:
        assert (await client.ask()).startswith(b"HTTP/1.1 200 OK")


async def test_no_response_discloses_the_server(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    for request, status in (
        (HEALTH, b"200"),
        (b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:80@evil\r\n\r\n", b"421"),
        (b"GET /healthz HTTP/9.x\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x00\xa5\x01\r\n\r\n", b"400"),
    ):
        answer = await (await served.connect()).ask(request)
        assert answer.split(b" ")[1] == status
        assert b"python" not in answer.lower()
        assert b"aiohttp" not in answer.lower()
        assert b"Strict-Transport-Security" not in answer
    assert capfd.readouterr().err == "", "strangers can't fill the log"


@pytest.mark.parametrize("settings", [{"trusted_proxies": ("127.0.0.1",), "hsts_seconds": 600}])
async def test_hsts_is_sent_to_browsers_that_use_https(served: Served) -> None:
    for proto, sent in ((b"https", True), (b"http", False)):
        forwarded = b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: %b\r\n\r\n" % proto
        answer = await (await served.connect()).ask(HEALTH[:-2] + forwarded)
        assert (b"\r\nStrict-Transport-Security: max-age=600\r\n" in answer) is sent
    assert b"Strict" not in await (await served.connect()).ask(), "a proxy that says nothing"
