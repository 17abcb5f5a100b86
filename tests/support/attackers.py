"""Clients that don't play by the rules, each of them bounded: floods, slow clients, and what they ask for.

An attack is so many requests, never so many seconds; what it may have cost the shop is worked out from the time that it
really took. A gateway under attack trusts 127.0.0.1 as its proxy, so that each client has an address of its own by
``X-Forwarded-For``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import aiohttp
from websockets.asyncio.client import connect

from support.gateway_process import Gateway
from support.visitor_client import NAVIGATE, Visitor

PATIENCE_SECONDS = 120
BROKEN = (OSError, asyncio.IncompleteReadError, TimeoutError)


def address(number: int) -> str:
    """One of very many addresses, each of a neighbourhood of its own."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


ONE_ADDRESS = "198.51.100.7"


def address_of_network(number: int, network: int = 1) -> str:
    """One of very many addresses in the same IPv6 /64 network."""
    return f"2001:db8:0:{network:x}::{number >> 16:x}:{(number & 65535) + 1:x}"


def request(
    method: str, target: str, host: str, *, source: str | None = None, body: bytes | None = None, **headers: str
) -> bytes:
    """A request of a client at ``source``; headers are named with underscores."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"X-Forwarded-For: {source}"] if source else []
    lines += [f"Content-Length: {len(body)}"] if body is not None else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def preflight(target: str, host: str, *, source: str | None = None, body: bytes | None = None, **headers: str) -> bytes:
    """What a browser asks before a cross-origin request that is not simple."""
    asked = {"Origin": "https://app.test", "Access-Control-Request-Method": "PUT", **headers}
    return request("OPTIONS", target, host, source=source, body=body, **asked)


def navigation(target: str, host: str, *, source: str | None = None, **headers: str) -> bytes:
    """What a browser sends for a click."""
    return request("GET", target, host, source=source, **{**NAVIGATE, **headers})


@dataclass
class Flood:
    """What came of a flood.

    Attributes:
        seconds: How long it took, from before the first request to after the last answer.
        statuses: How often each; 0 where no answer came.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    heads: list[bytes] = field(default_factory=list)

    def allows(self, per_second: float, *, workers: int = 2) -> float:
        """The most that a budget of so much a second lets through in this time, in a gateway of so many workers.

        A bucket may be full at the beginning (two seconds' worth, at least one token for each worker), and time is
        measured in another process.
        """
        return per_second * (self.seconds + 3) + 2 * workers


async def flood(
    gateway: Gateway, requests: Iterable[bytes], *, connections: int = 60, source: str | None = None
) -> Flood:
    """Sends requests over some connections, each the next as soon as it has an answer.

    Args:
        source: The loopback address to connect from, for a client that isn't a trusted proxy.
    """
    found = Flood()
    waiting = iter(requests)
    began = time.monotonic()
    await asyncio.gather(*(_sender(gateway, waiting, found, source) for _ in range(connections)))
    found.seconds = time.monotonic() - began
    return found


async def _sender(gateway: Gateway, waiting: Iterator[bytes], found: Flood, source: str | None) -> None:
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    for data in waiting:
        status, head, kept = 0, b"", False
        try:
            if reader is None or writer is None:
                reader, writer = await open_connection(gateway, source)
            writer.write(data)
            async with asyncio.timeout(PATIENCE_SECONDS):
                status, head, kept = await read_answer(reader, data.startswith(b"HEAD"))
        except BROKEN:
            pass
        found.statuses[status] += 1
        found.heads.append(head)
        if not kept and writer is not None:
            writer.close()
            reader = writer = None
    if writer is not None:
        writer.close()


async def open_connection(
    gateway: Gateway, source: str | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To the public port, from a loopback address."""
    return await asyncio.open_connection("127.0.0.1", gateway.port, local_addr=source and (source, 0))


async def read_answer(reader: asyncio.StreamReader, bodiless: bool = False) -> tuple[int, bytes, bool]:
    """The status and head of the next final response, its body read, and whether the connection is kept."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        if status >= 200 or status == 101:
            break
    length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    kept = b"\r\nconnection: close\r\n" not in head
    if bodiless or status in (101, 204, 304):
        pass
    elif b"\r\ntransfer-encoding: chunked\r\n" in head:
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
    elif length:
        await reader.readexactly(int(length))
    else:
        await reader.read()
        kept = False
    return status, head, kept


@dataclass
class SlowClient:
    """A client that keeps a connection busy with next to nothing.

    Attributes:
        begins: What it sends at first.
        drips: What it sends again and again, some times a second; nothing where it only holds on.
        reads: Whether it takes what comes.
    """

    begins: bytes
    drips: bytes = b""
    reads: bool = False


def slow_clients(kind: str, count: int, host: str, path: str, one: bool, **headers: str) -> list[SlowClient]:
    """So many slow clients of one kind, at one address or at many.

    Args:
        kind: ``head``, ``body``, ``chunks``, ``reader``, ``tunnel`` or ``preflight``.
        path: Where the shop's slow pages are; see `shops.nginx_shop`.
        headers: Such as a pass.
    """
    clients = []
    for number in range(count):
        source = ONE_ADDRESS if one else address(number)
        common = {"source": source, **headers}
        if kind == "head":
            whole = request("GET", f"{path}/page", host, **common)
            clients.append(SlowClient(whole[:-2] + b"X-Slow: ", b"x"))
        elif kind == "body":
            head = request("POST", f"{path}/upload", host, Content_Length="1000000", **common)
            clients.append(SlowClient(head, b"x"))
        elif kind == "chunks":
            head = request("POST", f"{path}/upload", host, Transfer_Encoding="chunked", **common)
            clients.append(SlowClient(head, b"1\r\nx\r\n"))
        elif kind == "reader":
            clients.append(SlowClient(request("GET", f"{path}/big.bin", host, **common)))
        elif kind == "preflight":
            head = preflight(f"{path}/upload?{number}", host, Content_Length="1000000", **common)
            clients.append(SlowClient(head, b"x"))
        elif kind == "tunnel":
            upgrade = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec_WebSocket_Version": "13",
                "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
            }
            clients.append(SlowClient(request("GET", f"{path}/socket", host, **upgrade, **common), reads=True))
        else:
            raise ValueError(kind)
    return clients


@contextlib.asynccontextmanager
async def besieged(
    port: int, clients: Sequence[SlowClient], *, drip_seconds: float = 0.5, source: str | None = None
) -> AsyncIterator[Siege]:
    """Slow clients at their work until the end of the block; those that are cut off come back."""
    siege = Siege()
    begun = [asyncio.Event() for _ in clients]
    tasks = [
        asyncio.create_task(_besieges(port, client, drip_seconds, source, siege, event))
        for client, event in zip(clients, begun, strict=True)
    ]
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for event in begun:
                await event.wait()
        yield siege
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [end for end in ends if isinstance(end, Exception)]


@dataclass
class Siege:
    """How often slow clients were cut off and came back."""

    returns: int = 0


async def _besieges(
    port: int, client: SlowClient, drip_seconds: float, source: str | None, siege: Siege, begun: asyncio.Event
) -> None:
    while True:
        with contextlib.suppress(*BROKEN):
            reader, writer = await _small_connection(port, source)
            try:
                if not client.reads:
                    writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(client.begins)
                begun.set()
                while not writer.is_closing() and not (client.reads and reader.at_eof()):
                    await asyncio.sleep(drip_seconds)
                    if client.drips:
                        writer.write(client.drips)
                        await writer.drain()
                    if client.reads:
                        # Before Python 3.12 `asyncio.wait_for` may swallow the cancellation that ends the attack.
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(0.001):
                                await reader.read(65536)
            finally:
                writer.close()
        begun.set()
        siege.returns += 1
        await asyncio.sleep(0.5)


async def _small_connection(port: int, source: str | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """With a small window, so that what nobody takes stays with the gateway."""
    one = socket.socket()
    one.setblocking(False)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    if source:
        one.bind((source, 0))
    try:
        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
        return await asyncio.open_connection(sock=one)
    except BaseException:
        one.close()
        raise


@dataclass
class Shopper:
    """An admitted visitor who shops on while others attack.

    Attributes:
        statuses: Of all that was asked; 0 where no answer came.
        faults: Why none came.
        seconds: How long each took.
    """

    visitor: Visitor
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @classmethod
    async def comes(cls, gateway: Gateway, room: str, source: str, path: str = "/sale") -> Shopper:
        """Goes in."""
        visitor = Visitor(gateway, room, headers={"X-Forwarded-For": source})
        await visitor.is_let_in(path)
        return cls(visitor)

    async def shops(self, requests: int, path: str = "/sale/page", *, pause_seconds: float = 0.0) -> None:
        """So many requests, one after the other, each over a connection of its own."""
        for number in range(requests):
            began = time.monotonic()
            status = 0
            try:
                method, data = ("POST", b"item=1") if number % 5 == 4 else ("GET", None)
                status = (await self.visitor.fetch(path, method, data)).status
            except (aiohttp.ClientError, *BROKEN) as error:
                self.faults.append(repr(error))
            self.statuses[status] += 1
            self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(pause_seconds)


def dial(gateway: Gateway, visitor: Visitor) -> connect:
    """A WebSocket to the shop, with the visitor's pass."""
    return connect(
        f"ws://{visitor.host}:{gateway.port}/sale/socket",
        host="127.0.0.1",
        port=gateway.port,
        proxy=None,
        additional_headers={"Waitroom-Pass": visitor.cookies[visitor.pass_cookie]},
    )
