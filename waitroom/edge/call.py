"""One request to a room, with what its visitor holds."""

from __future__ import annotations

import time

from waitroom.edge.client import ClientConnection
from waitroom.edge.headers import own_cookies, set_cookie
from waitroom.edge.http1 import Request
from waitroom.edge.room import Room
from waitroom.edge.sessions import Session
from waitroom.gate import classify
from waitroom.tokens import TICKET_SECONDS, Ticket


class Call:
    """One request to a room, and what its visitor holds.

    Attributes:
        session: Of a pass of ours, perhaps run out.
        ticket: A ticket of ours, perhaps too old.
        now: Unix time in seconds.
        secure: Whether the visitor's browser speaks HTTPS.
        then: Where to send the visitor instead of to the shop, once admitted; None forwards the request.
    """

    __slots__ = ("client", "kind", "now", "request", "room", "secure", "session", "then", "ticket")

    def __init__(self, client: ClientConnection, request: Request, room: Room, then: bytes | None = None) -> None:
        self.then = then
        self.client = client
        self.request = request
        self.room = room
        self.kind = classify(request.method, request.fields)
        self.now = time.time()
        self.secure = client.peer.secure(request)
        cookies = own_cookies(request.cookies) if request.cookies else {}
        value = cookies.get(room.pass_cookie_name) or request.fields.get(b"waitroom-pass")
        self.session: Session | None = room.sessions.read(value) if value else None
        value = cookies.get(room.ticket_cookie_name) or request.fields.get(b"waitroom-ticket")
        self.ticket: Ticket | None = room.read_ticket(value) if value else None

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
