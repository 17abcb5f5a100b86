"""Both proxies, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.reference_proxy import Proxies, two_proxies


@pytest.fixture(scope="session")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxies]:
    with two_proxies(tmp_path_factory.mktemp("pair")) as proxies:
        yield proxies
