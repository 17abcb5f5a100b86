"""Forward-auth: another proxy serves the shop, and asks about each request whether it may proceed.

The original request goes through the same gate, flow and budgets as one that the gateway would forward itself; only the
outcome differs: the proxy gets 200, or an answer that it turns into one for the visitor.
"""

# mypyc: compile

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import parse_qs

import structlog

from waitroom.budgets import neighbourhood
from waitroom.edge.client.interfaces import Client
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.message import Request
from waitroom.edge.outcomes import ForwardOutcome
from waitroom.edge.rooms.bypass import Refusal
from waitroom.edge.rooms.proofs import VIA
from waitroom.edge.rooms.room import Room
from waitroom.edge.rooms.router import Router
from waitroom.edge.rooms.session import Session
from waitroom.edge.visitor.context import CheckAnswer, RequestContext
from waitroom.edge.visitor.flow import Admitted
from waitroom.edge.visitor.original_request import OriginalRequestError, read_original, split_check
from waitroom.edge.visitor.responses import OK, Responder, wait_address
from waitroom.gate import Action
from waitroom.logs import RateLimitedLog
from waitroom.queue.view import RoomState

Handler = Callable[[Client, Request], None]

# The decisions about a request that proceeds, perhaps after a question to the store, or that can only be refused.
_PROCEEDS = frozenset(
    (
        *(Action.FORWARD, Action.PASS_THROUGH, Action.WITHOUT_PASS, Action.PREFLIGHT, Action.RESUME),
        *(Action.DEFER, Action.REFUSE),
    )
)


class ForwardAuth:
    """Answers checks.

    Args:
        responder: Renders responses.
        router: Finds the room of the original request.
        rooms: The rooms by name.
        admit_or_wait: Asks the gate, and carries out its decision.
    """

    def __init__(
        self,
        responder: Responder,
        router: Router,
        rooms: Mapping[str, Room],
        admit_or_wait: Callable[[RequestContext], None],
    ) -> None:
        self._responder = responder
        self._router = router
        self._rooms = rooms
        self._admit_or_wait = admit_or_wait
        self._log = RateLimitedLog(structlog.get_logger())

    def resolve_handler(self, check: Request) -> Handler:
        """The handler of checks that have a head like this one."""
        try:
            query = parse_qs(split_check(check.target)[0].decode("latin-1"))
            answer = _answer(query.get("answer", ["status"]))
            original = read_original(check)
        except OriginalRequestError as error:
            return partial(self._refuse_unreadable, error.reason)
        return self._from_proxies_only(self._resolve(original, answer, query.get("room")))

    def _resolve(self, original: Request, answer: CheckAnswer, named: list[str] | None) -> Handler:
        route = self._router.route(original.fields[b"host"], original.path)
        if route is not None and (route.refused or (route.reserved and not route.gated)):
            return partial(_fail, 403)  # our own addresses are never the shop's
        name = named[0] if named else None if route is None else route.room
        if name is None or name not in self._rooms:
            return partial(_fail, 403 if name is None else 404)
        room = self._rooms[name]

        def ask_gate(client: Client, _: Request) -> None:
            self._admit_or_wait(RequestContext(client, original, room, check=answer))

        if route is None or route.room != name:
            return ask_gate
        if not route.gated:
            return lambda client, _: self.allow(RequestContext(client, original, room, check=answer), None, "uncovered")
        rules = room.bypass.matching(route.bypass, original)
        if not rules:
            return ask_gate

        def bypass(client: Client, _: Request) -> None:
            context = RequestContext(client, original, room, check=answer)
            found = room.bypass.apply(rules, client.visitor, client.cookies, room.clock.steady())
            if found == "pass":
                self.allow(context, None, "bypass")
            elif isinstance(found, Refusal):
                self._fail(context, found.status)
            else:
                self._admit_or_wait(context)

        return bypass

    def _from_proxies_only(self, handler: Handler) -> Handler:
        def handle(client: Client, request: Request) -> None:
            if client.peer.trusted:
                handler(client, request)
            else:
                self._refuse_unreadable("the address is not in trusted_proxies", client, request)

        return handle

    def _refuse_unreadable(self, reason: str, client: Client, _: Request) -> None:
        self._log.warning("forward-auth check refused", reason, cause=reason, address=client.peer.address)
        client.fail(403)

    def proceeds(self, context: RequestContext, action: Action) -> bool:
        """Whether the gate's decision is to be carried out now.

        Where the proxy can't hand on our page, the visitor is sent to the waiting page, and takes the place and claims
        the turn there.
        """
        if context.check is CheckAnswer.PAGE or action in _PROCEEDS:
            return True
        room, ticket = context.room, context.ticket
        if ticket is not None and room.is_waiting(ticket):
            room.mark_seen(ticket)
            room.count("waiting")
            self._responder.respond(context, self._responder.status(room, "waiting", ticket))
        else:
            room.count("sent_to_wait")
            self._responder.respond(context, self._responder.status(room, "unknown"))
        return False

    def allow(
        self, context: RequestContext, session: Session | None, outcome: ForwardOutcome, headers: HeaderBlock = b""
    ) -> None:
        """Lets a request proceed, as soon as its session's limits allow it.

        Args:
            context: The check.
            session: The visitor's session; None for a request that needs none.
            outcome: The outcome to count.
            headers: Headers with a renewed pass.
        """
        room = context.room
        if session is None:
            room.count(outcome)
            _respond(context, room.room_header + room.proof(VIA[outcome]))
        elif room.sessions.allow_request(session, room.clock.steady(), False):
            self._allow_now(context, session, outcome, headers)
        else:
            context.client.spawn(self._allow_later(context, session, outcome, headers))

    async def _allow_later(
        self, context: RequestContext, session: Session, outcome: ForwardOutcome, headers: HeaderBlock
    ) -> None:
        turn = await context.room.wait_turn(session, context.request)
        if turn == "now":
            self._allow_now(context, session, outcome, headers)
        elif turn == "again":
            self.allow(context, session, outcome, headers)
        elif turn == "limited":
            self._fail(context, 429)
        else:
            context.session = None
            self._admit_or_wait(context)

    def _allow_now(
        self, context: RequestContext, session: Session, outcome: ForwardOutcome, headers: HeaderBlock
    ) -> None:
        room, now = context.room, context.now
        room.begin_request(context.client, context.request, session)
        room.sessions.finish(session, context.request.upgrade is not None)
        if not headers and not session.over and room.pass_is_due(session, now):
            _, value = context.start_session(session.id, session.ends_at)
            headers = context.pass_cookie(session, value)
        room.count(outcome)
        headers += room.proofs.header(session, "session", now)
        _respond(context, b"%bWaitroom-Session: %x\r\n%b" % (room.room_header, session.id, headers))

    def redirect_admitted(self, context: RequestContext, admitted: Admitted) -> None:
        """Gives an admitted visitor the pass: proxies hand on the cookies of a refused check only.

        A client that keeps no cookies comes to an end at the waiting page's address, and takes no second place.
        """
        room = context.room
        location = b"%b&entered=1" % wait_address(room.name, context.destination or context.request.target)
        headers = context.pass_headers(admitted.session, admitted.value)
        redirect = b"Location: %b\r\nCache-Control: no-store\r\n" % location
        context.client.respond(b"303 See Other", headers + redirect, b"")

    def allow_preflight(self, context: RequestContext) -> None:
        """Lets a preflight proceed to the shop within the budgets for preflights: no answer of ours can reach it."""
        room = context.room
        open_ = room.view is not None and room.view.state in (RoomState.OPEN, RoomState.PAUSED)
        if room.preflights.take(neighbourhood(context.client.visitor), open_=open_, now=context.now):
            room.count("preflight")
            _respond(context, room.room_header + room.proof("preflight"))
        else:
            room.count("preflight_refused")
            self._responder.respond(context, self._responder.status(room, "unknown"))

    def _fail(self, context: RequestContext, status: int) -> None:
        """Refuses a request that no waiting would help. nginx's auth_request knows 401 and 403 only."""
        context.client.fail(403 if context.check is CheckAnswer.STATUS else status)


def _answer(given: list[str]) -> CheckAnswer:
    try:
        return CheckAnswer(given[0])
    except ValueError:
        raise OriginalRequestError("answer must be status, redirect or page") from None


def _fail(status: int, client: Client, _: Request) -> None:
    client.fail(status)


def _respond(context: RequestContext, headers: HeaderBlock) -> None:
    context.client.respond(OK, headers + b"Cache-Control: no-store\r\n", b"")
