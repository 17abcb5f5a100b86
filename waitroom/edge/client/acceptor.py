"""Accepts client connections: directly, or after the PROXY protocol header, the TLS handshake, or both.

asyncio's own server would do for plain HTTP, but not once file descriptors run out: it then closes waiting connections,
or retries without a pause and leaves no time for anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from functools import partial

import structlog

from waitroom.edge.client.connection import ClientConnection
from waitroom.edge.client.interfaces import Server
from waitroom.edge.client.pending import PendingConnection
from waitroom.edge.http.headers import Peer
from waitroom.net.forwarded import plain_address
from waitroom.net.proxy_protocol import ProxyHeader, ProxyHeaderError

log = structlog.get_logger()

BACKLOG = 4096
ACCEPTS_PER_TURN = 64  # connections accepted before other work gets its turn
PEEK_BYTES = 4096
ACCEPT_BACKOFF_SECONDS = 1.0  # pause after the system ran out of descriptors or memory
LOG_INTERVAL_SECONDS = 60.0  # between two log lines about refused connections


class Acceptor:
    """Accepts connections on a listening socket and makes each a `ClientConnection` once its handshake is complete.

    A connection counts from the moment it is accepted, and has ``head_seconds`` for PROXY header and handshake
    together.

    Args:
        server: The worker.
        listener: A bound and listening socket, owned by the caller.
        context: The TLS context; None for plain HTTP.
        proxied: Whether connections begin with a PROXY header.
    """

    def __init__(
        self, server: Server, listener: socket.socket, context: ssl.SSLContext | None, *, proxied: bool
    ) -> None:
        self._server = server
        self._listener = listener
        self._context = context
        self._proxied = proxied
        self._loop = asyncio.get_running_loop()
        self._setups: set[asyncio.Task[None]] = set()
        self._closed = False
        self._backoff: asyncio.TimerHandle | None = None
        self._next_error_log = 0.0
        self._next_refusal_log = 0.0
        self._refused = 0

    def open(self) -> None:
        """Starts to accept connections."""
        self._backoff = None
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    async def close(self) -> None:
        """Stops accepting. Clients that have already connected, and need no handshake, are let in."""
        self._closed = True
        if self._backoff is not None:
            self._backoff.cancel()
        self._loop.remove_reader(self._listener)
        if self._context is None and not self._proxied:
            for _ in range(BACKLOG):
                if not self._accept_one():
                    break
        else:
            for task in self._setups:
                task.cancel()
        await asyncio.gather(*self._setups, return_exceptions=True)

    def set_context(self, context: ssl.SSLContext) -> None:
        """Uses another certificate for new connections."""
        self._context = context

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Accepts a connection; False if none is waiting, or the system is out of resources."""
        try:
            connection, name = self._listener.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionAbortedError:
            return True
        except OSError as error:
            self._back_off(error)
            return False
        connection.setblocking(False)
        peer = self._server.acquire_slot(str(name[0]) if name else "", tls=self._context is not None)
        if peer is None:
            connection.close()
            return True
        pending = PendingConnection(connection, peer, self._server.now())
        pending.task = task = self._loop.create_task(self._set_up(pending))
        self._setups.add(task)
        self._server.connections.evictable.add(pending)
        task.add_done_callback(partial(self._setup_done, pending))
        return True

    def pause(self) -> None:
        """Accepts nothing for a moment, and closes idle connections to free their descriptors.

        During a pause one connection is closed for each call: every request that lacks a descriptor calls again and
        again, and shouldn't cost all others their connections.
        """
        paused = self._backoff is not None
        self._server.evict_idle(1 if paused else ACCEPTS_PER_TURN)
        if not self._closed and not paused:
            self._loop.remove_reader(self._listener)
            self._backoff = self._loop.call_later(ACCEPT_BACKOFF_SECONDS, self.open)

    def _back_off(self, error: OSError) -> None:
        now = self._loop.time()
        if now >= self._next_error_log:
            self._next_error_log = now + LOG_INTERVAL_SECONDS
            log.error("accept failed", cause=error.strerror)
        self.pause()

    def _setup_done(self, pending: PendingConnection, task: asyncio.Task[None]) -> None:
        self._setups.discard(task)
        self._server.connections.evictable.discard(pending)
        # Once connected, the client unregisters itself.
        if pending.client is None or not pending.client.connected:
            pending.connection.close()
            if pending.peer is not None:
                self._server.release_slot(pending.peer)

    async def _set_up(self, pending: PendingConnection) -> None:
        peer = pending.peer
        assert peer is not None
        try:
            if self._context is None and not self._proxied:
                await self._connect(pending, peer)
                return
            async with asyncio.timeout(self._server.limits.head_seconds):
                if self._proxied:
                    pending.peer = await self._read_header(pending.connection, peer)
                    self._server.release_slot(peer)
                if pending.peer is not None:
                    await self._connect(pending, pending.peer)
        except ProxyHeaderError as error:
            self._log_refused(peer.address, str(error))
        except (OSError, TimeoutError) as error:
            # Mostly scanners and broken connections.
            cause = str(error) or type(error).__name__
            log.debug("connection setup failed", address=peer.address, cause=cause)

    async def _connect(self, pending: PendingConnection, peer: Peer) -> None:
        server, context, connection = self._server, self._context, pending.connection
        client = ClientConnection(server, peer)
        pending.client = client
        if context is None:
            await self._loop.connect_accepted_socket(lambda: client, connection)
        else:
            await self._loop.connect_accepted_socket(
                lambda: client,
                connection,
                ssl=context,
                ssl_handshake_timeout=server.limits.head_seconds,
                ssl_shutdown_timeout=server.limits.write_seconds,
            )

    async def _read_header(self, connection: socket.socket, peer: Peer) -> Peer | None:
        """The visitor named by a proxy's header. Raises `ProxyHeaderError`, `OSError`."""
        # The gateway's own probe comes from this machine and represents no visitor.
        own = plain_address(str(connection.getsockname()[0])) == peer.address
        if not own and not self._server.is_trusted_proxy(peer.address):
            raise ProxyHeaderError("peer is not in trusted_proxies")
        header = ProxyHeader()
        while not header.done:
            await self._readable(connection)
            with contextlib.suppress(BlockingIOError):
                # Not one byte beyond the header is read: the next bytes may be a handshake.
                seen = connection.recv(PEEK_BYTES, socket.MSG_PEEK)
                if not seen:
                    raise ConnectionResetError("closed before the PROXY header")
                connection.recv(header.feed(seen))
        if not self._server.is_trusted_proxy(peer.address) and not header.local:
            raise ProxyHeaderError("peer is not in trusted_proxies")
        tls = self._context is not None
        if header.address is None:
            return self._server.acquire_slot(peer.address, tls=tls, vouched=False)
        return self._server.acquire_slot(header.address, tls=tls)

    async def _readable(self, connection: socket.socket) -> None:
        ready = self._loop.create_future()
        self._loop.add_reader(connection, _wake, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(connection)

    def _log_refused(self, address: str, cause: str) -> None:
        self._refused += 1
        now = self._loop.time()
        if now >= self._next_refusal_log:
            self._next_refusal_log = now + LOG_INTERVAL_SECONDS
            log.warning("connections refused", cause=cause, address=address, count=self._refused)
            self._refused = 0


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
