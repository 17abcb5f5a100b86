import io

import pytest
from rich.console import Console

from waitroom.drill.load.visitor import Outcome
from waitroom.drill.report.terminal import Baseline, Progress, Snapshot, Summary, quantile, summary_report
from waitroom.drill.scraping import RoomStats, ShopStats, parse_room_stats

METRICS = """\
# HELP waitroom_waiting_visitors Visitors waiting in the queue.
# TYPE waitroom_waiting_visitors gauge
waitroom_waiting_visitors{room="shop"} 312.0
waitroom_waiting_visitors{room="other"} 5.0
# TYPE waitroom_called_visitors gauge
waitroom_called_visitors{room="shop"} 4.0
# TYPE waitroom_active_sessions gauge
waitroom_active_sessions{room="shop"} 63.0
# TYPE waitroom_joined_total counter
waitroom_joined_total{room="shop"} 400.0
# TYPE waitroom_admitted_total counter
waitroom_admitted_total{room="shop"} 88.0
# TYPE waitroom_limit_overshoot_total counter
waitroom_limit_overshoot_total{room="shop",limit="rate"} 1.0
waitroom_limit_overshoot_total{room="shop",limit="active"} 2.0
# TYPE waitroom_wait_seconds histogram
waitroom_wait_seconds_bucket{room="shop",le="+Inf"} 88.0
waitroom_wait_seconds_sum{room="shop"} 900.0
waitroom_wait_seconds_count{room="shop"} 88.0
"""


def snapshot(elapsed=5.0, **changed):
    values = {
        "seconds": 54.0,
        "arrived": 400,
        "waiting": 312,
        "called": 4,
        "active": 63,
        "max_active": 87,
        "admitted": 88,
        "per_minute": 522.0,
        "sold": 25,
        "errors": 0,
    }
    return Snapshot(elapsed=elapsed, **values | changed)


def summary(**changed):
    values = {
        "seconds": 52.0,
        "visitors": 400,
        "arrived": 400,
        "joined": 390,
        "admitted": 380,
        "outcomes": dict.fromkeys(Outcome, 0) | {Outcome.BOUGHT: 370, Outcome.GAVE_UP: 12},
        "waits": [float(seconds) for seconds in range(1, 101)],
        "requests": 5000,
        "errors": {},
        "slowest_seconds": 0.31,
        "shop": ShopStats(orders=370, stock=130, requests=2400, failures=3, peak_in_flight=21),
        "room": RoomStats(overshoots=0),
        "baseline": Baseline(seconds=6.0, requests=1300, failures=600, sold=2),
    }
    return Summary(**values | changed)


def shown(renderable):
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    return " ".join(console.file.getvalue().split())


def test_room_stats_are_parsed_from_the_metrics():
    assert parse_room_stats(METRICS, "shop") == RoomStats(312, 4, 63, 400, 88, 3)
    assert parse_room_stats(METRICS, "nowhere") == RoomStats()


def test_invalid_metrics_are_refused():
    with pytest.raises(ValueError, match="html"):
        parse_room_stats("<html>not here</html>", "shop")


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2.0), (0.9, 4.0), (1, 4.0), (0, 1.0), (0.51, 3.0)])
def test_quantiles_are_observed_values(share, expected):
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == expected


def test_an_empty_list_has_no_quantile():
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_the_summary_lists_the_outcomes():
    text = shown(summary_report(summary()))
    for part in (
        "arrived 400 of 400 in 52 s",
        "joined the queue 390",
        "admitted 380",
        "bought 370",
        "gave up 12",
        "p50 50 s, p90 90 s, max 100 s",
        "sold 370 (130 left)",
        "failed requests 3 of 2,400",
        "visitor errors none",
        "limits exceeded 0 times",
        "without Waitroom: 600 of 1,300 requests failed, 2 sold in 6.0 s",
        "with Waitroom: 0 of 5,000 requests failed, 370 sold in 52 s",
    ):
        assert part in text
    assert "failed 0" not in text
    assert "still waiting" not in text


def test_the_summary_works_without_any_stats():
    text = shown(
        summary_report(summary(waits=[], shop=None, room=None, baseline=None, errors={"timeout": 2, "status": 1}))
    )
    assert "no admissions from the queue" in text
    assert "visitor errors 1 by status, 2 by timeout" in text
    assert "without Waitroom" not in text
    assert "limits exceeded" not in text


def test_without_a_terminal_a_line_is_printed_every_few_seconds():
    console = Console(file=io.StringIO(), width=40)
    with Progress(console) as progress:
        for second in range(12):
            progress.show(snapshot(float(second), called=None if second else 4))
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "5", "10"]
    assert lines[0] == ("  0 s  waiting 312  called 4  active 63 of 87  admitted 88 (522/min)  sold 25  errors 0")
    assert "called" not in lines[1]


def test_in_a_terminal_every_snapshot_is_drawn_and_cleared_at_the_end():
    console = Console(file=io.StringIO(), width=120, force_terminal=True, legacy_windows=False)
    with Progress(console) as progress:
        progress.show(snapshot())
        drawn = console.file.getvalue()
        progress.show(snapshot(6.0, errors=7))
    for part in ("waiting", "312", "of 87 allowed in the shop", "522 per minute", "5 of 54 s"):
        assert part in drawn
    assert "6 of 54 s" in console.file.getvalue()
    assert console.file.getvalue().endswith("\x1b[2K")
