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
from waitroom.edge.http.headers import Peer
from waitroom.net.forwarded import plain_address
from waitroom.net.proxy_protocol import ProxyHeader, ProxyHeaderError

log = structlog.get_logger()

BACKLOG = 4096
MOST_AT_ONCE = 64  # connections accepted before other work gets its turn
MOST_PEEKED = 4096
BREATHER_SECONDS = 1.0  # pause after the system ran out of descriptors or memory
COMPLAINT_SECONDS = 60.0  # between two log lines about refused connections


class Arrival:
    """A connection that has been accepted and counted, and has not completed its handshake yet.

    Attributes:
        client: The client connection it will become.
        connection: The socket.
        has_pass: Whether it has shown a pass; always False.
        peer: The client as counted.
        task: The task that completes the handshake.
    """

    __slots__ = ("_since", "client", "connection", "has_pass", "peer", "task")

    def __init__(self, connection: socket.socket, peer: Peer, since: float) -> None:
        self._since = since
        self.client: ClientConnection | None = None
        self.connection = connection
        self.has_pass = False
        self.peer: Peer | None = peer
        self.task: asyncio.Task[None] | None = None

    def idle_since(self) -> float:
        """The time it was accepted."""
        return self._since

    def displace(self) -> None:
        """Closes it: another connection needs the slot."""
        self._since = float("inf")  # not twice
        if self.task is not None:
            self.task.cancel()


class Door:
    """Accepts connections on a listening socket and makes each a `ClientConnection` once its handshake is complete.

    A connection counts from the moment it is accepted, and has ``head_seconds`` for PROXY header and handshake
    together.

    Args:
        host: The worker.
        listener: A bound and listening socket, owned by the caller.
        context: The TLS context; None for plain HTTP.
        proxied: Whether connections begin with a PROXY header.
    """

    def __init__(self, host: Server, listener: socket.socket, context: ssl.SSLContext | None, *, proxied: bool) -> None:
        self._host = host
        self._listener = listener
        self._context = context
        self._proxied = proxied
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._closed = False
        self._resting: asyncio.TimerHandle | None = None
        self._next_alarm = 0.0
        self._next_complaint = 0.0
        self._refused = 0

    def open(self) -> None:
        """Starts to accept connections."""
        self._resting = None
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    async def close(self) -> None:
        """Stops accepting. Clients that have already connected, and need no handshake, are let in."""
        self._closed = True
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._listener)
        if self._context is None and not self._proxied:
            for _ in range(BACKLOG):
                if not self._accept_one():
                    break
        else:
            for task in self._arriving:
                task.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)

    def use(self, context: ssl.SSLContext) -> None:
        """Uses another certificate for new connections."""
        self._context = context

    def _accept(self) -> None:
        for _ in range(MOST_AT_ONCE):
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
            self._rest(error)
            return False
        connection.setblocking(False)
        peer = self._host.enter(str(name[0]) if name else "", tls=self._context is not None)
        if peer is None:
            connection.close()
            return True
        arrival = Arrival(connection, peer, self._host.now())
        arrival.task = task = self._loop.create_task(self._let_in(arrival))
        self._arriving.add(task)
        self._host.connections.arriving.add(arrival)
        task.add_done_callback(partial(self._arrived, arrival))
        return True

    def _rest(self, error: OSError) -> None:
        """Pauses accepting, and closes idle connections to free their descriptors."""
        now = self._loop.time()
        if now >= self._next_alarm:
            self._next_alarm = now + COMPLAINT_SECONDS
            log.error("can't accept connections for now", cause=error.strerror)
        self._host.shed(MOST_AT_ONCE)
        if not self._closed:
            self._loop.remove_reader(self._listener)
            self._resting = self._loop.call_later(BREATHER_SECONDS, self.open)

    def _arrived(self, arrival: Arrival, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        self._host.connections.arriving.discard(arrival)
        # Once connected, the client unregisters itself.
        if arrival.client is None or not arrival.client.connected:
            arrival.connection.close()
            if arrival.peer is not None:
                self._host.leave(arrival.peer)

    async def _let_in(self, arrival: Arrival) -> None:
        peer = arrival.peer
        assert peer is not None
        try:
            if self._context is None and not self._proxied:
                await self._connect(arrival, peer)
                return
            async with asyncio.timeout(self._host.limits.head_seconds):
                if self._proxied:
                    arrival.peer = await self._read_header(arrival.connection, peer)
                    self._host.leave(peer)
                if arrival.peer is not None:
                    await self._connect(arrival, arrival.peer)
        except ProxyHeaderError as error:
            self._complain(peer.address, str(error))
        except (OSError, TimeoutError) as error:
            # Mostly scanners and broken connections.
            cause = str(error) or type(error).__name__
            log.debug("a connection didn't come about", address=peer.address, cause=cause)

    async def _connect(self, arrival: Arrival, peer: Peer) -> None:
        host, context, connection = self._host, self._context, arrival.connection
        client = arrival.client = ClientConnection(host, peer)
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
        """The visitor named by a proxy's header. Raises `ProxyHeaderError`, `OSError`."""
        # The gateway's own probe comes from this machine and represents no visitor.
        own = plain_address(str(connection.getsockname()[0])) == peer.address
        if not own and not self._host.trusts(peer.address):
            raise ProxyHeaderError("not one of trusted_proxies")
        header = ProxyHeader()
        while not header.done:
            await self._readable(connection)
            with contextlib.suppress(BlockingIOError):
                # Not one byte beyond the header is read: the next bytes may be a handshake.
                seen = connection.recv(MOST_PEEKED, socket.MSG_PEEK)
                if not seen:
                    raise ConnectionResetError("closed before its PROXY header")
                connection.recv(header.feed(seen))
        if not self._host.trusts(peer.address) and not header.local:
            raise ProxyHeaderError("not one of trusted_proxies")
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
