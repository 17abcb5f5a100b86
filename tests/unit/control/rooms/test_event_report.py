"""The report of an event: its figures from the totals and classes of a record, its CSV, and its texts."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest

from waitroom.control.dashboard.report_presenter import report_texts
from waitroom.control.rooms.csv_text import csv_text
from waitroom.control.rooms.event_report import EventReport, bounds, percentile
from waitroom.control.rooms.event_tables import report_csv, samples_csv
from waitroom.queue.schedule import Event, EventRecord, Phase

START = 1_790_000_000_000
HOUR = 3_600_000
TOTALS = {
    "joined": 500,
    "admitted": 400,
    "sold": 310,
    "units_returned": 10,
    "released_by_shop": 290,
    "left:released": 350,
    "left:left": 20,
    "left:away": 30,
    "left:missed": 4,
    "missed_turns": 60,
    "left:event_ended": 46,
}
STATS = {"peak_waiting": 250, "peak_active": 80, "overshoot": 2}


def record(
    totals: dict[str, int] = TOTALS, stats: dict[str, int] = STATS, *, title: str = "The drop", units: int | None = 300
) -> EventRecord:
    event = Event("drop", title, START, units=units, end_ms=START + HOUR)
    ended = START + HOUR
    return EventRecord(event, Phase.ENDED, "file", False, None, START, ended, {}, totals, stats)


def report(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return EventReport.of("shop", record(*args, **kwargs)).json()


def class_of(seconds: int) -> int:
    """As in ``scripts/visit.lua``."""
    return math.floor(math.log(seconds + 1) / math.log(1.2))


def histogram(waits: list[int], prefix: str = "wait:") -> dict[str, int]:
    found: dict[str, int] = {}
    for wait in waits:
        name = f"{prefix}{class_of(wait)}"
        found[name] = found.get(name, 0) + 1
    return found


def test_the_figures_of_a_report() -> None:
    assert report() == {
        "room": "shop",
        "event": "drop",
        "title": "The drop",
        "phase": "ended",
        "prequeue_opened_at": None,
        "started_at": "2026-09-21T14:13:20Z",
        "ended_at": "2026-09-21T15:13:20Z",
        "joined": 500,
        "admitted": 400,
        "sold": 300,
        "sold_by": "stock",
        "units": 300,
        "gave_up": {"left": 20, "away": 30, "missed": 4, "total": 54},
        "no_shows": 60,
        "voided": 46,
        "peak_waiting": 250,
        "peak_active": 80,
        "wait_seconds": {"p50": 0, "p90": 0, "max": 0},
        "eta_error_seconds": {"p50": None, "p90": None},
        "overshoot": 2,
        "over_limit": {"rate": 0, "max_active": 0},
    }


def test_without_reports_of_the_stock_releases_by_the_shop_count() -> None:
    """Visitors who leave the shop by themselves are in ``left:released`` too."""
    found = report({"released_by_shop": 290, "left:released": 350})
    assert (found["sold"], found["sold_by"]) == (290, "release")
    found = report({"left:released": 350})
    assert (found["sold"], found["sold_by"]) == (0, None)


def test_more_units_returned_than_sold_are_no_sale() -> None:
    found = report({"sold": 5, "units_returned": 100, "released_by_shop": 3})
    assert (found["sold"], found["sold_by"]) == (0, "stock")


def test_totals_that_the_store_has_lost_are_not_negative() -> None:
    assert report({"joined": -5})["joined"] == 0


def test_visitors_who_were_admitted_directly_waited_no_time() -> None:
    waits = report({"admitted": 10}, histogram([600] * 4))["wait_seconds"]
    assert waits["p50"] == 0
    assert waits["p90"] == pytest.approx(600, rel=0.2)
    assert waits["max"] >= 600


def test_nobody_admitted_has_no_waits() -> None:
    assert report({}, {})["wait_seconds"] == {"p50": None, "p90": None, "max": None}


@pytest.mark.parametrize("seconds", [*range(200), 599, 3600, 86_400, 604_800])
def test_every_second_is_within_the_bounds_of_its_class(seconds: int) -> None:
    first, last = bounds(class_of(seconds))
    assert first <= seconds <= last <= seconds * 1.2 + 1


@pytest.mark.parametrize("waits", [list(range(1000)), [5] * 10, [0, 0, 7000], [30, 31, 32, 90, 900, 901, 1500]])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_percentiles_are_within_20_percent(waits: list[int], share: float) -> None:
    classes = {int(name.removeprefix("wait:")): count for name, count in histogram(waits).items()}
    true = sorted(waits)[math.ceil(share * len(waits)) - 1]
    found = percentile(classes, share)
    assert found is not None
    assert abs(found - true) <= max(1, 0.2 * true)


def test_errors_of_estimates_have_percentiles() -> None:
    errors = report(stats=histogram([10] * 9 + [400], "eta:"))["eta_error_seconds"]
    assert errors == {"p50": pytest.approx(10, abs=1), "p90": pytest.approx(10, abs=1)}


def parsed(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_a_report_is_one_row_of_csv() -> None:
    text = report_csv(EventReport.of("shop", record()))
    assert text.count("\r\n") == text.count("\n") == 2
    header, row = parsed(text)
    cells = dict(zip(header, row, strict=True))
    assert (cells["event"], cells["sold"], cells["gave_up_total"]) == ("drop", "300", "54")
    assert (cells["eta_error_seconds_p50"], cells["prequeue_opened_at"]) == ("", "")


@pytest.mark.parametrize("title", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("x"), "y"'])
def test_no_title_is_a_formula(title: str) -> None:
    header, row = parsed(report_csv(EventReport.of("shop", record(title=title))))
    assert row[header.index("title")] == f"'{title}"


def test_csv_quotes_what_it_must() -> None:
    text = csv_text(["a", "b"], [['x"y', "one, two\nthree"], [-1, None]])
    assert text == 'a,b\r\n"x""y","one, two\nthree"\r\n-1,\r\n'


def test_samples_become_rows() -> None:
    shop = {"requests_per_minute": 60.0, "failures_per_minute": 0.0, "p50_seconds": None, "in_flight": 2}
    full = {"at": 1_790_000_000, "state": "open", "waiting": 3, "joined": 11, "wait_seconds": [10, 20], "shop": shop}
    bare = {"at": 1_790_000_005, "state": "closed", "wait_seconds": None}
    header, first, second = parsed(samples_csv([json.dumps(one).encode() for one in (full, bare)]))
    cells = dict(zip(header, first, strict=True))
    assert (cells["at"], cells["waiting"], cells["active"]) == ("2026-09-21T14:13:20Z", "3", "")
    assert (cells["wait_low_seconds"], cells["wait_high_seconds"], cells["shop_in_flight"]) == ("10", "20", "2")
    assert second[:2] == ["2026-09-21T14:13:25Z", "closed"]
    assert len(second) == len(header)


def test_the_texts_of_a_report() -> None:
    texts = report_texts(report(stats={**STATS, **histogram([600] * 400)}))
    assert (texts["title"], texts["period"]) == ("The drop", "2026-09-21 14:13 to 15:13 UTC")
    assert texts["path"] == "/api/v1/rooms/shop/events/drop"
    figures = dict(texts["figures"])
    assert figures["Sold"] == "300 of 300 (by stock)"
    assert (figures["Gave up"], figures["Left / away / missed"]) == ("54", "20 / 30 / 4")
    assert figures["Waiting at the end"] == "46"
    assert figures["ETA error p50 / p90"] == "– / –"  # noqa: RUF001 - a dash, as it should be
    assert "Over rate / max active" not in figures


def test_a_passthrough_room_shows_what_its_limits_would_have_held() -> None:
    figures = dict(report_texts(report({"over:rate": 99, "over:max_active": 3}, title=""))["figures"])
    assert figures["Over rate / max active"] == "99 / 3"
    assert report_texts(report(title=""))["title"] == "drop"
