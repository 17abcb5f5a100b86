"""The report of an event in the words of the dashboard. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from waitroom.control.dashboard.formatting import NOTHING, count
from waitroom.wait_range import short_duration

_SOLD_BY: Final = {"stock": "by stock", "release": "by release", None: "no sales reported"}


def report_texts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the texts of a report: its title, its period, pairs of a label and a figure, and its path in the API.

    Args:
        report: In the API's format.
    """
    return {
        "title": report["title"] or report["event"],
        "period": _period(report["started_at"], report["ended_at"]),
        "figures": _figures(report),
        "path": f"/api/v1/rooms/{quote(report['room'], safe='')}/events/{quote(report['event'], safe='')}",
    }


def _figures(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    waits, errors, gave_up = report["wait_seconds"], report["eta_error_seconds"], report["gave_up"]
    figures = [
        ("Joined", count(report["joined"])),
        ("Admitted", count(report["admitted"])),
        ("Sold", _sold(report)),
        ("Gave up", count(gave_up["total"])),
        ("Left / away / missed", _counts(gave_up["left"], gave_up["away"], gave_up["missed"])),
        ("Missed turns", count(report["no_shows"])),
        ("Peak waiting", count(report["peak_waiting"])),
        ("Peak active", count(report["peak_active"])),
        ("Wait p50 / p90 / max", _times(waits["p50"], waits["p90"], waits["max"])),
        ("ETA error p50 / p90", _times(errors["p50"], errors["p90"])),
        ("Overshoot of max active", count(report["overshoot"])),
    ]
    if report["voided"]:
        figures.append(("Waiting at the end", count(report["voided"])))
    over = report["over_limit"]
    if any(over.values()):
        figures.append(("Over rate / max active", _counts(over["rate"], over["max_active"])))
    return figures


def _sold(report: Mapping[str, Any]) -> str:
    units = "" if report["units"] is None else f" of {count(report['units'])}"
    return f"{count(report['sold'])}{units} ({_SOLD_BY[report['sold_by']]})"


def _counts(*numbers: int) -> str:
    return " / ".join(map(count, numbers))


def _times(*seconds: int | None) -> str:
    return " / ".join(NOTHING if one is None else short_duration(one) for one in seconds)


def _period(start: str | None, end: str | None) -> str:
    """Formats ``2026-12-12 04:00 to 06:00 UTC``."""
    if start is None or end is None:
        return ""
    first, last = (f"{at[:10]} {at[11:16]}" for at in (start, end))
    return f"{first} to {last.removeprefix(f'{start[:10]} ')} UTC"
