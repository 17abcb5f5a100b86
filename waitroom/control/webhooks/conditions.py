"""The conditions of webhook events, derived from observations of a room. Pure: no clock and no I/O.

A condition, such as a failing shop, begins and ends. An event is sent only after it has held for some time, and the
end's threshold is further off than the start's, so that a room near the limit doesn't cause event after event. The
minimum is two seconds: each of several control processes has its own view, up to a second old, and one that lags must
not revert what another has reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from waitroom.control.monitoring.thresholds import ALERT, ALERT_ENDS_SHARE
from waitroom.queue.view import RoomState


@dataclass(frozen=True, slots=True)
class Observation:
    """The observation of a room at one moment.

    Attributes:
        store_up: Whether the store answers. If not, the figures of the queue are old.
        state: The room's state; None before the first view.
        waiting: The number of waiting visitors.
        requests_per_minute: Requests that the shop completed over the last minute, including failures.
        failures_per_minute: Those that failed.
        failing_elsewhere: Whether any gateway, this one included, has found the shop failing: each sees only its own
            requests.
    """

    store_up: bool
    state: RoomState | None
    waiting: int
    requests_per_minute: float
    failures_per_minute: float
    failing_elsewhere: bool = False

    def shop_fails(self, *, held: bool) -> bool | None:
        """Whether the shop is failing as seen from here; None if it received no requests."""
        if not held:
            return ALERT.reached(self.requests_per_minute, self.failures_per_minute)
        if not self.requests_per_minute:
            return None
        return self.failures_per_minute > ALERT_ENDS_SHARE * self.requests_per_minute


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that begins and ends.

    Attributes:
        name: The condition's name in the store.
        begins, ends: The events, as in the settings; an empty one isn't sent.
        begin_seconds, end_seconds: How long it must have held, or not held, before the event is sent.
        holds: Whether it holds, given an observation and whether it did before; None if unknown.
    """

    name: str
    begins: str
    ends: str
    begin_seconds: float
    end_seconds: float
    holds: Callable[[Observation, bool], bool | None]


def _queue(seen: Observation, _held: bool) -> bool | None:
    return seen.waiting > 0 if seen.store_up and seen.state is not None else None


def _paused(seen: Observation, _held: bool) -> bool | None:
    # Closing a paused room doesn't resume it.
    states = {RoomState.PAUSED: True, RoomState.OPEN: False}
    return states.get(seen.state) if seen.store_up and seen.state is not None else None


def _sold_out(seen: Observation, _held: bool) -> bool | None:
    return seen.state is RoomState.SOLD_OUT if seen.store_up and seen.state is not None else None


def _shop(seen: Observation, held: bool) -> bool | None:
    if held and seen.failing_elsewhere:
        return True
    return seen.shop_fails(held=held)


def _store(seen: Observation, _held: bool) -> bool | None:
    return not seen.store_up


CONDITIONS = (
    Condition("queue", "queue_formed", "queue_empty", 5.0, 30.0, _queue),
    Condition("paused", "paused", "resumed", 2.0, 2.0, _paused),
    Condition("sold_out", "sold_out", "", 2.0, 2.0, _sold_out),
    Condition("shop", "shop_failing", "shop_well", 5.0, 10.0, _shop),
    Condition("store", "store_lost", "store_back", 5.0, 5.0, _store),
)


class EdgeDetector:
    """Compares the state of one room with what was reported."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # since when a condition has differed from the reported one

    def due(self, reported: Mapping[str, bool], seen: Observation, now: float) -> list[Condition]:
        """Returns the conditions to report now. Each is returned again at the next observation, until it is reported.

        Args:
            reported: The reported state of each condition, by name; False if nothing was reported.
            seen: The current observation.
            now: The monotonic time in seconds.
        """
        found = []
        for condition in CONDITIONS:
            held = reported.get(condition.name, False)
            holds = condition.holds(seen, held)
            if holds is None or holds is held:
                self._since.pop(condition.name, None)
                continue
            since = self._since.setdefault(condition.name, now)
            if now - since >= (condition.begin_seconds if holds else condition.end_seconds):
                found.append(condition)
        return found
