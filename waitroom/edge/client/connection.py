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
RETRY_HEADER: Final = b"Retry-After: 5\r\n"
LINGER_SECONDS: Final = 2.0
LAST_REQUEST_SECONDS: Final = 1.0  # for new connections that have sent no request yet when the worker stops

_MAX_LINE_BYTES: Final = LONGEST_TARGET + 64
_EMPTY_LINES: Final = re.compile(rb"\A(?:\r\n)+")
_NEVER: Final = float("inf")
_WITHOUT_LENGTH: Final = (b"1", b"204")


class ClientConnection(asyncio.Protocol):
    """One client. Answers requests strictly in order: the next one is handled once the previous one is answered.

    Attributes:
        has_pass: Whether a request with a pass has arrived.
    """

    __slots__ = (
        # owned by the server
        "_server",
        # per connection
        *("_advancing", "_pending", "_buffer", "_half_closed", "_idle_from", "_counted_peer", "_lingering", "_lost"),
        *(
            "_next_turn",
            "_partial",
            "_paused_by_backlog",
            "_paused_by_upstream",
            "_read_rate",
            "_unread_before_expiry",
            "_unread_before",
        ),
        *("closing", "deadline", "has_pass", "peer", "transport", "write_paused"),
        # per request
        *(
            "_body_bytes",
            "_body",
            "_exchange",
            "_body_buffer",
            "_buffer_deadline",
            "_request_number",
            "_send_rate",
            "response_started",
            "cookies",
        ),
        "request",
    )

    transport: asyncio.Transport
    peer: Peer

    def __init__(self, server: Server, peer: Peer | None = None) -> None:
        self._server = server
        self._counted_peer = peer
        self._advancing = False
        self._buffer = b""
        self._half_closed = False  # the client closed its side while requests of it waited for their turn
        self._idle_from = 0.0
        self._lingering = False
        self._lost = False
        self._next_turn: asyncio.Handle | None = None
        self._partial: PartialHead | None = None  # the bytes of `_buffer`, and those received since
        self._paused_by_backlog = False
        self._paused_by_upstream = False
        self._pending: set[asyncio.Future[Any]] = set()
        self._read_rate: MinimumRate | None = None
        self._unread_before_expiry = _NEVER
        self._unread_before = 0
        self.closing = False
        self.deadline = _NEVER
        self.has_pass = False
        self.write_paused = False
        self._body_bytes = 0
        self._body: Body = NO_BODY
        self._exchange: ExchangeHandle | None = None
        self._body_buffer: BodyBuffer | None = None
        self._buffer_deadline = 0.0  # while waiting for the body
        self._request_number = 0
        self._send_rate: MinimumRate | None = None
        self.response_started = False
        self.cookies: Sequence[bytes] = ()
        self.request: Request | None = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self.transport = cast(asyncio.Transport, transport)
        if self._counted_peer is not None:
            self.peer = self._counted_peer
            self._server.register(self)
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
                self.forward_body()
            elif self._buffer_deadline:
                self._buffer_body(exchange)
        if self._buffer and len(self._buffer) > READ_AHEAD:
            self._paused_by_backlog = True
            self._update_reading()

    def eof_received(self) -> bool:
        """The client has closed its side; True keeps our side open."""
        if self._lingering:
            return False
        if self._next_turn is not None and self.transport.can_write_eof():
            self._half_closed = True
            return True
        # Some clients half-close after their last request, which then asks for no keep-alive. Otherwise the visitor has
        # gone, and the shop need not finish the response.
        if self.request is not None and not self.request.keep_alive and self._body.done:
            self.closing = True
            return self.transport.can_write_eof()  # in TLS an end closes both directions
        self._cancel_pending()
        if self.response_started:
            self.transport.abort()  # the response is cut short, and must not look complete
        self._begin_lingering_close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; cancels everything it waits for."""
        self.deadline = _NEVER
        if not self._lost:
            self._lost = True
            self._server.unregister(self)
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._cancel_pending()

    def pause_writing(self) -> None:
        """The client can't take more for now."""
        self.write_paused = True
        self._unread_before = self._unread_bytes()
        self._unread_before_expiry = float(self._unread_before)
        limits = self._server.limits
        self.deadline = self._server.now() + limits.write_seconds
        if limits.min_bytes_per_second:
            if self._read_rate is None:
                self._read_rate = MinimumRate(limits.min_bytes_per_second)
            self._server.watch_rate(self)
        if self._exchange is not None:
            self._exchange.client_writable(False)

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        self.write_paused = False
        if self._read_rate is not None:
            self._read_rate.add_bytes(max(0, self._unread_before - self._unread_bytes()))
        if self._exchange is not None:
            self._exchange.client_writable(True)
        elif self.request is None:
            self.set_deadline(self._server.limits.idle_seconds)
            self._advance()
        else:
            self.set_deadline(_NEVER)

    def expire(self) -> None:
        """The deadline has passed: the side being waited for was silent for too long."""
        self.deadline = _NEVER
        exchange = self._exchange
        if self._lingering or self.write_paused:
            self._abort_if_stalled()
        elif exchange is not None:
            if self._buffer_deadline and self._server.now() >= self._buffer_deadline:
                self._start_exchange(exchange)
            elif self._buffer_deadline or (exchange.ready and self._awaits_body(exchange)):
                self._fail_exchange(408)
            else:
                exchange.on_timeout()
        elif self.request is None and self._buffer:
            self._join_pieces()
            self._reject(408, self._buffer)
        else:
            self._begin_lingering_close()
            self.transport.close()

    # Called by the server and by exchanges.

    def check_rate(self, seconds: float) -> bool:
        """Aborts the connection if the client is too slow. ``seconds`` have passed since the last check.

        Returns:
            Whether another check is needed.
        """
        exchange = self._exchange
        if self._lost or (exchange is not None and exchange.tunnel):
            return False
        if self.write_paused and self._read_rate is not None:
            left = self._unread_bytes()
            self._read_rate.add_bytes(max(0, self._unread_before - left))
            self._unread_before = left
            if self._read_rate.add_waiting_time(seconds):
                return True
            self.transport.abort()
            return False
        if exchange is None or self._send_rate is None or self._body.done:
            return False
        if not exchange.ready:
            return True
        self._send_rate.add_bytes(self._body_bytes)
        self._body_bytes = 0
        if not self._awaits_body(exchange) or self._send_rate.add_waiting_time(seconds):
            return True
        self._fail_exchange(408)
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

    def evict(self) -> None:
        """Closes the connection, which no longer counts: another one needs the slot."""
        self._lost = True
        self._server.unregister(self)
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
        return self._server.request_id(self._request_number)

    def now(self) -> float:
        """The loop's time."""
        return self._server.now()

    def date_header(self) -> bytes:
        """The current Date header."""
        return self._server.date_header()

    def set_deadline(self, seconds: float) -> None:
        """Sets the deadline for the side being waited for. A client that isn't reading keeps its write timeout."""
        if not self.write_paused and not self._lingering:
            self.deadline = self._server.now() + seconds

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine that a request waits for; it is cancelled when the client disconnects."""
        self.on_done(asyncio.get_running_loop().create_task(coroutine), asyncio.Future.result)

    def on_done(self, awaited: asyncio.Future[Done], then: Callable[[asyncio.Future[Done]], object]) -> None:
        """Calls ``then`` on a result or an error, unless the client disconnects. Costs half as much as `spawn`."""
        self._pending.add(awaited)
        awaited.add_done_callback(partial(self._deliver_result, then))

    def forward(self, exchange: ExchangeHandle) -> None:
        """Hands the request to an exchange with the shop, which begins once enough of the body has arrived."""
        assert self.request is not None
        self._exchange = exchange
        if self._body.done:
            exchange.start()
        else:
            self._begin_body(self.request, exchange)

    def close_tunnel(self) -> None:
        """Closes the request's tunnel on both sides."""
        exchange = self._exchange
        if exchange is not None and exchange.tunnel:
            exchange.on_timeout()

    def respond(self, status_line: bytes, lines: bytes, body: bytes) -> None:
        """Responds to the request. ``status_line`` is for example ``200 OK``; each of ``lines`` has its line end."""
        request = self.request
        if request is None or self._lost or self._lingering:
            return
        if not self._body.done and not self._drain_body():
            self.closing = True
        if not status_line.startswith(_WITHOUT_LENGTH):
            lines = b"%bContent-Length: %d\r\n" % (lines, len(body))
        if request.method == b"HEAD":
            body = b""
        date, connection = self._server.date_header(), self.connection_header()
        self.transport.write(b"HTTP/1.1 %b\r\n%b%b%b\r\n%b" % (status_line, date, lines, connection, body))
        self.finish()

    def fail(self, status: int, headers: bytes = b"") -> None:
        """Responds with an error, or aborts a response that has already begun. ``headers`` are more headers."""
        self._exchange = None
        self._discard_buffer()
        if self._lost:
            return
        if self.response_started:
            self.transport.abort()
            return
        lines, body = self._server.error_response(self, status)
        self.respond(_ERRORS[status], lines + headers, body)

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
        self.response_started = False
        if self.closing or server.draining or not request.keep_alive:
            self.close()
            return
        now = self._idle_from = server.now()
        if not self.write_paused and not self._lingering:
            self.deadline = now + server.limits.idle_seconds
        if self._buffer or self._paused_by_upstream or self._paused_by_backlog:
            self._paused_by_upstream = False
            self._paused_by_backlog = len(self._buffer) > READ_AHEAD
            self._update_reading()
            self._advance()

    def close(self) -> None:
        """Closes the connection once all is written; data still arriving must not cost the client the response."""
        if self._lost or self._lingering:
            return
        self._begin_lingering_close()
        if (self.request is None and self._body.done) or not self.transport.can_write_eof():
            self.transport.close()  # in TLS this keeps reading by itself
        else:
            self.transport.write_eof()

    def close_idle(self) -> None:
        """Closes the connection if no request is in flight; a request that may just be arriving gets a moment."""
        if self.request is not None or self._lingering:
            return
        if self._buffer or not self._request_number:
            self.deadline = min(self.deadline, self._server.now() + LAST_REQUEST_SECONDS)
        else:
            self._begin_lingering_close()
            self.transport.close()

    def connection_header(self) -> bytes:
        """The Connection header of the response, if it needs one."""
        request = self.request
        if self.closing or request is None or not request.keep_alive or not self._body.done or self._server.draining:
            self.closing = True
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if request.http10 else b""

    def set_read_interest(self, wanted: bool) -> None:
        """Resumes or pauses reading the request's body, as the shop can take it."""
        self._paused_by_upstream = not wanted
        self._update_reading()
        if wanted and self._buffer:
            self.forward_body()

    def forward_body(self) -> None:
        """Forwards the received part of the request's body to the shop."""
        exchange = self._exchange
        if exchange is None or not exchange.ready:
            return
        if exchange.tunnel:
            data, self._buffer = self._buffer, b""
            if data:
                exchange.tunnel_data(data)
            self._paused_by_backlog = False
            self._update_reading()
            return
        held, self._body_buffer = self._body_buffer, None
        if held is not None:
            exchange.send_body([held.take()])
        elif self._body_complete():
            return
        self._body_bytes += len(self._buffer)
        pieces = self._decode_body()
        if pieces is None:
            return
        self._paused_by_backlog = False
        self.set_deadline(self._server.limits.body_seconds)
        exchange.send_body(pieces)
        if self._body.done:
            exchange.end_body(self._body.trailers)
        self._update_reading()

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
                    self._next_turn = asyncio.get_running_loop().call_soon(self._resume_turn)
                    break
                # Clients that send requests without reading the responses must not fill the memory with them.
                if self.write_paused or not self._begin_request():
                    break
                begun += 1
        finally:
            self._advancing = False

    def _resume_turn(self) -> None:
        self._next_turn = None
        self._advance()
        if self._half_closed and not self._waits_for_turn():
            self._half_closed = False
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

    def _begin_request(self) -> bool:
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
                self._reject(error.status, head, error.reason)
                return False
        self._request_number = server.count_request()
        request, self.cookies = found
        self.request = request
        self.response_started = False
        if request.chunked:
            self._body = ChunkedBody(400)
        else:
            self._body = LengthBody(request.content_length) if request.content_length else NO_BODY
        self.deadline = _NEVER
        try:
            server.handle(self, request)
        except Exception as mistake:
            self._handle_internal_error(mistake)
        return True

    def _await_head(self, limits: ClientLimits) -> None:
        buffer = self._buffer
        if b"\r\n" not in buffer[:_MAX_LINE_BYTES] and len(buffer) > _MAX_LINE_BYTES:
            self._reject(414, buffer)
        elif len(buffer) >= limits.head_bytes:
            self._reject(431, buffer)
        elif has_bare_line_feed(buffer):
            self._reject(400, buffer)
        else:
            if buffer:
                self._partial = PartialHead(buffer, _MAX_LINE_BYTES, limits.head_bytes)
            # The deadline counts from the head's first byte: further bytes of a slow head don't extend it.
            self.deadline = min(self.deadline, self._server.now() + limits.head_seconds)

    def _reject(self, status: int, head: bytes, cause: str = "") -> None:
        """Responds to a malformed request, with as much of its ``head`` as has arrived, and closes."""
        self._request_number = self._server.count_request()
        lines, body = self._server.error_response(self, status, head, cause)
        start = b"HTTP/1.1 %b\r\n" % _ERRORS[status]
        length = b"Content-Length: %d\r\n" % len(body)
        if head.startswith(b"HEAD "):
            body = b""
        self.transport.write(
            b"".join((start, self._server.date_header(), lines, length, b"Connection: close\r\n\r\n", body))
        )
        self._begin_lingering_close()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _begin_lingering_close(self) -> None:
        """Stops writing, and discards all input until the connection is closed."""
        self._lingering = True
        self._buffer = b""
        self._partial = None
        self._unread_before_expiry = _NEVER
        self._idle_from = self._server.now()
        self.deadline = self._idle_from + LINGER_SECONDS
        self._paused_by_upstream = self._paused_by_backlog = False
        self._update_reading()

    def _abort_if_stalled(self) -> None:
        """Aborts the connection, unless the client has read some of the response, however slowly."""
        unsent, before = float(self._unread_bytes()), self._unread_before_expiry
        self._unread_before_expiry = unsent
        if self.transport.get_write_buffer_size() and unsent < before:
            self.deadline = self._server.now() + self._server.limits.write_seconds
        else:
            self.transport.abort()

    def _unread_bytes(self) -> int:
        """How many bytes the client has yet to read, including the system's buffer, which holds megabytes."""
        left = self.transport.get_write_buffer_size()
        line = self.transport.get_extra_info("socket")
        return left if line is None else left + unacknowledged(line.fileno())

    # The request's body, before the shop gets the request.

    def _begin_body(self, request: Request, exchange: ExchangeHandle) -> None:
        server = self._server
        limits = server.limits
        length = request.content_length
        if length is not None and len(self._buffer) >= length:
            self._send_continue(request)
            exchange.start()
            return
        buffers = limits.buffer_bytes > 0 and limits.buffer_seconds > 0
        if buffers and request.chunked and exchange.may_stream:
            buffers = False
        if buffers and not server.bodies.fits(0):
            if not exchange.has_pass:
                self._reject_buffers_full(exchange)
                return
            buffers = False
        if limits.min_bytes_per_second:
            self._body_bytes = 0
            self._send_rate = MinimumRate(limits.min_bytes_per_second)
            server.watch_rate(self)
        self._send_continue(request)
        if not buffers:
            exchange.start()
            return
        self._body_buffer = BodyBuffer(server.bodies, limits.buffer_bytes)
        self._buffer_deadline = server.now() + limits.buffer_seconds
        exchange.set_buffering(True)
        self._buffer_body(exchange)

    def _send_continue(self, request: Request) -> None:
        if request.expects_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _buffer_body(self, exchange: ExchangeHandle) -> None:
        """Buffers the received part of the body, and starts the exchange once that is enough."""
        held, server = self._body_buffer, self._server
        assert held is not None
        if not server.bodies.fits(len(self._buffer)):
            if exchange.has_pass:
                self._start_exchange(exchange)
            else:
                self._reject_buffers_full(exchange)
            return
        pieces = self._decode_body()
        if pieces is None:
            return
        held.add(pieces)
        if self._body.done or held.full:
            self._start_exchange(exchange)
        else:
            self.set_deadline(min(server.limits.body_seconds, self._buffer_deadline - server.now()))
            if self._paused_by_backlog:  # too much had arrived before the request's turn
                self._paused_by_backlog = False
                self._update_reading()

    def _start_exchange(self, exchange: ExchangeHandle) -> None:
        """Starts the exchange with the buffered body. No more is read until the shop takes it."""
        self._buffer_deadline = 0.0
        if not self._body.done:
            self._paused_by_backlog = True
            self._update_reading()
        self.set_deadline(_NEVER)
        exchange.set_buffering(False)
        exchange.start_after_buffering()

    def _reject_buffers_full(self, exchange: ExchangeHandle) -> None:
        exchange.refuse("buffers_full")
        self.fail(503, RETRY_HEADER)

    def _decode_body(self) -> list[bytes] | None:
        """The received pieces of the body; None if they were malformed and an error response was sent."""
        data, self._buffer = self._buffer, b""
        try:
            pieces, self._buffer = self._body.feed(data)
        except MalformedError as error:
            self.closing = True
            self._fail_exchange(error.status)
            return None
        return pieces

    def _discard_buffer(self) -> None:
        self._buffer_deadline = 0.0
        self._send_rate = None
        held, self._body_buffer = self._body_buffer, None
        if held is not None:
            held.drop()

    def _awaits_body(self, exchange: ExchangeHandle) -> bool:
        """Whether the shop could take more of the body, and the client sends none."""
        return not self._body.done and not self._paused_by_upstream and not exchange.tunnel

    def _body_complete(self) -> bool:
        return self._body.done

    def _drain_body(self) -> bool:
        """Discards the received part of the body; False if more is to come."""
        try:
            _, self._buffer = self._body.feed(self._buffer)
        except MalformedError:
            return False
        return self._body.done

    def _cancel_pending(self) -> None:
        """Cancels everything the request waits for: nobody needs it any more."""
        for awaited in self._pending:
            awaited.cancel()
        self._pending.clear()  # a result that is already there, and about to be handled, can't be cancelled
        self._abort_exchange()

    def _fail_exchange(self, status: int) -> None:
        """Responds with an error instead of the shop's response; the visitor gets the cookies all the same."""
        exchange = self._exchange
        lines = b"" if exchange is None else exchange.cookie_headers
        self._abort_exchange()
        self.fail(status, lines)

    def _abort_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._discard_buffer()
        if exchange is not None:
            exchange.abort()

    def _update_reading(self) -> None:
        if self._lost or self.transport.is_closing():
            return
        wanted = not (self._paused_by_upstream or self._paused_by_backlog)
        if wanted != self.transport.is_reading():
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _deliver_result(self, then: Callable[[asyncio.Future[Any]], object], done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            self._pending.discard(done)
        elif done in self._pending:
            self._pending.remove(done)
            try:
                then(done)
            except Exception as error:
                self._handle_internal_error(error)
        else:
            self._handle_late_result(done.exception())

    def _handle_late_result(self, error: BaseException | None) -> None:
        """Handles a result that came after the client had gone. The room reports failures of the store."""
        if error is not None and not isinstance(error, StoreUnavailable):
            self._handle_internal_error(error)

    def _handle_internal_error(self, error: BaseException) -> None:
        """Handles an internal error: the log gets the cause, the visitor the id that leads to it."""
        log.error("request failed", request_id=self.request_id, address=self.visitor, exc_info=error)
        self._abort_exchange()
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
