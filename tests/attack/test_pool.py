"""Three hundred slow connections of every kind, and visitors inside whose every request succeeds meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from support.attackers import Shopper, SlowClient, besieged, slow_clients
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.ports import free_port
from support.third_party import uvicorn
from support.upstreams.real_shops import RealShop, nginx_shop
from support.visitor_client import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

CONNECTIONS = 300  # more than the pool of 256 to the shop
SHOPPERS, REQUESTS = 3, 10
# The buffered part of a slow body goes on after this time, and would hold a connection to the shop from then on.
BUFFER_SECONDS = 0.2
WAYS = {"bypass": "/hooks", "uncovered": "/free", "pass": "/sale"}
# The connections to the shop that a session has, one address without a pass, and all addresses without one.
OF_SESSION, OF_ADDRESS, WITHOUT_PASS = 64, 64, 128


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealShop]:
    folder = tmp_path_factory.mktemp("shop")
    sockets = free_port()
    async with uvicorn(sockets, folder), nginx_shop(folder, sockets=sockets) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, shop: RealShop) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("pool")
    async with AsyncExitStack() as stack:
        rule = {"paths": ["/hooks"], "max_per_second": 100_000}
        rooms = [room("sale", upstream=shop.address, paths=["/sale", "/hooks"], bypass=[rule])]
        settings = {
            "workers": 1,
            "grace_seconds": 1,
            "trusted_proxies": ["127.0.0.1"],
            "client_body_buffer_seconds": BUFFER_SECONDS,
        }
        yield await stack.enter_async_context(running_gateway(folder / "gateway", rooms, **settings))


async def clients(gateway: Gateway, way: str, kind: str, one: bool) -> list[SlowClient]:
    headers = {}
    if way == "pass":
        answer = await Visitor(gateway, "sale").call("join", X_Forwarded_For="203.0.113.200")
        headers["Waitroom_Pass"] = answer.json["pass"]
    return slow_clients(kind, CONNECTIONS, "sale.test", WAYS.get(way, "/sale"), one, **headers)


async def come_in(gateway: Gateway) -> list[Shopper]:
    return [await Shopper.comes(gateway, "sale", f"203.0.113.{number}") for number in range(SHOPPERS)]


async def succeed(shoppers: list[Shopper]) -> None:
    await asyncio.gather(*(shopper.shops(REQUESTS) for shopper in shoppers))
    statuses = sum((shopper.statuses for shopper in shoppers), Counter[int]())
    assert statuses == {200: SHOPPERS * REQUESTS}, [shopper.faults for shopper in shoppers]


@pytest.mark.parametrize("one", [True, False], ids=["one address", "many addresses"])
@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("none", "head"),
        ("none", "preflight"),
        *((way, kind) for way in WAYS for kind in ("body", "chunks", "reader", "tunnel")),
    ],
)
async def test_admitted_visitors_are_served(gateway: Gateway, shop: RealShop, way: str, kind: str, one: bool) -> None:
    """The attack has all that it can get of the shop before the visitors' requests come."""
    held = {"none": 0, "pass": OF_SESSION}.get(way, OF_ADDRESS if one else WITHOUT_PASS)
    shoppers = await come_in(gateway)
    async with besieged(gateway.port, await clients(gateway, way, kind, one)):
        await eventually(lambda: shop.connections() >= held, every=0.02)
        await succeed(shoppers)
        newcomer = Visitor(gateway, "sale", headers={"X-Forwarded-For": "203.0.113.100"})
        await newcomer.goes_in("/sale")
        assert shop.connections() <= 2 * WITHOUT_PASS  # the pool's bound: an idle connection is in nobody's share
