"""The bytes that the kernel has yet to send on a connection."""

# mypyc: compile

from __future__ import annotations

import fcntl
import struct
import termios


def unacknowledged(descriptor: int) -> int:
    """How many bytes wait in the socket's send queue, or are on their way; 0 where the system doesn't say.

    A slow client empties megabytes of the system's buffer before the loop may write again. Seen from the loop alone it
    would take nothing meanwhile.
    """
    try:
        (size,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))
    except (OSError, ValueError):  # it may be closed already
        return 0
    return int(size)
