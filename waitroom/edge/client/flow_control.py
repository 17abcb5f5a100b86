"""Back-pressure on a client connection, in both directions."""

# mypyc: compile

from __future__ import annotations

import asyncio
from typing import Final

from waitroom.edge.client.minimum_rate import MinimumRate
from waitroom.edge.client.send_queue import unacknowledged

_NEVER: Final = float("inf")


class FlowControl:
    """Decides whether to read from a client, and measures how fast it reads what is sent to it.

    Args:
        transport: The client's transport.

    Attributes:
        paused_by_backlog: Whether to read no more, because more has arrived than can be handled now.
        paused_by_upstream: Whether to read no more, because the shop takes no more of the request's body.
        write_paused: Whether to write no more, because the client doesn't read fast enough.
    """

    __slots__ = (
        *("_rate", "_transport", "_unread", "_unread_at_expiry", "paused_by_backlog", "paused_by_upstream"),
        "write_paused",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._rate: MinimumRate | None = None
        self._unread = 0  # when it was last counted
        self._unread_at_expiry = _NEVER
        self.paused_by_backlog = False
        self.paused_by_upstream = False
        self.write_paused = False

    # Reading.

    def update_reading(self) -> None:
        """Reads if nothing pauses it."""
        transport = self._transport
        if transport.is_closing():
            return
        wanted = not (self.paused_by_upstream or self.paused_by_backlog)
        if wanted != transport.is_reading():
            if wanted:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def begin_lingering(self) -> None:
        """Reads everything from now on, and restarts the measurement of the client's progress."""
        self._unread_at_expiry = _NEVER
        self.paused_by_upstream = self.paused_by_backlog = False
        self.update_reading()

    # Writing.

    def pause_writing(self, min_bytes_per_second: float) -> None:
        """The client can't take more for now. ``min_bytes_per_second`` is the rate at which it must read; 0 for any."""
        self.write_paused = True
        self._unread = self._count_unread()
        self._unread_at_expiry = float(self._unread)
        if min_bytes_per_second and self._rate is None:
            self._rate = MinimumRate(min_bytes_per_second)

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        self.write_paused = False
        if self._rate is not None:
            self._rate.add_bytes(max(0, self._unread - self._count_unread()))

    def has_minimum_rate(self) -> bool:
        """Whether the client is waited for, and must read at a minimum rate."""
        return self.write_paused and self._rate is not None

    def reads_fast_enough(self, seconds: float) -> bool:
        """Counts time spent waiting for the client; False if it has read too slowly."""
        rate = self._rate
        if rate is None:
            return True
        unread = self._count_unread()
        rate.add_bytes(max(0, self._unread - unread))
        self._unread = unread
        return rate.add_waiting_time(seconds)

    def has_progressed(self) -> bool:
        """Whether something is left to read, and the client has read some since the last call, however little."""
        unread, before = float(self._count_unread()), self._unread_at_expiry
        self._unread_at_expiry = unread
        return self._transport.get_write_buffer_size() > 0 and unread < before

    def _count_unread(self) -> int:
        """How many bytes the client has yet to read, including the system's buffer, which holds megabytes."""
        unread = self._transport.get_write_buffer_size()
        socket = self._transport.get_extra_info("socket")
        return unread if socket is None else unread + unacknowledged(socket.fileno())
