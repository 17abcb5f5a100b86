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

MOST_AT_ONCE = 500


class Batcher(Generic[Item, Result]):
    """Calls ``call`` with all the questions gathered so far; it returns an answer to each, in order.

    No timer is involved: without load a question is sent immediately, and under load the store's own latency decides
    how many are sent together.
    """

    def __init__(self, call: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._call = call
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def submit(self, question: Item) -> asyncio.Future[Result]:
        """Includes a question in the next call. Its result raises `StoreUnavailable` if the call does."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((question, answer))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return answer

    async def close(self) -> None:
        """Ends the current call; the questions still waiting fail as if the store were unavailable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        _fail(self._waiting, StoreUnavailable("the worker stops"))
        self._waiting.clear()

    async def _run(self) -> None:
        try:
            while self._waiting:
                gathered = [self._waiting.popleft() for _ in islice(range(len(self._waiting)), MOST_AT_ONCE)]
                await self._run_batch(gathered)
        finally:
            self._task = None

    async def _run_batch(self, gathered: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            told = await self._call([question for question, _ in gathered])
            answered = list(zip(gathered, told, strict=True))
        except StoreUnavailable as error:
            _fail(gathered, error)
        except Exception as mistake:
            log.error("a call of the store broke", exc_info=mistake)
            _fail(gathered, StoreUnavailable(repr(mistake)))
        except BaseException:
            _fail(gathered, StoreUnavailable("the worker stops"))
            raise
        else:
            for (_, answer), one in answered:
                if not answer.done():
                    answer.set_result(one)


def _fail(asked: Iterable[tuple[Any, asyncio.Future[Any]]], error: StoreUnavailable) -> None:
    for _, answer in asked:
        if not answer.done():
            answer.set_exception(error)
