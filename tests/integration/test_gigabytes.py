"""Gigabytes up and down: every byte arrives, and memory stays flat. In `make test-long` more than 32 bits can count."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
import pytest_asyncio

from support.bulk_transfer import SECONDS, Torrent
from support.gateway_process import Gateway, room
from support.ports import free_port
from support.visitor_client import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PORT = free_port()
ROOMS = [room("torrent", upstream=f"http://127.0.0.1:{PORT}")]
SETTINGS = {"workers": 1}
GIGABYTE = 1024  # blocks
MANY_CHUNKS = 512
WARM = 512  # by then every buffer on the way has its size
GROWTH = 12 * 1024 * 1024
PILED_UP = 256 * 1024 * 1024  # far more than the buffers of two connections hold, the system's included
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
TOO_LONG = 600.0


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    """The shop's."""
    with socket.create_server(("127.0.0.1", PORT)) as listener:
        listener.settimeout(SECONDS)
        yield listener


@pytest_asyncio.fixture(loop_scope="module")
async def inside(gateway: Gateway) -> bytes:
    """The header of somebody inside."""
    joined = await Visitor(gateway, "torrent").call("join")
    return b"Host: torrent.test\r\nWaitroom-Pass: " + joined.json["pass"].encode()


def head_of(line: socket.socket) -> tuple[bytes, bytes]:
    """A message's head, and what came with it."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = line.recv(4096)
        assert piece, got
        got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    return head, rest


def framing(torrent: Torrent) -> bytes:
    return b"Transfer-Encoding: chunked" if torrent.chunks else b"Content-Length: %d" % torrent.size


class Upload:
    """The client sends, the shop receives."""

    @staticmethod
    def shop(torrent: Torrent, listener: socket.socket) -> None:
        line, _ = listener.accept()
        with line:
            head, early = head_of(line)
            assert framing(torrent) in head
            torrent.receive(line, early)
            line.sendall(OK)
            assert line.recv(1) == b""

    @staticmethod
    def client(torrent: Torrent, port: int, inside: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port), SECONDS) as line:
            line.sendall(b"POST /up HTTP/1.1\r\n%b\r\nConnection: close\r\n%b\r\n\r\n" % (inside, framing(torrent)))
            torrent.send(line)
            line.settimeout(SECONDS)
            head, _ = head_of(line)
            assert head.startswith(b"HTTP/1.1 200 ")


class Download:
    """The shop sends, the client receives."""

    @staticmethod
    def shop(torrent: Torrent, listener: socket.socket) -> None:
        line, _ = listener.accept()
        with line:
            head_of(line)
            line.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n%b\r\n\r\n" % framing(torrent))
            torrent.send(line)

    @staticmethod
    def client(torrent: Torrent, port: int, inside: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port), SECONDS) as line:
            line.sendall(b"GET /down HTTP/1.1\r\n%b\r\nConnection: close\r\n\r\n" % inside)
            head, early = head_of(line)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert framing(torrent) in head
            torrent.receive(line, early)
            assert line.recv(1) == b""


Flow = Callable[[Torrent], Awaitable[None]]


@pytest.fixture(params=[Upload, Download])
def flow(request: pytest.FixtureRequest, gateway: Gateway, inside: bytes, listener: socket.socket) -> Flow:
    """Lets it flow one way, each end in a thread."""
    way: type[Upload] | type[Download] = request.param

    async def both_ends(torrent: Torrent) -> None:
        async with asyncio.timeout(TOO_LONG), asyncio.TaskGroup() as both:
            both.create_task(asyncio.to_thread(way.shop, torrent, listener))
            both.create_task(asyncio.to_thread(way.client, torrent, gateway.port, inside))

    return both_ends


@pytest.mark.parametrize("gigabytes", [1, pytest.param(5, marks=pytest.mark.long)])
async def test_gigabytes_at_flat_memory(gateway: Gateway, flow: Flow, gigabytes: int) -> None:
    (edge,) = gateway.children("edge.worker")
    await flow(Torrent(WARM, reader_stops=[10, 200], writer_stops=[400]))
    before = edge.peak_memory
    blocks = gigabytes * GIGABYTE
    torrent = Torrent(blocks, [blocks * n // 10 for n in (1, 4, 8)], [blocks * n // 10 for n in (2, 6, 9)])

    await flow(torrent)

    assert torrent.received == torrent.size == gigabytes << 30
    # The slow side held the other one up each time, and nothing was kept back when it was the other's turn to wait.
    assert torrent.stops == ["reader", "writer", "reader", "writer", "reader", "writer"]
    assert torrent.piled_up < PILED_UP
    assert edge.peak_memory - before < GROWTH


async def test_many_chunks_at_flat_memory(gateway: Gateway, flow: Flow) -> None:
    (edge,) = gateway.children("edge.worker")
    await flow(Torrent(WARM, [10, 200], [400], chunks=True))
    before = edge.peak_memory
    torrent = Torrent(MANY_CHUNKS, [50, 200], [100, 400], chunks=True)

    await flow(torrent)

    assert torrent.received == torrent.size
    assert torrent.stops == ["reader", "writer", "reader", "writer"]
    assert torrent.piled_up < PILED_UP
    assert edge.peak_memory - before < GROWTH
