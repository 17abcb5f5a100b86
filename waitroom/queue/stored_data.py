"""Finds what can't be read in the stored data of a room: another program or version may have written there. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, get_args

from waitroom.queue.constants import SCHEMA
from waitroom.queue.fields import FIELDS, LIMITS, METHOD, REMAINING, SCHEMA_VERSION, STATE, Field, Method
from waitroom.queue.view import RoomState

# The types of a room's keys, by the names that they have in `waitroom.queue.store.KEYS`.
KEY_TYPES: Final = {
    "room": "hash",
    "waiting": "zset",
    "called": "zset",
    "away": "zset",
    "missed": "set",
    "active": "zset",
    "ended": "zset",
    "rank_index": "hash",
    "seen": "zset",
    "issued_ranges": "zset",
    "audit_outbox": "list",
    "turns": "hash",
    "moved": "hash",
    "moved_until": "zset",
    "hard_ends": "zset",
    "feed": "zset",
    "reported": "set",
    "events": "hash",
    "event_stats": "hash",
}
LONGEST_VALUE: Final = 60

_SET_STATES: Final = tuple(state for state in RoomState if state is not RoomState.PREQUEUE)
_ALLOWED: Final = {STATE.stored: _SET_STATES, METHOD.stored: get_args(Method)}


def type_problem(name: str, key: str, type_: str) -> str:
    """Returns the problem with the type of one of a room's keys, or "".

    Args:
        name: The key's name in `waitroom.queue.store.KEYS`.
        key: The key.
        type_: The type that the store gives; "none" if there is no such key.
    """
    wanted = KEY_TYPES.get(name, type_)
    return "" if type_ in (wanted, "none") else f"key {key} is a {type_}, not a {wanted}"


def field_problem(key: str, stored: Mapping[str, str]) -> str:
    """Returns the first problem with a field of a room's hash, or "".

    Args:
        key: The hash's key.
        stored: Its fields.
    """
    for field in FIELDS:
        if field.stored in stored and (problem := _problem(field, stored[field.stored])):
            return f"field {field.stored} of {key} is {_shortened(stored[field.stored])}: {problem}"
    for name, text in stored.items():
        whole = name.startswith("total:") or (name == REMAINING.stored and text)
        if whole and not _is_whole(text):
            return f"field {name} of {key} is {_shortened(text)}: not a whole number"
    return ""


def _problem(field: Field, text: str) -> str:
    allowed = _ALLOWED.get(field.stored)
    if allowed is not None:
        return "" if text in allowed else f"not one of {', '.join(allowed)}"
    if not field.format.number:
        return ""
    try:
        number = float(field.format.from_text(text))
    except ValueError:
        return "not a number"
    if not math.isfinite(number) or (field in LIMITS and number < 0):
        return "out of bounds"
    if field is SCHEMA_VERSION and number > SCHEMA:
        return f"a newer version of Waitroom has written it, and this one reads versions up to {SCHEMA}: upgrade"
    return ""


def _is_whole(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _shortened(text: str) -> str:
    return repr(text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "\N{HORIZONTAL ELLIPSIS}")
