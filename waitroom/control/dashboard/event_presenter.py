"""The events of a room in the words of the dashboard and of the sale page. Pure, as `presenter` is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from waitroom.control.dashboard.formatting import count, duration, rate
from waitroom.queue.fields import EVENT_LIMITS, RATE

Event = Mapping[str, Any]

# Names of phases, and the tones that their marks have.
_PHASES: Final = {
    "scheduled": ("Scheduled", "quiet"),
    "prequeue": ("Prequeue", "notice"),
    "running": ("Running", "good"),
    "ended": ("Ended", "quiet"),
}
_STATES: Final = {"open": "open", "closed": "closed", "sold_out": "sold out", "prequeue": "prequeue"}
_ORDERS: Final = {"fifo": "first come, first served", "random": "random order"}
# Labels of the limits that an event may set.
_LABELS: Final = {
    "rate_per_minute": "Rate",
    "max_active": "Max active",
    "session_seconds": "Session",
    "session_max_seconds": "Longest session",
    "claim_seconds": "Time to claim a turn",
    "claim_after_told_seconds": "Time to claim once notified",
    "away_after_seconds": "Away after",
    "keep_place_seconds": "Place kept for",
    "recovery_seconds": "Recovery",
}


class Step(NamedTuple):
    """The next step of an event: what it is, and its time (RFC 3339), "" if nobody knows it."""

    label: str
    at: str


def event_numbers() -> list[dict[str, Any]]:
    """Returns the limits that the form offers."""
    return [
        {
            "name": field.name,
            "label": _LABELS[field.name],
            "unit": field.setting.about.unit.removeprefix("visitors").strip(),
            "most": field.setting.most,
            "text": field is RATE,
        }
        for field in EVENT_LIMITS
    ]


def phase_name(event: Event) -> str:
    """Returns the phase in a word."""
    return "Cancelled" if event["cancelled"] else _PHASES[event["phase"]][0]


def event_name(event: Event) -> str:
    """Returns the title, or the name if it has none."""
    return str(event["title"] or event["name"])


def next_step(event: Event | None) -> Step | None:
    """Returns the next step of an event by the schedule; None if there is none."""
    if event is None or event["phase"] == "ended":
        return None
    if event["phase"] == "running":
        return Step("Ends", event["end"] or "")
    if event["phase"] == "scheduled" and event["prequeue_start"]:
        return Step("Prequeue opens", event["prequeue_start"])
    return Step("Starts", event["start"])


def current_event_texts(room: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the texts of a room's current event by their names on the page; all empty without one."""
    event = room.get("event")
    if event is None:
        return {"event": "", "event_phase": "", "event_tone": "quiet", "step": "", "step_at": ""}
    step = next_step(event) or Step("", "")
    label = step.label if step.at or not step.label else "No end is planned."
    return {
        "event": event_name(event),
        "event_phase": phase_name(event),
        "event_tone": _PHASES[event["phase"]][1],
        "step": label,
        "step_at": step.at,
    }


def timeline_rows(schedule: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the rows of the timeline: planned events with the gaps around them by time, and past ones, newest first.

    Args:
        schedule: The events of a room in the API's format.
    """
    events: Sequence[Event] = schedule["events"]
    past = [_event_row(event) for event in reversed(events) if event["phase"] == "ended"]
    return list(_planned_rows(events, schedule["timeline"])), past


def _planned_rows(events: Iterable[Event], segments: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for event in events:
        if event["phase"] != "ended":
            yield from _gaps(segments, event["name"], "scheduled")
            yield _event_row(event)
            yield from _gaps(segments, event["name"], "ended")


def _gaps(segments: Iterable[Mapping[str, Any]], event: str, phase: str) -> Iterator[dict[str, Any]]:
    for segment in segments:
        if segment["event"] == event and segment["phase"] == phase:
            yield {
                "kind": "gap",
                "from": segment["from"] or "",
                "to": segment["to"] or "",
                "text": f"Room {_STATES.get(segment['state'], segment['state'])}",
            }


def _event_row(event: Event) -> dict[str, Any]:
    return {
        "kind": "event",
        "name": event["name"],
        "title": event_name(event),
        "phase": phase_name(event),
        "tone": "quiet" if event["cancelled"] else _PHASES[event["phase"]][1],
        "times": _times(event),
        "facts": _facts(event),
        "actions": event_actions(event),
        "has_report": event["phase"] == "ended" and event["started_at"] is not None,
        "event": dict(event),
    }


def event_actions(event: Event) -> list[str]:
    """Returns what an operator may do with an event now."""
    if event["phase"] == "ended":
        return []
    if event["phase"] == "running":
        return ["extend", "edit", "end"]
    return ["start", "edit", "cancel"]


def _times(event: Event) -> list[tuple[str, str]]:
    """Returns the times of an event with labels: those that came, and those planned."""
    if event["cancelled"]:
        return [("Planned", event["start"]), ("Cancelled", event["ended_at"] or "")]
    found = []
    if event["prequeue_opened_at"] or event["prequeue_start"]:
        found.append(("Prequeue", event["prequeue_opened_at"] or event["prequeue_start"]))
    found.append(("Start", event["started_at"] or event["start"]))
    found.append(("End", event["ended_at"] or event["end"] or ""))
    return found


def _facts(event: Event) -> list[str]:
    """Returns what an event plans, in short texts."""
    facts = [] if event["units"] is None else [f"{count(event['units'])} units"]
    facts += [limit_text(name, value) for name, value in event["limits"].items()]
    if event["prequeue_start"]:
        facts.append(_ORDERS[event["method"]])
    facts.append(f"{_STATES[event['before']]} before, {_STATES[event['after']]} after")
    return facts


def limit_text(name: str, value: object) -> str:
    """Describes a limit that an event sets."""
    label = _LABELS.get(name, name.replace("_", " ").capitalize())
    if not isinstance(value, int | float) or isinstance(value, bool):
        return f"{label} {value}"
    if name == RATE.name:
        return f"{rate(value)} per minute"
    if name.endswith("_seconds"):
        return f"{label.lower()} {duration(value)}"
    return f"{label.lower()} {count(value)}"
