"""The embedded store as a process of the supervisor, restarted whenever it ends by itself."""

from __future__ import annotations

import asyncio

from waitroom.errors import StartError
from waitroom.jobs import Jobs
from waitroom.process.child_process import RESTART_SECONDS, report
from waitroom.process.embedded_store import EmbeddedStore
from waitroom.process.liveness import LOOK_SECONDS
from waitroom.process.store_probe import StoreProbe

LONGEST_RESTART_SECONDS = 10.0  # between two starts of a store that keeps failing


class StoreProcess:
    """One embedded store that has been started; see `ChildProcess` for its attributes and methods.

    Args:
        store: The store. Its owner has started it and stops it at the end.
    """

    name = "store"

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._probe = StoreProbe(store.socket, store.data_dir)
        self._ready = True
        self._alive = True

    async def run(self) -> None:
        """Restarts the store whenever it ends, until cancelled."""
        async with Jobs() as jobs:
            jobs.every(LOOK_SECONDS, "store probe", self._probe_once)
            while True:
                code = await self._store.wait()
                self._ready = False
                report("embedded store exited unexpectedly, restarting", exit_code=code)
                await self._restart()
                self._ready = self._alive = True

    def take_sign(self) -> bool | None:
        """Whether the store has shown a sign of life since the last call; None while it isn't ready."""
        alive, self._alive = self._alive, False
        return alive if self._ready else None

    @property
    def exists(self) -> bool:
        """Whether there is a process, ready or not."""
        return self._store.pid is not None

    def kill(self) -> None:
        """Kills the store; `run` starts another."""
        self._store.kill()

    async def _restart(self) -> None:
        pause = RESTART_SECONDS
        while True:
            try:
                await self._store.stop_server()
                await self._store.start()
            except Exception as error:
                cause = str(error) if isinstance(error, StartError) else repr(error)
                report("embedded store failed to start, retrying", cause=cause, seconds=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_RESTART_SECONDS)
            else:
                return

    async def _probe_once(self) -> None:
        pid = self._store.pid
        if pid is not None and await self._probe.is_alive(pid):
            self._alive = True
