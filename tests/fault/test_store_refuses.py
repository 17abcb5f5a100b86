"""The store answers and refuses: it is a replica now, or it doesn't let the gateway do what it must."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.gateway_process import Gateway, eventually, room
from support.store_servers import running_endpoint, valkey_server
from support.upstreams.server import Shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow


def log_lines(gateway: Gateway, event: str) -> list[dict[str, Any]]:
    """The lines of the gateway's log about an event."""
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


async def readiness(gateway: Gateway) -> str:
    async with gateway.http.get(f"{gateway.admin}/readyz") as response:
        return await response.text()


async def test_an_endpoint_that_moves_from_a_replica_to_the_primary_and_back(tmp_path: Path, shop: Shop) -> None:
    async with (
        valkey_server(tmp_path / "a") as a,
        valkey_server(tmp_path / "b") as b,
        running_endpoint(a) as endpoint,
    ):
        await a.follow(b)
        rooms = [room("sale", upstream=shop.address, max_active=1), room("pay", upstream=shop.address)]
        gateway = Gateway(tmp_path / "gateway", {"workers": 1, "redis_url": endpoint.url}, rooms)
        gateway.folder.mkdir()
        try:
            # From the start the store is a replica: one line of each process says so, and nothing is announced.
            await gateway.spawn()
            await eventually(lambda: log_lines(gateway, "store unavailable"))
            problem = "the store is a read-only replica: redis_url must lead to the primary"

            async def explained() -> bool:
                text = await readiness(gateway)
                return all(f"room {name}: {problem}\n" in text for name in ("sale", "pay"))

            await eventually(explained)
            assert (await gateway.room("sale"))["store_problem"] == problem
            page = await Visitor(gateway, "sale").navigate()
            assert (page.status, page.state) == (503, "held")
            assert not log_lines(gateway, "room ready")
            await eventually(lambda: len(log_lines(gateway, "store unavailable")) == 2)

            # The endpoint moves to the primary; the connections to the replica stay open.
            endpoint.target = b.port
            await eventually(gateway.is_ready)
            assert "store_problem" not in await gateway.room("sale")
            assert {line["room"] for line in log_lines(gateway, "room ready")} == {"sale", "pay"}
            inside, waiting = Visitor(gateway, "sale"), Visitor(gateway, "sale")
            await inside.goes_in()
            await waiting.waits()
            place = waiting.ticket.place

            # The other server is promoted, and this one follows it. The endpoint moves at the same time.
            await a.promote()
            endpoint.target = a.port
            await b.follow(a)
            newcomer = Visitor(gateway, "sale")
            await newcomer.waits()
            assert (await inside.navigate()).status == 200
            await waiting.position(1)
            assert (waiting.ticket.place, newcomer.ticket.place > place) == (place, True)
            assert (await inside.call("leave")).status == 200
            await waiting.state("called")
            await waiting.is_let_in()
            await newcomer.position(1)
            assert await gateway.is_ready()
            for event in ("store unavailable", "store available"):
                by_process = [line["process"] for line in log_lines(gateway, event)]
                assert all(by_process.count(process) <= 2 for process in by_process), gateway.log
        finally:
            await gateway.close()
