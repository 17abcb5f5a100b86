"""Connections to the shop: one protocol a connection, and a pool that lends them out.

A pool never holds more than ``max_connections``; a request beyond that waits its turn for a short bounded time. The
newest idle connection is lent first, so that a shop that closes idle ones closes those nobody needs. Where the shop has
several addresses, `balance` says which of them a request goes to.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from typing import cast

import structlog

from waitroom.edge.balance import Balance
from waitroom.edge.connector import Connector, UpstreamAddress, UpstreamUnavailable
from waitroom.edge.heads import ResponseHeads
from waitroom.settings import RoomSettings

log = structlog.get_logger()

IDLE_SECONDS = 20.0  # under the 60 to 75 s after which most servers close


class Borrower(ABC):
    """Who uses a connection at the time."""

    __slots__ = ()

    @abstractmethod
    def upstream_data(self, data: bytes) -> None:
        """Bytes came from the shop."""

    @abstractmethod
    def upstream_closed(self, error: Exception | None) -> None:
        """The shop closed its side, or the connection broke."""

    @abstractmethod
    def upstream_writable(self, writable: bool) -> None:
        """The shop takes more bytes, or no more for now."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to the shop. Bytes go to whoever borrows it; idle, any byte or the end of it closes it.

    Attributes:
        address: Where it leads.
        index: The address's number in the pool.
        began: When it was last lent, by the loop's time.
        lent: Whether it counts as in flight.
        used: Whether it was lent before.
    """

    __slots__ = (
        *("_ended", "_pool", "address", "began", "borrower", "idle_since", "index", "lent", "transport"),
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, pool: UpstreamPool, address: UpstreamAddress, index: int) -> None:
        self._pool = pool
        self._ended = False
        self.address = address
        self.index = index
        self.began = 0.0
        self.lent = False
        self.borrower: Borrower | None = None
        self.used = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The shop took the connection."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
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
            # Anybody on the way can end a TCP connection; only the shop can say that its answer ends here.
            exc = ConnectionResetError("the connection ended without the shop's goodbye")
        if borrower is not None:
            borrower.upstream_closed(exc)

    def pause_writing(self) -> None:
        """The shop takes no more for now."""
        if self.borrower is not None:
            self.borrower.upstream_writable(False)

    def resume_writing(self) -> None:
        """The shop takes more again."""
        if self.borrower is not None:
            self.borrower.upstream_writable(True)


class UpstreamPool:
    """The connections of one worker to one shop.

    Args:
        addresses: Where the shop is.
        max_connections: How many there may be at once, to all addresses together.
        connect_seconds: How long making one may take.
        wait_seconds: How long a request may wait for one while all are in use.
        connector: Makes them; None for one without TLS.
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
        self.heads = ResponseHeads()
        self.connector = connector or Connector(connect_seconds)
        self._loop = asyncio.get_running_loop()
        self._max = max_connections
        self._connect_seconds = connect_seconds
        self._wait_seconds = wait_seconds
        self._idle: list[UpstreamConnection] = []
        self._all: set[UpstreamConnection] = set()
        self._connecting = 0
        self._waiters: deque[asyncio.Future[UpstreamConnection | None]] = deque()

    @classmethod
    def of(cls, room: RoomSettings) -> UpstreamPool:
        """The pool that a room's settings stand for."""
        return cls(
            *(UpstreamAddress.parse(url) for url in room.upstreams),
            max_connections=room.upstream_max_connections,
            connect_seconds=room.upstream_connect_seconds,
            wait_seconds=room.upstream_wait_seconds,
            connector=Connector.of(room),
        )

    def __repr__(self) -> str:
        lent = len(self._all) - len(self._idle)
        return (
            f"<UpstreamPool lent={lent} idle={len(self._idle)} connecting={self._connecting} wait={len(self._waiters)}>"
        )

    @property
    def in_flight(self) -> int:
        """How many connections are lent out."""
        return len(self._all) - len(self._idle)

    def take_idle(self) -> UpstreamConnection | None:
        """An idle connection to the address whose turn it is, or None. Costs no wait."""
        idle, now = self._idle, self._loop.time()
        index = self.balance.pick(now)
        for at in range(len(idle) - 1, -1, -1):
            connection = idle[at]
            if connection.index == index:
                del idle[at]
                if not connection.transport.is_closing():
                    self._lend(connection, now)
                    return connection
        return None

    async def take(self, *, fresh: bool = False) -> UpstreamConnection:
        """An idle connection or a new one. ``fresh``: a new one in any case.

        An address that can't be connected to is no end: others are tried, the second in any case, more of them as
        long as ``connect_seconds`` are not over.

        Raises:
            UpstreamUnavailable: there is none to be had in time.
        """
        if not fresh and (idle := self.take_idle()) is not None:
            return idle
        if len(self._all) + self._connecting >= self._max and not self._drop_idle():
            lent = await self._wait()
            if lent is not None:
                if not fresh and not lent.transport.is_closing():
                    return lent
                self._replace(lent)
            # Else a slot came free rather than a connection; it is counted for us already.
        else:
            self._connecting += 1
        try:
            return await self._connect()
        finally:
            self._connecting -= 1
            # Where it failed there is a slot again, and perhaps somebody who waits for it.
            self._offer_slot()

    def give_back(self, connection: UpstreamConnection, *, reusable: bool) -> None:
        """Ends a loan. A connection that can't be used again is closed at once, which the shop sees as a cancel."""
        connection.borrower = None
        self._unlend(connection)
        if not reusable or connection.transport.is_closing():
            self.forget(connection)
            connection.transport.abort()
            return
        connection.used = True
        if not connection.transport.is_reading():
            connection.transport.resume_reading()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._lend(connection, self._loop.time())
                waiter.set_result(connection)
                return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has gone. Idempotent."""
        self._unlend(connection)
        if connection in self._all:
            self._all.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._offer_slot()

    def worked(self, connection: UpstreamConnection) -> None:
        """The shop has begun an answer on a lent connection."""
        if self.balance.worked(connection.index, connection.began):
            log.info("upstream address back", address=connection.address.url)

    def failed(self, connection: UpstreamConnection, cause: str) -> None:
        """The shop gave no answer, or none that is one, on a lent connection."""
        self._mark_failed(connection.index, connection.began, cause)

    def checked(self, index: int, fault: str) -> None:
        """A health check of an address is over; ``fault`` says what is wrong with it, if anything."""
        address = self.addresses[index].url
        if not self.balance.checked(index, self._loop.time(), well=not fault):
            return
        if fault:
            log.warning("upstream address ill", address=address, cause=fault)
        else:
            log.info("upstream address well again", address=address)

    def close_idle(self, now: float) -> None:
        """Closes the connections that nobody has used for `IDLE_SECONDS`. ``now`` is the loop's time."""
        while self._idle and now - self._idle[0].idle_since >= IDLE_SECONDS:
            self._idle.pop(0).transport.close()

    def close(self) -> None:
        """Closes all connections and turns away who waits."""
        for waiter in self._waiters:
            waiter.cancel()
        for connection in list(self._all):
            connection.transport.abort()

    def _mark_failed(self, index: int, began: float, cause: str) -> None:
        seconds = self.balance.failed(index, began, self._loop.time())
        if seconds:
            log.warning("upstream address down", address=self.addresses[index].url, seconds=seconds, cause=cause)

    def _lend(self, connection: UpstreamConnection, now: float) -> None:
        connection.lent = True
        connection.began = now
        self.balance.begin(connection.index, now)

    def _unlend(self, connection: UpstreamConnection) -> None:
        if connection.lent:
            connection.lent = False
            self.balance.end(connection.index)

    def _replace(self, connection: UpstreamConnection) -> None:
        """Cuts a lent connection; its slot is for one that is being made."""
        self._unlend(connection)
        self._all.discard(connection)
        self._connecting += 1
        connection.transport.abort()

    def _drop_idle(self) -> bool:
        if not self._idle:
            return False
        connection = self._idle.pop(0)
        self._all.discard(connection)
        connection.transport.abort()
        return True

    def _offer_slot(self) -> None:
        while self._waiters and len(self._all) + self._connecting < self._max:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._connecting += 1
                waiter.set_result(None)

    async def _wait(self) -> UpstreamConnection | None:
        waiter: asyncio.Future[UpstreamConnection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._wait_seconds):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._return_offer(waiter.result())
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                raise UpstreamUnavailable("busy", f"all {self._max} connections are in use") from error
            raise

    def _return_offer(self, offer: UpstreamConnection | None) -> None:
        """The one it was meant for has gone: it is somebody else's."""
        if offer is not None:
            self.give_back(offer, reusable=True)
        else:
            self._connecting -= 1
            self._offer_slot()

    async def _connect(self) -> UpstreamConnection:
        tried: set[int] = set()
        ends = self._loop.time() + self._connect_seconds
        while True:
            now = self._loop.time()
            index = self.balance.pick(now, tried)
            tried.add(index)
            try:
                return await self._connect_to(index, now)
            except UpstreamUnavailable as error:
                self._mark_failed(index, now, str(error))
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
