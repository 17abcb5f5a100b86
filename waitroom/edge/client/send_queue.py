"""The bytes that the kernel has yet to send on a connection."""

# mypyc: compile

from __future__ import annotations

import fcntl
import struct
import termios


def unacknowledged(descriptor: int) -> int:
    """How many bytes are unsent or unacknowledged in the socket's send queue; 0 if the system doesn't say.

    A slow client empties megabytes of the system's buffer before the event loop may write again. To the loop it would
    seem to read nothing in that time.
    """
    try:
        (size,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))
    except (OSError, ValueError):  # it may be closed already
        return 0
    return int(size)
