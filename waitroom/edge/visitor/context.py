"""The context of one request to a room, including its visitor's tokens."""

# mypyc: compile

from __future__ import annotations

from enum import Enum

from waitroom.budgets import neighbourhood
from waitroom.edge.client.interfaces import Client
from waitroom.edge.http.headers import gateway_tokens, set_cookie
from waitroom.edge.http.message import Request
from waitroom.edge.rooms.room import Room
from waitroom.edge.rooms.session import Session
from waitroom.gate import Kind, classify, is_void
from waitroom.queue.store import Visited
from waitroom.tokens import TICKET_SECONDS, Ticket, binding_kind


class CheckAnswer(Enum):
    """How another proxy wants a forward-auth check answered for requests that may not proceed."""

    STATUS = "status"  # 401 with the waiting page's address
    REDIRECT = "redirect"  # navigations are redirected to the waiting page
    PAGE = "page"  # the waiting page itself, for proxies that hand it on


class RequestContext:
    """One request to a room, and its visitor's tokens.

    Attributes:
        kind: The kind of request.
        session: The session of a valid pass, which may have expired.
        ticket: A valid ticket, which may be too old.
        now: Unix time in seconds.
        destination: The visitor's destination, once admitted, instead of the shop; None forwards the request.
        check: How to answer the proxy that asks about the request; None for a request that was sent to us.
    """

    __slots__ = ("check", "client", "destination", "kind", "now", "request", "room", "session", "ticket")

    def __init__(
        self,
        client: Client,
        request: Request,
        room: Room,
        destination: bytes | None = None,
        check: CheckAnswer | None = None,
    ) -> None:
        self.destination = destination
        self.check = check
        self.client = client
        self.request = request
        self.room = room
        self.kind = kind_of(request)
        self.now = room.clock.unix()
        cookies, fields = client.cookies, request.fields
        self.session: Session | None = None
        for value in gateway_tokens(cookies, room.pass_cookie_name, fields.get(b"waitroom-pass")):
            session = room.sessions.find(value)
            if session is None or ((session.over or room.bound_to) and not self._may_use(session, value)):
                continue
            if self.session is None or self._is_better(session, self.session):
                self.session = session
        self.ticket: Ticket | None = None
        for value in gateway_tokens(cookies, room.ticket_cookie_name, fields.get(b"waitroom-ticket")):
            ticket = room.read_ticket(value)
            if ticket is not None and (self.ticket is None or self._is_ahead(ticket, self.ticket)):
                self.ticket = ticket

    def _may_use(self, session: Session, value: bytes) -> bool:
        """Whether a pass admits this request: its session isn't over, and only its holder presents it."""
        request, room = self.request, self.room
        if session.over and not (
            self.now < session.grace_until and request.method in (b"GET", b"HEAD") and request.upgrade is None
        ):
            return False
        if not room.bound_to:
            return True
        binding = room.sessions.binding(value, session)
        # A pass bound to something else, by an earlier value of the setting, is valid until it is renewed.
        return binding_kind(binding) != room.bound_to or binding in room.bindings(self.client, request)

    def _is_better(self, session: Session, best: Session) -> bool:
        """Whether a session is better than the best so far: one that needs no lookup, then the longest."""
        now = self.now
        return (now < session.expires_at, session.ends_at) > (now < best.expires_at, best.ends_at)

    def _is_ahead(self, ticket: Ticket, best: Ticket) -> bool:
        """Whether a ticket is better than the best so far: a valid one, then the first place."""
        view, now = self.room.view, self.now
        void = is_void(best, view, now)
        return void if is_void(ticket, view, now) != void else ticket.place < best.place

    @property
    def safe(self) -> bool:
        """Whether the request is safe: it reads and changes nothing."""
        return self.request.method in (b"GET", b"HEAD") and self.request.upgrade is None

    @property
    def secure(self) -> bool:
        """Whether the visitor's browser uses HTTPS."""
        return self.client.peer.is_secure(self.request)

    def cookie(self, name: str, value: str, max_age: int) -> bytes:
        """A Set-Cookie line for this visitor."""
        return set_cookie(name, value, secure=self.secure, max_age=max_age)

    def start_session(self, id_: int, ends_at: int | None = None) -> tuple[Session, str]:
        """A new or continued session for this visitor; see `Room.start_session`."""
        return self.room.start_session(id_, self.now, ends_at, binding=self.room.binding(self.client, self.request))

    def start_claimed_session(self, ticket: Ticket, visited: Visited) -> tuple[Session, str]:
        """The session of a visitor who has claimed the turn, now or before: its hard end stays the same."""
        self.room.observe_wait(ticket, self.now)
        return self.start_session(visited.moved_to or ticket.place, int(self.now) + visited.left_ms // 1000)

    def start_offline_session(self) -> tuple[Session, str] | None:
        """A session for this visitor without the store; see `Room.start_offline_session`."""
        return self.room.start_offline_session(self.now, binding=self.room.binding(self.client, self.request))

    def ticket_headers(self, ticket: Ticket) -> bytes:
        """Header lines that give the visitor the ticket."""
        return self.ticket_cookie(self.room.tokens.sign_ticket(ticket))

    def ticket_cookie(self, value: str) -> bytes:
        """A Set-Cookie line with a signed ticket."""
        return self.cookie(self.room.ticket_cookie, value, TICKET_SECONDS)

    def pass_headers(self, session: Session, value: str) -> bytes:
        """Header lines that give the visitor the pass, and remove the used ticket."""
        self.room.neighbours.record(neighbourhood(self.client.visitor), int(self.now))
        headers = self.pass_cookie(session, value)
        return headers + self.cookie(self.room.ticket_cookie, "", 0) + self.forget_shown()

    def pass_cookie(self, session: Session, value: str) -> bytes:
        """A Set-Cookie line with the pass of a session."""
        return self.cookie(self.room.pass_cookie, value, session.ends_at - int(self.now))

    def forget_shown(self) -> bytes:
        """Header lines that remove the shown position, if the visitor has one: it belongs to a place that is over."""
        if gateway_tokens(self.client.cookies, self.room.shown_cookie_name, None):
            return self.cookie(self.room.shown_cookie, "", 0)
        return b""


def kind_of(request: Request) -> Kind:
    """The kind of a request; determined once for all requests that share its head."""
    if request.kind is None:
        request.kind = classify(request.method, request.fields)
    return request.kind
