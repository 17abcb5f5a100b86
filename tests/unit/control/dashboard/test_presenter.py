"""The texts of a room, in every state."""

from __future__ import annotations

from typing import Any

import pytest

from support.room_views import CHANGE, EVENT, OPEN
from waitroom.control.dashboard import presenter
from waitroom.control.dashboard.presenter import room_texts


def texts(**values: Any) -> dict[str, Any]:
    return room_texts({**OPEN, **values})


def test_figures_are_formatted():
    now = texts()
    assert (now["waiting"], now["rate"], now["admitted"], now["joined"]) == ("1,200", "60", "58", presenter.NOTHING)
    assert (now["newcomer"], now["p50"], now["p95"], now["failures"]) == (
        *("15 to 25 min", "80 ms", "1.4 s"),
        "0.2 % (2/min)",
    )
    assert (now["active_share"], now["total_joined"], now["total_admitted"]) == (90, "5,000", "0")
    assert now["left"] == [["session expired", "12"], ["finished", "3"]]
    assert now["needs"] == []


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, presenter.NOTHING),
        ({"remaining": 1200}, "1,200"),
        ({"remaining": 0, "stock": {"units": None, "sold_per_minute": None}}, "0"),
        ({"remaining": 1200, "stock": {"units": 5000, "sold_per_minute": None}}, "1,200 of 5,000"),
        ({"remaining": 1200, "stock": {"units": 5000, "sold_per_minute": 714.2}}, "1,200 of 5,000 (714 sold/min)"),
        ({"remaining": 7, "stock": {"units": None, "sold_per_minute": 2.5}}, "7 (2.5 sold/min)"),
    ],
)
def test_the_units_left(values, text):
    assert texts(**values)["remaining"] == text


def test_ended_sessions_are_listed_apart():
    now = texts(left_per_minute={"ended": 3.0})
    assert now["left"] == [["ended by an operator", "3"]]


@pytest.mark.parametrize(
    ("values", "state", "tone", "says"),
    [
        ({}, "Open", "good", "1,200 visitors waiting; up to 60 per minute are admitted."),
        ({"waiting": 1}, "Open", "good", "1 visitor waiting; up to 60 per minute are admitted."),
        ({"waiting": 0}, "Open", "good", "No queue: visitors are admitted immediately, up to 60 per minute."),
        ({"active": 96}, "Open", "good", "Full: the next visitor is admitted when one leaves. 1,200 visitors waiting."),
        ({"method": "passthrough"}, "Open", "good", "The queue is off: visitors are admitted immediately."),
        (
            {"state": "prequeue", "own_state": "open"},
            *("Prequeue", "notice", "Visitors join the prequeue; nobody is admitted before the start. 1,200 visitors"),
        ),
        ({"state": "closed", "own_state": "open"}, "Closed", "quiet", "Closed by the schedule"),
        (
            {
                "method": "passthrough",
                "over_limit": {
                    "rate": {"total": 2000, "per_minute": 1200.0},
                    "max_active": {"total": 0, "per_minute": None},
                },
            },
            "Open",
            "good",
            "The queue is off: visitors are admitted immediately. Visitors that would have waited in the last minute: "
            "1,200 by the rate, 0 by max active.",
        ),
        ({"state": "paused"}, "Paused", "notice", "No admissions; everyone keeps their place. 1,200 visitors waiting."),
        (
            {"state": "paused", "draining": True, "active": 1, "waiting": 0},
            *("Draining", "notice", "No admissions. 1 visitor in the shop may finish; no visitors waiting."),
        ),
        ({"state": "closed"}, "Closed", "quiet", "Visitors are told that it is closed. 90 visitors in the shop may"),
        (
            {"state": "closed", "method": "reject"},
            *("Closed", "quiet", "Visitors are told that it is closed: the room's method is reject. 90 visitors"),
        ),
        ({"state": "sold_out"}, "Sold out", "quiet", "Visitors are told that it is sold out. 90 visitors in the shop"),
    ],
)
def test_each_state_has_a_name_a_tone_and_a_sentence(values, state, tone, says):
    now = texts(**values)
    assert (now["state"], now["tone"]) == (state, tone)
    assert now["says"].startswith(says)


def test_opening_a_room_that_rejects_everybody_says_that_nothing_changes():
    assert texts(state="closed", method="reject")["asks"]["open"].startswith("Nothing changes for visitors")
    assert texts(state="closed")["asks"]["open"].startswith("The queue opens again")


def test_a_room_without_a_view_is_unknown():
    now = room_texts({"name": "shop", "upstream": "http://a", "store_up": False})
    assert (now["state"], now["tone"]) == ("Unknown", "bad")
    assert now["needs"] == ["Store unavailable: no admissions; everyone keeps their place."]


def test_the_reason_why_the_store_is_unavailable_is_shown():
    problem = "the store is a read-only replica: redis_url must lead to the primary"
    now = room_texts({"name": "shop", "upstream": "http://a", "store_up": False, "store_problem": problem})
    assert now["needs"][1] == "The store is a read-only replica: redis_url must lead to the primary."


@pytest.mark.parametrize(
    ("values", "need"),
    [
        ({"store_up": False}, "Store unavailable"),
        ({"workers": {"alive": 1, "wanted": 2}}, "Only 1 of 2 workers are alive."),
        ({"shop": {**OPEN["shop"], "failures_per_minute": 20.0}}, "The shop is failing: error rate 2.0 %"),
        ({"active": 101}, "Active sessions exceed max active."),
    ],
)
def test_problems_are_listed(values, need):
    (text,) = texts(**values)["needs"]
    assert text.startswith(need)


def test_hints_are_shown_verbatim():
    assert texts()["hints"] == []
    assert texts(hints=["Set trusted_proxies."])["hints"] == ["Set trusted_proxies."]
    assert room_texts({"name": "shop", "upstream": "http://a", "store_up": False})["hints"] == []


def test_few_failures_of_few_requests_are_no_alert():
    shop = {**OPEN["shop"], "requests_per_minute": 19.0, "failures_per_minute": 19.0}
    assert texts(shop=shop)["needs"] == []


@pytest.mark.parametrize(
    ("values", "wait"),
    [
        ({"waiting": 0, "called": 0}, "none"),
        ({"state": "paused"}, "paused"),
        ({"state": "closed"}, presenter.NOTHING),
        ({"wait_seconds": {"newcomer": None}}, "unknown"),
        ({"wait_seconds": {"newcomer": [10, 50]}}, "under 1 min"),
        ({"wait_seconds": {"newcomer": [61, 70]}}, "1 to 2 min"),
        ({"wait_seconds": {"newcomer": [4000, 9000]}}, "1 to 3 h"),
    ],
)
def test_the_wait_is_shown_as_far_as_it_is_known(values, wait):
    assert texts(**values)["newcomer"] == wait


def test_actions_depend_on_the_state_and_name_the_visitors_concerned():
    assert texts()["actions"] == ["pause", "drain", "close", "sold_out"]
    assert "resume" in texts(state="paused")["actions"]
    assert "resume" in texts(state="paused", draining=True)["actions"]
    assert "open" in texts(state="closed")["actions"]
    asks = texts()["asks"]
    for action in ("pause", "drain", "close", "sold_out"):
        assert "1,200 visitors in the queue" in asks[action]
        assert "90 visitors in the shop" in asks[action]


def test_actions_are_those_of_the_state_that_operators_set():
    opened = texts()["actions"]
    assert texts(state="prequeue", own_state="open")["actions"] == opened
    assert texts(state="closed", own_state="open")["actions"] == opened
    assert texts(state="closed", own_state="closed")["actions"] == ["open", "sold_out"]


def test_the_current_event_is_shown_with_its_next_step():
    now = texts(event=EVENT)
    assert (now["event"], now["event_phase"], now["step"], now["step_at"]) == (
        *("Redmi 1s", "Running"),
        *("Ends", "2026-12-12T06:00:00Z"),
    )
    assert (texts()["event"], texts()["step"]) == ("", "")


def test_the_last_change_is_described_in_the_terms_of_the_page():
    now = texts(last_change=CHANGE, undo=CHANGE)
    assert (now["change"], now["change_who"], now["undoable"]) == ("Rate 30 → 60", "ada", True)
    assert now["asks"]["undo"] == "This reverts the last change: Rate 30 → 60 (ada, 14:12 UTC)."
    assert not texts()["undoable"]


def test_an_operator_s_change_can_be_undone_after_one_by_the_shop():
    shop = {"at": "2026-09-21T14:20:00Z", "who": "the shop", "what": "state open → sold_out", "undoable": False}
    now = texts(last_change=shop, undo=CHANGE)
    assert (now["change"], now["change_who"], now["undoable"]) == ("State open → sold_out", "the shop", True)
    assert now["asks"]["undo"] == (
        "This reverts the last change by an operator: Rate 30 → 60 (ada, 14:12 UTC). Later changes are kept."
    )
    assert not texts(last_change=shop)["undoable"]


def test_the_autopilot_s_status_is_its_last_decision_or_its_limits():
    pilot = {"on": True, "floor": 60.0, "ceiling": 900.0, "summary": "", "at": None}
    assert texts(autopilot=pilot)["pilot"] == "On: keeps the rate between 60 and 900 per minute."
    assert texts(autopilot={**pilot, "summary": "Held: the shop fails."})["pilot"] == "Held: the shop fails."
    assert texts(autopilot={**pilot, "on": False, "summary": "Held."})["pilot"].startswith("Off")


def test_small_percentages_are_never_zero():
    assert [presenter.percent(part, 10_000) for part in (0, 1, 50, 2000)] == ["0 %", "under 0.1 %", "0.5 %", "20 %"]
