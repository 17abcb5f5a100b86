"""Checks the health of each of a shop's addresses periodically, on connections of its own."""

from __future__ import annotations

import asyncio
import random
from typing import cast

from waitroom.edge.http.message import MalformedError, parse_response
from waitroom.edge.upstream.connector import UpstreamUnavailable
from waitroom.edge.upstream.pool import UpstreamPool
from waitroom.settings import RoomSettings

LONGEST_HEAD = 65536
# Around health_seconds, so that the workers' checks don't all happen at the same time.
SHORTEST_SHARE, LONGEST_SHARE = 0.8, 1.2


class HealthChecks:
    """One worker's health checks of a room's shop.

    Args:
        room: The room; it has a `health_path`.
        pool: Gets the results.
        chance: Randomizes the intervals.
    """

    def __init__(self, room: RoomSettings, pool: UpstreamPool, chance: random.Random) -> None:
        assert room.health_path is not None
        self._path = room.health_path.encode()
        self._host = next((host.encode() for host in room.hosts if not host.startswith("*")), None)
        self._seconds = room.health_seconds
        self._pool = pool
        self._chance = chance

    async def run(self) -> None:
        """Checks until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for index in range(len(self._pool.addresses)):
                tasks.create_task(self._watch(index))

    async def _watch(self, index: int) -> None:
        await asyncio.sleep(self._chance.uniform(0, self._seconds))
        while True:
            self._pool.checked(index, await self._fault(index))
            await asyncio.sleep(self._seconds * self._chance.uniform(SHORTEST_SHARE, LONGEST_SHARE))

    async def _fault(self, index: int) -> str:
        """The problem with an address, or an empty text."""
        address = self._pool.addresses[index]
        host = self._host or address.authority
        question = b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: waitroom\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        asked: _Check | None = None
        try:
            async with asyncio.timeout(self._seconds):
                asked = await self._pool.connector.connect(address, lambda: _Check(question % (self._path, host)))
                status = await asked.status
        except UpstreamUnavailable as error:
            return str(error)
        except TimeoutError:
            return f"no answer within {self._seconds:g} s"
        except (OSError, MalformedError) as error:
            return str(error)
        finally:
            if asked is not None:
                asked.transport.abort()
        return "" if 200 <= status < 400 else f"it answered {status}"


class _Check(asyncio.Protocol):
    """One health check and the status of its response."""

    transport: asyncio.Transport

    def __init__(self, question: bytes) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._question = question
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._question)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._read_heads()
        except MalformedError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("it closed the connection without an answer"))

    def _read_heads(self) -> None:
        while not self.status.done() and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            status = parse_response(head).status
            if status >= 200:
                self.status.set_result(status)
        if not self.status.done() and len(self._buffer) > LONGEST_HEAD:
            raise MalformedError(502, "a response head that is too long")

    def _fail(self, error: Exception) -> None:
        if not self.status.done():
            self.status.set_exception(error)
            self.status.exception()  # nobody may be left to read it: that isn't an error
