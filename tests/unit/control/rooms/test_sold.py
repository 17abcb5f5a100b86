"""What was sold, by the stock or by released sessions, in the current event or since the first day."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from waitroom.control.rooms.presenter import Sold
from waitroom.queue.schedule import Event, EventRecord, Phase

NOON = 1_790_000_000_000
TOTALS = {"sold": 130, "units_returned": 10, "left:released": 90, "joined": 5000}
BEGIN = {"sold": 100, "units_returned": 5, "left:released": 60}
RECORD = EventRecord(Event("sale", "", NOON), Phase.RUNNING, "file", False, None, NOON, None, BEGIN, {}, {})


def view(**values: Any) -> Any:
    return SimpleNamespace(**{"totals": TOTALS, "remaining": 7, "event": None, **values})


@pytest.mark.parametrize(
    ("values", "sold"),
    [
        ({}, Sold(120, "stock")),
        ({"event": RECORD}, Sold(25, "stock")),
        ({"event": replace(RECORD, started_ms=None, phase=Phase.PREQUEUE)}, Sold(0, "stock")),
        (
            {"event": replace(RECORD, ended_ms=NOON + 1, phase=Phase.ENDED, totals={"sold": 9, "units_returned": 2})},
            Sold(7, "stock"),
        ),
        ({"remaining": None, "totals": {"left:released": 90}}, Sold(90, "release")),
        ({"remaining": None, "totals": {"left:released": 90}, "event": RECORD}, Sold(30, "release")),
        ({"remaining": None, "totals": {}}, Sold(0, "release")),
    ],
)
def test_what_was_sold(values: dict[str, Any], sold: Sold) -> None:
    assert Sold.of(view(**values)) == sold
