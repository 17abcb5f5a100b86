"""The embedded store: cancellation of its start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from waitroom.process import embedded_store
from waitroom.process.embedded_store import EmbeddedStore


class Swallowing:
    """A client whose ping responds although it was cancelled, as redis-py does before Python 3.12."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def __aenter__(self) -> Swallowing:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ping(self) -> bool:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return True
        return False


class Running:
    returncode = None


async def test_a_cancelled_start_ends_even_if_the_client_swallows_the_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis: Any = Swallowing()
    monkeypatch.setattr(embedded_store, "connect", lambda _: redis)
    store: Any = EmbeddedStore(tmp_path)
    store._process = Running()
    starting = asyncio.create_task(store._wait_until_up())
    await redis.asked.wait()

    starting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await starting
