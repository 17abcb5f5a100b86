"""The admin listener: health, metrics and access control. The API and the dashboard add themselves."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client.registry import Collector

from waitroom.control.api.errors import api_problems
from waitroom.control.auth.middleware import Access
from waitroom.control.monitoring.readiness import WorkerReports, is_serving
from waitroom.control.monitoring.store_watch import StoreWatch
from waitroom.control.rooms.admission_loop import Admission
from waitroom.metrics.collectors import (
    ClockCollector,
    ControlCollector,
    EdgeCollector,
    QueueCollector,
    StockCollector,
    exposition,
)
from waitroom.metrics.recorder import METRICS_DIR
from waitroom.net.authority import parse_authority
from waitroom.queue.view import RoomView
from waitroom.settings import Settings

ADMISSIONS: web.AppKey[Sequence[Admission]] = web.AppKey("admissions", Sequence)
WORKERS: web.AppKey[WorkerReports] = web.AppKey("workers", WorkerReports)
SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
COLLECTORS: web.AppKey[Sequence[Collector]] = web.AppKey("collectors", Sequence)


class _Views(Mapping[str, RoomView]):
    """The latest views of all rooms seen so far."""

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


def make_app(
    settings: Settings,
    admissions: Sequence[Admission],
    access: Access,
    workers: WorkerReports,
    store_watch: StoreWatch | None = None,
    *collectors: Collector,
) -> web.Application:
    """Builds the admin listener's application; the API and the dashboard add their own routes."""
    app = web.Application(middlewares=[api_problems, _check_host])
    access.install(app)
    app.on_response_prepare.append(partial(_set_headers, access, settings.hsts_seconds))
    app[ADMISSIONS] = admissions
    app[SETTINGS] = settings
    app[WORKERS] = workers
    folder = Path(settings.data_dir) / METRICS_DIR
    app[COLLECTORS] = (
        QueueCollector(_Views(admissions)),
        StockCollector(admissions),
        EdgeCollector(folder),
        ControlCollector(admissions, workers.alive, settings.workers),
        *(() if store_watch is None else (ClockCollector(store_watch),)),
        *collectors,
    )
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    return app


async def _set_headers(access: Access, hsts_seconds: int, request: web.Request, response: web.StreamResponse) -> None:
    """Sets and removes headers of every response, errors included."""
    response.headers.pop("Server", None)
    if hsts_seconds and access.request_source(request).secure:
        response.headers["Strict-Transport-Security"] = f"max-age={hsts_seconds}"


@web.middleware
async def _check_host(request: web.Request, handler: Any) -> web.StreamResponse:
    """Rejects host names that a foreign page could point at this address (DNS rebinding)."""
    found = parse_authority(request.host.encode("latin-1", "replace"))
    name = "" if found is None else found.host.decode("latin-1").strip("[]")
    settings = request.app[SETTINGS]
    listening = settings.admin_listen.rpartition(":")[0].strip("[]").lower()
    if name not in ("localhost", listening, *settings.admin_hosts) and not _is_address(name):
        text = f"Unknown host {request.host!r}. Use the listener's address, or add the name to admin_hosts.\n"
        raise web.HTTPMisdirectedRequest(text=text)
    response: web.StreamResponse = await handler(request)
    return response


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _metrics(request: web.Request) -> web.Response:
    body = await asyncio.to_thread(exposition, *request.app[COLLECTORS])
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    """Returns 200 while every worker serves, the public port responds and the store answers."""
    failed = [
        f"room {one.name}: {one.store_problem or 'the store has not answered yet'}"
        for one in request.app[ADMISSIONS]
        if not one.store_up
    ]
    failed += request.app[WORKERS].problems()
    if not await is_serving(request.app[SETTINGS]):
        failed.append("the public port doesn't respond")
    if failed:
        return web.Response(status=503, text="\n".join(failed) + "\n")
    return web.Response(text="ready\n")
