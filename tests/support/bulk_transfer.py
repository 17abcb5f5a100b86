"""Gigabytes over a socket at little cost: blocks that say where they belong, all of them compared, none of them kept.

A block is one megabyte of a pattern with its number in front. Sending and receiving run in threads; the system does the
work outside of Python's lock. Either side stops where a test says so: the receiver until the sender is held up, the
sender until the receiver has all that was sent.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

BLOCK = 1 << 20
PATTERN = bytes(range(256)) * (BLOCK // 256)
SECONDS = 60.0
HELD_UP_SECONDS = 0.3  # when nothing has been taken for so long, the sender is held up


def blocks(count: int) -> Iterator[bytearray]:
    """One buffer, again and again, each time the next block."""
    block = bytearray(PATTERN)
    for number in range(count):
        block[:8] = number.to_bytes(8)
        yield block


@dataclass
class Torrent:
    """So many blocks on their way from one end to the other.

    Attributes:
        count: Of blocks.
        reader_stops: Before which blocks the receiver takes nothing until the sender is held up.
        writer_stops: Before which blocks the sender sends nothing until the receiver has all.
        sent, received: Bytes.
        piled_up: The most bytes that were between the two when the sender was held up.
        chunks: Whether blocks travel as chunks of HTTP.
    """

    count: int
    reader_stops: Iterable[int] = ()
    writer_stops: Iterable[int] = ()
    chunks: bool = False
    sent: int = 0
    received: int = 0
    piled_up: int = 0
    stops: list[str] = field(default_factory=list)
    _held_up: threading.Event = field(default_factory=threading.Event)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def size(self) -> int:
        return self.count * BLOCK

    # The sender.

    def send(self, line: socket.socket) -> None:
        """Sends all blocks."""
        line.setblocking(False)
        stops = frozenset(self.writer_stops)
        for number, block in enumerate(blocks(self.count)):
            if number in stops:
                self._wait_until_all_is_there()
            if self.chunks:
                self._send(line, b"100000\r\n", 0)
            self._send(line, block, BLOCK)
            if self.chunks:
                self._send(line, b"\r\n", 0)
        if self.chunks:
            self._send(line, b"0\r\n\r\n", 0)

    def _send(self, line: socket.socket, data: bytes | bytearray, counts: int) -> None:
        view = memoryview(data)
        while view:
            try:
                done = line.send(view)
            except BlockingIOError:
                self._wait_until_writable(line)
                continue
            view = view[done:]
            if counts:
                self.sent += done

    def _wait_until_writable(self, line: socket.socket) -> None:
        while not select.select([], [line], [], HELD_UP_SECONDS)[1]:
            if self._stopped.is_set():
                self.piled_up = max(self.piled_up, self.sent - self.received)
                self._stopped.clear()
                self._held_up.set()

    def _wait_until_all_is_there(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.received == self.sent, SECONDS), "something is kept back"
        self.stops.append("writer")

    # The receiver.

    def receive(self, line: socket.socket, early: bytes = b"") -> None:
        """Receives all blocks and compares each. ``early`` came with what was read before.

        Raises:
            AssertionError: It isn't what was sent.
        """
        line.settimeout(SECONDS)
        stops = frozenset(self.reader_stops)
        take = Taker(line, early, self.chunks)
        got = bytearray(BLOCK)
        for number, block in enumerate(blocks(self.count)):
            if number in stops:
                self._wait_until_the_sender_is_held_up()
            view = memoryview(got)
            while view:
                done = take.some(view)
                assert done, f"it ends in block {number}"
                view = view[done:]
                self.received += done
                if self.received == self.sent:
                    with self._changed:
                        self._changed.notify()
            assert got == block, f"block {number} is another"
        take.end()

    def _wait_until_the_sender_is_held_up(self) -> None:
        self._held_up.clear()
        self._stopped.set()
        assert self._held_up.wait(SECONDS), "the sender is never held up"
        self.stops.append("reader")


class Taker:
    """Takes a body's bytes off a socket, and the framing of its chunks with them, however they are cut anew."""

    def __init__(self, line: socket.socket, early: bytes, chunks: bool) -> None:
        self._line = line
        self._early = early
        self._chunks = chunks
        self._left = 0
        self._first = True

    def some(self, view: memoryview) -> int:
        """Fills some of a buffer; 0 at the end."""
        if self._chunks:
            if not self._left and not self._next_chunk():
                return 0
            view = view[: self._left]
        done = self._into(view)
        self._left -= done
        return done

    def end(self) -> None:
        """Nothing more may come of the body."""
        if self._chunks:
            assert not self._left
            assert not self._next_chunk()

    def _next_chunk(self) -> bool:
        if not self._first:
            assert self._line_of() == b""
        self._first = False
        self._left = int(self._line_of(), 16)
        if not self._left:
            assert self._line_of() == b""
        return bool(self._left)

    def _line_of(self) -> bytes:
        while b"\r\n" not in self._early:
            piece = self._line.recv(4096)
            assert piece, "the chunks end in the middle"
            self._early += piece
        found, _, self._early = self._early.partition(b"\r\n")
        return found

    def _into(self, view: memoryview) -> int:
        if self._early:
            done = min(len(view), len(self._early))
            view[:done] = self._early[:done]
            self._early = self._early[done:]
            return done
        return self._line.recv_into(view)
