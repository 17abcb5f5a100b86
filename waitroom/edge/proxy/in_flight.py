"""How many requests a visitor behind a trusted proxy may have under way without a pass.

Those who connect themselves are bounded by their connections; a proxy's connections tell nobody apart.
"""

# mypyc: compile

from __future__ import annotations

from waitroom.edge.client.connection import ClientConnection
from waitroom.edge.http.message import Request
from waitroom.edge.proxy.forward import Passage
from waitroom.edge.rooms.room import Room


class InFlight:
    """Counts requests under way, by whose they are.

    Args:
        most: Of each.

    Attributes:
        counts: Those that have any.
    """

    __slots__ = ("_most", "counts")

    def __init__(self, most: int) -> None:
        self._most = most
        self.counts: dict[str, int] = {}

    def begin(self, whose: str) -> bool:
        """Counts one more, unless there are too many."""
        count = self.counts.get(whose, 0)
        if count >= self._most:
            return False
        self.counts[whose] = count + 1
        return True

    def end(self, whose: str) -> None:
        """Undoes `begin`."""
        count = self.counts[whose] - 1
        if count:
            self.counts[whose] = count
        else:
            del self.counts[whose]


class CountedPassage(Passage):
    """The passage of a request that was counted; see `InFlight`."""

    __slots__ = ("_in_flight", "_whose")

    def __init__(
        self,
        in_flight: InFlight,
        whose: str,
        room: Room,
        client: ClientConnection,
        request: Request,
        outcome: str,
        now: float,
        cookies: bytes,
    ) -> None:
        super().__init__(room, None, client, request, outcome, now, cookies)
        self._in_flight = in_flight
        self._whose = whose

    def ended(self, outcome: str) -> None:
        """See `Errand.ended`."""
        super().ended(outcome)
        self._in_flight.end(self._whose)
