"""The table of a room's fields, and what is built from it."""

from __future__ import annotations

import dataclasses
import re

import pytest

from waitroom.control.rooms.operations import Change
from waitroom.queue.fields import (
    FIELDS,
    LIMITS,
    MAX_ACTIVE,
    OPERATOR_FIELDS,
    OPERATOR_NUMBERS,
    RATE,
    Limits,
    from_hash,
    limits_of,
    to_hash,
)
from waitroom.queue.store import SCRIPTS
from waitroom.queue.view import RoomView
from waitroom.settings import RoomSettings
from waitroom.settings.schema import keys_of
from waitroom.store.scripts import load_script

STORED = {
    "rate": "600.0",
    "max_active": "1000",
    "session_ms": "900000",
    "claim_ms": "180000",
    "away_ms": "180000",
    "keep_ms": "3600000",
    "method": "fifo",
    "told_ms": "90000",
    "session_max_ms": "14400000",
    "recovery_ms": "30000",
}


def names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def test_names_are_unique():
    assert len({field.stored for field in FIELDS}) == len({field.name for field in FIELDS}) == len(FIELDS)


def test_the_limits_are_those_of_the_settings_file():
    assert {field.name for field in LIMITS} == set(names(Limits)) <= keys_of(RoomSettings).keys()
    assert limits_of(RoomSettings("shop", "http://127.0.0.1:1")).fields() == STORED


def test_a_change_has_every_field_of_an_operator():
    assert names(Change) == [field.name for field in OPERATOR_FIELDS]
    assert set(names(Change)) <= set(names(RoomView)), "otherwise no change of it could be undone"


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ({"rate_per_minute": 60}, {"rate": "60.0"}),
        ({"draining": True, "autopilot": False}, {"draining": "1", "autopilot": "off"}),
        ({"draining": False, "autopilot": None}, {"draining": "", "autopilot": ""}),
        ({"state": "sold_out", "message": "So long!"}, {"state": "sold_out", "message": "So long!"}),
        ({"claim_seconds": 0.5, "max_active": 3}, {"claim_ms": "500", "max_active": "3"}),
    ],
)
def test_values_are_stored_as_text_and_read_back(values, texts):
    assert to_hash(values) == texts
    assert from_hash(texts) == values


@pytest.mark.parametrize("field", OPERATOR_NUMBERS, ids=lambda field: field.name)
def test_the_bounds_of_an_operators_number_are_those_of_the_setting(field):
    least, most = field.setting.least, field.setting.most
    assert (field.problem(least) == "") is not field.setting.least_excluded
    assert field.problem(least + 1) == field.problem(most) == ""
    for bad in (least - 1, most + 1, float("inf"), float("nan")):
        assert f"{most:,}" in field.problem(bad)


def test_a_problem_says_the_bounds():
    assert RATE.problem(0) == "Must be above 0 and at most 10,000,000 visitors per minute."
    assert MAX_ACTIVE.problem(0) == "Must be from 1 to 10,000,000 visitors."


def test_the_scripts_read_no_field_that_is_not_loaded():
    """A misspelt one would be nil, and compare as no limit."""
    computed = {"turn_clock", "intact", "fates_lost", "recovery", "own_state", "draw_list", "known_seq"}
    loaded = {field.stored for field in FIELDS if field.in_scripts} | computed
    for name in SCRIPTS:
        text = load_script("waitroom.queue", name, preludes=("common", "schedule"))
        assert set(re.findall(r"\b(?:room|known)\.(\w+)", text)) <= loaded, name
