"""Parses ``name=value`` arguments of ``waitroom event set`` into a change of an event. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from waitroom.cli.assignments import AUTO, read_pairs
from waitroom.cli.console import CommandError, ExitCode
from waitroom.queue.fields import EVENT_LIMITS, RATE
from waitroom.settings.sources import closest_match

NONE = "none"

_TIMES = ("prequeue_start", "start", "end")
_CHOICES = {
    "method": ("fifo", "random"),
    "before": ("closed", "open"),
    "after": ("open", "closed", "sold_out"),
}
_LIMITS = {field.name: field for field in EVENT_LIMITS}
SETTABLE = ("title", *_TIMES, *_CHOICES, "units", *_LIMITS)

_ELSEWHERE = {
    "name": "can't be changed: cancel the event, and schedule another one",
    "remaining": "is reported by the shop",
    "phase": "is set with waitroom event start, end and cancel",
    "autopilot": "is on with rate_per_minute=auto and off with a rate",
    "note": "is an option: --note TEXT",
}


def parse(pairs: Iterable[str]) -> dict[str, object]:
    """Returns the change for pairs such as ``units=5000``, in the API's format; ``none`` becomes None.

    Raises:
        CommandError: With all problems, and how to fix them.
    """
    values, problems = read_pairs(pairs, SETTABLE, _unknown, _value, _expected)
    if problems:
        raise CommandError(ExitCode.INVALID_INPUT, "Invalid change", "; ".join(problems))
    return {name: None if value == NONE and name != "title" else value for name, value in values.items()}


def _value(name: str, text: str) -> object:
    if name == "title":
        return text
    if text.lower() == NONE:
        return None if name == "start" else NONE
    if name in _TIMES:
        return _time(text)
    if name in _CHOICES:
        return text.lower() if text.lower() in _CHOICES[name] else None
    if name == RATE.name and text.lower() == AUTO:
        return AUTO
    try:
        number = float(text) if name == RATE.name else int(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _time(text: str) -> str | None:
    """Returns a time in the API's format, or None if it is invalid or has no zone."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if when.tzinfo is None else when.isoformat()


def _expected(name: str) -> str:
    if name in _TIMES:
        return f"write a time with its zone, such as {name}=2026-12-12T11:00:00+07:00"
    if name in _CHOICES:
        return f"write {' or '.join(_CHOICES[name])}"
    if name == "units":
        return "write a whole number of units, or none"
    key = _LIMITS[name].setting
    return f"write {key.shape} of {key.about.unit}, {'auto or ' if name == RATE.name else 'or '}none"


def _unknown(name: str) -> str:
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    meant = closest_match(name, (*SETTABLE, *_ELSEWHERE))
    return (
        f"is unknown: did you mean {meant}?" if meant in SETTABLE else f"is unknown: use one of {', '.join(SETTABLE)}"
    )
