"""The log lines about a failing store: each cause once, and the recovery."""

from __future__ import annotations

from typing import Any

import pytest

from waitroom.errors import StoreUnavailable
from waitroom.store.errors import StoreErrorKind
from waitroom.store.health import StoreHealth

READ_ONLY = StoreUnavailable("the store is a replica", StoreErrorKind.READ_ONLY, "READONLY no")
TIMEOUT = StoreUnavailable("no answer in time", StoreErrorKind.TIMEOUT)
BAD_DATA = StoreUnavailable("field state is bogus", StoreErrorKind.DATA)


class Lines:
    """Collects log lines, and is the clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.all: list[tuple[str, dict[str, Any]]] = []

    def clock(self) -> float:
        return self.now

    def error(self, event: str, **fields: Any) -> None:
        self.all.append((event, fields))

    info = error

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.all]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def health(lines: Lines) -> StoreHealth:
    return StoreHealth(lines, lines.clock)


def test_a_store_that_fails_from_the_start_is_logged_once_for_all_rooms(health, lines):
    for _ in range(50):
        for room in ("shop", "tickets"):
            health.failed(room, READ_ONLY)
            lines.now += 1
    assert lines.all == [
        ("store unavailable", {"kind": "read_only", "cause": "the store is a replica", "detail": "READONLY no"})
    ]


def test_recovery_is_logged_when_the_last_room_is_back(health, lines):
    health.failed("shop", READ_ONLY)
    health.failed("tickets", READ_ONLY)
    lines.now += 7
    health.answered("shop")
    assert len(lines.all) == 1
    health.answered("tickets")
    health.answered("tickets")
    assert lines.all[1:] == [("store available", {"seconds": 7.0})]


def test_another_cause_during_an_outage_is_logged_too(health, lines):
    health.failed("shop", TIMEOUT)
    health.failed("shop", READ_ONLY)
    health.failed("shop", TIMEOUT)
    assert [fields["kind"] for _, fields in lines.all] == ["timeout", "read_only"]


def test_a_store_that_comes_and_goes_is_logged_at_most_every_ten_seconds(health, lines):
    for _ in range(100):
        health.failed("shop", TIMEOUT)
        health.answered("shop")
        lines.now += 1
    assert lines.events == ["store unavailable", "store available"] * 10
    assert lines.all[2][1]["suppressed"] == 9


def test_a_lasting_failure_right_after_a_short_one_is_logged(health, lines):
    health.failed("shop", TIMEOUT)
    health.answered("shop")
    for _ in range(20):
        lines.now += 1
        health.failed("shop", TIMEOUT)
    assert lines.events == ["store unavailable", "store available", "store unavailable"]


def test_unreadable_data_concerns_one_room(health, lines):
    health.failed("shop", BAD_DATA)
    health.failed("shop", BAD_DATA)
    health.failed("tickets", TIMEOUT)
    health.answered("tickets")
    health.answered("shop")
    assert lines.events == ["room unavailable", "store unavailable", "store available", "room available"]
    assert lines.all[0][1]["room"] == lines.all[3][1]["room"] == "shop"


def test_an_error_without_a_call_is_not_logged(health, lines):
    health.failed("shop", StoreUnavailable("the worker is stopping"))
    assert lines.all == []
