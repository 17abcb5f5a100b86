"""Clocks and periodic tasks."""

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
    """The clocks of a worker; tests replace them.

    Attributes:
        unix: Unix time in seconds.
        steady: Seconds that only go forward, from an arbitrary start.
    """

    unix: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic


async def every(seconds: float, do: Callable[[], Awaitable[None]]) -> None:
    """Calls ``do`` periodically, ``seconds`` after its last call ended, until it is cancelled.

    A failure is logged once for as long as it lasts: a failing side task must not end a process that serves visitors.
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
