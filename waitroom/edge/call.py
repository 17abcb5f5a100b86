"""One request to a room, with what its visitor holds."""

from __future__ import annotations

from waitroom.edge.client import ClientConnection
from waitroom.edge.headers import own_cookie, set_cookie
from waitroom.edge.http1 import Request
from waitroom.edge.room import Room
from waitroom.edge.sessions import Session
from waitroom.gate import Kind, classify
from waitroom.tokens import TICKET_SECONDS, Ticket


class Call:
    """One request to a room, and what its visitor holds.

    Attributes:
        kind: What sort of request it is.
        session: Of a pass of ours, perhaps run out.
        ticket: A ticket of ours, perhaps too old.
        now: Unix time in seconds.
        then: Where to send the visitor instead of to the shop, once admitted; None forwards the request.
    """

    __slots__ = ("client", "kind", "now", "request", "room", "session", "then", "ticket")

    def __init__(self, client: ClientConnection, request: Request, room: Room, then: bytes | None = None) -> None:
        self.then = then
        self.client = client
        self.request = request
        self.room = room
        self.kind = kind_of(request)
        self.now = room.clock.unix()
        cookies, fields = client.cookies, request.fields
        value = own_cookie(cookies, room.pass_cookie_name) or fields.get(b"waitroom-pass")
        self.session: Session | None = room.sessions.read(value) if value else None
        value = own_cookie(cookies, room.ticket_cookie_name) or fields.get(b"waitroom-ticket")
        self.ticket: Ticket | None = room.read_ticket(value) if value else None

    @property
    def secure(self) -> bool:
        """Whether the visitor's browser speaks HTTPS."""
        return self.client.peer.secure(self.request)

    def cookie(self, name: str, value: str, max_age: int) -> bytes:
        """A Set-Cookie line for this visitor."""
        return set_cookie(name, value, secure=self.secure, max_age=max_age)

    def ticket_lines(self, ticket: Ticket) -> bytes:
        """What hands a visitor the ticket."""
        return self.cookie(self.room.ticket_cookie, self.room.tokens.sign_ticket(ticket), TICKET_SECONDS)

    def pass_lines(self, session: Session, value: str) -> bytes:
        """What hands a visitor the pass, and takes the ticket back, which is used up."""
        lines = self.cookie(self.room.pass_cookie, value, session.ends_at - int(self.now))
        return lines + self.cookie(self.room.ticket_cookie, "", 0)


def kind_of(request: Request) -> Kind:
    """What sort of request it is; found out once for all that have its head in common."""
    if request.kind is None:
        request.kind = classify(request.method, request.fields)
    return request.kind
