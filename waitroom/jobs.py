"""The side jobs of a process: everything that runs beside what it serves.

One object owns them. A job that fails is logged and runs again: it must not end a process that serves visitors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

import structlog

from waitroom.errors import WaitroomError
from waitroom.logs import LogLimiter

log = structlog.get_logger()

RESTART_SECONDS: Final = 1.0  # before a job that failed runs again
LOG_INTERVAL_SECONDS: Final = 60.0  # between two log lines about the same job and error


class Jobs:
    """Owns the side jobs of a process, or of a part of one. As a context manager it cancels them at its end.

    Args:
        clock: A clock in seconds that never goes back, for the log.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limiter = LogLimiter(LOG_INTERVAL_SECONDS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failing: set[str] = set()

    def every(self, seconds: float, name: str, job: Callable[[], Awaitable[None]]) -> None:
        """Calls ``job`` periodically, ``seconds`` after its last call ended, whether it failed or not.

        Args:
            seconds: The pause.
            name: The job's name in the log, one of a fixed set.
            job: Does the work once.
        """

        async def periodically() -> None:
            while True:
                await self._attempt(name, job)
                await asyncio.sleep(seconds)

        self._start(name, periodically())

    def run(self, name: str, job: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Runs ``job``, and starts it again after an error. Most jobs last until they are cancelled.

        Args:
            name: The job's name in the log, one of a fixed set.
            job: The job.

        Returns:
            The task. It ends when the job returns, and raises none of its errors.
        """

        async def keep_running() -> None:
            while True:
                if await self._attempt(name, job):
                    return
                await asyncio.sleep(RESTART_SECONDS)

        return self._start(name, keep_running())

    def start(self, name: str, job: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Runs a job that ends by itself. Its error is logged; the task that this returns raises none."""

        async def once() -> None:
            await self._attempt(name, job)

        return self._start(name, once())

    async def close(self) -> None:
        """Cancels all jobs and waits for their ends."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _attempt(self, name: str, job: Callable[[], Awaitable[None]]) -> bool:
        """Runs a job once; False if it failed."""
        task = asyncio.current_task()
        assert task is not None
        try:
            await job()
        except (Exception, asyncio.CancelledError) as error:
            if task.cancelling():
                raise asyncio.CancelledError from error
            # A CancelledError comes from something that the job awaited, which was cancelled without the job.
            self._log_failure(name, error)
            return False
        if name in self._failing:
            self._failing.discard(name)
            log.info("background job recovered", job=name)
        return True

    def _log_failure(self, name: str, error: BaseException) -> None:
        self._failing.add(name)
        suppressed = self._limiter.permit(name, type(error).__name__, self._clock())
        if suppressed is None:
            return
        fields: dict[str, Any] = {"suppressed": suppressed} if suppressed else {}
        # The text of an error that is expected is enough. Others are mistakes of ours and need a traceback.
        if isinstance(error, WaitroomError | OSError):
            fields["cause"] = f"{type(error).__name__}: {error}"
        else:
            fields["exc_info"] = error
        log.warning("background job failed", job=name, **fields)
