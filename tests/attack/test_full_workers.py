"""Idle connections, dripping heads and pipelines: visitors inside are served, and the machine stays ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from attackers import BROKEN, Shopper, SlowClient, address, besieged, navigation, request
from gateway import Gateway, eventually, room, running_gateway
from shops import RealShop, nginx_shop
from visitors import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

MOST, IDLE = 100, 150
LONG_HEAD = 55_000
PIPELINED = 300


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealShop]:
    async with nginx_shop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, shop: RealShop) -> AsyncIterator[Gateway]:
    """With few connections, one worker, and the test as a trusted proxy."""
    settings = {"workers": 1, "grace_seconds": 1, "client_connections": MOST, "trusted_proxies": ["127.0.0.1"]}
    rooms = [room("sale", upstream=shop.address)]
    async with running_gateway(tmp_path_factory.mktemp("gateway"), rooms, **settings) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def idle_connections(
    gateway: Gateway, count: int, first: bytes, sources: list[str | None]
) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Connections that send something once, and then nothing."""
    async with AsyncExitStack() as stack:
        writers = []
        for number in range(count):
            source = sources[number % len(sources)]
            with contextlib.suppress(*BROKEN):
                _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, local_addr=source and (source, 0))
                stack.callback(writer.close)
                writers.append(writer)
                writer.write(first)
        yield writers


async def shops_on(shopper: Shopper, requests: int = 20) -> None:
    await shopper.shops(requests, "/sale/page")
    assert set(shopper.statuses) == {200}, (shopper.statuses, shopper.faults)


async def served(shopper: Shopper) -> bool:
    await shops_on(Shopper(shopper.visitor), 1)
    return True


@pytest.mark.parametrize(
    ("first", "sources"),
    [
        pytest.param(b"", ["127.0.0.3"], id="silent, one address"),
        pytest.param(b"", [f"127.0.1.{number}" for number in range(1, 151)], id="silent, many addresses"),
        pytest.param(b"", [None], id="silent, behind a trusted proxy"),
        pytest.param(navigation("/x", "sale.test"), ["127.0.0.3"], id="idle after a request, one address"),
        pytest.param(
            navigation("/x", "sale.test"),
            [f"127.0.1.{number}" for number in range(1, 151)],
            id="idle after a request, many addresses",
        ),
        pytest.param(
            request("GET", "/.waitroom/status?room=sale", "sale.test", source="198.51.100.7"),
            [None],
            id="idle after a request, behind a trusted proxy",
        ),
        pytest.param(b"GET /sale HTTP/1.1\r\nHost: sale.test\r\nX-Slow: ", ["127.0.0.3"], id="half a head"),
    ],
)
async def test_idle_connections_make_room(gateway: Gateway, first: bytes, sources: list[str | None]) -> None:
    shopper = await Shopper.comes(gateway, "sale", "203.0.113.1")
    async with idle_connections(gateway, IDLE, first, sources):
        await eventually(lambda: served(shopper))  # what has only just come isn't idle yet
        await shops_on(shopper)
        newcomer = Visitor(gateway, "sale", headers={"X-Forwarded-For": "203.0.113.2"})
        assert (await newcomer.navigate("/sale")).status in (200, 503)
        assert await gateway.ready() == 200, "a balancer would take the machine out"
    await eventually(lambda: served(shopper))


async def test_dripping_heads(gateway: Gateway) -> None:
    """Long heads that grow by a byte at a time: each drop is as cheap as the first."""
    whole = request("GET", "/sale", "sale.test", source=address(1), X_Long="x" * LONG_HEAD)
    clients = [SlowClient(whole[:-4], b"x") for _ in range(MOST // 2)]
    shopper = await Shopper.comes(gateway, "sale", "203.0.113.1")
    async with besieged(gateway.port, clients, drip_seconds=0.01):
        await shops_on(shopper)


async def test_pipelines(gateway: Gateway, shop: RealShop) -> None:
    """Each of these is answered, and between any two of them it is somebody else's turn."""
    hops = ", ".join(address(number) for number in range(500))
    one = request("GET", "/.waitroom/status?room=sale", "sale.test", X_Forwarded_For=hops)
    clients = [SlowClient(one * PIPELINED, reads=True) for _ in range(MOST // 2)]
    shopper = await Shopper.comes(gateway, "sale", "203.0.113.1")
    async with besieged(gateway.port, clients, drip_seconds=0.05):
        await shops_on(shopper)
