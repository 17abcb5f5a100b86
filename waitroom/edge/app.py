"""Handles each request of one worker: finds its room, asks the gate, and carries out the gate's decision."""

# mypyc: compile

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from functools import partial
from math import ceil
from typing import Final

import structlog

from waitroom.budgets import TokenBucket, neighbourhood
from waitroom.edge.client.body_buffer import BufferBudget
from waitroom.edge.client.interfaces import Client, ClientLimits, Server
from waitroom.edge.client.limiter import ConnectionLimiter
from waitroom.edge.client.request_cycle import RETRY_HEADER
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.head_cache import RequestHeadCache
from waitroom.edge.http.headers import Peer
from waitroom.edge.http.message import Request
from waitroom.edge.outcomes import ForwardOutcome
from waitroom.edge.pages.renderer import Pages
from waitroom.edge.proxy.exchange import Exchange
from waitroom.edge.proxy.forward import RoomForward
from waitroom.edge.proxy.in_flight import CountedForward, InFlightLimiter
from waitroom.edge.rooms.bypass import Bypass, Refusal
from waitroom.edge.rooms.preflight import NoResponseError
from waitroom.edge.rooms.room import JoinResult, Room
from waitroom.edge.rooms.router import Route, Router
from waitroom.edge.rooms.session import Session
from waitroom.edge.upstream.connector import UpstreamUnavailableError
from waitroom.edge.visitor.arrivals import Arrivals
from waitroom.edge.visitor.context import RequestContext
from waitroom.edge.visitor.endpoints import Endpoints, Handler
from waitroom.edge.visitor.flow import Admitted, Outcome, Rejected, VisitorFlow
from waitroom.edge.visitor.forward_auth import ForwardAuth
from waitroom.edge.visitor.original_request import is_check
from waitroom.edge.visitor.responses import Responder
from waitroom.gate import Action, Kind, decide
from waitroom.net.forwarded import TrustedProxies, plain_address
from waitroom.queue.view import RoomState
from waitroom.timing import Clock
from waitroom.tokens import Ticket

log = structlog.get_logger()

DRAIN_POLL_SECONDS = 0.05
MAX_SWEEP_SECONDS = 1.0  # the most a late sweep counts: after a stall of the machine, no client counts as slow
# Limits for log lines about refused paths, which any client can trigger.
PATH_LOGS_PER_SECOND: Final = 0.1
PATH_LOG_BURST: Final = 5.0
MAX_LOGGED_PATH_BYTES: Final = 200  # bytes


class Edge(Server):
    """The public port's server; see `Server`.

    Args:
        rooms: The rooms by name, in the order of the settings.
        router: Finds the room of a request.
        pages: The visitors' pages.
        trusted: The proxies whose forwarding headers are trusted.
        limits: The limits on clients.
        clock: The clocks.
        most_buffered: How many bytes of request bodies may be buffered in total.
        most_connections: The maximum number of client connections.
        most_per_address: The maximum number of connections from one neighbourhood, unless it is a trusted proxy; behind
            trusted proxies, the maximum number of requests in flight without a pass from each neighbourhood.
        workers: The number of workers that share the gateway's traffic.
    """

    def __init__(
        self,
        rooms: Mapping[str, Room],
        router: Router,
        pages: Pages,
        trusted: TrustedProxies,
        limits: ClientLimits,
        clock: Clock,
        *,
        most_buffered: int,
        most_connections: int,
        most_per_address: int,
        workers: int = 1,
    ) -> None:
        self.rooms = rooms
        self.limits = limits
        self.draining = False
        self.bodies = BufferBudget(most_buffered)
        self.connections = ConnectionLimiter(most_connections, most_per_address)
        self.clients: set[Client] = set()
        self._watched: set[Client] = set()
        self._router = router
        self._trusted = trusted
        self._clock = clock
        self._in_flight = InFlightLimiter(most_per_address)
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time()
        self._responder = Responder(pages, random.Random())  # noqa: S311 - see Responder
        self._id_prefix = secrets.token_hex(4)
        self._requests = 0
        self._dated = (0, b"")
        self._heads = RequestHeadCache()
        self._path_log = TokenBucket(PATH_LOGS_PER_SECOND, PATH_LOG_BURST)
        self._flow = VisitorFlow(Arrivals(workers, clock))
        self._endpoints = Endpoints(self._responder, self._flow, router, rooms, self.admit_or_wait)
        self._forward_auth = ForwardAuth(self._responder, router, rooms, self.admit_or_wait)

    # The interface for connections: see `Server`.

    def register(self, client: Client) -> None:
        """See `Server`."""
        self.clients.add(client)
        self.connections.evictable.add(client)

    def unregister(self, client: Client) -> None:
        """See `Server`."""
        self.clients.discard(client)
        self.connections.evictable.discard(client)
        self._watched.discard(client)
        if client.has_pass:
            self.connections.with_pass -= 1
        self.release_slot(client.peer)

    def acquire_slot(self, address: str, *, tls: bool = False, vouched: bool = True) -> Peer | None:
        """See `Server`."""
        address = plain_address(address) or address
        trusted = address in self._trusted
        if self.draining or not self.connections.acquire(address, self._now, exempt=trusted):
            return None
        return Peer(address, trusted and vouched, tls, self._trusted)

    def release_slot(self, peer: Peer) -> None:
        """See `Server`."""
        self.connections.release(peer.address)

    def evict_idle(self, count: int) -> None:
        """See `Server`."""
        self.connections.evict_idle(count, self._now)

    def is_trusted_proxy(self, address: str) -> bool:
        """See `Server`."""
        return address in self._trusted

    def watch_rate(self, client: Client) -> None:
        """See `Server`."""
        self._watched.add(client)

    def count_request(self) -> int:
        """See `Server`."""
        self._requests += 1
        return self._requests

    def request_id(self, number: int) -> str:
        """See `Server`."""
        return f"{self._id_prefix}{number:08x}"

    def now(self) -> float:
        """See `Server`. The time of the last sweep: no deadline needs more precision than that."""
        return self._now

    def date_header(self) -> HeaderBlock:
        """See `Server`."""
        second = int(self._clock.unix())
        if self._dated[0] != second:
            self._dated = (second, f"Date: {formatdate(second, usegmt=True)}\r\n".encode())
        return self._dated[1]

    def error_response(
        self, client: Client, status: int, head: bytes = b"", cause: str = ""
    ) -> tuple[HeaderBlock, bytes]:
        """See `Server`."""
        request_id = client.request_id
        if status < 500:
            # Any client can cause these at any rate; internal errors and the shop's failures are logged elsewhere.
            log.debug("request refused", status=status, cause=cause, request_id=request_id, address=client.visitor)
        return self._responder.error(client.request, request_id, status, head)

    def find_request(self, received: bytes) -> tuple[Request, Sequence[bytes]] | None:
        """See `Server`."""
        return self._heads.find(received)

    def parse_request(self, head: bytes) -> tuple[Request, Sequence[bytes]]:
        """See `Server`."""
        return self._heads.parse(head)

    def handle(self, client: Client, request: Request) -> None:
        """See `Server`."""
        handler = request.handler
        if handler is None:
            handler = request.handler = self._resolve_handler(request)
        handler(client, request)

    # Carrying out the gate's decisions.

    def _resolve_handler(self, request: Request) -> Handler:
        """The handler of all requests that have a head like this one."""
        if is_check(request.target):  # it may be about another host, and about any path
            return self._forward_auth.resolve_handler(request)
        route = self._router.route(request.fields.get(b"host", b""), request.path)
        if route is None:
            return lambda client, _: client.fail(421)
        if route.refused:
            return partial(self._refuse_path, route)
        if route.reserved:
            return self._endpoints.resolve_handler(request, route)
        room = self.rooms[route.room]
        if not route.gated:
            return lambda client, request: self.forward(client, request, room, None, "uncovered")
        rules = room.bypass.matching(route.bypass, request)
        if rules:
            return lambda client, request: self._bypass(client, request, room, rules)
        return lambda client, request: self.admit_or_wait(RequestContext(client, request, room))

    def _refuse_path(self, route: Route, client: Client, request: Request) -> None:
        """Refuses a path that must not reach a shop, or that could lead into several rooms."""
        if route.rooms and self._path_log.take(self._loop.time()):
            path = request.path[:MAX_LOGGED_PATH_BYTES].decode("latin-1")
            log.warning("path refused", cause=route.refused, rooms=route.rooms, path=path, address=client.visitor)
        client.close_after_response()
        client.fail(400)

    def _bypass(self, client: Client, request: Request, room: Room, rules: Sequence[Bypass]) -> None:
        """Handles a request whose head matches bypass rules."""
        found = room.bypass.apply(rules, client.visitor, client.cookies, room.clock.steady())
        if found == "pass":
            self.forward(client, request, room, None, "bypass")
        elif isinstance(found, Refusal):
            client.fail(found.status, b"Retry-After: %d\r\n" % max(1, ceil(found.wait_seconds)))
        else:
            self.admit_or_wait(RequestContext(client, request, room))

    def admit_or_wait(self, context: RequestContext) -> None:
        """Asks the gate, and carries out its decision."""
        room, session = context.room, context.session
        action = decide(
            context.kind,
            context.safe,
            session,
            context.ticket,
            room.view,
            store_up=room.store_up,
            on_store_error=room.on_store_error,
            without_pass=room.settings.without_pass,
            now=context.now,
        )
        if context.check is None or self._forward_auth.proceeds(context, action):
            self._carry_out(context, action)

    def _carry_out(self, context: RequestContext, action: Action) -> None:
        match action:
            case Action.FORWARD:
                self._forward_or_redirect(context, context.session, "admitted")
            case Action.PASS_THROUGH:
                self._forward_or_redirect(context, None, "transit")
            case Action.WAIT:
                self._wait(context)
            case Action.WITHOUT_PASS:
                self._without_pass(context)
            case Action.PREFLIGHT:
                self._preflight(context)
            case Action.ADMIT:
                self._render(context, self._flow.admit_offline(context))
            case Action.JOIN:
                self._join(context)
            case Action.CLAIM:
                context.client.spawn(self._claim(context))
            case Action.RESUME:
                context.client.spawn(self._resume(context))
            case Action.HOLD:
                self._render(context, self._flow.held(context))
            case Action.REJECT:
                self._render(context, Rejected(RoomState.CLOSED))
            case Action.DEFER:
                context.room.count("prefetch")
                self._responder.respond_to_prefetch(context)
            case Action.REFUSE:
                self._refuse(context)

    def forward(
        self,
        client: Client,
        request: Request,
        room: Room,
        session: Session | None,
        outcome: ForwardOutcome,
        cookies: bytes = b"",
    ) -> None:
        """Forwards the request to the shop, or makes it wait if its session exceeds its limits."""
        now = room.clock.steady()
        forward: RoomForward
        if session is not None:
            if not client.has_pass:
                client.has_pass = True
                self.connections.with_pass += 1
            if not room.sessions.allow_request(session, now, request.upgrade is not None):
                client.spawn(self._forward_later(client, request, room, session, outcome, cookies))
                return
            forward = RoomForward(room, session, client, request, outcome, now, cookies)
        elif not client.peer.trusted:
            forward = RoomForward(room, None, client, request, outcome, now, cookies)
        else:
            visitor = neighbourhood(client.visitor)
            if not self._in_flight.acquire(visitor):
                room.count("too_many_at_once")
                client.fail(503, RETRY_HEADER)
                return
            forward = CountedForward(self._in_flight, visitor, room, client, request, outcome, now, cookies)
        client.forward(Exchange(client, request, room.pool, forward))

    async def _forward_later(
        self,
        client: Client,
        request: Request,
        room: Room,
        session: Session,
        outcome: ForwardOutcome,
        cookies: bytes,
    ) -> None:
        turn = await room.wait_turn(session, request)
        if turn == "again":
            self.forward(client, request, room, session, outcome, cookies)
        elif turn == "limited":
            retry_after = room.sessions.retry_seconds(session, room.clock.steady())
            client.fail(429, b"%bRetry-After: %d\r\n" % (cookies, retry_after))
        elif turn == "ended":
            self.handle(client, request)  # the pass is found to be no longer valid
        else:
            forward = RoomForward(room, session, client, request, outcome, room.clock.steady(), cookies)
            client.forward(Exchange(client, request, room.pool, forward))

    def _forward_or_redirect(
        self, context: RequestContext, session: Session | None, outcome: ForwardOutcome, headers: bytes = b""
    ) -> None:
        """Forwards a request that may proceed, tells the proxy that asked, or redirects the visitor."""
        if context.check is not None:
            self._forward_auth.allow(context, session, outcome, headers)
        elif context.destination is None:
            self.forward(context.client, context.request, context.room, session, outcome, headers)
        else:
            location = b"Location: %b\r\nCache-Control: no-store\r\n" % context.destination
            context.client.respond(b"303 See Other", headers + location, b"")

    def _without_pass(self, context: RequestContext) -> None:
        room = context.room
        if context.destination is not None:
            self._refuse(context)  # without a pass it would come back
        elif room.view is not None and room.without_pass.take(room.view, self._clock.steady()):
            self._forward_or_redirect(context, None, "without_pass")
        else:
            self._refuse(context)

    def _refuse(self, context: RequestContext) -> None:
        room, request = context.room, context.request
        room.count("refused")
        kind = room.without_pass.log_refused(request.method, request.path, self._clock.steady())
        if kind is not None:
            room.record_refused(kind, context.now)
        if context.kind is Kind.EMBEDDED and context.check is None:
            context.client.fail(503)
        else:
            self._responder.respond(context, self._responder.status(room, "unknown"))

    def _preflight(self, context: RequestContext) -> None:
        if context.check is not None:
            self._forward_auth.allow_preflight(context)
            return
        response = context.room.preflights.find(context.request)
        if response is not None:
            context.room.count("preflight_cached")
            context.client.respond(response.status_line, response.headers, b"")
        else:
            context.client.spawn(self._fetch_preflight(context))

    async def _fetch_preflight(self, context: RequestContext) -> None:
        room, client = context.room, context.client
        open_ = room.view is not None and room.view.state in (RoomState.OPEN, RoomState.PAUSED)
        try:
            response = await room.preflights.fetch(
                context.request, client.peer, client.visitor, open_=open_, now=context.now
            )
        except NoResponseError:
            client.fail(502)
        except UpstreamUnavailableError as error:
            client.fail(502 if error.cause == "connect" else 503)
        else:
            if response is None:
                room.count("preflight_refused")
                self._responder.respond(context, self._responder.status(room, "unknown"))
            else:
                room.count("preflight")
                client.respond(response.status_line, response.headers, b"")

    def _join(self, context: RequestContext) -> None:
        outcome = self._flow.before_join(context)
        if outcome is None:
            context.client.on_done(context.room.join(), partial(self._joined, context))
        else:
            self._render(context, outcome)

    def _joined(self, context: RequestContext, joined: asyncio.Future[JoinResult]) -> None:
        self._render(context, self._flow.on_joined(context, joined))

    async def _claim(self, context: RequestContext) -> None:
        assert context.ticket is not None
        self._render(context, await self._flow.visit_or_join(context, context.ticket, claim=True))

    async def _resume(self, context: RequestContext) -> None:
        assert context.session is not None
        admitted = await self._flow.resume(context, context.session)
        if admitted is None:
            context.session = None
            self.admit_or_wait(context)
        elif context.check is None:
            self._render(context, admitted)
        else:
            headers = context.pass_cookie(admitted.session, admitted.value)
            self._forward_auth.allow(context, admitted.session, "admitted", headers)

    def _wait(self, context: RequestContext) -> None:
        room, ticket = context.room, context.ticket
        assert ticket is not None
        if room.is_waiting(ticket):
            room.mark_seen(ticket)
            room.count("waiting")
            self._responder.respond(context, self._responder.status(room, "waiting", ticket))
        elif room.store_up:
            context.client.spawn(self._look_up(context, ticket))
        else:
            self._render(context, self._flow.held(context))

    async def _look_up(self, context: RequestContext, ticket: Ticket) -> None:
        self._render(context, await self._flow.look_up(context, ticket))

    def _render(self, context: RequestContext, outcome: Outcome) -> None:
        """Admits the visitor if the outcome says so, or else responds with the outcome."""
        if isinstance(outcome, Admitted):
            is_new = context.ticket is None and context.session is None
            if context.check is not None or (context.destination is not None and is_new):
                self._forward_auth.redirect_admitted(context, outcome)
                return
            headers = context.pass_headers(outcome.session, outcome.value)
            self._forward_or_redirect(context, outcome.session, "admitted", headers)
        else:
            self._responder.respond_outcome(context, outcome)

    # Periodic tasks of the worker.

    def sweep(self) -> None:
        """Ends connections and exchanges that have been silent for too long."""
        now = self._loop.time()
        passed, self._now = min(now - self._now, MAX_SWEEP_SECONDS), now
        for client in list(self._watched):
            if not client.check_rate(passed):
                self._watched.discard(client)
        for client in [client for client in self.clients if client.deadline <= now]:
            client.expire()
        for room in self.rooms.values():
            room.sweep()
            room.pool.close_idle(now)

    async def drain(self, grace_seconds: float) -> None:
        """Accepts no new requests, lets those in flight finish, and aborts the rest after ``grace_seconds``."""
        self.draining = True
        for client in list(self.clients):
            client.close_idle()
        ends = self._loop.time() + grace_seconds
        while self.clients and self._loop.time() < ends:
            await asyncio.sleep(DRAIN_POLL_SECONDS)
            self.sweep()
        for client in list(self.clients):
            client.transport.abort()
