"""Problems with the stored data of a room, in words."""

from __future__ import annotations

import pytest

from waitroom.queue.fields import FIELDS, Limits
from waitroom.queue.store import KEYS
from waitroom.queue.stored_data import KEY_TYPES, LONGEST_VALUE, field_problem, type_problem

KEY = "waitroom:{shop}:room"
GOOD = {
    **{field.stored: field.initial for field in FIELDS if field.initial is not None},
    **Limits(600, 2, 900, 180, 180, 3600).fields(),
    "clock": "1800000000000",
    "total:joined": "7",
    "remaining": "12",
}


def test_what_the_scripts_write_is_readable():
    assert field_problem(KEY, GOOD) == ""


def test_every_key_has_a_type_except_those_made_of_a_prefix():
    assert KEYS.keys() - KEY_TYPES.keys() == {"recovered"}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("state", "bogus", "not one of open, paused, closed, sold_out"),
        ("method", "random", "not one of fifo, passthrough, reject"),
        ("rate", "", "not a number"),
        ("rate", "-0.5", "out of bounds"),
        ("tokens", "-0.5", ""),
        ("session_ms", "1e3", "not a number"),
        ("seq", "nan", "not a number"),
        ("total:left:away", "1.5", "not a whole number"),
        ("remaining", "x", "not a whole number"),
        ("remaining", "", ""),
        ("of_a_newer_version", "anything", ""),
    ],
)
def test_fields(field, value, words):
    problem = field_problem(KEY, {**GOOD, field: value})
    assert problem == (f"field {field} of {KEY} is '{value}': {words}" if words else "")


def test_values_are_shortened():
    problem = field_problem(KEY, {**GOOD, "state": "x" * 10_000})
    assert len(problem) < LONGEST_VALUE + 200


def test_types():
    assert type_problem("waiting", "w", "zset") == ""
    assert type_problem("waiting", "w", "none") == ""
    assert type_problem("recovered", "r", "string") == ""
    assert type_problem("waiting", "w", "string") == "key w is a string, not a zset"
