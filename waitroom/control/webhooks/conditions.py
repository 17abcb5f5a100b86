"""What is worth telling of a room: looks at it, made into events. Pure: no clock and no I/O.

A condition, such as a shop that fails, begins and ends. Either is told only once it has held for some time, and what
ends a condition is further off than what begins it, so that a room at the border of one isn't told of again and again.
It must hold for two seconds at the least: of several control processes each has a view of its own, up to a second old,
and one that lags must not take back what another has told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from waitroom.control.monitoring.thresholds import ALERT, ALERT_ENDS_SHARE
from waitroom.queue.view import RoomState


@dataclass(frozen=True, slots=True)
class Look:
    """A room at one moment.

    Attributes:
        store_up: Whether the store answers. If not, what follows of the line is old.
        state: What was said of the room; None before it was first seen.
        waiting: How many are in the line.
        requests_per_minute: That the shop was done with, over the last minute, those that failed included.
        failures_per_minute: Of these.
        failing_elsewhere: Whether a gateway finds that the shop fails, this one or another: each knows only of the
            requests that went through itself.
    """

    store_up: bool
    state: RoomState | None
    waiting: int
    requests_per_minute: float
    failures_per_minute: float
    failing_elsewhere: bool = False

    def shop_fails(self, *, held: bool) -> bool | None:
        """Whether the shop fails as seen from here; None where nobody asked it for anything."""
        if not held:
            return ALERT.reached(self.requests_per_minute, self.failures_per_minute)
        if not self.requests_per_minute:
            return None
        return self.failures_per_minute > ALERT_ENDS_SHARE * self.requests_per_minute


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that begins and ends.

    Attributes:
        name: Its name in the store.
        begins, ends: The events, as the settings name them; an empty one isn't told.
        begin_seconds, end_seconds: For how long it must have held, or not held, before that is told.
        holds: Whether it holds, from a look and whether it did; None where that can't be told.
    """

    name: str
    begins: str
    ends: str
    begin_seconds: float
    end_seconds: float
    holds: Callable[[Look, bool], bool | None]


def _queue(look: Look, _held: bool) -> bool | None:
    return look.waiting > 0 if look.store_up and look.state is not None else None


def _paused(look: Look, _held: bool) -> bool | None:
    # Who closes a paused room hasn't resumed it.
    said = {RoomState.PAUSED: True, RoomState.OPEN: False}
    return said.get(look.state) if look.store_up and look.state is not None else None


def _sold_out(look: Look, _held: bool) -> bool | None:
    return look.state is RoomState.SOLD_OUT if look.store_up and look.state is not None else None


def _shop(look: Look, held: bool) -> bool | None:
    if held and look.failing_elsewhere:
        return True
    return look.shop_fails(held=held)


def _store(look: Look, _held: bool) -> bool | None:
    return not look.store_up


CONDITIONS = (
    Condition("queue", "queue_formed", "queue_empty", 5.0, 30.0, _queue),
    Condition("paused", "paused", "resumed", 2.0, 2.0, _paused),
    Condition("sold_out", "sold_out", "", 2.0, 2.0, _sold_out),
    Condition("shop", "shop_failing", "shop_well", 5.0, 10.0, _shop),
    Condition("store", "store_lost", "store_back", 5.0, 5.0, _store),
)


class Changes:
    """Finds what has changed in one room against what was told of it."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # since when a condition has been otherwise than it was told

    def find(self, told: Mapping[str, bool], look: Look, now: float) -> list[Condition]:
        """The conditions that are to be told of now. Each is found again at the next look, until it was told.

        Args:
            told: Whether each condition holds as far as was told, by name; False where nothing was.
            look: The room now.
            now: The monotonic time in seconds.
        """
        found = []
        for condition in CONDITIONS:
            held = told.get(condition.name, False)
            holds = condition.holds(look, held)
            if holds is None or holds is held:
                self._since.pop(condition.name, None)
                continue
            since = self._since.setdefault(condition.name, now)
            if now - since >= (condition.begin_seconds if holds else condition.end_seconds):
                found.append(condition)
        return found
