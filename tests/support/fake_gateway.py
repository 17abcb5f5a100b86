"""A stand-in for the gateway, in memory and in one process: enough of the contract for the drill's own tests."""

from __future__ import annotations

import argparse
import asyncio
import signal
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

TICKET = "waitroom_ticket_shop"
PASS = "waitroom_pass_shop"


@dataclass
class Gateway:
    """One line in front of one shop; `admit` lets the next ones in."""

    upstream: str
    state: str | None = None
    waiting: list[str] = field(default_factory=list)
    called: set[str] = field(default_factory=set)
    inside: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    polls: int = 0
    places: int = 0
    poll_after: float = 0.2
    session: aiohttp.ClientSession | None = None

    def admit(self, count: int) -> None:
        self.called.update(self.waiting[:count])
        del self.waiting[:count]

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.waitroom/status", self.status)
        app.router.add_post("/.waitroom/leave", self.leave)
        app.router.add_route("*", "/{path:.*}", self.page)
        return app

    def admin(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/readyz", self.ready)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def ready(self, request: web.Request) -> web.Response:
        return web.Response(text="ready")

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            text="# TYPE waitroom_waiting_visitors gauge\n"
            f'waitroom_waiting_visitors{{room="shop"}} {len(self.waiting)}\n'
            "# TYPE waitroom_active_sessions gauge\n"
            f'waitroom_active_sessions{{room="shop"}} {len(self.inside)}\n'
        )

    async def status(self, request: web.Request) -> web.Response:
        self.polls += 1
        ticket = request.cookies.get(TICKET, "")
        known = "waiting" if ticket in self.waiting else "called" if ticket in self.called else "unknown"
        return web.json_response({"state": self.state or known, "poll_after": self.poll_after})

    async def leave(self, request: web.Request) -> web.Response:
        ticket = request.cookies[TICKET]
        self.waiting.remove(ticket)
        self.left.append(ticket)
        return web.json_response({})

    async def page(self, request: web.Request) -> web.Response:
        ticket = request.cookies.get(TICKET, "")
        if request.cookies.get(PASS) in self.inside:
            return await self.forward(request)
        if ticket in self.called:
            self.called.remove(ticket)
            self.inside.add(ticket)
            answer = await self.forward(request)
            answer.set_cookie(PASS, ticket)
            answer.del_cookie(TICKET)
            return answer
        answer = web.Response(
            status=503, text="<html>wait</html>", content_type="text/html", headers={"Retry-After": "1"}
        )
        if ticket not in self.waiting:
            self.places += 1
            self.waiting.append(f"t{self.places}")
            answer.set_cookie(TICKET, f"t{self.places}")
        return answer

    async def forward(self, request: web.Request) -> web.Response:
        assert self.session is not None
        headers = {name: request.headers[name] for name in ("Cookie", "Content-Type") if name in request.headers}
        async with self.session.request(
            request.method,
            self.upstream + request.path_qs,
            headers=headers,
            data=await request.read(),
            allow_redirects=False,
        ) as got:
            answer = web.Response(status=got.status, body=await got.read(), content_type=got.content_type)
            for name in ("Location", "Set-Cookie"):
                for value in got.headers.getall(name, []):
                    answer.headers.add(name, value)
            if got.headers.get("Waitroom-Command", "").startswith("release"):
                self.inside.discard(request.cookies.get(PASS, ""))
        return answer


@asynccontextmanager
async def serving(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Serve on the loopback address and give the origin."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def gateway_to(upstream: str) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway in front of a shop, in this process."""
    gateway = Gateway(upstream)
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as gateway.session,
        serving(gateway.application()) as origin,
    ):
        yield gateway, origin


async def main(settings: dict[str, Any]) -> None:
    """What `waitroom run --config FILE` does, in small."""
    room = settings["rooms"][0]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    gateway = Gateway(room["upstream"])
    port, admin_port = (int(settings[key].rpartition(":")[2]) for key in ("listen", "admin_listen"))
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as gateway.session,
        serving(gateway.application(), port),
        serving(gateway.admin(), admin_port),
    ):
        while not stop.is_set():
            gateway.admit(max(1, round(room["rate_per_minute"] / 600)))
            try:
                async with asyncio.timeout(0.1):
                    await stop.wait()
            except TimeoutError:
                pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    asyncio.run(main(tomllib.loads(parser.parse_args().config.read_text("utf-8"))))
