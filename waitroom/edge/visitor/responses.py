"""Responses to visitors from the edge itself: their status, as a page or as JSON, and errors."""

# mypyc: compile

from __future__ import annotations

import json
import random
from typing import Final
from urllib.parse import quote

from waitroom.edge.http.headers import gateway_tokens
from waitroom.edge.http.message import Request, peek_head
from waitroom.edge.pages.messages import PageKind
from waitroom.edge.pages.renderer import Pages, PageValues
from waitroom.edge.rooms.room import Room
from waitroom.edge.visitor.context import CheckAnswer, RequestContext, kind_of
from waitroom.edge.visitor.flow import Delayed, Held, Outcome, Queued, Rejected, TicketStatus
from waitroom.edge.visitor.shown import SETTLING_MS, next_shown, read_shown
from waitroom.edge.visitor.status import (
    STATES_WITH_NOTICE,
    SharedStatus,
    VisitorState,
    VisitorStatus,
    build_rejected_status,
    build_status,
)
from waitroom.gate import Kind, classify
from waitroom.queue.store import Fate
from waitroom.queue.view import RoomState
from waitroom.tokens import Ticket

JSON_HEADERS: Final = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
OK: Final = b"200 OK"
FOUND: Final = b"302 Found"
UNAUTHORIZED: Final = b"401 Unauthorized"
FORBIDDEN: Final = b"403 Forbidden"
TOO_MANY: Final = b"429 Too Many Requests"
UNAVAILABLE: Final = b"503 Service Unavailable"

# nginx's buffer for the whole head of an answer to its check is 4 KB by default.
MAX_SHORT_ADDRESS_BYTES: Final = 1024


class Responder:
    """Renders a visitor's status.

    Args:
        pages: The visitors' pages.
        spread: Spreads polls, so that visitors don't poll in step; not used for security.
    """

    def __init__(self, pages: Pages, spread: random.Random) -> None:
        self._pages = pages
        self._spread = spread
        self._shared: dict[str, SharedStatus] = {}
        self.page_headers = (
            b"Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nReferrer-Policy: same-origin\r\n"
            b"X-Content-Type-Options: nosniff\r\nVary: Accept-Language\r\nContent-Security-Policy: %b\r\n"
        ) % pages.csp.encode()

    def respond(self, context: RequestContext, status: VisitorStatus, headers: bytes = b"") -> None:
        """Responds to a request that has to wait with the status, as the page or as JSON."""
        if context.check is not None and context.check is not CheckAnswer.PAGE:
            self._respond_to_proxy(context, status)
            return
        headers += self.hold_position(context, status) + b"Retry-After: %d\r\n" % status.poll_after
        status_line = UNAVAILABLE if context.room.settings.waiting_status == 503 else OK
        if context.check is not None:  # some proxies drop the body of a 503
            status_line = TOO_MANY
        if context.kind is Kind.NAVIGATION and status.kind is not None:
            context.client.respond(status_line, headers + self.page_headers, self._room_page(context, status))
        else:
            context.client.respond(status_line, headers + JSON_HEADERS, status.json(context.room.name))

    def _respond_to_proxy(self, context: RequestContext, status: VisitorStatus) -> None:
        """Answers a check of a request that may not proceed, for a proxy that leads its visitor to the waiting page."""
        room, target = context.room, context.request.target
        retry = b"Retry-After: %d\r\n" % status.poll_after
        if context.check is CheckAnswer.STATUS:
            address = wait_address(room.name, target)
            if len(address) > MAX_SHORT_ADDRESS_BYTES:
                address = wait_address(room.name, None)
            headers = b"Location: %b\r\n" % address + retry + JSON_HEADERS
            context.client.respond(UNAUTHORIZED, headers, b'{"waiting_page":"%b"}' % address)
        elif context.kind is Kind.NAVIGATION:
            host = context.client.peer.client_info(context.request).host
            scheme = b"https" if context.secure else b"http"
            location = b"Location: %b://%b%b\r\n" % (scheme, host, wait_address(room.name, target))
            context.client.respond(FOUND, location + b"Cache-Control: no-store\r\n", b"")
        else:
            context.client.respond(TOO_MANY, retry + JSON_HEADERS, status.json(room.name))

    def hold_position(self, context: RequestContext, status: VisitorStatus) -> bytes:
        """Keeps the shown position from rising without a reason; returns the header lines that remember it."""
        position, room = status.position, context.room
        view = room.view
        if position is None or not status.place or view is None:
            return b""
        brought = context.request.fields.get(b"waitroom-shown")
        before = read_shown(gateway_tokens(context.client.cookies, room.shown_cookie_name, brought), status.place)
        # A generation's number is its beginning.
        settling = view.lost_data and 0 <= view.wall_ms - view.generation < SETTLING_MS
        shown = next_shown(before, status.place, view.generation, position, settling=settling)
        status.position, status.position_reason = shown.position, shown.reason
        if not shown.reason and view.draws.is_drawn(status.place):
            status.position_reason = "drawn"
        status.waiting = max(view.waiting, shown.position)
        if shown is before:
            return b""
        value = shown.value()
        headers = context.cookie(room.shown_cookie, value, room.settings.keep_place_seconds)
        return headers if brought is None else headers + b"Waitroom-Shown: %b\r\n" % value.encode()

    def respond_outcome(self, context: RequestContext, outcome: Outcome) -> None:
        """Responds to a visitor who isn't admitted with the reason, and counts the request."""
        room, status = context.room, self.outcome_status(context, outcome)
        if isinstance(outcome, Queued):
            room.count("queued")
            self.respond(context, status, context.ticket_headers(outcome.ticket))
        elif isinstance(outcome, TicketStatus):
            room.count("waiting")
            self.respond(context, status, context.ticket_headers(outcome.ticket) if outcome.changed else b"")
        elif isinstance(outcome, Delayed):
            self.respond(context, status, outcome.headers)
        else:
            room.count("turned_away" if isinstance(outcome, Rejected) else "held")
            self.respond(context, status)

    def respond_to_prefetch(self, context: RequestContext) -> None:
        """Answers a prefetch so that no cache stores the response and the browser asks again on the click."""
        status = self.status(context.room, "unknown")
        if context.check is None:
            context.client.respond(UNAVAILABLE, JSON_HEADERS, status.json(context.room.name))
        else:
            self.respond(context, status)

    def respond_without_cookies(self, context: RequestContext) -> None:
        """Tells a visitor whose browser keeps no cookies why nothing else will happen."""
        if context.kind is Kind.NAVIGATION:
            body = self._pages.cookies_page(self._language(context.request), context.client.request_id)
            context.client.respond(FORBIDDEN, self.page_headers, body)
        else:
            context.client.fail(403)

    def respond_left(self, context: RequestContext, headers: bytes) -> None:
        """Responds to a visitor who gave up the place or the session."""
        if context.kind is Kind.NAVIGATION:
            body = self._pages.left_page(self._language(context.request), context.client.request_id)
            context.client.respond(OK, headers + self.page_headers, body)
        else:
            context.client.respond(
                OK, headers + JSON_HEADERS, self.status(context.room, "unknown").json(context.room.name)
            )

    def error(self, request: Request | None, request_id: str, status: int, head: bytes = b"") -> tuple[bytes, bytes]:
        """The header lines and body of an error. ``head`` is the received part of a malformed request."""
        if request is None:
            method, fields = peek_head(head)
            language, kind = self._pages.language(fields.get(b"accept-language")), classify(method, fields)
        else:
            language, kind = self._language(request), kind_of(request)
        if kind is Kind.NAVIGATION or kind is Kind.EMBEDDED:
            return self.page_headers, self._pages.error_page(status, language, request_id)
        text = self._pages.error_text(status, language)
        return JSON_HEADERS, json.dumps({"error": text, "status": status, "request_id": request_id}).encode()

    def status(
        self,
        room: Room,
        fate: Fate,
        ticket: Ticket | None = None,
        claim_left_ms: int = 0,
        *,
        kind: PageKind | None = None,
        state: VisitorState | None = None,
        joined: Queued | None = None,
    ) -> VisitorStatus:
        """The status of a visitor; ``kind`` and ``state`` override the view.

        For a visitor who has just joined, the store knows the room's state and the position better than the last view.
        """
        view = room.view
        position = start = None
        if ticket is not None and fate == "waiting":
            if joined is not None:
                position = joined.position
            elif view is not None:
                position = view.position(ticket.place)
            start = max(ticket.start_position, position or 0)
        found = build_status(
            fate,
            self._shared_status(room),
            position=position,
            start_position=start,
            eta=None if position is None else room.expected_wait(position),
            claim_left_ms=claim_left_ms,
            store_up=room.store_up,
            jitter=self._spread.random(),
            now=room.clock.unix(),
            state=None if joined is None else joined.state,
        )
        if ticket is not None and fate == "waiting":
            found.place = ticket.place
            if position is not None and view is not None:
                found.likely_sold_out = room.stock.likely_sold_out(view, position)
                if room.store_up:
                    found.poll_after = room.stock.shorten_poll(view, found.poll_after, self._spread.random())
        if kind is not None:
            found.kind = kind
        if state is not None:
            found.state = state
        return found

    def status_without_place(self, room: Room) -> VisitorStatus:
        """The status of a visitor who has no place: unknown, unless the room accepts nobody."""
        view = room.view
        if view is not None and room.store_up and view.state in (RoomState.CLOSED, RoomState.SOLD_OUT):
            return self._rejected_status(room, view.state)
        return self.status(room, "unknown")

    def outcome_status(self, context: RequestContext, outcome: Outcome) -> VisitorStatus:
        """The status of a visitor after a step of the flow."""
        room = context.room
        if isinstance(outcome, Queued):
            return self.status(room, "waiting", outcome.ticket, joined=outcome)
        if isinstance(outcome, TicketStatus):
            if outcome.fate == "unknown":
                return self.status_without_place(room)
            return self.status(room, outcome.fate, outcome.ticket, outcome.left_ms)
        if isinstance(outcome, Rejected):
            return self._rejected_status(room, outcome.state)
        if isinstance(outcome, Held):
            state: VisitorState | None = "unknown" if outcome.ticket is None else None
            return self.status(room, "waiting", outcome.ticket, kind=PageKind.HELD, state=state)
        if isinstance(outcome, Delayed):
            status = self.status(room, "unknown", kind=PageKind.BUSY, state="unknown")
            status.poll_after = outcome.seconds + int(outcome.seconds * self._spread.random() / 4)
            return status
        return self.status(room, "admitted")

    def _rejected_status(self, room: Room, state: RoomState) -> VisitorStatus:
        return build_rejected_status(
            self._shared_status(room), state, jitter=self._spread.random(), now=room.clock.unix()
        )

    def _shared_status(self, room: Room) -> SharedStatus:
        """The part of the status that all visitors share; the same object until the next view."""
        shared = self._shared.get(room.name)
        if shared is None or shared.view is not room.view or shared.updated_at is not room.viewed_at:
            shared = self._shared[room.name] = SharedStatus(room.view, room.viewed_at, room.stock.polls_per_second)
        return shared

    def _room_page(self, context: RequestContext, status: VisitorStatus) -> bytes:
        """The page that shows the status."""
        assert status.kind is not None
        language, shared = self._language(context.request), status.shared
        values = PageValues(
            position=status.position,
            waiting=status.waiting,
            eta=status.eta,
            start_position=status.start_position,
            poll_after=status.poll_after,
            message=shared.message,
            updated_at=shared.updated_at,
            request_id=context.client.request_id,
            remaining=shared.remaining,
            position_reason=status.position_reason,
            text=shared.text(status.kind),
            now_ms=int(context.now * 1000),
            notice=shared.notice if status.state in STATES_WITH_NOTICE else None,
            likely_sold_out=status.likely_sold_out is True,
        )
        return self._pages.room_page(context.room.name, status.kind, language, values)

    def _language(self, request: Request) -> str:
        return self._pages.language(request.fields.get(b"accept-language"))


def wait_address(room: str, target: bytes | None) -> bytes:
    """The address of the waiting page, as a path.

    Args:
        room: The name of the room.
        target: Where the visitor goes once admitted; None leaves that to the proxy.
    """
    address = f"/.waitroom/wait?room={room}"
    return address.encode() if target is None else f"{address}&to={quote(target, safe='/')}".encode()
