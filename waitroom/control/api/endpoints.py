"""Shared by the endpoints of the API: reading requests to a room, and responding with its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from waitroom.control.api.errors import stale_version
from waitroom.control.api.requests import AnyBody, parse, read_json
from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor
from waitroom.control.auth.middleware import ACTOR
from waitroom.control.http import NO_STORE, RequestError, problem
from waitroom.control.rooms.changes import InvalidChangeError, StaleVersionError, record_refusal
from waitroom.control.rooms.presenter import Rooms
from waitroom.errors import StoreUnavailable

BASE = "/api/v1"


class RoomEndpoints:
    """Endpoints on the rooms of one gateway.

    Args:
        rooms: The state of the rooms.
        audit: The audit log.
    """

    def __init__(self, rooms: Rooms, audit: Audit) -> None:
        self._rooms = rooms
        self._audit = audit

    def _room_name(self, request: web.Request) -> str:
        room = request.match_info["room"]
        if room not in self._rooms:
            raise RequestError(404, "Unknown room. GET /api/v1/rooms lists all rooms.")
        return room

    async def _body(self, request: web.Request, action: str | None, room: str, model: type[AnyBody]) -> AnyBody:
        """Returns a request's body. With an ``action``, a refusal is recorded in the audit log under it."""
        body = {} if model.optional and not request.body_exists else await read_json(request)
        try:
            return parse(model, body)
        except InvalidChangeError as error:
            if action is not None:
                await record_refusal(self._audit, actor_of(request), action, room, error, body)
            raise

    def _room_response(self, room: str) -> web.Response:
        described = self._rooms.one(room)
        return json_response(described, {"ETag": f'"{described["version"]}"'} if "version" in described else {})

    async def _stale_version(self, room: str, error: StaleVersionError) -> web.Response:
        try:
            await self._rooms.refresh(room)
        except StoreUnavailable:
            return problem(412, str(error))
        return stale_version(error, self._rooms.one(room))


def actor_of(request: web.Request) -> Actor:
    """Returns the authenticated actor of a request."""
    return request[ACTOR]


def json_response(body: Mapping[str, Any], headers: Mapping[str, str] | None = None, status: int = 200) -> web.Response:
    """Returns a response that no cache stores."""
    return web.json_response(body, headers={**NO_STORE, **(headers or {})}, status=status)
