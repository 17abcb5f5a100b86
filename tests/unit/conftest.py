"""What several unit tests share: a stand-in for the admin API, and the command run against it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from admin_stand_in import StandIn, stand_in
from cli_runner import Run


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
