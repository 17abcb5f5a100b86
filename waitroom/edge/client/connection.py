"""A client connection on the public port: reads requests one after the other and writes their responses in order."""

# mypyc: compile

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

import structlog

from waitroom.edge.client.body_buffer import BodyBuffer
from waitroom.edge.client.interfaces import ClientLimits, ExchangeHandle, Server
from waitroom.edge.client.minimum_rate import MinimumRate
from waitroom.edge.client.send_queue import unacknowledged
from waitroom.edge.http.framing import NO_BODY, Body, ChunkedBody, LengthBody
from waitroom.edge.http.headers import Peer
from waitroom.edge.http.message import LONGEST_TARGET, MalformedError, Request
from waitroom.edge.http.partial_head import PartialHead, has_bare_line_feed
from waitroom.errors import StoreUnavailable

log = structlog.get_logger()

Done = TypeVar("Done")

# Bytes a client may send ahead of its turn.
READ_AHEAD: Final = 65536
# At most this many requests of one connection begin per turn of the event loop: a long pipeline must not delay others.
REQUESTS_PER_TURN: Final = 8
RETRY_LINE: Final = b"Retry-After: 5\r\n"
LINGER_SECONDS: Final = 2.0
LAST_REQUEST_SECONDS: Final = 1.0  # for new connections that have sent no request yet when the worker stops

_LONGEST_LINE: Final = LONGEST_TARGET + 64
_EMPTY_LINES: Final = re.compile(rb"\A(?:\r\n)+")
_NEVER: Final = float("inf")
_LENGTHLESS: Final = (b"1", b"204")


class ClientConnection(asyncio.Protocol):
    """One client. Answers requests strictly in order: the next one is handled once the previous one is answered.

    Attributes:
        has_pass: Whether a request with a pass has arrived.
    """

    __slots__ = (
        # owned by the server
        "_server",
        # per connection
        *("_advancing", "_awaited", "_buffer", "_ended_early", "_idle_from", "_known", "_lingering", "_lost"),
        *("_next_turn", "_partial", "_paused_by_flood", "_paused_by_shop", "_taking", "_unsent", "_untaken"),
        *("closing", "deadline", "has_pass", "peer", "transport", "write_paused"),
        # per request
        *("_arrived", "_body", "_exchange", "_held", "_hold_ends", "_number", "_sending", "answering", "cookies"),
        "request",
    )

    transport: asyncio.Transport
    peer: Peer

    def __init__(self, server: Server, peer: Peer | None = None) -> None:
        self._server = server
        self._known = peer
        self._advancing = False
        self._buffer = b""
        self._ended_early = False  # the client closed its side while requests of it waited for their turn
        self._idle_from = 0.0
        self._lingering = False
        self._lost = False
        self._next_turn: asyncio.Handle | None = None
        self._partial: PartialHead | None = None  # the bytes of `_buffer`, and those received since
        self._paused_by_flood = False
        self._paused_by_shop = False
        self._awaited: set[asyncio.Future[Any]] = set()
        self._taking: MinimumRate | None = None
        self._unsent = _NEVER
        self._untaken = 0
        self.closing = False
        self.deadline = _NEVER
        self.has_pass = False
        self.write_paused = False
        self._arrived = 0
        self._body: Body = NO_BODY
        self._exchange: ExchangeHandle | None = None
        self._held: BodyBuffer | None = None
        self._hold_ends = 0.0  # while waiting for the body
        self._number = 0
        self._sending: MinimumRate | None = None
        self.answering = False
        self.cookies: Sequence[bytes] = ()
        self.request: Request | None = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self.transport = cast(asyncio.Transport, transport)
        if self._known is not None:
            self.peer = self._known
            self._server.entered(self)
        else:
            name = transport.get_extra_info("peername")
            peer = self._server.opened(self, str(name[0]) if name else "")
            if peer is None:
                self._lost = True
                self.transport.abort()
                return
            self.peer = peer
        self._idle_from = self._server.now()
        self.deadline = self._idle_from + self._server.limits.head_seconds

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._lingering:
            return
        exchange = self._exchange
        if exchange is not None and exchange.tunnel:
            exchange.tunnel_data(data)
            return
        if self._partial is not None:
            if not self._partial.add(data):
                return
            self._join_pieces()
        else:
            self._buffer = self._buffer + data if self._buffer else data
        if self.request is None:
            self._advance()
        elif not self._body.done and exchange is not None:
            if exchange.ready:
                self.pump()
            elif self._hold_ends:
                self._hold_more(exchange)
        if self._buffer and len(self._buffer) > READ_AHEAD:
            self._paused_by_flood = True
            self._set_reading()

    def eof_received(self) -> bool:
        """The client has closed its side; True keeps our side open."""
        if self._lingering:
            return False
        if self._next_turn is not None and self.transport.can_write_eof():
            self._ended_early = True
            return True
        # Some clients half-close after their last request, which then asks for no keep-alive. Otherwise the visitor has
        # gone, and the shop need not finish the response.
        if self.request is not None and not self.request.keep_alive and self._body.done:
            self.closing = True
            return self.transport.can_write_eof()  # in TLS an end closes both directions
        self._give_up()
        if self.answering:
            self.transport.abort()  # the response is cut short, and must not look complete
        self._last_words()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; cancels everything it waits for."""
        self.deadline = _NEVER
        if not self._lost:
            self._lost = True
            self._server.closed(self)
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._give_up()

    def pause_writing(self) -> None:
        """The client can't take more for now."""
        self.write_paused = True
        self._untaken = self._left_to_take()
        self._unsent = float(self._untaken)
        limits = self._server.limits
        self.deadline = self._server.now() + limits.write_seconds
        if limits.min_bytes_per_second:
            if self._taking is None:
                self._taking = MinimumRate(limits.min_bytes_per_second)
            self._server.watch(self)
        if self._exchange is not None:
            self._exchange.client_writable(False)

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        self.write_paused = False
        if self._taking is not None:
            self._taking.moved(max(0, self._untaken - self._left_to_take()))
        if self._exchange is not None:
            self._exchange.client_writable(True)
        elif self.request is None:
            self.allow(self._server.limits.idle_seconds)
            self._advance()
        else:
            self.allow(_NEVER)

    def expire(self) -> None:
        """The deadline has passed: the side being waited for was silent for too long."""
        self.deadline = _NEVER
        exchange = self._exchange
        if self._lingering or self.write_paused:
            self._cut_unless_taking()
        elif exchange is not None:
            if self._hold_ends and self._server.now() >= self._hold_ends:
                self._start(exchange)
            elif self._hold_ends or (exchange.ready and self._awaits_body(exchange)):
                self._break_off(408)
            else:
                exchange.timed_out()
        elif self.request is None and self._buffer:
            self._join_pieces()
            self._refuse(408, self._buffer)
        else:
            self._last_words()
            self.transport.close()

    # Called by the server and by exchanges.

    def keeps_pace(self, seconds: float) -> bool:
        """Aborts the connection if the client is too slow. ``seconds`` have passed since the last check.

        Returns:
            Whether another check is needed.
        """
        exchange = self._exchange
        if self._lost or (exchange is not None and exchange.tunnel):
            return False
        if self.write_paused and self._taking is not None:
            left = self._left_to_take()
            self._taking.moved(max(0, self._untaken - left))
            self._untaken = left
            if self._taking.waited(seconds):
                return True
            self.transport.abort()
            return False
        if exchange is None or self._sending is None or self._body.done:
            return False
        if not exchange.ready:
            return True
        self._sending.moved(self._arrived)
        self._arrived = 0
        if not self._awaits_body(exchange) or self._sending.waited(seconds):
            return True
        self._break_off(408)
        return False

    def idle_since(self) -> float:
        """Since when no request has been in flight; for a head that is arriving, since its start."""
        if self.write_paused:
            return _NEVER  # a response is still in progress; a client that reads it too slowly is cut elsewhere
        if self._lingering:
            return self._idle_from
        if self.request is not None:
            return _NEVER
        if self._buffer:
            return max(self._idle_from, self.deadline - self._server.limits.head_seconds)
        return self._idle_from

    def displace(self) -> None:
        """Closes the connection, which no longer counts: another one needs the slot."""
        self._lost = True
        self._server.closed(self)
        self.transport.abort()

    @property
    def connected(self) -> bool:
        """Whether `connection_made` was called, and the server notified."""
        return hasattr(self, "transport")

    @property
    def visitor(self) -> str:
        """The visitor's address, for the log."""
        return self.peer.address if self.request is None else self.peer.client_info(self.request).address

    @property
    def request_id(self) -> str:
        """The request's unique id. Most requests are answered without it."""
        return self._server.request_id(self._number)

    def now(self) -> float:
        """The loop's time."""
        return self._server.now()

    def date_line(self) -> bytes:
        """The current Date header."""
        return self._server.date_line()

    def allow(self, seconds: float) -> None:
        """Sets the deadline for the side being waited for; a client that isn't reading keeps its write timeout."""
        if not self.write_paused and not self._lingering:
            self.deadline = self._server.now() + seconds

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine that a request waits for; it is cancelled when the client disconnects."""
        self.when(asyncio.get_running_loop().create_task(coroutine), asyncio.Future.result)

    def when(self, awaited: asyncio.Future[Done], then: Callable[[asyncio.Future[Done]], object]) -> None:
        """Calls ``then`` on a result or an error, unless the client disconnects. Costs half as much as `run`."""
        self._awaited.add(awaited)
        awaited.add_done_callback(partial(self._go_on, then))

    def forward(self, exchange: ExchangeHandle) -> None:
        """Hands the request to an exchange with the shop, which begins once enough of the body has arrived."""
        assert self.request is not None
        self._exchange = exchange
        if self._body.done:
            exchange.start()
        else:
            self._receive_body(self.request, exchange)

    def cut_tunnel(self) -> None:
        """Closes the request's tunnel on both sides."""
        exchange = self._exchange
        if exchange is not None and exchange.tunnel:
            exchange.timed_out()

    def respond(self, status_line: bytes, lines: bytes, body: bytes) -> None:
        """Responds to the request. ``status_line`` is for example ``200 OK``; each of ``lines`` has its line end."""
        request = self.request
        if request is None or self._lost or self._lingering:
            return
        if not self._body.done and not self._drain_body():
            self.closing = True
        if not status_line.startswith(_LENGTHLESS):
            lines = b"%bContent-Length: %d\r\n" % (lines, len(body))
        if request.method == b"HEAD":
            body = b""
        date, connection = self._server.date_line(), self.connection_line()
        self.transport.write(b"HTTP/1.1 %b\r\n%b%b%b\r\n%b" % (status_line, date, lines, connection, body))
        self.finish()

    def fail(self, status: int, more: bytes = b"") -> None:
        """Responds with an error, or aborts a response that has already begun. ``more`` are header lines."""
        self._exchange = None
        self._release_body()
        if self._lost:
            return
        if self.answering:
            self.transport.abort()
            return
        lines, body = self._server.error_answer(self, status)
        self.respond(_ERRORS[status], lines + more, body)

    def finish(self) -> None:
        """Ends the request: continues with the next one, or closes the connection."""
        self._exchange = None
        request = self.request
        if request is None or self._lost:
            return
        if not self._body.done and not self._drain_body():
            self.closing = True
        server = self._server
        self.request = None
        self.cookies = ()
        self.answering = False
        if self.closing or server.draining or not request.keep_alive:
            self.close()
            return
        now = self._idle_from = server.now()
        if not self.write_paused and not self._lingering:
            self.deadline = now + server.limits.idle_seconds
        if self._buffer or self._paused_by_shop or self._paused_by_flood:
            self._paused_by_shop = False
            self._paused_by_flood = len(self._buffer) > READ_AHEAD
            self._set_reading()
            self._advance()

    def close(self) -> None:
        """Closes the connection once all is written; data still arriving must not cost the client the response."""
        if self._lost or self._lingering:
            return
        self._last_words()
        if (self.request is None and self._body.done) or not self.transport.can_write_eof():
            self.transport.close()  # in TLS this keeps reading by itself
        else:
            self.transport.write_eof()

    def close_idle(self) -> None:
        """Closes the connection if no request is in flight; a request that may just be arriving gets a moment."""
        if self.request is not None or self._lingering:
            return
        if self._buffer or not self._number:
            self.deadline = min(self.deadline, self._server.now() + LAST_REQUEST_SECONDS)
        else:
            self._last_words()
            self.transport.close()

    def connection_line(self) -> bytes:
        """The Connection header of the response, if it needs one."""
        request = self.request
        if self.closing or request is None or not request.keep_alive or not self._body.done or self._server.draining:
            self.closing = True
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if request.http10 else b""

    def read_on(self, wanted: bool) -> None:
        """Resumes or pauses reading the request's body, as the shop can take it."""
        self._paused_by_shop = not wanted
        self._set_reading()
        if wanted and self._buffer:
            self.pump()

    def pump(self) -> None:
        """Forwards the received part of the request's body to the shop."""
        exchange = self._exchange
        if exchange is None or not exchange.ready:
            return
        if exchange.tunnel:
            data, self._buffer = self._buffer, b""
            if data:
                exchange.tunnel_data(data)
            self._paused_by_flood = False
            self._set_reading()
            return
        held, self._held = self._held, None
        if held is not None:
            exchange.send_body([held.take()])
        elif self._all_read():
            return
        self._arrived += len(self._buffer)
        pieces = self._feed()
        if pieces is None:
            return
        self._paused_by_flood = False
        self.allow(self._server.limits.body_seconds)
        exchange.send_body(pieces)
        if self._body.done:
            exchange.end_body(self._body.trailers)
        self._set_reading()

    # Internal methods.

    def _advance(self) -> None:
        """Handles the received requests one after the other, as long as they are answered immediately."""
        if self._advancing or self._next_turn is not None:
            return
        self._advancing = True
        begun = 0
        try:
            while self.request is None and self._buffer and not (self.closing or self._lost or self._lingering):
                if begun >= REQUESTS_PER_TURN:
                    self._next_turn = asyncio.get_running_loop().call_soon(self._take_turn)
                    break
                # Clients that send requests without reading the responses must not fill the memory with them.
                if self.write_paused or not self._begin():
                    break
                begun += 1
        finally:
            self._advancing = False

    def _take_turn(self) -> None:
        self._next_turn = None
        self._advance()
        if self._ended_early and not self._waits_for_turn():
            self._ended_early = False
            if not self.eof_received():
                self.transport.close()

    def _waits_for_turn(self) -> bool:
        # In a method of its own: after an assignment of None, mypyc narrows the attribute to None for the rest of a
        # method.
        return self._next_turn is not None

    def _join_pieces(self) -> None:
        if self._partial is not None:
            self._buffer = self._partial.whole()
            self._partial = None

    def _begin(self) -> bool:
        """Takes one request head from the buffer; False if it isn't complete."""
        self._join_pieces()
        server, buffer = self._server, self._buffer
        if buffer.startswith(b"\r\n"):
            # RFC 9112, section 2.2: empty lines before a request are ignored.
            buffer = self._buffer = _EMPTY_LINES.sub(b"", buffer, count=1)
        found = None
        if buffer.endswith(b"\r\n\r\n") and len(buffer) <= server.limits.head_bytes:
            found = server.find_request(buffer)
        if found is not None:
            self._buffer = b""
        else:
            end = buffer.find(b"\r\n\r\n", 0, server.limits.head_bytes) + 4
            if end < 4:
                self._await_head(server.limits)
                return False
            head, self._buffer = buffer[:end], buffer[end:]
            try:
                found = server.parse_request(head)
            except MalformedError as error:
                self._refuse(error.status, head, error.reason)
                return False
        self._number = server.count_request()
        request, self.cookies = found
        self.request = request
        self.answering = False
        if request.chunked:
            self._body = ChunkedBody(400)
        else:
            self._body = LengthBody(request.content_length) if request.content_length else NO_BODY
        self.deadline = _NEVER
        try:
            server.handle(self, request)
        except Exception as mistake:
            self._broke(mistake)
        return True

    def _await_head(self, limits: ClientLimits) -> None:
        buffer = self._buffer
        if b"\r\n" not in buffer[:_LONGEST_LINE] and len(buffer) > _LONGEST_LINE:
            self._refuse(414, buffer)
        elif len(buffer) >= limits.head_bytes:
            self._refuse(431, buffer)
        elif has_bare_line_feed(buffer):
            self._refuse(400, buffer)
        else:
            if buffer:
                self._partial = PartialHead(buffer, _LONGEST_LINE, limits.head_bytes)
            # The deadline counts from the head's first byte: further bytes of a slow head don't extend it.
            self.deadline = min(self.deadline, self._server.now() + limits.head_seconds)

    def _refuse(self, status: int, head: bytes, cause: str = "") -> None:
        """Responds to a malformed request, with as much of its ``head`` as has arrived, and closes."""
        self._number = self._server.count_request()
        lines, body = self._server.error_answer(self, status, head, cause)
        start = b"HTTP/1.1 %b\r\n" % _ERRORS[status]
        length = b"Content-Length: %d\r\n" % len(body)
        if head.startswith(b"HEAD "):
            body = b""
        self.transport.write(
            b"".join((start, self._server.date_line(), lines, length, b"Connection: close\r\n\r\n", body))
        )
        self._last_words()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _last_words(self) -> None:
        """Stops writing, and discards all input until the connection is closed."""
        self._lingering = True
        self._buffer = b""
        self._partial = None
        self._unsent = _NEVER
        self._idle_from = self._server.now()
        self.deadline = self._idle_from + LINGER_SECONDS
        self._paused_by_shop = self._paused_by_flood = False
        self._set_reading()

    def _cut_unless_taking(self) -> None:
        """Aborts the connection, unless the client has read some of the response, however slowly."""
        unsent, before = float(self._left_to_take()), self._unsent
        self._unsent = unsent
        if self.transport.get_write_buffer_size() and unsent < before:
            self.deadline = self._server.now() + self._server.limits.write_seconds
        else:
            self.transport.abort()

    def _left_to_take(self) -> int:
        """How many bytes the client has yet to read, including the system's buffer, which holds megabytes."""
        left = self.transport.get_write_buffer_size()
        line = self.transport.get_extra_info("socket")
        return left if line is None else left + unacknowledged(line.fileno())

    # The request's body, before the shop gets the request.

    def _receive_body(self, request: Request, exchange: ExchangeHandle) -> None:
        server = self._server
        limits = server.limits
        length = request.content_length
        if length is not None and len(self._buffer) >= length:
            self._ask_for_body(request)
            exchange.start()
            return
        holds = limits.buffer_bytes > 0 and limits.buffer_seconds > 0
        if holds and request.chunked and exchange.may_stream:
            holds = False
        if holds and not server.bodies.fits(0):
            if not exchange.has_pass:
                self._no_room(exchange)
                return
            holds = False
        if limits.min_bytes_per_second:
            self._arrived = 0
            self._sending = MinimumRate(limits.min_bytes_per_second)
            server.watch(self)
        self._ask_for_body(request)
        if not holds:
            exchange.start()
            return
        self._held = BodyBuffer(server.bodies, limits.buffer_bytes)
        self._hold_ends = server.now() + limits.buffer_seconds
        exchange.held(True)
        self._hold_more(exchange)

    def _ask_for_body(self, request: Request) -> None:
        if request.expects_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _hold_more(self, exchange: ExchangeHandle) -> None:
        """Buffers the received part of the body, and starts the exchange once that is enough."""
        held, server = self._held, self._server
        assert held is not None
        if not server.bodies.fits(len(self._buffer)):
            if exchange.has_pass:
                self._start(exchange)
            else:
                self._no_room(exchange)
            return
        pieces = self._feed()
        if pieces is None:
            return
        held.add(pieces)
        if self._body.done or held.full:
            self._start(exchange)
        else:
            self.allow(min(server.limits.body_seconds, self._hold_ends - server.now()))
            if self._paused_by_flood:  # too much had arrived before the request's turn
                self._paused_by_flood = False
                self._set_reading()

    def _start(self, exchange: ExchangeHandle) -> None:
        """Starts the exchange with the buffered body. No more is read until the shop takes it."""
        self._hold_ends = 0.0
        if not self._body.done:
            self._paused_by_flood = True
            self._set_reading()
        self.allow(_NEVER)
        exchange.held(False)
        exchange.start_late()

    def _no_room(self, exchange: ExchangeHandle) -> None:
        exchange.refuse("buffers_full")
        self.fail(503, RETRY_LINE)

    def _feed(self) -> list[bytes] | None:
        """The received pieces of the body; None if they were malformed and an error response was sent."""
        data, self._buffer = self._buffer, b""
        try:
            pieces, self._buffer = self._body.feed(data)
        except MalformedError as error:
            self.closing = True
            self._break_off(error.status)
            return None
        return pieces

    def _release_body(self) -> None:
        self._hold_ends = 0.0
        self._sending = None
        held, self._held = self._held, None
        if held is not None:
            held.drop()

    def _awaits_body(self, exchange: ExchangeHandle) -> bool:
        """Whether the shop could take more of the body, and the client sends none."""
        return not self._body.done and not self._paused_by_shop and not exchange.tunnel

    def _all_read(self) -> bool:
        return self._body.done

    def _drain_body(self) -> bool:
        """Discards the received part of the body; False if more is to come."""
        try:
            _, self._buffer = self._body.feed(self._buffer)
        except MalformedError:
            return False
        return self._body.done

    def _give_up(self) -> None:
        """Cancels everything the request waits for: nobody needs it any more."""
        for awaited in self._awaited:
            awaited.cancel()
        self._awaited.clear()  # a result that is already there, and about to be handled, can't be cancelled
        self._drop_exchange()

    def _break_off(self, status: int) -> None:
        """Responds with an error instead of the shop's response; the visitor gets the cookies all the same."""
        exchange = self._exchange
        lines = b"" if exchange is None else exchange.cookies
        self._drop_exchange()
        self.fail(status, lines)

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._release_body()
        if exchange is not None:
            exchange.abort()

    def _set_reading(self) -> None:
        if self._lost or self.transport.is_closing():
            return
        wanted = not (self._paused_by_shop or self._paused_by_flood)
        if wanted != self.transport.is_reading():
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _go_on(self, then: Callable[[asyncio.Future[Any]], object], done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            self._awaited.discard(done)
        elif done in self._awaited:
            self._awaited.remove(done)
            try:
                then(done)
            except Exception as error:
                self._broke(error)
        else:
            self._outlived(done.exception())

    def _outlived(self, error: BaseException | None) -> None:
        """Handles a result that came after the client had gone. The room reports failures of the store."""
        if error is not None and not isinstance(error, StoreUnavailable):
            self._broke(error)

    def _broke(self, error: BaseException) -> None:
        """Handles an internal error: the log gets the cause, the visitor the id that leads to it."""
        log.error("a request failed", request_id=self.request_id, address=self.visitor, exc_info=error)
        self._drop_exchange()
        self.fail(500)


_ERRORS: Final = {
    400: b"400 Bad Request",
    404: b"404 Not Found",
    405: b"405 Method Not Allowed",
    408: b"408 Request Timeout",
    414: b"414 URI Too Long",
    417: b"417 Expectation Failed",
    421: b"421 Misdirected Request",
    429: b"429 Too Many Requests",
    431: b"431 Request Header Fields Too Large",
    500: b"500 Internal Server Error",
    502: b"502 Bad Gateway",
    503: b"503 Service Unavailable",
    504: b"504 Gateway Timeout",
}
