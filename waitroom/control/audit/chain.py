"""The entries of the audit log, and how their chain is verified. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

FIRST_HASH = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """An action of an actor, or a refused attempt.

    Attributes:
        id: The position in the list.
        at: The time, RFC 3339 in UTC.
        who, role, address, via: The actor.
        action: The action, such as ``change`` or ``login``.
        room: The room's name, or "".
        old, new: The changed values, before and after.
        note: The reason, as the actor gave it.
        outcome: ``done`` or ``refused``.
        previous, hash: The hash of the entry before, and of this one.
    """

    id: str
    at: str
    who: str
    role: str
    address: str
    via: str
    action: str
    room: str
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    note: str
    outcome: str
    previous: str
    hash: str

    def json(self) -> dict[str, Any]:
        """Returns the entry in the API's format."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the list is as it was written.

    Attributes:
        intact: Whether the chain is unbroken.
        entries: The number of entries kept.
        trimmed: The number of older entries dropped.
        first, last: The ids of the oldest and the newest entry, or None.
        summary: A sentence; if the list isn't intact, what is wrong and where.
    """

    intact: bool
    entries: int
    trimmed: int
    first: str | None
    last: str | None
    summary: str


class Chain:
    """Verifies entries, oldest first.

    Args:
        state: The state stored beside the list when the oldest entry was read.
    """

    def __init__(self, state: Mapping[str, str]) -> None:
        self._hash = state.get("trimmed_hash", FIRST_HASH)
        self._trimmed = int(state.get("trimmed", "0"))
        self._flaw = ""
        self._count = 0
        self._first: str | None = None
        self._last: str | None = None

    def add(self, entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> None:
        """Adds the next entries."""
        for id_, fields in entries:
            self._add(id_.decode(), fields)

    def _add(self, id_: str, fields: Mapping[bytes, bytes]) -> None:
        given = {name: fields.get(name.encode(), b"") for name in ("previous", "hash", "entry")}
        previous, hash_ = (given[name].decode(errors="replace") for name in ("previous", "hash"))
        if not self._flaw and previous != self._hash:
            before = "at the beginning" if self._last is None else f"after {self._last}"
            self._flaw = f"Entry {id_} is not chained to the one before it: entries {before} were removed or moved."
        if not self._flaw and chain_hash(previous, given["entry"]) != hash_:
            self._flaw = f"Entry {id_} was altered."
        self._hash = hash_
        self._count += 1
        self._first = self._first or id_
        self._last = id_

    def verdict(self, state: Mapping[str, str]) -> Verdict:
        """Returns the verdict, given the state stored beside the list when the newest entry was read."""
        trimmed, due = self._trimmed, int(state.get("added", "0")) - self._trimmed
        flaw = self._flaw
        if not flaw and self._hash != state.get("hash", FIRST_HASH):
            after = "" if self._last is None else f" after {self._last}"
            flaw = f"The newest entry is missing: entries{after} were removed."
        if not flaw and self._count != due:
            flaw = f"Found {self._count} entries, expected {due}."
        summary = flaw or f"{self._count} entries, all intact."
        if trimmed and not flaw:
            summary += f" {trimmed} older ones were dropped, because the log is bounded."
        return Verdict(not flaw, self._count, trimmed, self._first, self._last, summary)


def parse_entry(id_: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    """Parses an entry of the stream; unreadable fields of a tampered one are left empty."""
    try:
        decoded = json.loads(fields.get(b"entry", b""))
    except ValueError:
        decoded = None
    given: dict[str, Any] = decoded if isinstance(decoded, dict) else {}
    texts = {name: str(given.get(name, "")) for name in _TEXT_FIELDS}
    old, new = (one if isinstance(one := given.get(name), dict) else {} for name in ("old", "new"))
    previous, hash_ = (fields.get(name, b"").decode(errors="replace") for name in (b"previous", b"hash"))
    return Entry(id=id_.decode(), old=old, new=new, previous=previous, hash=hash_, **texts)


_TEXT_FIELDS = ("at", "who", "role", "address", "via", "action", "room", "note", "outcome")


def canonical(value: Mapping[str, object]) -> bytes:
    """Returns the canonical JSON of a value: sorted keys, no whitespace, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def chain_hash(previous: str, entry: bytes) -> str:
    """Returns the hash of an entry that follows the one with the given hash."""
    return hashlib.sha256(previous.encode() + entry).hexdigest()
