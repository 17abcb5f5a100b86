"""Previews the effect of a change on waiting visitors, computed from one view of the room. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from waitroom.queue.fields import STATE
from waitroom.queue.positions import Forecast
from waitroom.queue.view import RoomState, RoomView, state_in_force
from waitroom.wait_range import short_wait

Wait = tuple[int, int] | None

# A larger increase of the rate in one step causes a warning.
STEEP = 2.0


@dataclass(frozen=True, slots=True)
class Waits:
    """Minimum and maximum in seconds, for a visitor who joins now and for the middle of the queue; None if unknown."""

    newcomer: Wait
    middle: Wait


@dataclass(frozen=True, slots=True)
class Preview:
    """The waits now and after the change, a summary, and warnings."""

    now: Waits
    after: Waits
    summary: str
    warnings: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """Returns the preview in the API's format."""
        return asdict(self)


def changed_view(view: RoomView, values: Mapping[str, Any]) -> RoomView:
    """Returns the room as it would be right after a change of some fields, given by name.

    A new state is the room's own: an event may keep the room closed or in its prequeue all the same.
    """
    after = replace(view, **values)
    if STATE.name in values:
        own_state = values[STATE.name]
        after = replace(after, own_state=own_state, state_by="", state=state_in_force(own_state, view.event))
    return replace(after, throughput=replace(after.throughput, slots=after.max_active))


def preview_of(
    before: RoomView, after: RoomView, *, autopilot_off: bool = False, schedule: Sequence[str] = ()
) -> Preview:
    """Compares a room before and after a change.

    Args:
        before: The current state.
        after: The state after the change, see `changed_view`.
        autopilot_off: Whether the change would switch the autopilot off.
        schedule: Sentences on how the room's event limits the effect; see `waitroom.control.rooms.event_effects`.
    """
    now, later = waits(before), waits(after)
    warnings = warnings_of(before, after, autopilot_off=autopilot_off)
    return Preview(now, later, " ".join([_summary(before, after, now, later), *schedule]), warnings)


def waits(view: RoomView) -> Waits:
    """Returns the waits of a room; all None if it admits nobody."""
    if view.state is not RoomState.OPEN or view.rate_per_minute <= 0 or view.method != "fifo":
        return Waits(None, None)
    forecast = Forecast(view.rate_per_minute, view.throughput, view.free_slots)
    middle = forecast.wait((view.waiting + 1) // 2) if view.waiting else None
    return Waits(forecast.wait(view.waiting + 1), middle)


def _summary(before: RoomView, after: RoomView, now: Waits, later: Waits) -> str:
    if after.method == "reject":
        return "This room admits nobody, whatever its state and its limits: its method is reject."
    if after.state is RoomState.PAUSED:
        if after.draining:
            return f"Admissions stop. The drain ends when {people(before.active)} in the shop have left."
        return f"Admissions stop. {people(before.waiting)} waiting and {people(before.active)} in the shop stay."
    if after.state is RoomState.PREQUEUE:
        return "The prequeue stays open." if before.state is after.state else "The prequeue opens."
    if after.state in (RoomState.CLOSED, RoomState.SOLD_OUT):
        told = "closed" if after.state is RoomState.CLOSED else "sold out"
        if before.state is after.state:
            return f"The room stays {told}."
        return f"{people(before.waiting)} waiting are told that it is {told}; {people(before.active)} in the shop stay."
    if after.method == "passthrough":
        return "This room has no queue, whatever its limits."
    if later.newcomer is None:
        return "The wait of a newcomer is not known yet."
    would = f"A newcomer would wait {short_wait(*later.newcomer)}"
    if before.state is not RoomState.OPEN:
        return f"Admissions resume. {would}."
    if now.newcomer is None:
        return f"{would}; the present wait is unknown."
    if short_wait(*now.newcomer) == short_wait(*later.newcomer):
        return f"{would}, as now."
    return f"{would} instead of {short_wait(*now.newcomer)}."


def warnings_of(before: RoomView, after: RoomView, *, autopilot_off: bool) -> tuple[str, ...]:
    """Returns warnings of a change, from the room before and after it."""
    found = []
    if autopilot_off:
        found.append("The autopilot is switched off: the rate stays as you set it.")
    if after.rate_per_minute > before.rate_per_minute * STEEP > 0:
        times = after.rate_per_minute / before.rate_per_minute
        found.append(f"The rate rises {times:.3g} times in one step; it reaches the shop within a second.")
    taken = before.active + before.called
    if after.max_active < taken:
        found.append(
            f"{taken:,} visitors are active or called: nobody is removed, and nobody is admitted until "
            f"{taken - after.max_active:,} have left."
        )
    released = after.throughput.released_per_second
    if after.state is RoomState.OPEN and released is not None and after.free_slots <= 0 and before.waiting:
        released_per_minute = released * 60
        if after.rate_per_minute > released_per_minute * 1.1:
            found.append(
                f"The room is full, and about {released_per_minute:,.3g} visitors leave per minute: max_active is the "
                "limit, not the rate."
            )
    if after.state in (RoomState.CLOSED, RoomState.SOLD_OUT) and before.called and before.state is not after.state:
        found.append(f"{people(before.called)} already called can't enter while this lasts.")
    return tuple(found)


def people(count: int) -> str:
    """Returns a number of visitors in words."""
    return "1 visitor" if count == 1 else f"{count:,} visitors"
