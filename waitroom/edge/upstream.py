"""Connections to the shop: one protocol a connection, and a pool that lends them out.

A pool never holds more than ``max_connections``; a request beyond that waits its turn for a short bounded time. The
newest idle connection is lent first, so that a shop that closes idle ones closes those nobody needs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol, cast
from urllib.parse import urlsplit

from waitroom.errors import WaitroomError

IDLE_SECONDS = 20.0  # under the 60 to 75 s after which most servers close


class UpstreamUnavailable(WaitroomError):  # noqa: N818 - a state of the shop, not a mistake
    """No connection to the shop.

    Args:
        cause: ``connect``: it doesn't take one; ``busy``: all are in use and none came free in time.
    """

    def __init__(self, cause: Literal["connect", "busy"], detail: str) -> None:
        self.cause = cause
        super().__init__(detail)


class Borrower(Protocol):
    """Who uses a connection at the time."""

    def upstream_data(self, data: bytes) -> None:
        """Bytes came from the shop."""

    def upstream_closed(self, error: Exception | None) -> None:
        """The shop closed its side, or the connection broke."""

    def upstream_writable(self, writable: bool) -> None:
        """The shop takes more bytes, or no more for now."""


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """Where the shop is: a host and port, or a unix socket.

    Attributes:
        authority: What stands in a Host header where the client sent none.
    """

    host: str
    port: int
    path: str | None
    authority: bytes

    @classmethod
    def parse(cls, url: str) -> UpstreamAddress:
        """Reads ``http://host:port`` or ``unix:///path``, already checked by the settings."""
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return cls("", 0, parts.path, b"localhost")
        return cls(parts.hostname or "", parts.port or 80, None, parts.netloc.encode("idna"))


class UpstreamConnection(asyncio.Protocol):
    """One connection to the shop. Bytes go to whoever borrows it; idle, any byte or the end of it closes it."""

    __slots__ = ("_pool", "borrower", "idle_since", "transport", "used")

    transport: asyncio.Transport

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
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
        if self.borrower is not None:
            self.borrower.upstream_closed(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._pool.forget(self)
        borrower, self.borrower = self.borrower, None
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
        address: Where the shop is.
        max_connections: How many there may be at once.
        connect_seconds: How long making one may take.
        wait_seconds: How long a request may wait for one while all are in use.
    """

    def __init__(
        self, address: UpstreamAddress, *, max_connections: int, connect_seconds: float, wait_seconds: float
    ) -> None:
        self.address = address
        self._loop = asyncio.get_running_loop()
        self._max = max_connections
        self._connect_seconds = connect_seconds
        self._wait_seconds = wait_seconds
        self._idle: list[UpstreamConnection] = []
        self._all: set[UpstreamConnection] = set()
        self._connecting = 0
        self._waiters: deque[asyncio.Future[UpstreamConnection | None]] = deque()

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
        """An idle connection, or None. Costs no wait."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    async def take(self, *, fresh: bool = False) -> UpstreamConnection:
        """An idle connection or a new one. ``fresh``: a new one in any case.

        Raises:
            UpstreamUnavailable: there is none to be had in time.
        """
        if not fresh and (idle := self.take_idle()) is not None:
            return idle
        if len(self._all) + self._connecting >= self._max and not self._drop_idle():
            lent = await self._wait()
            if lent is not None:
                return lent
            # A slot came free rather than a connection; it is counted for us already.
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
                waiter.set_result(connection)
                return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has gone. Idempotent."""
        if connection in self._all:
            self._all.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._offer_slot()

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
        loop = self._loop
        address = self.address
        try:
            async with asyncio.timeout(self._connect_seconds):
                if address.path is not None:
                    _, connection = await loop.create_unix_connection(lambda: UpstreamConnection(self), address.path)
                else:
                    _, connection = await loop.create_connection(
                        lambda: UpstreamConnection(self), address.host, address.port
                    )
        except TimeoutError as error:
            raise UpstreamUnavailable("connect", f"no connection within {self._connect_seconds:g} s") from error
        except OSError as error:
            raise UpstreamUnavailable("connect", str(error)) from error
        self._all.add(connection)
        return connection
