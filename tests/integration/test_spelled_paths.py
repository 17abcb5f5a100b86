"""Odd spellings of paths, with nginx as the shop: its log says what has reached it, and what it took that for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.gateway_process import Gateway, eventually, room, running_gateway
from support.nginx import nginx_command
from support.ports import free_port, port_is_free
from support.visitor_client import Visitor, Wire

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SHOP = """
log_format seen '$uri';
server {{
    listen 127.0.0.1:{port};
    access_log {log} seen;
    location / {{ return 200 "shop"; }}
    location ~ ^/(index\\.php/)?sale {{ return 200 "order"; }}
}}
"""

# One path in seven spellings, as gateways and shops disagree about them.
SPELLED = (
    *(b"/information/../sale/buy", b"/information/%2e%2e/sale/buy", b"/information/..%2fsale/buy"),
    *(b"/information/;/../sale/buy", b"/information/..;/sale/buy", b"/information\\..\\sale\\buy"),
    b"/information/%252e%252e/sale/buy",
)
SAME_NAME = (
    *(b"/index.php/sale", b"/sale.json", b"/sale.html", b"/sale.", b"/sale%20", b"/sale%00", b"/sale%09", b"/sale~"),
    *(b"/sale;x", b"/x/../index.php/sale", b"/sale%2ejson", b"/index%2ephp/sale"),
)


class Nginx:
    """The shop."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "access.log"
        self.command = nginx_command(folder, SHOP.format(port=self.port, log=self.log))

    def paths(self) -> list[str]:
        """What it has answered, as it read the paths."""
        return self.log.read_text().splitlines()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nginx(folder: Path) -> AsyncIterator[Nginx]:
    nginx = Nginx(folder / "nginx")
    process = await asyncio.create_subprocess_exec(*nginx.command)
    try:
        await eventually(lambda: process.returncode is not None or not port_is_free(nginx.port))
        assert process.returncode is None, (folder / "nginx" / "error.log").read_text()
        yield nginx
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(nginx: Nginx, folder: Path) -> AsyncIterator[Gateway]:
    shop = {"upstream": f"http://127.0.0.1:{nginx.port}", "max_active": 1}
    rooms = [
        room("sale", hosts=["two.test"], **shop),
        room("information", hosts=["two.test"], paths=["/information"], method="passthrough", **shop),
        room("covered", hosts=["one.test"], paths=["/sale"], **shop),
    ]
    async with running_gateway(folder, rooms, workers=1) as gateway:
        yield gateway


async def ask(gateway: Gateway, host: bytes, target: bytes) -> int:
    async with Wire.open(gateway) as wire:
        await wire.send(b"GET %b HTTP/1.1\r\nHost: %b\r\nAccept: text/html\r\n\r\n" % (target, host))
        return (await wire.answer()).status


async def fill(gateway: Gateway, name: str, host: bytes) -> None:
    await Visitor(gateway, name, host=host.decode()).goes_in("/sale")

    async def noticed() -> bool:
        return await ask(gateway, host, b"/sale") == 503

    await eventually(noticed)


async def reached(gateway: Gateway, nginx: Nginx, host: bytes, mark: bytes) -> list[str]:
    """All that has reached the shop until a request that does: it answers and logs one after the other."""
    assert await ask(gateway, host, mark) == 200
    await eventually(lambda: mark.decode() in nginx.paths())
    return nginx.paths()


async def test_no_spelling_enters_a_room_through_another(gateway: Gateway, nginx: Nginx) -> None:
    await fill(gateway, "sale", b"two.test")
    before = len(await reached(gateway, nginx, b"two.test", b"/information/begun"))

    statuses = [await ask(gateway, b"two.test", target) for target in SPELLED]

    assert (await reached(gateway, nginx, b"two.test", b"/information/marked"))[before:] == ["/information/marked"]
    assert statuses == [400] * 7
    await eventually(lambda: "path refused" in gateway.log)
    for target in (b"/information", b"/information/a/../faq", b"/INFORMATION/x"):
        assert await ask(gateway, b"two.test", target) == 200, target
    for target in (b"/sale/buy", b"/", b"/a/../sale"):
        assert await ask(gateway, b"two.test", target) == 503, target


async def test_a_prefix_covers_what_the_shop_serves_under_the_same_name(gateway: Gateway, nginx: Nginx) -> None:
    await fill(gateway, "covered", b"one.test")
    before = len(await reached(gateway, nginx, b"one.test", b"/begun"))

    for target in SAME_NAME:
        assert await ask(gateway, b"one.test", target) in (400, 503), target

    assert (await reached(gateway, nginx, b"one.test", b"/marked"))[before:] == ["/marked"]
    for target in (b"/sales", b"/index.php", b"/index.php/about", b"/about.html"):
        assert await ask(gateway, b"one.test", target) == 200, target
