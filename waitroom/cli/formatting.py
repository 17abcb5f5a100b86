"""Figures in the words and the widths of a terminal. Pure: times of day are given in the zone they are wanted in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo

from waitroom.cli.api_models import LastChange, Span
from waitroom.wait_range import short_wait

UNKNOWN = "-"
_BARS = "▁▂▃▄▅▆▇█"


def number(value: float | None) -> str:
    """Such as ``1,234`` or ``12.5``; a dash where there is none."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"


def of(value: float | None, limit: float | None) -> str:
    """Such as ``580 of 600``; the value alone where there is no limit."""
    return number(value) if limit is None else f"{number(value)} of {number(limit)}"


def milliseconds(seconds: float | None) -> str:
    """Such as ``85 ms`` or ``2.4 s``."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def wait(span: Span | None) -> str:
    """Such as ``none``, ``under 1 min``, ``5 to 8 min`` or ``30 min to 3 h``."""
    if span is None:
        return UNKNOWN
    low, high = sorted(span)
    return "none" if high <= 0 else short_wait(low, high)


def moment(at: str | float | None, pattern: str = "%d %b %H:%M:%S", zone: tzinfo | None = None) -> str:
    """A time of day, RFC 3339 or seconds since 1970, in the machine's zone unless told; as it came if it's neither."""
    if at is None:
        return UNKNOWN
    try:
        when = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at).astimezone()
        return when.astimezone(zone).strftime(pattern)
    except (ValueError, OverflowError, OSError):
        return str(at)


def change_words(change: LastChange) -> str:
    """Such as ``ann, 24 Nov 12:03:05: rate_per_minute 300 -> 600``."""
    return f"{change.who or 'somebody'}, {moment(change.at)}: {change.what or 'changed it'}"


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The values as little bars from nought to the greatest, at most ``width`` of them; a gap where nothing is known.

    Where there are more values than bars, each bar is the greatest of its share: a short peak is what one looks for.
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
