"""The report and the samples of an event as CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from waitroom.control.rooms.csv_text import Cell, csv_text
from waitroom.control.rooms.event_presenter import time_json
from waitroom.control.rooms.event_report import EventReport

# Columns that are members of a member, by the names of both.
_SAMPLE_COLUMNS: Final = (
    *("at", "state", "waiting", "called", "away", "active", "rate_per_minute", "max_active"),
    *("joined", "admitted", "left"),
)
_SHOP_COLUMNS: Final = (
    *("requests_per_minute", "failures_per_minute", "given_up_per_minute", "p50_seconds", "p95_seconds", "in_flight"),
)


def report_csv(report: EventReport) -> str:
    """The report as one row, so that the reports of several events can be joined to one table."""
    row = _flat(report.json())
    return csv_text(list(row), [list(row.values())])


def samples_csv(samples: Iterable[bytes]) -> str:
    """The samples, each as from the API's history, one a row."""
    header = [*_SAMPLE_COLUMNS, "wait_low_seconds", "wait_high_seconds", *(f"shop_{name}" for name in _SHOP_COLUMNS)]
    return csv_text(header, (_sample_row(json.loads(sample)) for sample in samples))


def _sample_row(sample: Mapping[str, Any]) -> list[Cell]:
    low, high = sample.get("wait_seconds") or (None, None)
    shop = sample.get("shop") or {}
    figures = [sample.get(name) for name in _SAMPLE_COLUMNS[1:]]
    return [time_json(sample["at"] * 1000), *figures, low, high, *(shop.get(name) for name in _SHOP_COLUMNS)]


def _flat(members: Mapping[str, Any]) -> dict[str, Cell]:
    """Members of a member become columns: ``gave_up`` with ``left`` is ``gave_up_left``."""
    row: dict[str, Cell] = {}
    for name, value in members.items():
        if isinstance(value, Mapping):
            row |= {f"{name}_{inner}": one for inner, one in value.items()}
        else:
            row[name] = value
    return row
