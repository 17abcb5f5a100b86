"""Events in the settings: their times, their limits, and what the store gets of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.settings_texts import ROOM, load, refused
from waitroom.queue.constants import MAX_EVENTS
from waitroom.queue.fields import LIMITS
from waitroom.queue.schedule import Event, event_of, file_events, shuffle_seed
from waitroom.settings import EventSettings, RoomSettings, from_json, to_json
from waitroom.settings import event as event_settings
from waitroom.settings.schema import keys_of

START = datetime(2026, 12, 12, 4, tzinfo=UTC)
START_MS = 1_797_048_000_000
SALE = '[[rooms.events]]\nname = "sale"\nstart = 2026-12-12T11:00:00+07:00\n'


def event_in(folder: Path, lines: str = "") -> EventSettings:
    (event,) = load(folder, ROOM + SALE + lines).rooms[0].events
    return event


def test_every_limit_of_a_room_may_be_overridden_within_the_same_bounds() -> None:
    rooms, events = keys_of(RoomSettings), keys_of(EventSettings)
    for field in LIMITS:
        if field.name != "method":
            room, event = rooms[field.name], events[field.name]
            assert (event.least, event.most, event.least_excluded) == (room.least, room.most, room.least_excluded)
            assert (event.shape, event.about.unit) == (room.shape, room.about.unit)
            assert event.default is None


def test_a_time_keeps_its_zone_on_the_way_to_the_child_processes(tmp_path: Path) -> None:
    settings = load(tmp_path, ROOM + SALE)
    for one in (settings, from_json(to_json(settings))):
        start = one.rooms[0].events[0].start
        assert start == START
        assert start.utcoffset() == timedelta(hours=7)


@pytest.mark.parametrize(
    "text",
    ["2026-12-12T11:00:00+07:00", "2026-12-12t04:00:00z", "2026-12-12 04:00:00.000Z", "2026-12-12T04:00:00-00:00"],
)
def test_the_environment_may_have_times_as_text(tmp_path: Path, text: str) -> None:
    variable = {"WAITROOM_EVENTS": f'[{{name = "sale", start = "{text}", rate_per_minute = "auto"}}]'}
    (event,) = load(tmp_path, ROOM, variable).rooms[0].events
    assert (event.start, event.start_ms, event.autopilot) == (START, START_MS, True)


def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, ROOM, {"WAITROOM_EVENTS": '[{name = "sale", start = 2026-12-12T11:00:00}]'})
    assert problem.startswith("WAITROOM_EVENTS: has no time zone")


def test_times_that_are_over_are_valid(tmp_path: Path) -> None:
    text = '[[rooms.events]]\nname = "last-year"\nstart = 2020-12-12T04:00:00Z\nend = 2020-12-12T05:00:00Z\n'
    assert len(load(tmp_path, ROOM + text + SALE).rooms[0].events) == 2


def test_a_mistake_in_one_event_causes_no_second_problem(tmp_path: Path) -> None:
    assert len(refused(tmp_path, ROOM + SALE + "units = -1\n" + SALE)) == 1


def test_a_contradiction_in_the_room_is_not_repeated_for_its_events(tmp_path: Path) -> None:
    assert len(refused(tmp_path, ROOM + "session_max_seconds = 60\n" + SALE + "max_active = 5\n")) == 1


def test_as_many_events_as_the_store_keeps(tmp_path: Path) -> None:
    assert event_settings.MAX_EVENTS == MAX_EVENTS
    events = "".join(
        f'[[rooms.events]]\nname = "day-{day}"\nstart = {START + timedelta(days=day):%Y-%m-%dT%H:%M:%SZ}\n'
        f"end = {START + timedelta(days=day, hours=1):%Y-%m-%dT%H:%M:%SZ}\n"
        for day in range(65)
    )
    (problem,) = refused(tmp_path, ROOM + events)
    assert problem.startswith('line 260, rooms[0] "shop".events[64]: is one more than 64 events.')
    assert len(load(tmp_path, ROOM + events[: events.index('[[rooms.events]]\nname = "day-64"')]).rooms[0].events) == 64


@pytest.mark.parametrize(
    ("lines", "limits"),
    [
        ("", {}),
        ("max_active = 7\nclaim_seconds = 200\n", {"max_active": 7, "claim_seconds": 200}),
        ("rate_per_minute = 90\n", {"rate_per_minute": 90.0, "autopilot": False}),
        ('rate_per_minute = "auto"\n', {"autopilot": True}),
        ("rate_per_minute = 90\nautopilot = true\n", {"rate_per_minute": 90.0, "autopilot": True}),
        ("autopilot = false\n", {"autopilot": False}),
    ],
)
def test_the_limits_of_an_event(tmp_path: Path, lines: str, limits: dict[str, Any]) -> None:
    assert event_of(event_in(tmp_path, lines)).limits == limits


def test_an_event_as_the_queue_has_it(tmp_path: Path) -> None:
    assert event_of(event_in(tmp_path)) == Event("sale", "", START_MS)
    lines = """\
title = "The sale"
prequeue_start = 2026-12-12T10:30:00+07:00
end = 2026-12-12T13:00:00+07:00
method = "random"
before = "open"
after = "sold_out"
units = 5
"""
    half_hour = 1_800_000
    assert event_of(event_in(tmp_path, lines)) == Event(
        *("sale", "The sale", START_MS, START_MS - half_hour, START_MS + 4 * half_hour, "random", "open", "sold_out", 5)
    )


def test_the_order_of_a_prequeue_depends_on_secret_room_event_and_start(tmp_path: Path) -> None:
    (room,) = load(tmp_path, ROOM + SALE).rooms
    definition = json.loads(file_events(room, "a secret")["sale"])
    assert definition["seed"] == shuffle_seed("a secret", "shop", "sale", START_MS)
    assert json.loads(file_events(room, "another")["sale"])["seed"] != definition["seed"]
