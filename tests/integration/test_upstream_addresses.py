"""A shop of several addresses: the load is spread, who fails is left out, who comes back is taken up again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest
import pytest_asyncio

from support.gateway_process import Gateway, eventually, running_gateway
from support.gateway_process import room as any_room
from support.ports import free_port
from support.upstreams.server import Handler, Seen, Shop, response

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

BROWSERS = 16


def room(name: str, upstreams: list[str], **settings: object) -> dict[str, object]:
    # Requests beside the only path that has a line are forwarded at once.
    return any_room(name, upstream=upstreams, paths=["/sale"], **settings)


@dataclass
class Server:
    """A server that can be killed and started again: it answers with its name and the body it got.

    Attributes:
        path: Of its socket; without one it has a port.
    """

    name: str
    path: str = ""
    port: int = field(default_factory=free_port)
    shop: Shop = field(default_factory=Shop)
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}" if self.path else f"http://{self.address}"

    @property
    def address(self) -> str:
        """As the gateway's log has it."""
        return f"127.0.0.1:{self.port}"

    @property
    def served(self) -> int:
        return len(self.shop.seen)

    async def start(self) -> None:
        async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
            writer.write(response(self.name.encode() + b" " + seen.body))

        self.shop.answers.setdefault("/", answer)
        if self.path:
            self._server = await asyncio.start_unix_server(self.shop.serve, self.path)
        else:
            self._server = await asyncio.start_server(self.shop.serve, "127.0.0.1", self.port, backlog=1024)

    async def kill(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.shop.close()


@dataclass
class World:
    """A gateway, and the servers of its rooms by their rooms."""

    gateway: Gateway
    servers: dict[str, list[Server]]

    async def ask(
        self, name: str, path: str = "/", method: str = "GET", data: bytes | None = None
    ) -> tuple[int, bytes]:
        headers = {"Host": f"{name}.test"}
        async with self.gateway.http.request(method, self.gateway.url + path, headers=headers, data=data) as answer:
            return answer.status, await answer.read()

    def logged(self, words: str, *servers: Server) -> bool:
        """Whether each of these servers is in a line of the log with these words."""
        lines = [line for line in self.gateway.log.splitlines() if words in line]
        return all(any(server.address in line for line in lines) for server in servers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("addresses")
    servers = {
        "killed": [Server("one"), Server("two")],
        "fewest": [Server("one"), Server("two"), Server("three")],
        "down": [Server("one"), Server("two")],
        "hangs-up": [Server("one"), Server("two")],
        "checked": [Server("one"), Server("two")],
        "sockets": [Server(name, str(folder / f"{name}.sock")) for name in ("one", "two")],
    }
    servers["once"] = servers["hangs-up"]
    servers["alone"] = servers["sockets"][:1]
    more = {"checked": {"health_path": "/healthz", "health_seconds": 5}}
    rooms = [room(name, [one.url for one in each], **more.get(name, {})) for name, each in servers.items()]
    started = {id(one): one for each in servers.values() for one in each}.values()
    for one in servers["checked"]:
        one.shop.answers["/healthz"] = response()
    try:
        for one in started:
            await one.start()
        async with running_gateway(folder / "gateway", rooms, workers=1) as gateway:
            yield World(gateway, servers)
    finally:
        for one in started:
            await one.kill()


@dataclass
class Crowd:
    """Browsers that ask without end, and what they got."""

    gateway: Gateway
    room: str
    answers: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)

    async def _browse(self, http: aiohttp.ClientSession, method: str, data: bytes | None) -> None:
        while True:
            async with http.request(
                method, self.gateway.url, headers={"Host": f"{self.room}.test"}, data=data
            ) as answer:
                body = await answer.read()
            self.answers[f"{method} {answer.status}"] += 1
            name, _, rest = body.decode(errors="replace").partition(" ")
            self.served[name if rest == (data or b"").decode() else "wrong"] += 1

    @contextlib.asynccontextmanager
    async def browsing(self, method: str = "GET", data: bytes | None = None) -> AsyncIterator[None]:
        """Asks while the block runs; only then may anything go wrong."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            browsers = [asyncio.create_task(self._browse(http, method, data)) for _ in range(BROWSERS)]
            try:
                yield
            finally:
                for one in browsers:
                    one.cancel()
                ended = await asyncio.gather(*browsers, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended

    async def comes(self, count: int, *names: str) -> None:
        """Waits until so many more were served by each of these."""
        before = self.served.copy()
        await eventually(lambda: all(self.served[name] - before[name] >= count for name in names))


async def test_a_server_is_killed_and_restarted_under_load_unnoticed(world: World) -> None:
    _, two = world.servers["killed"]
    crowd = Crowd(world.gateway, "killed")
    async with crowd.browsing():
        await crowd.comes(200, "one", "two")
        await two.kill()
        await crowd.comes(400, "one")
        await eventually(lambda: world.logged("upstream down", two))
    assert crowd.answers.keys() == {"GET 200"}, crowd.answers
    assert crowd.served.keys() == {"one", "two"}, crowd.served

    # Bodies may be sent once only, so an address is found dead before any of one is.
    async with crowd.browsing("POST", b"an order"):
        await crowd.comes(400, "one")
        await two.start()
        await crowd.comes(400, "one", "two")
    assert crowd.answers.keys() == {"GET 200", "POST 200"}, crowd.answers
    assert crowd.served.keys() == {"one", "two"}, crowd.served
    assert world.logged("upstream up", two)


async def test_each_request_goes_to_the_least_busy_server(world: World) -> None:
    """Counted while none is answered, as the speeds of three servers on a busy machine are nobody's promise."""
    servers = world.servers["fewest"]
    doors = [asyncio.Event() for _ in servers]

    def behind(door: asyncio.Event) -> Handler:
        async def answer(_seen: Seen, writer: asyncio.StreamWriter) -> None:
            await door.wait()
            writer.write(response())

        return answer

    for server, door in zip(servers, doors, strict=True):
        server.shop.answers["/"] = behind(door)

    def served() -> list[int]:
        return [server.served for server in servers]

    async def come(count: int) -> list[asyncio.Task[tuple[int, bytes]]]:
        total = count + sum(served())
        visits = [asyncio.create_task(world.ask("fewest")) for _ in range(count)]
        await eventually(lambda: sum(served()) == total)
        return visits

    visits = await come(15)
    assert served() == [5, 5, 5]
    doors[1].set()
    await eventually(lambda: sum(one.done() for one in visits) == 5)
    doors[1].clear()
    visits += await come(4)
    assert served() == [5, 9, 5]
    visits += await come(4)
    assert sorted(served()) == [6, 6, 11]
    for door in doors:
        door.set()
    assert [status for status, _ in await asyncio.gather(*visits)] == [200] * 23


async def test_the_first_server_to_recover_serves(world: World) -> None:
    one, two = world.servers["down"]
    await one.kill()
    await two.kill()
    assert [(await world.ask("down", method="POST", data=b"x"))[0] for _ in range(6)] == [502] * 6
    assert world.logged("upstream down", one, two)
    await one.start()
    assert (await world.ask("down", method="POST", data=b"x"))[0] == 200


async def test_an_idempotent_request_is_retried_elsewhere_if_a_server_hangs_up(world: World) -> None:
    one, two = world.servers["hangs-up"]

    async def hang_up(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.close()

    one.shop.answers["/"] = hang_up
    assert (await world.ask("hangs-up"))[0] == 200
    assert (one.served, two.served) == (1, 1)
    assert (await world.ask("once", method="POST", data=b"an order"))[0] == 502
    assert (one.served, two.served) == (2, 1)
    # A single visitor can bring that about, so no address is taken out of rotation for it.
    for server in (one, two):
        assert not world.logged("upstream down", server)


async def test_a_health_check_keeps_visitors_from_an_unhealthy_server(world: World) -> None:
    one, two = world.servers["checked"]

    async def visits(server: Server, *, after: int) -> bool:
        assert (await world.ask("checked"))[0] == 200
        return "/" in server.shop.paths()[after:]

    await eventually(lambda: visits(two, after=0))
    two.shop.answers["/healthz"] = response(status="503 Service Unavailable")
    await eventually(lambda: world.logged("status 503", two))
    assert world.logged("upstream unhealthy", two)
    ill = two.served
    for _ in range(10):
        assert not await visits(two, after=ill)
    two.shop.answers["/healthz"] = response(status="302 Found")
    await eventually(lambda: visits(two, after=ill))
    assert world.logged("upstream healthy", two)
    assert not world.logged("upstream unhealthy", one)
    check = two.shop.last("/healthz")
    assert (check.method, check.all("Host"), check.one("Cookie")) == ("GET", ["checked.test"], None)


async def test_unix_sockets_serve(world: World) -> None:
    for name in ("sockets", "sockets", "alone"):
        assert await world.ask(name, f"/{name}") == (200, b"<p>The shop.\n")
    one, two = world.servers["sockets"]
    assert one.shop.paths() == ["/sockets", "/alone"]
    assert two.shop.paths() == ["/sockets"]
