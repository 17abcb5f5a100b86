"""Background jobs of a process."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from waitroom.timing import every


def test_a_side_job_that_fails_is_tried_again_and_logged_once_as_long_as_it_lasts():
    outcomes = iter([None, OSError("full"), ValueError("odd"), None, OSError("full again")])
    done = asyncio.Event()

    async def job() -> None:
        try:
            outcome = next(outcomes)
        except StopIteration:
            done.set()
            return
        if outcome is not None:
            raise outcome

    async def run() -> None:
        task = asyncio.create_task(every(0, job))
        await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    with capture_logs() as logs:
        asyncio.run(run())
    assert [(entry["event"], str(entry["exc_info"])) for entry in logs] == [
        ("background job failed", "full"),
        ("background job failed", "full again"),
    ]
