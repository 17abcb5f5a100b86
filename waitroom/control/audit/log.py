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
import secrets
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from redis.asyncio import Redis

from waitroom.control.audit.chain import FIRST_HASH, Chain, Entry, Verdict, canonical, chain_hash, parse_entry
from waitroom.control.auth.accounts import Actor
from waitroom.errors import StoreUnavailable
from waitroom.store.connection import call_twice, store_errors
from waitroom.store.scripts import load_script

log = structlog.get_logger()

MAX_ENTRIES = 50_000
STREAM = "waitroom:{audit}:entries"
STATE = "waitroom:{audit}:state"
MAX_ATTEMPTS = 50
PAGE_SIZE = 1000


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
        return [parse_entry(id_, fields) for id_, fields in found]

    async def export(self) -> AsyncIterator[Entry]:
        """Yields all entries, oldest first. Raises `StoreUnavailable`."""
        after = "-"
        while after:
            _, found, after = await self._page(after)
            for id_, fields in found:
                yield parse_entry(id_, fields)

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
