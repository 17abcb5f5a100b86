"""A client connection on the public port: reads requests one after the other, and closes in time."""

# mypyc: compile

from __future__ import annotations

import asyncio
import re
from typing import Final, cast

from waitroom.edge.client.flow_control import FlowControl
from waitroom.edge.client.interfaces import ClientLimits, ConnectionState, Server
from waitroom.edge.client.request_cycle import READ_AHEAD, STATUS_LINES, RequestCycle
from waitroom.edge.http.headers import Peer
from waitroom.edge.http.message import MAX_TARGET_BYTES, MalformedError
from waitroom.edge.http.partial_head import PartialHead, has_bare_line_feed

# At most this many requests of one connection begin per turn of the event loop: a long pipeline must not delay others.
REQUESTS_PER_TURN: Final = 8
LINGER_SECONDS: Final = 2.0
LAST_REQUEST_SECONDS: Final = 1.0  # for new connections that have sent no request yet when the worker stops

_MAX_LINE_BYTES: Final = MAX_TARGET_BYTES + 64
_EMPTY_LINES: Final = re.compile(rb"\A(?:\r\n)+")
_NEVER: Final = float("inf")


class ClientConnection(asyncio.Protocol, RequestCycle):
    """One client. Answers requests strictly in order: the next one is handled once the previous one is answered."""

    __slots__ = ("_advancing", "_half_closed", "_next_turn", "_partial")

    def __init__(self, server: Server, peer: Peer) -> None:
        super().__init__(server, peer)
        self._advancing = False
        self._half_closed = False  # the client closed its side while requests of it waited for their turn
        self._next_turn: asyncio.Handle | None = None
        self._partial: PartialHead | None = None  # the bytes of `_buffer`, and those received since

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self.transport = cast(asyncio.Transport, transport)
        self._flow = FlowControl(self.transport)
        self._server.register(self)
        self._idle_from = self._server.now()
        self.deadline = self._idle_from + self._server.limits.head_seconds

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._state is ConnectionState.LINGERING:
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
        elif exchange is not None and not self._body.is_complete():
            if exchange.ready:
                self.forward_body()
            elif self._body.buffering_ends:
                self._buffer_body(exchange)
        if self._buffer and len(self._buffer) > READ_AHEAD:
            self._flow.paused_by_backlog = True
            self._update_reading()

    def eof_received(self) -> bool:
        """The client has closed its side; True keeps our side open."""
        if self._state is ConnectionState.LINGERING:
            return False
        if self._next_turn is not None and self.transport.can_write_eof():
            self._half_closed = True
            return True
        # Some clients half-close after their last request, which then asks for no keep-alive. Otherwise the visitor has
        # gone, and the shop need not finish the response.
        if self.request is not None and not self.request.keep_alive and self._body.is_complete():
            self.close_after_response()
            return self.transport.can_write_eof()  # in TLS an end closes both directions
        self._cancel_pending()
        if self.response_started:
            self.transport.abort()  # the response is cut short, and must not look complete
        self._begin_lingering_close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; cancels everything it waits for."""
        self.deadline = _NEVER
        if self._state is not ConnectionState.CLOSED:
            self._state = ConnectionState.CLOSED
            self._server.unregister(self)
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._cancel_pending()

    def pause_writing(self) -> None:
        """The client can't take more for now."""
        limits = self._server.limits
        self._flow.pause_writing(limits.min_bytes_per_second)
        self.deadline = self._server.now() + limits.write_seconds
        if limits.min_bytes_per_second:
            self._server.watch_rate(self)
        if self._exchange is not None:
            self._exchange.client_writable(False)

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        self._flow.resume_writing()
        if self._exchange is not None:
            self._exchange.client_writable(True)
        elif self.request is None:
            self.set_deadline(self._server.limits.idle_seconds)
            self._advance()
        else:
            self.set_deadline(_NEVER)

    # Called by the server: see `Client`.

    @property
    def address(self) -> str:
        """See `Evictable`."""
        return self.peer.address

    @property
    def connected(self) -> bool:
        """See `Client`."""
        return hasattr(self, "transport")

    def idle_since(self) -> float:
        """See `Evictable`. For a head that is arriving, it counts from the start of the head."""
        if self._flow.write_paused:
            return _NEVER  # a response is still in progress; a client that reads it too slowly is cut elsewhere
        if self._state is ConnectionState.LINGERING:
            return self._idle_from
        if self.request is not None:
            return _NEVER
        if self._buffer:
            return max(self._idle_from, self.deadline - self._server.limits.head_seconds)
        return self._idle_from

    def evict(self) -> None:
        """See `Evictable`. It no longer counts from now on."""
        self._state = ConnectionState.CLOSED
        self._server.unregister(self)
        self.transport.abort()

    def expire(self) -> None:
        """See `Client`."""
        self.deadline = _NEVER
        exchange, body = self._exchange, self._body
        if self._state is ConnectionState.LINGERING or self._flow.write_paused:
            self._abort_if_stalled()
        elif exchange is not None:
            if body.buffering_ends and self._server.now() >= body.buffering_ends:
                self._start_exchange(exchange)
            elif body.buffering_ends or (exchange.ready and self._awaits_body(exchange)):
                self._fail_exchange(408)
            else:
                exchange.on_timeout()
        elif self.request is None and self._buffer:
            self._join_pieces()
            self._reject(408, self._buffer)
        else:
            self._begin_lingering_close()
            self.transport.close()

    def check_rate(self, seconds: float) -> bool:
        """See `Client`."""
        exchange, flow, body = self._exchange, self._flow, self._body
        if self._state is ConnectionState.CLOSED or (exchange is not None and exchange.tunnel):
            return False
        if flow.has_minimum_rate():
            if flow.reads_fast_enough(seconds):
                return True
            self.transport.abort()
            return False
        if exchange is None or not body.is_timed():
            return False
        if not exchange.ready:
            return True
        body.count_rate()
        if not self._awaits_body(exchange) or body.arrives_fast_enough(seconds):
            return True
        self._fail_exchange(408)
        return False

    def close_idle(self) -> None:
        """See `Client`."""
        if self.request is not None or self._state is ConnectionState.LINGERING:
            return
        if self._buffer or not self._number:
            self.deadline = min(self.deadline, self._server.now() + LAST_REQUEST_SECONDS)
        else:
            self._begin_lingering_close()
            self.transport.close()

    # Request heads.

    def _advance(self) -> None:
        """Handles the received requests one after the other, as long as they are answered immediately."""
        if self._advancing or self._next_turn is not None:
            return
        self._advancing = True
        begun = 0
        try:
            while self.request is None and self._buffer and self._state is ConnectionState.OPEN:
                if begun >= REQUESTS_PER_TURN:
                    self._next_turn = asyncio.get_running_loop().call_soon(self._resume_turn)
                    break
                # Clients that send requests without reading the responses must not fill the memory with them.
                if self._flow.write_paused or not self._begin_request():
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
        self._number = server.count_request()
        request, self.cookies = found
        self.request = request
        self.response_started = False
        self._body.begin(request)
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
        self._number = self._server.count_request()
        headers, body = self._server.error_response(self, status, head, cause)
        start = b"HTTP/1.1 %b\r\n" % STATUS_LINES[status]
        length = b"Content-Length: %d\r\n" % len(body)
        if head.startswith(b"HEAD "):
            body = b""
        self.transport.write(
            b"".join((start, self._server.date_header(), headers, length, b"Connection: close\r\n\r\n", body))
        )
        self._begin_lingering_close()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    # The end.

    def _begin_lingering_close(self) -> None:
        """Stops writing, and discards all input until the connection is closed."""
        if self._state is ConnectionState.CLOSED:
            return
        self._state = ConnectionState.LINGERING
        self._buffer = b""
        self._partial = None
        self._idle_from = self._server.now()
        self.deadline = self._idle_from + LINGER_SECONDS
        self._flow.begin_lingering()

    def _abort_if_stalled(self) -> None:
        """Aborts the connection, unless the client has read some of the response, however slowly."""
        if self._flow.has_progressed():
            self.deadline = self._server.now() + self._server.limits.write_seconds
        else:
            self.transport.abort()
