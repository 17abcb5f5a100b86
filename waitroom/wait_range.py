"""The range of a wait, rounded in one way for visitors' pages, the dashboard and the command line. Pure."""

# mypyc: compile

from __future__ import annotations

from dataclasses import dataclass

_FINE_MINUTES = 20  # beyond, in steps of five minutes
_STEP_MINUTES = 5
_MOST_MINUTES = 120  # beyond, in hours
_SHORT = {"minute": "min", "hour": "h"}


@dataclass(frozen=True, slots=True)
class WaitRange:
    """A wait from ``low`` to ``high``, each with its unit: ``minute`` or ``hour``. A ``low`` of 0 means "up to"."""

    low: int
    low_unit: str
    high: int
    high_unit: str


def wait_range(low: float, high: float) -> WaitRange | None:
    """The range of a wait, rounded outwards; None for less than a minute. The pages' scripts do the same.

    Args:
        low: The shortest expected wait, in seconds.
        high: The longest, in seconds; at least ``low``.
    """
    if high < 60:
        return None
    least, most = int(low // 60), int(-(-high // 60))
    if most > _FINE_MINUTES:
        least, most = least // _STEP_MINUTES * _STEP_MINUTES, -(-most // _STEP_MINUTES) * _STEP_MINUTES
    if most <= _MOST_MINUTES:
        return WaitRange(least, "minute", most, "minute")
    if least >= 60:
        return WaitRange(least // 60, "hour", -(-most // 60), "hour")
    return WaitRange(least, "minute", -(-most // 60), "hour")


def short_wait(low: float, high: float) -> str:
    """The range for operators, such as ``under 1 min``, ``5 to 8 min`` or ``30 min to 3 h``."""
    found = wait_range(low, high)
    if found is None:
        return "under 1 min"
    longest = f"{found.high} {_SHORT[found.high_unit]}"
    if found.low == 0:
        return f"up to {longest}"
    if found.low_unit != found.high_unit:
        return f"{found.low} {_SHORT[found.low_unit]} to {longest}"
    return longest if found.low == found.high else f"{found.low} to {longest}"


def short_duration(seconds: float) -> str:
    """A measured time for operators, such as ``45 s``, ``12 min`` or ``1 h 5 min``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
