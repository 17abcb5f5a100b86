"""Orphans are reaped, and the exit codes of our own processes are not stolen."""

from __future__ import annotations

import os
import sys

from support.gateway_process import eventually
from waitroom.process.spawner import Spawner


def orphan() -> int:
    """A child that nobody knows of, which ends immediately: as one that the system gives to process 1."""
    return os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", ""], {})


async def test_orphans_are_reaped_beside_our_own_processes() -> None:
    spawner = Spawner()
    first, last = orphan(), orphan()
    ours = [await spawner.start(sys.executable, "-S", "-c", f"raise SystemExit({code})") for code in range(1, 5)]
    reaped = 0

    def all_reaped() -> bool:
        nonlocal reaped
        reaped += spawner.reap_orphans()
        return reaped == 2

    await eventually(all_reaped)
    assert [await one.wait() for one in ours] == [1, 2, 3, 4]
    assert spawner.reap_orphans() == 0
    assert first != last
