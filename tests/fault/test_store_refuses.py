"""The store answers and refuses: it is a replica, or holds something that the gateway can't read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from support.gateway_process import Gateway, eventually, room
from support.store_servers import Endpoint, ValkeyServer, running_endpoint, valkey_server
from support.upstreams.server import Shop, running_shop
from support.visitor_client import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PROBLEM = "the store is a read-only replica: redis_url must lead to the primary"


@dataclass
class World:
    """Two servers, an endpoint that leads to one of them, and a gateway that is started while this is a replica."""

    replica: ValkeyServer
    primary: ValkeyServer
    endpoint: Endpoint
    gateway: Gateway
    shop: Shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("refuses")
    async with (
        running_shop() as shop,
        valkey_server(folder / "a") as replica,
        valkey_server(folder / "b") as primary,
        running_endpoint(replica) as endpoint,
    ):
        await replica.follow(primary)
        rooms = [room("sale", upstream=shop.address, max_active=1), room("pay", upstream=shop.address, max_active=1)]
        gateway = Gateway(folder, {"workers": 1, "redis_url": endpoint.url}, rooms)
        try:
            await gateway.spawn()
            yield World(replica, primary, endpoint, gateway, shop)
        finally:
            await gateway.close()


def log_lines(gateway: Gateway, event: str) -> list[dict[str, Any]]:
    """The lines of the gateway's log about an event."""
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


async def readiness(gateway: Gateway) -> str:
    async with gateway.http.get(f"{gateway.admin}/readyz") as response:
        return await response.text()


async def test_a_replica_from_the_start_and_an_endpoint_that_moves(world: World) -> None:
    gateway = world.gateway
    # One line of each process names the cause, and so does everything that operators read.
    await eventually(lambda: len(log_lines(gateway, "store unavailable")) == 2)
    assert {line["cause"] for line in log_lines(gateway, "store unavailable")} == {PROBLEM}

    async def explained() -> bool:
        text = await readiness(gateway)
        return all(f"room {name}: {PROBLEM}\n" in text for name in ("sale", "pay"))

    await eventually(explained)
    assert (await gateway.room("sale"))["store_problem"] == PROBLEM
    page = await Visitor(gateway, "sale").navigate()
    assert (page.status, page.state) == (503, "held")
    assert not log_lines(gateway, "room ready")

    # The endpoint moves to the primary; the connections to the replica stay open.
    world.endpoint.target = world.primary.port
    await eventually(gateway.is_ready)
    assert "store_problem" not in await gateway.room("sale")
    assert {line["room"] for line in log_lines(gateway, "room ready")} == {"sale", "pay"}
    inside, waiting = Visitor(gateway, "sale"), Visitor(gateway, "sale")
    await inside.goes_in()
    await waiting.waits()
    place = waiting.ticket.place

    # The other server is promoted, the endpoint moves to it, and the old primary becomes its replica.
    await world.replica.promote()
    world.endpoint.target = world.replica.port
    await world.primary.follow(world.replica)
    world.primary, world.replica = world.replica, world.primary
    newcomer = Visitor(gateway, "sale")
    await newcomer.waits()
    assert (await inside.navigate()).status == 200
    await waiting.position(1)
    assert (waiting.ticket.place, newcomer.ticket.place > place) == (place, True)

    async def leaves() -> bool:  # the other worker may not have heard of the store yet
        return (await inside.call("leave")).status == 200

    await eventually(leaves)
    await waiting.state("called")
    await waiting.is_let_in()
    await newcomer.position(1)
    assert await gateway.is_ready()
    for event in ("store unavailable", "store available"):
        by_process = [line["process"] for line in log_lines(gateway, event)]
        assert all(by_process.count(process) <= 2 for process in by_process), gateway.log


async def test_one_odd_value_concerns_one_room(world: World) -> None:
    gateway = world.gateway
    world.endpoint.target = world.primary.port
    await eventually(gateway.is_ready)
    inside, waiting, elsewhere = Visitor(gateway, "pay"), Visitor(gateway, "pay"), Visitor(gateway, "sale")
    await inside.goes_in()
    await waiting.waits()
    place, children = waiting.ticket.place, gateway.children()

    await world.primary.command("HSET", "waitroom:{pay}:room", "state", "bogus")
    problem = (
        "the data of room pay can't be read: field state of waitroom:{pay}:room is 'bogus': "
        "not one of open, paused, closed, sold_out"
    )

    async def explained() -> bool:
        return f"room pay: {problem}\n" in await readiness(gateway)

    await eventually(explained)
    await eventually(lambda: len(log_lines(gateway, "room unavailable")) == 2)
    assert {(line["room"], line["cause"]) for line in log_lines(gateway, "room unavailable")} == {("pay", problem)}
    assert (await gateway.room("pay"))["store_problem"] == problem
    for _ in range(2):
        assert (await inside.navigate()).status == 200
        held = await waiting.navigate()
        assert (held.status, held.state) == (503, "held")
        assert b"place is kept" in held.body
    assert (await Visitor(gateway, "pay").navigate()).state == "held"
    assert "room sale" not in await readiness(gateway)

    async def joins() -> bool:
        return (await elsewhere.call("join")).status == 201

    await eventually(joins)
    assert gateway.children() == children

    await world.primary.command("HSET", "waitroom:{pay}:room", "state", "open")
    await eventually(gateway.is_ready)
    await waiting.position(1)
    assert waiting.ticket.place == place

    async def leaves() -> bool:  # the other worker may not have heard of the store yet
        return (await inside.call("leave")).status == 200

    await eventually(leaves)
    await waiting.state("called")
    await waiting.is_let_in()
    assert len(log_lines(gateway, "room available")) == 2
