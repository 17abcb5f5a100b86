"""The supervision of the embedded store goes on after any error of its probe."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from waitroom.process import store_process
from waitroom.process.store_probe import StoreProbe
from waitroom.process.store_process import StoreProcess


class Running:
    """A store that runs."""

    pid = 1
    socket = Path("store.sock")
    data_dir = Path()

    async def wait(self) -> int:
        await asyncio.Event().wait()
        return 0


async def test_a_store_whose_probe_failed_once_is_still_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_process, "LOOK_SECONDS", 0)
    errors: list[Exception] = [ValueError("odd"), RuntimeError("odder")]
    probed = asyncio.Event()

    async def is_alive(probe: StoreProbe, pid: int) -> bool:
        if errors:
            raise errors.pop()
        probed.set()
        return True

    monkeypatch.setattr(StoreProbe, "is_alive", is_alive)
    store: Any = Running()
    child = StoreProcess(store)
    child.take_sign()
    running = asyncio.create_task(child.run())
    async with asyncio.timeout(10):
        await probed.wait()
    await asyncio.sleep(0)
    assert child.take_sign()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(asyncio.all_tasks()) == 1, "the probe ends with it"
