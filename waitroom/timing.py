"""Clocks, and work that is done again and again."""

# mypyc: compile

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks of a worker; tests have others.

    Attributes:
        unix: Unix time in seconds.
        steady: Seconds that only go forward, from any start.
    """

    unix: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic


async def every(seconds: float, do: Callable[[], Awaitable[None]]) -> None:
    """Does something again and again, ``seconds`` after it was last done, until it is cancelled.

    A failure is logged, and once as long as it lasts; no side job is worth the visitors of a process.
    """
    failing = False
    while True:
        try:
            await do()
            failing = False
        except Exception as error:
            if not failing:
                log.error("background job failed", job=getattr(do, "__qualname__", repr(do)), exc_info=error)
            failing = True
        await asyncio.sleep(seconds)
