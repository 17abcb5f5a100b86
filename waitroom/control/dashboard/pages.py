"""The dashboard: its pages, as rendered before the live feed updates them, and their static files."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from waitroom import __version__
from waitroom.control.auth.middleware import ACTOR
from waitroom.control.auth.sale_links import DEFAULT_HOURS
from waitroom.control.dashboard.event_presenter import event_numbers, timeline_rows
from waitroom.control.dashboard.presenter import room_texts
from waitroom.control.dashboard.report_presenter import report_texts
from waitroom.control.rooms.changes import LONGEST_TEXT
from waitroom.control.rooms.event_report import EventReport
from waitroom.errors import StoreUnavailable
from waitroom.queue.fields import OPERATOR_NUMBERS, WHOLE
from waitroom.resources import resource_path

# Nothing from other origins and nothing inline, so that a displayed name or message can never execute.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # With "no-referrer", browsers would not send the origin of our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_IMMUTABLE = "public, max-age=31536000, immutable"

# The form's numbers. Their bounds are those of the settings; otherwise the form would reject a room's valid values. An
# exclusive minimum is accepted nevertheless: while the autopilot holds, the rate is 0.
_NUMBERS = [
    {
        "name": field.name,
        "label": field.label,
        "unit": field.setting.about.unit.removeprefix("visitors "),
        "min": field.setting.least,
        "max": field.setting.most,
        "step": "1" if field.format is WHOLE else "any",
    }
    for field in OPERATOR_NUMBERS
]

Room = Mapping[str, Any]
Events = Callable[[str], Awaitable[Mapping[str, Any]]]
"""Returns the events of a room in the API's format. Raises `StoreUnavailable`."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file as served."""

    body: bytes
    content_type: str


class Assets:
    """The static files, under a name that changes with any of their contents: browsers may cache them indefinitely.

    Args:
        folder: Their directory; read once.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Asset] = {}
        digest = hashlib.sha256()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name, body = path.relative_to(folder).as_posix(), path.read_bytes()
            digest.update(f"{name} {len(body)}\n".encode() + body)
            self._files[name] = Asset(body, mimetypes.guess_type(name)[0] or "text/plain")
        self.version = digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        """Returns a file's URL, relative to the listener.

        Raises:
            KeyError: There is no file of this name.
        """
        self._files[name]
        return f"/static/{self.version}/{name}"

    def find(self, version: str, name: str) -> Asset | None:
        """Returns the file; None if it doesn't exist or has another version."""
        return self._files.get(name) if version == self.version else None


class Pages:
    """The templates of the admin pages, with their shared values.

    Args:
        folder: The directory of the templates, including ``static``.
    """

    def __init__(self, folder: Path) -> None:
        self.assets = Assets(folder / "static")
        self._environment = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(asset=self.assets.url, version=__version__, actor=None)

    def render(self, template: str, values: Mapping[str, object]) -> str:
        """Renders a template."""
        return self._environment.get_template(template).render(values)

    def response(self, template: str, values: Mapping[str, object], *, status: int = 200) -> web.Response:
        """Renders a page with the shared headers. ``values`` are the template's variables, ``title`` at least."""
        body = self.render(template, values)
        return web.Response(text=body, status=status, content_type="text/html", headers=PAGE_HEADERS)


PAGES: web.AppKey[Pages] = web.AppKey("pages", Pages)
_ROOMS: web.AppKey[Callable[[], Sequence[Room]]] = web.AppKey("rooms", object)  # type: ignore[arg-type]
_EVENTS: web.AppKey[Events] = web.AppKey("events", object)  # type: ignore[arg-type]
PastEvents = Callable[[str], Awaitable[Sequence[EventReport]]]
_PAST_EVENTS: web.AppKey[PastEvents] = web.AppKey("past_events", object)  # type: ignore[arg-type]


def add_dashboard(
    app: web.Application, rooms: Callable[[], Sequence[Room]], events: Events, past_events: PastEvents
) -> None:
    """Serves the dashboard.

    Args:
        app: The admin listener's application; ``request[ACTOR]`` is set on every request that it admits.
        rooms: Returns all rooms in the API's format.
        events: Returns the events of a room.
        past_events: Returns the reports of a room's past events. May raise `StoreUnavailable`.
    """
    app[PAGES] = Pages(resource_path("templates") / "admin")
    app[_ROOMS] = rooms
    app[_EVENTS] = events
    app[_PAST_EVENTS] = past_events
    app.router.add_get("/", _overview)
    app.router.add_get("/rooms/{room}", _room)
    app.router.add_get("/rooms/{room}/timeline", _timeline)
    app.router.add_get("/static/{version}/{name:.+}", _static)


async def _overview(request: web.Request) -> web.StreamResponse:
    rooms = request.app[_ROOMS]()
    if len(rooms) == 1:
        raise web.HTTPFound(f"/rooms/{rooms[0]['name']}")
    return request.app[PAGES].response("overview.html", _common(request, rooms, "All rooms"))


async def _room(request: web.Request) -> web.StreamResponse:
    rooms = request.app[_ROOMS]()
    name = request.match_info["room"]
    room = next((room for room in rooms if room["name"] == name), None)
    if room is None:
        return request.app[PAGES].response("missing.html", _common(request, rooms, "Room not found"), status=404)
    values = {
        **_common(request, rooms, name),
        "room": room,
        "now": room_texts(room),
        **await _events_of(request, name),
        "may_operate": _may_operate(request),
        "numbers": _NUMBERS,
        "event_numbers": event_numbers(),
        "link_hours": DEFAULT_HOURS,
        "max_text_length": LONGEST_TEXT,
        "reports": await _reports(request, name),
    }
    return request.app[PAGES].response("room.html", values)


async def _timeline(request: web.Request) -> web.StreamResponse:
    """Serves the part of a room's page that shows its events, for the script that keeps it current."""
    name = request.match_info["room"]
    if all(room["name"] != name for room in request.app[_ROOMS]()):
        raise web.HTTPNotFound
    values = {"room": {"name": name}, **await _events_of(request, name), "may_operate": _may_operate(request)}
    return request.app[PAGES].response("timeline.html", values)


async def _events_of(request: web.Request, room: str) -> dict[str, object]:
    try:
        schedule = await request.app[_EVENTS](room)
    except StoreUnavailable:
        return {"planned": [], "past": [], "events_known": False}
    planned, past = timeline_rows(schedule)
    return {"planned": planned, "past": past, "events_known": True}


async def _reports(request: web.Request, room: str) -> list[dict[str, Any]]:
    """Returns the reports of past events in words; none while the store is unavailable."""
    try:
        return [report_texts(report.json()) for report in await request.app[_PAST_EVENTS](room)]
    except StoreUnavailable:
        return []


def _common(request: web.Request, rooms: Sequence[Room], title: str) -> dict[str, object]:
    return {
        "title": title,
        "rooms": [(room, room_texts(room)) for room in rooms],
        "here": request.path,
        "actor": request.get(ACTOR),
    }


def _may_operate(request: web.Request) -> bool:
    actor = request.get(ACTOR)
    return actor is not None and actor.role in ("operator", "admin")


async def _static(request: web.Request) -> web.Response:
    found = request.app[PAGES].assets.find(request.match_info["version"], request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound
    headers = {"Cache-Control": _IMMUTABLE, "X-Content-Type-Options": "nosniff"}
    return web.Response(body=found.body, content_type=found.content_type, charset="utf-8", headers=headers)
