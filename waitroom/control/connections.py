"""The connections of the admin listener: how many there may be, and which one has to go for another. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Connection = TypeVar("Connection")


@dataclass(slots=True)
class _State:
    neighbourhood: str
    idle_since: float | None


class Connections(Generic[Connection]):
    """Counts connections. Where there are too many, the one that has been idle for longest is closed for a new one.

    A connection is idle while no request is in progress, even if part of a head has arrived.

    Args:
        most: The maximum number of connections.
        most_each: The maximum number from one neighbourhood.
    """

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._states: dict[Connection, _State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def add(self, connection: Connection, neighbourhood: str, now: float) -> Connection | None:
        """Counts a connection. Returns the one that has to be closed, if any: an idle one, or else this one.

        Args:
            connection: The connection.
            neighbourhood: Its neighbourhood; "" for a proxy, which may have all connections.
            now: Seconds of any clock that never goes back.
        """
        own = [one for one, state in self._states.items() if neighbourhood and state.neighbourhood == neighbourhood]
        closed = None
        if len(own) >= self._most_each:
            closed = self._longest_idle(own)
        elif len(self._states) >= self._most:
            closed = self._longest_idle(self._states)
        else:
            self._states[connection] = _State(neighbourhood, now)
            return None
        if closed is None:
            return connection
        del self._states[closed]
        self._states[connection] = _State(neighbourhood, now)
        return closed

    def mark_busy(self, connection: Connection) -> None:
        """A request is in progress on a connection."""
        if connection in self._states:
            self._states[connection].idle_since = None

    def mark_idle(self, connection: Connection, now: float) -> None:
        """The request has been handled."""
        if connection in self._states:
            self._states[connection].idle_since = now

    def remove(self, connection: Connection) -> None:
        """A connection has ended."""
        self._states.pop(connection, None)

    def _longest_idle(self, connections: Iterable[Connection]) -> Connection | None:
        idle = [
            (since, number, one)
            for number, one in enumerate(connections)
            if (since := self._states[one].idle_since) is not None
        ]
        return min(idle, default=(0.0, 0, None))[2]
