"""Both proxies, started for the first test that needs them, and ended behind the last one here.

A session's fixture would keep three servers busy until the end of all tests.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from support.reference_proxy import Proxies, two_proxies

HERE = Path(__file__).parent

running: list[Proxies] = []
servers = contextlib.ExitStack()


@pytest.fixture
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Proxies:
    if not running:
        running.append(servers.enter_context(two_proxies(tmp_path_factory.mktemp("pair"))))
    return running[0]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    if nextitem is None or not nextitem.path.is_relative_to(HERE):
        end_servers()


def pytest_sessionfinish() -> None:
    """Ends them, too, if a failure ended the tests."""
    end_servers()


def end_servers() -> None:
    running.clear()
    servers.close()
