"""Bodies of any size and pace, and connections that change protocol: nothing is lost, kept back or piled up."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.gateway_process import Gateway, eventually, room
from support.ports import free_port
from support.upstreams.server import Seen, Shop
from support.visitor_client import Visitor, Wire

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

EARLY, SOCKETS = free_port(), free_port()
ROOMS = [
    room("streams"),
    room("early", upstream=f"http://127.0.0.1:{EARLY}"),
    room("sockets", upstream=f"http://127.0.0.1:{SOCKETS}", max_active=2),
]
SETTINGS = {"workers": 1}
SIZE = 100 * 1024 * 1024
PIECE = bytes(range(256)) * 1024
PILED_UP = 40 * 1024 * 1024  # far below SIZE, far above what buffers hold


@pytest_asyncio.fixture(loop_scope="module")
async def inside(gateway: Gateway) -> Visitor:
    visitor = Visitor(gateway, "streams")
    await visitor.goes_in()
    return visitor


def cookie(visitor: Visitor) -> str:
    return f"{visitor.pass_cookie}={visitor.cookies[visitor.pass_cookie]}"


def expected() -> str:
    digest = hashlib.sha256()
    for _ in range(SIZE // len(PIECE)):
        digest.update(PIECE)
    return digest.hexdigest()


async def test_a_large_download_to_a_slow_client_is_complete_and_not_buffered(
    gateway: Gateway, shop: Shop, inside: Visitor
) -> None:
    sent = 0

    async def counted(seen: Seen, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        for _ in range(SIZE // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
            sent += len(PIECE)

    shop.answers["/download"] = counted
    (edge,) = gateway.children("edge.worker")
    before = edge.peak_memory
    async with Wire.open(gateway) as wire:
        await wire.send(b"GET /download HTTP/1.1\r\nHost: streams.test\r\nCookie: %b\r\n\r\n" % cookie(inside).encode())
        status, headers = await wire.head()
        assert (status, headers["Content-Length"]) == (200, str(SIZE))
        # The client takes nothing more for now: the shop is soon kept from sending.
        last = -1

        async def stalled() -> bool:
            nonlocal last
            last, before = sent, last
            return sent == before

        await eventually(stalled, every=0.3)
        assert sent < PILED_UP
        digest, left = hashlib.sha256(), SIZE
        async with asyncio.timeout(60):
            while left:
                piece = await wire.reader.read(1 << 20)
                assert piece
                digest.update(piece)
                left -= len(piece)

    assert digest.hexdigest() == expected()
    assert edge.peak_memory - before < PILED_UP


async def test_a_large_upload_is_complete_and_not_buffered(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(SIZE // len(PIECE)):
            yield PIECE

    (edge,) = gateway.children("edge.worker")
    before = edge.peak_memory
    shop.keep_bodies = False
    headers = {"Host": "streams.test", "Cookie": cookie(inside), "Content-Length": str(SIZE)}
    try:
        async with gateway.http.post(
            f"{gateway.url}/upload", data=pieces(), headers=headers, timeout=aiohttp.ClientTimeout(60)
        ) as answer:
            assert answer.status == 200
    finally:
        shop.keep_bodies = True

    assert shop.last("/upload").body.decode() == expected()
    assert shop.last("/upload").one("Content-Length") == str(SIZE)
    assert edge.peak_memory - before < PILED_UP


async def test_a_response_sent_before_the_body_is_complete_reaches_the_client(gateway: Gateway) -> None:
    head = b"POST /up HTTP/1.1\r\nHost: early.test\r\nAccept: text/html\r\nContent-Length: %d\r\n\r\n" % SIZE
    async with await asyncio.start_server(_too_large, "127.0.0.1", EARLY), Wire.open(gateway) as wire:
        # What is sent is far more than fits into the buffers on the way.
        sending = asyncio.create_task(wire.send(head + PIECE * 40))
        answer = await wire.answer()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    assert (answer.status, answer.body) == (413, b"too large")


async def _too_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large")
    await writer.drain()
    writer.write_eof()
    while await reader.read(1 << 16):
        pass
    writer.close()


async def test_events_are_forwarded_one_by_one(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    heard = asyncio.Queue[None]()

    async def events(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await heard.get()  # the next is sent only after this one has arrived
        writer.write(b"0\r\n\r\n")

    shop.answers["/events"] = events
    headers = {"Host": "streams.test", "Cookie": cookie(inside), "Accept": "text/event-stream"}
    async with gateway.http.get(f"{gateway.url}/events", headers=headers) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        async with asyncio.timeout(20):
            for number in range(3):
                assert await answer.content.readuntil(b"\n\n") == b"data: %d\n\n" % number
                heard.put_nowait(None)
            assert await answer.content.read() == b""


Heads = list[dict[str, str]]


@pytest_asyncio.fixture(loop_scope="module")
async def heads() -> AsyncIterator[Heads]:
    """The heads that a shop of WebSockets gets, which echoes."""
    heads: Heads = []

    async def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        heads.append(dict(connection.request.headers.raw_items()))
        async for message in connection:
            if message == "bye":
                await connection.close(4000, "as you like")
            else:
                await connection.send(message)

    async with serve(echo, "127.0.0.1", SOCKETS, subprotocols=["chat"]):
        yield heads


def address(gateway: Gateway) -> str:
    return f"ws://sockets.test:{gateway.port}/chat?room=1"


async def test_a_websocket_is_tunnelled(gateway: Gateway, heads: Heads) -> None:
    joined = await Visitor(gateway, "sockets").call("join")
    pass_ = joined.json["pass"]
    headers = {"Cookie": f"mine=1; waitroom_pass_sockets={pass_}", "Waitroom-Session": "1"}

    async with asyncio.timeout(60):
        async with connect(
            address(gateway), host="127.0.0.1", port=gateway.port, additional_headers=headers, subprotocols=["chat"]
        ) as socket:
            assert socket.subprotocol == "chat"
            for message in ("hello", b"\x00\xff" * 10, "x" * 900_000, ""):
                await socket.send(message)
                assert await socket.recv() == message
            await socket.send(["in ", "three ", "pieces"])
            assert await socket.recv() == "in three pieces"
            await (await socket.ping())
            await socket.send("bye")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "as you like")
    head = {name.lower(): value for name, value in heads[-1].items()}
    assert head["cookie"] == "mine=1"
    assert head["host"] == f"sockets.test:{gateway.port}"
    assert head["waitroom-session"] == f"{gateway.tokens('sockets').read_pass(pass_.encode()).session:x}"


async def test_a_websocket_without_a_pass_has_to_wait(gateway: Gateway, heads: Heads) -> None:
    for _ in range(2):
        await Visitor(gateway, "sockets").navigate()
    await Visitor(gateway, "sockets").waits()
    await eventually(lambda: _turned_away(gateway))
    before = len(heads)

    with pytest.raises(InvalidStatus) as refused:
        async with connect(address(gateway), host="127.0.0.1", port=gateway.port):
            pass

    assert refused.value.response.status_code == 503
    assert len(heads) == before


async def _turned_away(gateway: Gateway) -> bool:
    return (await Visitor(gateway, "sockets").fetch("/any")).status == 503
