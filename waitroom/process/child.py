"""Shared by the supervisor's child processes: settings, signals and termination.

A child holds one end of a socket pair. It reads its settings from it, then, if needed, the certificate and key of the
public listener, and later replacements of these, or reports on the other children. It writes ``ready`` to it, and an
empty line each second as a sign of life. When the other end closes, the supervisor is gone: the child then stops by
itself.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import uvloop

from waitroom import logs
from waitroom.net.tls import CertificatePair
from waitroom.settings import Settings, from_json

log = structlog.get_logger()

SETTINGS_SECONDS = 10.0
MAX_SETTINGS_BYTES = 4 << 20
READY = b"ready\n"
SIGN_OF_LIFE = b"\n"
SIGN_SECONDS = 1.0
NO_PAIR = b"\n"


@dataclass(frozen=True, slots=True)
class Child:
    """The state of a child process.

    Attributes:
        slot: The child's number; a replacement has the same.
        settings: With the store's address and the secrets filled in.
        listener: The socket to serve, created by the supervisor, so that no connection is lost during a replacement.
        stop: Set when the child should finish its work and exit.
        pair: Certificate and key of the public listener, or None for plain HTTP.
        messages: The lines that the supervisor sends: replacements of the pair to an edge worker, reports on the edge
            workers to the control process.
    """

    slot: int
    settings: Settings
    listener: socket.socket
    stop: asyncio.Event
    writer: asyncio.StreamWriter
    pair: CertificatePair | None
    messages: asyncio.Queue[bytes]

    async def ready(self) -> None:
        """Notifies the supervisor that the child is ready."""
        self.writer.write(READY)
        await self.writer.drain()


def run_child(name: str, serve: Callable[[Child], Awaitable[None]]) -> None:
    """Runs a child; the command's arguments are ``SLOT CHANNEL_DESCRIPTOR LISTENER_DESCRIPTOR``."""
    slot, channel, listener = (int(argument) for argument in sys.argv[1:])
    uvloop.run(_run(name, slot, channel, listener, serve))


async def _run(name: str, slot: int, channel: int, listener: int, serve: Callable[[Child], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    serving = asyncio.current_task()
    assert serving is not None

    def stop_immediately() -> None:
        stop.set()
        serving.cancel()

    # Service managers send SIGTERM to every process of a service, and the supervisor sends it too, so a second one has
    # no effect. Only the supervisor sends SIGINT, since a child is in its own session.
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop_immediately)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=channel), limit=MAX_SETTINGS_BYTES)
    async with asyncio.timeout(SETTINGS_SECONDS):
        settings = from_json(await reader.readline())
        line = await reader.readline()
        pair = None if line == NO_PAIR else CertificatePair.from_json(line)
    messages: asyncio.Queue[bytes] = asyncio.Queue()
    logs.configure(settings.log_level, f"{name} {slot}")

    async def watch() -> None:
        try:
            while line := await reader.readline():
                messages.put_nowait(line)
        except ConnectionError:
            pass  # the supervisor ended without reading what we wrote: it was stuck
        finally:
            stop.set()

    async def show_life() -> None:
        while True:
            await asyncio.sleep(SIGN_SECONDS)
            if not writer.transport.get_write_buffer_size():  # else the supervisor itself is stuck
                writer.write(SIGN_OF_LIFE)

    watching = loop.create_task(watch())
    living = loop.create_task(show_life())
    try:
        await serve(Child(slot, settings, socket.socket(fileno=listener), stop, writer, pair, messages))
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        watching.cancel()
        living.cancel()
        writer.close()
