"""``/api/v1/rooms/{room}/sale-links``: links to a room's sale page, as ``openapi.yaml`` describes them."""

from __future__ import annotations

from collections.abc import Container
from datetime import UTC, datetime
from typing import Annotated, Final

from aiohttp import web
from pydantic import BeforeValidator, Field

from waitroom.control.api.errors import problem_responses
from waitroom.control.api.requests import Body, Query, as_integer, parse, read_json, read_query
from waitroom.control.audit.log import Audit
from waitroom.control.auth.middleware import ACTOR
from waitroom.control.auth.sale_links import DEFAULT_HOURS, MAX_HOURS, SaleLinks
from waitroom.control.http import NO_STORE, RequestError
from waitroom.control.rooms.operations import check_note

LINKS_PATH: Final = "/api/v1/rooms/{room}/sale-links"
ACTION: Final = "sale_link"


class LinkBody(Body):
    """The body of a new link."""

    optional = True
    hours: Annotated[int, BeforeValidator(as_integer)] = Field(
        DEFAULT_HOURS, ge=1, le=MAX_HOURS, description=f"an integer from 1 to {MAX_HOURS:,}"
    )
    note: str = Field("", description="a string")


class SaleLinkApi:
    """Makes and revokes links.

    Args:
        rooms: The names of the rooms.
        links: Signs and revokes.
        audit: The audit log.
    """

    def __init__(self, rooms: Container[str], links: SaleLinks, audit: Audit) -> None:
        self._rooms = rooms
        self._links = links
        self._audit = audit

    def add_to(self, app: web.Application) -> None:
        """Adds the routes. The application's middleware sets the authenticated actor in ``request[ACTOR]``."""
        app.router.add_post(LINKS_PATH, problem_responses(self._create))
        app.router.add_delete(LINKS_PATH, problem_responses(self._revoke))

    async def _create(self, request: web.Request) -> web.Response:
        room = self._room(request)
        read_query(request, Query)
        body = parse(LinkBody, await read_json(request) if request.body_exists else {})
        check_note(body.note)
        path, ends_at = await self._links.create(room, body.hours)
        expires_at = datetime.fromtimestamp(ends_at, UTC).isoformat().replace("+00:00", "Z")
        new = {"sale_link": "created", "expires_at": expires_at}
        await self._audit.record(request[ACTOR], ACTION, room=room, new=new, note=body.note)
        return web.json_response({"path": path, "expires_at": expires_at}, status=201, headers=NO_STORE)

    async def _revoke(self, request: web.Request) -> web.Response:
        room = self._room(request)
        read_query(request, Query)
        await self._links.revoke(room)
        await self._audit.record(request[ACTOR], ACTION, room=room, new={"sale_link": "all revoked"})
        return web.Response(status=204, headers=NO_STORE)

    def _room(self, request: web.Request) -> str:
        room = request.match_info["room"]
        if room not in self._rooms:
            raise RequestError(404, "Unknown room. GET /api/v1/rooms lists all rooms.")
        return room
