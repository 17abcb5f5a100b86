"""Lets clients in where more is needed than to accept a connection: the PROXY protocol's header, TLS, or both."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import structlog

from waitroom.edge.client import ClientConnection
from waitroom.edge.forwarded import plain_address
from waitroom.edge.headers import Peer
from waitroom.edge.proxy_protocol import BadHeader, ProxyHeader
from waitroom.edge.server import Server

log = structlog.get_logger()

MOST_AT_ONCE = 64  # connections accepted before other work gets its turn
MOST_PEEKED = 4096
BREATHER_SECONDS = 1.0  # after the system had no descriptor or memory left
COMPLAINT_SECONDS = 60.0  # between two log lines about refused connections


class Door:
    """Accepts connections on a listening socket and makes each a `ClientConnection`, once it has shown its papers.

    A connection counts from when it is accepted, and has ``head_seconds`` for PROXY header and handshake together.

    Args:
        host: The worker.
        listener: Bound and listening; stays the caller's.
        context: For TLS; None for plain HTTP.
        proxied: Whether connections begin with a PROXY header.
    """

    def __init__(self, host: Server, listener: socket.socket, context: ssl.SSLContext | None, *, proxied: bool) -> None:
        self._host = host
        self._listener = listener
        self._context = context
        self._proxied = proxied
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None
        self._next_complaint = 0.0
        self._refused = 0

    def open(self) -> None:
        """Begins to accept."""
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    async def close(self) -> None:
        """Accepts no more; who is still at the door is turned away."""
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._listener)
        for task in self._arriving:
            task.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)

    def use(self, context: ssl.SSLContext) -> None:
        """Takes another certificate for whoever comes from now on."""
        self._context = context

    def _accept(self) -> None:
        for _ in range(MOST_AT_ONCE):
            try:
                connection, name = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("can't accept connections for now", cause=error.strerror)
                self._loop.remove_reader(self._listener)
                self._resting = self._loop.call_later(BREATHER_SECONDS, self.open)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._let_in(connection, str(name[0])))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _let_in(self, connection: socket.socket, address: str) -> None:
        peer = self._host.enter(address, tls=self._context is not None)
        if peer is None:
            connection.close()
            return
        client: ClientConnection | None = None
        try:
            async with asyncio.timeout(self._host.limits.head_seconds):
                if self._proxied:
                    visitor = await self._read_header(connection, peer)
                    self._host.leave(peer)
                    peer = visitor
                    if peer is None:
                        return
                client = ClientConnection(self._host, peer)
                await self._connect(connection, client)
        except BadHeader as error:
            self._complain(address, str(error))
        except (OSError, TimeoutError) as error:
            # Scanners and broken lines, mostly.
            log.debug("a connection didn't come about", address=address, cause=str(error) or type(error).__name__)
        finally:
            # From when it is connected on, the client counts itself out.
            if client is None or not client.connected:
                connection.close()
                if peer is not None:
                    self._host.leave(peer)

    async def _connect(self, connection: socket.socket, client: ClientConnection) -> None:
        host, context = self._host, self._context
        if context is None:
            await self._loop.connect_accepted_socket(lambda: client, connection)
        else:
            await self._loop.connect_accepted_socket(
                lambda: client,
                connection,
                ssl=context,
                ssl_handshake_timeout=host.limits.head_seconds,
                ssl_shutdown_timeout=host.limits.write_seconds,
            )

    async def _read_header(self, connection: socket.socket, peer: Peer) -> Peer | None:
        """The visitor that a proxy's header tells of. Raises `BadHeader`, `OSError`."""
        # The gateway's own probe comes from this machine and speaks for nobody.
        own = plain_address(str(connection.getsockname()[0])) == peer.address
        if not own and not self._host.trusts(peer.address):
            raise BadHeader("not one of trusted_proxies")
        header = ProxyHeader()
        while not header.done:
            await self._readable(connection)
            with contextlib.suppress(BlockingIOError):
                # Not one byte more than the header is taken: what follows may be a handshake.
                seen = connection.recv(MOST_PEEKED, socket.MSG_PEEK)
                if not seen:
                    raise ConnectionResetError("closed before its PROXY header")
                connection.recv(header.feed(seen))
        if not self._host.trusts(peer.address) and not header.local:
            raise BadHeader("not one of trusted_proxies")
        tls = self._context is not None
        if header.address is None:
            return self._host.enter(peer.address, tls=tls, vouched=False)
        return self._host.enter(header.address, tls=tls)

    async def _readable(self, connection: socket.socket) -> None:
        ready = self._loop.create_future()
        self._loop.add_reader(connection, _wake, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(connection)

    def _complain(self, address: str, cause: str) -> None:
        self._refused += 1
        now = self._loop.time()
        if now >= self._next_complaint:
            self._next_complaint = now + COMPLAINT_SECONDS
            log.warning("connections refused", cause=cause, address=address, count=self._refused)
            self._refused = 0


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
