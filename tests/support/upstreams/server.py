"""A shop that keeps every request to the byte, and answers as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Handler = Callable[["Seen", asyncio.StreamWriter], Awaitable[None]]

PAGE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: no-store\r\nContent-Length: 13\r\n\r\n<p>The shop.\n"
)


@dataclass
class Seen:
    """One request as it came.

    Attributes:
        head: To its empty line.
        headers: Names and values in their order.
        raw: The body with its framing.
        body: Without.
        connection: Number of the connection it came on.
    """

    head: bytes
    connection: int
    raw: bytes = b""
    body: bytes = b""
    method: str = ""
    target: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        start, *lines = self.head.decode("latin-1").split("\r\n")[:-2]
        self.method, self.target, _ = start.split(" ")
        self.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def session(self) -> str | None:
        return self.one("Waitroom-Session")


@dataclass
class Shop:
    """The shop. ``answers`` holds whole responses, or handlers, by path; other paths get `PAGE`."""

    address: str = ""
    answers: dict[str, bytes | Handler] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    broken: int = 0
    keep_bodies: bool = True
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _readers: set[asyncio.StreamReader] = field(default_factory=set)

    @property
    def open(self) -> int:
        """How many connections the other side has not closed."""
        return sum(not reader.at_eof() for reader in self._readers)

    def paths(self) -> list[str]:
        return [one.path for one in self.seen]

    def last(self, path: str) -> Seen:
        """The newest request for a path."""
        return next(one for one in reversed(self.seen) if one.path == path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for `asyncio.start_server`."""
        self.connections += 1
        number = self.connections
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._readers.add(reader)
        try:
            while await self._request(reader, writer, number):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self.broken += 1
        finally:
            self._tasks.discard(task)
            self._readers.discard(reader)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return False
        seen = Seen(head, number)
        self.seen.append(seen)
        length = seen.one("Content-Length")
        if seen.one("Transfer-Encoding") == "chunked":
            await self._chunks(reader, seen)
        elif length is not None and self.keep_bodies:
            seen.raw = seen.body = await reader.readexactly(int(length))
        elif length is not None:
            seen.body = await self._digest(reader, int(length))
        answer = self.answers.get(seen.path, PAGE)
        if isinstance(answer, bytes):
            if seen.method == "HEAD":
                answer = answer[: answer.index(b"\r\n\r\n") + 4]
            writer.write(answer)
        else:
            await answer(seen, writer)
        await writer.drain()
        return not writer.is_closing() and b"\r\nconnection: close\r\n" not in (
            answer.lower() if isinstance(answer, bytes) else b""
        )

    @staticmethod
    async def _chunks(reader: asyncio.StreamReader, seen: Seen) -> None:
        while True:
            line = await reader.readline()
            size = int(line.split(b";")[0], 16)
            seen.raw += line
            if size:
                data = await reader.readexactly(size + 2)
                seen.raw += data
                seen.body += data[:-2]
                continue
            while line != b"\r\n":
                line = await reader.readline()
                seen.raw += line
            return

    @staticmethod
    async def _digest(reader: asyncio.StreamReader, left: int) -> bytes:
        digest = hashlib.sha256()
        while left:
            piece = await reader.read(min(left, 1 << 18))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            digest.update(piece)
        return digest.hexdigest().encode()

    def drop_connections(self) -> None:
        """Closes every connection without a word."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Ends every connection."""
        self.drop_connections()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def running_shop(port: int = 0) -> AsyncIterator[Shop]:
    """A shop on the loopback address."""
    shop = Shop()
    server = await asyncio.start_server(shop.serve, "127.0.0.1", port, backlog=1024)
    shop.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield shop
    finally:
        server.close()
        await shop.close()


def response(body: bytes = b"fine\n", *lines: str, status: str = "200 OK") -> bytes:
    """A whole response with a length."""
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}"))
    return head.encode("latin-1") + b"\r\n" + body
