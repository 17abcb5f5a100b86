"""Connections to the shop: one protocol per connection, and a pool from which requests acquire them.

A pool never holds more than ``max_connections``; a request beyond that waits its turn for a short bounded time.
Requests without a pass hold at most the share of `upstream_share`. The newest idle connection is reused first, so that
a shop that closes idle connections closes those not needed. If the shop has several addresses, `balancer` chooses the
one for each request.
"""

# mypyc: compile

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

import structlog

from waitroom.edge.http.head_cache import ResponseHeadCache
from waitroom.edge.upstream.balancer import Balancer
from waitroom.edge.upstream.connector import Connector, UpstreamAddress, UpstreamUnavailableError
from waitroom.edge.upstream.share import PoolShare, Waiter, Waiters
from waitroom.logs import RateLimitedLog
from waitroom.settings import RoomSettings

log = structlog.get_logger()

OUT_OF_FILES_RETRY_SECONDS = 0.1
IDLE_SECONDS = 20.0  # under the 60 to 75 s after which most servers close


class UpstreamListener(ABC):
    """The current user of a connection; gets its events."""

    __slots__ = ()

    @abstractmethod
    def upstream_data(self, data: bytes) -> None:
        """Bytes arrived from the shop."""

    @abstractmethod
    def upstream_closed(self, error: Exception | None) -> None:
        """The shop closed its side, or the connection broke."""

    @abstractmethod
    def upstream_writable(self, writable: bool) -> None:
        """The shop takes more bytes, or can't for now."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to the shop. Bytes go to its listener; an idle one closes on any byte or on its end.

    Attributes:
        address: The address it is connected to.
        index: The address's number in the pool.
        acquired_at: When it was last acquired, by the loop's clock.
        in_use: Whether it counts as in flight.
        neighbourhood: The neighbourhood of the request without a pass that uses it; None if there is none.
        reused: Whether it was acquired before.
    """

    __slots__ = (
        *("_ended", "_pool", "address", "acquired_at", "listener", "idle_since", "index", "in_use", "neighbourhood"),
        *("transport", "reused"),
    )

    transport: asyncio.Transport

    def __init__(self, pool: UpstreamPool, address: UpstreamAddress, index: int) -> None:
        self._pool = pool
        self._ended = False
        self.address = address
        self.index = index
        self.acquired_at = 0.0
        self.in_use = False
        self.neighbourhood: str | None = None
        self.listener: UpstreamListener | None = None
        self.reused = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The shop accepted the connection."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self.listener is not None:
            self.listener.upstream_data(data)
        else:
            self.transport.abort()

    def eof_received(self) -> bool:
        """The shop has closed its side; so do we."""
        self._ended = True
        if self.listener is not None:
            self.listener.upstream_closed(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._pool.discard(self)
        listener, self.listener = self.listener, None
        if exc is None and self.address.tls and not self._ended:
            # Anything along the path can end a TCP connection; only the shop can say that its response ends here.
            exc = ConnectionResetError("connection closed without a TLS close_notify")
        if listener is not None:
            listener.upstream_closed(exc)

    def pause_writing(self) -> None:
        """The shop can't take more for now."""
        if self.listener is not None:
            self.listener.upstream_writable(False)

    def resume_writing(self) -> None:
        """The shop takes bytes again."""
        if self.listener is not None:
            self.listener.upstream_writable(True)


class UpstreamPool:
    """The connections of one worker to one shop.

    Args:
        addresses: The shop's addresses.
        max_connections: The maximum number of open connections, to all addresses together.
        connect_seconds: The timeout for connecting.
        wait_seconds: How long a request may wait for a connection while all are in use.
        connector: Opens connections; None for one without TLS.

    Attributes:
        log: The log for events that requests and the shop can cause any number of times.
        on_out_of_files: Called when there is no file descriptor for a new connection, to free some.
    """

    def __init__(
        self,
        *addresses: UpstreamAddress,
        max_connections: int,
        connect_seconds: float,
        wait_seconds: float,
        connector: Connector | None = None,
    ) -> None:
        self.addresses = addresses
        self.balancer = Balancer(len(addresses))
        self.response_heads = ResponseHeadCache()
        self.connector = connector or Connector(connect_seconds)
        self._loop = asyncio.get_running_loop()
        self._max = max_connections
        self._connect_seconds = connect_seconds
        self._wait_seconds = wait_seconds
        self._idle: list[UpstreamConnection] = []
        self._all: set[UpstreamConnection] = set()
        self._connecting = 0
        self._share = PoolShare(max_connections)
        self._waiters = Waiters(self._share, max_connections)
        self.log = RateLimitedLog(log, self._loop.time)
        self.on_out_of_files: Callable[[], None] | None = None

    @classmethod
    def from_settings(cls, room: RoomSettings) -> UpstreamPool:
        """The pool for a room's settings."""
        return cls(
            *(UpstreamAddress.parse(url) for url in room.upstreams),
            max_connections=room.upstream_max_connections,
            connect_seconds=room.upstream_connect_seconds,
            wait_seconds=room.upstream_wait_seconds,
            connector=Connector.from_settings(room),
        )

    def __repr__(self) -> str:
        held = f" without_pass={self._share.held}" if self._share.held else ""
        counts = (
            f"in_use={self.in_flight} idle={len(self._idle)} connecting={self._connecting} wait={self._waiters.count}"
        )
        return f"<UpstreamPool {counts}{held}>"

    @property
    def in_flight(self) -> int:
        """How many connections are in use."""
        return len(self._all) - len(self._idle)

    @property
    def has_spare(self) -> bool:
        """Whether more than half of the connections are free, so that one may be used for a long time."""
        return self.in_flight + self._connecting < self._max - self._max // 2

    def acquire_idle(self, has_pass: bool, neighbourhood: str) -> UpstreamConnection | None:
        """An idle connection to the address whose turn it is, or None. Doesn't wait.

        Args:
            has_pass: Whether the request is an admitted visitor's; others are limited to their share.
            neighbourhood: The neighbourhood of a request without a pass.
        """
        if not has_pass and not self._share.has_room(neighbourhood):
            return None
        idle, now = self._idle, self._loop.time()
        index = self.balancer.pick(now)
        for at in range(len(idle) - 1, -1, -1):
            connection = idle[at]
            if connection.index == index:
                del idle[at]
                if not connection.transport.is_closing():
                    self._assign(connection, now, None if has_pass else neighbourhood)
                    return connection
        return None

    async def acquire(
        self, has_pass: bool, neighbourhood: str, *, fresh: bool = False, avoid: int = -1
    ) -> UpstreamConnection:
        """An idle connection or a new one; see `acquire_idle`. ``fresh``: always a new one.

        ``avoid`` is the number of an address that a new connection uses only if no other accepts one.

        If an address can't be connected to, others are tried: the second in any case, more of them within
        ``connect_seconds``.

        Raises:
            UpstreamUnavailableError: No connection became available in time.
        """
        if not fresh and (idle := self.acquire_idle(has_pass, neighbourhood)) is not None:
            return idle
        holder = None if has_pass else neighbourhood
        if (holder is None or self._share.has_room(holder)) and self._has_slot():
            self._begin_connecting(holder)
        else:
            granted = await self._wait(holder)
            if granted is not None:
                if not fresh and not granted.transport.is_closing():
                    return granted
                self._replace(granted, holder)
            # Otherwise a slot became free rather than a connection; it is already counted for us.
        connection: UpstreamConnection | None = None
        try:
            connection = await self._connect_when_possible(avoid, fresh=fresh)
            connection.neighbourhood = holder
            return connection
        finally:
            self._connecting -= 1
            if connection is None and holder is not None:
                self._share.release(holder)
            # After a failure the slot is free again, and a request may be waiting for it.
            self._grant_slot()

    def release(self, connection: UpstreamConnection, *, reusable: bool) -> None:
        """Takes a connection back. One that can't be reused is closed immediately; the shop sees a cancellation."""
        connection.listener = None
        self._unassign(connection)
        if not reusable or connection.transport.is_closing():
            self.discard(connection)
            connection.transport.abort()
            return
        connection.reused = True
        if not connection.transport.is_reading():
            connection.transport.resume_reading()
        if self._waiters.count:
            waiter = self._waiters.next()
            if waiter is not None:
                self._assign(connection, self._loop.time(), waiter.neighbourhood)
                waiter.grant.set_result(connection)
                return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def discard(self, connection: UpstreamConnection) -> None:
        """Removes a connection that has closed. Idempotent."""
        self._unassign(connection)
        if connection in self._all:
            self._all.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._grant_slot()

    def record_success(self, connection: UpstreamConnection) -> None:
        """Records that the shop has begun a response on a connection in use."""
        if self.balancer.record_success(connection.index, connection.acquired_at):
            log.info("upstream up", address=connection.address.url)

    def record_disconnect(self, connection: UpstreamConnection, neighbourhood: str, cause: str) -> None:
        """Records that the shop closed a new connection without a response to a neighbourhood's request."""
        now = self._loop.time()
        index = connection.index
        seconds = self.balancer.record_disconnect(index, neighbourhood, connection.acquired_at, now)
        self._log_down(index, seconds, cause)

    def record_health_check(self, index: int, fault: str) -> None:
        """Records the result of a health check; ``fault`` is the problem with the address, if any."""
        address = self.addresses[index].url
        if not self.balancer.record_health_check(index, self._loop.time(), healthy=not fault):
            return
        if fault:
            log.warning("upstream unhealthy", address=address, cause=fault)
        else:
            log.info("upstream healthy", address=address)

    def close_idle(self, now: float) -> None:
        """Closes the connections that have been unused for `IDLE_SECONDS`. ``now`` is the loop's time."""
        while self._idle and now - self._idle[0].idle_since >= IDLE_SECONDS:
            self._idle.pop(0).transport.close()

    def close(self) -> None:
        """Closes all connections and rejects waiting requests."""
        self._waiters.cancel()
        for connection in list(self._all):
            connection.transport.abort()

    def _log_down(self, index: int, seconds: float, cause: str) -> None:
        if seconds:
            address = self.addresses[index].url
            self.log.warning("upstream down", address, address=address, seconds=seconds, cause=cause)

    def _assign(self, connection: UpstreamConnection, now: float, neighbourhood: str | None) -> None:
        connection.in_use = True
        connection.acquired_at = now
        self.balancer.begin(connection.index, now)
        if neighbourhood is not None:
            connection.neighbourhood = neighbourhood
            self._share.acquire(neighbourhood)

    def _unassign(self, connection: UpstreamConnection) -> None:
        if connection.in_use:
            connection.in_use = False
            self.balancer.end(connection.index)
            if connection.neighbourhood is not None:
                self._share.release(connection.neighbourhood)
                connection.neighbourhood = None

    def _begin_connecting(self, neighbourhood: str | None) -> None:
        self._connecting += 1
        if neighbourhood is not None:
            self._share.acquire(neighbourhood)

    def _replace(self, connection: UpstreamConnection, holder: str | None) -> None:
        """Aborts a granted connection; its slot is for a new one that is being opened for the same request."""
        self._unassign(connection)
        self._all.discard(connection)
        self._begin_connecting(holder)
        connection.transport.abort()

    def _has_slot(self) -> bool:
        return len(self._all) + self._connecting < self._max or self._drop_idle()

    def _drop_idle(self) -> bool:
        if not self._idle:
            return False
        connection = self._idle.pop(0)
        self._all.discard(connection)
        connection.transport.abort()
        return True

    def _grant_slot(self) -> None:
        while self._waiters.count and len(self._all) + self._connecting < self._max:
            waiter = self._waiters.next()
            if waiter is None:
                return
            self._begin_connecting(waiter.neighbourhood)
            waiter.grant.set_result(None)

    async def _wait(self, neighbourhood: str | None) -> UpstreamConnection | None:
        grant: asyncio.Future[Any] = self._loop.create_future()
        waiter = Waiter(neighbourhood, grant)
        if not self._waiters.add(waiter):
            raise UpstreamUnavailableError("busy" if neighbourhood is None else "share", "too many waiting requests")
        try:
            async with asyncio.timeout(self._wait_seconds):
                return cast("UpstreamConnection | None", await grant)
        except BaseException as error:
            if grant.done() and not grant.cancelled():
                self._return_grant(waiter)
            self._waiters.remove(waiter)
            if not isinstance(error, TimeoutError):
                raise
            if neighbourhood is None:
                raise UpstreamUnavailableError("busy", f"all {self._max} connections are in use") from error
            detail = f"the {self._share.most} connections for requests without a pass are in use"
            raise UpstreamUnavailableError("share", detail) from error

    def _return_grant(self, waiter: Waiter) -> None:
        """Passes on what was granted to a request that has gone."""
        grant: UpstreamConnection | None = waiter.grant.result()
        if grant is not None:
            self.release(grant, reusable=True)
            return
        self._connecting -= 1
        if waiter.neighbourhood is not None:
            self._share.release(waiter.neighbourhood)
        self._grant_slot()

    async def _connect_when_possible(self, avoid: int, *, fresh: bool) -> UpstreamConnection:
        """A new connection. Without file descriptors for one, it waits like for a connection of a full pool."""
        ends = self._loop.time() + self._wait_seconds
        while True:
            try:
                return await self._connect(avoid)
            except UpstreamUnavailableError as error:
                if error.cause != "files":
                    raise
                self.log.warning("out of file descriptors", "files", cause=str(error))
                if self._loop.time() >= ends:
                    raise
            if self.on_out_of_files is not None:
                self.on_out_of_files()
            await asyncio.sleep(OUT_OF_FILES_RETRY_SECONDS)
            if self._idle and not fresh:
                connection = self._idle.pop()
                if not connection.transport.is_closing():
                    self._assign(connection, self._loop.time(), None)
                    return connection

    async def _connect(self, avoid: int) -> UpstreamConnection:
        tried: set[int] = set()
        ends = self._loop.time() + self._connect_seconds
        while True:
            now = self._loop.time()
            index = self.balancer.pick(now, tried or {avoid})
            tried.add(index)
            try:
                return await self._connect_to(index, now)
            except UpstreamUnavailableError as error:
                if error.cause == "files":
                    raise
                self._log_down(index, self.balancer.record_failure(index, now, self._loop.time()), str(error))
                if len(tried) == len(self.addresses) or (len(tried) > 1 and self._loop.time() >= ends):
                    raise

    async def _connect_to(self, index: int, now: float) -> UpstreamConnection:
        address = self.addresses[index]
        self.balancer.begin(index, now)
        try:
            connection = await self.connector.connect(address, lambda: UpstreamConnection(self, address, index))
        except BaseException:
            self.balancer.end(index)
            raise
        connection.acquired_at = now
        connection.in_use = True
        if connection.transport.is_closing():
            self._unassign(connection)
            raise UpstreamUnavailableError("connect", f"{address.url}: connection closed immediately")
        self._all.add(connection)
        return connection
