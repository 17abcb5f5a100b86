"""The entries of the audit log, and how their chain is verified. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from waitroom.control.audit.keys import AuditKeys

FIRST_HASH = "0" * 64
# The action of the entry that comes between unsigned and signed ones, and where the key was replaced.
MARKER = "audit_key"


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
        previous, hash: The hash of the entry before in its chain, and of this one.
        chain: ``done`` or ``refused``. Older versions wrote both kinds to ``done``.
        key, mac: The id of the key that signed this entry, and the signature; empty if an older version wrote it.
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
    chain: str = "done"
    key: str = ""
    mac: str = ""

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
        unsigned: The number of entries kept that an older version wrote, without the key.
        first, last: The ids of the oldest and the newest entry, or None.
        summary: A sentence; if the list isn't intact, what is wrong and where.
    """

    intact: bool
    entries: int
    trimmed: int
    unsigned: int
    first: str | None
    last: str | None
    summary: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """An entry that this gateway has seen at its place in a chain: nobody can replace what comes before it.

    Attributes:
        number: The entry's number in the chain, from 1.
        id, hash: As in `Entry`.
    """

    number: int
    id: str
    hash: str


class Head(NamedTuple):
    """The newest end of a chain, as stored beside it.

    Attributes:
        added: The number of entries ever added.
        trimmed: The number of oldest ones dropped.
        id, hash: Those of the newest entry.
        key, mac: The id of the key that signed it, and the signature; empty if a version without keys was last.
        signed: The number of the newest entry that was signed.
        replaced: The ids of the keys that were replaced by others.
    """

    added: int = 0
    trimmed: int = 0
    id: str = ""
    hash: str = FIRST_HASH
    key: str = ""
    mac: str = ""
    signed: int = 0
    replaced: tuple[str, ...] = ()

    @classmethod
    def parse(cls, state: Mapping[str, str]) -> Head:
        """Returns the head that a state says; unreadable numbers count as 0, which verification finds."""
        added, trimmed, signed = (
            int(text) if (text := state.get(name, "0")).isdecimal() else 0 for name in ("added", "trimmed", "signed")
        )
        hash_, key, mac = state.get("hash", FIRST_HASH), state.get("key", ""), state.get("mac", "")
        replaced = tuple(state.get("replaced", "").split())
        return cls(added, trimmed, state.get("id", ""), hash_, key, mac, signed, replaced)

    def is_signed(self, keys: AuditKeys, chain: str) -> bool:
        """Whether one of the keys signed exactly this head."""
        return keys.is_valid(self.mac, self.key, *head_parts(chain, self.added, self.trimmed, self.hash))


class Chain:
    """Verifies the entries of one chain, oldest first.

    Args:
        name: The chain's name.
        state: The state stored beside the list when the oldest entry was read.
        keys: The keys that are known.
        anchor: The newest entry that this gateway has seen, if any.
    """

    def __init__(self, name: str, state: Mapping[str, str], keys: AuditKeys, anchor: Anchor | None = None) -> None:
        self._name = name
        self._keys = keys
        self._anchor = anchor
        self._hash = state.get("trimmed_hash", FIRST_HASH)
        self._trimmed = Head.parse(state).trimmed
        self._flaw = ""
        self._count = 0
        self._first: str | None = None
        self._last: str | None = None
        self._key = ""  # of the newest signed entry
        self._former_keys: set[str] = set()
        self._unsigned = 0
        self._unsigned_since: str | None = None  # the first entry without a signature after one with
        self._unknown: dict[str, str] = {}  # unknown keys, and the first entry of each
        self._signed_last = False
        self._anchored = anchor is None

    def add(self, entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> None:
        """Adds the next entries."""
        for id_, fields in entries:
            self._count += 1
            self._first = self._first or id_.decode()
            if not self._flaw:
                self._add(id_.decode(), fields)
            self._last = id_.decode()

    def _add(self, id_: str, fields: Mapping[bytes, bytes]) -> None:
        previous, hash_, key, mac = (_text(fields, name) for name in (b"previous", b"hash", b"key", b"mac"))
        number = self._trimmed + self._count
        if previous != self._hash:
            before = "at the beginning" if self._last is None else f"after {self._last}"
            self._flaw = f"Entry {id_} is not chained to the one before it: entries {before} were removed or moved."
        elif chain_hash(previous, fields.get(b"entry", b"")) != hash_:
            self._flaw = f"Entry {id_} was altered."
        elif key or mac:
            if self._last is not None and not self._signed_last and not _is_marker(fields):
                self._flaw = f"The signature of entry {self._last} was removed."
            self._check_signature(id_, number, hash_, key, mac)
        else:
            self._signed_last = False
            self._unsigned += 1
            if self._key and self._unsigned_since is None:
                self._unsigned_since = id_
        anchor = self._anchor
        if anchor is not None and number == anchor.number and not self._flaw:
            self._anchored = True
            if (id_, hash_) != (anchor.id, anchor.hash):
                self._flaw = f"Entry {id_} replaces {anchor.id}, which this gateway has seen there."
        self._hash = hash_

    def _check_signature(self, id_: str, number: int, hash_: str, key: str, mac: str) -> None:
        self._signed_last = True
        if self._flaw:
            return
        if key not in self._keys.ids:
            self._unknown.setdefault(key, id_)
        elif not self._keys.is_valid(mac, key, *entry_parts(self._name, number, hash_)):
            self._flaw = f"The signature of entry {id_} is wrong: the entry was altered or moved."
        elif key in self._former_keys:
            self._flaw = f"Entry {id_} is signed with a key that had been replaced."
        elif key != self._key:
            self._former_keys.add(self._key)
            self._key = key

    def verdict(self, state: Mapping[str, str]) -> Verdict:
        """Returns the verdict, given the state stored beside the list when the newest entry was read."""
        head = Head.parse(state)
        trimmed = self._trimmed
        flaw = self._flaw or self._flaw_at_end(head, head.added - trimmed)
        summary = flaw or _intact(self._count, trimmed, self._unsigned)
        return Verdict(not flaw, self._count, trimmed, self._unsigned, self._first, self._last, summary)

    def _flaw_at_end(self, head: Head, due: int) -> str:
        if self._hash != head.hash:
            after = "" if self._last is None else f" after {self._last}"
            return f"The newest entry is missing: entries{after} were removed."
        if self._count != due:
            return f"Found {self._count:,} entries, expected {due:,}."
        signed = head.is_signed(self._keys, self._name)
        anchor = self._anchor
        # Only a signature shows that an entry was dropped because the log is bounded.
        if anchor is not None and not self._anchored and not (signed and anchor.number <= self._trimmed):
            return (
                f"Entries up to {anchor.id}, which this gateway has seen, are missing: the store lost them, or "
                "they were removed."
            )
        if self._unknown:
            key, first = next(iter(self._unknown.items()))
            return (
                f"Entry {first} and perhaps others are signed with the unknown key {key}: set the same audit_key on "
                "all gateways of this store. If all have the same, somebody else wrote them."
            )
        if self._unsigned_since is not None and anchor is None:
            return (
                f"Entry {self._unsigned_since} and perhaps others are not signed, although older ones are: a gateway "
                "of an older version wrote them, or somebody else with access to the store."
            )
        # An older version leaves the signature of the head as it was, so that it no longer fits.
        if (self._signed_last if self._count else bool(head.key)) is not signed:
            return "The state stored beside the entries was altered: the oldest or the newest ones may be missing."
        return ""


def entry_parts(chain: str, number: int, hash_: str) -> tuple[str | int, ...]:
    """Returns what the signature of an entry covers; its hash covers its content and all entries before it."""
    return ("entry", chain, number, hash_)


def head_parts(chain: str, added: int, trimmed: int, hash_: str) -> tuple[str | int, ...]:
    """Returns what the signature of a chain's head covers."""
    return ("head", chain, added, trimmed, hash_)


def combined(done: Verdict, refused: Verdict) -> Verdict:
    """Returns the verdict on both chains together."""
    both = (done, refused)
    entries, trimmed, unsigned = (
        sum(numbers) for numbers in zip(*((one.entries, one.trimmed, one.unsigned) for one in both), strict=True)
    )
    ids = sorted([id_ for one in both for id_ in (one.first, one.last) if id_ is not None], key=id_order)
    flaws = [one.summary for one in both if not one.intact]
    summary = " ".join(flaws) or _intact(entries, trimmed, unsigned)
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return Verdict(not flaws, entries, trimmed, unsigned, first, last, summary)


def _intact(entries: int, trimmed: int, unsigned: int) -> str:
    summary = f"{entries:,} entries, all intact."
    if trimmed:
        summary += f" {trimmed:,} older ones were dropped, because the log is bounded."
    if unsigned:
        summary += f" {unsigned:,} were written without the audit key, by an older version."
    return summary


def id_order(id_: str) -> tuple[int, int]:
    """Returns an id as numbers, by which ids are in order of time."""
    time, _, number = id_.partition("-")
    return int(time), int(number)


def _is_marker(fields: Mapping[bytes, bytes]) -> bool:
    return parse_entry(b"0-0", fields, "").action == MARKER


def _text(fields: Mapping[bytes, bytes], name: bytes) -> str:
    return fields.get(name, b"").decode(errors="replace")


def parse_entry(id_: bytes, fields: Mapping[bytes, bytes], chain: str) -> Entry:
    """Parses an entry of the stream; unreadable fields of a tampered one are left empty."""
    try:
        decoded = json.loads(fields.get(b"entry", b""))
    except ValueError:
        decoded = None
    given: dict[str, Any] = decoded if isinstance(decoded, dict) else {}
    texts = {name: str(given.get(name, "")) for name in _TEXT_FIELDS}
    old, new = (one if isinstance(one := given.get(name), dict) else {} for name in ("old", "new"))
    links = {name: _text(fields, name.encode()) for name in ("previous", "hash", "key", "mac")}
    return Entry(id=id_.decode(), old=old, new=new, chain=chain, **links, **texts)


_TEXT_FIELDS = ("at", "who", "role", "address", "via", "action", "room", "note", "outcome")


def canonical(value: Mapping[str, object]) -> bytes:
    """Returns the canonical JSON of a value: sorted keys, no whitespace, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def chain_hash(previous: str, entry: bytes) -> str:
    """Returns the hash of an entry that follows the one with the given hash."""
    return hashlib.sha256(previous.encode() + entry).hexdigest()
