"""The audit log in a real store: what is written, and what shows when somebody has tampered with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from waitroom.control.audit.keys import AuditKeys
from waitroom.control.audit.log import STATE, STREAM, Audit
from waitroom.control.auth.accounts import Actor, Role
from waitroom.store.connection import connect

KEYS = AuditKeys(["the key of the audit log in tests"])
SOMEBODY = Actor("ada", Role.OPERATOR, "192.0.2.7", "dashboard")


@pytest.fixture
async def redis_client(valkey: str) -> AsyncIterator[Redis]:
    async with connect(valkey, timeout_seconds=10) as client:
        yield client


async def written(redis: Redis, count: int, *, most: int = 1000) -> Audit:
    audit = Audit(redis, KEYS, max_entries=most)
    for number in range(count):
        await audit.record(SOMEBODY, "change", room="shop", old={"rate": number}, new={"rate": number + 1}, note="wëil")
    return audit


async def ids(redis: Redis) -> list[bytes]:
    return [id_ for id_, _ in await redis.xrange(STREAM)]


async def rewritten(redis: Redis, change: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
    """The stream anew, under the ids it had."""
    await redis.delete(STREAM)
    for id_, fields in change:
        await redis.xadd(STREAM, fields, id=id_)


async def test_entries_are_listed_newest_first(redis_client: Redis) -> None:
    audit = await written(redis_client, 3)
    await audit.record(SOMEBODY, "login", outcome="refused")

    newest, *rest = await audit.read()

    assert (newest.action, newest.outcome, newest.who, newest.role) == ("login", "refused", "ada", "operator")
    assert (newest.address, newest.via, newest.at[-1]) == ("192.0.2.7", "dashboard", "Z")
    assert [one.new for one in rest] == [{"rate": 3}, {"rate": 2}, {"rate": 1}]
    assert (rest[0].old, rest[0].note, rest[0].room) == ({"rate": 2}, "wëil", "shop")
    assert (newest.chain, rest[0].chain, rest[0].previous) == ("refused", "done", rest[1].hash)
    assert await audit.read(before=rest[0].id, count=1) == [rest[1]]
    assert [one async for one in audit.export()] == [*reversed(rest), newest]


async def test_an_untouched_log_is_intact(redis_client: Redis) -> None:
    verdict = await Audit(redis_client, KEYS).verify()
    assert (verdict.intact, verdict.entries, verdict.first) == (True, 0, None)

    audit = await written(redis_client, 5)

    verdict = await audit.verify()
    assert (verdict.intact, verdict.entries, verdict.trimmed) == (True, 5, 0)
    assert [verdict.first, verdict.last] == [(await ids(redis_client))[number].decode() for number in (0, -1)]


@pytest.mark.parametrize("which", [0, 2, 4])
async def test_a_removed_entry_is_detected(redis_client: Redis, which: int) -> None:
    audit = await written(redis_client, 5)
    await redis_client.xdel(STREAM, (await ids(redis_client))[which])

    verdict = await audit.verify()

    assert not verdict.intact
    assert "removed" in verdict.summary


async def test_an_emptied_log_is_detected(redis_client: Redis) -> None:
    audit = await written(redis_client, 5)
    await redis_client.delete(STREAM)
    assert not (await audit.verify()).intact


@pytest.mark.parametrize("which", [0, 2, 4])
async def test_an_altered_entry_is_detected(redis_client: Redis, which: int) -> None:
    audit = await written(redis_client, 5)
    entries = await redis_client.xrange(STREAM)
    said = json.loads(entries[which][1][b"entry"])
    entries[which][1][b"entry"] = json.dumps(said | {"who": "eve"}).encode()
    await rewritten(redis_client, entries)

    verdict = await audit.verify()

    assert not verdict.intact
    assert verdict.summary == f"Entry {entries[which][0].decode()} was altered."


async def test_reordered_entries_are_detected(redis_client: Redis) -> None:
    audit = await written(redis_client, 5)
    entries = await redis_client.xrange(STREAM)
    entries[1], entries[2] = (entries[1][0], entries[2][1]), (entries[2][0], entries[1][1])
    await rewritten(redis_client, entries)
    assert not (await audit.verify()).intact


async def test_an_inserted_entry_is_detected(redis_client: Redis) -> None:
    audit = await written(redis_client, 3)
    _, fields = (await redis_client.xrange(STREAM))[-1]
    await redis_client.xadd(STREAM, fields)
    assert not (await audit.verify()).intact


async def test_trimming_the_oldest_entries_is_not_tampering(redis_client: Redis) -> None:
    audit = await written(redis_client, 12, most=5)

    verdict = await audit.verify()

    assert (verdict.intact, verdict.entries, verdict.trimmed) == (True, 5, 7)
    assert [one.new["rate"] for one in await audit.read()] == [12, 11, 10, 9, 8]
    await redis_client.xdel(STREAM, (await ids(redis_client))[0])
    assert not (await audit.verify()).intact


async def test_a_smaller_bound_is_reached_in_steps(redis_client: Redis) -> None:
    await written(redis_client, 30)
    audit = await written(redis_client, 1, most=5)
    verdict = await audit.verify()
    assert (verdict.intact, verdict.entries, verdict.trimmed) == (True, 5, 26)


async def test_two_controllers_write_one_chain(valkey: str) -> None:
    async with connect(valkey, timeout_seconds=10) as one, connect(valkey, timeout_seconds=10) as other:
        await asyncio.gather(written(one, 40), written(other, 40))
        verdict = await Audit(one, KEYS).verify()
    assert (verdict.intact, verdict.entries) == (True, 80)


async def test_a_log_of_several_pages_is_verified(redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waitroom.control.audit.log.PAGE_SIZE", 3)
    audit = await written(redis_client, 10)
    assert (await audit.verify()).entries == 10
    assert len([one async for one in audit.export()]) == 10
    await redis_client.xdel(STREAM, (await ids(redis_client))[6])
    assert not (await audit.verify()).intact


async def test_unreadable_entries_are_still_listed(redis_client: Redis) -> None:
    audit = await written(redis_client, 1)
    await redis_client.xadd(STREAM, {"entry": "rubbish"})
    assert (await audit.read())[0].action == ""
    assert await redis_client.hget(STATE, "added") == b"1"


async def test_an_unavailable_store_stops_nobody(valkey: str) -> None:
    async with connect("unix:///nowhere/waitroom.sock", timeout_seconds=0.1) as gone:
        await Audit(gone, KEYS).record(SOMEBODY, "change")
