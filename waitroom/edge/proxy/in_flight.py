"""Limits the requests that a visitor behind a trusted proxy may have in flight without a pass.

Clients that connect directly are limited by their connections; a proxy's connections don't identify visitors.
"""

# mypyc: compile

from __future__ import annotations

from waitroom.edge.client.interfaces import Client
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.message import Request
from waitroom.edge.outcomes import ExchangeOutcome, ForwardOutcome
from waitroom.edge.proxy.forward import RoomForward
from waitroom.edge.rooms.room import Room


class InFlightLimiter:
    """Counts requests in flight by visitor.

    Args:
        most: The maximum for each.

    Attributes:
        counts: The counts of those that have any.
    """

    __slots__ = ("_most", "counts")

    def __init__(self, most: int) -> None:
        self._most = most
        self.counts: dict[str, int] = {}

    def acquire(self, visitor: str) -> bool:
        """Counts one more, unless the maximum is reached."""
        count = self.counts.get(visitor, 0)
        if count >= self._most:
            return False
        self.counts[visitor] = count + 1
        return True

    def release(self, visitor: str) -> None:
        """Reverts `acquire`."""
        count = self.counts[visitor] - 1
        if count:
            self.counts[visitor] = count
        else:
            del self.counts[visitor]


class CountedForward(RoomForward):
    """The forwarding of a counted request; see `InFlightLimiter`."""

    __slots__ = ("_in_flight", "_visitor")

    def __init__(
        self,
        in_flight: InFlightLimiter,
        visitor: str,
        room: Room,
        client: Client,
        request: Request,
        outcome: ForwardOutcome,
        now: float,
        cookies: HeaderBlock,
    ) -> None:
        super().__init__(room, None, client, request, outcome, now, cookies)
        self._in_flight = in_flight
        self._visitor = visitor

    def on_end(self, outcome: ExchangeOutcome) -> None:
        """See `ExchangeHooks.on_end`."""
        super().on_end(outcome)
        self._in_flight.release(self._visitor)
