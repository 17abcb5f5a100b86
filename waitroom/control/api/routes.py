"""``/api/v1``: the rooms, changes to them, history and audit log, as ``openapi.yaml`` describes them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import structlog
from aiohttp import web

from waitroom.control.api.endpoints import BASE, RoomEndpoints, actor_of, json_response
from waitroom.control.api.errors import problem_responses
from waitroom.control.api.requests import (
    AdmitBody,
    AnyBody,
    AuditQuery,
    ChangeBody,
    ChangeQuery,
    CommandBody,
    DecisionsQuery,
    EndSessionBody,
    HistoryQuery,
    Query,
    SessionPath,
    StockBody,
    UndoBody,
    parse,
    read_json,
    read_query,
    read_version,
)
from waitroom.control.audit.log import Audit
from waitroom.control.auth.middleware import COMMANDS_PATH, STOCK_PATH
from waitroom.control.autopilot.state import DecisionLog
from waitroom.control.http import NO_STORE
from waitroom.control.monitoring.history import History
from waitroom.control.rooms.changes import InvalidChangeError, StaleVersionError
from waitroom.control.rooms.operations import Change, Operations
from waitroom.control.rooms.presenter import Rooms
from waitroom.control.rooms.shop_api import ACTION, STOCK_ACTION, ShopApi
from waitroom.errors import StoreUnavailable
from waitroom.queue.fields import limits_of

log = structlog.get_logger()


class Api(RoomEndpoints):
    """Serves the rooms of one gateway.

    Args:
        rooms: The state of the rooms.
        operations: Changes to the rooms.
        shop_api: Commands of the shops.
        history: The rooms' last hours.
        audit: The audit log.
        decision_logs: The autopilot's decisions, by room.
    """

    def __init__(
        self,
        rooms: Rooms,
        operations: Operations,
        shop_api: ShopApi,
        history: History,
        audit: Audit,
        decision_logs: Mapping[str, DecisionLog],
    ) -> None:
        super().__init__(rooms, audit)
        self._operations = operations
        self._shop_api = shop_api
        self._history = history
        self._decision_logs = decision_logs
        self._description = (files("waitroom.control.api") / "openapi.yaml").read_text(encoding="utf-8")

    def add_to(self, app: web.Application) -> None:
        """Adds the routes. The application's middleware sets the authenticated actor in ``request[ACTOR]``."""
        add = app.router.add_route
        add("GET", f"{BASE}/openapi.yaml", problem_responses(self._get_description))
        add("GET", f"{BASE}/rooms", problem_responses(self._list_rooms))
        add("GET", f"{BASE}/rooms/{{room}}", problem_responses(self._get_room))
        add("PATCH", f"{BASE}/rooms/{{room}}", problem_responses(self._change_room))
        add("POST", f"{BASE}/rooms/{{room}}/undo", problem_responses(self._undo_change))
        add("POST", f"{BASE}/rooms/{{room}}/admit", problem_responses(self._admit_ticket))
        add("POST", f"{BASE}/rooms/{{room}}/end-session", problem_responses(self._end_session))
        add("POST", COMMANDS_PATH, problem_responses(self._command_session))
        add("POST", STOCK_PATH, problem_responses(self._report_stock))
        add("GET", f"{BASE}/rooms/{{room}}/history", problem_responses(self._get_history))
        add("GET", f"{BASE}/rooms/{{room}}/diff", problem_responses(self._get_diff))
        add("GET", f"{BASE}/rooms/{{room}}/decisions", problem_responses(self._list_decisions))
        add("GET", f"{BASE}/audit", problem_responses(self._list_entries))
        add("GET", f"{BASE}/audit/export", problem_responses(self._export_audit))
        add("GET", f"{BASE}/audit/verify", problem_responses(self._verify_audit))

    # State.

    async def _get_description(self, request: web.Request) -> web.Response:
        read_query(request, Query)
        return web.Response(text=self._description, content_type="application/yaml", headers=NO_STORE)

    async def _list_rooms(self, request: web.Request) -> web.Response:
        read_query(request, Query)
        return json_response({"rooms": self._rooms.described()})

    async def _get_room(self, request: web.Request) -> web.Response:
        read_query(request, Query)
        return self._room_response(self._room_name(request))

    async def _get_history(self, request: web.Request) -> web.Response:
        room = self._room_name(request)
        query = read_query(request, HistoryQuery)
        body = b'{"samples": [%b]}' % b",".join(await self._history.read_json(room, query.seconds))
        return web.Response(body=body, content_type="application/json", charset="utf-8", headers=NO_STORE)

    async def _get_diff(self, request: web.Request) -> web.Response:
        read_query(request, Query)
        room = self._room_name(request)
        file = dataclasses.asdict(limits_of(self._rooms.settings(room)))
        running = dataclasses.asdict(await self._operations.running(room))
        return json_response(
            {"file": file, "running": running, "differs": [name for name in file if file[name] != running[name]]}
        )

    async def _list_decisions(self, request: web.Request) -> web.Response:
        room = self._room_name(request)
        query = read_query(request, DecisionsQuery)
        decisions = await self._decision_logs[room].decisions(query.count)
        return json_response({"decisions": [decision.described() for decision in decisions]})

    # Changes.

    async def _change_room(self, request: web.Request) -> web.Response:
        room = self._room_name(request)
        dry_run = read_query(request, ChangeQuery).dry_run
        expected = read_version(request)
        body = await self._body(request, None if dry_run else "change", room, ChangeBody)
        try:
            if dry_run:
                return await self._preview(room, body.change(), expected)
            actor = actor_of(request)
            await self._operations.change(room, body.change(), expected=expected, actor=actor, note=body.note)
        except StaleVersionError as error:
            return await self._stale_version(room, error)
        return self._room_response(room)

    async def _preview(self, room: str, change: Change, expected: int) -> web.Response:
        view = await self._rooms.refresh(room)
        if view.version != expected:
            raise StaleVersionError(view.version)
        return json_response({"effect": self._operations.preview(room, change).json()}, {"ETag": f'"{view.version}"'})

    async def _undo_change(self, request: web.Request) -> web.Response:
        room = self._room_name(request)
        read_query(request, Query)
        expected = read_version(request)
        body = await self._body(request, "undo", room, UndoBody)
        try:
            await self._operations.undo(room, expected=expected, actor=actor_of(request), note=body.note)
        except StaleVersionError as error:
            return await self._stale_version(room, error)
        return self._room_response(room)

    async def _admit_ticket(self, request: web.Request) -> web.Response:
        room = self._room_name(request)
        read_query(request, Query)
        body = await self._body(request, "admit", room, AdmitBody)
        await self._operations.admit(room, body.ticket, actor=actor_of(request), note=body.note)
        return web.Response(status=204, headers=NO_STORE)

    async def _end_session(self, request: web.Request) -> web.Response:
        room = self._room_name(request)
        read_query(request, Query)
        body = await self._body(request, "end_session", room, EndSessionBody)
        await self._operations.end_session(room, int(body.session, 16), actor=actor_of(request), note=body.note)
        return web.Response(status=204, headers=NO_STORE)

    # Commands of the shops.

    async def _command_session(self, request: web.Request) -> web.Response:
        room = self._room_name(request)
        read_query(request, Query)
        session = parse(SessionPath, {"session": request.match_info["session"]}).session
        body = await self._shop_body(request, ACTION, room, CommandBody)
        await self._shop_api.command_session(room, int(session, 16), body.command, actor=actor_of(request))
        return web.Response(status=204, headers=NO_STORE)

    async def _report_stock(self, request: web.Request) -> web.Response:
        room = self._room_name(request)
        read_query(request, Query)
        body = await self._shop_body(request, STOCK_ACTION, room, StockBody)
        await self._shop_api.report_stock(room, body.remaining, actor=actor_of(request))
        return web.Response(status=204, headers=NO_STORE)

    async def _shop_body(self, request: web.Request, action: str, room: str, model: type[AnyBody]) -> AnyBody:
        body = await read_json(request)
        try:
            return parse(model, body)
        except InvalidChangeError as error:
            await self._shop_api.refuse_invalid(room, action, error, body, actor=actor_of(request))
            raise

    # Audit log.

    async def _list_entries(self, request: web.Request) -> web.Response:
        query = read_query(request, AuditQuery)
        entries = await self._audit.read(before=query.before, count=query.count)
        return json_response({"entries": [entry.json() for entry in entries]})

    async def _export_audit(self, request: web.Request) -> web.StreamResponse:
        read_query(request, Query)
        entries = self._audit.export()
        first = await anext(entries, None)  # so that an unavailable store can still be reported by the status
        disposition = 'attachment; filename="waitroom-audit.jsonl"'
        headers = {**NO_STORE, "Content-Type": "application/jsonl", "Content-Disposition": disposition}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            if first is not None:
                await response.write(_json_line(first.json()))
                async for entry in entries:
                    await response.write(_json_line(entry.json()))
            await response.write_eof()
        except StoreUnavailable as error:
            # The status has been sent. An incomplete body is how HTTP signals an error from here on.
            log.error("audit log export failed", cause=str(error))
            if request.transport is not None:
                request.transport.close()
        return response

    async def _verify_audit(self, request: web.Request) -> web.Response:
        read_query(request, Query)
        return json_response(dataclasses.asdict(await self._audit.verify()))


def _json_line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"
