"""The gateway beside another proxy: Debian's nginx asks it by auth_request and serves the shop itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import pytest_asyncio

from support.gateway_process import Gateway, eventually, room
from support.nginx import nginx_command
from support.ports import free_port, port_is_free
from support.upstreams.server import Shop
from support.visitor_client import Visitor, Wire

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AUTH, FRONT = free_port(), free_port()
ROOMS = [room("auth", max_active=1), room("part", paths=["/sale/"]), room("front", max_active=1)]
SETTINGS = {"workers": 1, "trusted_proxies": ["127.0.0.1"]}
DEPLOY = Path(__file__).parents[2] / "deploy"


def server(name: str, port: int, gateway: Gateway, shop: Shop) -> str:
    """A server as we tell people to write it, but for the certificate and the addresses."""
    text = (DEPLOY / name).read_text()
    for old, new in {
        "listen 443 ssl;": f"listen 127.0.0.1:{port};",
        "http://127.0.0.1:8080": gateway.url,
        "http://127.0.0.1:3000": shop.address,
    }.items():
        assert old in text or ("3000" in old and port == FRONT), old
        text = text.replace(old, new)
    return "\n".join(line for line in text.splitlines() if not line.strip().startswith(("ssl_", "server_name")))


@dataclass
class Behind(Visitor):
    """A visitor whom nginx meets first."""

    port: int = AUTH

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nginx(gateway: Gateway, shop: Shop, folder: Path) -> AsyncIterator[None]:
    both = server("nginx-forward-auth.conf", AUTH, gateway, shop) + server("nginx.conf", FRONT, gateway, shop)
    process = await asyncio.create_subprocess_exec(*nginx_command(folder, both))
    try:
        await eventually(lambda: process.returncode is not None or not (port_is_free(AUTH) or port_is_free(FRONT)))
        assert process.returncode is None, (folder / "error.log").read_text()
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_nginx_in_front_of_the_gateway(gateway: Gateway, shop: Shop, nginx: None) -> None:
    first, second = Behind(gateway, "front", port=FRONT), Behind(gateway, "front", port=FRONT)
    await first.goes_in("/front?x=1")
    seen = shop.last("/front")
    assert (seen.target, seen.one("Host"), seen.one("X-Forwarded-Host")) == ("/front?x=1", "front.test", "front.test")
    assert seen.one("X-Forwarded-For") == "127.0.0.1, 127.0.0.1"

    async def waits() -> bool:
        return (await second.waits()).page_position == 1

    await eventually(waits)
    assert (await first.navigate("/front", "POST", b"x=1")).status == 200
    await first.call("leave")
    await second.state("called")
    await second.goes_in()


async def test_nginx_buffers_the_whole_body_before_it_forwards_a_request(
    gateway: Gateway, shop: Shop, nginx: None
) -> None:
    async with Wire.open(gateway, port=FRONT) as wire:
        await wire.send(b"POST /slow HTTP/1.1\r\nHost: part.test\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1_999_999)
        async with Wire.open(gateway, port=FRONT) as other:
            await other.send(b"GET /other HTTP/1.1\r\nHost: part.test\r\n\r\n")
            assert (await other.answer()).status == 200
        assert "/slow" not in shop.paths()
        await wire.send(b"x")
        assert (await wire.answer()).status == 200
    assert len(shop.last("/slow").body) == 2_000_000


async def test_another_proxy_sends_visitors_through_the_queue(gateway: Gateway, shop: Shop, nginx: None) -> None:
    first = Behind(gateway, "auth")
    sent = await first.navigate("/sale?item=1&size=L")
    assert sent.status == 303
    assert "/sale" not in shop.paths()
    page = urlsplit(sent.headers["Location"])
    assert page.path == "/.waitroom/wait"
    page = f"{page.path}?{page.query}"

    went = await first.navigate(page)  # nobody waits: in at once, and back to where they wanted to go

    assert (went.status, went.headers["Location"]) == (303, f"{page}&entered=1")
    assert first.pass_cookie in first.cookies
    went = await first.navigate(f"{page}&entered=1")
    assert (went.status, went.headers["Location"]) == (303, "/sale?item=1&size=L")
    assert (await first.navigate("/sale?item=1&size=L")).status == 200
    seen = shop.last("/sale")
    assert seen.target == "/sale?item=1&size=L"
    posted = await first.navigate("/sale", "POST", b"x=1")
    assert (posted.status, shop.seen[-1].method, shop.seen[-1].body) == (200, "POST", b"x=1")

    second = Behind(gateway, "auth")
    await second.navigate("/basket")
    waiting = await second.navigate(page)
    assert (waiting.status, waiting.state, waiting.page_position) == (503, "waiting", 1)
    assert (await second.navigate("/basket")).status == 303
    assert "/basket" not in shop.paths()
    assert (await second.status())["state"] == "waiting"
    await first.call("leave")
    await second.state("called")
    assert (await second.navigate(page)).status == 303
    assert (await second.navigate("/basket")).status == 200
    assert (await eventually(lambda: gateway.members("auth", "active"))).keys() == {second.pass_.session}


async def test_the_responses_of_the_check(gateway: Gateway) -> None:
    stranger, inside = Visitor(gateway, "part"), Visitor(gateway, "part")
    await inside.goes_in("/sale/")

    refused = await stranger.fetch("/.waitroom/check", X_Original_URI="/sale/a%20b?x=1&y=2")
    assert refused.status == 401
    address = f"/.waitroom/wait?room=part&to={quote('/sale/a%20b?x=1&y=2', safe='/')}"
    assert refused.headers["Location"] == address
    assert refused.json == {"waiting_page": address}
    assert not refused.cookie_lines
    assert (await stranger.fetch("/.waitroom/check", X_Original_URI="/about")).status == 200
    for uri in ("/SALE/", "//sale/", "/%73ale/", "/about/../sale/"):
        assert (await stranger.fetch("/.waitroom/check", X_Original_URI=uri)).status == 401, uri

    let_by = await inside.fetch("/.waitroom/check", X_Original_URI="/sale/")
    assert let_by.status == 200
    assert let_by.headers["Waitroom-Session"] == f"{inside.pass_.session:x}"
    assert let_by.headers["Cache-Control"] == "no-store"


async def test_the_waiting_page_redirects_to_no_other_site(gateway: Gateway) -> None:
    for to in (
        "//elsewhere.test/",
        "/\\elsewhere.test",
        "https://elsewhere.test/",
        "javascript:alert(1)",
        "/a\r\nX: y",
        "",
    ):
        visitor = Visitor(gateway, "part")
        answer = await visitor.navigate(f"/.waitroom/wait?room=part&to={quote(to, safe='')}")
        assert (answer.status, answer.headers["Location"]) == (303, "/.waitroom/wait?room=part&to=/&entered=1"), to
        answer = await visitor.navigate(answer.headers["Location"])
        assert (answer.status, answer.headers["Location"]) == (303, "/"), to
