"""A task that asks the store can be cancelled at any moment."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from waitroom.queue.fields import Limits
from waitroom.queue.store import QueueStore
from waitroom.store.connection import connect

SERVER_SECONDS = 10.0


@pytest.mark.slow
async def test_a_cancellation_is_never_lost(valkey: str) -> None:
    """Cancelled after every number of turns of the loop that a call may take."""
    async with connect(valkey, timeout_seconds=SERVER_SECONDS) as redis:
        store = QueueStore(redis, "shop")
        await store.open(Limits(600, 1_000, 900, 180, 180, 3600))
        for turns in range(1000):
            calls = 0

            async def ask_thrice() -> None:
                nonlocal calls
                for _ in range(3):
                    await store.tick()
                    calls += 1

            task = asyncio.create_task(ask_thrice())
            for _ in range(turns):
                await asyncio.sleep(0)
            before = calls
            if not task.cancel():
                break
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert calls == before
        else:
            pytest.fail("three calls take more turns than that")
