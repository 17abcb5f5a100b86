"""One gateway and one shop for all proxies of a module, which start when they are first needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.gateway_process import Gateway, running_gateway
from support.proxies import HOST, Proxies, running_proxies
from support.upstreams.server import Shop, running_shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Shop]:
    async with running_shop() as shop:
        yield shop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxies")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(request: pytest.FixtureRequest, shop: Shop, folder: Path) -> AsyncIterator[Gateway]:
    rooms = [{"hosts": [HOST], "upstream": shop.address, **one} for one in request.module.ROOMS]
    async with running_gateway(folder, rooms, workers=1, trusted_proxies=["127.0.0.1"]) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxies(gateway: Gateway, shop: Shop, folder: Path) -> AsyncIterator[Proxies]:
    async with running_proxies(folder, gateway, shop) as proxies:
        yield proxies
