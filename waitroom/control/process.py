"""The control process: admission ticks and the admin listener."""

from __future__ import annotations

import asyncio

from aiohttp import web

from waitroom.child import Child, run_child
from waitroom.control.admission import Admission
from waitroom.control.app import make_app
from waitroom.queue.store import QueueStore, connect

SHUTDOWN_SECONDS = 2.0


async def serve(child: Child) -> None:
    """Ticks and serves until it is told to stop."""
    settings = child.settings
    assert settings.redis_url is not None
    redis = connect(settings.redis_url)
    admissions = [Admission(room, QueueStore(redis, room.name)) for room in settings.rooms]
    runner = web.AppRunner(make_app(settings, admissions), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    try:
        await runner.setup()
        await web.SockSite(runner, child.listener).start()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(admission.run()) for admission in admissions]
            await child.ready()
            await child.stop.wait()
            for task in running:
                task.cancel()
    finally:
        await runner.cleanup()
        await redis.aclose()


if __name__ == "__main__":
    run_child("control", serve)
