"""The supervision of a child goes on after any error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from waitroom.process import child_process
from waitroom.process.child_process import ChildProcess


class BrokenLog:
    def error(self, *_: object, **__: object) -> None:
        raise BrokenPipeError


class Failing(ChildProcess):
    """A child whose starts end in various ways."""

    def __init__(self, *ends: int | Exception) -> None:
        unused: Any = None
        super().__init__("edge 0", "no.module", 0, unused, unused, unused)
        self.ends = list(ends)
        self.lasts = asyncio.Event()

    async def _run_once(self) -> int:
        if not self.ends:
            self.lasts.set()
            await asyncio.Event().wait()
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


@pytest.mark.parametrize("log", [child_process.log, BrokenLog()])
async def test_a_child_is_started_again_after_any_error(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "RESTART_SECONDS", 0)
    monkeypatch.setattr(child_process, "log", log)
    child = Failing(1, BlockingIOError("no free process"), -9, RuntimeError("a bug"), 0)
    running = asyncio.create_task(child.run())
    async with asyncio.timeout(10):
        await child.lasts.wait()
    assert not running.done()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
