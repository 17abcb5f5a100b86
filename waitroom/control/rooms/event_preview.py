"""Previews the effect of a change of an event, computed from one view of the room and its events. No clock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from waitroom.control.rooms.event_presenter import AUTO, HELD, NOTHING, limits_json, moment
from waitroom.control.rooms.preview import Preview, changed_view, people, waits, warnings_of
from waitroom.queue.fields import AUTOPILOT, EVENT_LIMITS, MAX_ACTIVE, RATE
from waitroom.queue.schedule import Event, EventRecord, Phase, phase_at
from waitroom.queue.view import RoomState, RoomView, lifted_state, own_state_after, state_in_force

_TIMES = (("prequeue_start", "prequeue_ms"), ("start", "start_ms"), ("end", "end_ms"))
_OTHERS = ("title", "method", "before", "after", "units")


@dataclass(frozen=True, slots=True)
class EventRoom:
    """A room, as far as its events matter.

    Attributes:
        view: The current view.
        records: Its events.
        limits: Its limits without an event, and whether its autopilot is on, by public name.
        in_force: The same as of now.
    """

    view: RoomView
    records: Sequence[EventRecord]
    limits: Mapping[str, Any]
    in_force: Mapping[str, Any]

    @property
    def now_ms(self) -> int:
        """The store's wall clock."""
        return self.view.wall_ms


def preview_set(room: EventRoom, event: Event, current: EventRecord | None) -> Preview:
    """Previews a new event or a changed one; ``current`` is its record before, None for a new one."""
    sentences = [_plan(event) if current is None else _differences(current.event, event)]
    warnings = []
    record = _record_after(event, current, room.now_ms)
    after = _after_set(room, record)
    if after.state is RoomState.CLOSED and room.view.state is not RoomState.CLOSED:
        waiting = f" {people(room.view.waiting)} waiting are told so." if room.view.waiting else ""
        warnings.append(f"The room closes now, until the event lets visitors in.{waiting}")
    elif after.state is not room.view.state:
        sentences.append(_state_change(room.view, after))
    if record.phase is Phase.RUNNING:
        sentences += _limit_sentence(room.in_force, {**room.limits, **event.limits}, "Immediately")
    else:
        sentences += _limit_sentence(room.limits, {**room.limits, **event.limits}, "While it runs")
        warnings += _hold_warning(room, record)
    if event.after != "open" and (current is None or current.event.after != event.after):
        sentences.append("At its end, visitors who still wait lose their places.")
    return _preview(room, after, sentences, warnings)


def preview_start(room: EventRoom, record: EventRecord) -> Preview:
    """Previews that an event starts now."""
    event, view = record.event, room.view
    until = "It runs until you end it." if event.end_ms is None else f"It ends at {moment(event.end_ms)}."
    sentences = [f'The event "{event.name}" starts now. {until}']
    if record.phase is Phase.SCHEDULED and event.prequeue_ms is not None:
        sentences.append("Its prequeue is left out.")
    own_state = _opened_state(view, record)
    limits = {**room.limits, **event.limits}
    after = _with_limits(replace(view, own_state=own_state, state=own_state), limits)
    warnings = []
    if own_state in HELD:
        warnings.append(f"The room stays {HELD[own_state]}: nobody is called until you open it.")
    else:
        sentences.append(_calls(after, limits, prequeue=record.phase is Phase.PREQUEUE))
    if record.phase is Phase.PREQUEUE and event.method == "random" and view.waiting:
        sentences.append("The order of the prequeue is drawn at random; newcomers stand behind it.")
    sentences += _limit_sentence(room.limits, limits, "Until it ends")
    if event.units is not None:
        sentences.append(f"The number of units left is set to {event.units:,}.")
    return _preview(room, after, sentences, warnings)


def preview_end(room: EventRoom, record: EventRecord) -> Preview:
    """Previews that the running event ends now."""
    event, view = record.event, room.view
    planned = "" if event.end_ms is None else f", not at {moment(event.end_ms)}"
    sentences = [f'The event "{event.name}" ends now{planned}.']
    warnings = []
    own_state = own_state_after(view, event)
    after = _with_limits(replace(view, own_state=own_state, state=own_state), room.limits)
    waiting = view.waiting + view.called + view.away
    if event.after != "open":
        after = replace(after, waiting=0, called=0, away=0)
        sentences.append(f"The room is {HELD[own_state]} then. {people(view.active)} in the shop stay.")
        if waiting:
            warnings.append(f"{people(waiting)} waiting or called lose their places.")
    elif own_state in HELD:
        sentences.append(f"The room stays {HELD[own_state]}. {people(view.active)} in the shop stay.")
    else:
        sentences.append(f"The room is open. {_calls(after, room.limits, prequeue=False)}")
    sentences += _limit_sentence(room.in_force, room.limits, "Back to the values from before the event")
    following = _next_after(room, record)
    if following is not None:
        sentences.append(_following(following))
        after = replace(after, state=state_in_force(own_state, following))
    return _preview(room, after, sentences, warnings)


def preview_cancel(room: EventRoom, record: EventRecord) -> Preview:
    """Previews that an event won't take place."""
    view = room.view
    is_current = view.event is not None and view.event.event.name == record.event.name
    following = _next_after(room, record) if is_current else None
    sentences = [f'The event "{record.event.name}" doesn\'t take place.']
    warnings = []
    keeps_closed = is_current and view.state is not view.own_state
    own_state = RoomState.CLOSED if keeps_closed else view.own_state
    state = state_in_force(own_state, following if is_current else view.event)
    if keeps_closed:
        sentences.append("The room stays closed until you open it.")
        if view.waiting:
            warnings.append(f"{people(view.waiting)} waiting keep their places and are told that the room is closed.")
        if following is not None:
            warnings.append(
                f'A closed room stays closed: open it before the event "{following.event.name}", '
                f"at {moment(following.event.opens_ms)}."
            )
    elif state is view.state:
        sentences.append("Nothing changes for visitors now.")
    else:
        warnings.append(f"The room is {HELD.get(state, str(state))} now.")
    if following is not None:
        sentences.append(_following(following))
    return _preview(room, replace(view, own_state=own_state, state=state), sentences, warnings)


def _preview(room: EventRoom, after: RoomView, sentences: Sequence[str], warnings: Sequence[str]) -> Preview:
    effects = warnings_of(room.view, after, autopilot_off=False)
    return Preview(waits(room.view), waits(after), " ".join(sentences), (*warnings, *effects))


# The room after a change.


def _record_after(event: Event, current: EventRecord | None, now_ms: int) -> EventRecord:
    if current is not None:
        return replace(current, event=event, phase=phase_at(event, now_ms, current.phase))
    return EventRecord(event, phase_at(event, now_ms), "operator", False, None, None, None, {}, {}, {})


def _after_set(room: EventRoom, record: EventRecord) -> RoomView:
    others = [one for one in room.records if one.event.name != record.event.name]
    own_state = room.view.own_state
    if record.phase is Phase.PREQUEUE:
        own_state = _opened_state(room.view, record)
    state = state_in_force(own_state, _current([*others, record]))
    after = replace(room.view, own_state=own_state, state=state)
    return _with_limits(after, {**room.limits, **record.event.limits}) if record.phase is Phase.RUNNING else after


def _current(records: Sequence[EventRecord]) -> EventRecord | None:
    """The event that counts now: the one in progress, else the next. See ``choose_event`` in ``schedule.lua``."""
    planned = [one for one in records if one.phase is not Phase.ENDED]
    return min(planned, key=lambda one: (one.phase is Phase.SCHEDULED, one.event.start_ms), default=None)


def _next_after(room: EventRoom, record: EventRecord) -> EventRecord | None:
    return _current([one for one in room.records if one.event.name != record.event.name])


def _with_limits(view: RoomView, limits: Mapping[str, Any]) -> RoomView:
    return changed_view(view, {field.name: limits[field.name] for field in (RATE, MAX_ACTIVE)})


def _opened_state(view: RoomView, record: EventRecord) -> RoomState:
    """The room's own state when the event has opened it: one that an operator has paused or closed stays so."""
    if record.phase is Phase.PREQUEUE and record.prequeue_at_ms is not None:
        return view.own_state  # the prequeue has opened already
    return lifted_state(view)


# Sentences.


def _plan(event: Event) -> str:
    parts = [] if event.prequeue_ms is None else [f"prequeue from {moment(event.prequeue_ms)}"]
    parts.append(f"start at {moment(event.start_ms)}")
    parts.append("no end" if event.end_ms is None else f"end at {moment(event.end_ms)}")
    return f'New event "{event.name}": {", ".join(parts)}.'


def _differences(before: Event, after: Event) -> str:
    changes = [
        f"{name} {moment(was)} → {moment(now)}"
        for name, attribute in _TIMES
        if (was := getattr(before, attribute)) != (now := getattr(after, attribute))
    ]
    changes += [
        f"{name} {_value(was)} → {_value(now)}"
        for name in _OTHERS
        if (was := getattr(before, name)) != (now := getattr(after, name))
    ]
    if before.limits != after.limits:
        changes.append("limits")
    return f'Changes of the event "{after.name}": {", ".join(changes)}.' if changes else "Nothing changes."


def _state_change(before: RoomView, after: RoomView) -> str:
    if after.state is RoomState.PREQUEUE:
        return "The prequeue opens now."
    return "The room opens now." if before.state is RoomState.CLOSED else f"The room is {after.state} now."


def _limit_sentence(before: Mapping[str, Any], after: Mapping[str, Any], when: str) -> list[str]:
    was, now = limits_json(before), limits_json(after)
    changes = [
        f"{field.name} {_value(was.get(field.name))} → {_value(now.get(field.name))}"
        for field in EVENT_LIMITS
        if was.get(field.name) != now.get(field.name)
    ]
    sentences = [f"{when}: {', '.join(changes)}."] if changes else []
    if before.get(AUTOPILOT.name) and not after.get(AUTOPILOT.name):
        sentences.append("The autopilot goes off.")
    elif after.get(AUTOPILOT.name) and not before.get(AUTOPILOT.name):
        sentences.append("The autopilot goes on.")
    return sentences


def _calls(after: RoomView, limits: Mapping[str, Any], *, prequeue: bool) -> str:
    rate = after.rate_per_minute
    pace = f"{_value(rate)} per minute"
    if limits_json(limits).get(RATE.name) == AUTO:
        pace = f"the autopilot's rate, {pace} now"
    if not after.waiting:
        return f"Nobody waits; newcomers are admitted at {pace}."
    where = "in the prequeue " if prequeue else ""
    last = "" if rate <= 0 else f", the last one after {_duration(after.waiting / rate * 60)} at that rate"
    return (
        f"{people(after.waiting)} waiting {where}are called from now on at {pace}{last}; "
        f"at most {after.max_active:,} are in the shop at the same time."
    )


def _hold_warning(room: EventRoom, record: EventRecord) -> list[str]:
    own_state = _opened_state(room.view, record)
    if own_state not in HELD:
        return []
    return [f"The room is {HELD[own_state]} by an operator, and the event doesn't open it: open it before the start."]


def _following(record: EventRecord) -> str:
    event = record.event
    opens = "start" if event.prequeue_ms is None else "prequeue"
    closed = ", and keeps the room closed until then" if event.before == "closed" else ""
    return f'The event "{event.name}" follows, with its {opens} at {moment(event.opens_ms)}{closed}.'


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    if minutes <= 1:
        return "less than a minute"
    return f"about {minutes} min" if minutes < 120 else f"about {minutes // 60} h {minutes % 60} min"


def _value(value: object) -> str:
    if value is None or value == "":
        return NOTHING
    return f"{value:,.10g}" if isinstance(value, float | int) else str(value)
