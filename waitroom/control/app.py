"""The admin listener: health, metrics, the state of the rooms as JSON, and a plain page that shows them."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prometheus_client.registry import Collector

from waitroom import __version__
from waitroom.control.admission import Admission
from waitroom.control.probe import serves
from waitroom.metrics import FOLDER, EdgeCollector, QueueCollector, exposition
from waitroom.queue.view import RoomView
from waitroom.resources import resource_path
from waitroom.settings import Settings

PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

ADMISSIONS: web.AppKey[Sequence[Admission]] = web.AppKey("admissions", Sequence)
SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
PAGE: web.AppKey[Any] = web.AppKey("page", object)
COLLECTORS: web.AppKey[Sequence[Collector]] = web.AppKey("collectors", Sequence)


class _Views(Mapping[str, RoomView]):
    """The newest views of all rooms that have been seen."""

    def __init__(self, admissions: Sequence[Admission]) -> None:
        self._admissions = admissions

    def _current(self) -> dict[str, RoomView]:
        return {one.name: one.view for one in self._admissions if one.view is not None}

    def __getitem__(self, room: str) -> RoomView:
        return self._current()[room]

    def __iter__(self) -> Any:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())


def make_app(settings: Settings, admissions: Sequence[Admission]) -> web.Application:
    """The admin listener's application."""
    app = web.Application(middlewares=[_only_known_hosts])
    app[ADMISSIONS] = admissions
    app[SETTINGS] = settings
    app[COLLECTORS] = (QueueCollector(_Views(admissions)), EdgeCollector(Path(settings.data_dir) / FOLDER))
    environment = Environment(
        loader=FileSystemLoader(resource_path("templates") / "admin"), autoescape=True, undefined=StrictUndefined
    )
    app[PAGE] = environment.get_template("rooms.html")
    app.router.add_get("/", _page)
    app.router.add_get("/api/v1/rooms", _rooms)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    return app


@web.middleware
async def _only_known_hosts(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuses names that a stranger's page could point at this address (DNS rebinding)."""
    host = request.host.rpartition(":")[0] if not request.host.endswith("]") else request.host
    name = (host or request.host).strip("[]").lower()
    listening = request.app[SETTINGS].admin_listen.rpartition(":")[0].strip("[]").lower()
    if name not in ("localhost", listening) and not _is_address(name):
        raise web.HTTPMisdirectedRequest(text=f"The admin listener isn't called {name!r}: use its address.\n")
    response: web.StreamResponse = await handler(request)
    return response


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _page(request: web.Request) -> web.Response:
    body = request.app[PAGE].render(rooms=_described(request.app), version=__version__)
    return web.Response(text=body, content_type="text/html", headers=PAGE_HEADERS)


async def _rooms(request: web.Request) -> web.Response:
    return web.json_response({"rooms": _described(request.app)}, headers={"Cache-Control": "no-store"})


async def _metrics(request: web.Request) -> web.Response:
    body = await asyncio.to_thread(exposition, *request.app[COLLECTORS])
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    """200 once the public port serves and the store answers."""
    missing = [f"room {one.name}: the store doesn't answer" for one in request.app[ADMISSIONS] if not one.store_up]
    if not await serves(request.app[SETTINGS]):
        missing.append("the public port doesn't serve")
    if missing:
        return web.Response(status=503, text="\n".join(missing) + "\n")
    return web.Response(text="ready\n")


def _described(app: web.Application) -> list[dict[str, object]]:
    """The rooms as the API and the page show them."""
    upstreams = {room.name: ", ".join(room.upstreams) for room in app[SETTINGS].rooms}
    rooms: list[dict[str, object]] = []
    for one in app[ADMISSIONS]:
        described: dict[str, object] = {"name": one.name, "upstream": upstreams[one.name], "store_up": one.store_up}
        if one.view is not None:
            view = dataclasses.asdict(one.view)
            described |= {key: view[key] for key in _SHOWN}
            pace = one.admitted_per_minute
            described["admitted_per_minute"] = None if pace is None else round(pace, 1)
        rooms.append(described)
    return rooms


_SHOWN = (
    *("state", "method", "waiting", "called", "away", "active", "max_active", "rate_per_minute", "message"),
    *("remaining", "totals"),
)
