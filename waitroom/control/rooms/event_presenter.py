"""Events in the format of the API, the dashboard and the command line. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from waitroom.queue.fields import AUTOPILOT, EVENT_LIMITS, RATE, from_hash
from waitroom.queue.schedule import EventRecord, Phase, timeline
from waitroom.queue.view import RoomState
from waitroom.settings.schema import plain_number

AUTO = "auto"
"""The rate of a room or an event whose autopilot sets it."""
NOTHING = "none"

# The fields of an event that the store has under other names or in other units than the settings.
_STORED_TIMES = {"prequeue": "prequeue_start", "start": "start", "end": "end"}

_ACTIONS: dict[Phase, tuple[str, ...]] = {
    Phase.SCHEDULED: ("set", "start", "cancel"),
    Phase.PREQUEUE: ("set", "start", "cancel"),
    Phase.RUNNING: ("set", "end"),
    Phase.ENDED: (),
}


def time_json(ms: int | None) -> str | None:
    """Returns a Unix time in milliseconds as RFC 3339 in UTC, in whole seconds."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def moment(ms: int | None) -> str:
    """Returns a Unix time in milliseconds for people."""
    if ms is None:
        return NOTHING
    when = datetime.fromtimestamp(ms // 1000, UTC)
    return when.strftime("%Y-%m-%d %H:%M:%S UTC" if when.second else "%Y-%m-%d %H:%M UTC")


def recorded_values(fields: Mapping[str, str]) -> dict[str, Any]:
    """Returns the values in a record of a change, of a room or an event, under their public names."""
    found: dict[str, Any] = {}
    for name, value in from_hash(fields).items():
        if name in _STORED_TIMES:
            found[_STORED_TIMES[name]] = time_json(int(value) or None)
        elif name == "units":
            found[name] = None if int(value) < 0 else int(value)
        elif value != "" or name not in ("event", "event_phase"):  # there was no event before
            found[name] = value
    return found


def limits_json(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Returns limits by public name as the settings have them: a rate that the autopilot sets is ``auto``."""
    found = {field.name: plain_number(limits[field.name]) for field in EVENT_LIMITS if field.name in limits}
    return {RATE.name: AUTO, **found, RATE.name: AUTO} if limits.get(AUTOPILOT.name) else found


HELD = {RoomState.PAUSED: "paused", RoomState.CLOSED: "closed", RoomState.SOLD_OUT: "sold out"}
"""The states in which nobody is called, in words."""


def event_json(record: EventRecord) -> dict[str, Any]:
    """Returns an event in the API's format."""
    event = record.event
    return {
        "name": event.name,
        "title": event.title,
        "phase": str(record.phase),
        "source": record.source,
        "cancelled": record.cancelled,
        "prequeue_start": time_json(event.prequeue_ms),
        "start": time_json(event.start_ms),
        "end": time_json(event.end_ms),
        "method": event.method,
        "before": event.before,
        "after": event.after,
        "units": event.units,
        "limits": limits_json(event.limits),
        "prequeue_opened_at": time_json(record.prequeue_at_ms),
        "started_at": time_json(record.started_ms),
        "ended_at": time_json(record.ended_ms),
    }


def event_actions(record: EventRecord | None) -> list[str]:
    """Returns the actions that an event's phase allows."""
    return [] if record is None else list(_ACTIONS[record.phase])


def timeline_json(records: Iterable[EventRecord], limits: Mapping[str, Any], now_ms: int) -> list[dict[str, Any]]:
    """Returns the timeline of a room, from now on, in the API's format.

    Args:
        records: Its events.
        limits: The limits in force without an event, by public name.
        now_ms: The store's wall clock.
    """
    segments = timeline((record.event for record in records if not record.cancelled), limits)
    return [
        {
            "from": None if segment.from_ms is None or segment.from_ms <= now_ms else time_json(segment.from_ms),
            "to": time_json(segment.to_ms),
            "event": segment.event,
            "phase": str(segment.phase),
            "state": segment.state,
            "limits": limits_json(segment.limits),
        }
        for segment in segments
        if segment.to_ms is None or segment.to_ms > now_ms
    ]


def events_json(version: int, records: Sequence[EventRecord], limits: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Returns the events of a room, and its timeline, in the API's format."""
    return {
        "version": version,
        "events": [event_json(record) for record in records],
        "timeline": timeline_json(records, limits, now_ms),
    }
