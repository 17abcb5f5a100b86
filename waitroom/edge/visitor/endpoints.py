"""The visitor endpoints under ``/.waitroom/``: for the waiting page's script, for apps, and for other proxies."""

# mypyc: compile

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qs, quote

from waitroom.edge.client.connection import ClientConnection
from waitroom.edge.http.message import Request
from waitroom.edge.rooms.room import Room
from waitroom.edge.rooms.router import Route, Router
from waitroom.edge.rooms.sessions import Session
from waitroom.edge.visitor.context import Call, kind_of
from waitroom.edge.visitor.flow import Admitted, Delayed, Outcome, Queued, TicketStatus, VisitorFlow
from waitroom.edge.visitor.responses import JSON_LINES, OK, TOO_MANY, UNAVAILABLE, Answers
from waitroom.edge.visitor.status import Standing
from waitroom.errors import StoreUnavailable
from waitroom.gate import Kind
from waitroom.queue.store import Fate
from waitroom.tokens import Ticket

CarryOut = Callable[[ClientConnection, Request], None]

CREATED = b"201 Created"
CONFLICT = b"409 Conflict"

CHECK = b"/.waitroom/check"
CLAIM = b"/.waitroom/claim"
# A page with extended time admits the visitor by itself this long before its end: a hidden tab has one timer a minute.
_ENTER_AHEAD_SECONDS: Final = 75
_READS, _WRITES = (b"GET", b"HEAD"), (b"POST",)


class Endpoints:
    """Answers requests to our own addresses.

    Args:
        answers: Renders responses.
        flow: The visitor flow.
        router: Finds the room of a forward-auth request.
        rooms: The rooms by name.
        admit_or_wait: Handles a navigation, for the waiting page's own address.
    """

    def __init__(
        self,
        answers: Answers,
        flow: VisitorFlow,
        router: Router,
        rooms: Mapping[str, Room],
        admit_or_wait: Callable[[Call], None],
    ) -> None:
        self._answers = answers
        self._flow = flow
        self._router = router
        self._rooms = rooms
        self._admit_or_wait = admit_or_wait
        self._handlers: dict[bytes, tuple[tuple[bytes, ...], Callable[[Call], None]]] = {
            b"/.waitroom/status": (_READS, self._status),
            b"/.waitroom/join": (_WRITES, lambda call: call.client.run(self._join(call))),
            CLAIM: (_WRITES, lambda call: call.client.run(self._claim(call))),
            b"/.waitroom/leave": (_WRITES, lambda call: call.client.run(self._leave(call))),
            CHECK: (_READS, self._check),
            b"/.waitroom/wait": (_READS, self._wait),
        }

    def plan(self, request: Request, route: Route | None) -> CarryOut:
        """The handler of requests under the reserved prefix that have a head like this one.

        Args:
            request: One of them.
            route: The route of its host and path; None only for `CHECK`, which may be about another host.
        """
        methods, handler = self._handlers.get(request.path, ((), None))
        if handler is None:
            return _failing(404)
        if request.path == CLAIM and request.method == b"GET" and kind_of(request) is Kind.NAVIGATION:
            methods, handler = _READS, self._wait  # from the page that offers more time
        if request.method not in methods:
            return self._refusing(b"405 Method Not Allowed", 405, b"Allow: %b\r\n" % b", ".join(methods))
        if request.method == b"POST" and _cross_site(request):
            return self._refusing(b"403 Forbidden", 403)
        name = _query(request).get("room")
        if name is None and request.path == CHECK:
            route = self._router.route(*_asked_about(request))
            if route is not None and route.refused:
                # nginx's auth_request only knows 401 and 403; it would treat a 400 as an internal error.
                return self._refusing(b"403 Forbidden", 403)
            if route is not None and not route.gated:
                return _let_pass
        if name is None:
            name = None if route is None else route.room
        if name is None:
            return _failing(421)
        if name not in self._rooms:
            return _failing(404)
        room, answer = self._rooms[name], handler
        return lambda client, request: answer(Call(client, request, room))

    def _refusing(self, status_line: bytes, status: int, more: bytes = b"") -> CarryOut:
        def refuse(client: ClientConnection, request: Request) -> None:
            lines, body = self._answers.error(request, client.request_id, status)
            client.respond(status_line, lines + more, body)

        return refuse

    def _status(self, call: Call) -> None:
        room, ticket = call.room, call.ticket
        room.count("status")
        if _inside(call):
            self._say(call, OK, self._answers.standing(room, "admitted"))
        elif ticket is None or ticket.expired(call.now):
            self._say(call, OK, self._answers.standing(room, "unknown"))
        elif room.is_waiting(ticket):
            room.mark_seen(ticket)
            self._say(call, OK, self._answers.standing(room, "waiting", ticket))
        elif room.store_up:
            call.client.run(self._ask(call, ticket))
        else:
            self._say(call, OK, self._answers.standing(room, "waiting", ticket))

    async def _ask(self, call: Call, ticket: Ticket) -> None:
        outcome = await self._flow.look_up(call, ticket)
        lines = b""
        if isinstance(outcome, TicketStatus) and outcome.changed:
            lines = _ticket_lines(call, call.room.tokens.sign_ticket(outcome.ticket))
        self._say(call, OK, self._answers.of_outcome(call, outcome), lines)

    async def _join(self, call: Call) -> None:
        room, ticket = call.room, call.ticket
        room.count("join")
        if _inside(call):
            self._say(call, OK, self._answers.standing(room, "admitted"))
        elif ticket is None or ticket.expired(call.now):
            call.ticket = None
            self._render(call, await self._flow.join(call), CREATED)
        elif room.is_waiting(ticket):
            room.mark_seen(ticket)
            self._say(call, OK, self._answers.standing(room, "waiting", ticket), ticket=room.tokens.sign_ticket(ticket))
        else:
            outcome = await self._flow.visit_or_join(call, ticket, claim=False)
            self._render(call, outcome, OK if isinstance(outcome, TicketStatus) else CREATED)

    async def _claim(self, call: Call) -> None:
        room, ticket, session = call.room, call.ticket, call.session
        room.count("claim")
        if _query(call.request).get("more") == "1":
            await self._more(call)
        elif session is not None and _inside(call):
            self._let_in(call, OK, *call.start_session(session.id, session.ends_at))
        elif ticket is None or ticket.expired(call.now):
            self._say(call, CONFLICT, self._answers.standing(room, "unknown"))
        else:
            outcome = await self._flow.claim(call, ticket)
            self._render(call, outcome, CONFLICT if isinstance(outcome, TicketStatus) else OK)

    def _render(self, call: Call, outcome: Outcome, status: bytes) -> None:
        """Responds to a program with a step's outcome: with ``status``, unless the visitor must try again."""
        if isinstance(outcome, Admitted):
            self._let_in(call, status, outcome.session, outcome.value)
            return
        standing = self._answers.of_outcome(call, outcome)
        retry = b"Retry-After: %d\r\n" % standing.poll_after
        if isinstance(outcome, (Queued, TicketStatus)):
            ticket = call.room.tokens.sign_ticket(outcome.ticket)
            self._say(call, status, standing, _ticket_lines(call, ticket), ticket=ticket)
        elif isinstance(outcome, Delayed):
            self._say(call, TOO_MANY, standing, outcome.lines + retry)
        else:
            self._say(call, UNAVAILABLE, standing, retry)

    async def _more(self, call: Call) -> None:
        """Extends a called visitor's time to claim the turn once, and admits nobody."""
        room, ticket = call.room, call.ticket
        is_page = call.kind is Kind.NAVIGATION
        if _inside(call) or ticket is None or ticket.expired(call.now):
            fate: Fate = "admitted" if _inside(call) else "unknown"
            if is_page:
                self._wait(call)
            else:
                self._say(call, OK if fate == "admitted" else CONFLICT, self._answers.standing(room, fate))
            return
        outcome = await self._flow.look_up(call, ticket, more=True)
        if not is_page:
            came = isinstance(outcome, TicketStatus) and outcome.fate in ("called", "admitted")
            self._render(call, outcome, OK if came else CONFLICT)
            return
        standing = self._answers.of_outcome(call, outcome)
        if isinstance(outcome, TicketStatus) and standing.state == "called":
            after = max(1, outcome.left_ms // 1000 - _ENTER_AHEAD_SECONDS)
            lines = call.ticket_lines(outcome.ticket) if outcome.changed else b""
            self._answers.tell(call, replace(standing, poll_after=after), lines)
        else:
            self._wait(call)

    async def _leave(self, call: Call) -> None:
        room = call.room
        room.count("leave")
        try:
            if call.ticket is not None:
                await room.leave(call.ticket.place, has_pass=False)
            if call.session is not None:
                await room.leave(call.session.id, has_pass=True)
        except StoreUnavailable:
            call.client.fail(503)
            return
        lines = call.cookie(room.ticket_cookie, "", 0) + call.cookie(room.pass_cookie, "", 0)
        self._answers.left(call, lines)

    def _check(self, call: Call) -> None:
        """Forward-auth: another proxy asks whether one of its requests may proceed."""
        room, session = call.room, call.session
        if session is not None and _inside(call):
            room.sessions.begin(session, call.now)
            room.sessions.finish(session)
            lines = b"Waitroom-Room: %b\r\nWaitroom-Session: %x\r\n" % (room.name.encode(), session.id)
            call.client.respond(b"204 No Content", lines + b"Cache-Control: no-store\r\n", b"")
            return
        uri = _asked_for(call.request)
        address = f"/.waitroom/wait?room={room.name}&to={quote(uri, safe='/')}".encode()
        lines = b"Location: %b\r\n" % address + JSON_LINES
        call.client.respond(b"401 Unauthorized", lines, b'{"waiting_page":"%b"}' % address)

    def _wait(self, call: Call) -> None:
        """The waiting page at its own address; an admitted visitor is redirected to ``to``, a path of this host."""
        to = _query(call.request).get("to", "/")
        call.then = quote(to, safe="/?&=%:;,@!$'()*+~-._").encode() if _own_path(to) else b"/"
        self._admit_or_wait(call)

    def _let_in(self, call: Call, status: bytes, session: Session, value: str) -> None:
        """Returns a pass, in a cookie, a header and the body: the client uses the form it can store."""
        lines = call.pass_lines(session, value) + b"Waitroom-Pass: %b\r\n" % value.encode()
        body = self._answers.standing(call.room, "admitted").json(call.room.name)
        body = body[:-1] + b',"pass":"%b"}' % value.encode()
        call.client.respond(status, lines + JSON_LINES, body)

    def _say(self, call: Call, status: bytes, standing: Standing, lines: bytes = b"", *, ticket: str = "") -> None:
        body = standing.json(call.room.name)
        if ticket:
            body = body[:-1] + b',"ticket":"%b"}' % ticket.encode()
        call.client.respond(status, lines + JSON_LINES, body)


def _failing(status: int) -> CarryOut:
    return lambda client, _: client.fail(status)


def _let_pass(client: ClientConnection, _: Request) -> None:
    client.respond(b"204 No Content", b"Cache-Control: no-store\r\n", b"")


def _inside(call: Call) -> bool:
    return call.session is not None and not call.session.over and call.now < call.session.expires_at


def _ticket_lines(call: Call, ticket: str) -> bytes:
    return call.ticket_cookie(ticket) + b"Waitroom-Ticket: %b\r\n" % ticket.encode()


def _asked_for(request: Request) -> bytes:
    """The target of a forward-auth request."""
    return request.fields.get(b"x-forwarded-uri") or request.fields.get(b"x-original-uri") or b"/"


def _asked_about(request: Request) -> tuple[bytes, bytes]:
    """The host and path of a forward-auth request."""
    host = request.fields.get(b"x-forwarded-host") or request.fields.get(b"host", b"")
    return host, _asked_for(request).partition(b"?")[0]


def _query(request: Request) -> dict[str, str]:
    query = request.target.partition(b"?")[2]
    return {name: values[0] for name, values in parse_qs(query.decode("latin-1")).items()} if query else {}


def _cross_site(request: Request) -> bool:
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


def _own_path(to: str) -> bool:
    """Whether it is a path of this host: browsers take two slashes, of either kind, for another host."""
    return to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable()
