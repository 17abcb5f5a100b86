"""The live feed of the dashboard: server-sent events, rendered once for all listeners.

A frame is rendered once a second, and immediately after a change, regardless of the number of listeners and only while
there are any. A listener's queue is only the newest frame: slow listeners skip frames and cost others nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from waitroom.control.dashboard.presenter import room_texts
from waitroom.jobs import Jobs

FRAME_SECONDS = 1.0
MAX_LISTENERS = 200
# A listener's permission is checked before a frame is sent, but at most once a second.
RECHECK_SECONDS = 0.5
# No response lasts forever; the browser reconnects.
MAX_RESPONSE_SECONDS = 60.0
# Listeners that accept no byte for this long are disconnected.
SEND_TIMEOUT_SECONDS = 10.0

# The browser's delay before it reconnects, in milliseconds.
_GREETING = b"retry: 500\n\n"
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}

Room = Mapping[str, Any]


class Feed:
    """Renders frames for all listeners.

    Args:
        rooms: Returns all rooms in the API's format.
        clock: Unix time in seconds.
        store_clock: The same by the store, whose clock the schedule follows; None for ``clock``.
    """

    def __init__(
        self,
        rooms: Callable[[], Sequence[Room]],
        clock: Callable[[], float] = time.time,
        store_clock: Callable[[], float] | None = None,
    ) -> None:
        self._rooms = rooms
        self._clock = clock
        self._store_clock = store_clock or clock
        self._changed = asyncio.Event()
        self._frames = asyncio.Condition()
        self._frame = b""
        self._number = 0
        self._listeners = 0
        self._open = True

    @property
    def listeners(self) -> int:
        """The number of listeners."""
        return self._listeners

    def notify(self) -> None:
        """Triggers a frame immediately, after a change."""
        self._changed.set()

    async def run(self) -> None:
        """Renders frames until cancelled."""
        while True:
            self._changed.clear()
            if self._listeners:
                await self._publish()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FRAME_SECONDS):
                    await self._changed.wait()

    async def close(self) -> None:
        """Disconnects the listeners, and accepts no more."""
        async with self._frames:
            self._open = False
            self._frames.notify_all()

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Yields the newest frame whenever there is a newer one than yielded last; ends with `close`."""
        self._listeners += 1
        # The existing frame may be from a previous listener's time.
        seen = self._number
        self.notify()
        try:
            while self._open:
                async with self._frames:
                    while self._number == seen and self._open:
                        await self._frames.wait()
                    seen, frame = self._number, self._frame
                if self._open:
                    yield frame
        finally:
            self._listeners -= 1

    async def _publish(self) -> None:
        rooms = self._rooms()
        shown = {room["name"]: room_texts(room) for room in rooms}
        texts = {"at": self._clock(), "clock": self._store_clock(), "rooms": shown}
        async with self._frames:
            self._frame = _event("rooms", {"rooms": rooms}) + _event("shown", texts)
            self._number += 1
            self._frames.notify_all()


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


Allowed = Callable[[web.Request], Awaitable[bool]]

FEED: web.AppKey[Feed] = web.AppKey("feed", Feed)
_ALLOWED: web.AppKey[Allowed] = web.AppKey("allowed", object)  # type: ignore[arg-type]


def add_feed(app: web.Application, feed: Feed, allowed: Allowed) -> None:
    """Serves the feed at ``/api/v1/events``, and runs it as long as the application does.

    Args:
        app: The admin listener's.
        feed: Renders the frames.
        allowed: Whether the sender of an admitted request is still allowed; checked once a second per listener.
    """
    app[FEED] = feed
    app[_ALLOWED] = allowed
    app.router.add_get("/api/v1/events", _events)
    app.cleanup_ctx.append(_running)
    app.on_shutdown.append(_closing)


async def _running(app: web.Application) -> AsyncIterator[None]:
    async with Jobs() as jobs:
        jobs.run("dashboard feed", app[FEED].run)
        yield


async def _closing(app: web.Application) -> None:
    await app[FEED].close()


async def _events(request: web.Request) -> web.StreamResponse:
    feed, allowed = request.app[FEED], request.app[_ALLOWED]
    if feed.listeners >= MAX_LISTENERS:
        raise web.HTTPServiceUnavailable(
            text=f"Too many listeners: {MAX_LISTENERS} are connected.\n", headers={"Retry-After": "10"}
        )
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    checked_at = loop.time()
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(MAX_RESPONSE_SECONDS), contextlib.aclosing(feed.frames()) as frames:
            await _send(request, response, _GREETING)
            async for frame in frames:
                if loop.time() - checked_at >= RECHECK_SECONDS:
                    if not await allowed(request):
                        break
                    checked_at = loop.time()
                await _send(request, response, frame)
    return response


async def _send(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    try:
        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
            await response.write(data)
    except TimeoutError:
        # Nothing more gets through, not even the end of the response.
        if request.transport is not None:
            request.transport.abort()
        raise
