"""The timeline of events, as ``waitroom check-config`` prints it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from support.cli_runner import invoke
from support.settings_texts import ROOM
from waitroom.cli.timeline import format_both, format_duration, timeline_lines
from waitroom.settings import EventSettings, RoomSettings

JAKARTA = timezone(timedelta(hours=7))
OPENS = datetime(2026, 12, 12, 10, 30, tzinfo=JAKARTA)
START = datetime(2026, 12, 12, 11, tzinfo=JAKARTA)
END = datetime(2026, 12, 12, 13, tzinfo=JAKARTA)
SALE = EventSettings("redmi-1s", START, "Redmi 1s", OPENS, END, "random", units=5000, rate_per_minute=1200.0)
NEXT = EventSettings("redmi-2", START + timedelta(days=21), before="open", after="sold_out")
LIMITS = "session_seconds 900, claim_seconds 180, away_after_seconds 180, keep_place_seconds 3600, "
LIMITS += "claim_after_told_seconds 90, session_max_seconds 14400, recovery_seconds 30"


def lines(*events: EventSettings, now: datetime = OPENS - timedelta(days=1), autopilot: bool = False) -> list[str]:
    room = RoomSettings("shop", "http://127.0.0.1:3000", events=events, autopilot=autopilot)
    return list(timeline_lines(room, now))


def test_two_sales_with_a_gap() -> None:
    assert lines(NEXT, SALE) == [
        "Timeline of room shop:",
        "  until 2026-12-12 10:30 +07:00 (03:30 UTC): closed, with a countdown to redmi-1s (now)",
        '  from 2026-12-12 10:30 +07:00 (03:30 UTC) for 30 min: prequeue of redmi-1s "Redmi 1s", shuffled at the start',
        '  from 2026-12-12 11:00 +07:00 (04:00 UTC) for 2 h: sale redmi-1s "Redmi 1s", 5,000 units',
        "    limits of the event: rate_per_minute 1200",
        f"    limits of the room: max_active 1000, {LIMITS}",
        "  from 2026-12-12 13:00 +07:00 (06:00 UTC) for 20 d 22 h: gap, open until redmi-2",
        "  from 2027-01-02 11:00 +07:00 (04:00 UTC): sale redmi-2, until an operator ends it",
        "    limits of the event: none",
        f"    limits of the room: rate_per_minute 600, max_active 1000, {LIMITS}",
    ]


def test_the_gap_has_the_state_that_the_event_before_leaves() -> None:
    early = EventSettings("early", OPENS - timedelta(days=2), end=OPENS - timedelta(days=1), after="sold_out")
    assert "gap, sold out until redmi-2" in lines(early, NEXT)[5]
    assert "gap, sold out until redmi-1s" in lines(early, SALE)[5]
    closed = lines(SALE, EventSettings("later", START + timedelta(days=1)))
    assert "gap, closed, with a countdown to later" in closed[6]


def test_after_the_last_event() -> None:
    last = EventSettings("last", START, end=END, after="closed")
    assert lines(last)[-1] == "  from 2026-12-12 13:00 +07:00 (06:00 UTC): closed after last"
    assert lines(last, now=END)[-1].endswith("closed after last (now)")


def test_parts_that_are_over_and_the_current_one_are_marked() -> None:
    marks = [line.rpartition("(")[2] for line in lines(SALE, NEXT, now=START) if "UTC)" in line]
    assert marks[:3] == ["over)", "over)", "now)"]
    assert "now)" not in marks[3:]


def test_events_without_a_break_have_no_gap() -> None:
    assert not [line for line in lines(SALE, EventSettings("encore", END)) if "gap" in line]


@pytest.mark.parametrize(
    ("event", "autopilot", "own", "rate"),
    [
        ({"autopilot": True}, False, "rate_per_minute auto", ""),
        ({"rate_per_minute": 90.5}, True, "rate_per_minute 90.5", ""),
        ({"max_active": 7}, True, "max_active 7", "rate_per_minute auto, "),
        ({"autopilot": False}, True, "rate_per_minute 600", ""),
    ],
)
def test_the_rate_of_the_autopilot(event: dict[str, float], autopilot: bool, own: str, rate: str) -> None:
    found = lines(EventSettings("sale", START, **event), autopilot=autopilot)  # type: ignore[arg-type]
    assert found[3] == f"    limits of the event: {own}"
    assert found[4].startswith(f"    limits of the room: {rate}" if rate else "    limits of the room: max_active")


def test_a_room_without_events_has_no_timeline() -> None:
    assert lines() == []


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (START, "2026-12-12 11:00 +07:00 (04:00 UTC)"),
        (START.replace(hour=2), "2026-12-12 02:00 +07:00 (2026-12-11 19:00 UTC)"),
        (START.replace(second=5), "2026-12-12 11:00:05 +07:00 (04:00:05 UTC)"),
        (START.astimezone(UTC), "2026-12-12 04:00 UTC"),
        (START.astimezone(timezone(-timedelta(hours=3, minutes=30))), "2026-12-12 00:30 -03:30 (04:00 UTC)"),
    ],
)
def test_times_in_their_zone_and_in_utc(time: datetime, text: str) -> None:
    assert format_both(time) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (86_400 * 19 + 90_000, "20 d 1 h")],
)
def test_durations(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


def test_check_config_prints_it(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    file = tmp_path / "waitroom.toml"
    event = 'name = "sale"\ntitle = "[bold]Sale"\nstart = 2020-12-12T11:00:00+07:00\nunits = 5\n'
    file.write_text(f"{ROOM}[[rooms.events]]\n{event}")
    result = invoke("check-config", file)
    assert result.exit_code == 0
    assert (
        '  from 2020-12-12 11:00 +07:00 (04:00 UTC): sale sale "[bold]Sale", 5 units, until an operator ends it (now)\n'
        in result.output
    )
