"""`/readyz` tells the truth about each worker, whichever worker happens to answer on the public port."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.server import Shop
from support.visitor_client import Visitor
from waitroom.control.monitoring.readiness import MIN_EXITS

pytestmark = [pytest.mark.slow, pytest.mark.long]


async def reasons(gateway: Gateway) -> list[str]:
    """What /readyz names; nothing if the gateway is ready."""
    async with gateway.http.get(f"{gateway.admin}/readyz") as answer:
        lines = (await answer.text()).splitlines()
        assert (answer.status, lines == ["ready"]) in ((200, True), (503, False))
        return [] if answer.status == 200 else lines


async def names(gateway: Gateway, text: str) -> bool:
    return any(text in line for line in await reasons(gateway))


async def test_a_worker_that_does_not_serve_makes_the_gateway_not_ready(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("shop", upstream=shop.address)]
    async with running_gateway(tmp_path, rooms, stuck_after_seconds=600) as gateway:
        inside = Visitor(gateway, "shop")
        await inside.goes_in()

        # One of two workers is stuck; the other one answers every second probe.
        (stuck, _) = gateway.children("edge.worker")
        await stuck.suspend()
        await eventually(lambda: names(gateway, "no sign of life for"))
        for _ in range(4):
            (reason, *_) = [line for line in await reasons(gateway) if line.startswith("edge ")]
            assert "no sign of life for" in reason
        stuck.kill(signal.SIGCONT)
        await eventually(gateway.is_ready)

        # One keeps dying; how long it serves in between makes no difference.
        for _ in range(MIN_EXITS):
            (dying,) = await eventually(lambda: gateway.children("edge.worker 0 "))
            dying.kill()
            await gateway.replaced("edge.worker 0 ", 1, [dying])
        await eventually(lambda: names(gateway, "edge 0: exited"))
        await eventually(lambda: gateway.children("edge.worker 0 "))
        assert await served(inside)
        await eventually(gateway.is_ready)
        assert (await inside.navigate()).status == 200


async def served(inside: Visitor) -> bool:
    return (await inside.navigate("/page")).status == 200
