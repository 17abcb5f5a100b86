"""What several unit tests share: a stand-in for the admin API, and the command run against it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli_runner import Run
from support.fake_admin_api import StandIn, stand_in


@pytest.fixture
def there() -> Iterator[StandIn]:
    with stand_in() as there:
        yield there


@pytest.fixture
def run(there: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for name in [name for name in os.environ if name.startswith("WAITROOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    return Run(monkeypatch, there.url)
