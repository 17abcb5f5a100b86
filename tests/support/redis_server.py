"""A Redis of the system, with its persistence and its failures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from support.gateway_process import STORE_SECONDS, eventually, needs
from waitroom.store.connection import connect


@dataclass
class SystemRedis:
    """The system's redis-server on a unix socket, with or without a file."""

    folder: Path
    program: str
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/redis.sock"

    @property
    def file(self) -> Path:
        """The folder of its append-only file."""
        return self.folder / "appendonlydir"

    async def start(self) -> None:
        """Starts it over what its folder holds, and waits until it answers."""
        os.makedirs(self.folder, exist_ok=True)
        options = {
            "port": "0",
            "unixsocket": f"{self.folder}/redis.sock",
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",
            "logfile": f"{self.folder}/redis.log",
        }
        self.process = await asyncio.create_subprocess_exec(
            *(self.program, *(part for key, value in options.items() for part in (f"--{key}", value))),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

        async def answers() -> bool:
            async with connect(self.url, timeout_seconds=STORE_SECONDS) as redis:
                try:
                    return bool(await redis.ping())
                except Exception as error:
                    raise AssertionError(repr(error)) from error

        await eventually(answers)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """Kills it, also when it was stopped by SIGSTOP."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Ends it as an administrator does; all its data is in its file then."""
        assert self.process is not None
        self.process.terminate()
        await self.process.wait()

    def forget(self) -> None:
        """Removes its file, as if it ran on another machine from now on."""
        shutil.rmtree(self.file, ignore_errors=True)


@contextlib.asynccontextmanager
async def system_redis(folder: Path) -> AsyncIterator[SystemRedis]:
    redis = SystemRedis(folder, needs("redis-server"))
    await redis.start()
    try:
        yield redis
    finally:
        await redis.kill()
