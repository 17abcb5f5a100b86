"""``/api/v1/rooms/{room}/sale-links``: links to a room's sale page, as ``openapi.yaml`` describes them."""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import web
from pydantic import BeforeValidator, Field

from waitroom.control.api.endpoints import BASE, RoomEndpoints, actor_of, json_response
from waitroom.control.api.errors import problem_responses
from waitroom.control.api.requests import Body, Query, as_integer, read_query
from waitroom.control.audit.log import Audit
from waitroom.control.auth.sale_links import DEFAULT_HOURS, MAX_HOURS, SaleLinks
from waitroom.control.http import NO_STORE
from waitroom.control.rooms.changes import check_note
from waitroom.control.rooms.event_presenter import time_json
from waitroom.control.rooms.presenter import Rooms

LINKS_PATH: Final = f"{BASE}/rooms/{{room}}/sale-links"
ACTION: Final = "sale_link"


class LinkBody(Body):
    """The body of a new link."""

    optional = True
    hours: Annotated[int, BeforeValidator(as_integer)] = Field(
        DEFAULT_HOURS, ge=1, le=MAX_HOURS, description=f"an integer from 1 to {MAX_HOURS:,}"
    )
    note: str = Field("", description="a string")


class SaleLinkApi(RoomEndpoints):
    """Makes and revokes links.

    Args:
        rooms: The state of the rooms.
        links: Signs and revokes.
        audit: The audit log.
    """

    def __init__(self, rooms: Rooms, links: SaleLinks, audit: Audit) -> None:
        super().__init__(rooms, audit)
        self._links = links

    def add_to(self, app: web.Application) -> None:
        """Adds the routes. The application's middleware sets the authenticated actor in ``request[ACTOR]``."""
        app.router.add_post(LINKS_PATH, problem_responses(self._create))
        app.router.add_delete(LINKS_PATH, problem_responses(self._revoke))

    async def _create(self, request: web.Request) -> web.Response:
        room = self._room_name(request)
        read_query(request, Query)
        body = await self._body(request, ACTION, room, LinkBody)
        check_note(body.note)
        path, ends_at = await self._links.create(room, body.hours)
        expires_at = time_json(ends_at * 1000)
        new = {"link": "created", "expires_at": expires_at}
        await self._audit.record(actor_of(request), ACTION, room=room, new=new, note=body.note)
        return json_response({"path": path, "expires_at": expires_at}, status=201)

    async def _revoke(self, request: web.Request) -> web.Response:
        room = self._room_name(request)
        read_query(request, Query)
        await self._links.revoke(room)
        await self._audit.record(actor_of(request), ACTION, room=room, new={"link": "all revoked"})
        return web.Response(status=204, headers=NO_STORE)
