"""A room that admits while the store is away goes on at its rate, not at a robot's."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.attackers import ONE_ADDRESS, address, flood, navigation, request
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.redis_server import system_redis
from support.upstreams.real_shops import nginx_shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow

RATE = 2.0  # a second
MANY = 1000


async def lost(gateway: Gateway) -> None:
    async def look() -> bool:
        return await gateway.ready() == 503

    await eventually(look)


@pytest.mark.parametrize("one", [True, False], ids=["one robot", "many addresses"])
async def test_a_robot_is_admitted_at_most_at_the_rate_without_the_store(tmp_path: Path, one: bool) -> None:
    limits = {"rate_per_minute": 60 * RATE, "max_active": 50, "on_store_error": "admit"}
    async with system_redis(tmp_path / "redis") as redis, nginx_shop(tmp_path) as shop:
        rooms = [room("sale", upstream=shop.address, **limits)]
        settings = {"workers": 2, "redis_url": redis.url, "trusted_proxies": ["127.0.0.1"]}
        async with running_gateway(tmp_path / "gateway", rooms, **settings) as gateway:
            inside = Visitor(gateway, "sale", headers={"X-Forwarded-For": "203.0.113.1"})
            await inside.is_let_in("/sale")
            await redis.kill()
            await lost(gateway)
            await shop.arrived()
            sources = [ONE_ADDRESS if one else address(number) for number in range(MANY)]
            clicks = await flood(gateway, [navigation("/sale", "sale.test", source=source) for source in sources])
            arrived = await shop.arrived()
            sessions = {each.session for each in arrived}
            assert len(sessions) <= clicks.allows(RATE), clicks.statuses
            assert len(arrived) == len(sessions), "one page for each"
            assert clicks.statuses[503] >= MANY - clicks.allows(RATE), "the others are held"

            others = [request("GET", "/sale", "sale.test", source=source, Accept="*/*") for source in sources]
            found = await flood(gateway, others)
            assert len(await shop.arrived()) <= found.allows(1.0), found.statuses
            posts = [
                request("POST", "/sale", "sale.test", source=source, body=b"x", Accept="*/*") for source in sources
            ]
            found = await flood(gateway, posts)
            assert await shop.arrived() == [], found.statuses
            joins = [
                request("POST", "/.waitroom/join?room=sale", "sale.test", source=source, body=b"", Accept="*/*")
                for source in sources
            ]
            found = await flood(gateway, joins)
            assert found.statuses[201] <= found.allows(RATE), found.statuses

            assert (await inside.navigate("/sale")).status == 200, "passes go on working"
            await redis.start()
            await eventually(gateway.is_ready)

            async def told() -> bool:
                assert await gateway.members("sale", "active")
                return True

            await eventually(told)
            active = await gateway.members("sale", "active")
            seconds = clicks.allows(RATE) + found.allows(RATE)
            assert len(active) <= seconds + 2, "a robot's sessions took the shop for a quarter of an hour"
