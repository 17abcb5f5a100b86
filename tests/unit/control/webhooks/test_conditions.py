"""The events of a room: each begins and ends once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from waitroom.control.webhooks.conditions import CONDITIONS, EdgeDetector, Observation
from waitroom.control.webhooks.milestones import MILESTONES
from waitroom.queue.view import RoomState
from waitroom.settings.validators import WEBHOOK_EVENTS

CALM = Observation(store_up=True, state=RoomState.OPEN, waiting=0, requests_per_minute=600.0, failures_per_minute=0.0)
QUEUE = replace(CALM, waiting=7)
PAUSED = replace(CALM, state=RoomState.PAUSED)
SOLD_OUT = replace(CALM, state=RoomState.SOLD_OUT)
CLOSED = replace(CALM, state=RoomState.CLOSED)
FAILING = replace(CALM, failures_per_minute=60.0)
SO_SO = replace(CALM, failures_per_minute=12.0)  # between the thresholds
LOST = replace(CALM, store_up=False)


class Reports:
    """Observes once a second, and keeps what was reported as the store does."""

    def __init__(self) -> None:
        self.detector = EdgeDetector()
        self.holding: dict[str, bool] = {}
        self.events: list[str] = []
        self.now = 1000.0

    def observe(self, seen: Observation, seconds: int) -> list[str]:
        """The events of so many identical seconds."""
        events = []
        for _ in range(seconds):
            for condition in self.detector.due(self.holding, seen, self.now):
                holds = self.holding[condition.name] = not self.holding.get(condition.name, False)
                events.append(condition.begins if holds else condition.ends)
            self.now += 1
        return events


@pytest.mark.parametrize(
    ("during", "begins", "after", "ends"),
    [
        (QUEUE, "queue_formed", CALM, "queue_empty"),
        (PAUSED, "paused", CALM, "resumed"),
        (FAILING, "shop_failing", CALM, "shop_well"),
        (LOST, "store_lost", CALM, "store_back"),
        (SOLD_OUT, "sold_out", CALM, ""),
    ],
)
def test_conditions_are_reported_once_at_their_start_and_end(
    during: Observation, begins: str, after: Observation, ends: str
) -> None:
    reports = Reports()
    assert reports.observe(CALM, 100) == []
    assert reports.observe(during, 100) == [begins]
    assert reports.observe(after, 100) == [ends]
    assert reports.observe(during, 100) == [begins]


def test_every_event_of_the_settings_exists() -> None:
    events = [event for condition in CONDITIONS for event in (condition.begins, condition.ends) if event]
    assert sorted([*events, *MILESTONES]) == sorted(WEBHOOK_EVENTS)


@pytest.mark.parametrize(("seen", "most"), [(QUEUE, 5), (PAUSED, 2), (SOLD_OUT, 2), (FAILING, 5), (LOST, 5)])
def test_short_conditions_are_not_reported(seen: Observation, most: int) -> None:
    reports = Reports()
    for _ in range(20):
        assert reports.observe(seen, most) == []
        assert reports.observe(CALM, 1) == []


@pytest.mark.parametrize(("seen", "most"), [(QUEUE, 30), (PAUSED, 2), (FAILING, 10), (LOST, 5)])
def test_short_interruptions_are_not_reported(seen: Observation, most: int) -> None:
    reports = Reports()
    assert len(reports.observe(seen, 20)) == 1
    for _ in range(20):
        assert reports.observe(CALM, most) == []
        assert reports.observe(seen, 1) == []


def test_a_condition_is_due_until_it_is_reported() -> None:
    detector = EdgeDetector()
    found = [bool(detector.due({}, QUEUE, 1000.0 + second)) for second in range(8)]
    assert found == [False] * 5 + [True] * 3


def test_a_new_process_continues_from_the_reported_state() -> None:
    detector = EdgeDetector()
    found = [detector.due({"queue": True}, QUEUE, 1000.0 + second) for second in range(100)]
    assert found == [[]] * 100


def test_closing_a_paused_room_does_not_resume_it() -> None:
    reports = Reports()
    assert reports.observe(PAUSED, 10) == ["paused"]
    assert reports.observe(CLOSED, 100) == []
    assert reports.observe(SOLD_OUT, 100) == ["sold_out"]
    assert reports.observe(CALM, 100) == ["resumed", ""]


def test_an_old_view_is_ignored() -> None:
    reports = Reports()
    assert reports.observe(QUEUE, 10) == ["queue_formed"]
    assert reports.observe(replace(LOST, waiting=0, state=RoomState.PAUSED), 100) == ["store_lost"]
    assert reports.observe(QUEUE, 100) == ["store_back"]


def test_a_missing_view_is_ignored() -> None:
    reports = Reports()
    assert reports.observe(replace(LOST, state=None), 100) == ["store_lost"]
    assert reports.observe(replace(CALM, state=None), 100) == ["store_back"]


def test_a_failure_rate_between_the_thresholds_changes_nothing() -> None:
    reports = Reports()
    assert reports.observe(SO_SO, 100) == []
    assert reports.observe(FAILING, 100) == ["shop_failing"]
    assert reports.observe(SO_SO, 100) == []
    assert reports.observe(CALM, 100) == ["shop_well"]
    assert reports.observe(SO_SO, 100) == []


def test_few_failures_of_few_requests_are_no_event() -> None:
    reports = Reports()
    assert reports.observe(replace(CALM, requests_per_minute=4.0, failures_per_minute=2.0), 100) == []


def test_a_failing_shop_without_requests_has_not_recovered() -> None:
    reports = Reports()
    assert reports.observe(FAILING, 20) == ["shop_failing"]
    assert reports.observe(replace(CALM, requests_per_minute=0.0), 100) == []


def test_a_shop_recovers_when_no_gateway_sees_it_failing() -> None:
    reports = Reports()
    assert reports.observe(FAILING, 20) == ["shop_failing"]
    assert reports.observe(replace(CALM, failing_elsewhere=True), 100) == []
    assert reports.observe(CALM, 100) == ["shop_well"]


def test_only_the_gateway_that_sees_failures_reports_them() -> None:
    """Others would only repeat it."""
    reports = Reports()
    assert reports.observe(replace(CALM, failing_elsewhere=True), 100) == []
