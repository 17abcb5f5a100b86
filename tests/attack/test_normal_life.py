"""What the gate must not harm: crowds behind one address, monitoring, apps of another origin, a forgotten setting."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from support.attackers import Flood, address, flood, preflight, request
from support.gateway_process import Gateway, eventually, needs, room, running_gateway
from support.nginx import nginx_command
from support.ports import free_port
from support.third_party import running
from support.upstreams.real_shops import RealShop, nginx_shop
from support.visitor_client import NAVIGATE, Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

APPS = int(os.environ.get("ATTACK_APPS", "100"))  # `make test-long` has a thousand
MONITORING, MONITORING_SECONDS = 3, 2.5
FRONT = """
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://127.0.0.1:{gateway};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealShop]:
    async with nginx_shop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, shop: RealShop) -> AsyncIterator[Gateway]:
    rooms = [
        *(room(name, upstream=shop.address, max_active=APPS) for name in ("clicked", "joined")),
        room("watched", upstream=shop.address, rate_per_minute=60),
    ]
    settings = {"workers": 2, "trusted_proxies": ["127.0.0.1"]}
    async with running_gateway(tmp_path_factory.mktemp("gateway"), rooms, **settings) as gateway:
        yield gateway


async def test_occasional_monitoring_requests_pass(gateway: Gateway, shop: RealShop) -> None:
    """Far more often than one in ten seconds, in a room whose budget is as small as it gets."""
    await shop.arrived()
    probe = request("GET", "/health", "watched.test", source="203.0.113.50", User_Agent="monitor/1", Accept="*/*")
    statuses = []
    for number in range(MONITORING):
        if number:
            await asyncio.sleep(MONITORING_SECONDS)  # the interval is what is tested: more often, and it is a flood
        statuses.extend((await flood(gateway, [probe], connections=1)).statuses)
    assert statuses == [200] * MONITORING
    assert len(await shop.arrived()) == MONITORING


@pytest.mark.parametrize("name", ["clicked", "joined"])
async def test_an_app_of_another_origin_works_inside_a_full_room(gateway: Gateway, shop: RealShop, name: str) -> None:
    """Each visitor asks for a path of their own, so that no preflight's answer serves two of them.

    They came in by a click, or by the endpoint for apps; the browser asks over whichever connection, so any worker.
    """
    visitors = await asyncio.gather(*(inside(gateway, name, number) for number in range(APPS)))
    outside = Visitor(gateway, name, headers={"X-Forwarded-For": "203.0.113.60"})
    await outside.waits()
    await shop.arrived()
    gate = asyncio.Semaphore(20)
    answers: list[Flood] = []

    async def uses(number: int, visitor: Visitor) -> None:
        path, host = f"/api/basket/{number}", visitor.host
        common = {"source": address(number), "Origin": "https://app.test"}
        pass_ = visitor.cookies[visitor.pass_cookie]
        async with gate:
            asked = preflight(path, host, **common)
            answers.append(await flood(gateway, [asked], connections=1))
            meant = request("PUT", path, host, body=b"1", Waitroom_Pass=pass_, **common)
            answers.append(await flood(gateway, [meant], connections=1))

    await asyncio.gather(*(uses(number, visitor) for number, visitor in enumerate(visitors)))
    assert sum((one.statuses for one in answers), Counter[int]()) == {204: APPS, 200: APPS}
    arrived = await shop.arrived()
    assert len({one.path for one in arrived if one.method == "PUT"}) == APPS


async def inside(gateway: Gateway, name: str, number: int) -> Visitor:
    visitor = Visitor(gateway, name, headers={"X-Forwarded-For": address(number)})
    if name == "clicked":
        await visitor.is_let_in()
    else:
        await visitor.call("join")
    assert visitor.pass_cookie in visitor.cookies
    return visitor


# A forgotten setting.


@asynccontextmanager
async def waitroom_run(folder: Path, upstream: str) -> AsyncIterator[tuple[int, Path]]:
    """The one command of the README, with nothing set."""
    port, log = free_port(), folder / "gateway.log"
    os.makedirs(folder)
    arguments = ("run", "--upstream", upstream, "--listen", f"127.0.0.1:{port}", "--workers", "2")
    admin = ("--admin-listen", f"127.0.0.1:{free_port()}", "--data-dir", str(folder / "data"))
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "waitroom.process.pdeathsig", str(os.getpid()), sys.executable, "-m", "waitroom"),
            *(*arguments, *admin),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("WAITROOM_")},
            start_new_session=True,
        )
    try:

        async def serves() -> bool:
            assert process.returncode is None, log.read_text()
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/.waitroom/status") as got:
                return got.status == 200

        await eventually(serves)
        yield port, log
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.wait()
        shutil.rmtree(folder / "data", ignore_errors=True)


async def test_missing_trusted_proxies_behind_nginx_are_reported(tmp_path: Path, shop: RealShop) -> None:
    """All visitors have nginx's address; they are served, and the log names the setting."""
    needs("nginx")
    front = free_port()
    async with waitroom_run(tmp_path / "gateway", shop.address) as (port, log):
        config = FRONT.format(port=front, gateway=port)
        async with running(nginx_command(tmp_path / "front", config), front, tmp_path / "front"):
            connector = aiohttp.TCPConnector(force_close=True, limit=50)
            async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:

                async def comes(number: int) -> bool:
                    async def has_a_place() -> bool:
                        headers = {**NAVIGATE, "X-Forwarded-For": address(number)}
                        async with http.get(f"http://127.0.0.1:{front}/sale", headers=headers) as got:
                            await got.read()
                            cookies = got.headers.getall("Set-Cookie", [])
                            assert got.status in (200, 503), got
                            return any(
                                one.startswith(("waitroom_ticket_", "waitroom_pass_")) and "Max-Age=0" not in one
                                for one in cookies
                            )

                    return await eventually(has_a_place, every=1)

                await asyncio.gather(*(comes(number) for number in range(700)))
            await eventually(lambda: _named(log))


def _named(log: Path) -> bool:
    lines = [line for line in log.read_text().splitlines() if "trusted_proxies" in line]
    assert 1 <= len(lines) <= 10, lines
    assert "127.0.0.1" in lines[0]
    return True
