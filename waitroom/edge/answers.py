"""What visitors are answered from here: how it stands, as a page or as JSON, and errors."""

from __future__ import annotations

import json
import random
from typing import Final

from waitroom.edge.call import Call, kind_of
from waitroom.edge.http1 import Request, glance
from waitroom.edge.pages import Pages, PageValues
from waitroom.edge.room import Placed, Room
from waitroom.edge.standing import Standing, stand
from waitroom.edge.words import PageKind
from waitroom.gate import Kind, classify
from waitroom.queue.store import Fate, Visited
from waitroom.tokens import Ticket

JSON_LINES: Final = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
OK: Final = b"200 OK"
TOO_MANY: Final = b"429 Too Many Requests"
UNAVAILABLE: Final = b"503 Service Unavailable"


class Answers:
    """Says how it stands.

    Args:
        pages: What visitors see.
        spread: Spreads polls, so that visitors don't come in step; guards nothing.
    """

    def __init__(self, pages: Pages, spread: random.Random) -> None:
        self._pages = pages
        self._spread = spread
        self.page_lines = (
            b"Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nReferrer-Policy: same-origin\r\n"
            b"X-Content-Type-Options: nosniff\r\nVary: Accept-Language\r\nContent-Security-Policy: %b\r\n"
        ) % pages.csp.encode()

    def tell(self, call: Call, standing: Standing, lines: bytes = b"") -> None:
        """Answers a request that has to wait with the page, or the JSON, that says how it stands."""
        lines += b"Retry-After: %d\r\n" % standing.poll_after
        status = UNAVAILABLE if call.room.settings.waiting_status == 503 else OK
        if call.kind is Kind.NAVIGATION and standing.kind is not None:
            call.client.respond(status, lines + self.page_lines, self._room_page(call, standing))
        else:
            call.client.respond(status, lines + JSON_LINES, standing.json(call.room.name))

    def later(self, call: Call) -> None:
        """Answers a prefetch so that no cache keeps the answer and the browser asks again when the visitor clicks."""
        body = self.standing(call.room, "unknown").json(call.room.name)
        call.client.respond(UNAVAILABLE, JSON_LINES, body)

    def ask_for_a_moment(self, call: Call, seconds: int, lines: bytes, *, as_page: bool = True) -> None:
        """Answers a newcomer who is to try again in some seconds; ``lines`` hold the time of first arrival."""
        standing = self.standing(call.room, "unknown", kind=PageKind.BUSY, state="unknown")
        standing.poll_after = seconds + int(seconds * self._spread.random() / 4)
        if as_page:
            self.tell(call, standing, lines)
        else:
            lines += b"Retry-After: %d\r\n" % standing.poll_after
            call.client.respond(TOO_MANY, lines + JSON_LINES, standing.json(call.room.name))

    def left(self, call: Call, lines: bytes) -> None:
        """Answers somebody who gave up the place or the session."""
        if call.kind is Kind.NAVIGATION:
            body = self._pages.left_page(self._language(call.request), call.client.request_id)
            call.client.respond(OK, lines + self.page_lines, body)
        else:
            call.client.respond(OK, lines + JSON_LINES, self.standing(call.room, "unknown").json(call.room.name))

    def error(self, request: Request | None, request_id: str, status: int, head: bytes = b"") -> tuple[bytes, bytes]:
        """The header lines and body for an error. ``head`` is what has come of one that is no request."""
        if request is None:
            method, fields = glance(head)
            language, kind = self._pages.language(fields.get(b"accept-language")), classify(method, fields)
        else:
            language, kind = self._language(request), kind_of(request)
        if kind is Kind.NAVIGATION or kind is Kind.EMBEDDED:
            return self.page_lines, self._pages.error_page(status, language, request_id)
        text = self._pages.error_text(status, language)
        return JSON_LINES, json.dumps({"error": text, "status": status, "request_id": request_id}).encode()

    def standing(
        self,
        room: Room,
        fate: Fate,
        ticket: Ticket | None = None,
        claim_left_ms: int = 0,
        *,
        kind: PageKind | None = None,
        state: str | None = None,
        position: int | None = None,
    ) -> Standing:
        """How it stands with a visitor; ``kind``, ``state`` and ``position`` override what the view tells."""
        view = room.view
        start = None
        if ticket is not None and fate == "waiting":
            if position is None and view is not None:
                position = view.table.position(ticket.place)
            start = max(ticket.start_position, position or 0)
        eta = room.expected_wait(position) if position is not None else None
        found = stand(
            fate,
            view,
            room.viewed_at,
            position=position,
            start_position=start,
            eta=eta,
            claim_left_ms=claim_left_ms,
            store_up=room.store_up,
            jitter=self._spread.random(),
        )
        if kind is not None or state is not None:
            found = found.said(state or found.state, kind or found.kind)
        return found

    def placed(self, room: Room, placed: Placed, now: float) -> tuple[Ticket, Standing]:
        """The ticket and standing of somebody who has just joined the line."""
        ticket = room.ticket_for(placed, now)
        return ticket, self.standing(room, "waiting", ticket, position=placed.position)

    def renewed(self, room: Room, ticket: Ticket, visited: Visited) -> Ticket:
        """The ticket as its holder should keep it.

        One of an older generation that has been looked up is renewed, and so is one that stands for another place now;
        what its holder was promised at first doesn't hold for that one.
        """
        view = room.view
        generation = ticket.generation if view is None else view.generation
        if visited.moved_to:
            return Ticket(visited.moved_to, generation, ticket.joined_at, ticket.start_position, 0)
        if visited.fate != "waiting" or ticket.generation == generation:
            return ticket
        return Ticket(ticket.place, generation, ticket.joined_at, ticket.start_position, ticket.promised_seconds)

    def _room_page(self, call: Call, standing: Standing) -> bytes:
        """The page that says how it stands."""
        assert standing.kind is not None
        language = self._language(call.request)
        values = PageValues(
            position=standing.position,
            waiting=standing.waiting,
            eta=standing.eta,
            start_position=standing.start_position,
            poll_after=standing.poll_after,
            message=standing.message,
            updated_at=standing.updated_at,
            request_id=call.client.request_id,
            remaining=standing.remaining,
        )
        return self._pages.room_page(call.room.name, standing.kind, language, values)

    def _language(self, request: Request) -> str:
        return self._pages.language(request.fields.get(b"accept-language"))
