"""Who did what: a bounded list in the store, each entry chained to the one before it by its hash.

An entry's hash is SHA-256 over the hash before it and the entry in canonical JSON. Whoever removes, alters or reorders
entries in the store breaks the chain where they did, unless they make it anew from there to the end; against that, keep
a copy of the newest hash, or of an export, elsewhere.

The list is a stream, and it is bounded: the oldest entries are let go once there are more than `MOST_ENTRIES`. How many
were, and the hash of the last of them, is noted in the same step, so that the oldest entry that is kept has something
to be chained to, and a trimmed list can be told from one with its beginning removed.
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
from waitroom.store.connection import store_errors
from waitroom.store.scripts import load_script

log = structlog.get_logger()

MOST_ENTRIES = 50_000
STREAM = "waitroom:{audit}:entries"
STATE = "waitroom:{audit}:state"
FIRST_HASH = "0" * 64
TRIES = 50
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that somebody did, or was refused.

    Attributes:
        id: Where it is in the list.
        at: When, RFC 3339 in UTC.
        who, role, address, via: The actor.
        action: Such as ``change`` or ``login``.
        room: The room, or "".
        old, new: What was changed, before and after.
        note: Why, as the actor said.
        outcome: ``done`` or ``refused``.
        previous, hash: The chain.
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
        """As the API gives it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the list is as it was written.

    Attributes:
        intact: It is.
        entries: How many are kept.
        trimmed: How many older ones were let go.
        first, last: The ids of the oldest and the newest, or None.
        said: In words; where it isn't intact, what is wrong and where.
    """

    intact: bool
    entries: int
    trimmed: int
    first: str | None
    last: str | None
    said: str


class Audit:
    """The list of one store, whichever gateways share it.

    Args:
        redis: A client that answers with bytes.
        most_entries: How many are kept.
    """

    def __init__(self, redis: Redis, *, most_entries: int = MOST_ENTRIES) -> None:
        self._redis = redis
        self._most = most_entries
        self._append = redis.register_script(load_script("waitroom.control.audit", "append"))
        self._writing = asyncio.Lock()  # one process needn't race with itself

    async def record(self, actor: Actor, action: str, **what: Any) -> None:
        """Appends an entry as `write` does.

        It never raises for the store's sake: what was done is done, and what couldn't be written down goes to the log.
        """
        try:
            await self.write(actor, action, **what)
        except StoreUnavailable as error:
            said = {"who": actor.name, "address": actor.address, "action": action, **what}
            log.error("an entry of the audit log couldn't be written", cause=str(error), **said)

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
            actor: Who.
            action: Such as ``login``.
            room: The room, or "".
            old: What was changed, before.
            new: And after.
            note: Why, as the actor said.
            outcome: ``done`` or ``refused``.
        """
        said = {
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
        await self._write(canonical(said))

    async def append_once(self, entry: Mapping[str, object], *, source: str, number: int) -> None:
        """Appends an entry, unless one of its source with this number or a greater one was. Raises `StoreUnavailable`.

        Args:
            entry: As `Entry.json` has it, without id and hashes.
            source: Where it comes from, such as a room.
            number: Of the entry there. Numbers come in order.
        """
        await self._write(canonical(entry), source, number)

    async def _write(self, entry: bytes, source: str = "", number: int = 0) -> None:
        async with self._writing:
            await self._chain(entry, source, number)

    async def _chain(self, entry: bytes, source: str, number: int) -> None:
        word = secrets.token_hex(8)
        asked_again = False
        for _ in range(TRIES):
            with store_errors():
                last: Any = await self._redis.hget(STATE, "hash")
            previous = FIRST_HASH if last is None else last.decode()
            arguments = [previous, chained(previous, entry), entry, self._most, word, FIRST_HASH, source, number]
            try:
                with store_errors():
                    added = await self._append(keys=[STREAM, STATE], args=arguments)
            except StoreUnavailable:
                if asked_again:
                    raise
                asked_again = True  # perhaps only the answer was lost; the word tells
                continue
            if added is not None:
                return
        raise StoreUnavailable("the audit log didn't take an entry")

    async def read(self, *, before: str = "+", count: int = 100) -> list[Entry]:
        """The newest entries, newest first; those before an id, if one is given. Raises `StoreUnavailable`."""
        end = before
        if before != "+":
            time, number = (int(part) for part in before.split("-"))
            if not time and not number:
                return []  # the store would take that for a mistake
            end = f"({time}-{number}"
        with store_errors():
            found: Any = await self._redis.xrevrange(STREAM, max=end, count=count)
        return [_entry(id_, fields) for id_, fields in found]

    async def export(self) -> AsyncIterator[Entry]:
        """All entries, oldest first. Raises `StoreUnavailable`."""
        after = "-"
        while after:
            _, found, after = await self._page(after)
            for id_, fields in found:
                yield _entry(id_, fields)

    async def verify(self) -> Verdict:
        """Goes through the whole list. Raises `StoreUnavailable`."""
        state, found, after = await self._page("-")
        chain = Chain(state)
        chain.add(found)
        while after:
            state, found, after = await self._page(after)
            chain.add(found)
        return chain.verdict(state)

    async def _page(self, after: str) -> tuple[dict[str, str], list[tuple[bytes, dict[bytes, bytes]]], str]:
        """What is noted beside the list, a piece of the list at the same moment, and where the next one begins."""
        with store_errors():
            async with self._redis.pipeline(transaction=True) as both:
                both.hgetall(STATE)
                both.xrange(STREAM, min=after, count=PAGE)
                noted, found = await both.execute()
        more = f"({found[-1][0].decode()}" if len(found) == PAGE else ""
        return {name.decode(): value.decode() for name, value in noted.items()}, found, more


class Chain:
    """Judges entries, oldest first.

    Args:
        state: What was noted beside the list when the oldest was read.
    """

    def __init__(self, state: Mapping[str, str]) -> None:
        self._hash = state.get("trimmed_hash", FIRST_HASH)
        self._trimmed = int(state.get("trimmed", "0"))
        self._wrong = ""
        self._count = 0
        self._first: str | None = None
        self._last: str | None = None

    def add(self, entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> None:
        """The next ones."""
        for id_, fields in entries:
            self._add(id_.decode(), fields)

    def _add(self, id_: str, fields: Mapping[bytes, bytes]) -> None:
        given = {name: fields.get(name.encode(), b"") for name in ("previous", "hash", "entry")}
        previous, hash_ = (given[name].decode(errors="replace") for name in ("previous", "hash"))
        if not self._wrong and previous != self._hash:
            before = "at the beginning" if self._last is None else f"after {self._last}"
            self._wrong = f"Entry {id_} isn't chained to the one before it: something {before} was removed or moved."
        if not self._wrong and chained(previous, given["entry"]) != hash_:
            self._wrong = f"Entry {id_} was altered."
        self._hash = hash_
        self._count += 1
        self._first = self._first or id_
        self._last = id_

    def verdict(self, state: Mapping[str, str]) -> Verdict:
        """The judgement, given what was noted beside the list when the newest was read."""
        trimmed, due = self._trimmed, int(state.get("added", "0")) - self._trimmed
        wrong = self._wrong
        if not wrong and self._hash != state.get("hash", FIRST_HASH):
            after = "" if self._last is None else f" after {self._last}"
            wrong = f"The newest entry is missing: something{after} was removed."
        if not wrong and self._count != due:
            wrong = f"There are {self._count} entries, and there should be {due}."
        said = wrong or f"{self._count} entries, all as they were written."
        if trimmed and not wrong:
            said += f" {trimmed} older ones were let go, as more than the log keeps."
        return Verdict(not wrong, self._count, trimmed, self._first, self._last, said)


def _entry(id_: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    """An entry as the stream has it; what can't be read of one that was tampered with is left empty."""
    try:
        said = json.loads(fields.get(b"entry", b""))
    except ValueError:
        said = None
    given: dict[str, Any] = said if isinstance(said, dict) else {}
    words = {name: str(given.get(name, "")) for name in _WORDS}
    old, new = (one if isinstance(one := given.get(name), dict) else {} for name in ("old", "new"))
    previous, hash_ = (fields.get(name, b"").decode(errors="replace") for name in (b"previous", b"hash"))
    return Entry(id=id_.decode(), old=old, new=new, previous=previous, hash=hash_, **words)


_WORDS = ("at", "who", "role", "address", "via", "action", "room", "note", "outcome")


def canonical(value: Mapping[str, object]) -> bytes:
    """The one JSON text of a value: sorted keys, no blanks, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def chained(previous: str, entry: bytes) -> str:
    """The hash of an entry behind another one's."""
    return hashlib.sha256(previous.encode() + entry).hexdigest()
