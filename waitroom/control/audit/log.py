"""The audit log: a bounded list in the store. Each entry is chained to the one before it by its hash.

An entry's hash is SHA-256 over the previous hash and the entry in canonical JSON. Removing, altering or reordering
entries in the store breaks the chain at that point, unless the attacker rewrites it from there to the end. To detect
that, keep a copy of the newest hash, or of an export, elsewhere.

The list is a bounded stream: the oldest entries are dropped once there are more than `MAX_ENTRIES`. The number of
dropped entries and the hash of the last of them are stored in the same step. So the oldest entry that is kept has
a predecessor to be chained to, and a trimmed list is distinguishable from one whose beginning was removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from redis.asyncio import Redis

from waitroom.control.auth.accounts import Actor
from waitroom.errors import StoreUnavailable
from waitroom.store.connection import call_twice, store_errors
from waitroom.store.scripts import load_script

log = structlog.get_logger()

MAX_ENTRIES = 50_000
STREAM = "waitroom:{audit}:entries"
STATE = "waitroom:{audit}:state"
FIRST_HASH = "0" * 64
MAX_ATTEMPTS = 50
PAGE_SIZE = 1000


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


class Audit:
    """The list of one store, shared by all its gateways.

    Args:
        redis: A client that returns bytes.
        max_entries: The number of entries to keep.
    """

    def __init__(self, redis: Redis, *, max_entries: int = MAX_ENTRIES) -> None:
        self._redis = redis
        self._max_entries = max_entries
        self._append = redis.register_script(load_script("waitroom.control.audit", "append"))
        self._writing = asyncio.Lock()  # avoids races within one process

    async def record(self, actor: Actor, action: str, **what: Any) -> None:
        """Appends an entry as `write` does.

        It never raises because of the store: the action is done. A failed write is logged.
        """
        try:
            await self.write(actor, action, **what)
        except StoreUnavailable as error:
            fields = {"who": actor.name, "address": actor.address, "action": action, **what}
            log.error("audit log write failed", cause=str(error), **fields)

    async def write(
        self,
        actor: Actor,
        action: str,
        *,
        room: str = "",
        old: Mapping[str, object] | None = None,
        new: Mapping[str, object] | None = None,
        note: str = "",
        outcome: str = "done",
    ) -> None:
        """Appends an entry. Raises `StoreUnavailable`.

        Args:
            actor: The actor.
            action: The action, such as ``login``.
            room: The room's name, or "".
            old: The changed values before.
            new: The changed values after.
            note: The reason, as the actor gave it.
            outcome: ``done`` or ``refused``.
        """
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "who": actor.name,
            "role": str(actor.role),
            "address": actor.address,
            "via": actor.via,
            "action": action,
            "room": room,
            "old": dict(old or {}),
            "new": dict(new or {}),
            "note": note,
            "outcome": outcome,
        }
        await self._write(canonical(entry))

    async def append_once(self, entry: Mapping[str, object], *, source: str, number: int) -> None:
        """Appends an entry unless one of this source with this or a greater number exists. Raises `StoreUnavailable`.

        Args:
            entry: In the format of `Entry.json`, without id and hashes.
            source: The origin of the entry, such as a room.
            number: The entry's number at its source. Numbers ascend.
        """
        await self._write(canonical(entry), source, number)

    async def _write(self, entry: bytes, source: str = "", number: int = 0) -> None:
        async with self._writing:
            await self._chain(entry, source, number)

    async def _chain(self, entry: bytes, source: str, number: int) -> None:
        idempotency_key = secrets.token_hex(8)
        retried = False
        for _ in range(MAX_ATTEMPTS):
            last: Any = await call_twice(lambda: self._redis.hget(STATE, "hash"))
            previous = FIRST_HASH if last is None else last.decode()
            link = (previous, chain_hash(previous, entry), entry)
            arguments = [*link, self._max_entries, idempotency_key, FIRST_HASH, source, number]
            try:
                with store_errors():
                    added = await self._append(keys=[STREAM, STATE], args=arguments)
            except StoreUnavailable:
                if retried:
                    raise
                retried = True  # perhaps only the reply was lost; the script detects the retry
                continue
            if added is not None:
                return
        raise StoreUnavailable("the audit log is busy: too many concurrent writes")

    async def read(self, *, before: str = "+", count: int = 100) -> list[Entry]:
        """Returns the newest entries, newest first, optionally those before an id. Raises `StoreUnavailable`."""
        end = before
        if before != "+":
            time, number = (int(part) for part in before.split("-"))
            if not time and not number:
                return []  # the store would reject it as an error
            end = f"({time}-{number}"
        found: Any = await call_twice(lambda: self._redis.xrevrange(STREAM, max=end, count=count))
        return [_entry(id_, fields) for id_, fields in found]

    async def export(self) -> AsyncIterator[Entry]:
        """Yields all entries, oldest first. Raises `StoreUnavailable`."""
        after = "-"
        while after:
            _, found, after = await self._page(after)
            for id_, fields in found:
                yield _entry(id_, fields)

    async def verify(self) -> Verdict:
        """Verifies the whole list. Raises `StoreUnavailable`."""
        state, found, after = await self._page("-")
        chain = Chain(state)
        chain.add(found)
        while after:
            state, found, after = await self._page(after)
            chain.add(found)
        return chain.verdict(state)

    async def _page(self, after: str) -> tuple[dict[str, str], list[tuple[bytes, dict[bytes, bytes]]], str]:
        """Returns the state stored beside the list, a page of the list as of then, and the start of the next page."""

        async def read() -> Any:
            async with self._redis.pipeline(transaction=True) as both:
                both.hgetall(STATE)
                both.xrange(STREAM, min=after, count=PAGE_SIZE)
                return await both.execute()

        state, found = await call_twice(read)
        more = f"({found[-1][0].decode()}" if len(found) == PAGE_SIZE else ""
        return {name.decode(): value.decode() for name, value in state.items()}, found, more


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


def _entry(id_: bytes, fields: Mapping[bytes, bytes]) -> Entry:
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
