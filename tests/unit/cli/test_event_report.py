"""``waitroom event report``, against a stand-in for the admin API."""

from __future__ import annotations

import json
from pathlib import Path

from support.cli_runner import Run
from support.fake_admin_api import REPORT, StandIn
from waitroom.cli.console import ExitCode


def test_a_report_is_a_table(run: Run) -> None:
    result = run("event", "report", "sale", "drop")
    assert result.exit_code == ExitCode.SUCCESS
    assert result.stdout.startswith("The drop (drop): 2036-12-12 ")
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for row in (
        "joined 60,542",
        "sold 5,000 of 5,000 (by stock)",
        "gave up 4,150 (left 4,000, away 120, missed 30)",
        "missed turns 640",
        "wait p50 / p90 / max 95 s / 25 min / 2 h 5 min",
        "ETA error p50 / p90 - / -",
    ):
        assert row in rows
    assert "over" not in [row.split()[0] for row in rows[1:]]


def test_a_report_of_a_running_event_in_a_passthrough_room(run: Run, there: StandIn) -> None:
    there.report |= {"ended_at": None, "phase": "running", "title": "", "sold_by": None, "units": None, "sold": 0}
    there.report["over_limit"] = {"rate": 99, "max_active": 0}
    shown = run("event", "report", "sale", "drop").stdout
    assert shown.startswith("drop: running, up to now\n")
    assert "0 (no sales reported)" in shown
    assert "over rate" in shown
    assert "over max_active" not in shown


def test_a_report_as_json(run: Run) -> None:
    assert json.loads(run("event", "report", "sale", "drop", "--json").stdout) == REPORT


def test_files_are_written_instead_of_the_table(run: Run, tmp_path: Path) -> None:
    report, samples = tmp_path / "report.csv", tmp_path / "samples.csv"
    result = run("event", "report", "sale", "drop", "--csv", str(report), "--samples", str(samples))
    assert (result.exit_code, result.stdout) == (ExitCode.SUCCESS, "")
    assert (report.read_bytes(), samples.read_bytes()) == (b"report.csv\r\n", b"samples.csv\r\n")


def test_a_file_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    result = run("event", "report", "sale", "drop", "--csv", str(tmp_path / "nowhere" / "report.csv"))
    assert result.exit_code == ExitCode.INVALID_INPUT
    assert "can't write" in result.stderr


def test_unknown_rooms_and_events(run: Run) -> None:
    assert "choose from sale" in run("event", "report", "vip", "drop").stderr
    assert run("event", "report", "sale", "nothing").exit_code == ExitCode.INVALID_INPUT
