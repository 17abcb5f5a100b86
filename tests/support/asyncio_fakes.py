"""Event loop and transports of tests without sockets: they behave as asyncio's do, and time stands still in them."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

Done = TypeVar("Done")

HIGH_WATER, LOW_WATER = 65536, 16384  # asyncio's own
MOST_TURNS = 100_000
STARTED = 1000.0  # the loop's time at first


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still until it is moved on, and whose only server is a `Shop`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = STARTED
        self.shop: Shop | None = None
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Runs all that can run without waiting."""
        for _ in range(MOST_TURNS):
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready:
                return
        raise AssertionError("it never comes to rest")

    def do(self, function: Callable[..., Done], *arguments: Any) -> Done:
        """Calls a function on the loop, and settles."""
        done: list[Done] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                done.append(function(*arguments))
            except Exception as error:
                failed.append(error)

        self.call_soon(run)
        self.settle()
        if failed:
            raise failed[0]
        return done[0]

    def wait(self, coroutine: Awaitable[Done]) -> Done:
        """The result of what must not have to wait for anything."""
        task = asyncio.ensure_future(coroutine, loop=self)
        self.settle()
        assert task.done(), "it waits"
        return task.result()

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:  # type: ignore[override]
        """Every name has one address, which is itself."""
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    async def create_connection(self, factory: Callable[[], Any], *address: Any, **_: Any) -> tuple[Any, Any]:  # type: ignore[override]
        assert self.shop is not None
        return await self.shop.connect(factory, address)

    async def create_unix_connection(self, factory: Callable[[], Any], *address: Any, **_: Any) -> tuple[Any, Any]:  # type: ignore[override]
        assert self.shop is not None
        return await self.shop.connect(factory, address)


class Wire(asyncio.Transport):
    """A transport, and what the other end of the line does and sees.

    Attributes:
        got: What the other end has received, since `clear`.
        got_eof: Whether it has seen the end of it.
        lost: Whether the connection is gone.
        aborted: Whether it was reset rather than closed.
        taking: Whether the other end takes bytes; else they gather, and the protocol is told to pause.
    """

    def __init__(self, loop: VirtualLoop, protocol: Any, peer: str = "") -> None:
        super().__init__({"peername": (peer, 50000)} if peer else {"peername": ""})
        self.loop = loop
        self.protocol = protocol
        self._got = bytearray()
        self.got_eof = False
        self.lost = False
        self.aborted = False
        self.taking = True
        self._closing = False
        self._eof_due = False
        self._incoming: deque[bytes | None] = deque()
        self._delivering = False
        self._reading = True
        self._unsent: deque[bytes] = deque()
        self._unsent_size = 0
        self._writing_paused = False

    def __repr__(self) -> str:
        return f"<Wire got={self.got!r} lost={self.lost}>"

    # The other end's doings.

    @property
    def got(self) -> bytes:
        return bytes(self._got)

    def send(self, *pieces: bytes) -> None:
        """Sends bytes, each piece as one read, and settles."""
        for piece in pieces:
            if piece:
                self._incoming.append(piece)
        self._deliver_soon()
        self.loop.settle()

    def send_eof(self) -> None:
        """Closes the other end's side of the line."""
        self._incoming.append(None)
        self._deliver_soon()
        self.loop.settle()

    def send_and_close(self, data: bytes) -> None:
        """Bytes and the end of them, found by one look at the socket, as libuv finds them."""

        def both() -> None:
            self.protocol.data_received(data)
            if not self._closing:
                self._end()

        self.loop.do(both)

    def reset_in(self, turns: int) -> None:
        """The connection breaks so many turns of the loop from now."""
        if turns:
            self.loop.call_soon(self.reset_in, turns - 1)
        else:
            self._break(ConnectionResetError("reset by peer"))

    def end_in(self, turns: int) -> None:
        """The other end's side of the line is closed so many turns of the loop from now."""
        if turns:
            self.loop.call_soon(self.end_in, turns - 1)
        elif not self._closing:
            self._end()

    def reset(self, error: Exception | None = None) -> None:
        """The connection breaks."""
        self.loop.do(self._break, error or ConnectionResetError("reset by peer"))

    def take(self, size: int | None = None) -> None:
        """Takes so many of the bytes that have gathered, or all of them and those to come."""
        if size is None:
            self.taking = True
            size = self._unsent_size
        self.loop.do(self._take, size)

    def clear(self) -> bytes:
        """What has been received since the last time."""
        got = self.got
        self._got.clear()
        return got

    @property
    def unsent(self) -> int:
        return self._unsent_size

    @property
    def unread(self) -> int:
        return sum(len(piece) for piece in self._incoming if piece)

    # What asyncio's transports do.

    def write(self, data: Any) -> None:
        assert isinstance(data, bytes | bytearray | memoryview)
        if self._eof_due:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.lost or (self._closing and not self._unsent) or not data:
            return
        if self.taking and not self._unsent:
            self._got += data
            return
        self._unsent.append(bytes(data))
        self._unsent_size += len(data)
        if self._unsent_size > HIGH_WATER and not self._writing_paused:
            self._writing_paused = True
            self.protocol.pause_writing()

    def writelines(self, lines: Iterable[Any]) -> None:
        self.write(b"".join(lines))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._closing or self._eof_due:
            return
        self._eof_due = True
        self.got_eof = not self._unsent

    def get_write_buffer_size(self) -> int:
        return self._unsent_size

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._closing and not self._reading:
            self._reading = True
            self._deliver_soon()

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._unsent:
                self.loop.call_soon(self._gone, None)

    def abort(self) -> None:
        if not self.lost:
            self.aborted = True
            self._closing = True
            self._unsent.clear()
            self._unsent_size = 0
            self.loop.call_soon(self._gone, None)

    # How it works.

    def _deliver_soon(self) -> None:
        if not self._delivering and self._incoming:
            self._delivering = True
            self.loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._delivering = False
        if not self.is_reading() or not self._incoming:
            return
        piece = self._incoming.popleft()
        if piece is None:
            self._end()
        else:
            self.protocol.data_received(piece)
        self._deliver_soon()

    def _end(self) -> None:
        self._reading = False
        if not self.protocol.eof_received():
            self.close()

    def _take(self, size: int) -> None:
        while size and self._unsent:
            piece = self._unsent.popleft()
            self._got += piece[:size]
            if len(piece) > size:
                self._unsent.appendleft(piece[size:])
            self._unsent_size -= min(size, len(piece))
            size -= min(size, len(piece))
        if self._writing_paused and self._unsent_size <= LOW_WATER:
            self._writing_paused = False
            self.protocol.resume_writing()
        if not self._unsent:
            if self._eof_due:
                self.got_eof = True
            if self._closing and not self.lost:
                self.loop.call_soon(self._gone, None)

    def _break(self, error: Exception) -> None:
        if not self.lost:
            self._closing = True
            self._gone(error)

    def _gone(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self._unsent.clear()
            self._unsent_size = 0
            self.protocol.connection_lost(error)
            # As asyncio does: a transport that is gone holds on to nothing.
            self.protocol = None


@dataclass
class Shop:
    """What takes the connections of a pool.

    Attributes:
        wires: All connections that were made, in their order.
        refuses: What is raised on connecting.
        hangs: Connecting takes for ever, until `let_in`.
        attempts: How often somebody has tried to connect.
    """

    loop: VirtualLoop
    wires: list[Wire] = field(default_factory=list)
    refuses: OSError | None = None
    hangs: bool = False
    attempts: int = 0
    _gate: list[asyncio.Future[None]] = field(default_factory=list)

    async def connect(self, factory: Callable[[], Any], _address: Any) -> tuple[Wire, Any]:
        self.attempts += 1
        if self.hangs:
            gate: asyncio.Future[None] = self.loop.create_future()
            self._gate.append(gate)
            await gate
        else:
            await asyncio.sleep(0)
        if self.refuses is not None:
            raise self.refuses
        protocol = factory()
        wire = Wire(self.loop, protocol)
        self.wires.append(wire)
        protocol.connection_made(wire)
        return wire, protocol

    def let_in(self) -> None:
        """Lets those connect that hang, and those to come."""
        self.hangs = False
        for gate in self._gate:
            if not gate.done():
                gate.set_result(None)
        self._gate.clear()
        self.loop.settle()

    @property
    def wire(self) -> Wire:
        """The only connection that isn't gone."""
        (wire,) = self.open
        return wire

    @property
    def open(self) -> list[Wire]:
        return [wire for wire in self.wires if not wire.is_closing()]

    @property
    def got(self) -> bytes:
        """All that was received, over all connections."""
        return b"".join(wire.got for wire in self.wires)
