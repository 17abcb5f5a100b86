"""What the loader defines before a script."""

from __future__ import annotations

import re

import pytest

from waitroom.queue import constants
from waitroom.queue.store import KEYS, SCRIPTS
from waitroom.store.scripts import load_script

PACKAGE = "waitroom.queue"


def before(text: str) -> list[str]:
    """The lines that the loader put before the prelude."""
    return text[: text.index("-- Shared by all scripts")].splitlines()


def test_keys_become_locals_in_order():
    text = load_script(PACKAGE, "seen", preludes=["common"], keys=["room", "hard_ends"])
    assert before(text) == ["local ROOM, HARD_ENDS = unpack(KEYS)"]


def test_constants_become_locals_where_they_are_named():
    constants = {"CHUNK": 65_536, "TEXT_FIELDS": frozenset({"state", "run_id"}), "PIECE": 100, "EXACT": 64}
    text = load_script(PACKAGE, "seen", preludes=["common"], constants=constants)
    assert before(text) == [
        "local CHUNK = 65536",
        "local TEXT_FIELDS = { ['run_id'] = true, ['state'] = true }",
    ]
    assert before(load_script(PACKAGE, "view", preludes=["common"], constants={"NEW_ROOM": ["state"]})) == []


def test_lists_and_numbers_keep_their_form():
    text = load_script(PACKAGE, "open", constants={"NEW_ROOM": ["state", "open", "message", ""], "EPOCH_MS": 1.5})
    assert text.startswith("local NEW_ROOM = { 'state', 'open', 'message', '' }\nlocal EPOCH_MS = 1.5\n-- Opens")


def test_text_that_would_need_quoting_is_refused():
    with pytest.raises(ValueError, match="no plain text"):
        load_script(PACKAGE, "open", constants={"NEW_ROOM": ["it's"]})


def test_every_constant_and_key_is_used_by_a_script():
    """Otherwise nobody would notice one that is named differently here and there."""
    texts = [load_script(PACKAGE, name, preludes=["common", "schedule"]) for name in SCRIPTS]
    used = {word for text in texts for word in re.findall(r"\b[A-Z][A-Z_]+\b", text)}
    assert {key.upper() for key in KEYS} <= used
    assert {name for name in vars(constants) if name.isupper()} <= used
