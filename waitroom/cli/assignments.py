"""Parses ``name=value`` arguments of ``waitroom set`` into a change of a room. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable

from waitroom.cli.console import CommandError, ExitCode
from waitroom.queue.fields import AUTOPILOT, OPERATOR_NUMBERS, RATE, WHOLE
from waitroom.settings import RoomSettings
from waitroom.settings.schema import keys_of
from waitroom.settings.sources import closest_match

_NUMBERS = {field.name: field for field in OPERATOR_NUMBERS}
SETTABLE = (*_NUMBERS, AUTOPILOT.name)
AUTO = "auto"

_ELSEWHERE = {
    "state": "is set with waitroom pause, resume and close",
    "paused": "is set with waitroom pause and resume",
    "closed": "is set with waitroom close and resume",
    "sold_out": "is set with waitroom close --sold-out",
    "message": "is set with waitroom message",
    "draining": "is set with waitroom drain and resume",
    "note": "is an option: --note TEXT",
}
_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


def parse(pairs: Iterable[str]) -> dict[str, object]:
    """Returns the change for pairs such as ``rate_per_minute=600``.

    Raises:
        CommandError: With all problems, and how to fix them.
    """
    change, problems = read_pairs(pairs, SETTABLE, _unknown, _value, _expected)
    if change.get("rate_per_minute") == AUTO:
        del change["rate_per_minute"]
        if not change.setdefault("autopilot", True):
            problems.append("rate_per_minute=auto turns the autopilot on and autopilot=off turns it off: remove one")
    if not problems and not change:
        problems.append(f"give at least one of {', '.join(SETTABLE)}, such as rate_per_minute=600")
    if problems:
        raise CommandError(ExitCode.INVALID_INPUT, "Invalid change", "; ".join(problems))
    return change


def read_pairs(
    pairs: Iterable[str],
    names: Collection[str],
    unknown: Callable[[str], str],
    read: Callable[[str, str], object],
    expected: Callable[[str], str],
) -> tuple[dict[str, object], list[str]]:
    """Reads pairs of a name and a value; returns the values by name, and all problems.

    Args:
        pairs: The arguments.
        names: The known names.
        unknown: Returns the message about an unknown name.
        read: Returns a value in its type, given its name and text; None if it is invalid.
        expected: Returns the message about an invalid value.
    """
    values: dict[str, object] = {}
    problems: list[str] = []
    for pair in pairs:
        given, equals, text = pair.partition("=")
        name, text = given.strip().replace("-", "_"), text.strip()
        if name not in names:
            problems.append(f"{given} {unknown(name)}")
        elif not equals:
            problems.append(f"{name} has no value: write {name}=VALUE")
        elif name in values:
            problems.append(f"{name} is given twice")
        else:
            values[name] = read(name, text)
            if values[name] is None:
                problems.append(f"{name}={text}: {expected(name)}")
    return values, problems


def _expected(name: str) -> str:
    if name == AUTOPILOT.name:
        return "write on or off"
    key = _NUMBERS[name].setting
    least = f"{'above' if key.least_excluded else 'at least'} {key.least}"
    return f"write {key.shape} of {key.about.unit}, {least}" + (", or auto" if name == RATE.name else "")


def _value(name: str, text: str) -> float | int | bool | str | None:
    """Returns the value in its type, or None if it is invalid."""
    if name == AUTOPILOT.name:
        return _SWITCH.get(text.lower())
    if name == RATE.name and text.lower() == AUTO:
        return AUTO
    try:
        number = int(text) if _NUMBERS[name].format is WHOLE else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _unknown(name: str) -> str:
    """Returns the message about an unknown name."""
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    meant = closest_match(name, (*SETTABLE, *_ELSEWHERE))
    if meant in SETTABLE:
        return f"is unknown: did you mean {meant}?"
    if name in keys_of(RoomSettings):
        return "can be changed only in the settings file, with a restart"
    return f"is unknown: use one of {', '.join(SETTABLE)}"
