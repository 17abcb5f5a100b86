"""A clock is wrong, or jumps: nobody inside is thrown out, and the waiting keep their places. Secrets are compared."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path

import pytest

from support.cli_runner import invoke
from support.faketime import fake_clock
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.redis_server import system_redis
from support.upstreams.server import Shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow

# Longer than the longest session of these rooms, so that each pass seems to have reached its hard end.
HOURS = 7


def at(gateway: Gateway, visitor: Visitor) -> Visitor:
    """The same browser, at another gateway."""
    return Visitor(gateway, visitor.room, visitor.cookies)


async def test_a_gateway_whose_clock_is_ahead_throws_nobody_out(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("clock", upstream=shop.address, max_active=2)]
    clock = fake_clock(tmp_path, HOURS)
    async with (
        system_redis(tmp_path / "redis") as redis,
        running_gateway(tmp_path / "right", rooms, workers=1, redis_url=redis.url) as right,
        running_gateway(
            tmp_path / "ahead", rooms, workers=1, redis_url=redis.url, environment=clock.environment
        ) as ahead,
    ):
        first, second, third = (Visitor(right, "clock") for _ in range(3))
        await first.goes_in()
        await at(ahead, second).goes_in()
        await third.waits()
        place = third.ticket.place

        for visitor in (first, second):
            for gateway in (ahead, right, ahead):
                answer = await at(gateway, visitor).navigate("/cart", "POST", b"item=1")
                assert answer.status == 200, answer
        limit = 14_400 + 60
        for visitor in (first, second):
            assert 0 < visitor.pass_.ends_at - first.pass_.ends_at + limit < 2 * limit, "the store's clock counts"

        # The other gateway's view is older than the join, and would show a larger position.
        status = await at(ahead, third).status()
        assert (status["state"], status["position"], status["position_reason"]) == ("waiting", 1, None)
        await at(ahead, third).navigate()
        assert third.ticket.place == place

        assert (await at(ahead, first).call("leave")).status == 200
        await at(right, third).is_let_in()
        assert (await at(ahead, third).navigate()).status == 200

        async def hinted(gateway: Gateway, text: str) -> bool:
            return any(text in hint for hint in (await gateway.room("clock"))["hints"])

        await eventually(lambda: hinted(ahead, "7 h ahead of the store's clock"))
        assert "clock differs from the store's" in ahead.log
        assert not await hinted(right, "clock")

        await ahead.stop()
        ahead.settings["secrets"] = ["a secret that no other gateway has"]
        await ahead.start()
        for gateway in (ahead, right):
            await eventually(lambda gateway=gateway: hinted(gateway, "Gateways with other secrets use this store"))
            assert "gateways over this store have other secrets" in gateway.log
        result = await asyncio.to_thread(invoke, "doctor", "--config", right.config, "--json")
        ids = {finding["id"] for finding in json.loads(result.output)["findings"]}
        assert "other-secrets" in ids
        assert not ids & {"gateway-unreachable", "gateway-not-serving", "store-unreachable", "upstream-unreachable"}
        assert result.exit_code == 1


async def test_a_jump_of_the_clock_beyond_the_end_of_every_session(tmp_path: Path, shop: Shop) -> None:
    """The gateway and its store stand on one machine, whose clock is set."""
    rooms = [room("jump", upstream=shop.address, max_active=1)]
    clock = fake_clock(tmp_path)
    async with running_gateway(tmp_path / "gateway", rooms, workers=1, environment=clock.environment) as gateway:
        inside, waiting = Visitor(gateway, "jump"), Visitor(gateway, "jump")
        await inside.goes_in()
        await waiting.waits()
        place, session = waiting.ticket.place, inside.pass_.session

        for hours in (HOURS, 24 * 30, 0):
            clock.set(hours)

            async def noticed(hours: float = hours) -> bool:
                """Whether the worker has read the store's new clock."""
                at = (await waiting.status())["updated_at"]
                return abs(clock.unix() - datetime.fromisoformat(at).timestamp()) < 60

            await eventually(noticed)
            answer = await inside.navigate("/cart", "POST", b"item=1")
            assert answer.status == 200, (hours, answer)
            assert inside.pass_.session == session
            await waiting.navigate()
            assert waiting.ticket.place == place
            assert (await waiting.position(1))["state"] == "waiting"

        assert (await inside.call("leave")).status == 200
        await waiting.is_let_in()
