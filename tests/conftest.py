"""What several kinds of tests share: real servers, started once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from support.examples import LONG
from support.gateway_process import needs
from waitroom import gate
from waitroom.process.embedded_store import EmbeddedStore
from waitroom.store.connection import connect

# Whether the request path is compiled: then no test can replace or watch anything in it.
COMPILED = not str(gate.__file__).endswith(".py")
# With CI set, Hypothesis's own profile repeats the same examples in every run; this one tries new ones.
settings.register_profile(LONG, deadline=None, derandomize=False, print_blob=True)
SERVER_SECONDS = 10.0  # tests wait for answers on a busy machine
# Tests that one process runs one after the other. Two browsers would take the processors away from each other, so that
# pages are late. Each process with differential tests would start and keep the servers that these compare.
TOGETHER = ("tests/browser/", "tests/differential/")


def pytest_configure() -> None:
    """Ends a run that is to test the compiled wheel and would test the source."""
    if os.environ.get("EXPECT_COMPILED") and not COMPILED:
        raise pytest.UsageError(f"not compiled: {gate.__file__}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests that need a checkout if a wheel is tested, and starts with the tests that take longest."""
    left_out = [item for item in items if COMPILED and item.get_closest_marker("interpreted")]
    config.hook.pytest_deselected(items=left_out)
    kept = set(items) - set(left_out)
    items[:] = sorted((item for item in items if item in kept), key=_turn)


def _turn(item: pytest.Item) -> int:
    """The order of folders: the last ones should end at the same time, so they are those with many small files."""
    return 0 if item.nodeid.startswith(TOGETHER) else 2 if item.nodeid.startswith("tests/unit/") else 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Distributes tests by file, and by folder for those that run together, unless another way is asked for."""
    return _ByFile(config, log) if config.getoption("dist") == "loadfile" else None


class _ByFile(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        folder = next((folder for folder in TOGETHER if nodeid.startswith(folder)), None)
        return folder or super()._split_scope(nodeid)


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
    with (
        patch("waitroom.process.embedded_store.get_binary_path", return_value=needs("redis-server")),
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
