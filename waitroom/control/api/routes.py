"""``/api/v1``: the rooms, changes to them, history and audit log, as ``openapi.yaml`` describes them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import structlog
from aiohttp import web

from waitroom.control.api.errors import answers, stale
from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor
from waitroom.control.auth.middleware import ACTOR
from waitroom.control.autopilot.runner import KEPT_DECISIONS, Logbook
from waitroom.control.http import NO_STORE, RequestError, problem, read_body
from waitroom.control.monitoring.history import KEPT_SECONDS, History
from waitroom.control.rooms.operations import SESSION, BadChange, Change, Operations, StaleVersion, record_refusal
from waitroom.control.rooms.presenter import Rooms
from waitroom.errors import StoreUnavailable
from waitroom.queue.limits import limits_of
from waitroom.queue.view import RoomState

log = structlog.get_logger()

BASE = "/api/v1"
LONGEST_BODY = 16 << 10
MOST_ENTRIES = 1000

_ETAG = re.compile(r'"([0-9]{1,15})"')
_ENTRY_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,9}")


class Api:
    """Serves the rooms of one gateway.

    Args:
        rooms: The state of the rooms.
        operations: Changes to the rooms.
        history: The rooms' last hours.
        audit: The audit log.
        logbooks: The autopilot's decisions, by room.
    """

    def __init__(
        self,
        rooms: Rooms,
        operations: Operations,
        history: History,
        audit: Audit,
        logbooks: Mapping[str, Logbook],
    ) -> None:
        self._rooms = rooms
        self._operations = operations
        self._history = history
        self._audit = audit
        self._logbooks = logbooks
        self._description = (files("waitroom.control.api") / "openapi.yaml").read_text(encoding="utf-8")

    def add_to(self, app: web.Application) -> None:
        """Adds the routes. The application's middleware sets the authenticated actor in ``request[ACTOR]``."""
        add = app.router.add_route
        add("GET", f"{BASE}/openapi.yaml", answers(self._openapi))
        add("GET", f"{BASE}/rooms", answers(self._all))
        add("GET", f"{BASE}/rooms/{{room}}", answers(self._one))
        add("PATCH", f"{BASE}/rooms/{{room}}", answers(self._change))
        add("POST", f"{BASE}/rooms/{{room}}/undo", answers(self._undo))
        add("POST", f"{BASE}/rooms/{{room}}/admit", answers(self._admit))
        add("POST", f"{BASE}/rooms/{{room}}/end-session", answers(self._end_session))
        add("GET", f"{BASE}/rooms/{{room}}/history", answers(self._samples))
        add("GET", f"{BASE}/rooms/{{room}}/diff", answers(self._diff))
        add("GET", f"{BASE}/rooms/{{room}}/decisions", answers(self._decisions))
        add("GET", f"{BASE}/audit", answers(self._entries))
        add("GET", f"{BASE}/audit/export", answers(self._export))
        add("GET", f"{BASE}/audit/verify", answers(self._verify))

    # State.

    async def _openapi(self, request: web.Request) -> web.Response:
        _query(request)
        return web.Response(text=self._description, content_type="application/yaml", headers=NO_STORE)

    async def _all(self, request: web.Request) -> web.Response:
        _query(request)
        return _json({"rooms": self._rooms.described()})

    async def _one(self, request: web.Request) -> web.Response:
        _query(request)
        return self._room(self._name(request))

    async def _samples(self, request: web.Request) -> web.Response:
        room = self._name(request)
        seconds = _whole(_query(request, "seconds"), "seconds", 3600, KEPT_SECONDS)
        body = b'{"samples": [%b]}' % b",".join(await self._history.read_json(room, seconds))
        return web.Response(body=body, content_type="application/json", charset="utf-8", headers=NO_STORE)

    async def _diff(self, request: web.Request) -> web.Response:
        _query(request)
        room = self._name(request)
        file = dataclasses.asdict(limits_of(self._rooms.settings(room)))
        running = dataclasses.asdict(await self._operations.running(room))
        return _json(
            {"file": file, "running": running, "differs": [name for name in file if file[name] != running[name]]}
        )

    async def _decisions(self, request: web.Request) -> web.Response:
        room = self._name(request)
        count = _whole(_query(request, "count"), "count", 100, KEPT_DECISIONS)
        return _json({"decisions": [said.described() for said in await self._logbooks[room].decisions(count)]})

    # Changes.

    async def _change(self, request: web.Request) -> web.Response:
        room = self._name(request)
        dry = _switch(_query(request, "dry_run"), "dry_run")
        expected = _version(request)
        body = await _body(request)
        try:
            change, note = read_change(body)
        except BadChange as error:
            if not dry:
                await record_refusal(self._audit, _actor(request), "change", room, error, body)
            raise
        try:
            if dry:
                return await self._dry_run(room, change, expected)
            await self._operations.change(room, change, expected=expected, actor=_actor(request), note=note)
        except StaleVersion as error:
            return await self._stale(room, error)
        return self._room(room)

    async def _dry_run(self, room: str, change: Change, expected: int) -> web.Response:
        view = await self._operations.look(room)
        if view.version != expected:
            raise StaleVersion(view.version)
        return _json({"effect": self._operations.effect(room, change).json()}, {"ETag": f'"{view.version}"'})

    async def _undo(self, request: web.Request) -> web.Response:
        room = self._name(request)
        _query(request)
        expected = _version(request)
        (note,) = await self._texts(request, "undo", room, note=False)
        try:
            await self._operations.undo(room, expected=expected, actor=_actor(request), note=note)
        except StaleVersion as error:
            return await self._stale(room, error)
        return self._room(room)

    async def _admit(self, request: web.Request) -> web.Response:
        room = self._name(request)
        _query(request)
        ticket, note = await self._texts(request, "admit", room, ticket=True, note=False)
        await self._operations.admit(room, ticket, actor=_actor(request), note=note)
        return web.Response(status=204, headers=NO_STORE)

    async def _end_session(self, request: web.Request) -> web.Response:
        room = self._name(request)
        _query(request)
        session, note = await self._texts(request, "end_session", room, session=True, note=False)
        await self._operations.end_session(room, int(session, 16), actor=_actor(request), note=note)
        return web.Response(status=204, headers=NO_STORE)

    # Audit log.

    async def _entries(self, request: web.Request) -> web.Response:
        query = _query(request, "before", "count")
        before = query.get("before", "+")
        if before != "+" and not _ENTRY_ID.fullmatch(before):
            raise BadChange({"before": "Must be the id of an entry, such as 1764000000000-0."})
        count = _whole(query, "count", 100, MOST_ENTRIES)
        return _json({"entries": [one.json() for one in await self._audit.read(before=before, count=count)]})

    async def _export(self, request: web.Request) -> web.StreamResponse:
        _query(request)
        entries = self._audit.export()
        first = await anext(entries, None)  # so that an unavailable store can still be reported by the status
        disposition = 'attachment; filename="waitroom-audit.jsonl"'
        headers = {**NO_STORE, "Content-Type": "application/jsonl", "Content-Disposition": disposition}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            if first is not None:
                await response.write(_line(first.json()))
                async for entry in entries:
                    await response.write(_line(entry.json()))
            await response.write_eof()
        except StoreUnavailable as error:
            # The status has been sent. An incomplete body is how HTTP signals an error from here on.
            log.error("audit log export failed", cause=str(error))
            if request.transport is not None:
                request.transport.close()
        return response

    async def _verify(self, request: web.Request) -> web.Response:
        _query(request)
        return _json(dataclasses.asdict(await self._audit.verify()))

    # Shared by the handlers.

    def _name(self, request: web.Request) -> str:
        room = request.match_info["room"]
        if room not in self._rooms:
            raise RequestError(404, "Unknown room. GET /api/v1/rooms lists all rooms.")
        return room

    async def _texts(self, request: web.Request, action: str, room: str, **wanted: bool) -> list[str]:
        """Returns text fields of a body; True marks required ones. The body may be omitted if no field is required."""
        optional = not any(wanted.values())
        body = {} if optional and not request.body_exists else await _body(request)
        try:
            return read_texts(body, wanted)
        except BadChange as error:
            await record_refusal(self._audit, _actor(request), action, room, error, body)
            raise

    def _room(self, room: str) -> web.Response:
        described = self._rooms.one(room)
        return _json(described, {"ETag": f'"{described["version"]}"'} if "version" in described else {})

    async def _stale(self, room: str, error: StaleVersion) -> web.Response:
        try:
            await self._operations.look(room)
        except StoreUnavailable:
            return problem(412, str(error))
        return stale(error, self._rooms.one(room))


def read_change(body: Mapping[str, Any]) -> tuple[Change, str]:
    """Returns the change that a body asks for, and its note. Raises `BadChange` with all invalid fields."""
    problems: dict[str, str] = {}
    read: dict[str, Any] = {}
    for name, value in body.items():
        reader = _READERS.get(name)
        if reader is None:
            problems[name] = f"Unknown field. Fields: {', '.join(_READERS)}."
            continue
        kind, expects = reader
        try:
            read[name] = kind(value)
        except (TypeError, ValueError):
            problems[name] = f"Must be {expects}."
    if problems:
        raise BadChange(problems)
    note = read.pop("note", "")
    return Change(**read), note


def read_texts(body: Mapping[str, Any], wanted: Mapping[str, bool]) -> list[str]:
    """Returns the text fields of a body, in order; True marks required ones. Raises `BadChange`."""
    problems = {name: f"Unknown field. Fields: {', '.join(wanted)}." for name in body if name not in wanted}
    for name, needed in wanted.items():
        if needed and name not in body:
            problems[name] = "Required."
        elif not isinstance(body.get(name, ""), str):
            problems[name] = "Must be a string."
        elif name == "session" and not SESSION.fullmatch(body[name]):
            problems[name] = "Must be a session as in Waitroom-Session: 1 to 16 of 0-9 and a-f."
    if problems:
        raise BadChange(problems)
    return [body.get(name, "") for name in wanted]


def _as_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if isinstance(value, int) and abs(value) > 1 << 53:
        return float("inf")  # rejected for its size, not its type
    return float(value)


def _as_whole(value: object) -> int:
    number = _as_number(value)
    return int(number) if number != float("inf") else 1 << 53


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _as_switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _as_whole_number(value: object) -> int:
    number = _as_number(value)
    if number != float("inf") and not number.is_integer():
        raise ValueError
    return _as_whole(value)


_READERS: dict[str, tuple[Any, str]] = {
    "rate_per_minute": (_as_number, "a number of visitors per minute"),
    "max_active": (_as_whole_number, "an integer number of visitors"),
    "state": (lambda value: RoomState(_as_text(value)), "open, paused, closed or sold_out"),
    "message": (_as_text, "a string"),
    "draining": (_as_switch, "true or false"),
    "autopilot": (_as_switch, "true or false"),
    "note": (_as_text, "a string"),
}


def _actor(request: web.Request) -> Actor:
    return request[ACTOR]


def _query(request: web.Request, *known: str) -> dict[str, str]:
    """Returns the query parameters. Unknown and repeated ones are rejected."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known:
            raise BadChange({name: "Unknown parameter."})
        if name in found:
            raise BadChange({name: "Given more than once."})
        found[name] = value
    return found


def _whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, str(default))
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        raise BadChange({name: f"Must be an integer from 1 to {most}."})
    return int(text)


def _switch(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise BadChange({name: "Must be true or false."})
    return text == "true"


def _version(request: web.Request) -> int:
    """Returns the version that a change is based on."""
    given = request.headers.getall("If-Match", [])
    if not given:
        raise RequestError(428, "If-Match is missing. Send the ETag of the room that the change is based on.")
    match = _ETAG.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        form = 'Must be one ETag of the room, such as "7", with the quotes.'
        raise RequestError(400, f"If-Match: {form}", {"If-Match": form})
    return int(match[1])


async def _body(request: web.Request) -> dict[str, Any]:
    """Returns the JSON object in a request's body."""
    if request.content_type != "application/json":
        raise RequestError(415, "Send JSON, with Content-Type: application/json.")
    read = await read_body(request, LONGEST_BODY)
    try:
        body = json.loads(read.decode(), parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"The body is not valid JSON: {error}.") from error
    if not isinstance(body, dict):
        raise RequestError(400, "The body must be a JSON object.")
    return body


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate field")
    return found


def _json(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(body, headers={**NO_STORE, **(headers or {})})


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"
