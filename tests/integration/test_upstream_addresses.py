"""A shop of several addresses: the load is spread, who fails is left out, who comes back is taken up again."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from support.gateway_process import Gateway, eventually, running_gateway
from support.gateway_process import room as any_room
from support.ports import free_port
from support.upstreams.server import Handler, Seen, Shop, response, running_shop

pytestmark = [pytest.mark.slow]

SERVER = Path(__file__).parents[1] / "support" / "upstreams" / "killable.py"
BROWSERS = 16


def room(upstreams: list[str], **settings: object) -> dict[str, object]:
    # Requests beside the only path that has a line are forwarded at once.
    return any_room("shop", upstream=upstreams, paths=["/sale"], **settings)


@dataclass
class Server:
    """A server that can be killed and started again."""

    name: str
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(SERVER), str(self.port), self.name), stdout=asyncio.subprocess.PIPE
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            assert await self.process.stdout.readline() == b"ready\n"

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def servers(*names: str) -> AsyncIterator[list[Server]]:
    started = [Server(name) for name in names]
    try:
        for one in started:
            await one.start()
        yield started
    finally:
        for one in started:
            await one.kill()


@dataclass
class Crowd:
    """Browsers that ask without end, and what they got."""

    gateway: Gateway
    answers: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)

    async def _browse(self, http: aiohttp.ClientSession, method: str, data: bytes | None) -> None:
        while True:
            async with http.request(method, self.gateway.url, headers={"Host": "shop.test"}, data=data) as answer:
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


async def test_a_server_is_killed_and_comes_back_under_load_and_nobody_notices(tmp_path: Path) -> None:
    async with (
        servers("one", "two") as (one, two),
        running_gateway(tmp_path, [room([one.url, two.url])], workers=1) as gateway,
    ):
        crowd = Crowd(gateway)
        async with crowd.browsing():
            await crowd.comes(200, "one", "two")
            await two.kill()
            await crowd.comes(400, "one")
            await eventually(lambda: "upstream down" in gateway.log)
        assert crowd.answers.keys() == {"GET 200"}, crowd.answers
        assert crowd.served.keys() == {"one", "two"}, crowd.served

        # Bodies may be sent once only, so an address is found dead before any of one is.
        async with crowd.browsing("POST", b"an order"):
            await crowd.comes(400, "one")
            await two.start()
            await crowd.comes(400, "one", "two")
        assert crowd.answers.keys() == {"GET 200", "POST 200"}, crowd.answers
        assert crowd.served.keys() == {"one", "two"}, crowd.served
        assert "upstream up" in gateway.log


async def test_each_request_goes_to_where_the_fewest_are(tmp_path: Path) -> None:
    """Counted while none is answered, as the speeds of three servers on a busy machine are nobody's promise."""
    async with running_shop() as one, running_shop() as two, running_shop() as three:
        shops = [one, two, three]
        doors = [asyncio.Event() for _ in shops]

        def behind(door: asyncio.Event) -> Handler:
            async def answer(_seen: Seen, writer: asyncio.StreamWriter) -> None:
                await door.wait()
                writer.write(response())

            return answer

        for shop, door in zip(shops, doors, strict=True):
            shop.answers["/"] = behind(door)
        async with running_gateway(tmp_path, [room([shop.address for shop in shops])], workers=1) as gateway:

            async def visit() -> int:
                async with gateway.http.get(gateway.url, headers={"Host": "shop.test"}) as answer:
                    await answer.read()
                    return answer.status

            async def come(count: int) -> list[asyncio.Task[int]]:
                total = count + sum(len(shop.seen) for shop in shops)
                visits = [asyncio.create_task(visit()) for _ in range(count)]
                await eventually(lambda: sum(len(shop.seen) for shop in shops) == total)
                return visits

            visits = await come(15)
            assert [len(shop.seen) for shop in shops] == [5, 5, 5]
            doors[1].set()
            await eventually(lambda: sum(one.done() for one in visits) == 5)
            doors[1].clear()
            visits += await come(4)
            assert [len(shop.seen) for shop in shops] == [5, 9, 5]
            visits += await come(4)
            assert sorted(len(shop.seen) for shop in shops) == [6, 6, 11]
            for door in doors:
                door.set()
            assert await asyncio.gather(*visits) == [200] * 23


async def test_where_all_are_down_the_first_to_come_back_serves(tmp_path: Path) -> None:
    async with (
        servers("one", "two") as (one, two),
        running_gateway(tmp_path, [room([one.url, two.url])], workers=1) as gateway,
    ):
        await one.kill()
        await two.kill()

        async def status() -> int:
            async with gateway.http.post(gateway.url, headers={"Host": "shop.test"}, data=b"x") as answer:
                return answer.status

        assert [await status() for _ in range(6)] == [502] * 6
        down = [line for line in gateway.log.splitlines() if "upstream down" in line]
        for server in (one, two):
            assert any(server.url.removeprefix("http://") in line for line in down)
        await one.start()
        assert await status() == 200


async def test_what_may_be_sent_twice_goes_to_another_address_where_one_hangs_up(tmp_path: Path) -> None:
    async def hang_up(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with running_shop() as one, running_shop() as two:
        one.answers["/"] = hang_up
        both = [one.address, two.address]
        rooms = [room(both), any_room("once", upstream=both, paths=["/sale"])]
        async with running_gateway(tmp_path, rooms, workers=1) as gateway:
            async with gateway.http.get(gateway.url, headers={"Host": "shop.test"}) as answer:
                assert answer.status == 200
            assert (len(one.seen), len(two.seen)) == (1, 1)
            async with gateway.http.post(gateway.url, headers={"Host": "once.test"}, data=b"an order") as answer:
                assert answer.status == 502
            assert (len(one.seen), len(two.seen)) == (2, 1)
            # A single visitor can bring that about, so no address is taken out of rotation for it.
            assert "upstream down" not in gateway.log


async def test_a_health_check_keeps_visitors_from_an_ill_address(tmp_path: Path) -> None:
    async with running_shop() as one, running_shop() as two:
        for shop in (one, two):
            shop.answers["/healthz"] = response()
        both = room([one.address, two.address], health_path="/healthz", health_seconds=5)
        async with running_gateway(tmp_path, [both], workers=1) as gateway:

            async def visits(shop: Shop, *, after: int) -> bool:
                async with gateway.http.get(gateway.url, headers={"Host": "shop.test"}) as answer:
                    assert answer.status == 200
                return "/" in shop.paths()[after:]

            await eventually(lambda: visits(two, after=0))
            two.answers["/healthz"] = response(status="503 Service Unavailable")
            await eventually(lambda: "status 503" in gateway.log)
            assert "upstream unhealthy" in gateway.log
            ill = len(two.seen)
            for _ in range(10):
                assert not await visits(two, after=ill)
            two.answers["/healthz"] = response(status="302 Found")
            await eventually(lambda: visits(two, after=ill))
            assert "upstream healthy" in gateway.log
            check = two.last("/healthz")
            assert (check.method, check.all("Host"), check.one("Cookie")) == ("GET", ["shop.test"], None)


async def test_sockets_serve_alone_and_together(tmp_path: Path) -> None:
    shops = [Shop(), Shop()]
    async with contextlib.AsyncExitStack() as stack:
        for number, shop in enumerate(shops):
            path = tmp_path / f"{number}.sock"
            shop.address = f"unix://{path}"
            await stack.enter_async_context(await asyncio.start_unix_server(shop.serve, path))
        rooms = [
            room([shop.address for shop in shops]),
            any_room("alone", upstream=shops[0].address, paths=["/sale"]),
        ]
        async with running_gateway(tmp_path, rooms, workers=1) as gateway:
            for name in ("shop", "shop", "alone"):
                async with gateway.http.get(f"{gateway.url}/{name}", headers={"Host": f"{name}.test"}) as answer:
                    assert (answer.status, await answer.read()) == (200, b"<p>The shop.\n")
        assert shops[0].paths() == ["/shop", "/alone"]
        assert shops[1].paths() == ["/shop"]
        for shop in shops:
            await shop.close()
