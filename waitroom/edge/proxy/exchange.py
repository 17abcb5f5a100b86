"""One request forwarded to the shop, and its response."""

# mypyc: compile

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from waitroom.budgets import neighbourhood
from waitroom.edge.client.interfaces import Client, ExchangeHandle
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.framing import (
    NO_BODY,
    Body,
    ChunkedBody,
    CloseBody,
    LengthBody,
    encode_chunk,
    encode_last_chunk,
)
from waitroom.edge.http.headers import forwarding_headers, request_headers, response_headers
from waitroom.edge.http.message import MalformedError, Request, Response, Trailers
from waitroom.edge.outcomes import ExchangeOutcome
from waitroom.edge.upstream.connector import UpstreamUnavailableError
from waitroom.edge.upstream.pool import UpstreamConnection, UpstreamPool

MAX_RESPONSE_HEAD_BYTES: Final = 65536
TUNNEL_IDLE_SECONDS: Final = 600.0
RETRY_AFTER_SECONDS: Final = 5
# May be sent twice without harm (RFC 9110, section 9.2.2), if they have no body.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


class FailureText:
    """A text that marks a failed request, searched for in the body of a response as it passes.

    Attributes:
        found: Whether it was found.
    """

    __slots__ = ("_tail", "_text", "found")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._tail = b""  # the end of the bytes so far, as much as may be the beginning of the text
        self.found = False

    def search(self, piece: bytes) -> None:
        """Searches the next piece of the body."""
        seen = self._tail + piece
        self.found = self.found or self._text in seen
        self._tail = seen[max(0, len(seen) - len(self._text) + 1) :]


class ExchangeHooks(ABC):
    """Hooks of an exchange: the headers for the shop, and the handling of its response.

    Attributes:
        has_pass: Whether it is an admitted visitor's request. Others may hold only a share of the pool's connections.
        neighbourhood: The visitor's neighbourhood, for a request without a pass; else empty.
        upstream_headers: Headers for the shop.
        cookie_headers: Headers for the client, which it needs even if the shop fails.
        first_byte_seconds: How long the shop may take to begin a response.
        idle_seconds: How long the shop may then be silent.
        failure_text: The text to search the response's body for, once the head has arrived; None for most.
    """

    __slots__ = ()

    has_pass: bool
    neighbourhood: str
    upstream_headers: HeaderBlock
    cookie_headers: HeaderBlock
    first_byte_seconds: float
    idle_seconds: float
    failure_text: FailureText | None

    @abstractmethod
    def set_buffering(self, buffering: bool) -> None:
        """Whether the request waits for its body, and isn't with the shop yet. Called only if it has to wait."""

    @abstractmethod
    def may_begin(self) -> bool:
        """Whether the request may still go to the shop. Called only after it has waited."""

    @abstractmethod
    def on_response(self, response: Response) -> tuple[HeaderBlock, bool]:
        """Handles the shop's head. Returns headers for the client, and whether caches must not store the response.

        Called at most once, also for a protocol change; never for an interim response.
        """

    @abstractmethod
    def on_end(self, outcome: ExchangeOutcome) -> None:
        """The exchange is over. Called exactly once.

        Args:
            outcome: ``ok``; ``failed``, by the shop; ``gone``, the client; ``idle``, if we ended a stream that had
                paused for too long; ``busy``, if a request got no connection for a reason that isn't the
                shop's; or the name of a refusal.
        """


class Exchange(ExchangeHandle):
    """Carries one request and its response, with back-pressure on both sides.

    The client's connection feeds the request's body in and takes the response's bytes; this object owns the upstream
    connection from the moment it has one until `_end`.
    """

    __slots__ = (
        *("_body", "_buffer", "_client", "_connection", "_ended", "_hooks", "_received", "_pool", "_request"),
        *("_response", "_retries", "_request_sent", "_to_client_chunked", "_to_upstream_chunked", "ready", "tunnel"),
    )

    def __init__(self, client: Client, request: Request, pool: UpstreamPool, hooks: ExchangeHooks) -> None:
        self._client = client
        self._request = request
        self._pool = pool
        self._hooks = hooks
        self._connection: UpstreamConnection | None = None
        self._buffer = b""
        self._received = False  # whether the shop has sent anything
        self._response: Response | None = None
        self._body: Body = NO_BODY
        self._to_upstream_chunked = request.chunked
        self._to_client_chunked = False
        self._request_sent = not request.has_body
        self._retries = 0
        self._ended = False
        self.ready = False  # whether the request's body may be sent
        self.tunnel = False

    @property
    def has_pass(self) -> bool:
        """See `ExchangeHandle`."""
        return self._hooks.has_pass

    @property
    def cookie_headers(self) -> HeaderBlock:
        """See `ExchangeHandle`."""
        return self._hooks.cookie_headers

    @property
    def may_stream(self) -> bool:
        """See `ExchangeHandle`."""
        return self._hooks.has_pass and self._pool.has_spare

    def set_buffering(self, buffering: bool) -> None:
        """See `ExchangeHandle`."""
        self._hooks.set_buffering(buffering)

    def refuse(self, outcome: ExchangeOutcome) -> None:
        """See `ExchangeHandle`."""
        self._hooks.set_buffering(True)
        self._end(outcome, reusable=False)

    def start(self) -> None:
        """Sends the request, immediately if a connection is idle."""
        hooks = self._hooks
        connection = self._pool.acquire_idle(hooks.has_pass, hooks.neighbourhood)
        if connection is not None:
            self._send_head(connection)
        else:
            self._client.spawn(self._connect())

    def start_after_buffering(self) -> None:
        """See `ExchangeHandle`."""
        if self._hooks.may_begin():
            self.start()
        else:
            self._reject_ended_session()

    def _reject_ended_session(self) -> None:
        self.refuse("session_ended")
        self._client.fail(503, b"%bRetry-After: %d\r\n" % (self._hooks.cookie_headers, RETRY_AFTER_SECONDS))

    async def _connect(self, *, fresh: bool = False, avoid: int = -1) -> None:
        hooks = self._hooks
        try:
            connection = await self._pool.acquire(hooks.has_pass, hooks.neighbourhood, fresh=fresh, avoid=avoid)
        except UpstreamUnavailableError as error:
            status = 502 if error.cause == "connect" else 503
            self._fail(status, error.cause, str(error), "busy" if error.cause in ("share", "files") else "failed")
            return
        if self._ended:
            self._pool.release(connection, reusable=True)
        elif not hooks.may_begin():
            self._pool.release(connection, reusable=True)
            self._reject_ended_session()
        else:
            self._send_head(connection)

    def _send_head(self, connection: UpstreamConnection) -> None:
        request, client = self._request, self._client
        self._connection = connection
        connection.listener = self
        headers = self._hooks.upstream_headers + forwarding_headers(request, client.peer)
        if request.chunked:
            headers += b"Transfer-Encoding: chunked\r\n"
        upgrade = request.upgrade
        if upgrade is not None:
            headers += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade
        if b"host" not in request.fields:
            headers = b"Host: %b\r\n%b" % (connection.address.authority, headers)
        forwarded = request_headers(request, client.cookies, client.peer)
        connection.transport.write(b"%b %b HTTP/1.1\r\n%b%b\r\n" % (request.method, request.target, forwarded, headers))
        if client.write_paused:
            connection.transport.pause_reading()
        client.set_deadline(self._hooks.first_byte_seconds)
        self.ready = True
        if request.has_body:
            client.forward_body()

    # The request's body, from the client.

    def send_body(self, pieces: list[bytes]) -> None:
        """See `ExchangeHandle`."""
        if self._connection is None or self._ended:
            return
        body = b"".join(pieces)
        if body:
            self._connection.transport.write(encode_chunk(body) if self._to_upstream_chunked else body)

    def end_body(self, trailers: Trailers) -> None:
        """See `ExchangeHandle`."""
        self._request_sent = True
        if self._connection is None or self._ended:
            return
        if self._to_upstream_chunked:
            self._connection.transport.write(encode_last_chunk(trailers))
        self._client.set_deadline(self._hooks.first_byte_seconds)

    # Data from the shop.

    def upstream_data(self, data: bytes) -> None:
        """See `UpstreamListener`."""
        client = self._client
        if self.tunnel:
            client.set_deadline(TUNNEL_IDLE_SECONDS)
            client.transport.write(data)
            return
        if self._response is not None:
            client.set_deadline(self._hooks.idle_seconds)
            self._relay_body(b"", data)
            return
        self._received = True
        self._buffer = self._buffer + data if self._buffer else data
        try:
            self._read_heads()
        except MalformedError as error:
            # A visitor can cause this, so it says nothing about the address.
            self._fail(502, "malformed", error.reason)

    def _read_heads(self) -> None:
        while self._response is None:
            end = self._buffer.find(b"\r\n\r\n", 0, MAX_RESPONSE_HEAD_BYTES)
            if end < 0:
                if len(self._buffer) >= MAX_RESPONSE_HEAD_BYTES:
                    raise MalformedError(502, "response head too long")
                return
            head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            response, date = self._pool.response_heads.parse(head)
            if self._connection is not None:
                self._pool.record_success(self._connection)
            if response.status == 101:
                self._open_tunnel(response, date)
                return
            if response.status >= 200:
                self._start_response(response, date)
            elif response.status != 100 and not self._request.http10:
                # We have already sent 100. Others, such as 103, are for the client.
                self._client.transport.write(_head(response, date, b""))

    def _start_response(self, response: Response, date: HeaderBlock) -> None:
        request, client = self._request, self._client
        self._response = response
        client.set_deadline(self._hooks.idle_seconds)
        headers, private = self._hooks.on_response(response)
        if request.method == b"HEAD" or response.bodiless:
            self._body = NO_BODY
        elif response.content_length is not None:
            self._body = LengthBody(response.content_length)
        else:
            self._body = ChunkedBody(502) if response.chunked else CloseBody()
            if request.http10:
                client.close_after_response()
            else:
                self._to_client_chunked = True
                headers += b"Transfer-Encoding: chunked\r\n"
        if not response.dated:
            headers += client.date_header()  # RFC 9110, section 6.6.1
        head = _head(response, date, headers + client.connection_header(), private=private)
        data, self._buffer = self._buffer, b""
        self._relay_body(head, data)

    def _relay_body(self, head: bytes, data: bytes) -> None:
        """Writes the received part of the body, after the head if it hasn't been written yet."""
        try:
            pieces, rest = self._body.feed(data) if data and not self._body.done else ([], data)
        except MalformedError as error:
            # Once the head is sent, the only option is to abort, so that the client sees that the body is cut.
            self._fail(502, "malformed", error.reason)
            return
        self._client.response_started = True
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        text = self._hooks.failure_text
        if text is not None:
            text.search(body)
        if self._to_client_chunked:
            body = (encode_chunk(body) if body else b"") + (
                encode_last_chunk(self._body.trailers) if self._body.done else b""
            )
        if head or body:
            self._client.transport.write(head + body)
        if self._body.done:
            self._complete(clean=not rest)

    def _complete(self, *, clean: bool) -> None:
        response = self._response
        assert response is not None
        framed = not isinstance(self._body, CloseBody)
        reusable = clean and framed and response.keep_alive and self._request_sent and self._request_flushed()
        self._end("ok", reusable=reusable)
        self._client.finish()

    def _request_flushed(self) -> bool:
        """Whether the shop has taken the whole request, so that another one may follow it."""
        return self._connection is not None and not self._connection.transport.get_write_buffer_size()

    def _open_tunnel(self, response: Response, date: HeaderBlock) -> None:
        if self._request.upgrade is None:
            raise MalformedError(502, "unrequested protocol upgrade")
        self.tunnel = True
        client = self._client
        headers, _ = self._hooks.on_response(response)
        upgrade = b"".join(field.value for field in response.headers if field.lower == b"upgrade")
        headers += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade
        client.transport.write(_head(response, date, headers))
        client.set_deadline(TUNNEL_IDLE_SECONDS)
        client.response_started = True
        early, self._buffer = self._buffer, b""
        if early:
            client.transport.write(early)
        client.forward_body()

    def tunnel_data(self, data: bytes) -> None:
        """See `ExchangeHandle`."""
        if self._connection is not None:
            self._client.set_deadline(TUNNEL_IDLE_SECONDS)
            self._connection.transport.write(data)

    def upstream_closed(self, error: Exception | None) -> None:
        """See `UpstreamListener`."""
        connection = self._connection
        if self._ended or connection is None:
            return
        if self.tunnel:
            self._end("ok", reusable=False)
            self._client.close()
        elif self._response is not None and isinstance(self._body, CloseBody) and error is None:
            self._body.done = True
            self._relay_body(b"", b"")
        else:
            cause = "connection closed by the shop" if error is None else str(error)
            if self._response is None and not connection.reused:
                self._pool.record_disconnect(connection, neighbourhood(self._client.visitor), cause)
            if self._may_retry(connection):
                self._retries += 1
                self._release(reusable=False)
                avoid = -1 if connection.reused else connection.index
                self._client.spawn(self._connect(fresh=True, avoid=avoid))
            else:
                self._fail(502, "closed", cause)

    def _may_retry(self, connection: UpstreamConnection) -> bool:
        """Whether to retry: only an idempotent request, and only before any part of a response has arrived.

        Once if the shop closed an idle connection as we reused it; once more if it has another address.
        """
        request, others = self._request, len(self._pool.addresses) > 1
        unanswered = self._response is None and not self._received
        left = self._retries < (2 if others else 1) and (connection.reused or others)
        return unanswered and left and request.method in IDEMPOTENT and not request.has_body

    # Flow control.

    def upstream_writable(self, writable: bool) -> None:
        """See `UpstreamListener`."""
        self._client.set_read_interest(writable)

    def client_writable(self, writable: bool) -> None:
        """See `ExchangeHandle`."""
        if self._connection is None or self._connection.transport.is_closing():
            return
        if writable:
            self._connection.transport.resume_reading()
            self._client.set_deadline(TUNNEL_IDLE_SECONDS if self.tunnel else self._hooks.idle_seconds)
        else:
            self._connection.transport.pause_reading()

    # The end.

    def on_timeout(self) -> None:
        """The shop, or both sides of a tunnel, were silent for too long."""
        if self.tunnel:
            self._end("idle", reusable=False)
            self._client.close()
        elif self._response is not None:
            # The response is cut short, and must not look complete.
            self._fail(504, "idle", "idle timeout within the response", "idle")
        else:
            self._fail(504, "timeout", "response timeout")

    def abort(self) -> None:
        """The client has gone: the shop doesn't need to finish."""
        self._end("gone" if not self.tunnel else "ok", reusable=False)

    def _fail(self, status: int, kind: str, cause: str, outcome: ExchangeOutcome = "failed") -> None:
        if self._ended:
            return
        self._end(outcome, reusable=False)
        client = self._client
        request_id, address = client.request_id, client.visitor
        self._pool.log.warning(
            "upstream failed", kind, cause=cause, status=status, request_id=request_id, address=address
        )
        headers = self._hooks.cookie_headers
        if status == 503:
            headers += b"Retry-After: %d\r\n" % RETRY_AFTER_SECONDS
        client.fail(status, headers)

    def _end(self, outcome: ExchangeOutcome, *, reusable: bool) -> None:
        if self._ended:
            return
        self._ended = True
        self._release(reusable=reusable)
        self._hooks.on_end(outcome)

    def _release(self, *, reusable: bool) -> None:
        connection, self._connection = self._connection, None
        self.ready = False
        if connection is not None:
            self._pool.release(connection, reusable=reusable)


def _head(response: Response, date: HeaderBlock, headers: HeaderBlock, *, private: bool = False) -> bytes:
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (
        response.status,
        response.reason,
        response_headers(response, date, private=private),
        headers,
    )
