"""The audit log: two bounded lists in the store, one of what was done and one of refused attempts.

Each list is a chain. An entry's hash is SHA-256 over the previous hash and the entry in canonical JSON, and its
signature an HMAC of that hash and the entry's number, by a key that isn't in the store. So is the signature of the
chain's head. Nobody who can write to the store can remove, alter or reorder entries unnoticed: see `chain.Chain`.
Attempts are in a list of their own, so that nobody can push out what was done by being refused.

A list is a bounded stream: the oldest entries are dropped once there are too many. The number of dropped entries and
the hash of the last of them are stored in the same step. So the oldest entry that is kept has a predecessor to be
chained to, and a trimmed list is distinguishable from one whose beginning was removed.

Older versions know only the list of what was done, and write both kinds to it without signatures. Before the first
signed entry after such ones, a marker is written: an entry with the action ``audit_key``. So is one when the key is
replaced by another.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypedDict, Unpack

import structlog
from redis.asyncio import Redis

from waitroom.control.audit.anchors import Anchors
from waitroom.control.audit.chain import (
    FIRST_HASH,
    MARKER,
    Anchor,
    Chain,
    Entry,
    Head,
    Verdict,
    canonical,
    chain_hash,
    combined,
    entry_parts,
    head_parts,
    id_order,
    parse_entry,
)
from waitroom.control.audit.keys import AuditKeys
from waitroom.control.audit.refusals import RefusalLimiter
from waitroom.control.auth.accounts import Actor, Role
from waitroom.errors import StoreUnavailable
from waitroom.store.connection import call_twice, store_errors
from waitroom.store.scripts import load_script

log = structlog.get_logger()

MAX_ENTRIES = 50_000
MAX_REFUSED = 10_000
DONE, REFUSED = "done", "refused"
STREAM = "waitroom:{audit}:entries"
STATE = "waitroom:{audit}:state"
REFUSED_STREAM = "waitroom:{audit}:refused"
REFUSED_STATE = "waitroom:{audit}:refused_state"
MAX_ATTEMPTS = 50
MAX_DROPPED = 100  # by one write
PAGE_SIZE = 1000
_GATEWAY = Actor("gateway", Role.ADMIN, "", "gateway")


class Details(TypedDict, total=False):
    """The details of an entry, besides the actor and the action.

    Attributes:
        room: The room's name, or "".
        old: The changed values before.
        new: The changed values after.
        note: The reason, as the actor gave it.
        outcome: ``done`` or ``refused``.
    """

    room: str
    old: Mapping[str, object] | None
    new: Mapping[str, object] | None
    note: str
    outcome: str


class _List(NamedTuple):
    """Where a chain is stored."""

    name: str
    stream: str
    state: str
    other_state: str


_LISTS = {
    DONE: _List(DONE, STREAM, STATE, REFUSED_STATE),
    REFUSED: _List(REFUSED, REFUSED_STREAM, REFUSED_STATE, STATE),
}


class Audit:
    """The log of one store, shared by all its gateways.

    Args:
        redis: A client that returns bytes.
        keys: The keys that sign; the same for all gateways of the store.
        anchors: The newest entries that this gateway has seen; None remembers nothing.
        max_entries: The number of entries about what was done to keep.
        max_refused: The number of refused attempts to keep.
    """

    def __init__(
        self,
        redis: Redis,
        keys: AuditKeys,
        anchors: Anchors | None = None,
        *,
        max_entries: int = MAX_ENTRIES,
        max_refused: int = MAX_REFUSED,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._anchors = Anchors(None) if anchors is None else anchors
        self._limits = {DONE: max_entries, REFUSED: max_refused}
        self._refusals = RefusalLimiter()
        self._append = redis.register_script(load_script("waitroom.control.audit", "append"))
        self._writing = asyncio.Lock()  # avoids races within one process
        self._foreign_keys: set[str] = set()
        self._behind: set[str] = set()

    async def record(self, actor: Actor, action: str, **what: Unpack[Details]) -> None:
        """Appends an entry as `write` does, unless it is one of too many refused attempts of this actor.

        It never raises because of the store: the action is done. A failed write is logged.
        """
        if what.get("outcome") == REFUSED:
            known = actor.name != "unknown" and action != "login"
            omitted = self._refusals.permit(actor.name, time.monotonic(), known=known)
            if omitted is None:
                return
            if omitted:
                what["note"] = f"{what.get('note', '')} ({omitted} earlier refusals not recorded)".strip()
        try:
            await self.write(actor, action, **what)
        except StoreUnavailable as error:
            fields = {"who": actor.name, "address": actor.address, "action": action, "outcome": DONE, **what}
            log.error("audit log write failed", cause=str(error), **fields)

    async def write(self, actor: Actor, action: str, **what: Unpack[Details]) -> None:
        """Appends an entry. Raises `StoreUnavailable`.

        Args:
            actor: The actor.
            action: The action, such as ``login``.
            what: See `Details`.
        """
        await self._write(_new_entry(actor, action, **what))

    async def append_once(self, entry: Mapping[str, object], *, source: str, number: int) -> None:
        """Appends an entry unless one of this source with this or a greater number exists. Raises `StoreUnavailable`.

        Args:
            entry: In the format of `Entry.json`, without id, hashes and signature.
            source: The origin of the entry, such as a room.
            number: The entry's number at its source. Numbers ascend.
        """
        await self._write(entry, source, number)

    async def _write(self, entry: Mapping[str, object], source: str = "", number: int = 0) -> None:
        where = _LISTS[REFUSED if entry["outcome"] == REFUSED else DONE]
        async with self._writing:
            await self._chain(where, entry, source, number)

    async def _chain(self, where: _List, entry: Mapping[str, object], source: str, event: int) -> None:
        """Appends an entry, after a marker if one is due."""
        idempotency_key = secrets.token_hex(8)
        retried = False
        for _ in range(MAX_ATTEMPTS):
            try:
                head, length = await self._head(where)
                marker = await self._marker(where, head)
                if marker is not None:
                    await self._append_at(head, length, where, marker, secrets.token_hex(8))
                elif await self._append_at(head, length, where, entry, idempotency_key, source, event):
                    return
            except StoreUnavailable:
                if retried:
                    raise
                retried = True  # perhaps only the reply was lost; the script detects the retry
        raise StoreUnavailable("the audit log is busy: too many concurrent writes")

    async def _append_at(
        self,
        head: Head,
        length: int,
        where: _List,
        entry: Mapping[str, object],
        idempotency_key: str,
        source: str = "",
        event: int = 0,
    ) -> bool:
        """Appends an entry behind a head, and logs it; False if another entry was first."""
        content = canonical(entry)
        link = chain_hash(head.hash, content)
        drop = min(max(0, length + 1 - self._limits[where.name]), MAX_DROPPED)
        signature = await self._signature(where, head, link, drop)
        arguments: list[str | int | bytes] = [head.hash, head.added + 1, link, content, drop, idempotency_key]
        arguments += [FIRST_HASH, *signature, source, event]
        with store_errors():
            id_ = await self._append(keys=[where.stream, where.state, where.other_state], args=arguments)
        if id_ is None:
            return False
        if id_:  # otherwise another controller has written this event
            log.info("audit", **entry, chain=where.name, id=id_.decode(), hash=link)
        return True

    async def _marker(self, where: _List, head: Head) -> dict[str, object] | None:
        """Returns the marker that has to come before the next entry, if any."""
        if not head.added or not await self._may_sign(where, head):
            return None
        key = self._keys.signing_id(head.key, head.replaced)
        new: dict[str, object] = {"chain": where.name, "rule": "hmac-sha256", "key": key}
        if head.key and head.key not in self._keys.ids:
            if head.key in self._foreign_keys:
                return None
            self._foreign_keys.add(head.key)
            log.error(
                "another gateway signs the audit log of this store with another key: set the same audit_key on all",
                key=key,
                other_key=head.key,
            )
            return _new_entry(_GATEWAY, MARKER, old={"key": head.key}, new=new, note="Unknown key")
        if not head.is_signed(self._keys, where.name):
            new["unsigned"] = head.added - head.signed
            return _new_entry(_GATEWAY, MARKER, new=new, note="Signed from here on")
        if head.key != key:
            return _new_entry(_GATEWAY, MARKER, old={"key": head.key}, new=new, note="Key replaced")
        return None

    async def _signature(self, where: _List, head: Head, link: str, drop: int) -> list[str]:
        """Returns key, signature of the next entry, signature of the head it makes, and the keys replaced by then."""
        replaced = list(head.replaced)
        if not await self._may_sign(where, head):
            return ["", "", "", " ".join(replaced)]
        key = self._keys.signing_id(head.key, head.replaced)
        if head.key in self._keys.ids and head.key != key and head.key not in replaced:
            replaced.append(head.key)
        number = head.added + 1
        return [
            key,
            self._keys.mac(key, *entry_parts(where.name, number, link)),
            self._keys.mac(key, *head_parts(where.name, number, head.trimmed + drop, link)),
            " ".join(replaced[-MAX_ATTEMPTS:]),
        ]

    async def _may_sign(self, where: _List, head: Head) -> bool:
        """Whether the next entry may be signed: not after unsigned ones that replace what this gateway has seen.

        A signature would cover up for them.
        """
        anchor = self._anchors.get(where.name)
        if anchor is None or head.is_signed(self._keys, where.name):
            return True
        return await self._is_there(where, anchor)

    async def _is_there(self, where: _List, anchor: Anchor) -> bool:
        found: Any = await call_twice(lambda: self._redis.xrange(where.stream, min=anchor.id, max=anchor.id))
        return bool(found) and found[0][1].get(b"hash") == anchor.hash.encode()

    async def _head(self, where: _List) -> tuple[Head, int]:
        """Returns the head of a chain and the number of entries kept."""

        async def read() -> Any:
            async with self._redis.pipeline(transaction=True) as both:
                both.hgetall(where.state)
                both.xlen(where.stream)
                return await both.execute()

        state, length = await call_twice(read)
        return Head.parse(_decoded(state)), length

    async def observe(self) -> None:
        """Remembers the newest entries as seen by this gateway, and logs it if others are missing. Never raises.

        Writes the marker that is due behind entries of an older version.
        """
        try:
            for where in _LISTS.values():
                async with self._writing:
                    await self._observe(where)
            await asyncio.to_thread(self._anchors.save)
        except StoreUnavailable:
            pass  # the next call tries again

    async def _observe(self, where: _List) -> None:
        head, length = await self._head(where)
        signed = head.is_signed(self._keys, where.name)
        anchor = self._anchors.get(where.name)
        if anchor is not None:
            if (head.added, head.hash) == (anchor.number, anchor.hash):
                return
            # Only a signature shows that an entry was dropped because the log is bounded.
            if not (signed and anchor.number <= head.trimmed) and not await self._is_there(where, anchor):
                if where.name not in self._behind:
                    self._behind.add(where.name)
                    log.error("audit log entries are missing", chain=where.name, newest_seen=anchor.id)
                return
        if signed:
            self._anchors.set(where.name, Anchor(head.added, head.id, head.hash))
        elif not head.key and (marker := await self._marker(where, head)) is not None:
            await self._append_at(head, length, where, marker, secrets.token_hex(8))

    async def read(self, *, before: str = "+", count: int = 100) -> list[Entry]:
        """Returns the newest entries, newest first, optionally those before an id. Raises `StoreUnavailable`."""
        end = before
        if before != "+":
            time_, number = id_order(before)
            if not time_ and not number:
                return []  # the store would reject it as an error
            end = f"({time_}-{number}"
        entries: list[Entry] = []
        for where in _LISTS.values():
            found = await self._newest(where, end, count)
            entries += [parse_entry(id_, fields, where.name) for id_, fields in found]
        entries.sort(key=lambda entry: id_order(entry.id), reverse=True)
        return entries[:count]

    async def _newest(self, where: _List, end: str, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        found: Any = await call_twice(lambda: self._redis.xrevrange(where.stream, max=end, count=count))
        return list(found)

    async def export(self) -> AsyncIterator[Entry]:
        """Yields all entries, oldest first. Raises `StoreUnavailable`."""
        lists = [self._entries(where) for where in _LISTS.values()]
        newest = [await anext(one, None) for one in lists]
        while waiting := [entry for entry in newest if entry is not None]:
            oldest = min(waiting, key=lambda entry: id_order(entry.id))
            index = newest.index(oldest)
            newest[index] = await anext(lists[index], None)
            yield oldest

    async def _entries(self, where: _List) -> AsyncIterator[Entry]:
        after = "-"
        while after:
            _, found, after = await self._page(where, after)
            for id_, fields in found:
                yield parse_entry(id_, fields, where.name)

    async def verify(self) -> Verdict:
        """Verifies the whole log. Raises `StoreUnavailable`."""
        done, refused = [await self._verify(where) for where in _LISTS.values()]
        return combined(done, refused)

    async def _verify(self, where: _List) -> Verdict:
        anchor = self._anchors.get(where.name)  # before reading: what is seen meanwhile may be newer than the state
        state, found, after = await self._page(where, "-")
        chain = Chain(where.name, state, self._keys, anchor)
        chain.add(found)
        while after:
            state, found, after = await self._page(where, after)
            chain.add(found)
        return chain.verdict(state)

    async def _page(
        self, where: _List, after: str
    ) -> tuple[dict[str, str], list[tuple[bytes, dict[bytes, bytes]]], str]:
        """Returns the state stored beside a list, a page of the list as of then, and the start of the next page."""

        async def read() -> Any:
            async with self._redis.pipeline(transaction=True) as both:
                both.hgetall(where.state)
                both.xrange(where.stream, min=after, count=PAGE_SIZE)
                return await both.execute()

        state, found = await call_twice(read)
        more = f"({found[-1][0].decode()}" if len(found) == PAGE_SIZE else ""
        return _decoded(state), found, more


def _new_entry(actor: Actor, action: str, **what: Unpack[Details]) -> dict[str, object]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "who": actor.name,
        "role": str(actor.role),
        "address": actor.address,
        "via": actor.via,
        "action": action,
        "room": what.get("room", ""),
        "old": dict(what.get("old") or {}),
        "new": dict(what.get("new") or {}),
        "note": what.get("note", ""),
        "outcome": what.get("outcome", DONE),
    }


def _decoded(state: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in state.items()}
