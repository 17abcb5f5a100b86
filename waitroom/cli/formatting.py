"""Formats figures for a terminal. Pure: times of day are given in the requested zone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo

from waitroom.cli.api_models import Event, LastChange, Span
from waitroom.wait_range import short_wait

UNKNOWN = "-"
_STEPS = {"scheduled": ("starts", "start"), "prequeue": ("starts", "start"), "running": ("ends", "end")}
_BARS = "▁▂▃▄▅▆▇█"


def format_number(value: float | None) -> str:
    """Formats a number, such as ``1,234`` or ``12.5``; a dash for None."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"


def out_of(value: float | None, limit: float | None) -> str:
    """Formats a share, such as ``580 of 600``; only the value if there is no limit."""
    return format_number(value) if limit is None else f"{format_number(value)} of {format_number(limit)}"


def format_latency(seconds: float | None) -> str:
    """Formats a duration, such as ``85 ms`` or ``2.4 s``."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def format_wait(span: Span | None) -> str:
    """Formats a wait, such as ``none``, ``under 1 min``, ``5 to 8 min`` or ``30 min to 3 h``."""
    if span is None:
        return UNKNOWN
    low, high = sorted(span)
    return "none" if high <= 0 else short_wait(low, high)


def format_time(at: str | float | None, pattern: str = "%d %b %H:%M:%S", zone: tzinfo | None = None) -> str:
    """Formats a time (RFC 3339 or seconds since 1970) in ``zone``, by default the machine's; other text is kept."""
    if at is None:
        return UNKNOWN
    try:
        when = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at).astimezone()
        return when.astimezone(zone).strftime(pattern)
    except (ValueError, OverflowError, OSError):
        return str(at)


def format_countdown(seconds: float) -> str:
    """Formats the time until an event, such as ``40 s``, ``25 min``, ``3 h 20 min`` or ``12 d 4 h``."""
    left = max(0, round(seconds))
    for unit, size, part, part_size in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60)):
        if left >= size:
            return f"{left // size:,} {unit} {left % size // part_size} {part}"
    return f"{left // 60} min" if left >= 60 else f"{left} s"


def _seconds_until(at: str | None, now: float) -> float | None:
    """Returns the seconds from ``now`` until a time (RFC 3339); None if there is none."""
    try:
        return None if at is None else datetime.fromisoformat(at).timestamp() - now
    except (ValueError, OverflowError):
        return None


def next_step(event: Event, now: float) -> tuple[str, str] | None:
    """Returns what an event does next, and when; None if nothing is planned."""
    what, at = _STEPS.get(event.phase, ("", ""))
    if event.phase == "scheduled" and event.prequeue_start is not None:
        what, at = "prequeue opens", "prequeue_start"
    when = getattr(event, at) if at else None
    left = _seconds_until(when, now)
    return None if when is None or left is None else (f"{what} in {format_countdown(left)}", when)


def describe_event(event: Event, now: float) -> str:
    """Formats the phase of an event, such as ``event sale: prequeue, starts in 25 min (12 Dec 11:00:00)``."""
    if event.phase == "ended":
        return f"event {event.name}: ended {format_time(event.ended_at)}"
    step = next_step(event, now)
    return f"event {event.name}: {event.phase}" + ("" if step is None else f", {step[0]} ({format_time(step[1])})")


def describe_change(change: LastChange) -> str:
    """Formats a change, such as ``ann, 24 Nov 12:03:05: rate_per_minute 300 -> 600``."""
    return f"{change.who or 'somebody'}, {format_time(change.at)}: {change.what or 'changed it'}"


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Draws the values as at most ``width`` small bars from 0 to the maximum; a gap for unknown values.

    If there are more values than bars, each bar is the maximum of its share, so that short peaks stay visible.
    """
    if not values:
        return ""
    count = min(width, len(values))
    shares = [values[index * len(values) // count : (index + 1) * len(values) // count] for index in range(count)]
    peaks = [max((value for value in share if value is not None), default=None) for share in shares]
    top = max((peak for peak in peaks if peak is not None), default=0.0)
    return "".join(" " if peak is None else _bar(peak, top) for peak in peaks)


def _bar(value: float, top: float) -> str:
    if top <= 0 or value <= 0:
        return _BARS[0]
    return _BARS[min(len(_BARS) - 1, int(value / top * (len(_BARS) - 1) + 0.5))]
