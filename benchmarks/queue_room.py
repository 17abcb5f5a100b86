"""A room of the queue under test, with a manual clock."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from waitroom.queue.store import QueueStore

VIEW_INTERVAL_MS = 10_000


class Room:
    """The room under test, with a manual clock."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.now = int(time.time() * 1000)
        self.store = QueueStore(redis, "bench", clock=lambda: self.now)

    async def used_memory(self) -> int:
        """Returns the server's memory in bytes."""
        return int((await self.redis.info("memory"))["used_memory"])

    async def cpu_seconds(self) -> float:
        """Returns the CPU time of this process and of the server."""
        info = await self.redis.info("cpu")
        return time.process_time() + float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    async def server_ms(self, ask: Callable[[], Awaitable[Any]]) -> float:
        """Returns the server's time in the scripts that ``ask`` calls."""

        async def spent() -> float:
            stats = await self.redis.info("commandstats")
            return float(stats.get("cmdstat_evalsha", {"usec": 0})["usec"]) / 1000

        before = await spent()
        await ask()
        return await spent() - before

    async def wait(self, ms: int) -> None:
        """Advances the room's time."""
        while ms > 0:
            step = min(ms, VIEW_INTERVAL_MS)
            self.now += step
            ms -= step
            await self.store.view()
