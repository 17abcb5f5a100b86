"""Floods of joins, webhooks and broken answers: what they take from others, and what they leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio
from attackers import ONE_ADDRESS, address, flood, navigation, request
from gateway import Gateway, eventually, room, running_gateway
from shops import RealShop, nginx_shop, php_shop
from visitors import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

JOIN_RATE, JOIN_BURST = 50.0, 500
JOINS = 1200
JUNK, WEBHOOKS = 2000, 40


@dataclass
class Town:
    gateway: Gateway
    nginx: RealShop
    php: RealShop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    async with AsyncExitStack() as stack:
        nginx = await stack.enter_async_context(nginx_shop(folder))
        php = await stack.enter_async_context(php_shop(folder))
        full = {"upstream": nginx.address, "max_active": 1}
        rule = {"paths": ["/hooks/"], "methods": ["POST"]}
        rooms = [
            *(room(name, **full) for name in ("join", "click", "crowd", "leave")),
            room("hooks", bypass=[rule], **full),
            room("odd", upstream=php.address),
        ]
        gateway = await stack.enter_async_context(
            running_gateway(folder / "gateway", rooms, workers=2, trusted_proxies=["127.0.0.1"])
        )
        for name in ("join", "click", "crowd", "leave", "hooks"):
            inside = Visitor(gateway, name, headers={"X-Forwarded-For": "203.0.113.1"})
            await inside.is_let_in()
        yield Town(gateway, nginx, php)


# Joins.


def join(name: str, source: str) -> bytes:
    return request("POST", f"/.waitroom/join?room={name}", f"{name}.test", source=source, body=b"", Accept="*/*")


@pytest.mark.parametrize("name", ["join", "click"])
async def test_one_address_takes_places_at_its_rate(town: Town, name: str) -> None:
    gateway = town.gateway
    before = await gateway.total(name)
    make = join if name == "join" else lambda name, source: navigation("/", f"{name}.test", source=source)
    found = await flood(gateway, [make(name, ONE_ADDRESS) for _ in range(JOINS)])
    joined = await gateway.total(name) - before
    most = JOIN_BURST + JOIN_RATE * (found.seconds + 2)
    assert JOIN_BURST * 0.9 <= joined <= most, found.statuses
    assert any(b"\r\nretry-after: " in head for head in found.heads if head[9:12] in (b"429", b"503"))
    if name == "join":
        assert found.statuses[429] >= JOINS - most
    other = Visitor(gateway, name, headers={"X-Forwarded-For": "203.0.113.77"})
    await other.waits()


async def test_a_crowd_behind_one_address_gets_places(town: Town) -> None:
    """As a school, a company or a mobile network: some see "one moment", and all of them have a place in the end."""
    gateway = town.gateway
    crowd = [Visitor(gateway, "crowd", headers={"X-Forwarded-For": ONE_ADDRESS}) for _ in range(JOIN_BURST + 50)]
    gate = asyncio.Semaphore(50)

    async def comes(visitor: Visitor) -> None:
        async def has_a_place() -> bool:
            async with gate:
                answer = await visitor.navigate("/")
            assert answer.is_page, answer
            return visitor.ticket_cookie in visitor.cookies and answer.state == "waiting"

        await eventually(has_a_place, every=1)

    await asyncio.gather(*(comes(visitor) for visitor in crowd))
    assert len({visitor.ticket.place for visitor in crowd}) == len(crowd)


async def test_joining_and_leaving_leaves_little_behind(town: Town) -> None:
    """No more than an address may take."""
    gateway = town.gateway
    before = await gateway.total("leave")

    async def comes_and_goes() -> None:
        for _ in range(JOINS // 40):
            visitor = Visitor(gateway, "leave", headers={"X-Forwarded-For": ONE_ADDRESS})
            await visitor.call("join")
            if visitor.cookies:
                await visitor.call("leave")

    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(comes_and_goes() for _ in range(40)))
    seconds = asyncio.get_running_loop().time() - began
    assert await gateway.total("leave") - before <= JOIN_BURST + JOIN_RATE * (seconds + 2)


# Webhooks.


async def test_junk_for_a_webhook_takes_nothing_from_the_real_ones(town: Town) -> None:
    await town.nginx.arrived()
    junk = [
        request("POST", "/hooks/payment?junk", "hooks.test", source=ONE_ADDRESS, body=b"{}", Accept="*/*")
        for _ in range(JUNK)
    ]
    real = [
        request("POST", f"/hooks/payment?order={number}", "hooks.test", source=address(number % 8), body=b"{}")
        for number in range(WEBHOOKS)
    ]
    statuses: list[int] = []
    ended = asyncio.Event()

    async def provider() -> None:
        for one in real:
            statuses.extend((await flood(town.gateway, [one], connections=1)).statuses)
            await asyncio.sleep(0.05)
        ended.set()

    async def robot() -> None:
        while not ended.is_set():
            await flood(town.gateway, junk[: JUNK // 10])

    await asyncio.gather(provider(), robot())
    arrived = [one.target for one in await town.nginx.arrived()]
    assert sum("order=" in target for target in arrived) == WEBHOOKS, statuses
    assert statuses == [200] * WEBHOOKS


# Answers that a visitor can provoke.


async def test_odd_answers_that_a_visitor_brings_about_take_nothing_from_others(town: Town) -> None:
    """PHP sends back what it was asked for, a control character included; that one is refused, and nothing else."""
    gateway = town.gateway
    robot = Visitor(gateway, "odd", headers={"X-Forwarded-For": ONE_ADDRESS})
    honest = Visitor(gateway, "odd", headers={"X-Forwarded-For": "203.0.113.1"})
    await robot.is_let_in()
    await honest.is_let_in()
    pass_ = robot.cookies[robot.pass_cookie]
    asked = [
        request("GET", "/odd?%01", "odd.test", source=ONE_ADDRESS, Waitroom_Pass=pass_, Accept="*/*")
        for _ in range(150)
    ]
    lines = len(gateway.log.splitlines())
    odd = asyncio.create_task(flood(gateway, asked, connections=5))
    statuses = []
    while not odd.done() or len(statuses) < 20:
        statuses.append((await honest.fetch("/page")).status)
    found = await odd
    assert set(statuses) == {200}
    assert set(found.statuses) == {502}, "the shop's answer was taken as it is"
    assert len(gateway.log.splitlines()) - lines <= 30, "a line in the log for each"
