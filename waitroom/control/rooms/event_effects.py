"""How the current event of a room limits the effect of a change of the room, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waitroom.control.rooms.event_presenter import AUTO, HELD, limits_json, moment
from waitroom.queue.fields import AUTOPILOT, MAX_ACTIVE, RATE, STATE
from waitroom.queue.schedule import EventRecord, Phase
from waitroom.queue.view import RoomState, RoomView, own_state_after

_LIMITS = (RATE.name, MAX_ACTIVE.name, AUTOPILOT.name)


def event_effects(before: RoomView, after: RoomView, values: Mapping[str, Any]) -> list[str]:
    """Returns sentences on how the current event limits the effect of a change; empty if it doesn't.

    Args:
        before: The room now.
        after: The room right after the change.
        values: The change, by public name.
    """
    record = before.event
    if record is None or record.phase is Phase.ENDED:
        return []
    found = []
    if STATE.name in values or values.get("draining"):
        found += _of_state(after, record)
    if any(name in values for name in _LIMITS):
        found += _of_limits(record, values)
    return found


def _of_state(after: RoomView, record: EventRecord) -> list[str]:
    if record.phase is Phase.RUNNING:
        return _while_running(after, record)
    if record.phase is Phase.PREQUEUE:
        return _in_prequeue(after, record)
    return _before_opening(after, record)


def _before_opening(after: RoomView, record: EventRecord) -> list[str]:
    event = record.event
    what = "starts" if event.prequeue_ms is None else "opens its prequeue"
    opening = f'when the event "{event.name}" {what} at {moment(event.opens_ms)}'
    if after.own_state is RoomState.CLOSED:
        return [f"It doesn't open {opening}, but when you open it."]
    if after.own_state is RoomState.PAUSED:
        return [_nobody_called(record)]
    return [f"It opens {opening}."] if after.state is not RoomState.OPEN else []


def _in_prequeue(after: RoomView, record: EventRecord) -> list[str]:
    name, start = record.event.name, moment(record.event.start_ms)
    if after.own_state in (RoomState.CLOSED, RoomState.SOLD_OUT):
        return [f'It doesn\'t open when the event "{name}" starts at {start}, but when you open it.']
    if after.own_state is RoomState.PAUSED:
        return [_nobody_called(record)]
    return [f'Visitors are called when the event "{name}" starts at {start}.']


def _nobody_called(record: EventRecord) -> str:
    event = record.event
    return (
        f'When the event "{event.name}" starts at {moment(event.start_ms)}, nobody is called until you open the room.'
    )


def _while_running(after: RoomView, record: EventRecord) -> list[str]:
    if after.own_state is RoomState.OPEN:
        return []
    state = own_state_after(after, record.event)
    if state is RoomState.OPEN:
        then = "opens again"
    elif state is after.own_state and state is not RoomState.SOLD_OUT:
        then = f"stays {HELD[state]} until you open it"
    else:
        then = f"is {HELD[state]}"
    return [f"{_at_end(record)}, the room {then}."]


def _of_limits(record: EventRecord, values: Mapping[str, Any]) -> list[str]:
    event = record.event
    if record.phase is Phase.RUNNING:
        return [f"{_at_end(record)}, the limits from before it return."]
    own = limits_json(event.limits)
    changed = {RATE.name if name == AUTOPILOT.name else name for name in _LIMITS if name in values}
    found = [f"{name} to {own[name] if own[name] == AUTO else f'{own[name]:,.10g}'}" for name in own if name in changed]
    return (
        [f'The event "{event.name}" sets {" and ".join(found)} at its start, {moment(event.start_ms)}.']
        if found
        else []
    )


def _at_end(record: EventRecord) -> str:
    end = "" if record.event.end_ms is None else f" at {moment(record.event.end_ms)}"
    return f'When the event "{record.event.name}" ends{end}'
