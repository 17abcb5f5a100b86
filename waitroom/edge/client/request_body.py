"""The body of a client's request: decoded, buffered until the request goes to the shop, and timed."""

# mypyc: compile

from __future__ import annotations

from waitroom.edge.client.body_buffer import BodyBuffer, BufferBudget
from waitroom.edge.client.minimum_rate import MinimumRate
from waitroom.edge.http.framing import NO_BODY, Body, ChunkedBody, LengthBody
from waitroom.edge.http.message import Request, Trailers


class RequestBody:
    """The body of the request in progress. One object serves all requests of a connection.

    Attributes:
        buffer: The part that has been buffered and not been forwarded yet; None for most requests.
        buffering_ends: The time at which the request goes to the shop, complete or not; 0 unless it is being buffered.
    """

    __slots__ = ("_decoder", "_rate", "_received", "buffer", "buffering_ends")

    def __init__(self) -> None:
        self._decoder: Body = NO_BODY
        self._rate: MinimumRate | None = None
        self._received = 0  # bytes since the rate was last checked
        self.buffer: BodyBuffer | None = None
        self.buffering_ends = 0.0

    def begin(self, request: Request) -> None:
        """Expects the body of a new request."""
        if request.chunked:
            self._decoder = ChunkedBody(400)
        else:
            self._decoder = LengthBody(request.content_length) if request.content_length else NO_BODY

    def is_complete(self) -> bool:
        """Whether all of it has been decoded."""
        return self._decoder.done

    def trailers(self) -> Trailers:
        """The trailers, once it is complete."""
        return self._decoder.trailers

    def decode(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See `Body.feed`."""
        return self._decoder.feed(data)

    # The buffer.

    def begin_buffering(self, budget: BufferBudget, wanted: int, ends: float) -> None:
        """Buffers that many bytes before the request goes to the shop, or as many as arrive in time."""
        self.buffer = BodyBuffer(budget, wanted)
        self.buffering_ends = ends

    def take_buffer(self) -> bytes | None:
        """Returns all the buffered bytes and ends the buffer; None if there is none."""
        buffer, self.buffer = self.buffer, None
        return None if buffer is None else buffer.take()

    def discard(self) -> None:
        """Drops what is buffered, and no longer times it."""
        self.buffering_ends = 0.0
        self._rate = None
        buffer, self.buffer = self.buffer, None
        if buffer is not None:
            buffer.drop()

    # Its rate.

    def begin_timing(self, min_bytes_per_second: float) -> None:
        """Requires a minimum rate from now on."""
        self._received = 0
        self._rate = MinimumRate(min_bytes_per_second)

    def is_timed(self) -> bool:
        """Whether more of it must arrive at a minimum rate."""
        return self._rate is not None and not self._decoder.done

    def count_received(self, size: int) -> None:
        """Counts bytes that have arrived for the shop."""
        self._received += size

    def count_rate(self) -> None:
        """Counts what has arrived since the last call towards the rate."""
        if self._rate is not None:
            self._rate.add_bytes(self._received)
        self._received = 0

    def arrives_fast_enough(self, seconds: float) -> bool:
        """Counts time spent waiting for the client; False if it has sent too slowly."""
        return self._rate is None or self._rate.add_waiting_time(seconds)
