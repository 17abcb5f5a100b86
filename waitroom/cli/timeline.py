"""Describes the timeline of a room's events in words, as the settings define it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from waitroom.queue.fields import AUTOPILOT, METHOD, RATE, limits_of
from waitroom.queue.schedule import Phase, Segment, event_of, timeline
from waitroom.settings.event import milliseconds
from waitroom.settings.schema import plain_number

if TYPE_CHECKING:
    from waitroom.settings import EventSettings, RoomSettings

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def timeline_lines(room: RoomSettings, now: datetime) -> Iterator[str]:
    """Describes the timeline of a room, as long as no operator changes anything.

    Args:
        room: Valid settings; without events there is nothing to describe.
        now: The time; parts of the timeline that are over are marked.
    """
    if not room.events:
        return
    events = {event.name: event for event in room.events}
    times = _times(room)
    inherited = {**asdict(limits_of(room)), AUTOPILOT.name: room.autopilot}
    yield f"Timeline of room {room.name}:"
    for segment in timeline(map(event_of, room.events), inherited):
        event = events[str(segment.event)]
        what = _describe(segment, event)
        yield f"  {_span(segment, times)}: {what}{_mark(segment, now)}"
        if segment.phase is Phase.RUNNING:
            yield from _describe_limits(segment.limits, event_of(event).limits)


def format_duration(seconds: float) -> str:
    """Formats a duration by its two largest units, such as ``19 d 22 h`` or ``30 min``."""
    left, parts = round(seconds), []
    for name, length in _UNITS:
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def format_both(time: datetime) -> str:
    """Formats a time in its own zone and in UTC, such as ``2026-12-12 11:00 +07:00 (04:00 UTC)``."""
    pattern = "%H:%M:%S" if time.second or time.microsecond else "%H:%M"
    utc = time.astimezone(UTC)
    if not time.utcoffset():
        return f"{time:%Y-%m-%d {pattern}} UTC"
    there = utc.strftime(pattern if utc.date() == time.date() else f"%Y-%m-%d {pattern}")
    return f"{time:%Y-%m-%d {pattern}} {time.isoformat()[-6:]} ({there} UTC)"


def _times(room: RoomSettings) -> dict[int, datetime]:
    """The times of all events in their own zones, by milliseconds."""
    given = [time for event in room.events for time in (event.start, event.prequeue_start, event.end)]
    return {milliseconds(time): time for time in given if time is not None}


def _span(segment: Segment, times: dict[int, datetime]) -> str:
    since, until = segment.from_ms, segment.to_ms
    if since is None:
        return f"until {format_both(times[until])}" if until is not None else "always"
    if until is None:
        return f"from {format_both(times[since])}"
    return f"from {format_both(times[since])} for {format_duration((until - since) / 1000)}"


def _describe(segment: Segment, event: EventSettings) -> str:
    title = f' "{event.title}"' if event.title else ""
    match segment.phase:
        case Phase.SCHEDULED:
            countdown = segment.state == "closed" and event.before == "closed"
            state = "closed, with a countdown to" if countdown else f"{_state(segment)} until"
            gap = "gap, " if segment.from_ms is not None else ""
            return f"{gap}{state} {event.name}"
        case Phase.PREQUEUE:
            order = "shuffled at the start" if event.method == "random" else "in order of arrival"
            return f"prequeue of {event.name}{title}, {order}"
        case Phase.RUNNING:
            units = f", {event.units:,} units" if event.units is not None else ""
            end = "" if segment.to_ms is not None else ", until an operator ends it"
            return f"sale {event.name}{title}{units}{end}"
        case Phase.ENDED:
            return f"{_state(segment)} after {event.name}"


def _state(segment: Segment) -> str:
    return segment.state.replace("_", " ")


def _mark(segment: Segment, now: datetime) -> str:
    at = now.timestamp() * 1000
    if segment.to_ms is not None and segment.to_ms <= at:
        return " (over)"
    return " (now)" if segment.from_ms is None or segment.from_ms <= at else ""


def _describe_limits(limits: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    """Describes the limits in force, and those that the event sets; the rate of the autopilot is ``auto``."""
    numbers = {name: value for name, value in limits.items() if name not in (METHOD.name, AUTOPILOT.name)}
    shown: dict[str, Any] = {name: plain_number(value) for name, value in numbers.items()}
    if limits[AUTOPILOT.name]:
        shown[RATE.name] = "auto"
    of_event = {RATE.name if name == AUTOPILOT.name else name for name in own}
    yield f"    limits of the event: {_limits(shown, of_event)}"
    yield f"    limits of the room: {_limits(shown, shown.keys() - of_event)}"


def _limits(limits: Mapping[str, Any], names: Collection[str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in limits.items() if name in names) or "none"
