"""Bodies and queries of the API: what is accepted, and the message for everything else."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from waitroom.control.api.requests import (
    AdmitBody,
    AuditQuery,
    ChangeBody,
    ChangeQuery,
    CommandBody,
    DecisionsQuery,
    EndSessionBody,
    HistoryQuery,
    Query,
    SessionPath,
    StockBody,
    UndoBody,
    parse,
    read_query,
)
from waitroom.control.rooms.changes import InvalidChangeError
from waitroom.control.rooms.operations import Change, check
from waitroom.queue.view import RoomState
from waitroom.shop_commands import ShopCommand

RATE = "Must be a number of visitors per minute."
INTEGER = "Must be an integer number of visitors."
STRING = "Must be a string."
BOOLEAN = "Must be true or false."
FIELDS = "Unknown field. Known fields: note, rate_per_minute, max_active, state, message, draining, autopilot."


def problems(model: Any, values: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidChangeError) as refused:
        parse(model, values)
    return refused.value.problems


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ({}, Change()),
        ({"rate_per_minute": 600}, Change(rate_per_minute=600.0)),
        ({"rate_per_minute": 0.5}, Change(rate_per_minute=0.5)),
        ({"max_active": 5}, Change(max_active=5)),
        ({"max_active": 5.0}, Change(max_active=5)),
        ({"state": "sold_out", "message": ""}, Change(state=RoomState.SOLD_OUT, message="")),
        ({"draining": True, "autopilot": False}, Change(draining=True, autopilot=False)),
    ],
)
def test_a_change_has_the_fields_that_were_sent(values: dict[str, Any], change: Change) -> None:
    body = parse(ChangeBody, {**values, "note": "quieter"})
    assert body.change() == change
    assert body.note == "quieter"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rate_per_minute": "600"}, RATE),
        ({"rate_per_minute": True}, RATE),
        ({"rate_per_minute": None}, RATE),
        ({"max_active": 1.5}, INTEGER),
        ({"max_active": "5"}, INTEGER),
        ({"max_active": True}, INTEGER),
        ({"max_active": float("-inf")}, INTEGER),
        ({"state": "opened"}, "Must be open, paused, closed or sold_out."),
        ({"state": 1}, "Must be open, paused, closed or sold_out."),
        ({"state": ["open"]}, "Must be open, paused, closed or sold_out."),
        ({"message": 1}, STRING),
        ({"message": None}, STRING),
        ({"note": ["x"]}, STRING),
        ({"draining": "yes"}, BOOLEAN),
        ({"draining": 1}, BOOLEAN),
        ({"autopilot": None}, BOOLEAN),
        ({"rate": 2}, FIELDS),
        ({"\ud800": 1}, FIELDS),
    ],
)
def test_other_types_and_names_are_refused(values: dict[str, Any], expected: str) -> None:
    assert problems(ChangeBody, values) == dict.fromkeys(values, expected)


def test_all_problems_are_named_together() -> None:
    found = problems(ChangeBody, {"max_actve": 3, "draining": 1, "state": "open", "rate": 2})
    assert found == {"max_actve": FIELDS, "draining": BOOLEAN, "rate": FIELDS}
    assert problems(ChangeBody, {"max_actve": 3, "\ud800": 1}) == {"max_actve": FIELDS, "\ud800": FIELDS}


@pytest.mark.parametrize(
    ("name", "value"),
    [("rate_per_minute", 10**400), ("max_active", 10**400), ("max_active", float("inf")), ("max_active", 1e300)],
    ids=["rate", "integer", "infinity", "float"],
)
def test_large_numbers_are_refused_for_their_size(name: str, value: float) -> None:
    with pytest.raises(InvalidChangeError) as refused:
        check(parse(ChangeBody, {name: value}).change(), "", None)
    assert list(refused.value.problems) == [name]
    assert "10,000,000" in refused.value.problems[name]


def test_required_fields_are_named() -> None:
    assert problems(AdmitBody, {"note": "x"}) == {"ticket": "Required. Must be a string."}
    assert problems(EndSessionBody, {"ticket": "5"}) == {
        "session": "Required. Must be a session as in Waitroom-Session: 1 to 16 of 0-9 and a-f.",
        "ticket": "Unknown field. Known fields: note, session.",
    }
    assert parse(UndoBody, {}).note == ""


@pytest.mark.parametrize("session", ["", "1F", "x", "1" * 17, "1\n", "\ud800", 5, None], ids=ascii)
def test_a_session_has_the_form_that_the_shop_receives(session: Any) -> None:
    assert parse(EndSessionBody, {"session": "1f4a2c"}).session == "1f4a2c"
    assert problems(EndSessionBody, {"session": session}) == {
        "session": "Must be a session as in Waitroom-Session: 1 to 16 of 0-9 and a-f."
    }


def query(model: Any, text: str) -> Any:
    return read_query(make_mocked_request("GET", f"/?{text}"), model)


def test_queries_have_defaults() -> None:
    assert query(ChangeQuery, "").dry_run is False
    assert query(HistoryQuery, "").seconds == 3600
    assert query(DecisionsQuery, "").count == 100
    assert (query(AuditQuery, "").before, query(AuditQuery, "").count) == ("+", 100)


def test_queries_are_read() -> None:
    assert query(ChangeQuery, "dry_run=true").dry_run is True
    assert query(HistoryQuery, "seconds=21600").seconds == 21600
    assert query(AuditQuery, "before=1764000000000-0&count=1000").before == "1764000000000-0"


@pytest.mark.parametrize(
    ("model", "text", "name", "expected"),
    [
        (ChangeQuery, "dry_run=1", "dry_run", BOOLEAN),
        (ChangeQuery, "dry_run=True", "dry_run", BOOLEAN),
        (ChangeQuery, "dry_run=", "dry_run", BOOLEAN),
        (HistoryQuery, "seconds=0", "seconds", "Must be an integer from 1 to 21600."),
        (HistoryQuery, "seconds=21601", "seconds", "Must be an integer from 1 to 21600."),
        (HistoryQuery, "seconds=5.0", "seconds", "Must be an integer from 1 to 21600."),
        (HistoryQuery, "seconds=%2B5", "seconds", "Must be an integer from 1 to 21600."),
        (HistoryQuery, "seconds=5%0A", "seconds", "Must be an integer from 1 to 21600."),
        (HistoryQuery, "seconds=%D9%A5", "seconds", "Must be an integer from 1 to 21600."),
        (HistoryQuery, "second=5", "second", "Unknown parameter. Known parameters: seconds."),
        (HistoryQuery, "seconds=5&seconds=5", "seconds", "Given more than once."),
        (DecisionsQuery, "count=501", "count", "Must be an integer from 1 to 500."),
        (AuditQuery, "count=1001", "count", "Must be an integer from 1 to 1000."),
        (AuditQuery, "before=now", "before", "Must be the id of an entry, such as 1764000000000-0."),
        (AuditQuery, "before=1-0%0A", "before", "Must be the id of an entry, such as 1764000000000-0."),
        (Query, "x=1", "x", "Unknown parameter. There are no parameters here."),
    ],
)
def test_invalid_queries_are_refused(model: Any, text: str, name: str, expected: str) -> None:
    with pytest.raises(InvalidChangeError) as refused:
        query(model, text)
    assert refused.value.problems == {name: expected}


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("release", ShopCommand("release", 0)),
        ("hold=900", ShopCommand("hold", 900)),
        ("extend=0", ShopCommand("extend", 0)),
    ],
)
def test_a_session_command_is_that_of_the_header(text: str, command: ShopCommand) -> None:
    assert parse(CommandBody, {"command": text}).command == command


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "hold",
            "hold=-1",
            "hold=9999999999",
            "release ",
            "remaining=5",
            "sold-out",
            "fly",
            "h\u00f6ld=5",
            "\ud800",
        ),
        *(None, 5, True, ["release"], {"name": "release", "number": 0}, ["hold", 900]),
    ],
)
def test_other_commands_are_refused(value: object) -> None:
    assert problems(CommandBody, {"command": value}) == {
        "command": "Must be release, hold=SECONDS or extend=SECONDS, with 1 to 9 digits."
    }


def test_a_command_is_required_and_alone() -> None:
    assert list(problems(CommandBody, {})) == ["command"]
    assert problems(CommandBody, {"command": "release", "note": "why"}) == {
        "note": "Unknown field. Known fields: command."
    }


@pytest.mark.parametrize(("value", "remaining"), [(0, 0), (1200, 1200), (1200.0, 1200), (999_999_999, 999_999_999)])
def test_the_stock_is_a_whole_number(value: object, remaining: int) -> None:
    assert parse(StockBody, {"remaining": value}).remaining == remaining


@pytest.mark.parametrize("value", [-1, 10**9, 1e300, 1.5, "5", True, None, [1]])
def test_other_stock_is_refused(value: object) -> None:
    assert problems(StockBody, {"remaining": value}) == {"remaining": "Must be an integer from 0 to 999,999,999."}


@pytest.mark.parametrize("text", ["", "A", "5A", "0x5", "g", "1" * 17, "5 ", "-5", "5\n"])
def test_a_session_in_a_path_is_hexadecimal(text: str) -> None:
    assert "Waitroom-Session" in problems(SessionPath, {"session": text})["session"]
    assert parse(SessionPath, {"session": "5af"}).session == "5af"
