"""The admin listener's server: aiohttp's, with limits on connections and heads, which aiohttp lacks."""

from __future__ import annotations

import asyncio
import socket

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from waitroom.budgets import neighbourhood
from waitroom.control.connections import Connections
from waitroom.logs import RateLimitedLog
from waitroom.net.forwarded import TrustedProxies, plain_address

log = structlog.get_logger()

BACKLOG = 128
MOST_CONNECTIONS = 256
MOST_CONNECTIONS_EACH = 64  # of one neighbourhood, unless it is a trusted proxy
HEAD_SECONDS = 10.0  # from the connection, or from the first byte of a later head
IDLE_SECONDS = 75.0
# Also sent by the few responses that aiohttp makes before our code sees the request.
_SERVER = "waitroom"


class AdminListener:
    """Serves an application on a socket.

    Args:
        app: The application.
        trusted: The proxies that may have any number of connections.
        shutdown_seconds: How long requests in progress may take when it stops.
    """

    def __init__(self, app: web.Application, trusted: TrustedProxies, *, shutdown_seconds: float) -> None:
        app.middlewares.insert(0, _mark_requests)
        self._trusted = trusted
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_seconds)
        self._server: asyncio.Server | None = None
        self._log = RateLimitedLog(log)
        self.connections = Connections[_Connection](MOST_CONNECTIONS, MOST_CONNECTIONS_EACH)

    async def start(self, listener: socket.socket) -> None:
        """Starts to accept connections on a bound socket."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, sock=listener, backlog=BACKLOG)

    async def stop(self) -> None:
        """Stops accepting, lets requests in progress finish, and closes all connections."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def admit(self, connection: _Connection, address: str) -> None:
        """Counts a new connection, and closes one if there are too many."""
        here = "" if address in self._trusted else neighbourhood(address)
        closed = self.connections.add(connection, here, asyncio.get_running_loop().time())
        if closed is not None:
            closed.drop()
            if closed is connection:
                self._log.warning("admin connection refused: too many", address=address)

    def _connection(self) -> _Connection:
        server = self._runner.server
        assert server is not None
        return _Connection(self, server, asyncio.get_running_loop())


class _Connection(web.RequestHandler):
    """One connection, with a deadline for whatever the client has to do next."""

    __slots__ = ("_awaits_head", "_event_loop", "_listener", "_timer")

    def __init__(self, listener: AdminListener, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, keepalive_timeout=2 * IDLE_SECONDS, access_log=None)  # type: ignore[arg-type]
        self._listener = listener
        self._event_loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._awaits_head = False  # whether the next byte begins a head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._set_deadline(HEAD_SECONDS)
        peer = transport.get_extra_info("peername")
        self._listener.admit(self, plain_address(str(peer[0])) or "" if peer else "")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._set_deadline(None)
        self._listener.connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._awaits_head:
            self._awaits_head = False
            self._set_deadline(HEAD_SECONDS)
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what aiohttp could not parse, or what has failed. Strangers can't fill the log by the former."""
        if status == 400:
            response: web.StreamResponse = web.Response(status=status, text="The request is malformed.\n")
            response.force_close()
        else:
            response = super().handle_error(request, status, exc, message)
        response.headers["Server"] = _SERVER
        return response

    def begin_request(self) -> None:
        """A head has arrived: handlers have deadlines of their own."""
        self._awaits_head = False
        self._set_deadline(None)
        self._listener.connections.mark_busy(self)

    def end_request(self) -> None:
        """A request has been handled; its response may still be on its way."""
        self._awaits_head = True
        self._set_deadline(IDLE_SECONDS)
        self._listener.connections.mark_idle(self, self._event_loop.time())

    def drop(self) -> None:
        """Closes the connection, whatever is on its way."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()

    def _set_deadline(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._event_loop.call_later(seconds, self.drop)


@web.middleware
async def _mark_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    connection = request.protocol
    if not isinstance(connection, _Connection):
        return await handler(request)
    connection.begin_request()
    try:
        return await handler(request)
    finally:
        connection.end_request()
