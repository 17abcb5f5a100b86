"""Checks the health of each of a shop's addresses periodically, on connections of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import cast

from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.message import MalformedError, parse_response
from waitroom.edge.upstream.connector import UpstreamUnavailableError
from waitroom.edge.upstream.pool import UpstreamPool
from waitroom.jobs import Jobs
from waitroom.settings import RoomSettings

MAX_HEAD_BYTES = 65536
# Around health_seconds, so that the workers' checks don't all happen at the same time.
MIN_INTERVAL_SHARE, MAX_INTERVAL_SHARE = 0.8, 1.2


class HealthChecks:
    """One worker's health checks of a room's shop.

    Args:
        room: The room; it has a `health_path`.
        pool: Gets the results.
        proof: Makes the header of `Proofs` for a check.
        randomness: Randomizes the intervals.
    """

    def __init__(
        self, room: RoomSettings, pool: UpstreamPool, proof: Callable[[], HeaderBlock], randomness: random.Random
    ) -> None:
        assert room.health_path is not None
        self._path = room.health_path.encode()
        self._host = next((host.encode() for host in room.hosts if not host.startswith("*")), None)
        self._seconds = room.health_seconds
        self._pool = pool
        self._proof = proof
        self._randomness = randomness

    def start(self, jobs: Jobs) -> None:
        """Starts a job for each address."""
        for index, address in enumerate(self._pool.addresses):
            jobs.run(f"health check of {address.url}", partial(self._check_periodically, index))

    async def _check_periodically(self, index: int) -> None:
        await asyncio.sleep(self._randomness.uniform(0, self._seconds))
        while True:
            fault = await self._check(index)
            if fault is not None:
                self._pool.record_health_check(index, fault)
            await asyncio.sleep(self._seconds * self._randomness.uniform(MIN_INTERVAL_SHARE, MAX_INTERVAL_SHARE))

    async def _check(self, index: int) -> str | None:
        """The problem with an address, or an empty text; None if this machine couldn't check it."""
        address = self._pool.addresses[index]
        head = b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: waitroom\r\nAccept: */*\r\nConnection: close\r\n%b\r\n"
        request = head % (self._path, self._host or address.authority, self._proof())
        check: _HealthCheck | None = None
        try:
            async with asyncio.timeout(self._seconds):
                check = await self._pool.connector.connect(address, lambda: _HealthCheck(request))
                status = await check.status
        except UpstreamUnavailableError as error:
            return None if error.cause == "files" else str(error)
        except TimeoutError:
            return f"response timeout after {self._seconds:g} s"
        except (OSError, MalformedError) as error:
            return str(error)
        finally:
            if check is not None:
                check.transport.abort()
        return "" if 200 <= status < 400 else f"status {status}"


class _HealthCheck(asyncio.Protocol):
    """One health check and the status of its response."""

    transport: asyncio.Transport

    def __init__(self, request: bytes) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._request = request
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._read_heads()
        except MalformedError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("connection closed without a response"))

    def _read_heads(self) -> None:
        while not self.status.done() and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            status = parse_response(head).status
            if status >= 200:
                self.status.set_result(status)
        if not self.status.done() and len(self._buffer) > MAX_HEAD_BYTES:
            raise MalformedError(502, "response head too long")

    def _fail(self, error: Exception) -> None:
        if not self.status.done():
            self.status.set_exception(error)
            self.status.exception()  # nobody may be left to read it: that isn't an error
