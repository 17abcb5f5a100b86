"""A shop that is down, slow or broken: a clear answer, never a stack trace, and it comes back by itself."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from support.gateway_process import Gateway, eventually, room
from support.ports import free_port
from support.upstreams.server import Seen, Shop, running_shop
from support.visitor_client import Answer, Visitor, Wire

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PORT = free_port()
ROOMS = [
    room("down", upstream=f"http://127.0.0.1:{PORT}"),
    room("slow", upstream_first_byte_seconds=5, upstream_idle_seconds=2),
    room("broken"),
    room("unix", upstream="unix://{folder}/shop.sock"),
    room("few", upstream_max_connections=1, upstream_wait_seconds=0.2),
]
SETTINGS = {"workers": 1}


def assert_friendly(answer: Answer, status: int) -> str:
    """The request id in it."""
    assert answer.status == status
    assert answer.headers["Cache-Control"] == "no-store"
    for word in (b"Traceback", b"Error:", b"127.0.0.1", b"Errno", b"upstream"):
        assert word not in answer.body
    if answer.is_page:
        found = re.search(rb"<code>([0-9a-f]+)</code>", answer.body)
        assert found
        return found[1].decode()
    assert answer.json["status"] == status
    assert answer.json["error"]
    return answer.json["request_id"]


async def test_a_shop_that_is_down_and_comes_back(gateway: Gateway) -> None:
    visitor = Visitor(gateway, "down")

    page = await visitor.navigate()

    first = assert_friendly(page, 502)
    session = visitor.pass_.session  # they are in, though the shop isn't: no second slot is taken for them
    await eventually(lambda: first in gateway.log)
    told = await visitor.fetch(Accept="application/json")
    assert assert_friendly(told, 502) != first
    assert assert_friendly(await visitor.fetch("/pay", "POST", b"{}"), 502)
    async with running_shop(PORT) as back:
        await visitor.goes_in()
        assert [one.session for one in back.seen] == [f"{session:x}"]
    assert_friendly(await visitor.navigate(), 502)
    assert list(await gateway.members("down", "active")) == [session]


async def test_a_shop_that_does_not_respond(gateway: Gateway, shop: Shop) -> None:
    async def silent(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    shop.answers["/silent"] = silent

    assert_friendly(await Visitor(gateway, "slow").navigate("/silent"), 504)
    assert_friendly(await Visitor(gateway, "slow").fetch("/silent"), 504)
    assert (await Visitor(gateway, "slow").navigate()).status == 200


async def test_a_shop_that_stalls_in_the_middle_of_a_response(gateway: Gateway, shop: Shop) -> None:
    async def half(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        await asyncio.Event().wait()

    shop.answers["/half"] = half
    async with Wire.open(gateway) as wire:
        await wire.send(b"GET /half HTTP/1.1\r\nHost: slow.test\r\nAccept: text/html\r\n\r\n")
        assert (await wire.head())[0] == 200
        # The client must see that it is cut, and not take it for all.
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            async with asyncio.timeout(20):
                await wire.reader.readexactly(10)


BROKEN = {
    "/none": b"",
    "/words": b"welcome to the shop\r\n\r\n",
    "/head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "/status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "/both": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "/lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "/line": b"HTTP/1.1 200 OK\r\nX-Bad: a\nSet-Cookie: b=c\r\n\r\n",
    "/long": b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n",
    "/upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\n",
}


@pytest.mark.parametrize("path", BROKEN)
async def test_a_shop_that_sends_malformed_responses(gateway: Gateway, shop: Shop, path: str) -> None:
    async def rubbish(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(BROKEN[path])
        await writer.drain()
        writer.close()

    shop.answers[path] = rubbish

    assert_friendly(await Visitor(gateway, "broken").navigate(path), 502)
    assert (await Visitor(gateway, "broken").navigate()).status == 200


async def test_a_shop_that_ends_a_response_early(gateway: Gateway, shop: Shop) -> None:
    async def cut(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    shop.answers["/cut"] = cut
    async with Wire.open(gateway) as wire:
        await wire.send(b"GET /cut HTTP/1.1\r\nHost: broken.test\r\nAccept: text/html\r\n\r\n")
        assert (await wire.head())[0] == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            async with asyncio.timeout(20):
                await wire.reader.readexactly(10)


async def test_a_shop_whose_connections_are_all_in_use(gateway: Gateway, shop: Shop) -> None:
    release = asyncio.Event()

    async def busy(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    shop.answers["/busy"] = busy
    first = asyncio.create_task(Visitor(gateway, "few").navigate("/busy"))
    await eventually(lambda: "/busy" in shop.paths())

    assert_friendly(await Visitor(gateway, "few").navigate(), 503)

    release.set()
    assert (await first).body == b"done"
    assert (await Visitor(gateway, "few").navigate()).status == 200


async def test_a_shop_on_a_socket(gateway: Gateway, folder: Path) -> None:
    shop = Shop()
    visitor = Visitor(gateway, "unix")
    assert_friendly(await visitor.navigate(), 502)

    server = await asyncio.start_unix_server(shop.serve, folder / "shop.sock")
    try:
        await visitor.goes_in("/over/a/socket")
    finally:
        server.close()
        await shop.close()

    assert shop.last("/over/a/socket").one("Host") == "unix.test"
