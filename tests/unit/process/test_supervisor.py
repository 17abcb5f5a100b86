"""The supervisor's look at its children: it survives errors, and ends without children."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from waitroom.errors import SupervisorError
from waitroom.process import liveness, supervisor
from waitroom.process.supervisor import Supervisor
from waitroom.settings import RoomSettings, Settings


async def test_looks_go_on_after_errors_until_there_is_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0)
    monkeypatch.setattr(liveness, "CHILDLESS_SECONDS", 0)
    one = Supervisor(Settings(rooms=(RoomSettings(name="shop", upstream="http://127.0.0.1:3000"),)), lambda _: None)
    errors = [OSError(24, "Too many open files") for _ in range(3)]

    def reap() -> int:
        if errors:
            raise errors.pop()
        return 0

    monkeypatch.setattr(one._spawner, "reap_orphans", reap)
    with capture_logs() as logs, pytest.raises(SupervisorError, match="no child process could be started"):
        await one._watch(20.0)
    assert not errors
    assert [line["event"] for line in logs] == ["looking after the processes failed"]
