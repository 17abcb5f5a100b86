"""Forwards requests of a room: adds headers for the shop, and handles those of its response."""

# mypyc: compile

from __future__ import annotations

import math
from typing import Final

from waitroom.budgets import neighbourhood
from waitroom.edge.client.interfaces import Client
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.headers import set_cookie
from waitroom.edge.http.message import Request, Response
from waitroom.edge.outcomes import ExchangeOutcome, ForwardOutcome
from waitroom.edge.proxy.exchange import ExchangeHooks, FailureText
from waitroom.edge.rooms.proofs import VIA
from waitroom.edge.rooms.room import Room
from waitroom.edge.rooms.session import Session
from waitroom.edge.rooms.sessions import Tunnel
from waitroom.shop_commands import ShopCommand, parse_command

MAX_LOGGED_COMMAND_BYTES: Final = 64


class SessionTunnel(Tunnel):
    """The tunnel opened by a client's request."""

    __slots__ = ("_client",)

    def __init__(self, client: Client) -> None:
        self._client = client

    def close(self) -> None:
        """See `Tunnel.close`."""
        self._client.close_tunnel()


class RoomForward(ExchangeHooks):
    """One forwarded request of a room; see `ExchangeHooks`.

    Args:
        room: The room.
        session: The visitor's session, or None for a request that needs none.
        client: The visitor's connection.
        request: The request.
        outcome: The outcome to count the request under if all goes well.
        now: The steady clock's time in seconds.
        cookies: Set-Cookie headers the response must carry; caches must not store it then.
    """

    __slots__ = (
        *("_buffering", "_client", "_failed", "_outcome", "_request", "_response_started", "_room", "_session"),
        *("_started", "_tunnel", "_unproven", "cookie_headers", "failure_text", "first_byte_seconds", "has_pass"),
        *("idle_seconds", "neighbourhood", "upstream_headers"),
    )

    def __init__(
        self,
        room: Room,
        session: Session | None,
        client: Client,
        request: Request,
        outcome: ForwardOutcome,
        now: float,
        cookies: HeaderBlock = b"",
    ) -> None:
        self._room = room
        self._session = session
        self._client = client
        self._request = request
        self._outcome = outcome
        self._response_started = False
        self._failed = False
        self._buffering = False
        self.has_pass = session is not None
        self.neighbourhood = "" if session is not None else neighbourhood(client.visitor)
        self.failure_text: FailureText | None = None
        self.cookie_headers = cookies
        self._started = now
        self._tunnel: Tunnel | None = None
        self.first_byte_seconds = room.settings.upstream_first_byte_seconds
        self.idle_seconds = room.settings.upstream_idle_seconds
        self._unproven = b"%bX-Request-Id: %b\r\n" % (room.room_header, client.request_id.encode())
        if session is not None:
            self._unproven += b"Waitroom-Session: %x\r\n" % session.id
            room.begin_request(client, request, session)
        self.upstream_headers = self._unproven
        if room.proofs.enabled:
            self._add_proof()
        room.metrics.in_flight += 1
        room.metrics.awaiting += 1

    def set_buffering(self, buffering: bool) -> None:
        """See `ExchangeHooks.set_buffering`."""
        if buffering != self._buffering:
            self._buffering = buffering
            change = -1 if buffering else 1
            self._room.metrics.in_flight += change
            self._room.metrics.awaiting += change
        self._started = self._room.clock.steady()

    def may_begin(self) -> bool:
        """See `ExchangeHooks.may_begin`."""
        session = self._session
        if self._room.proofs.enabled:  # the request may have waited for longer than a proof is valid
            self._add_proof()
        return session is None or session.allows(self._request, self._room.clock.unix())

    def _add_proof(self) -> None:
        room = self._room
        proof = room.proofs.header(self._session, VIA[self._outcome], room.clock.unix())
        self.upstream_headers = self._unproven + proof

    def on_response(self, response: Response) -> tuple[HeaderBlock, bool]:
        """See `ExchangeHooks.on_response`."""
        room = self._room
        session, now = self._session, room.clock.unix()
        self._response_started = True
        room.metrics.awaiting -= 1
        room.metrics.upstream_response_seconds.observe(room.clock.steady() - self._started)
        self._failed = response.status >= 500 or room.has_failure_header(response)
        if room.failure_text and room.may_have_failure_text(response):
            self.failure_text = FailureText(room.failure_text)
        renew = private = False
        if response.commands:
            private = renew = self._execute_commands(response.commands, now)
        if session is None:
            return self._secured(response, self.cookie_headers), bool(self.cookie_headers)
        private = private or bool(self.cookie_headers)
        if response.status == 101:
            self._tunnel = SessionTunnel(self._client)
            room.sessions.open_tunnel(session, self._tunnel)
        if session.over:
            headers, private = self._end_session_headers(session, now, private)
            return self._secured(response, headers), private
        if response.uncacheable and room.pass_is_due(session, now):
            renew = True
        if not renew:
            return self._secured(response, self.cookie_headers), private
        binding = room.binding(self._client, self._request)
        _, value = room.start_session(session.id, now, session.ends_at, binding=binding)
        headers = self.cookie_headers + self._pass_cookie(value, session.ends_at - int(now))
        return self._secured(response, headers), private

    def _secured(self, response: Response, headers: HeaderBlock) -> HeaderBlock:
        """Headers that set cookies, with Strict-Transport-Security, unless the shop sends that itself."""
        if not headers or any(field.lower == b"strict-transport-security" for field in response.headers):
            return headers
        return headers + self._client.hsts_headers(self._request)

    def _end_session_headers(self, session: Session, now: float, private: bool) -> tuple[HeaderBlock, bool]:
        """The headers of a response to a session that is over. Within its grace its pass stays as it is."""
        if now >= session.grace_until:
            return self.cookie_headers + self._pass_cookie("", 0), True
        if not private:
            return b"", False
        farewell = self._pass_cookie(self._room.sessions.grace_pass(session), math.ceil(session.grace_until - now))
        return self.cookie_headers + farewell, True

    def on_end(self, outcome: ExchangeOutcome) -> None:
        """See `ExchangeHooks.on_end`."""
        room = self._room
        if not self._buffering:
            room.metrics.in_flight -= 1
            if not self._response_started:
                room.metrics.awaiting -= 1
        if not self._buffering and outcome != "busy":  # otherwise it never reached the shop
            room.metrics.upstream_request_seconds.observe(room.clock.steady() - self._started)
        reported = self.failure_text is not None and self.failure_text.found
        if self._failed or reported or outcome == "failed":
            room.metrics.upstream_failures += 1
        room.count(self._outcome if outcome == "ok" else outcome)
        session = self._session
        if session is not None:
            if self._tunnel is not None:
                room.sessions.close_tunnel(session, self._tunnel)
            room.sessions.finish(session, self._request.upgrade is not None)

    def _pass_cookie(self, value: str, max_age: int) -> HeaderBlock:
        return set_cookie(
            self._room.pass_cookie, value, secure=self._client.peer.is_secure(self._request), max_age=max_age
        )

    def _execute_commands(self, commands: bytes, now: float) -> bool:
        """Carries out the shop's commands; True if the pass must be renewed for one."""
        room, session = self._room, self._session
        renew = False
        for part in commands.split(b","):
            text = part.strip()
            if not text:
                continue
            command = parse_command(text)
            if command is None:
                shown = repr(text[:MAX_LOGGED_COMMAND_BYTES])
                room.pool.log.warning("ignoring unknown Waitroom-Command", room=room.name, command=shown)
            elif command.name == "sold-out":
                room.stock.report_sold_out(room.view)
            elif command.name == "remaining":
                room.stock.report_remaining(command.number)
            elif session is not None and not session.over:  # a bypassed webhook has none
                self._command_session(session, command, now)
                renew = True
        room.send_urgent_stock()
        return renew

    def _command_session(self, session: Session, command: ShopCommand, now: float) -> None:
        room, until = self._room, int(now) + command.number
        if command.name == "release":
            room.release(session, now)
        elif command.name == "hold":
            until = min(until, session.hard_end + room.session_max_seconds)
            session.ends_at = max(session.ends_at, until)
            session.expires_at = max(session.expires_at, until)
            room.sessions.enqueue(session, "hold", max(0, round((until - now) * 1000)))
        else:
            until = min(until, session.ends_at)
            session.expires_at = max(session.expires_at, until)
            room.sessions.enqueue(session, "extend", max(0, round((until - now) * 1000)))
