"""What the tests of failures share; each starts and breaks a gateway of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from support.upstreams.server import Shop, running_shop


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Shop]:
    async with running_shop() as shop:
        yield shop
