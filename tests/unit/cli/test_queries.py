"""The commands history, decisions, diff and audit; and the formatting of figures."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path

import pytest
from aiohttp import web

from support.cli_runner import Run
from support.fake_admin_api import StandIn, bob, entry, sample
from waitroom.cli import formatting
from waitroom.cli.console import ExitCode


def test_history_has_bars_and_rows(run: Run, there: StandIn) -> None:
    result = run("history", "sale", "--seconds", "600")
    assert result.exit_code == ExitCode.SUCCESS
    lines = result.stdout.splitlines()
    bars = {line.split("  ")[0].strip(): line for line in lines[1:5]}
    assert bars["waiting"].split()[1:] == [formatting.sparkline(list(range(120)), 60), "0", "1,190", "1,190"]
    assert bars["admitted/min"].split()[-3:] == ["300", "300", "300"]
    assert bars["shop p95, ms"].split()[-1] == "412"
    rows = lines[6:]
    assert len(rows) == 20
    assert "1,190" in rows[-1]
    assert all("300 of 300" in row for row in rows)
    assert there.asked[-1].query == {"seconds": "600"}


def test_history_with_gaps(run: Run, there: StandIn) -> None:
    there.samples = [sample(0, shop=None), sample(1, admitted=-9, wait_seconds=None)]
    assert run("history", "sale").exit_code == ExitCode.SUCCESS
    there.samples = []
    assert "There is no history of sale" in run("history", "sale").stdout


def test_history_as_json(run: Run, there: StandIn) -> None:
    assert json.loads(run("history", "sale", "--json").stdout) == there.samples


@pytest.mark.parametrize("seconds", ["0", "21601", "x"])
def test_history_has_a_maximum_length(run: Run, there: StandIn, seconds: str) -> None:
    assert run("history", "sale", "--seconds", seconds).exit_code == ExitCode.INVALID_INPUT
    assert not there.asked


def test_decisions_are_listed_newest_first(run: Run, there: StandIn) -> None:
    lines = run("decisions", "sale", "--count", "7").stdout.splitlines()
    assert lines[0].split() == ["time", "action", "rate/min", "reason"]
    assert "back off  410" in lines[1]
    assert lines[1].rstrip().endswith("Lowered from 450 to 410 per minute.")
    assert "hold      0" in lines[2]
    assert there.asked[-1].query == {"count": "7"}
    assert json.loads(run("decisions", "sale", "--json").stdout) == there.decisions
    there.decisions = []
    assert run("decisions", "sale").stdout == "No decisions of the autopilot of sale yet.\n"


def test_diff_shows_differences(run: Run, there: StandIn) -> None:
    result = run("diff")
    assert result.exit_code == ExitCode.SUCCESS
    assert result.stdout.splitlines()[1].split() == ["sale", "rate_per_minute", "200", "300"]
    bob(there.rooms["sale"], rate_per_minute=200)
    assert run("diff", "sale").stdout == "sale: no differences from the settings file.\n"
    assert json.loads(run("diff", "--json").stdout)["sale"]["differs"] == []


def test_the_audit_shows_the_newest_first(run: Run, there: StandIn) -> None:
    there.entries.append(
        entry(9, who="eve\x1b[2J", action="login", outcome="refused", room="", old={}, new={}, note="wrong password")
    )
    for command in (("audit",), ("audit", "show")):
        lines = run(*command).stdout.splitlines()
        assert len(lines) == 5
        assert "login (refused)" in lines[1]
        assert "wrong password" in lines[1]
        assert "eve\ufffd[2J" in lines[1]
        assert "rate_per_minute 200 -> 300" in lines[2]
        assert "192.0.2.7 cli" in lines[2]
    assert len(run("audit", "show", "--count", "1").stdout.splitlines()) == 2
    assert json.loads(run("audit", "show", "--json", "-n", "2").stdout) == there.entries[:-3:-1]


def test_the_audit_log_of_one_room_is_searched_further_back(run: Run, there: StandIn) -> None:
    there.entries = [entry(0)] + [entry(number, room="other") for number in range(1, 1500)]
    shown = json.loads(run("audit", "show", "--room", "sale", "--json").stdout)
    assert [one["id"] for one in shown] == ["1000-0"]
    there.entries = []
    assert "No audit entries." in run("audit", "show", "--room", "sale").stdout


def test_options_before_an_audit_subcommand_are_refused(run: Run, there: StandIn) -> None:
    result = run("audit", "--admin", there.url, "show")
    assert result.exit_code == ExitCode.INVALID_INPUT
    assert "after show" in result.stderr


def test_the_export_is_json_lines(run: Run, there: StandIn, tmp_path: Path) -> None:
    result = run("audit", "export")
    assert [json.loads(line) for line in result.stdout.splitlines()] == there.entries
    result = run("audit", "export", "--output", "audit.jsonl")
    assert (result.stdout, result.exit_code) == ("", ExitCode.SUCCESS)
    assert [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()] == there.entries
    assert [path.name for path in tmp_path.iterdir()] == ["audit.jsonl"]


def test_an_incomplete_export_leaves_no_file(run: Run, there: StandIn, tmp_path: Path) -> None:
    there.instead = lambda _: web.Response(body=b"{}\n", headers={"Content-Type": "text/html"})
    (tmp_path / "old.jsonl").write_text("kept")
    assert run("audit", "export", "-o", "old.jsonl").exit_code == ExitCode.UNAVAILABLE
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]
    there.instead = lambda _: None
    assert run("audit", "export", "-o", "no/such/folder").exit_code == ExitCode.INVALID_INPUT


def test_an_intact_audit_log(run: Run) -> None:
    result = run("audit", "verify")
    assert result.exit_code == ExitCode.SUCCESS
    assert "3 entries, all intact." in result.stdout


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_broken_chain_is_reported_with_its_place(run: Run, there: StandIn, options: tuple[str, ...]) -> None:
    there.verdict |= {"intact": False, "summary": "An entry before 1002-0 was taken out."}
    result = run("audit", "verify", *options)
    assert result.exit_code == ExitCode.FAILURE
    assert "before 1002-0" in result.stderr
    if options:
        assert json.loads(result.stdout) == there.verdict


# Words.


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        *((None, "-"), ((0, 0), "none"), ((0, 59), "under 1 min"), ((60, 60), "1 min"), ((0, 61), "up to 2 min")),
        *(((290, 301), "4 to 6 min"), ((3600, 3600), "60 min"), ((3500, 7500), "55 min to 3 h")),
        ((300, 60), "1 to 5 min"),
    ],
)
def test_waits(span: tuple[float, float] | None, expected: str) -> None:
    assert formatting.format_wait(span) == expected


def test_figures() -> None:
    assert [formatting.format_number(value) for value in (None, 0, 12.25, 297.4, 1234567)] == [
        *("-", "0", "12.2", "297", "1,234,567")
    ]
    assert [formatting.format_latency(value) for value in (None, 0.0412, 2.44)] == ["-", "41 ms", "2.4 s"]
    assert (formatting.out_of(5, None), formatting.out_of(None, 6)) == ("5", "- of 6")


def test_bars() -> None:
    assert formatting.sparkline([], 10) == ""
    assert formatting.sparkline([0, 0], 10) == "▁▁"
    assert formatting.sparkline([0, None, 7, 3.5], 10) == "▁ █▅"
    assert formatting.sparkline([0] * 50 + [9] + [0] * 49, 4) == "▁▁█▁", "a short peak is seen"


def test_moments() -> None:
    assert formatting.format_time("2026-11-24T12:03:05Z", zone=UTC) == "24 Nov 12:03:05"
    assert formatting.format_time("2026-11-24T12:03:05+01:00", zone=UTC) == "24 Nov 11:03:05"
    assert formatting.format_time(0, "%H:%M", UTC) == "00:00"
    assert (formatting.format_time(None), formatting.format_time("soon"), formatting.format_time(1e99)) == (
        "-",
        "soon",
        "1e+99",
    )
