"""Previews of changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.edge_world import QUIET
from waitroom.control.rooms.preview import Preview, changed_view, preview_of, waits
from waitroom.queue.positions import RankIndex, Throughput
from waitroom.queue.view import RoomState

# Full, with a long queue; a slot becomes free every two seconds.
THROUGHPUT = Throughput(released=1000.0, per_slot_ms=0.5 / 1000 / 100, slots=100)
FULL = replace(
    QUIET,
    waiting=600,
    active=95,
    called=5,
    max_active=100,
    rate_per_minute=600.0,
    throughput=THROUGHPUT,
    rank_index=RankIndex("1", (0, 600), (101, 701)),
)
ROOMY = replace(FULL, active=10, called=0, max_active=10_000, throughput=Throughput())


def preview(view=FULL, *, autopilot_off=False, **changed) -> Preview:
    return preview_of(view, changed_view(view, changed), autopilot_off=autopilot_off)


def test_a_doubled_rate_halves_the_wait_while_slots_are_free() -> None:
    found = preview(ROOMY, rate_per_minute=1200.0)
    assert found.now.newcomer == (45, 80)
    assert found.after.newcomer == (22, 41)
    assert found.after.middle is not None
    assert found.now.middle is not None
    assert found.after.middle[1] < found.now.middle[1] < found.now.newcomer[1]
    assert found.summary == "A newcomer would wait under 1 min instead of up to 2 min."
    assert found.warnings == ()


def test_a_rate_above_the_turnover_changes_nothing_and_warns() -> None:
    found = preview(rate_per_minute=1100.0)
    assert found.after == found.now
    assert found.summary.endswith(", as now.")
    assert found.warnings == (
        "The room is full, and about 30 visitors leave per minute: max_active is the limit, not the rate.",
    )


def test_a_room_that_rejects_everybody_stays_closed() -> None:
    rejecting = replace(FULL, method="reject", state=RoomState.CLOSED)
    found = preview(rejecting, state=RoomState.OPEN)
    assert (found.after.newcomer, found.now.newcomer) == (None, None)
    assert found.summary == "This room admits nobody, whatever its state and its limits: its method is reject."


def test_more_slots_shorten_the_wait() -> None:
    found = preview(max_active=200)
    assert found.now.newcomer is not None
    assert found.after.newcomer is not None
    assert found.after.newcomer[1] < 0.6 * found.now.newcomer[1]
    assert " min instead of " in found.summary


def test_fewer_slots_than_taken_warn_that_nobody_is_admitted() -> None:
    assert preview(max_active=20).warnings[0] == (
        "100 visitors are active or called: nobody is removed, and nobody is admitted until 80 have left."
    )


def test_a_steep_increase_of_the_rate_warns() -> None:
    assert preview(ROOMY, rate_per_minute=1200.0).warnings == ()
    assert preview(ROOMY, rate_per_minute=1201.0).warnings[0].startswith("The rate rises 2 times in one step")


@pytest.mark.parametrize(
    ("state", "draining", "summary"),
    [
        (RoomState.PAUSED, False, "Admissions stop. 600 visitors waiting and 95 visitors in the shop stay."),
        (RoomState.PAUSED, True, "Admissions stop. The drain ends when 95 visitors in the shop have left."),
        (RoomState.CLOSED, False, "600 visitors waiting are told that it is closed; 95 visitors in the shop stay."),
        (RoomState.SOLD_OUT, False, "600 visitors waiting are told that it is sold out; 95 visitors in the shop stay."),
    ],
)
def test_the_summary_of_a_room_that_admits_nobody(state: RoomState, draining: bool, summary: str) -> None:
    found = preview(state=state, draining=draining)
    assert found.summary == summary
    assert (found.after.newcomer, found.after.middle) == (None, None)


def test_closing_warns_about_called_visitors() -> None:
    assert preview(state=RoomState.CLOSED).warnings == ("5 visitors already called can't enter while this lasts.",)
    assert preview(state=RoomState.PAUSED).warnings == ()


def test_opening_shows_the_wait() -> None:
    found = preview(replace(ROOMY, state=RoomState.PAUSED), state=RoomState.OPEN)
    assert found.now.newcomer is None
    assert found.summary == "Admissions resume. A newcomer would wait up to 2 min."


def test_unknown_waits() -> None:
    unknown = replace(FULL, throughput=Throughput())
    found = preview(unknown, rate_per_minute=900.0)
    assert found.summary == "The wait of a newcomer is not known yet."
    assert preview(replace(FULL, method="passthrough"), rate_per_minute=5.0).summary.startswith(
        "This room has no queue"
    )


def test_switching_the_autopilot_off_warns() -> None:
    assert preview(rate_per_minute=500.0, autopilot_off=True).warnings[0].startswith("The autopilot is switched off")


def test_an_empty_queue_has_no_middle() -> None:
    assert waits(QUIET).middle is None
    assert waits(QUIET).newcomer is not None
    assert waits(replace(QUIET, rate_per_minute=0.0)).newcomer is None
