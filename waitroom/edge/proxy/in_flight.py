"""Limits the requests that a visitor behind a trusted proxy may have in flight without a pass.

Clients that connect directly are limited by their connections; a proxy's connections don't identify visitors.
"""

# mypyc: compile

from __future__ import annotations

from waitroom.edge.client.connection import ClientConnection
from waitroom.edge.http.message import Request
from waitroom.edge.outcomes import ExchangeOutcome, ForwardOutcome
from waitroom.edge.proxy.forward import Passage
from waitroom.edge.rooms.room import Room


class InFlight:
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

    def begin(self, whose: str) -> bool:
        """Counts one more, unless the maximum is reached."""
        count = self.counts.get(whose, 0)
        if count >= self._most:
            return False
        self.counts[whose] = count + 1
        return True

    def end(self, whose: str) -> None:
        """Reverts `begin`."""
        count = self.counts[whose] - 1
        if count:
            self.counts[whose] = count
        else:
            del self.counts[whose]


class CountedPassage(Passage):
    """The passage of a counted request; see `InFlight`."""

    __slots__ = ("_in_flight", "_whose")

    def __init__(
        self,
        in_flight: InFlight,
        whose: str,
        room: Room,
        client: ClientConnection,
        request: Request,
        outcome: ForwardOutcome,
        now: float,
        cookies: bytes,
    ) -> None:
        super().__init__(room, None, client, request, outcome, now, cookies)
        self._in_flight = in_flight
        self._whose = whose

    def ended(self, outcome: ExchangeOutcome) -> None:
        """See `Errand.ended`."""
        super().ended(outcome)
        self._in_flight.end(self._whose)
