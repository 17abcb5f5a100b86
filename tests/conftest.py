"""What several kinds of tests share: real servers, started once."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from waitroom.embedded import EmbeddedStore
from waitroom.queue.store import connect

SERVER_SECONDS = 10.0  # tests wait for answers on a busy machine


@contextmanager
def running_store(data_dir: Path) -> Iterator[str]:
    """An embedded store; gives its URL."""
    store = EmbeddedStore(data_dir)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(store.start())
        try:
            yield store.url
        finally:
            runner.run(store.stop())


def empty(url: str) -> None:
    async def flush() -> None:
        async with connect(url, timeout_seconds=SERVER_SECONDS) as redis:
            await redis.flushall()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(flush())


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_store(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def valkey(valkey_server: str) -> str:
    """The URL of an empty Valkey, the one that comes with Waitroom."""
    empty(valkey_server)
    return valkey_server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = shutil.which("redis-server")
    if path is None:
        assert "CI" not in os.environ, "redis-server is missing: install it"
        pytest.skip("redis-server is missing")
    with (
        patch("waitroom.embedded.get_binary_path", return_value=path),
        running_store(tmp_path_factory.mktemp("redis")) as url,
    ):
        yield url


@pytest.fixture
def redis(redis_server: str) -> str:
    """The URL of an empty Redis of the system's."""
    empty(redis_server)
    return redis_server


@pytest.fixture(params=["valkey", "redis"])
def each_server(request: pytest.FixtureRequest) -> str:
    """The URL of an empty server, of one kind after the other."""
    url: str = request.getfixturevalue(request.param)
    return url
