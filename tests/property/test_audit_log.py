"""The audit log on a real store: nothing that was done is pushed out early, and whatever is tampered with is found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from support.examples import examples
from support.unsigned_audit import is_intact_to_an_older_version
from waitroom.control.audit.anchors import Anchors
from waitroom.control.audit.chain import FIRST_HASH, chain_hash
from waitroom.control.audit.keys import AuditKeys
from waitroom.control.audit.log import REFUSED_STATE, REFUSED_STREAM, STATE, STREAM, Audit
from waitroom.control.auth.accounts import Actor, Role
from waitroom.store.connection import connect

KEYS = AuditKeys(["a key that nobody else has"])
MOST_DONE, MOST_REFUSED = 6, 4
LISTS = ((STREAM, STATE), (REFUSED_STREAM, REFUSED_STATE))
# Who did it, and whether it was refused.
ACTS = st.lists(st.tuples(st.sampled_from(("ada", "token:eve", "unknown")), st.booleans()), min_size=1, max_size=16)
FEW = settings(
    max_examples=examples(8, long=1000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def on_store(url: str, run: Callable[[Redis, Audit], Awaitable[None]]) -> None:
    """Runs on an empty store, with an audit log of a few entries."""

    async def connected() -> None:
        async with connect(url, timeout_seconds=10) as redis:
            await redis.flushall()
            await run(redis, Audit(redis, KEYS, Anchors(None), max_entries=MOST_DONE, max_refused=MOST_REFUSED))

    asyncio.run(connected())


async def act(audit: Audit, acts: list[tuple[str, bool]]) -> list[str]:
    """Writes entries; returns the notes of those that were done."""
    done = []
    for number, (who, refused) in enumerate(acts):
        actor = Actor(who, Role.OPERATOR, "192.0.2.7", "api")
        await audit.record(actor, "change", note=f"n{number}", outcome="refused" if refused else "done")
        if not refused:
            done.append(f"n{number}")
    return done


@FEW
@given(acts=ACTS)
def test_only_newer_acts_push_out_what_was_done(valkey: str, acts: list[tuple[str, bool]]) -> None:
    async def run(redis: Redis, audit: Audit) -> None:
        done = await act(audit, acts)
        entries = await audit.read(count=100)
        assert [one.note for one in reversed(entries) if one.outcome == "done"] == done[-MOST_DONE:]
        assert sum(one.outcome == "refused" for one in entries) == min(len(acts) - len(done), MOST_REFUSED)
        assert [one async for one in audit.export()] == entries[::-1]
        verdict = await audit.verify()
        assert (verdict.intact, verdict.entries) == (True, len(entries)), verdict.summary
        assert not done or await is_intact_to_an_older_version(redis)

    on_store(valkey, run)


async def tamper(redis: Redis, which: int, how: str) -> tuple[bytes, bytes]:
    """Changes one entry of those stored, as somebody can who has the store and not the key.

    Returns its list, and the id of an entry there that shows it: nothing does once the log's bound has dropped that.
    """
    stored = [(stream, state, id_) for stream, state in LISTS for id_, _ in await redis.xrange(stream)]
    stream, state, target = stored[which % len(stored)]
    entries = await redis.xrange(stream)
    index = [id_ for id_, _ in entries].index(target)
    shown_by = target
    fields = entries[index][1]
    if how == "remove":
        shown_by = (entries[index + 1 :] or entries[index - 1 : index] or [(b"", {})])[0][0]
        del entries[index]
    elif how == "move":
        shown_by = b"9999999999999-0"
        entries.append((shown_by, fields))
    elif how.startswith("alter "):
        name = how.removeprefix("alter ").encode()
        fields[name] = fields[name][:-1] + (b"0" if fields[name][-1:] != b"0" else b"1")
    elif how == "unsigned":
        del fields[b"key"], fields[b"mac"]
    else:  # alter an entry and rebuild the chain, with the old signatures or without any
        fields[b"entry"] = fields[b"entry"].replace(b'"address":"192.0.2.7"', b'"address":"192.0.2.8"')
    if how.startswith("rebuild"):
        hash_ = await redis.hget(state, "trimmed_hash") or FIRST_HASH.encode()
        for _, one in entries:
            one[b"previous"], hash_ = hash_, chain_hash(hash_.decode(), one[b"entry"]).encode()
            one[b"hash"] = hash_
            if how == "rebuild unsigned":
                one[b"key"] = one[b"mac"] = b""
        await redis.hset(state, "hash", hash_)
        if how == "rebuild unsigned":
            await redis.hdel(state, "key", "mac")
    await redis.delete(stream)
    for id_, one in entries:
        await redis.xadd(stream, one, id=id_)
    return stream, shown_by


WAYS = ("remove", "move", "alter entry", "alter previous", "alter hash", "alter mac", "alter key", "unsigned")


@FEW
@given(
    acts=ACTS,
    which=st.integers(0, MOST_DONE + MOST_REFUSED),
    how=st.sampled_from((*WAYS, "rebuild", "rebuild unsigned")),
    later=ACTS.map(lambda acts: acts[:3]),
)
def test_tampering_with_any_stored_entry_is_found(
    valkey: str, acts: list[tuple[str, bool]], which: int, how: str, later: list[tuple[str, bool]]
) -> None:
    async def run(redis: Redis, audit: Audit) -> None:
        await act(audit, acts)
        await audit.observe()
        assert (await audit.verify()).intact
        stream, shown_by = await tamper(redis, which, how)
        assert not (await audit.verify()).intact
        await act(audit, later)
        await audit.observe()
        verdict = await audit.verify()
        kept = [id_ for id_, _ in await redis.xrange(stream)]
        assert not verdict.intact or shown_by not in kept, verdict.summary

    on_store(valkey, run)
