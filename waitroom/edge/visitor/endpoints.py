"""The visitor endpoints under ``/.waitroom/``: for the waiting page's script, for apps, and for other proxies."""

# mypyc: compile

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qs, quote

from waitroom.edge.client.interfaces import Client
from waitroom.edge.http.message import Request
from waitroom.edge.rooms.room import Room
from waitroom.edge.rooms.router import Route, Router
from waitroom.edge.rooms.session import Session
from waitroom.edge.visitor.context import RequestContext, kind_of
from waitroom.edge.visitor.flow import Admitted, Delayed, Outcome, Queued, TicketStatus, VisitorFlow
from waitroom.edge.visitor.original_request import OriginalRequestError, read_original
from waitroom.edge.visitor.responses import JSON_HEADERS, OK, TOO_MANY, UNAVAILABLE, Responder
from waitroom.edge.visitor.status import VisitorStatus
from waitroom.errors import StoreUnavailable
from waitroom.gate import Kind, is_void
from waitroom.queue.store import Fate
from waitroom.tokens import Ticket

Handler = Callable[[Client, Request], None]

CREATED = b"201 Created"
CONFLICT = b"409 Conflict"

CLAIM = b"/.waitroom/claim"
WAIT = b"/.waitroom/wait"
# A page with extended time admits the visitor by itself this long before its end: a hidden tab has one timer a minute.
_ENTER_EARLY_SECONDS: Final = 75
_READS, _WRITES = (b"GET", b"HEAD"), (b"POST",)


class Endpoints:
    """Answers requests to our own addresses.

    Args:
        responder: Renders responses.
        flow: The visitor flow.
        router: Knows the hosts of the rooms.
        rooms: The rooms by name.
        admit_or_wait: Handles a navigation, for the waiting page's own address.
    """

    def __init__(
        self,
        responder: Responder,
        flow: VisitorFlow,
        router: Router,
        rooms: Mapping[str, Room],
        admit_or_wait: Callable[[RequestContext], None],
    ) -> None:
        self._responder = responder
        self._flow = flow
        self._router = router
        self._rooms = rooms
        self._admit_or_wait = admit_or_wait
        self._handlers: dict[bytes, tuple[tuple[bytes, ...], Callable[[RequestContext], None]]] = {
            b"/.waitroom/status": (_READS, self._status),
            b"/.waitroom/join": (_WRITES, lambda context: context.client.spawn(self._join(context))),
            CLAIM: (_WRITES, lambda context: context.client.spawn(self._claim(context))),
            b"/.waitroom/leave": (_WRITES, lambda context: context.client.spawn(self._leave(context))),
            WAIT: (_READS, self._wait),
        }

    def resolve_handler(self, request: Request, route: Route) -> Handler:
        """The handler of requests under the reserved prefix, checks aside, that have a head like this one.

        Args:
            request: One of them.
            route: The route of its host and path.
        """
        methods, handler = self._handlers.get(request.path, ((), None))
        if handler is None:
            return _failing(404)
        if request.path == CLAIM and request.method == b"GET" and kind_of(request) is Kind.NAVIGATION:
            methods, handler = _READS, self._wait  # from the page that offers more time
        if request.method not in methods:
            return self._refusing(b"405 Method Not Allowed", 405, b"Allow: %b\r\n" % b", ".join(methods))
        if request.method == b"POST" and _is_cross_site(request):
            return self._refusing(b"403 Forbidden", 403)
        query = _query(request)
        if request.path == WAIT and "room" not in query:
            return self._wait_in_place(request, route)
        name = query.get("room", route.room)
        if name not in self._rooms:
            return _failing(404)
        room, handle = self._rooms[name], handler
        if self._router.serves(name, request.fields.get(b"host", b"")):
            return lambda client, request: handle(RequestContext(client, request, room))
        return lambda client, request: self._handle_from_proxy(RequestContext(client, request, room), handle)

    def _wait_in_place(self, request: Request, route: Route) -> Handler:
        """The handler of the waiting page that a proxy may serve in place of the shop's page, as after a check."""
        here, original = self._rooms[route.room], self._replaced_by_page(request)
        there = None if original is None else self._router.route(original.fields[b"host"], original.path)
        room = here if there is None else self._rooms[there.room]

        def wait(client: Client, request: Request) -> None:
            trusted = client.peer.trusted
            context = RequestContext(client, request, room if trusted else here)
            is_page = original is None or kind_of(original) is Kind.NAVIGATION
            if trusted and not is_page and context.kind is Kind.NAVIGATION:
                context.kind = Kind.OTHER  # such as HEAD: the proxy asks with GET, but it takes no place
            self._wait(context)

        return wait

    def _replaced_by_page(self, request: Request) -> Request | None:
        """The request in whose place a proxy serves the waiting page; None for the page at its own address.

        Some proxies name the address of every request, so of that one too.
        """
        try:
            original = read_original(request)
        except OriginalRequestError:
            return None
        route = self._router.route(original.fields[b"host"], original.path)
        return None if route is not None and route.reserved else original

    def _handle_from_proxy(self, context: RequestContext, handle: Callable[[RequestContext], None]) -> None:
        """Handles a request for a room of another host: only if a trusted proxy says that it was sent to that host.

        Otherwise any host would be a way into each room, with cookies of its own.
        """
        host = context.client.peer.client_info(context.request).host
        if self._router.serves(context.room.name, host):
            handle(context)
        else:
            context.client.fail(404)

    def _refusing(self, status_line: bytes, status: int, headers: bytes = b"") -> Handler:
        def refuse(client: Client, request: Request) -> None:
            page_headers, body = self._responder.error(request, client.request_id, status)
            client.respond(status_line, page_headers + headers, body)

        return refuse

    def _status(self, context: RequestContext) -> None:
        room, ticket = context.room, context.ticket
        room.count("status")
        if _is_admitted(context):
            self._respond_json(context, OK, self._responder.status(room, "admitted"))
        elif ticket is None or is_void(ticket, room.view, context.now):
            self._respond_json(context, OK, self._responder.status_without_place(room))
        elif room.is_waiting(ticket):
            room.mark_seen(ticket)
            self._respond_json(context, OK, self._responder.status(room, "waiting", ticket))
        elif room.store_up:
            context.client.spawn(self._look_up(context, ticket))
        else:
            self._respond_json(context, OK, self._responder.status(room, "waiting", ticket))

    async def _look_up(self, context: RequestContext, ticket: Ticket) -> None:
        outcome = await self._flow.look_up(context, ticket)
        headers = b""
        if isinstance(outcome, TicketStatus) and outcome.changed:
            headers = _ticket_headers(context, context.room.tokens.sign_ticket(outcome.ticket))
        self._respond_json(context, OK, self._responder.outcome_status(context, outcome), headers)

    async def _join(self, context: RequestContext) -> None:
        room, ticket = context.room, context.ticket
        room.count("join")
        if _is_admitted(context):
            self._respond_json(context, OK, self._responder.status(room, "admitted"))
        elif ticket is None or is_void(ticket, room.view, context.now):
            context.ticket = None
            self._render(context, await self._flow.join(context), CREATED)
        elif room.is_waiting(ticket):
            room.mark_seen(ticket)
            self._respond_json(
                context, OK, self._responder.status(room, "waiting", ticket), ticket=room.tokens.sign_ticket(ticket)
            )
        else:
            outcome = await self._flow.visit_or_join(context, ticket, claim=False)
            self._render(context, outcome, OK if isinstance(outcome, TicketStatus) else CREATED)

    async def _claim(self, context: RequestContext) -> None:
        room, ticket, session = context.room, context.ticket, context.session
        room.count("claim")
        if _query(context.request).get("more") == "1":
            await self._extend_claim(context)
        elif session is not None and _is_admitted(context):
            self._respond_admitted(context, OK, *context.start_session(session.id, session.ends_at))
        elif ticket is None or is_void(ticket, room.view, context.now):
            self._respond_json(context, CONFLICT, self._responder.status(room, "unknown"))
        else:
            outcome = await self._flow.claim(context, ticket)
            self._render(context, outcome, CONFLICT if isinstance(outcome, TicketStatus) else OK)

    def _render(self, context: RequestContext, outcome: Outcome, status_line: bytes) -> None:
        """Responds to a program with a step's outcome: with ``status_line``, unless the visitor must try again."""
        if isinstance(outcome, Admitted):
            self._respond_admitted(context, status_line, outcome.session, outcome.value)
            return
        status = self._responder.outcome_status(context, outcome)
        retry = b"Retry-After: %d\r\n" % status.poll_after
        if isinstance(outcome, (Queued, TicketStatus)):
            ticket = context.room.tokens.sign_ticket(outcome.ticket)
            self._respond_json(context, status_line, status, _ticket_headers(context, ticket), ticket=ticket)
        elif isinstance(outcome, Delayed):
            self._respond_json(context, TOO_MANY, status, outcome.headers + retry)
        else:
            self._respond_json(context, UNAVAILABLE, status, retry)

    async def _extend_claim(self, context: RequestContext) -> None:
        """Extends a called visitor's time to claim the turn once, and admits nobody."""
        room, ticket = context.room, context.ticket
        is_page = context.kind is Kind.NAVIGATION
        if _is_admitted(context) or ticket is None or is_void(ticket, room.view, context.now):
            fate: Fate = "admitted" if _is_admitted(context) else "unknown"
            if is_page:
                self._wait(context)
            else:
                self._respond_json(context, OK if fate == "admitted" else CONFLICT, self._responder.status(room, fate))
            return
        outcome = await self._flow.look_up(context, ticket, more=True)
        if not is_page:
            called = isinstance(outcome, TicketStatus) and outcome.fate in ("called", "admitted")
            self._render(context, outcome, OK if called else CONFLICT)
            return
        status = self._responder.outcome_status(context, outcome)
        if isinstance(outcome, TicketStatus) and status.state == "called":
            status.poll_after = max(1, outcome.left_ms // 1000 - _ENTER_EARLY_SECONDS)
            headers = context.ticket_headers(outcome.ticket) if outcome.changed else b""
            self._responder.respond(context, status, headers)
        else:
            self._wait(context)

    async def _leave(self, context: RequestContext) -> None:
        room = context.room
        room.count("leave")
        try:
            if context.ticket is not None:
                await room.leave(context.ticket.place, has_pass=False)
            if context.session is not None:
                await room.leave(context.session.id, has_pass=True)
        except StoreUnavailable:
            context.client.fail(503)
            return
        headers = context.cookie(room.ticket_cookie, "", 0) + context.cookie(room.pass_cookie, "", 0)
        headers += context.forget_shown()
        self._responder.respond_left(context, headers)

    def _wait(self, context: RequestContext) -> None:
        """The waiting page at its own address; an admitted visitor is redirected to ``to``, a path of this host."""
        query = _query(context.request)
        to = query.get("to")
        if to is None:
            original = self._replaced_by_page(context.request) if context.client.peer.trusted else None
            to = "/" if original is None else original.target.decode("latin-1")
        context.destination = quote(to, safe="/?&=%:;,@!$'()*+~-._").encode() if _is_local_path(to) else b"/"
        if query.get("entered") == "1" and context.session is None and context.ticket is None:
            self._responder.respond_without_cookies(context)
        else:
            self._admit_or_wait(context)

    def _respond_admitted(self, context: RequestContext, status_line: bytes, session: Session, value: str) -> None:
        """Returns a pass, in a cookie, a header and the body: the client uses the form it can store."""
        headers = context.pass_headers(session, value) + b"Waitroom-Pass: %b\r\n" % value.encode()
        body = self._responder.status(context.room, "admitted").json(context.room.name)
        body = body[:-1] + b',"pass":"%b"}' % value.encode()
        context.client.respond(status_line, headers + JSON_HEADERS, body)

    def _respond_json(
        self,
        context: RequestContext,
        status_line: bytes,
        status: VisitorStatus,
        headers: bytes = b"",
        *,
        ticket: str = "",
    ) -> None:
        headers += self._responder.hold_position(context, status)
        body = status.json(context.room.name)
        if ticket:
            body = body[:-1] + b',"ticket":"%b"}' % ticket.encode()
        context.client.respond(status_line, headers + JSON_HEADERS, body)


def _failing(status: int) -> Handler:
    return lambda client, _: client.fail(status)


def _is_admitted(context: RequestContext) -> bool:
    return context.session is not None and not context.session.over and context.now < context.session.expires_at


def _ticket_headers(context: RequestContext, ticket: str) -> bytes:
    return context.ticket_cookie(ticket) + b"Waitroom-Ticket: %b\r\n" % ticket.encode()


def _query(request: Request) -> dict[str, str]:
    query = request.target.partition(b"?")[2]
    return {name: values[0] for name, values in parse_qs(query.decode("latin-1")).items()} if query else {}


def _is_cross_site(request: Request) -> bool:
    """Whether another site's page sent this: it must not be able to give up a visitor's place."""
    fields = request.fields
    site = fields.get(b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    origin = fields.get(b"origin")
    if origin is None:
        return False
    own = {fields.get(b"host"), fields.get(b"x-forwarded-host")} - {None}
    return origin.partition(b"://")[2] not in own


def _is_local_path(to: str) -> bool:
    """Whether it is a path of this host: browsers take two slashes, of either kind, for another host."""
    return to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable()
