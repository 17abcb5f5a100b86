"""Batches visitors' requests to the store: those made during one call all go into the next call."""

# mypyc: compile

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

import structlog

from waitroom.errors import StoreUnavailable

log = structlog.get_logger()

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BATCH = 500


class Batcher(Generic[Item, Result]):
    """Calls ``call`` with all the items submitted so far; it returns a result for each, in order.

    No timer is involved: without load an item is sent immediately, and under load the store's own latency decides
    how many are sent together.
    """

    def __init__(self, call: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._call = call
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Includes an item in the next call. The result raises `StoreUnavailable` if the call does."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, result))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return result

    async def close(self) -> None:
        """Ends the current call; the items still waiting fail as if the store were unavailable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        _fail(self._waiting, StoreUnavailable("the worker is stopping"))
        self._waiting.clear()

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in islice(range(len(self._waiting)), MAX_BATCH)]
                await self._run_batch(batch)
        finally:
            self._task = None

    async def _run_batch(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._call([item for item, _ in batch])
            completed = list(zip(batch, results, strict=True))
        except StoreUnavailable as error:
            _fail(batch, error)
        except Exception as unexpected:
            log.error("store call failed", exc_info=unexpected)
            _fail(batch, StoreUnavailable(repr(unexpected)))
        except BaseException:
            _fail(batch, StoreUnavailable("the worker is stopping"))
            raise
        else:
            for (_, future), result in completed:
                if not future.done():
                    future.set_result(result)


def _fail(batch: Iterable[tuple[Any, asyncio.Future[Any]]], error: StoreUnavailable) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
