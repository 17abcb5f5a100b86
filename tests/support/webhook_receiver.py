"""A real receiver of webhooks, and what sends to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from support.gateway_process import eventually
from waitroom.control.webhooks.sender import Event, RetryPolicy, Sender, http_session, sign
from waitroom.queue.store import QueueStore
from waitroom.queue.view import RoomState
from waitroom.settings import Webhook

SECRET = "webhook-0123456789abcdef"
# Little time between tries; much for each, since a machine that is busy is no receiver that doesn't answer.
HASTY = RetryPolicy(
    attempt_timeout_seconds=20.0,
    initial_delay_seconds=0.01,
    max_delay_seconds=0.02,
    give_up_after_seconds=20.0,
    max_queued=3,
)

Handler = Callable[[web.Request], Any]


@dataclass
class Receiver:
    """Takes events. ``answers`` says what to do with the next ones; who finds nothing there gets 204.

    ``greeted`` counts the tries to speak TLS.
    """

    port: int = 0
    scheme: str = "http"
    greeted: int = 0
    answers: list[int | Handler] = field(default_factory=list)
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    elsewhere: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hush-hush/path?token=hush"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.taken]

    @property
    def names(self) -> list[str]:
        return [event["event"] for event in self.events]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST" or request.path != "/hush-hush/path":
            self.elsewhere += 1
            return web.Response()
        self.taken.append((dict(request.headers), await request.read()))
        answer = self.answers.pop(0) if self.answers else 204
        if isinstance(answer, int):
            return web.Response(status=answer)
        told: web.StreamResponse = await answer(request)
        return told

    def greet(self, *_: object) -> None:
        """Counts those who begin with TLS, whatever becomes of it."""
        self.greeted += 1

    async def hangs(self, request: web.Request) -> web.StreamResponse:
        """An answer that doesn't come while the test lasts."""
        await self.open.wait()
        return web.Response()


@contextlib.asynccontextmanager
async def receiving(port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(scheme="http" if tls is None else "https")
    if tls is not None:
        tls.sni_callback = receiver.greet
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def sending(
    webhook: Webhook, policy: RetryPolicy = HASTY, *, proxy_from_environment: bool = False, **options: Any
) -> AsyncIterator[Sender]:
    session = http_session(proxy_from_environment=proxy_from_environment)
    async with session as http, running(one := Sender(webhook, http, policy, **options)):
        yield one


@contextlib.asynccontextmanager
async def running(*ones: Any) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one.run()) for one in ones]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def event(number: int, name: str = "paused", of_room: str = "sale") -> Event:
    return Event.make(f"{of_room}-{number}", name, of_room, datetime(2026, 11, 25, tzinfo=UTC), {"waiting": number})


async def paused(gateway: Any) -> None:
    await set_state(gateway, RoomState.PAUSED)


async def opened(gateway: Any) -> None:
    await set_state(gateway, RoomState.OPEN)


async def set_state(gateway: Any, state: RoomState) -> None:
    async with gateway.store() as redis:
        await QueueStore(redis, "sale").set_state(state)


async def told_of_a_pause(gateway: Any, receiver: Receiver) -> None:
    await paused(gateway)
    await eventually(lambda: receiver.names == ["paused"])
    event = receiver.events[0]
    assert event["room"] == "sale"
    assert event["data"]["state"] == "paused"
    headers, body = receiver.taken[0]
    at = int(headers["Waitroom-Signature"].partition(",")[0].removeprefix("t="))
    assert headers["Waitroom-Signature"] == sign(SECRET, at, body)
    await opened(gateway)
    await eventually(lambda: receiver.names == ["paused", "resumed"])
