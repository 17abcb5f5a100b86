"""``/api/v1/rooms/{room}/events``: the events of a room and changes to them, as ``openapi.yaml`` describes them."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from waitroom.control.api.endpoints import BASE, RoomEndpoints, actor_of, json_response
from waitroom.control.api.errors import problem_responses
from waitroom.control.api.requests import ChangeQuery, EventBody, MoveBody, Query, read_query, read_version
from waitroom.control.audit.log import Audit
from waitroom.control.rooms.changes import StaleVersionError
from waitroom.control.rooms.event_changes import EventChange
from waitroom.control.rooms.event_operations import EventMove, EventOperations
from waitroom.control.rooms.event_presenter import event_json
from waitroom.control.rooms.presenter import Rooms
from waitroom.control.rooms.preview import Preview

_MOVES: tuple[EventMove, ...] = ("start", "end", "cancel")


class EventApi(RoomEndpoints):
    """Serves the events of one gateway's rooms.

    Args:
        rooms: The state of the rooms.
        operations: Changes to the events.
        audit: The audit log.
    """

    def __init__(self, rooms: Rooms, operations: EventOperations, audit: Audit) -> None:
        super().__init__(rooms, audit)
        self._operations = operations

    def add_to(self, app: web.Application) -> None:
        """Adds the routes. The application's middleware sets the authenticated actor in ``request[ACTOR]``."""
        add = app.router.add_route
        events = f"{BASE}/rooms/{{room}}/events"
        event = f"{events}/{{event}}"
        add("GET", events, problem_responses(self._list_events))
        add("GET", event, problem_responses(self._get_event))
        add("PUT", event, problem_responses(self._set_event))
        for move in _MOVES:
            add("POST", f"{event}/{move}", problem_responses(partial(self._move_event, move)))

    async def _list_events(self, request: web.Request) -> web.Response:
        read_query(request, Query)
        described = await self._operations.described(self._room_name(request))
        return json_response(described, _etag(described["version"]))

    async def _get_event(self, request: web.Request) -> web.Response:
        read_query(request, Query)
        return await self._event_response(self._room_name(request), request.match_info["event"])

    async def _set_event(self, request: web.Request) -> web.Response:
        room, name = self._room_name(request), request.match_info["event"]
        dry_run = read_query(request, ChangeQuery).dry_run
        expected = read_version(request)
        body = await self._body(request, None if dry_run else "set_event", room, EventBody)
        change: EventChange = body.change()
        operations = self._operations
        try:
            if dry_run:
                return _effect(await operations.preview_set(room, name, change, expected=expected), expected)
            is_new = await operations.set(
                room, name, change, expected=expected, actor=actor_of(request), note=body.note
            )
        except StaleVersionError as error:
            return await self._stale_version(room, error)
        return await self._changed_response(room, name, status=201 if is_new else 200)

    async def _move_event(self, move: EventMove, request: web.Request) -> web.Response:
        room, name = self._room_name(request), request.match_info["event"]
        dry_run = read_query(request, ChangeQuery).dry_run
        expected = read_version(request)
        body = await self._body(request, None if dry_run else f"{move}_event", room, MoveBody)
        operations = self._operations
        try:
            if dry_run:
                return _effect(await operations.preview_move(move, room, name, expected=expected), expected)
            await operations.move(move, room, name, expected=expected, actor=actor_of(request), note=body.note)
        except StaleVersionError as error:
            return await self._stale_version(room, error)
        return await self._changed_response(room, name)

    async def _changed_response(self, room: str, name: str, status: int = 200) -> web.Response:
        await self._rooms.refresh(room)  # the view may be from before the change if the store has just failed
        return await self._event_response(room, name, status)

    async def _event_response(self, room: str, name: str, status: int = 200) -> web.Response:
        found = await self._operations.events(room)
        return json_response(event_json(found.find(name)), _etag(found.view.version), status)


def _effect(preview: Preview, version: int) -> web.Response:
    return json_response({"effect": preview.json()}, _etag(version))


def _etag(version: int) -> dict[str, str]:
    return {"ETag": f'"{version}"'}
