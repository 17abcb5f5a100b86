"""Numbers and times in the format of the dashboard. Pure."""

from __future__ import annotations

NOTHING = "–"  # noqa: RUF001 - a dash, as it should be


def visitors(number: int) -> str:
    """``1 visitor``, ``1,200 visitors``."""
    return "1 visitor" if number == 1 else f"{count(number)} visitors"


def count(number: float) -> str:
    """Formats a whole number with thousands separators."""
    return f"{round(number):,}"


def rate(number: float | None) -> str:
    """Formats a rate per minute: a whole number from ten on, otherwise with one decimal if it has one."""
    if number is None:
        return NOTHING
    return count(number) if number >= 10 or number == round(number) else f"{number:.1f}"


def share(part: float, whole: float) -> int:
    """Returns the percentage for a bar, 0 to 100."""
    return max(0, min(100, round(100 * part / whole))) if whole > 0 else 0


def percent(part: float, whole: float) -> str:
    """Formats a percentage: one decimal below ten, and never 0 for more than nothing."""
    if not part or not whole:
        return "0 %"
    value = 100 * part / whole
    return "under 0.1 %" if value < 0.1 else f"{value:.1f} %" if value < 10 else f"{value:.0f} %"


def latency(seconds: float | None) -> str:
    """Formats milliseconds below a second, seconds from there on."""
    if seconds is None:
        return NOTHING
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def time_of_day(at: str) -> str:
    """Formats the time of day of an RFC 3339 time in UTC, which a script converts to the operator's time zone."""
    return f"{at[11:16]} UTC"


def duration(seconds: float) -> str:
    """Formats a duration in the largest unit that divides it."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{count(seconds / size)} {unit}"
    return f"{seconds:g} s"
