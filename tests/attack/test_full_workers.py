"""Idle connections, dripping heads and pipelines: visitors inside are served, and the machine stays ready."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from support.attackers import (
    BROKEN,
    Shopper,
    address,
    address_of_network,
    navigation,
    open_connection,
    read_answer,
    request,
)
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.real_shops import RealShop, nginx_shop
from support.visitor_client import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

MOST, IDLE = 100, 150
LONG_HEAD = 55_000
PIPELINED = 300
ROUNDS, DRIPPING = 20, 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealShop]:
    async with nginx_shop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, shop: RealShop) -> AsyncIterator[Gateway]:
    """With few connections, one worker, and the test as a trusted proxy."""
    settings = {
        "workers": 1,
        "grace_seconds": 1,
        "client_connections": MOST,
        "trusted_proxies": ["127.0.0.1"],
        # No timeout closes an idle connection while a test lasts.
        "client_head_seconds": 300.0,
        "client_idle_seconds": 300.0,
    }
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
async def test_idle_connections_are_closed_for_newcomers(
    gateway: Gateway, first: bytes, sources: list[str | None]
) -> None:
    shopper = await Shopper.comes(gateway, "sale", "203.0.113.1")
    async with idle_connections(gateway, IDLE, first, sources):
        await eventually(lambda: served(shopper))  # what has only just come isn't idle yet
        await shops_on(shopper)
        newcomer = Visitor(gateway, "sale", headers={"X-Forwarded-For": "203.0.113.2"})
        assert (await newcomer.navigate("/sale")).status in (200, 503)
        assert await gateway.ready() == 200, "a balancer would take the machine out"
    await eventually(lambda: served(shopper))


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def exchange(connection: Connection, data: bytes) -> int:
    """One request and its answer; gives the status."""
    reader, writer = connection
    writer.write(data)
    async with asyncio.timeout(60):
        return (await read_answer(reader))[0]


@contextlib.asynccontextmanager
async def connected(gateway: Gateway, count: int) -> AsyncIterator[list[Connection]]:
    """Connections that the worker has taken and answered on."""
    status = request("GET", "/.waitroom/status?room=sale", "sale.test", source=address(1))
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = await open_connection(gateway)
            stack.callback(connection[1].close)
            assert await exchange(connection, status) == 200
            connections.append(connection)
        yield connections


async def cpu_of_drops(gateway: Gateway, beginning: bytes) -> int:
    """The worker's CPU time, in nanoseconds, for bytes that arrive one by one after the beginning of a head.

    An answer on another connection shows that the worker has read the bytes sent before, so that it reads each alone.
    """
    status = request("GET", "/.waitroom/status?room=sale", "sale.test", source=address(1))
    worker = gateway.children("edge.worker")[0]
    async with connected(gateway, DRIPPING + 1) as (witness, *dripping):
        for _, writer in dripping:
            writer.write(beginning)
            await writer.drain()
            assert await exchange(witness, status) == 200
        before = _cpu(worker.pid)
        for _ in range(ROUNDS):
            for _, writer in dripping:
                writer.write(b"x")
            assert await exchange(witness, status) == 200
        return _cpu(worker.pid) - before


def _cpu(pid: int) -> int:
    """The time that a process has run so far, by the kernel's scheduler."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


@pytest.mark.long
async def test_a_byte_late_in_a_long_head_costs_the_same_as_an_early_one(gateway: Gateway) -> None:
    """Compares CPU times, so it is left to `make test-long`; unit tests count the bytes that are searched."""
    short = request("GET", "/sale", "sale.test", source=address(1), X_Long="x")[:-4]
    long = request("GET", "/sale", "sale.test", source=address(1), X_Long="x" * LONG_HEAD)[:-4]
    early = await cpu_of_drops(gateway, short)
    late = await cpu_of_drops(gateway, long)
    print(f"\nCPU of {ROUNDS * DRIPPING} dripped bytes: early {early / 1e6:.1f} ms, late {late / 1e6:.1f} ms")
    assert late < 4 * early, (late, early)


async def test_admitted_visitors_are_served_before_long_pipelines_end(gateway: Gateway, shop: RealShop) -> None:
    """The worker is stopped until all has been sent, the visitors' requests last; the shop's log has the order.

    Each pipeline ends with a request to the shop. A worker that answers a whole pipeline before it looks at the next
    connection asks the shop for all of these first.
    """
    shoppers = [await Shopper.comes(gateway, "sale", f"203.0.113.{number}") for number in range(3)]
    status = request("GET", "/.waitroom/status?room=sale", "sale.test", source=address(1))
    pass_ = shoppers[0].visitor.cookies[shoppers[0].visitor.pass_cookie]
    ends = request("GET", "/sale/end", "sale.test", source=address(1), Waitroom_Pass=pass_)
    worker = gateway.children("edge.worker")[0]
    async with connected(gateway, MOST // 2 + len(shoppers)) as connections:
        inside, pipelines = connections[: len(shoppers)], connections[len(shoppers) :]
        await shop.arrived()
        await worker.suspend()
        try:
            for _, writer in pipelines:
                writer.write(status * PIPELINED + ends)
                await writer.drain()
            for (_, writer), shopper in zip(inside, shoppers, strict=True):
                pass_ = shopper.visitor.cookies[shopper.visitor.pass_cookie]
                writer.write(request("GET", "/sale/inside", "sale.test", source=address(2), Waitroom_Pass=pass_))
                await writer.drain()
        finally:
            worker.kill(signal.SIGCONT)
        async with asyncio.timeout(60):
            for reader, _ in inside:
                assert (await read_answer(reader))[0] == 200
            for reader, _ in pipelines:
                assert [(await read_answer(reader))[0] for _ in range(PIPELINED + 1)] == [200] * (PIPELINED + 1)
        order = [one.path for one in await shop.arrived()]
    assert order.count("/sale/end") == len(pipelines)
    assert order.count("/sale/inside") == len(inside)
    last = max(at for at, path in enumerate(order) if path == "/sale/inside")
    assert order[:last].count("/sale/end") < len(pipelines) / 2, order


# One client with very many addresses: all of an IPv6 /64 network.

MOST_HERE = 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def balanced(tmp_path_factory: pytest.TempPathFactory, shop: RealShop) -> AsyncIterator[Gateway]:
    """Behind a load balancer with the PROXY protocol, so that connections have the visitors' addresses."""
    settings = {
        "workers": 1,
        "grace_seconds": 1,
        "client_connections": MOST,
        "client_connections_per_address": MOST_HERE,
        "proxy_protocol": True,
        "trusted_proxies": ["127.0.0.1"],
    }
    rooms = [room("sale", upstream=shop.address)]
    async with running_gateway(tmp_path_factory.mktemp("balanced"), rooms, **settings) as gateway:
        yield gateway


async def from_address(gateway: Gateway, source: str, data: bytes) -> Connection:
    """A connection of a visitor at ``source``, with what they send first."""
    reader, writer = await open_connection(gateway)
    writer.write(f"PROXY TCP6 {source} 2001:db8::1 50000 80\r\n".encode() + data)
    return reader, writer


async def status_of(connection: Connection) -> int:
    """Of the answer; 0 where the connection was closed without one."""
    try:
        async with asyncio.timeout(60):
            return (await read_answer(connection[0]))[0]
    except BROKEN:
        return 0


async def still_open(connections: Sequence[Connection]) -> list[Connection]:
    """Those that the gateway has not closed: each is asked for its status."""
    status = request("GET", "/.waitroom/status?room=sale", "sale.test")
    for _, writer in connections:
        writer.write(status)
    return [connection for connection in connections if await status_of(connection) == 200]


async def test_a_network_with_many_addresses_gets_the_connections_of_one_client(balanced: Gateway) -> None:
    """Each address is new, and says what it wants; the neighbour's network is another."""
    status = request("GET", "/.waitroom/status?room=sale", "sale.test")
    shopping = navigation("/sale", "sale.test")
    async with AsyncExitStack() as stack:
        taken = []
        for number in range(IDLE):
            connection = await from_address(balanced, address_of_network(number), status)
            stack.callback(connection[1].close)
            taken.append((connection, await status_of(connection)))
            if number % 10 == 9:  # while the network takes what it can
                neighbour = await from_address(balanced, address_of_network(0, network=2), shopping)
                assert await status_of(neighbour) == 200, f"after {number + 1} connections"
                neighbour[1].close()
        answered = [connection for connection, status_ in taken if status_ == 200]
        assert len(await still_open(answered)) <= MOST_HERE
        assert await balanced.ready() == 200
