"""Previews of changes of events, and how events limit the effect of other changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.edge_world import QUIET
from waitroom.control.rooms.event_effects import event_effects
from waitroom.control.rooms.event_preview import (
    EventRoom,
    preview_cancel,
    preview_end,
    preview_set,
    preview_start,
)
from waitroom.control.rooms.preview import Preview, changed_view, preview_of
from waitroom.queue.schedule import Event, EventRecord, Phase
from waitroom.queue.view import RoomState, RoomView, state_in_force

NOON = 1_790_000_000_000 // 60_000 * 60_000  # 14:13 UTC
HOUR = 3_600_000
LIMITS = {"rate_per_minute": 300.0, "max_active": 400, "session_seconds": 900.0, "autopilot": False}
EVENT = Event(
    "sale",
    "The sale",
    NOON + HOUR,
    NOON + HOUR // 2,
    NOON + 2 * HOUR,
    limits={"rate_per_minute": 600.0, "max_active": 800, "autopilot": False},
)


def record(event: Event = EVENT, phase: Phase = Phase.SCHEDULED, **more: Any) -> EventRecord:
    opened = NOON if phase in (Phase.PREQUEUE, Phase.RUNNING) else None
    return EventRecord(event, phase, "operator", False, opened, None, None, {}, {}, {}, **more)


def room(
    current: EventRecord | None,
    *others: EventRecord,
    own_state: RoomState = RoomState.OPEN,
    limits: dict[str, Any] = LIMITS,
    **more: Any,
) -> EventRoom:
    running = current is not None and current.phase is Phase.RUNNING
    in_force = {**limits, **current.event.limits} if running and current is not None else limits
    view = replace(
        QUIET,
        wall_ms=NOON,
        event=current,
        own_state=own_state,
        state=state_in_force(own_state, current),
        rate_per_minute=in_force["rate_per_minute"],
        max_active=in_force["max_active"],
        **more,
    )
    records = [*others] if current is None else [current, *others]
    return EventRoom(view, records, limits, in_force)


def test_a_start_says_how_many_are_called_and_at_which_limits() -> None:
    prequeue = record(phase=Phase.PREQUEUE)
    found = preview_start(room(prequeue, waiting=4210), prequeue)
    assert found.summary == (
        'The event "sale" starts now. It ends at 2026-09-21 16:13 UTC. '
        "4,210 visitors waiting in the prequeue are called from now on at 600 per minute, the last one after about 8 "
        "min at that rate; at most 800 are in the shop at the same time. "
        "Until it ends: rate_per_minute 300 → 600, max_active 400 → 800."
    )
    assert found.warnings == ()
    assert found.now.newcomer is None
    assert preview_start(room(prequeue), prequeue).after.newcomer is not None


def test_a_start_draws_a_random_prequeue_and_leaves_out_one_that_is_not_open() -> None:
    drawn = record(replace(EVENT, method="random"), Phase.PREQUEUE)
    assert "drawn at random" in preview_start(room(drawn, waiting=5), drawn).summary
    scheduled = record(replace(EVENT, end_ms=None, units=5000))
    summary = preview_start(room(scheduled), scheduled).summary
    assert (
        "It runs until you end it. Its prequeue is left out. Nobody waits; newcomers are admitted at 600 per" in summary
    )
    assert summary.endswith("The number of units left is set to 5,000.")


@pytest.mark.parametrize(("own_state", "word"), [(RoomState.PAUSED, "paused"), (RoomState.CLOSED, "closed")])
def test_a_start_lets_nobody_into_a_room_that_an_operator_holds(own_state: RoomState, word: str) -> None:
    scheduled = record()
    found = preview_start(room(scheduled, own_state=own_state, waiting=5), scheduled)
    assert found.warnings[0] == f"The room stays {word}: nobody is called until you open it."
    assert "called from now on" not in found.summary
    lifted = room(scheduled, own_state=own_state, state_by="schedule")
    assert preview_start(lifted, scheduled).warnings == ()


def test_a_sold_out_room_opens_with_an_event_but_not_after_its_prequeue_did() -> None:
    scheduled, prequeue = record(), record(phase=Phase.PREQUEUE)
    assert preview_start(room(scheduled, own_state=RoomState.SOLD_OUT), scheduled).warnings == ()
    assert (
        preview_start(room(prequeue, own_state=RoomState.SOLD_OUT), prequeue).warnings[0].startswith("The room stays")
    )


def test_the_autopilot_goes_off_with_a_rate_and_on_with_auto() -> None:
    scheduled = record()
    on = room(scheduled, limits={**LIMITS, "autopilot": True})
    summary = preview_start(on, scheduled).summary
    assert "rate_per_minute auto → 600" in summary
    assert "The autopilot goes off." in summary
    automatic = record(replace(EVENT, limits={"autopilot": True}))
    summary = preview_start(room(automatic, waiting=600), automatic).summary
    assert "called from now on at the autopilot's rate, 300 per minute now, the last one after about 2 min" in summary
    assert "The autopilot goes on." in summary


def test_an_end_says_what_returns_and_who_loses_places() -> None:
    running = record(phase=Phase.RUNNING)
    found = preview_end(room(running, waiting=90, active=30), running)
    assert found.summary == (
        'The event "sale" ends now, not at 2026-09-21 16:13 UTC. The room is open. '
        "90 visitors waiting are called from now on at 300 per minute, the last one after less than a minute at that "
        "rate; at most 400 are in the shop at the same time. "
        "Back to the values from before the event: rate_per_minute 600 → 300, max_active 800 → 400."
    )
    assert found.warnings == ()
    over = record(replace(EVENT, after="sold_out"), Phase.RUNNING)
    found = preview_end(room(over, waiting=90, called=3, away=7, active=30), over)
    assert "The room is sold out then. 30 visitors in the shop stay." in found.summary
    assert found.warnings[0] == "100 visitors waiting or called lose their places."
    assert found.after.newcomer is None


def test_an_end_opens_a_sold_out_room_and_keeps_a_paused_one() -> None:
    running = record(phase=Phase.RUNNING)
    assert "The room is open." in preview_end(room(running, own_state=RoomState.SOLD_OUT), running).summary
    assert "The room stays paused." in preview_end(room(running, own_state=RoomState.PAUSED), running).summary


def test_an_end_warns_of_the_next_event_that_keeps_the_room_closed() -> None:
    running = record(phase=Phase.RUNNING)
    later = record(Event("later", "", NOON + 9 * HOUR))
    found = preview_end(room(running, later), running)
    assert found.summary.endswith(
        'The event "later" follows, with its start at 2026-09-21 23:13 UTC, and keeps the room closed until then.'
    )
    assert found.after.newcomer is None


def test_a_cancellation_leaves_the_room_closed_if_the_event_kept_it_so() -> None:
    prequeue, later = record(phase=Phase.PREQUEUE), record(Event("later", "", NOON + 9 * HOUR))
    found = preview_cancel(room(prequeue, later, waiting=12), prequeue)
    assert found.summary.startswith(
        'The event "sale" doesn\'t take place. The room stays closed until you open it. The event "later" follows'
    )
    assert found.warnings == (
        "12 visitors waiting keep their places and are told that the room is closed.",
        'A closed room stays closed: open it before the event "later", at 2026-09-21 23:13 UTC.',
    )
    found = preview_cancel(room(prequeue, later), later)
    assert found.summary == 'The event "later" doesn\'t take place. Nothing changes for visitors now.'
    open_before = record(replace(EVENT, before="open"))
    assert preview_cancel(room(open_before, later), open_before).warnings == ("The room is closed now.",)
    assert "Nothing changes for visitors now." in preview_cancel(room(open_before), open_before).summary


def test_a_new_event_that_closes_the_room_warns() -> None:
    found = preview_set(room(None, waiting=5), EVENT, None)
    assert found.summary == (
        'New event "sale": prequeue from 2026-09-21 14:43 UTC, start at 2026-09-21 15:13 UTC, end at 2026-09-21 16:13 '
        "UTC. While it runs: rate_per_minute 300 → 600, max_active 400 → 800."
    )
    assert found.warnings == ("The room closes now, until the event lets visitors in. 5 visitors waiting are told so.",)
    open_before = preview_set(room(None, waiting=5), replace(EVENT, before="open", after="closed"), None)
    assert open_before.summary.endswith("At its end, visitors who still wait lose their places.")
    assert open_before.warnings == ()


def test_a_change_names_old_and_new_values() -> None:
    scheduled = record()
    changed = replace(EVENT, start_ms=EVENT.start_ms + HOUR, units=7, limits={})
    assert preview_set(room(scheduled), changed, scheduled).summary == (
        'Changes of the event "sale": start 2026-09-21 15:13 UTC → 2026-09-21 16:13 UTC, units none → 7, limits.'
    )
    assert preview_set(room(scheduled), EVENT, scheduled).summary.startswith("Nothing changes.")


def test_a_change_of_a_running_event_is_immediate() -> None:
    running = record(phase=Phase.RUNNING)
    found = preview_set(room(running), replace(EVENT, limits={"max_active": 800}), running)
    assert "Immediately: rate_per_minute 600 → 300." in found.summary


def test_an_earlier_prequeue_opens_now() -> None:
    scheduled = record()
    found = preview_set(room(scheduled), replace(EVENT, prequeue_ms=NOON - HOUR), scheduled)
    assert "The prequeue opens now." in found.summary


def test_an_event_does_not_open_a_room_that_an_operator_closed() -> None:
    found = preview_set(room(None, own_state=RoomState.CLOSED), EVENT, None)
    assert found.warnings == (
        "The room is closed by an operator, and the event doesn't open it: open it before the start.",
    )


# Other changes while an event is scheduled or runs.


def effect(view: RoomView, **values: Any) -> Preview:
    after = changed_view(view, values)
    return preview_of(view, after, schedule=event_effects(view, after, values))


SCHEDULED = room(record()).view
PREQUEUE = room(record(phase=Phase.PREQUEUE)).view
RUNNING = room(record(phase=Phase.RUNNING)).view


@pytest.mark.parametrize(
    ("view", "values", "summary"),
    [
        (
            SCHEDULED,
            {"state": RoomState.OPEN},
            'The room stays closed. It opens when the event "sale" opens its prequeue at 2026-09-21 14:43 UTC.',
        ),
        (
            SCHEDULED,
            {"state": RoomState.CLOSED},
            'The room stays closed. It doesn\'t open when the event "sale" opens its prequeue at 2026-09-21 14:43 UTC, '
            "but when you open it.",
        ),
        (
            SCHEDULED,
            {"state": RoomState.PAUSED},
            'The room stays closed. When the event "sale" starts at 2026-09-21 15:13 UTC, nobody is called until you '
            "open the room.",
        ),
        (
            SCHEDULED,
            {"max_active": 5},
            'The room stays closed. The event "sale" sets max_active to 800 at its start, 2026-09-21 15:13 UTC.',
        ),
        (
            PREQUEUE,
            {"state": RoomState.OPEN},
            'The prequeue stays open. Visitors are called when the event "sale" starts at 2026-09-21 15:13 UTC.',
        ),
        (
            PREQUEUE,
            {"state": RoomState.PAUSED},
            'The prequeue stays open. When the event "sale" starts at 2026-09-21 15:13 UTC, nobody is called until you '
            "open the room.",
        ),
        (
            PREQUEUE,
            {"state": RoomState.CLOSED},
            "0 visitors waiting are told that it is closed; 5 visitors in the shop stay. It doesn't open when the "
            'event "sale" starts at 2026-09-21 15:13 UTC, but when you open it.',
        ),
        (
            RUNNING,
            {"state": RoomState.SOLD_OUT},
            '0 visitors waiting are told that it is sold out; 5 visitors in the shop stay. When the event "sale" ends '
            "at 2026-09-21 16:13 UTC, the room opens again.",
        ),
        (
            RUNNING,
            {"rate_per_minute": 900.0},
            'A newcomer would wait under 1 min, as now. When the event "sale" ends at 2026-09-21 16:13 UTC, the '
            "limits from before it return.",
        ),
    ],
)
def test_other_changes_say_what_the_event_makes_of_them(view: RoomView, values: dict[str, Any], summary: str) -> None:
    assert effect(view, **values).summary == summary


def test_a_room_between_events_is_as_without_them() -> None:
    assert event_effects(room(record(phase=Phase.ENDED)).view, QUIET, {"state": RoomState.OPEN}) == []
    assert event_effects(QUIET, QUIET, {"state": RoomState.OPEN}) == []
    assert event_effects(RUNNING, RUNNING, {"message": "hello"}) == []


@pytest.mark.parametrize("after", ["closed", "sold_out"])
def test_a_room_that_a_person_has_closed_stays_closed_after_an_event(after: Any) -> None:
    running = record(replace(EVENT, after=after), Phase.RUNNING)
    assert "The room is closed then." in preview_end(room(running, own_state=RoomState.CLOSED), running).summary
    by_schedule = room(running, own_state=RoomState.SOLD_OUT, state_by="schedule")
    state = "closed" if after == "closed" else "sold out"
    assert f"The room is {state} then." in preview_end(by_schedule, running).summary


def test_a_room_that_was_paused_when_its_stock_ran_out_stays_paused() -> None:
    sold_out: dict[str, Any] = {"own_state": RoomState.SOLD_OUT, "state_by": "stock", "state_before": "paused"}
    scheduled, running = record(), record(phase=Phase.RUNNING)
    assert preview_start(room(scheduled, **sold_out), scheduled).warnings[0].startswith("The room stays paused")
    assert "The room stays paused." in preview_end(room(running, **sold_out), running).summary
    planned = preview_set(room(scheduled, **sold_out), replace(EVENT, title="Another"), scheduled)
    assert any("open it before the start" in warning for warning in planned.warnings)


def test_a_sold_out_room_that_an_operator_closes_stays_so() -> None:
    running = record(replace(EVENT, after="sold_out"), Phase.RUNNING)
    before = room(running, own_state=RoomState.SOLD_OUT, state_by="stock").view
    values = {"state": RoomState.CLOSED}
    [sentence] = event_effects(before, changed_view(before, values), values)
    assert sentence.endswith("the room stays closed until you open it.")
