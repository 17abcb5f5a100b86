"""The output of log lines: it never fails and never waits. A line that can't be written is lost, and nothing else.

The reader of a log may be gone (EPIPE), its disk full (ENOSPC), or a pipe full because nobody reads it. Python's own
streams raise an error in the first two cases, in whatever code has something to log, and wait forever in the third.
"""

from __future__ import annotations

import io
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

# A pipe that poll() reports as writable takes this many bytes without waiting (POSIX: PIPE_BUF).
PIECE_BYTES: Final = select.PIPE_BUF

Write = Callable[[memoryview], int]


class LogOutput(io.TextIOBase):
    """A text stream on a file descriptor. Its methods never raise, and never wait for a reader.

    Each line is written in one piece, as far as the descriptor allows it. Threads may share it.

    Args:
        descriptor: The file descriptor; None for a process without one, whose output is all lost.

    Attributes:
        lost: How many times something couldn't be written, or only a part of it.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor: int | None) -> None:
        self.lost = 0
        self._descriptor = descriptor
        # Reentrant: a finalizer may report an error in the middle of a write.
        self._lock = threading.RLock()
        self._unfinished = ""  # the beginning of a line
        self._cut = False  # whether the last line was written without its end
        self._owned: list[Callable[[], None]] = []
        self._put: Write = _discard if descriptor is None else self._open(descriptor)

    def write(self, text: str) -> int:
        """Writes the complete lines so far. Returns the number of characters, also if they are lost."""
        with self._lock:
            lines, end, rest = (self._unfinished + text).rpartition("\n")
            self._unfinished = rest
            if end:
                self._emit(lines + end)
        return len(text)

    def flush(self) -> None:
        """Writes an incomplete line, too."""
        with self._lock:
            text, self._unfinished = self._unfinished, ""
            if text:
                self._emit(text)

    def writable(self) -> bool:
        """Returns True: it never fails."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._descriptor is not None and os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Returns the descriptor. Raises `OSError` if there is none."""
        if self._descriptor is None:
            raise io.UnsupportedOperation("no file descriptor")
        return self._descriptor

    def close(self) -> None:
        """Closes what it opened itself. The descriptor stays open; what is written from now on is lost."""
        self.flush()
        self._put = _discard
        while self._owned:
            self._owned.pop()()

    def _emit(self, text: str) -> None:
        data = text.encode(self.encoding, self.errors)
        if self._cut:
            data = b"\n" + data
        left = memoryview(data)
        try:
            while left:
                written = self._put(left)
                left = left[written:]
                if not written:
                    raise OSError("nothing was written")
        except OSError:
            self.lost += 1
        if len(left) < len(data):
            self._cut = bool(left)

    def _open(self, descriptor: int) -> Write:
        """Returns a function that writes at least a byte without waiting, or raises `OSError`."""
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISSOCK(mode):  # such as the journal's
                connection = socket.socket(fileno=os.dup(descriptor))
                self._owned.append(connection.close)
                return lambda data: connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            if stat.S_ISFIFO(mode) or os.isatty(descriptor):
                return self._reopen(descriptor) or (lambda data: _write_if_ready(descriptor, data))
        except OSError:
            return _discard
        return lambda data: os.write(descriptor, data)

    def _reopen(self, descriptor: int) -> Write | None:
        """Opens a pipe or terminal again, not to wait for it.

        O_NONBLOCK on the descriptor itself would also apply to the other processes that share it, such as a shell.
        """
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_APPEND | os.O_CLOEXEC
        try:
            ours = os.open(f"/proc/self/fd/{descriptor}", flags)
        except OSError:  # there is no /proc, or another user opened it, or nobody reads the pipe
            return None
        self._owned.append(lambda: os.close(ours))
        return lambda data: os.write(ours, data)


def replace_standard_streams() -> None:
    """Makes standard output and standard error of this process a `LogOutput` each. Idempotent.

    Tracebacks and the log lines of libraries go the same way, and so can't end the process or make it wait either.
    """
    sys.stdout = _replacement(sys.stdout)
    sys.stderr = _replacement(sys.stderr)


def _replacement(stream: Any) -> Any:
    if isinstance(stream, LogOutput):
        return stream
    if stream is None:  # the descriptor was closed when the process started, and may be another file by now
        return LogOutput(None)
    try:
        stream.flush()
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream
    return LogOutput(descriptor)


def _write_if_ready(descriptor: int, data: memoryview) -> int:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(descriptor, data[:PIECE_BYTES])


def _discard(data: memoryview) -> int:
    return len(data)
