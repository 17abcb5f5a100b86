"""Floods of joins, webhooks and broken answers: what they take from others, and what they leave behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from support.attackers import ONE_ADDRESS, Flood, address, address_of_network, flood, navigation, request
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.real_shops import RealShop, nginx_shop, php_shop
from support.visitor_client import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

JOIN_RATE, JOIN_BURST = 50.0, 500
JOINS = 1200
JUNK, WEBHOOKS = 2000, 40
JUNK_PER_SECOND = 440
HOOKS_PER_SECOND = 40.0  # of which one address may have a quarter
PROVIDER = "192.0.2.0/24"  # a payment provider's network


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
            room("metered", bypass=[rule | {"max_per_second": HOOKS_PER_SECOND}], **full),
            room("named", bypass=[rule | {"addresses": [PROVIDER], "max_per_second": 2 * WEBHOOKS}], **full),
            room("odd", upstream=php.address),
        ]
        gateway = await stack.enter_async_context(
            running_gateway(folder / "gateway", rooms, workers=2, trusted_proxies=["127.0.0.1"])
        )
        for name in ("join", "click", "crowd", "leave", "hooks", "metered", "named"):
            inside = Visitor(gateway, name, headers={"X-Forwarded-For": "203.0.113.1"})
            await inside.is_let_in()
        yield Town(gateway, nginx, php)


# Joins.


def join(name: str, source: str) -> bytes:
    return request("POST", f"/.waitroom/join?room={name}", f"{name}.test", source=source, body=b"", Accept="*/*")


@pytest.mark.parametrize(
    ("name", "network"),
    [("join", False), ("click", False), ("join", True)],
    ids=["join", "click", "join from all addresses of a network"],
)
async def test_one_network_joins_at_most_at_its_rate(town: Town, name: str, network: bool) -> None:
    gateway = town.gateway
    before = await gateway.total(name)
    make = join if name == "join" else lambda name, source: navigation("/", f"{name}.test", source=source)
    sources = [address_of_network(number) if network else ONE_ADDRESS for number in range(JOINS)]
    found = await flood(gateway, [make(name, source) for source in sources])
    joined = await gateway.total(name) - before
    most = JOIN_BURST + JOIN_RATE * (found.seconds + 2)
    assert JOIN_BURST * 0.9 <= joined <= most, found.statuses
    assert any(b"\r\nretry-after: " in head for head in found.heads if head[9:12] in (b"429", b"503"))
    if name == "join":
        assert found.statuses[429] >= JOINS - most
    neighbour = address_of_network(1, network=2) if network else "203.0.113.77"
    await Visitor(gateway, name, headers={"X-Forwarded-For": neighbour}).waits()


async def test_a_crowd_behind_one_address_can_join(town: Town) -> None:
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


async def test_joining_and_leaving_stays_within_the_join_rate(town: Town) -> None:
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


async def test_junk_requests_do_not_crowd_out_real_webhooks(town: Town) -> None:
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


@pytest.mark.parametrize("network", [False, True], ids=["one address", "one network"])
async def test_hundreds_of_junk_requests_per_second_do_not_crowd_out_real_webhooks(town: Town, network: bool) -> None:
    """A fraction of the junk would use up the rule's budget; junk is sent whether the last was answered or not."""
    host, gateway = "metered.test", town.gateway
    await town.nginx.arrived()
    gap = 2 / JUNK_PER_SECOND
    statuses: list[int] = []
    junk: list[asyncio.Task[Flood]] = []
    began = asyncio.get_running_loop().time()
    for number in range(WEBHOOKS):
        source = address(number % 8)
        real = request("POST", f"/hooks/payment?order={number}", host, source=source, body=b"{}")
        for _ in range(JUNK_PER_SECOND // 20):
            source = address_of_network(len(junk)) if network else ONE_ADDRESS
            data = request("POST", "/hooks/payment?junk", host, source=source, body=b"{}", Accept="*/*")
            junk.append(asyncio.create_task(flood(gateway, [data], connections=1)))
            if len(junk) % 2 == 0:
                await asyncio.sleep(gap)
        statuses.extend((await flood(gateway, [real], connections=1)).statuses)
    refused = sum((one.statuses for one in await asyncio.gather(*junk)), Counter[int]())
    seconds = asyncio.get_running_loop().time() - began
    arrived = [one.target for one in await town.nginx.arrived()]
    assert statuses == [200] * WEBHOOKS
    assert sum("order=" in target for target in arrived) == WEBHOOKS
    assert sum("junk" in target for target in arrived) <= HOOKS_PER_SECOND / 4 * (seconds + 2) + 2, refused
    assert set(refused) == {200, 429}, "a share of its own, and no more"


async def test_junk_from_everywhere_does_not_crowd_out_a_provider_listed_by_address(town: Town) -> None:
    """No share of a neighbourhood helps against very many of them; the provider's network does."""
    await town.nginx.arrived()
    junk = [
        request("POST", "/hooks/payment?junk", "named.test", source=address(number), body=b"{}", Accept="*/*")
        for number in range(JUNK)
    ]
    real = [
        request("POST", f"/hooks/payment?order={number}", "named.test", source=f"192.0.2.{number}", body=b"{}")
        for number in range(WEBHOOKS)
    ]
    found, answers = await asyncio.gather(flood(town.gateway, junk), flood(town.gateway, real, connections=1))
    arrived = [one.target for one in await town.nginx.arrived()]
    assert answers.statuses == {200: WEBHOOKS}
    assert sum("order=" in target for target in arrived) == WEBHOOKS
    assert not [target for target in arrived if "junk" in target], found.statuses


# Answers that a visitor can provoke.


async def test_malformed_responses_provoked_by_a_visitor_do_not_affect_others(town: Town) -> None:
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
