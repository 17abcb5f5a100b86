"""The end of a session in a gateway of two workers: within a second, on both, tunnels included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from support.admin_client import Operator
from support.gateway_process import Gateway, eventually, room
from support.upstreams.server import Shop
from support.visitor_client import Visitor, Wire

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

ROOMS = [
    room("ended"),
    room("left"),
    room("released", release_grace_seconds=600),
    room("brief", release_grace_seconds=1),
]
SETTINGS = {"workers": 2}
EVERY_EDGE = 24  # so many requests surely meet all workers
# Until then at the latest: a view comes every half a second, and what a session's upkeep would tell comes after 15 s.
SECONDS = 8
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
PAID = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nWaitroom-Command: release\r\n\r\nthanks"


async def inside(gateway: Gateway, name: str) -> Visitor:
    """A visitor whom both workers have seen inside, and the store too."""
    visitor = Visitor(gateway, name)
    await visitor.goes_in()
    session = visitor.pass_.session
    before = (await gateway.members(name, "active"))[session]
    await everywhere(visitor, "GET", 200)

    async def kept() -> bool:
        return (await gateway.members(name, "active"))[session] > before

    await eventually(kept)
    return visitor


async def pause(gateway: Gateway, name: str) -> Operator:
    """Lets nobody in who has no pass, lest a request be forwarded without one."""
    operator = Operator(gateway, name)
    await operator.look()
    await operator.change(state="paused")
    return operator


async def everywhere(visitor: Visitor, method: str, status: int) -> bool:
    """Asserts that all workers answer a request so."""
    for _ in range(EVERY_EDGE):
        assert (await visitor.fetch("/part", method)).status == status
    return True


@asynccontextmanager
async def tunnels(gateway: Gateway, shop: Shop, visitor: Visitor) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open WebSockets of a visitor on both workers."""
    shop.answers["/socket"] = SWITCHED
    head = (
        f"GET /socket HTTP/1.1\r\nHost: {visitor.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Cookie: {visitor.pass_cookie}={visitor.cookies[visitor.pass_cookie]}\r\n\r\n"
    )
    writers, readers = [], []
    for _ in range(EVERY_EDGE):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head.encode())
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writers.append(writer)
        readers.append(reader)
    try:
        yield readers
    finally:
        for writer in writers:
            writer.close()


async def all_cut(readers: list[asyncio.StreamReader]) -> None:
    async with asyncio.timeout(SECONDS):
        assert [await reader.read() for reader in readers] == [b""] * len(readers)


async def test_a_session_ended_by_an_operator_is_refused_on_all_workers_and_tunnels_close(
    gateway: Gateway, shop: Shop
) -> None:
    visitor, other = await inside(gateway, "ended"), await inside(gateway, "ended")
    operator = await pause(gateway, "ended")
    async with tunnels(gateway, shop, visitor) as open_, tunnels(gateway, shop, other) as others:
        assert (await operator.end_session(f"{visitor.pass_.session:x}")).status == 204
        pass_ = visitor.cookies[visitor.pass_cookie]

        async def refused() -> bool:
            visitor.cookies = {visitor.pass_cookie: pass_}
            return await everywhere(visitor, "POST", 503)

        await eventually(refused, seconds=SECONDS)
        await all_cut(open_)
        assert not any(reader.at_eof() for reader in others)
    await everywhere(other, "POST", 200)


async def test_a_visitor_who_leaves_is_refused_on_all_workers(gateway: Gateway, shop: Shop) -> None:
    visitor = await inside(gateway, "left")
    await pause(gateway, "left")
    pass_ = visitor.cookies[visitor.pass_cookie]
    async with tunnels(gateway, shop, visitor) as open_:
        assert (await visitor.call("leave")).status == 200

        async def refused() -> bool:
            visitor.cookies = {visitor.pass_cookie: pass_}
            return await everywhere(visitor, "POST", 503)

        await eventually(refused, seconds=SECONDS)
        await all_cut(open_)


async def test_only_the_page_after_an_order_loads_completely(gateway: Gateway, shop: Shop) -> None:
    shop.answers["/order"] = PAID
    visitor = await inside(gateway, "released")
    await pause(gateway, "released")
    before = visitor.cookies[visitor.pass_cookie]
    async with tunnels(gateway, shop, visitor) as open_:
        answer = await visitor.fetch("/order", "POST")
        assert answer.body == b"thanks"
        cookie = answer.cookie(visitor.pass_cookie)
        assert cookie is not None
        assert cookie["max-age"] == "600"
        # The slot is free immediately, and the parts load on every worker, by either pass.
        await eventually(lambda: _is_free(gateway, "released"), seconds=SECONDS)
        for value in (before, cookie["value"]):
            visitor.cookies = {visitor.pass_cookie: value}
            await everywhere(visitor, "GET", 200)

        async def refused() -> bool:
            visitor.cookies = {visitor.pass_cookie: before}
            return await everywhere(visitor, "POST", 503)

        await eventually(refused, seconds=SECONDS)
        await all_cut(open_)
        await everywhere(visitor, "GET", 200)
    async with Wire.open(gateway) as wire:
        await wire.send(
            f"GET /socket HTTP/1.1\r\nHost: {visitor.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Cookie: {visitor.pass_cookie}={before}\r\n\r\n".encode()
        )
        status, _ = await wire.head()
        assert status == 503


async def test_a_pass_is_invalid_after_the_grace_period(gateway: Gateway, shop: Shop) -> None:
    shop.answers["/order"] = PAID
    visitor = await inside(gateway, "brief")
    await pause(gateway, "brief")
    pass_ = visitor.cookies[visitor.pass_cookie]
    await visitor.fetch("/order", "POST")

    async def refused() -> bool:
        visitor.cookies = {visitor.pass_cookie: pass_}
        return await everywhere(visitor, "GET", 503)

    await eventually(refused, seconds=SECONDS)


async def _is_free(gateway: Gateway, name: str) -> bool:
    return await gateway.members(name, "active") == {}
