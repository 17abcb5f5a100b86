"""Connections to the shop: one protocol per connection, and a pool that lends them to requests.

A pool never holds more than ``max_connections``; a request beyond that waits its turn for a short bounded time.
Requests without a pass hold at most the share of `upstream_share`. The newest idle connection is lent first, so that a
shop that closes idle connections closes those not needed. If the shop has several addresses, `balance` chooses the one
for each request.
"""

# mypyc: compile

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any, cast

import structlog

from waitroom.edge.http.head_cache import ResponseHeadCache
from waitroom.edge.upstream.balancer import Balance
from waitroom.edge.upstream.connector import Connector, UpstreamAddress, UpstreamUnavailable
from waitroom.edge.upstream.share import PoolShare, Waiter, Waiters
from waitroom.logs import RateLimitedLog
from waitroom.settings import RoomSettings

log = structlog.get_logger()

IDLE_SECONDS = 20.0  # under the 60 to 75 s after which most servers close


class Borrower(ABC):
    """The current user of a connection."""

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
    """One connection to the shop. Bytes go to its borrower; an idle one closes on any byte or on its end.

    Attributes:
        address: The address it is connected to.
        index: The address's number in the pool.
        began: When it was last lent, by the loop's clock.
        lent: Whether it counts as in flight.
        neighbourhood: The neighbourhood of the request without a pass that it is lent to; None if there is none.
        used: Whether it was lent before.
    """

    __slots__ = (
        *("_ended", "_pool", "address", "began", "borrower", "idle_since", "index", "lent", "neighbourhood"),
        *("transport", "used"),
    )

    transport: asyncio.Transport

    def __init__(self, pool: UpstreamPool, address: UpstreamAddress, index: int) -> None:
        self._pool = pool
        self._ended = False
        self.address = address
        self.index = index
        self.began = 0.0
        self.lent = False
        self.neighbourhood: str | None = None
        self.borrower: Borrower | None = None
        self.used = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The shop accepted the connection."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self.borrower is not None:
            self.borrower.upstream_data(data)
        else:
            self.transport.abort()

    def eof_received(self) -> bool:
        """The shop has closed its side; so do we."""
        self._ended = True
        if self.borrower is not None:
            self.borrower.upstream_closed(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._pool.forget(self)
        borrower, self.borrower = self.borrower, None
        if exc is None and self.address.tls and not self._ended:
            # Anything along the path can end a TCP connection; only the shop can say that its response ends here.
            exc = ConnectionResetError("the connection ended without the shop's goodbye")
        if borrower is not None:
            borrower.upstream_closed(exc)

    def pause_writing(self) -> None:
        """The shop can't take more for now."""
        if self.borrower is not None:
            self.borrower.upstream_writable(False)

    def resume_writing(self) -> None:
        """The shop takes bytes again."""
        if self.borrower is not None:
            self.borrower.upstream_writable(True)


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
        self.balance = Balance(len(addresses))
        self.heads = ResponseHeadCache()
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

    @classmethod
    def of(cls, room: RoomSettings) -> UpstreamPool:
        """The pool for a room's settings."""
        return cls(
            *(UpstreamAddress.parse(url) for url in room.upstreams),
            max_connections=room.upstream_max_connections,
            connect_seconds=room.upstream_connect_seconds,
            wait_seconds=room.upstream_wait_seconds,
            connector=Connector.of(room),
        )

    def __repr__(self) -> str:
        lent = len(self._all) - len(self._idle)
        held = f" without_pass={self._share.held}" if self._share.held else ""
        counts = f"lent={lent} idle={len(self._idle)} connecting={self._connecting} wait={self._waiters.count}"
        return f"<UpstreamPool {counts}{held}>"

    @property
    def in_flight(self) -> int:
        """How many connections are lent."""
        return len(self._all) - len(self._idle)

    @property
    def has_spare(self) -> bool:
        """Whether more than half of the connections are free, so that one may be lent for a long time."""
        return self.in_flight + self._connecting < self._max - self._max // 2

    def take_idle(self, has_pass: bool, neighbourhood: str) -> UpstreamConnection | None:
        """An idle connection to the address whose turn it is, or None. Doesn't wait.

        Args:
            has_pass: Whether the request is an admitted visitor's; others are limited to their share.
            neighbourhood: The neighbourhood of a request without a pass.
        """
        if not has_pass and not self._share.free(neighbourhood):
            return None
        idle, now = self._idle, self._loop.time()
        index = self.balance.pick(now)
        for at in range(len(idle) - 1, -1, -1):
            connection = idle[at]
            if connection.index == index:
                del idle[at]
                if not connection.transport.is_closing():
                    self._lend(connection, now, None if has_pass else neighbourhood)
                    return connection
        return None

    async def take(
        self, has_pass: bool, neighbourhood: str, *, fresh: bool = False, avoid: int = -1
    ) -> UpstreamConnection:
        """An idle connection or a new one; see `take_idle`. ``fresh``: always a new one.

        ``avoid`` is the number of an address that a new connection uses only if no other accepts one.

        If an address can't be connected to, others are tried: the second in any case, more of them within
        ``connect_seconds``.

        Raises:
            UpstreamUnavailable: No connection became available in time.
        """
        if not fresh and (idle := self.take_idle(has_pass, neighbourhood)) is not None:
            return idle
        holder = None if has_pass else neighbourhood
        if (holder is None or self._share.free(holder)) and self._has_slot():
            self._begin_connecting(holder)
        else:
            lent = await self._wait(holder)
            if lent is not None:
                if not fresh and not lent.transport.is_closing():
                    return lent
                self._replace(lent, holder)
            # Otherwise a slot became free rather than a connection; it is already counted for us.
        connection: UpstreamConnection | None = None
        try:
            connection = await self._connect(avoid)
            connection.neighbourhood = holder
            return connection
        finally:
            self._connecting -= 1
            if connection is None and holder is not None:
                self._share.release(holder)
            # After a failure the slot is free again, and a request may be waiting for it.
            self._offer_slot()

    def give_back(self, connection: UpstreamConnection, *, reusable: bool) -> None:
        """Ends a loan. A connection that can't be reused is closed immediately; the shop sees a cancellation."""
        connection.borrower = None
        self._unlend(connection)
        if not reusable or connection.transport.is_closing():
            self.forget(connection)
            connection.transport.abort()
            return
        connection.used = True
        if not connection.transport.is_reading():
            connection.transport.resume_reading()
        if self._waiters.count:
            waiter = self._waiters.next()
            if waiter is not None:
                self._lend(connection, self._loop.time(), waiter.neighbourhood)
                waiter.offer.set_result(connection)
                return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Removes a connection that has closed. Idempotent."""
        self._unlend(connection)
        if connection in self._all:
            self._all.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._offer_slot()

    def worked(self, connection: UpstreamConnection) -> None:
        """Records that the shop has begun a response on a lent connection."""
        if self.balance.worked(connection.index, connection.began):
            log.info("upstream address back", address=connection.address.url)

    def hung_up(self, connection: UpstreamConnection, neighbourhood: str, cause: str) -> None:
        """Records that the shop closed a new lent connection without a response to a neighbourhood's request."""
        now = self._loop.time()
        self._note_down(
            connection.index, self.balance.hung_up(connection.index, neighbourhood, connection.began, now), cause
        )

    def checked(self, index: int, fault: str) -> None:
        """Records the result of a health check; ``fault`` is the problem with the address, if any."""
        address = self.addresses[index].url
        if not self.balance.checked(index, self._loop.time(), well=not fault):
            return
        if fault:
            log.warning("upstream address ill", address=address, cause=fault)
        else:
            log.info("upstream address well again", address=address)

    def close_idle(self, now: float) -> None:
        """Closes the connections that have been unused for `IDLE_SECONDS`. ``now`` is the loop's time."""
        while self._idle and now - self._idle[0].idle_since >= IDLE_SECONDS:
            self._idle.pop(0).transport.close()

    def close(self) -> None:
        """Closes all connections and rejects waiting requests."""
        self._waiters.cancel()
        for connection in list(self._all):
            connection.transport.abort()

    def _note_down(self, index: int, seconds: float, cause: str) -> None:
        if seconds:
            address = self.addresses[index].url
            self.log.warning("upstream address down", address, address=address, seconds=seconds, cause=cause)

    def _lend(self, connection: UpstreamConnection, now: float, neighbourhood: str | None) -> None:
        connection.lent = True
        connection.began = now
        self.balance.begin(connection.index, now)
        if neighbourhood is not None:
            connection.neighbourhood = neighbourhood
            self._share.take(neighbourhood)

    def _unlend(self, connection: UpstreamConnection) -> None:
        if connection.lent:
            connection.lent = False
            self.balance.end(connection.index)
            if connection.neighbourhood is not None:
                self._share.release(connection.neighbourhood)
                connection.neighbourhood = None

    def _begin_connecting(self, neighbourhood: str | None) -> None:
        self._connecting += 1
        if neighbourhood is not None:
            self._share.take(neighbourhood)

    def _replace(self, connection: UpstreamConnection, holder: str | None) -> None:
        """Aborts a lent connection; its slot is for a new one that is being opened for the same request."""
        self._unlend(connection)
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

    def _offer_slot(self) -> None:
        while self._waiters.count and len(self._all) + self._connecting < self._max:
            waiter = self._waiters.next()
            if waiter is None:
                return
            self._begin_connecting(waiter.neighbourhood)
            waiter.offer.set_result(None)

    async def _wait(self, neighbourhood: str | None) -> UpstreamConnection | None:
        offer: asyncio.Future[Any] = self._loop.create_future()
        waiter = Waiter(neighbourhood, offer)
        if not self._waiters.add(waiter):
            raise UpstreamUnavailable("busy" if neighbourhood is None else "share", "too many requests wait already")
        try:
            async with asyncio.timeout(self._wait_seconds):
                return cast("UpstreamConnection | None", await offer)
        except BaseException as error:
            if offer.done() and not offer.cancelled():
                self._return_offer(waiter)
            self._waiters.remove(waiter)
            if not isinstance(error, TimeoutError):
                raise
            if neighbourhood is None:
                raise UpstreamUnavailable("busy", f"all {self._max} connections are in use") from error
            detail = f"the {self._share.most} connections for requests without a pass are in use"
            raise UpstreamUnavailable("share", detail) from error

    def _return_offer(self, waiter: Waiter) -> None:
        """Passes on the offer of a request that has gone."""
        offer: UpstreamConnection | None = waiter.offer.result()
        if offer is not None:
            self.give_back(offer, reusable=True)
            return
        self._connecting -= 1
        if waiter.neighbourhood is not None:
            self._share.release(waiter.neighbourhood)
        self._offer_slot()

    async def _connect(self, avoid: int) -> UpstreamConnection:
        tried: set[int] = set()
        ends = self._loop.time() + self._connect_seconds
        while True:
            now = self._loop.time()
            index = self.balance.pick(now, tried or {avoid})
            tried.add(index)
            try:
                return await self._connect_to(index, now)
            except UpstreamUnavailable as error:
                self._note_down(index, self.balance.failed(index, now, self._loop.time()), str(error))
                if len(tried) == len(self.addresses) or (len(tried) > 1 and self._loop.time() >= ends):
                    raise

    async def _connect_to(self, index: int, now: float) -> UpstreamConnection:
        address = self.addresses[index]
        self.balance.begin(index, now)
        try:
            connection = await self.connector.connect(address, lambda: UpstreamConnection(self, address, index))
        except BaseException:
            self.balance.end(index)
            raise
        connection.began = now
        connection.lent = True
        if connection.transport.is_closing():
            self._unlend(connection)
            raise UpstreamUnavailable("connect", f"{address.url}: it closed the connection at once")
        self._all.add(connection)
        return connection
