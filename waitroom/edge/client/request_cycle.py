"""The request in progress on a client connection: its body, what it waits for, and its response.

`RequestBody` decodes and buffers the body, `FlowControl` has the back-pressure in both directions.
"""

# mypyc: compile

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from waitroom.edge.client.flow_control import FlowControl
from waitroom.edge.client.interfaces import Client, ConnectionState, ExchangeHandle, Server
from waitroom.edge.client.request_body import RequestBody
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.headers import Peer
from waitroom.edge.http.message import MalformedError, Request
from waitroom.errors import StoreUnavailable

log = structlog.get_logger()

Done = TypeVar("Done")

# Bytes a client may send ahead of its turn.
READ_AHEAD: Final = 65536
RETRY_HEADER: Final = b"Retry-After: 5\r\n"
STATUS_LINES: Final = {
    400: b"400 Bad Request",
    403: b"403 Forbidden",
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
_NEVER: Final = float("inf")
_WITHOUT_LENGTH: Final = (b"1", b"204")


class RequestCycle(Client):
    """The part of a client connection that takes one request after the other from its head to the end of its response.

    Args:
        server: The worker.
        peer: The other end, which the server has counted.
    """

    __slots__ = ("_body", "_buffer", "_exchange", "_flow", "_idle_from", "_number", "_pending", "_server", "_state")

    _flow: FlowControl

    def __init__(self, server: Server, peer: Peer) -> None:
        self._server = server
        self._state = ConnectionState.OPEN
        self._body = RequestBody()
        self._buffer = b""
        self._idle_from = 0.0
        self._pending: set[asyncio.Future[Any]] = set()
        self._exchange: ExchangeHandle | None = None
        self._number = 0
        self.peer = peer
        self.deadline = _NEVER
        self.has_pass = False
        self.cookies: Sequence[bytes] = ()
        self.request: Request | None = None
        self.response_started = False

    @abstractmethod
    def _advance(self) -> None:
        """Handles the received requests one after the other, as long as they are answered immediately."""

    @abstractmethod
    def _begin_lingering_close(self) -> None:
        """Stops writing, and discards all input until the connection is closed."""

    @property
    def visitor(self) -> str:
        """See `Client`."""
        peer, request = self.peer, self.request
        return peer.client_info(request).address if request is not None and peer.trusted else peer.address

    @property
    def request_id(self) -> str:
        """See `Client`."""
        return self._server.request_id(self._number)

    @property
    def write_paused(self) -> bool:
        """See `Client`."""
        return self._flow.write_paused

    # The response.

    def respond(self, status_line: bytes, headers: HeaderBlock, body: bytes) -> None:
        """See `Client`."""
        request = self.request
        if request is None or self._state is ConnectionState.CLOSED or self._state is ConnectionState.LINGERING:
            return
        if not self._body.is_complete() and not self._drain_body():
            self.close_after_response()
        if not status_line.startswith(_WITHOUT_LENGTH):
            headers = b"%bContent-Length: %d\r\n" % (headers, len(body))
        if request.method == b"HEAD":
            body = b""
        if self._server.limits.hsts_headers:
            headers += self.hsts_headers(request)
        date, connection = self._server.date_header(), self.connection_header()
        self.transport.write(b"HTTP/1.1 %b\r\n%b%b%b\r\n%b" % (status_line, date, headers, connection, body))
        self.finish()

    def hsts_headers(self, request: Request) -> HeaderBlock:
        """See `Client`."""
        configured = self._server.limits.hsts_headers
        return configured if configured and self.peer.is_secure(request) else b""

    def fail(self, status: int, headers: HeaderBlock = b"") -> None:
        """See `Client`."""
        self._exchange = None
        self._body.discard()
        if self._state is ConnectionState.CLOSED:
            return
        if self.response_started:
            self.transport.abort()
            return
        error_headers, body = self._server.error_response(self, status)
        self.respond(STATUS_LINES[status], error_headers + headers, body)

    def date_header(self) -> HeaderBlock:
        """See `Client`."""
        return self._server.date_header()

    def connection_header(self) -> HeaderBlock:
        """See `Client`."""
        request = self.request
        if (
            self._state is not ConnectionState.OPEN
            or request is None
            or not request.keep_alive
            or not self._body.is_complete()
            or self._server.draining
        ):
            self.close_after_response()
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if request.http10 else b""

    def set_deadline(self, seconds: float) -> None:
        """See `Client`."""
        if not self._flow.write_paused and self._state is not ConnectionState.LINGERING:
            self.deadline = self._server.now() + seconds

    def finish(self) -> None:
        """See `Client`."""
        self._exchange = None
        request = self.request
        if request is None or self._state is ConnectionState.CLOSED:
            return
        if not self._body.is_complete() and not self._drain_body():
            self.close_after_response()
        server, flow = self._server, self._flow
        self.request = None
        self.cookies = ()
        self.response_started = False
        if self._state is not ConnectionState.OPEN or server.draining or not request.keep_alive:
            self.close()
            return
        now = self._idle_from = server.now()
        if not flow.write_paused:
            self.deadline = now + server.limits.idle_seconds
        if self._buffer or flow.paused_by_upstream or flow.paused_by_backlog:
            flow.paused_by_upstream = False
            flow.paused_by_backlog = len(self._buffer) > READ_AHEAD
            self._update_reading()
            self._advance()

    def close_after_response(self) -> None:
        """See `Client`."""
        if self._state is ConnectionState.OPEN:
            self._state = ConnectionState.LAST_REQUEST

    def close(self) -> None:
        """See `Client`."""
        if self._state is ConnectionState.CLOSED or self._state is ConnectionState.LINGERING:
            return
        self._begin_lingering_close()
        if (self.request is None and self._body.is_complete()) or not self.transport.can_write_eof():
            self.transport.close()  # in TLS this keeps reading by itself
        else:
            self.transport.write_eof()

    # The exchange with the shop, and the request's body.

    def forward(self, exchange: ExchangeHandle) -> None:
        """See `Client`."""
        assert self.request is not None
        self._exchange = exchange
        if self._body.is_complete():
            exchange.start()
        else:
            self._begin_body(self.request, exchange)

    def close_tunnel(self) -> None:
        """See `Client`."""
        exchange = self._exchange
        if exchange is not None and exchange.tunnel:
            exchange.on_timeout()

    def set_read_interest(self, wanted: bool) -> None:
        """See `Client`."""
        self._flow.paused_by_upstream = not wanted
        self._update_reading()
        if wanted and self._buffer:
            self.forward_body()

    def forward_body(self) -> None:
        """See `Client`."""
        exchange, body = self._exchange, self._body
        if exchange is None or not exchange.ready:
            return
        if exchange.tunnel:
            data, self._buffer = self._buffer, b""
            if data:
                exchange.tunnel_data(data)
            self._flow.paused_by_backlog = False
            self._update_reading()
            return
        buffered = body.take_buffer()
        if buffered is not None:
            exchange.send_body([buffered])
        elif body.is_complete():
            return
        body.count_received(len(self._buffer))
        pieces = self._decode_body()
        if pieces is None:
            return
        self._flow.paused_by_backlog = False
        self.set_deadline(self._server.limits.body_seconds)
        exchange.send_body(pieces)
        if body.is_complete():
            exchange.end_body(body.trailers())
        self._update_reading()

    def _begin_body(self, request: Request, exchange: ExchangeHandle) -> None:
        server, body = self._server, self._body
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
            body.begin_timing(limits.min_bytes_per_second)
            server.watch_rate(self)
        self._send_continue(request)
        if not buffers:
            exchange.start()
            return
        body.begin_buffering(server.bodies, limits.buffer_bytes, server.now() + limits.buffer_seconds)
        exchange.set_buffering(True)
        self._buffer_body(exchange)

    def _send_continue(self, request: Request) -> None:
        if request.expects_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _buffer_body(self, exchange: ExchangeHandle) -> None:
        """Buffers the received part of the body, and starts the exchange once that is enough."""
        server, body = self._server, self._body
        buffer = body.buffer
        assert buffer is not None
        if not server.bodies.fits(len(self._buffer)):
            if exchange.has_pass:
                self._start_exchange(exchange)
            else:
                self._reject_buffers_full(exchange)
            return
        pieces = self._decode_body()
        if pieces is None:
            return
        buffer.add(pieces)
        if buffer.full or body.is_complete():
            self._start_exchange(exchange)
        else:
            self.set_deadline(min(server.limits.body_seconds, body.buffering_ends - server.now()))
            if self._flow.paused_by_backlog:  # too much had arrived before the request's turn
                self._flow.paused_by_backlog = False
                self._update_reading()

    def _start_exchange(self, exchange: ExchangeHandle) -> None:
        """Starts the exchange with the buffered body. No more is read until the shop takes it."""
        self._body.buffering_ends = 0.0
        if not self._body.is_complete():
            self._flow.paused_by_backlog = True
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
            pieces, self._buffer = self._body.decode(data)
        except MalformedError as error:
            self.close_after_response()
            self._fail_exchange(error.status)
            return None
        return pieces

    def _awaits_body(self, exchange: ExchangeHandle) -> bool:
        """Whether the shop could take more of the body, and the client sends none."""
        return not self._body.is_complete() and not self._flow.paused_by_upstream and not exchange.tunnel

    def _drain_body(self) -> bool:
        """Discards the received part of the body; False if more is to come."""
        try:
            _, self._buffer = self._body.decode(self._buffer)
        except MalformedError:
            return False
        return self._body.is_complete()

    def _fail_exchange(self, status: int) -> None:
        """Responds with an error instead of the shop's response; the visitor gets the cookies all the same."""
        exchange = self._exchange
        headers = b"" if exchange is None else exchange.cookie_headers
        self._abort_exchange()
        self.fail(status, headers)

    def _abort_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._body.discard()
        if exchange is not None:
            exchange.abort()

    def _update_reading(self) -> None:
        if self._state is not ConnectionState.CLOSED:
            self._flow.update_reading()

    # Operations that the request waits for.

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """See `Client`."""
        self.on_done(asyncio.get_running_loop().create_task(coroutine), asyncio.Future.result)

    def on_done(self, awaited: asyncio.Future[Done], then: Callable[[asyncio.Future[Done]], object]) -> None:
        """See `Client`."""
        self._pending.add(awaited)
        awaited.add_done_callback(partial(self._deliver_result, then))

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

    def _cancel_pending(self) -> None:
        """Cancels everything the request waits for: nobody needs it any more."""
        for awaited in self._pending:
            awaited.cancel()
        self._pending.clear()  # a result that is already there, and about to be handled, can't be cancelled
        self._abort_exchange()
