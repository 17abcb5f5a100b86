"""The side jobs of a process: none of their errors ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from structlog.testing import capture_logs

from waitroom import jobs as module
from waitroom.jobs import LOG_INTERVAL_SECONDS, Jobs


class Job:
    """Each call has the next outcome; after the last one the job is over."""

    def __init__(self, outcomes: Iterable[BaseException | None]) -> None:
        self._outcomes = iter(outcomes)
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        try:
            outcome = next(self._outcomes)
        except StopIteration:
            self.done.set()
            return
        if outcome is not None:
            raise outcome


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_SECONDS", 0)


async def run(start: Callable[[Jobs], Any], job: Job, clock: Callable[[], float] = lambda: 0.0) -> list[dict[str, Any]]:
    """The log of a job until it is over."""
    with capture_logs() as logs:
        async with Jobs(clock) as jobs:
            start(jobs)
            async with asyncio.timeout(60):
                await job.done.wait()
        assert len(asyncio.all_tasks()) == 1, "every job is cancelled and over"
    return [dict(line) for line in logs]


async def test_a_job_runs_again_after_any_error() -> None:
    group = ExceptionGroup("several", [OSError(24, "Too many open files")])
    outcomes = [None, OSError(28, "No space left on device"), ValueError("odd"), group, asyncio.CancelledError(), None]
    for start in (lambda jobs, job: jobs.every(0, "metrics", job), lambda jobs, job: jobs.run("metrics", job)):
        # `run` starts a job again only after an error: one that returns is over.
        job = Job([outcome for outcome in outcomes if outcome is not None])
        logs = await run(lambda jobs, start=start, job=job: start(jobs, job), job)  # type: ignore[misc]
        assert {line["job"] for line in logs} == {"metrics"}
        assert [line["event"] for line in logs] == ["background job failed"] * 4 + ["background job recovered"]
        assert logs[0]["cause"] == "OSError: [Errno 28] No space left on device"
        assert [type(line.get("exc_info")).__name__ for line in logs[1:4]] == [
            "ValueError",
            "ExceptionGroup",
            "CancelledError",
        ]


async def test_a_failing_job_is_logged_once_a_minute() -> None:
    times = iter(range(0, 1000, 20))
    job = Job([OSError(28, "full") for _ in range(7)])
    logs = await run(lambda jobs: jobs.every(0, "metrics", job), job, lambda: float(next(times)))
    failures = [line.get("suppressed", 0) for line in logs if line["event"] == "background job failed"]
    assert LOG_INTERVAL_SECONDS == 60
    assert failures == [0, 2, 2]  # after 0, 60 and 120 s
    assert {line["log_level"] for line in logs[:-1]} == {"warning"}


async def test_a_job_that_ends_by_itself_raises_nothing() -> None:
    job = Job([ValueError("odd")])
    with capture_logs() as logs:
        async with Jobs() as jobs:
            await jobs.start("ends", job)
    assert [line["event"] for line in logs] == ["background job failed"]


async def test_jobs_are_cancelled_even_while_they_fail() -> None:
    started = asyncio.Event()

    async def job() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("in the middle of the end")

    with capture_logs():
        async with Jobs() as jobs:
            jobs.run("one", job)
            jobs.every(0, "other", job)
            await started.wait()
    assert len(asyncio.all_tasks()) == 1
