"""``waitroom events`` and ``waitroom event``, against a stand-in for the admin API."""

from __future__ import annotations

import json
import re

import pytest

from support.cli_runner import Run
from support.fake_admin_api import EVENT, StandIn, bob
from waitroom.cli.api_models import Event
from waitroom.cli.console import ExitCode
from waitroom.cli.formatting import describe_event, format_countdown

NOON = 2_112_609_600.0  # 2036-12-11T12:00:00Z


def test_events_are_listed_with_the_timeline(run: Run) -> None:
    result = run("events", "sale")
    assert result.exit_code == ExitCode.SUCCESS
    heading, line, blank, below, *timeline = result.stdout.splitlines()
    assert heading.split()[:4] == ["event", "title", "phase", "prequeue"]
    for part in ("drop", "The drop", "scheduled", "2036-12-12", "5,000", "max_active 800", "file"):
        assert part in line
    assert re.search(r"prequeue opens in [0-9,]+ d [0-9]+ h", line)
    assert (blank, below.split()[0]) == ("", "until")
    assert timeline[0].split()[-3:] == ["closed", "auto", "400"]
    assert "sold out" in timeline[1]


def test_events_as_json(run: Run, there: StandIn) -> None:
    assert json.loads(run("events", "sale", "--json").stdout)["events"] == [EVENT]
    there.events.clear()
    assert run("events", "sale").stdout == "sale has no events.\n"
    assert run("events", "nothing").exit_code == ExitCode.INVALID_INPUT


def test_set_prints_the_effect_and_the_result(run: Run, there: StandIn) -> None:
    values = ("end=2036-12-12T14:00:00+07:00", "units=none", "rate-per-minute=auto", "title=")
    result = run("event", "set", "sale", "drop", *values, "--note", "more units")
    assert result.exit_code == ExitCode.SUCCESS
    effect, done = result.stdout.splitlines()
    assert effect == "The event says so."
    assert done.startswith("Done: title The drop -> -, end 2036-12-12 06:00")
    assert "limits rate_per_minute 600, max_active 800 -> rate_per_minute auto, max_active 800." in done
    tried, changed = there.calls("PUT")
    body = {"end": "2036-12-12T14:00:00+07:00", "units": None, "rate_per_minute": "auto", "title": ""}
    assert (tried.query, tried.body) == ({"dry_run": "true"}, body)
    assert changed.body == {**body, "note": "more units"}
    assert tried.headers["If-Match"] == changed.headers["If-Match"] == '"7"'


def test_a_new_event_is_scheduled(run: Run, there: StandIn) -> None:
    result = run("event", "set", "sale", "next", "start=2036-12-20T11:00:00Z", "--yes")
    assert result.stdout.splitlines()[-1].startswith("Done: next is scheduled for 2036-12-20 ")
    assert "next" in there.events


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("start=2036-12-20T11:00:00", "a time with its zone"),
        ("start=none", "a time with its zone"),
        ("end=tomorrow", "a time with its zone"),
        ("method=best", "write fifo or random"),
        ("units=many", "a whole number of units"),
        ("max_active=1.5", "write a whole number of visitors, or none"),
        ("rate_per_minute=inf", "auto or none"),
        ("strat=2036-12-20T11:00:00Z", "did you mean start?"),
        ("phase=running", "waitroom event start"),
        ("nonsense=1", "use one of title, prequeue_start"),
        ("end", "end has no value"),
    ],
)
def test_invalid_assignments_are_refused_without_a_request(run: Run, there: StandIn, value: str, expected: str) -> None:
    result = run("event", "set", "sale", "drop", value)
    assert result.exit_code == ExitCode.INVALID_INPUT
    assert expected in result.stderr
    assert not there.asked


@pytest.mark.parametrize(("move", "phase"), [("start", "running"), ("end", "ended"), ("cancel", "cancelled")])
def test_moves_say_the_effect_and_the_phase(run: Run, there: StandIn, move: str, phase: str) -> None:
    result = run("event", move, "sale", "drop", "--note", "why")
    assert result.exit_code == ExitCode.SUCCESS
    assert result.stdout.splitlines() == ["The event says so.", f"Done: phase scheduled -> {phase}."]
    tried, done = there.calls("POST")
    assert (tried.path, tried.query, tried.body) == (
        f"/api/v1/rooms/sale/events/drop/{move}",
        {"dry_run": "true"},
        {},
    )
    assert done.body == {"note": "why"}


def test_a_dry_run_changes_nothing(run: Run, there: StandIn) -> None:
    for command in (
        ("set", "sale", "drop", "units=7"),
        *((move, "sale", "drop") for move in ("start", "end", "cancel")),
    ):
        result = run("event", *command, "--dry-run")
        assert result.exit_code == ExitCode.SUCCESS
        assert result.stdout.endswith("Dry run: nothing was changed.\n")
    assert there.rooms["sale"]["version"] == 7


@pytest.mark.parametrize(
    "command", [("start", "sale", "drop"), ("cancel", "sale", "drop"), ("set", "sale", "drop", "units=7")]
)
def test_a_user_is_asked_and_may_decline(run: Run, there: StandIn, command: tuple[str, ...]) -> None:
    there.warnings = ["5 visitors lose their places."]
    result = run("event", *command, typed="n\n")
    assert result.exit_code == ExitCode.FAILURE
    assert "Warning: 5 visitors lose their places." in result.stdout
    assert there.rooms["sale"]["version"] == 7
    assert run("event", *command, "--yes", typed="").exit_code == ExitCode.SUCCESS
    assert there.rooms["sale"]["version"] == 8


def test_a_concurrent_change_is_not_overwritten(run: Run, there: StandIn) -> None:
    there.meanwhile = lambda room: bob(room, max_active=100)
    result = run("event", "start", "sale", "drop")
    assert result.exit_code == ExitCode.CONFLICT
    assert "bob" in result.stderr
    assert there.events["drop"]["phase"] == "scheduled"


def test_unknown_events_are_named_with_a_suggestion(run: Run, there: StandIn) -> None:
    result = run("event", "start", "sale", "drp")
    assert result.exit_code == ExitCode.INVALID_INPUT
    assert "Unknown event drp: did you mean drop?" in result.stderr
    there.events.clear()
    assert "the room has no events" in run("event", "end", "sale", "drop").stderr


def test_the_status_shows_the_event(run: Run, there: StandIn) -> None:
    there.rooms["sale"] |= {"state": "prequeue", "event": {**EVENT, "phase": "prequeue"}}
    shown = run("status").stdout
    assert re.search(r"sale: event drop: prequeue, starts in [0-9,]+ d [0-9]+ h \(12 Dec ", shown)


@pytest.mark.parametrize(
    ("phase", "more", "expected"),
    [
        ("scheduled", {}, "event drop: scheduled, prequeue opens in 15 h 30 min"),
        ("scheduled", {"prequeue_start": None}, "event drop: scheduled, starts in 16 h 0 min"),
        ("prequeue", {}, "event drop: prequeue, starts in 16 h 0 min"),
        ("running", {}, "event drop: running, ends in 18 h 0 min"),
        ("running", {"end": None}, "event drop: running"),
        ("ended", {"ended_at": "2036-12-11T11:00:00Z"}, "event drop: ended 11 Dec "),
    ],
)
def test_the_phase_of_an_event_in_words(phase: str, more: dict[str, object], expected: str) -> None:
    known = {name: EVENT[name] for name in ("name", "prequeue_start", "start", "end")}
    event = Event(**{**known, "phase": phase, **more})  # type: ignore[arg-type]
    assert describe_event(event, NOON).startswith(expected)


def test_countdowns() -> None:
    assert [format_countdown(seconds) for seconds in (-5, 0, 59.4, 60, 3599, 7500, 100_000)] == [
        *("0 s", "0 s", "59 s", "1 min", "59 min", "2 h 5 min", "1 d 3 h"),
    ]
