"""What several modules here share.

A gateway and a shop for each module that names its rooms in ROOMS; tests keep apart by rooms of their own. And
the admin listener alone, with a real store behind it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.admin_app import USERS, Admin, Diary, settings_in
from support.gateway_process import Gateway, running_gateway
from support.upstreams.server import Shop, running_shop
from waitroom.control.auth.login_store import LoginStore
from waitroom.store.connection import connect


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


@pytest.fixture
async def access_store(valkey: str) -> AsyncIterator[LoginStore]:
    async with connect(valkey, timeout_seconds=10) as redis:
        yield LoginStore(redis, clock=lambda: 1_790_000_000_000)  # pauses don't end while a busy machine is slow


@pytest.fixture
async def admin(access_store: LoginStore, tmp_path: Path) -> AsyncIterator[Admin]:
    """With users; a proxy on this machine is believed."""
    async with Admin(settings_in(tmp_path, USERS, trusted_proxies=("127.0.0.1",)), access_store, Diary()) as admin:
        yield admin


@pytest.fixture
async def lone(access_store: LoginStore, tmp_path: Path) -> AsyncIterator[Admin]:
    """Without users."""
    async with Admin(settings_in(tmp_path), access_store, Diary()) as admin:
        yield admin
