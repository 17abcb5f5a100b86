"""``/api/v1``: the reports of events, as ``openapi.yaml`` describes them."""

from __future__ import annotations

import asyncio

from aiohttp import web

from waitroom.control.api.endpoints import json_response
from waitroom.control.api.errors import problem_responses
from waitroom.control.api.requests import Query, read_query
from waitroom.control.http import NO_STORE, RequestError
from waitroom.control.rooms.event_reports import EventReports
from waitroom.control.rooms.event_tables import report_csv, samples_csv

EVENT_PATH = "/api/v1/rooms/{room}/events/{event}"


class ReportApi:
    """Serves the reports of events.

    Args:
        reports: The reports of all rooms.
    """

    def __init__(self, reports: EventReports) -> None:
        self._reports = reports

    def add_to(self, app: web.Application) -> None:
        """Adds the routes. The application's middleware has authenticated the request."""
        add = app.router.add_route
        add("GET", f"{EVENT_PATH}/report", problem_responses(self._get_report))
        add("GET", f"{EVENT_PATH}/report.csv", problem_responses(self._get_report_csv))
        add("GET", f"{EVENT_PATH}/samples.csv", problem_responses(self._get_samples_csv))

    async def _get_report(self, request: web.Request) -> web.Response:
        room, event = self._names(request)
        return json_response((await self._reports.report(room, event)).json())

    async def _get_report_csv(self, request: web.Request) -> web.Response:
        room, event = self._names(request)
        report = await self._reports.report(room, event)
        return _csv_response(f"{room}-{event}-report.csv", report_csv(report))

    async def _get_samples_csv(self, request: web.Request) -> web.Response:
        room, event = self._names(request)
        samples = await self._reports.samples(room, event)
        # In a thread, because the admission loop has the event loop.
        return _csv_response(f"{room}-{event}-samples.csv", await asyncio.to_thread(samples_csv, samples))

    def _names(self, request: web.Request) -> tuple[str, str]:
        """Returns the names of the room and of the event."""
        read_query(request, Query)
        room = request.match_info["room"]
        if room not in self._reports:
            raise RequestError(404, "Unknown room. GET /api/v1/rooms lists all rooms.")
        return room, request.match_info["event"]


def _csv_response(name: str, text: str) -> web.Response:
    headers = {
        **NO_STORE,
        "Content-Type": "text/csv; charset=utf-8; header=present",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return web.Response(body=text.encode(), headers=headers)
