"""Starts child processes, and reaps those of others.

As process 1 of a container, or after a shell script's ``exec``, we are the parent of processes that we haven't started.
They would stay zombies, each with a process id, until there are none left.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any


class Spawner:
    """Knows which processes are ours, so that the exit codes of these are left to asyncio."""

    def __init__(self) -> None:
        self._processes: list[asyncio.subprocess.Process] = []
        self._starting = 0

    async def start(self, *command: str, **options: Any) -> asyncio.subprocess.Process:
        """Starts a process; see `asyncio.create_subprocess_exec`."""
        self._starting += 1
        try:
            process = await asyncio.create_subprocess_exec(*command, **options)
        finally:
            self._starting -= 1
        self._processes = [one for one in self._processes if one.returncode is None]
        self._processes.append(process)
        return process

    def reap_orphans(self) -> int:
        """Reaps processes that have ended and aren't ours, as far as none of ours is first. Returns their number."""
        if not hasattr(os, "waitid"):  # on macOS before Python 3.13
            return 0
        own = {one.pid for one in self._processes if one.returncode is None}
        count = 0
        while not self._starting:  # a process of ours may have ended before its id is known
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None or found.si_pid in own:
                break
            os.waitpid(found.si_pid, 0)
            count += 1
        return count
