"""A shared cache in front: nginx with proxy_cache, told to cache responses with cookies. Nobody gets another's pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from support.gateway_process import Gateway, eventually, room
from support.nginx import nginx_command
from support.ports import free_port, port_is_free
from support.upstreams.server import Shop, response
from support.visitor_client import NAVIGATE
from waitroom.tokens import Pass

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

ROOMS = [room("cached")]
SETTINGS = {"workers": 1}
NGINX = """
    proxy_cache_path {folder}/cache keys_zone=pages:1m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{gateway};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_cache pages;
            proxy_ignore_headers Set-Cookie;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
"""
PASS = "waitroom_pass_cached"
# What makes nginx keep a response, whatever the Cache-Control behind it says. Other caches obey the others.
KEEP = ["X-Accel-Expires: 600", "x-accel-expires: @{later}"]
OTHERS = ["CDN-Cache-Control: max-age=600", "Surrogate-Control: max-age=600", "Edge-Control: max-age=600"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cache(gateway: Gateway, folder: Path) -> AsyncIterator[str]:
    """The address of nginx before the gateway."""
    port = free_port()
    home = folder / "nginx"
    command = nginx_command(home, NGINX.format(folder=home, port=port, gateway=gateway.port))
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await eventually(lambda: process.returncode is not None or not port_is_free(port))
        assert process.returncode is None, (home / "error.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def visit(gateway: Gateway, cache: str, path: str, cookie: str = "") -> tuple[str, str, aiohttp.ClientResponse]:
    """A visitor's pass, the state of the cache, and the answer."""
    headers = {"Host": "cached.test", **NAVIGATE} | ({"Cookie": f"{PASS}={cookie}"} if cookie else {})
    async with gateway.http.get(cache + path, headers=headers) as answer:
        assert answer.status == 200
        await answer.read()
        given = answer.cookies.get(PASS)
        return "" if given is None else given.value, answer.headers["X-Cache"], answer


def shop_says(shop: Shop, path: str, *lines: str) -> None:
    later = int(time.time()) + 600
    shop.answers[path] = response(b"fine\n", *(line.format(later=later) for line in lines))


def due(gateway: Gateway, session: int) -> str:
    """A pass that is soon to be renewed."""
    now = int(time.time())
    return gateway.tokens("cached").sign_pass(Pass(session, now + 60, now + 10_000))


@pytest.mark.parametrize("number", range(len(KEEP)))
async def test_two_newcomers_never_get_one_pass(gateway: Gateway, shop: Shop, cache: str, number: int) -> None:
    path = f"/new-{number}"
    shop_says(shop, path, KEEP[number], *OTHERS)
    found = [await visit(gateway, cache, path) for _ in range(3)]
    passes = {given for given, _, _ in found}
    assert len(passes) == 3
    assert "" not in passes
    assert "HIT" not in [status for _, status, _ in found]
    for _, _, answer in found:
        assert answer.headers.getall("Cache-Control") == ["private, no-store"]
        assert not {line.partition(":")[0] for line in OTHERS} & set(answer.headers)


@pytest.mark.parametrize("number", range(len(KEEP)))
async def test_no_pass_is_renewed_on_cached_responses(gateway: Gateway, shop: Shop, cache: str, number: int) -> None:
    path = f"/due-{number}"
    shop_says(shop, path, KEEP[number], "Cache-Control: no-store")
    found = [await visit(gateway, cache, path, due(gateway, 1000 + visitor)) for visitor in range(2)]
    assert [status for _, status, _ in found] == ["MISS", "HIT"], "the cache keeps it"
    assert [given for given, _, _ in found] == ["", ""]


async def test_a_pass_is_renewed_on_responses_that_are_not_cached(gateway: Gateway, shop: Shop, cache: str) -> None:
    shop_says(shop, "/mine", "Cache-Control: no-store", "X-Accel-Expires: 0")
    found = [await visit(gateway, cache, "/mine", due(gateway, 2000 + visitor)) for visitor in range(2)]
    assert [status for _, status, _ in found] == ["MISS", "MISS"]
    passes = {given for given, _, _ in found}
    assert len(passes) == 2
    assert "" not in passes
