"""The events of a room in words, in every phase."""

from __future__ import annotations

from typing import Any

import pytest

from support.fake_admin import schedule
from support.room_views import EVENT
from waitroom.control.dashboard.event_presenter import (
    current_event_texts,
    event_actions,
    event_numbers,
    next_step,
    timeline_rows,
)
from waitroom.queue.fields import EVENT_LIMITS

PLANNED = {"started_at": None, "prequeue_opened_at": None}
SCHEDULED = {**EVENT, **PLANNED, "phase": "scheduled"}


@pytest.mark.parametrize(
    ("values", "phase", "step", "at", "actions"),
    [
        ({"phase": "scheduled"}, "Scheduled", "Prequeue opens", "prequeue_start", ["start", "edit", "cancel"]),
        (
            {"phase": "scheduled", "prequeue_start": None},
            *("Scheduled", "Starts", "start", ["start", "edit", "cancel"]),
        ),
        ({"phase": "prequeue"}, "Prequeue", "Starts", "start", ["start", "edit", "cancel"]),
        ({"phase": "running"}, "Running", "Ends", "end", ["extend", "edit", "end"]),
        ({"phase": "running", "end": None}, "Running", "No end is planned.", None, ["extend", "edit", "end"]),
        ({"phase": "ended"}, "Ended", "", None, []),
        ({"phase": "ended", "cancelled": True}, "Cancelled", "", None, []),
    ],
)
def test_each_phase_has_a_next_step_and_actions(values, phase, step, at, actions):
    event = {**EVENT, **values}
    now = current_event_texts({"event": event})
    assert (now["event_phase"], now["step"], now["step_at"]) == (phase, step, event[at] if at else "")
    assert event_actions(event) == actions


def test_without_an_event_nothing_is_shown():
    assert next_step(None) is None
    assert set(current_event_texts({}).values()) == {"", "quiet"}
    assert set(current_event_texts({})) == set(current_event_texts({"event": EVENT}))


def test_the_timeline_has_planned_events_with_the_gaps_around_them_and_past_ones():
    planned, past = timeline_rows(schedule())
    assert [row.get("name", row.get("text")) for row in planned] == ["redmi-1s", "Room open", "redmi-2"]
    assert (planned[1]["from"], planned[1]["to"]) == ("2026-12-12T06:00:00Z", "2027-01-02T04:00:00Z")
    assert [row["name"] for row in past] == ["early"]


def test_past_events_are_listed_newest_first():
    ended = [{**EVENT, "phase": "ended", "name": name} for name in ("first", "second")]
    assert [row["name"] for row in timeline_rows({"events": ended, "timeline": []})[1]] == ["second", "first"]


def row_of(**values: Any) -> dict[str, Any]:
    planned, past = timeline_rows({"events": [{**EVENT, **values}], "timeline": []})
    return (planned + past)[0]


def test_times_are_those_that_came_or_else_those_planned():
    assert row_of()["times"] == [
        ("Prequeue", "2026-12-12T03:30:00Z"),
        ("Start", "2026-12-12T04:00:01Z"),
        ("End", "2026-12-12T06:00:00Z"),
    ]
    assert row_of(**PLANNED, phase="scheduled", prequeue_start=None, end=None)["times"] == [
        ("Start", "2026-12-12T04:00:00Z"),
        ("End", ""),
    ]
    ended = {"phase": "ended", "ended_at": "2026-12-12T05:00:00Z"}
    assert row_of(**ended)["times"][-1] == ("End", "2026-12-12T05:00:00Z")
    cancelled = row_of(**ended, **PLANNED, cancelled=True)
    assert cancelled["times"] == [("Planned", "2026-12-12T04:00:00Z"), ("Cancelled", "2026-12-12T05:00:00Z")]


def test_only_events_that_started_and_ended_have_a_report():
    assert not row_of()["has_report"]
    assert row_of(phase="ended")["has_report"]
    assert not row_of(phase="ended", **PLANNED, cancelled=True)["has_report"]


def test_limits_and_units_are_told():
    limits = {"rate_per_minute": "auto", "max_active": 2000, "session_seconds": 900, "claim_seconds": 90}
    assert row_of(limits=limits)["facts"] == [
        *("5,000 units", "Rate auto", "max active 2,000", "session 15 min", "time to claim a turn 90 s"),
        *("random order", "closed before, open after"),
    ]
    plain = row_of(limits={"rate_per_minute": 0.5}, units=None, prequeue_start=None, before="open", after="sold_out")
    assert plain["facts"] == ["0.5 per minute", "open before, sold out after"]


def test_the_form_offers_every_limit_that_an_event_may_set():
    assert [number["name"] for number in event_numbers()] == [field.name for field in EVENT_LIMITS]
    assert [number["unit"] for number in event_numbers()] == ["per minute", "", *["seconds"] * 7]
