"""Changes of events by operators: the event after a change, and everything that may be wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from waitroom.control.rooms.changes import InvalidChangeError
from waitroom.control.rooms.event_presenter import AUTO, time_json
from waitroom.event_times import find_conflicts
from waitroom.queue.fields import AUTOPILOT, EVENT_LIMITS, RATE, Limits
from waitroom.queue.schedule import Event, EventRecord, Phase
from waitroom.settings.event import MAX_TITLE_LENGTH, MAX_UNITS
from waitroom.settings.validation import LONG_AND_SHORT
from waitroom.settings.validators import NAME

# The names of an event's fields in the settings, and here.
_ATTRIBUTES = {
    "title": "title",
    "prequeue_start": "prequeue_ms",
    "start": "start_ms",
    "end": "end_ms",
    "method": "method",
    "before": "before",
    "after": "after",
    "units": "units",
}
_TIMES = ("prequeue_start", "start", "end")
_LIMITS = {field.name: field for field in EVENT_LIMITS}
EVENT_FIELDS = (*_ATTRIBUTES, *_LIMITS)
"""The names of everything that a change of an event may set."""

# Fields that are fixed once a phase is reached, and why.
_OPENED = "Can't be changed: the prequeue has opened."
_STARTED = "Can't be changed: the event has started."
_FIXED = {
    Phase.PREQUEUE: {"prequeue_start": _OPENED, "method": _OPENED},
    Phase.RUNNING: {
        **dict.fromkeys(("prequeue_start", "start", "method", "before"), _STARTED),
        "units": f"{_STARTED} Report the units that are left instead.",
    },
}


@dataclass(frozen=True, slots=True)
class EventChange:
    """A new event, or a change of one.

    Attributes:
        values: The values by the names of the settings; names that are left out keep theirs. Times are Unix times in
            milliseconds, ``rate_per_minute`` may be ``auto``, and None removes a value.
    """

    values: Mapping[str, Any]

    def described(self) -> dict[str, Any]:
        """The values as the API shows them."""
        return {name: time_json(value) if name in _TIMES else value for name, value in self.values.items()}


def is_planned(record: EventRecord) -> bool:
    """Whether an event is in progress or still to come."""
    return record.phase is not Phase.ENDED


def changed_event(
    name: str, change: EventChange, records: Iterable[EventRecord], limits: Limits, now_ms: int
) -> tuple[Event, EventRecord | None]:
    """Returns an event after a change, and its record before, None if it is a new event.

    An event that has ended is scheduled again, without its times. Raises `InvalidChangeError` with all problems.

    Args:
        name: The event's name.
        change: The change.
        records: The events of the room.
        limits: The room's own limits.
        now_ms: The store's wall clock.
    """
    known = list(records)
    stored = next((record for record in known if record.event.name == name), None)
    current = stored if stored is not None and is_planned(stored) else None
    problems = {} if NAME.fullmatch(name) else {"event": "Must be 1 to 32 of a-z, 0-9, _ and -; begin with a-z or 0-9."}
    if not change.values:
        problems["change"] = "No fields to change."
    if current is None and change.values.get("start") is None:
        problems["start"] = "Required for a new event."
    elif "start" in change.values and change.values["start"] is None:
        problems["start"] = "An event needs a start."
    if problems:
        raise InvalidChangeError(problems)
    event = _apply(name, change, current, stored)
    problems = _field_problems(event, change) | _phase_problems(event, current) | _limit_problems(event, limits)
    for field, moment in (("start", event.start_ms), ("end", event.end_ms)):
        unchanged = current is not None and moment == getattr(current.event, _ATTRIBUTES[field])
        if moment is not None and not unchanged and moment <= now_ms:
            problems.setdefault(field, f"Must be in the future: it is {time_json(now_ms)} now.")
    if not problems:
        others = [one.event for one in known if is_planned(one) and one is not current]
        problems = conflict_problems(event, others)
    if problems:
        raise InvalidChangeError(problems)
    return event, current


def conflict_problems(event: Event, others: Iterable[Event]) -> dict[str, str]:
    """Returns the problems of an event's times with each other and with other events, by field."""
    problems: dict[str, str] = {}
    for conflict in find_conflicts([*others, event]):
        if conflict.name == event.name:
            what = f"{conflict.what[0].upper()}{conflict.what[1:]}"
            problems.setdefault(conflict.field, f"{what} {conflict.fix}")
        else:
            problems.setdefault(
                "start", f'The {conflict.field} of the event "{conflict.name}" {conflict.what} {conflict.fix}'
            )
    return problems


def _apply(name: str, change: EventChange, current: EventRecord | None, stored: EventRecord | None) -> Event:
    """Returns the event with the changed values; see `changed_event`."""
    values = change.values
    if current is not None:
        base = current.event
    elif stored is not None:
        base = replace(stored.event, start_ms=values["start"], prequeue_ms=None, end_ms=None)
    else:
        base = Event(name, "", values["start"])
    defaults = Event(name, "", base.start_ms)
    attributes = {}
    for field, attribute in _ATTRIBUTES.items():
        if field in values:
            value = values[field]
            attributes[attribute] = getattr(defaults, attribute) if value is None else value
            if field in _TIMES and _same_second(value, getattr(base, attribute)):
                attributes[attribute] = getattr(base, attribute)
    return replace(base, **attributes, limits=_limits(base, values))


def _same_second(one: int | None, other: int | None) -> bool:
    """Whether two times look the same in the API, which shows whole seconds."""
    return one is not None and other is not None and one // 1000 == other // 1000


def _limits(base: Event, values: Mapping[str, Any]) -> dict[str, Any]:
    limits = dict(base.limits)
    for name in _LIMITS:
        if name not in values:
            continue
        limits.pop(name, None)
        if name == RATE.name:
            limits.pop(AUTOPILOT.name, None)
            if values[name] is not None:
                limits[AUTOPILOT.name] = values[name] == AUTO
        if values[name] not in (None, AUTO):
            limits[name] = values[name]
    return limits


def _field_problems(event: Event, change: EventChange) -> dict[str, str]:
    problems = {}
    if len(event.title) > MAX_TITLE_LENGTH:
        problems["title"] = f"Must have at most {MAX_TITLE_LENGTH} characters; it has {len(event.title):,}."
    elif not event.title.isprintable():
        problems["title"] = "Must be one line without control characters."
    if event.units is not None and not 1 <= event.units <= MAX_UNITS:
        problems["units"] = f"Must be from 1 to {MAX_UNITS:,}."
    for name, field in _LIMITS.items():
        value = change.values.get(name)
        if value not in (None, AUTO) and (problem := field.problem(value)):
            problems[name] = problem
    return problems


def _phase_problems(event: Event, current: EventRecord | None) -> dict[str, str]:
    if current is None:
        return {}
    fixed = _FIXED.get(current.phase, {})
    return {
        field: why
        for field, why in fixed.items()
        if getattr(event, _ATTRIBUTES[field]) != getattr(current.event, _ATTRIBUTES[field])
    }


def _limit_problems(event: Event, room: Limits) -> dict[str, str]:
    """Returns contradictions between the event's limits and the room's, by the rules of the settings."""

    def value(name: str) -> float:
        return float(event.limits.get(name, getattr(room, name)))

    problems = {}
    for long, short in LONG_AND_SHORT:
        if value(long) >= value(short):
            continue
        if long in event.limits:
            problems[long] = f"Must be at least {short}, which is {value(short):g} while the event runs."
        elif short in event.limits:
            problems[short] = f"Must be at most {long}, which is {value(long):g} while the event runs."
    return problems
