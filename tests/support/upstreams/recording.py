"""A shop for proxies: keeps every request byte for byte, and answers with the literal bytes it was given.

It runs in a thread of its own, on sockets alone. `RecordingShop.take` returns only when nothing more can be on the way
to it, so that what a test looks at is all there is.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Pairs = list[tuple[bytes, bytes]]
MARK = b"X-Shop"  # in every answer of the shop's, so that none of a proxy's own is taken for one
READ = 1 << 18
QUIET_SECONDS = 20.0


@dataclass(frozen=True)
class Reply:
    """What the shop answers to one request.

    Attributes:
        data: Literal bytes, interim answers included.
        at: Whether it answers when it has the whole request, or as soon as it has the head.
        then: What it does behind the answer: keeps the connection, ends it, or resets it.
        kept: How many of the last bytes it keeps back until it is told to `RecordingShop.go_on`.
    """

    data: bytes
    at: Literal["end", "head"] = "end"
    then: Literal["keep", "close", "reset"] = "keep"
    kept: int = 0


PAGE = Reply(b"HTTP/1.1 200 OK\r\nX-Shop: 1\r\nContent-Length: 5\r\n\r\nfine\n")


@dataclass
class Arrived:
    """A request as it came over the wire.

    Attributes:
        head: To its empty line.
        raw: The body with its framing, as far as it came.
        whole: Whether all of it came.
    """

    connection: int
    head: bytes
    raw: bytes = b""
    body: bytes = b""
    framing: str = "none"
    whole: bool = False
    trailers: Pairs = field(default_factory=list)

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def headers(self) -> Pairs:
        return pairs(self.head.split(b"\r\n")[1:-2])

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


def pairs(lines: Sequence[bytes]) -> Pairs:
    return [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]


class _Ended(Exception):  # noqa: N818 - no error: the other side has closed
    pass


class _Connection:
    """One connection. A generator reads requests; it is resumed with the bytes that came."""

    def __init__(self, shop: RecordingShop, taken: socket.socket, number: int) -> None:
        self.socket = taken
        self.number = number
        self._shop = shop
        self._buffer = b""
        self.busy = False  # in the middle of a request or an answer
        self.over = False
        self._work = self._requests()
        next(self._work)

    def readable(self) -> None:
        try:
            data = self.socket.recv(READ)
        except ConnectionError:
            data = b""
        try:
            self._work.send(data)
        except (StopIteration, _Ended, ConnectionError, TimeoutError):
            self.over = True

    def _more(self) -> Generator[None, bytes, None]:
        data = yield
        if not data:
            raise _Ended
        self._buffer += data
        self.busy = True

    def _until(self, mark: bytes) -> Generator[None, bytes, bytes]:
        while (end := self._buffer.find(mark)) < 0:
            yield from self._more()
        end += len(mark)
        found, self._buffer = self._buffer[:end], self._buffer[end:]
        return found

    def _exactly(self, size: int) -> Generator[None, bytes, bytes]:
        pieces = [self._buffer]
        have = len(self._buffer)
        self._buffer = b""
        while have < size:
            yield from self._more()
            pieces.append(self._buffer)
            have += len(self._buffer)
            self._buffer = b""
        data = b"".join(pieces)
        self._buffer = data[size:]
        return data[:size]

    def _requests(self) -> Generator[None, bytes, None]:
        while True:
            head = yield from self._until(b"\r\n\r\n")
            request = Arrived(self.number, head)
            with self._shop.changed:
                self._shop.arrived.append(request)
                self._shop.changed.notify_all()
            reply = self._shop.replies.popleft() if self._shop.replies else PAGE
            if reply.at == "head":
                self._answer(reply)
            yield from self._body(request)
            request.whole = True
            if reply.at == "end":
                self._answer(reply)
            self.busy = bool(self._buffer)

    def _body(self, request: Arrived) -> Generator[None, bytes, None]:
        lengths, codings = request.all(b"Content-Length"), request.all(b"Transfer-Encoding")
        if codings:
            request.framing = "chunked"
            yield from self._chunks(request)
        elif lengths:
            request.framing = "length"
            while len(request.raw) < int(lengths[0]):
                if not self._buffer:
                    yield from self._more()
                piece = yield from self._exactly(min(len(self._buffer), int(lengths[0]) - len(request.raw)))
                self._add(request, piece)
            request.body = request.raw

    def _chunks(self, request: Arrived) -> Generator[None, bytes, None]:
        while True:
            line = yield from self._until(b"\r\n")
            request.raw += line
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            data = yield from self._exactly(size + 2)
            self._add(request, data)
            request.body += data[:-2]
        lines = []
        while (line := (yield from self._until(b"\r\n"))) != b"\r\n":
            lines.append(line[:-2])
            request.raw += line
        request.raw += line
        request.trailers = pairs(lines)

    def _add(self, request: Arrived, data: bytes) -> None:
        with self._shop.changed:
            request.raw += data
            self._shop.changed.notify_all()

    def _answer(self, reply: Reply) -> None:
        at_once = max(len(reply.data) - reply.kept, 0)
        self.socket.sendall(reply.data[:at_once])
        if reply.kept:
            assert self._shop.told.wait(QUIET_SECONDS), "nobody told the shop to go on"
            self.socket.sendall(reply.data[at_once:])
        if reply.then != "keep":
            self._end(reply)

    def _end(self, reply: Reply) -> None:
        if reply.then == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raise _Ended
        self.socket.shutdown(socket.SHUT_WR)


class RecordingShop:
    """The shop. ``replies`` are for the next requests in the order they arrive; behind them comes `PAGE`."""

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.arrived: list[Arrived] = []
        self.changed = threading.Condition()
        self.told = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._connections: set[_Connection] = set()
        self._count = 0
        self._asked = False
        self._quiet = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shop")

    def __enter__(self) -> RecordingShop:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.close()
        self._thread.join(QUIET_SECONDS)
        assert not self._thread.is_alive()
        self._selector.close()
        for one in (self._listener, self._woken):
            one.close()

    def take(self) -> list[Arrived]:
        """All that has arrived since the last time, once no connection is in the middle of anything."""
        self._quiet.clear()
        self._wake.send(b"?")
        assert self._quiet.wait(QUIET_SECONDS), f"the shop still waits for more of {self.arrived[-1:]}"
        arrived, self.arrived = self.arrived, []
        self.replies.clear()
        self.told.clear()
        return arrived

    def wait_for(self, heads: int, body: bytes) -> bool:
        """Waits until so many heads have arrived, and these bytes behind the last of them; False where they don't."""

        def there() -> bool:
            return len(self.arrived) >= heads and body in self.arrived[heads - 1].raw

        with self.changed:
            return self.changed.wait_for(there, QUIET_SECONDS)

    def go_on(self) -> None:
        """Lets it send what it keeps back of an answer."""
        self.told.set()

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: [one.socket.close() for one in self._connections])
            while True:
                # What is asked is answered when the system knows of nothing that we haven't looked at.
                ready = self._selector.select(0 if self._asked and not self._busy() else None)
                if not ready:
                    self._asked = False
                    self._quiet.set()
                for key, _ in ready:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj is self._woken:
                        if not self._woken.recv(100):
                            return
                        self._asked = True
                    else:
                        self._serve(key.data)

    def _busy(self) -> bool:
        return any(one.busy for one in self._connections)

    def _accept(self) -> None:
        taken, _ = self._listener.accept()
        taken.settimeout(QUIET_SECONDS)
        self._count += 1
        connection = _Connection(self, taken, self._count)
        self._connections.add(connection)
        self._selector.register(taken, selectors.EVENT_READ, connection)

    def _serve(self, connection: _Connection) -> None:
        connection.readable()
        if connection.over:
            self._selector.unregister(connection.socket)
            self._connections.discard(connection)
            connection.socket.close()
