"""What a child of the supervisor has in common with the others: its settings, its signals, and its end.

A child holds one end of a socket pair. It reads its settings from it, then the certificate and key of the public
listener where it needs them, and new ones whenever they come. It writes ``ready`` to it. When the other end is gone, so
is the supervisor: the child then stops by itself.
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
from waitroom.net.tls import Pair
from waitroom.settings import Settings, from_json

log = structlog.get_logger()

SETTINGS_SECONDS = 10.0
LONGEST_SETTINGS = 4 << 20
READY = b"ready\n"
NO_PAIR = b"\n"


@dataclass(frozen=True, slots=True)
class Child:
    """What a child knows.

    Attributes:
        slot: Its number; one that takes another's place has the same.
        settings: With the store's address and the secrets filled in.
        listener: The socket it serves, made by the supervisor, so that nothing is lost while a child is replaced.
        stop: Set when the child is to finish what is under way and end.
        pair: Certificate and key of the public listener, or None for plain HTTP.
        new_pairs: Those that take its place, as they come.
    """

    slot: int
    settings: Settings
    listener: socket.socket
    stop: asyncio.Event
    writer: asyncio.StreamWriter
    pair: Pair | None
    new_pairs: asyncio.Queue[Pair]

    async def ready(self) -> None:
        """Tells the supervisor that the child serves."""
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

    def asked_to_stop_at_once() -> None:
        stop.set()
        serving.cancel()

    # Service managers send SIGTERM to every process of a service, and the supervisor sends it too: twice means no more
    # than once. Only the supervisor sends SIGINT, since a child is in a session of its own.
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, asked_to_stop_at_once)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=channel), limit=LONGEST_SETTINGS)
    async with asyncio.timeout(SETTINGS_SECONDS):
        settings = from_json(await reader.readline())
        line = await reader.readline()
        pair = None if line == NO_PAIR else Pair.from_json(line)
    new_pairs: asyncio.Queue[Pair] = asyncio.Queue()
    logs.configure(settings.log_level, f"{name} {slot}")

    async def watch() -> None:
        while line := await reader.readline():
            new_pairs.put_nowait(Pair.from_json(line))
        stop.set()

    watching = loop.create_task(watch())
    try:
        await serve(Child(slot, settings, socket.socket(fileno=listener), stop, writer, pair, new_pairs))
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        watching.cancel()
        writer.close()
