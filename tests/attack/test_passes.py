"""One pass for many clients, and passes that go on after the end: what the shop still got is in its own log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from redis.asyncio.client import Monitor
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from support.admin_client import Operator
from support.attackers import Flood, address, dial, flood, read_answer, request
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.ports import free_port
from support.third_party import uvicorn
from support.upstreams.real_shops import BIG, DjangoShop, RealShop, django_shop, nginx_shop
from support.visitor_client import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

IN_FLIGHT, PER_SECOND = 16, 50
CLIENTS = 200
# An end may take a second, and more on a machine that stands still. What is no end lasts for 13 s, or for ever.
END_SECONDS = 8.0
EVERY_WORKER = 16  # so many connections surely meet both


@dataclass
class Place:
    gateway: Gateway
    django: DjangoShop
    nginx: RealShop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    sockets = free_port()
    async with AsyncExitStack() as stack:
        django = await stack.enter_async_context(django_shop(folder, threads=CLIENTS))
        nginx = await stack.enter_async_context(nginx_shop(folder, sockets=sockets))
        await stack.enter_async_context(uvicorn(sockets, folder))
        bounds = {"session_requests_in_flight": IN_FLIGHT, "session_requests_per_second": PER_SECOND}
        rooms = [
            room("shared", upstream=django.address, **bounds, upstream_wait_seconds=0.5),
            room("fair", upstream=django.address),
            room("agent", upstream=nginx.address, bind_pass="agent"),
            room("network", upstream=nginx.address, bind_pass="network"),
            room("used", upstream=nginx.address, max_active=1, session_max_seconds=90, session_seconds=60),
            room("later", upstream=nginx.address, session_max_seconds=90, session_seconds=60),
            *(room(name, upstream=nginx.address) for name in ("leave", "operator", "release", "whole")),
        ]
        gateway = await stack.enter_async_context(
            running_gateway(folder / "gateway", rooms, workers=2, trusted_proxies=["127.0.0.1"])
        )
        yield Place(gateway, django, nginx)


async def pass_of(gateway: Gateway, name: str, **headers: str) -> str:
    answer = await Visitor(gateway, name).call("join", **{"X_Forwarded_For": address(1), **headers})
    return str(answer.json["pass"])


# One pass, many clients.


async def shared(place: Place, path: str, count: int, pass_: str) -> Flood:
    asked = [request("GET", path, "shared.test", source=address(n), Waitroom_Pass=pass_) for n in range(count)]
    return await flood(place.gateway, asked, connections=CLIENTS)


async def test_requests_in_flight_per_pass_are_limited(place: Place) -> None:
    pass_ = await pass_of(place.gateway, "shared")
    await place.django.arrived()
    found = await shared(place, "/slow", CLIENTS, pass_)
    assert 1 <= await place.django.most_at_once() <= 2 * IN_FLIGHT, f"of two workers: {found.statuses}"
    assert set(found.statuses) <= {200, 429}


async def test_requests_per_second_per_pass_are_limited(place: Place) -> None:
    pass_ = await pass_of(place.gateway, "shared")
    await place.django.arrived()
    found = await shared(place, "/page", 3 * CLIENTS, pass_)
    arrived = await place.django.arrived()
    assert PER_SECOND <= len(arrived) <= found.allows(PER_SECOND), found.statuses
    assert set(found.statuses) == {200, 429}
    assert any(b"\r\nretry-after: " in head for head in found.heads if head.startswith(b"http/1.1 429"))


async def test_a_page_with_many_resources_loads_completely(place: Place) -> None:
    """With the defaults: sixty files at a time, as fast as they come."""
    pass_ = await pass_of(place.gateway, "fair")
    asked = [request("GET", f"/static/{n}.js", "fair.test", source=address(1), Waitroom_Pass=pass_) for n in range(150)]
    found = await flood(place.gateway, asked, connections=30)
    assert found.statuses == {200: 150}


@pytest.mark.parametrize(
    ("name", "own", "other"),
    [
        ("agent", {"User_Agent": "Robin/1"}, {"User_Agent": "Robot/2"}),
        ("network", {"X_Forwarded_For": "203.0.113.9"}, {"X_Forwarded_For": "203.0.113.10"}),
    ],
)
async def test_a_bound_pass_admits_nobody_else(
    place: Place, name: str, own: dict[str, str], other: dict[str, str]
) -> None:
    pass_ = await pass_of(place.gateway, name, **own)
    common = {"Waitroom_Pass": pass_, "Content_Length": "0"}
    before = {"X_Forwarded_For": "203.0.113.9"}
    await place.nginx.arrived()
    good = await flood(place.gateway, [request("POST", "/order", f"{name}.test", **{**before, **own, **common})] * 10)
    assert good.statuses == {200: 10}
    assert len(await place.nginx.arrived()) == 10
    await flood(place.gateway, [request("POST", "/order", f"{name}.test", **{**before, **other, **common})] * 10)
    assert await place.nginx.arrived() == []


# Ends.


async def test_a_used_ticket_starts_no_second_session(place: Place) -> None:
    """The kept ticket can be claimed again; the session ends when it would have."""
    gateway = place.gateway
    first = Visitor(gateway, "used")
    await first.is_let_in()
    visitor = Visitor(gateway, "used")
    await visitor.waits()
    ticket = visitor.cookies[visitor.ticket_cookie]
    await first.call("leave")
    await visitor.is_let_in()
    ends_at = visitor.pass_.ends_at

    async def begins_later() -> bool:
        """Whether a session that begins now has another end."""
        newcomer = Visitor(gateway, "later")
        await newcomer.goes_in()
        return newcomer.pass_.ends_at > ends_at + 1

    await eventually(begins_later, every=0.2)
    for again in (Visitor(gateway, "used"), Visitor(gateway, "used")):
        answer = await again.call("claim", Waitroom_Ticket=ticket)
        if answer.status == 200:
            assert gateway.tokens("used").read_pass(answer.json["pass"].encode()).ends_at <= ends_at
    again = Visitor(gateway, "used", cookies={visitor.ticket_cookie: ticket})
    if (await again.navigate()).status == 200 and visitor.pass_cookie in again.cookies:
        assert again.pass_.ends_at <= ends_at


Ends = Callable[[Place, Visitor], Awaitable[None]]


async def leaves(place: Place, visitor: Visitor) -> None:
    assert (await visitor.call("leave")).status == 200


async def is_ended(place: Place, visitor: Visitor) -> None:
    assert (await Operator(place.gateway, visitor.room).end_session(f"{visitor.pass_.session:x}")).status == 204


async def is_done(place: Place, visitor: Visitor) -> None:
    assert (await visitor.navigate("/thanks")).status == 200


ENDS = pytest.mark.parametrize(
    ("name", "ends"),
    [("leave", leaves), ("operator", is_ended), ("release", is_done)],
    ids=["leave", "operator", "shop"],
)


async def is_cut(socket: ClientConnection) -> None:
    try:
        async with asyncio.timeout(END_SECONDS):
            await socket.wait_closed()
    except TimeoutError:
        pytest.fail("an open WebSocket outlived its session")
    with pytest.raises(ConnectionClosed):
        await socket.send("order")


@asynccontextmanager
async def store_commands(gateway: Gateway) -> AsyncIterator[list[str]]:
    """The commands that the store receives within the block, in order."""
    commands: list[str] = []

    async def listen(monitor: Monitor) -> None:
        while True:
            commands.append((await monitor.next_command())["command"])

    async with gateway.store() as redis, redis.monitor() as monitor:
        listening = asyncio.create_task(listen(monitor))
        try:
            yield commands
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@ENDS
async def test_an_ended_session_is_refused_on_every_worker(place: Place, name: str, ends: Ends) -> None:
    """Both workers know the pass, and have told the store of it: they have nothing more to ask for a while."""
    gateway = place.gateway
    visitor = Visitor(gateway, name)
    async with store_commands(gateway) as commands:
        await visitor.is_let_in("/sale")
        number = visitor.pass_.session

        async def both_have_told() -> bool:
            assert (await visitor.navigate("/sale")).status == 200
            return sum(f" keep {number} " in command for command in commands) == 2

        await eventually(both_have_told)
    kept = Visitor(gateway, name, cookies=dict(visitor.cookies))
    session = f"{number:x}"
    await ends(place, visitor)

    async def refused() -> bool:
        await place.nginx.arrived()
        for _ in range(EVERY_WORKER):
            cookies = dict(kept.cookies)
            await Visitor(gateway, name, cookies=cookies).fetch("/order", "POST", b"item=1")
        arrived = [one for one in await place.nginx.arrived() if one.session == session]
        assert arrived == []
        return True

    await eventually(refused, seconds=END_SECONDS)


@ENDS
async def test_open_websockets_end_with_their_session(place: Place, name: str, ends: Ends) -> None:
    gateway = place.gateway
    visitor = Visitor(gateway, name)
    await visitor.is_let_in("/sale")
    sockets = [await dial(gateway, visitor) for _ in range(6)]  # on both workers
    try:
        for socket in sockets:
            await socket.send("hello")
            assert await socket.recv() == "hello"
        await ends(place, visitor)
        for socket in sockets:
            await is_cut(socket)
    finally:
        for socket in sockets:
            socket.transport.abort()


async def test_after_release_only_the_page_loads_completely(place: Place) -> None:
    gateway = place.gateway
    visitor = Visitor(gateway, "whole")
    await visitor.is_let_in("/sale")
    cookies, session = dict(visitor.cookies), f"{visitor.pass_.session:x}"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    pass_ = cookies[visitor.pass_cookie]
    writer.write(request("GET", "/sale/big.bin", "whole.test", Waitroom_Pass=pass_))
    await reader.readuntil(b"\r\n\r\n")
    await is_done(place, visitor)

    async def slot_is_free() -> bool:
        return not await gateway.members("whole", "active")

    await eventually(slot_is_free)
    await place.nginx.arrived()
    parts = [
        request("GET", f"/static/{n}.js", "whole.test", Waitroom_Pass=pass_, Accept="*/*") for n in range(EVERY_WORKER)
    ]
    found = await flood(gateway, parts, connections=8)
    assert found.statuses == {200: EVERY_WORKER}
    assert {one.session for one in await place.nginx.arrived()} == {session}

    async with asyncio.timeout(60):
        assert len(await reader.readexactly(BIG)) == BIG, "an answer under way was cut"
    writer.close()

    async def no_tunnel() -> bool:
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
        key = {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request("GET", "/sale/socket", "whole.test", Waitroom_Pass=pass_, **upgrade, **key))
        status, _, _ = await read_answer(reader)
        writer.close()
        assert status != 101
        return True

    for _ in range(4):
        await eventually(no_tunnel, seconds=END_SECONDS)
