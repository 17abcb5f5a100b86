"""Shops that speak HTTPS: who they say they are is verified, and all that works without TLS works with it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from support.ca import Authority
from support.gateway_process import Gateway, eventually, running_gateway
from support.gateway_process import room as any_room
from support.upstreams.server import Seen, Shop, response

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

BIG = bytes(range(256)) * 16384


@contextlib.asynccontextmanager
async def tls_shop(context: ssl.SSLContext) -> AsyncIterator[Shop]:
    shop = Shop()
    server = await asyncio.start_server(shop.serve, "127.0.0.1", 0, ssl=context)
    shop.address = str(server.sockets[0].getsockname()[1])
    try:
        yield shop
    finally:
        server.close()
        await shop.close()


@dataclass
class World:
    gateway: Gateway
    shop: Shop
    names: list[str]

    async def ask(
        self, room: str, path: str = "/", method: str = "GET", data: bytes | io.BytesIO | None = None
    ) -> tuple[int, bytes]:
        http, url = self.gateway.http, self.gateway.url + path
        async with http.request(method, url, headers={"Host": f"{room}.test"}, data=data) as answer:
            return answer.status, await answer.read()

    def causes(self) -> str:
        return "\n".join(line for line in self.gateway.log.splitlines() if "upstream" in line)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = Authority.make(folder / "ours"), Authority.make(folder / "theirs")
    names: list[str] = []
    good = ours.server("DNS:localhost")
    good.sni_callback = lambda _socket, name, _context: names.append(name)
    address = ours.server("IP:127.0.0.1")
    expired = ours.server("DNS:localhost", days=-1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    def room(
        name: str, host: str, port: str, authority: Path | None = ours.file, **settings: object
    ) -> dict[str, object]:
        if authority is not None:
            settings["upstream_ca_file"] = str(authority)
        # Requests beside the only path that has a line are forwarded at once.
        return any_room(name, upstream=f"https://{host}:{port}", paths=["/sale"], **settings)

    async with (
        tls_shop(good) as shop,
        tls_shop(address) as by_address,
        tls_shop(expired) as old,
        await asyncio.start_server(silent, "127.0.0.1", 0) as mute,
    ):
        mute_port = str(mute.sockets[0].getsockname()[1])
        rooms = [
            room("good", "localhost", shop.address),
            room("named", "127.0.0.1", shop.address, upstream_server_name="localhost"),
            room("by-address", "127.0.0.1", by_address.address),
            room("wrong-ca", "localhost", shop.address, theirs.file),
            room("system-ca", "localhost", shop.address, None),
            room("wrong-name", "127.0.0.1", shop.address),
            room("misnamed", "localhost", shop.address, upstream_server_name="shop.example"),
            room("another-name", "localhost", shop.address, upstream_server_name="another.example"),
            room("expired", "localhost", old.address),
            room("mute", "localhost", mute_port, upstream_connect_seconds=0.5),
        ]
        async with running_gateway(folder, rooms, workers=1) as gateway:
            yield World(gateway, shop, names)


@pytest.mark.parametrize("room", ["good", "named", "by-address"])
async def test_a_shop_with_a_valid_certificate_is_used(world: World, room: str) -> None:
    assert await world.ask(room) == (200, b"<p>The shop.\n")


async def test_the_servers_name_is_sent(world: World) -> None:
    world.names.clear()
    assert (await world.ask("another-name"))[0] == 502
    assert world.names == ["another.example"]


@pytest.mark.parametrize(
    ("room", "cause"),
    [
        ("wrong-ca", "certificate verification failed: "),
        ("system-ca", "certificate verification failed: "),
        ("wrong-name", "IP address mismatch"),
        ("misnamed", "Hostname mismatch, certificate is not valid for 'shop.example'"),
        ("expired", "certificate has expired"),
        ("mute", "connect timeout after 0.5 s"),
    ],
)
async def test_an_invalid_certificate_is_refused_and_logged(world: World, room: str, cause: str) -> None:
    before, seen = len(world.causes()), len(world.shop.seen)
    status, page = await world.ask(room, method="POST", data=b"secret")
    assert status == 502
    assert b"certificate" not in page
    await eventually(lambda: cause in world.causes()[before:])
    assert len(world.shop.seen) == seen


async def test_one_connection_serves_many_requests(world: World) -> None:
    await world.ask("good")
    connections = world.shop.connections
    for _ in range(5):
        assert (await world.ask("good"))[0] == 200
    assert world.shop.connections == connections


async def test_big_bodies_go_both_ways(world: World) -> None:
    world.shop.answers["/big"] = response(BIG)
    status, body = await world.ask("good", "/big", "POST", io.BytesIO(BIG))
    assert (status, body == BIG) == (200, True)
    assert world.shop.last("/big").body == BIG


async def test_a_response_that_ends_with_the_connection_needs_close_notify(world: World) -> None:
    async def ends(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    async def is_cut(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nnot all")
        await writer.drain()
        # The end of TCP without that of TLS, as anybody on the way could make it.
        writer.get_extra_info("socket")._sock.shutdown(1)

    world.shop.answers |= {"/ends": ends, "/cut": is_cut}
    assert await world.ask("good", "/ends") == (200, b"all of it")
    with pytest.raises(aiohttp.ClientPayloadError):
        await world.ask("good", "/cut")
