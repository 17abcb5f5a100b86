"""A gateway and a shop for each module here that names its rooms in ROOMS; tests keep apart by rooms of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from gateway import Gateway, running_gateway
from shop_server import Shop, running_shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Shop]:
    async with running_shop() as shop:
        yield shop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(request: pytest.FixtureRequest, shop: Shop, folder: Path) -> AsyncIterator[Gateway]:
    rooms = [{"upstream": shop.address, **one} for one in request.module.ROOMS]
    for one in rooms:
        one["upstream"] = one["upstream"].format(folder=folder)
    async with running_gateway(folder, rooms, **getattr(request.module, "SETTINGS", {})) as gateway:
        yield gateway
