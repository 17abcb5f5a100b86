"""The audit log's signatures: what somebody with access to the store, an older version or another key can do."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from support.unsigned_audit import is_intact_to_an_older_version, write_unsigned
from waitroom.control.audit.anchors import ANCHORS_FILE, Anchors
from waitroom.control.audit.chain import FIRST_HASH, MARKER, chain_hash
from waitroom.control.audit.keys import AuditKeys, load_keys
from waitroom.control.audit.log import REFUSED_STATE, REFUSED_STREAM, STATE, STREAM, Audit
from waitroom.control.audit.refusals import BURST, STRANGERS_BURST
from waitroom.control.auth.accounts import Actor, Role
from waitroom.process.data_dir import derived_audit_key
from waitroom.store.connection import connect

OLD, NEW = "an audit key of many characters", "the key that follows that one"
ADA = Actor("ada", Role.OPERATOR, "192.0.2.7", "dashboard")


@pytest.fixture
async def redis_client(valkey: str) -> AsyncIterator[Redis]:
    async with connect(valkey, timeout_seconds=10) as client:
        yield client


def audit_of(redis: Redis, *keys: str, folder: Path | None = None, **limits: int) -> Audit:
    return Audit(redis, AuditKeys(keys or (OLD,)), None if folder is None else Anchors(folder), **limits)


async def write(audit: Audit, *notes: str, outcome: str = "done") -> None:
    for note in notes:
        await audit.write(ADA, "change", room="shop", note=note, outcome=outcome)


async def rehashed(redis: Redis, stream: str = STREAM, state: str = STATE, *, signatures: bool, who: bytes) -> None:
    """Rebuilds the chain with another name in it. This needs access to the store, but not the key."""
    entries = await redis.xrange(stream)
    hash_ = (await redis.hget(state, "trimmed_hash") or FIRST_HASH.encode()).decode()
    await redis.delete(stream)
    for id_, fields in entries:
        entry = fields[b"entry"].replace(b'"who":"ada"', b'"who":"%b"' % who)
        made = {b"entry": entry, b"previous": hash_, b"hash": chain_hash(hash_, entry)}
        hash_ = chain_hash(hash_, entry)
        await redis.xadd(stream, {**fields, **made} if signatures else made, id=id_)
    await redis.hset(state, "hash", hash_)
    if not signatures:
        await redis.hdel(state, "key", "mac", "signed", "replaced")


async def test_a_chain_rebuilt_without_the_key_is_detected(redis_client: Redis) -> None:
    audit = audit_of(redis_client)
    await write(audit, "one", "two", "three")
    assert (await audit.verify()).intact
    await rehashed(redis_client, signatures=True, who=b"eve")
    verdict = await audit.verify()
    assert not verdict.intact
    assert "signature" in verdict.summary


@pytest.mark.parametrize(("stream", "state"), [(STREAM, STATE), (REFUSED_STREAM, REFUSED_STATE)])
async def test_what_a_gateway_has_seen_cannot_be_replaced(
    redis_client: Redis, tmp_path: Path, stream: str, state: str
) -> None:
    """Also not by a chain without signatures, as if an older version had written it, or by none at all."""
    audit = audit_of(redis_client, folder=tmp_path)
    await write(audit, "one", "two", "three")
    await write(audit, "four", outcome="refused")
    await audit.observe()
    copy = await redis_client.dump(stream), await redis_client.dump(state)
    again = audit_of(redis_client, folder=tmp_path)  # after a restart
    assert (await again.verify()).intact

    await rehashed(redis_client, stream, state, signatures=False, who=b"eve")
    await again.observe()
    await write(again, "later")
    await write(again, "later", outcome="refused")
    await again.observe()
    assert not (await again.verify()).intact
    await redis_client.delete(stream, state)
    await again.observe()
    assert not (await again.verify()).intact
    # Nor by a huge number of dropped entries.
    await write(again, "rewritten")
    await redis_client.hset(state, mapping={"added": 900, "trimmed": 899, "key": "another"})
    await write(again, "on top")
    await again.observe()
    assert not (await again.verify()).intact
    await redis_client.delete(stream, state)
    await redis_client.restore(stream, 0, copy[0])
    await redis_client.restore(state, 0, copy[1])
    assert (await audit_of(redis_client, folder=tmp_path).verify()).intact
    assert stat.S_IMODE((tmp_path / ANCHORS_FILE).stat().st_mode) == 0o600


async def test_an_older_state_in_place_of_the_newest_is_detected(redis_client: Redis, tmp_path: Path) -> None:
    audit = audit_of(redis_client, folder=tmp_path)
    await write(audit, "one")
    before = await redis_client.dump(STATE), await redis_client.dump(STREAM)
    await write(audit, "two")
    await audit.observe()
    for key, value in zip((STATE, STREAM), before, strict=True):
        await redis_client.restore(key, 0, value, replace=True)
    with capture_logs() as lines:
        await audit.observe()
        await audit.observe()
    assert [line["event"] for line in lines] == ["audit log entries are missing"]
    assert "has seen, are missing" in (await audit.verify()).summary
    await write(audit, "another two")
    await audit.observe()
    assert "which this gateway has seen there" in (await audit.verify()).summary


async def test_removing_the_oldest_or_the_newest_is_detected_whatever_the_state_says(redis_client: Redis) -> None:
    audit = audit_of(redis_client)
    await write(audit, "one", "two", "three")
    copy = await redis_client.dump(STATE), await redis_client.dump(STREAM)
    entries = await redis_client.xrange(STREAM)
    await redis_client.xdel(STREAM, entries[0][0])
    await redis_client.hset(STATE, mapping={"trimmed": 1, "trimmed_hash": entries[0][1][b"hash"]})
    assert not (await audit.verify()).intact
    for key, value in zip((STATE, STREAM), copy, strict=True):
        await redis_client.restore(key, 0, value, replace=True)
    assert (await audit.verify()).intact
    await redis_client.xdel(STREAM, entries[2][0])
    await redis_client.hset(STATE, mapping={"added": 2, "hash": entries[1][1][b"hash"], "id": entries[1][0]})
    assert "state stored beside" in (await audit.verify()).summary


async def test_entries_of_an_older_version_count_up_to_the_marker(redis_client: Redis, tmp_path: Path) -> None:
    for note in ("old one", "old two"):
        await write_unsigned(redis_client, note)
    audit = audit_of(redis_client, folder=tmp_path)
    verdict = await audit.verify()
    assert (verdict.intact, verdict.unsigned) == (True, 2)

    await audit.observe()
    await write(audit, "new")

    newest, marker, *old = await audit.read()
    assert [newest.note, *(one.note for one in old)] == ["new", "old two", "old one"]
    assert (marker.who, marker.action, marker.new["rule"], marker.new["unsigned"]) == (
        "gateway",
        MARKER,
        "hmac-sha256",
        2,
    )
    verdict = await audit.verify()
    assert (verdict.intact, verdict.entries, verdict.unsigned) == (True, 4, 2)
    assert "2 were written without the audit key" in verdict.summary
    entries = await redis_client.xrange(STREAM)
    await redis_client.delete(STREAM)
    for id_, fields in entries:
        fields[b"entry"] = fields[b"entry"].replace(b"old one", b"OLD ONE")
        await redis_client.xadd(STREAM, fields, id=id_)
    assert "was altered" in (await audit.verify()).summary


async def test_an_older_version_reads_and_extends_the_log(redis_client: Redis, tmp_path: Path) -> None:
    audit = audit_of(redis_client, folder=tmp_path, max_entries=6)
    await write(audit, "one", "two")
    await audit.observe()
    assert await is_intact_to_an_older_version(redis_client)
    await write_unsigned(redis_client, "by the older version", outcome="refused")
    verdict = await audit.verify()
    assert (verdict.intact, verdict.unsigned) == (True, 1)
    assert not (await audit_of(redis_client).verify()).intact, "who has seen nothing can't know who wrote it"
    await write(audit, "three")
    assert [one.action for one in await audit.read()] == ["change", MARKER, *["change"] * 3]
    for number in range(4):
        await write_unsigned(redis_client, f"later {number}", most=6)
        await write(audit, f"new {number}")
        assert await is_intact_to_an_older_version(redis_client)
        await audit.observe()
    verdict = await audit.verify()
    assert verdict.intact, verdict.summary
    assert verdict.entries <= 8


async def test_gateways_with_different_keys_are_told(redis_client: Redis) -> None:
    one, other = audit_of(redis_client, OLD), audit_of(redis_client, NEW)
    with capture_logs() as lines:
        for audit in (one, other, one, other, one):
            await write(audit, "x")
    told = [line for line in lines if "another key" in line["event"]]
    assert len(told) == 2, "each says so once"
    assert sum(entry.action == MARKER for entry in await one.read()) == 2
    verdict = await one.verify()
    assert not verdict.intact
    assert "set the same audit_key on all gateways" in verdict.summary


async def test_a_key_is_replaced_on_one_gateway_after_the_other(redis_client: Redis) -> None:
    async def intact(*audits: Audit) -> None:
        for audit in audits:
            await write(audit, "x")
        for audit in audits:
            verdict = await audit.verify()
            assert verdict.intact, verdict.summary

    one, two = audit_of(redis_client, OLD), audit_of(redis_client, OLD)
    await intact(one, two)
    one = audit_of(redis_client, OLD, NEW)
    await intact(one, two, one)
    two = audit_of(redis_client, OLD, NEW)
    await intact(one, two)
    one = audit_of(redis_client, NEW, OLD)
    await intact(one, two, one, two)
    assert await redis_client.hget(STATE, "key") == AuditKeys([NEW]).ids[0].encode()
    two = audit_of(redis_client, NEW, OLD)
    await intact(one, two)
    [marker] = [entry for entry in await one.read() if entry.action == MARKER]
    assert (marker.old["key"], marker.new["key"]) == (AuditKeys([OLD]).ids[0], AuditKeys([NEW]).ids[0])
    # Whoever has found the replaced key can't go on with it.
    thief = audit_of(redis_client, OLD)
    await write(thief, "forged")
    assert not (await one.verify()).intact


async def test_refused_attempts_push_out_nothing_that_was_done(redis_client: Redis) -> None:
    audit = audit_of(redis_client, max_entries=5, max_refused=3)
    await write(audit, *"abc")
    await write(audit, *"uvwxyz", outcome="refused")
    await write(audit, "d")
    entries = await audit.read()
    assert [entry.note for entry in entries] == ["d", *"zyx", *"cba"]
    assert [entry.note async for entry in audit.export()] == [entry.note for entry in reversed(entries)]
    assert len({entry.id for entry in entries}) == len(entries)
    page = await audit.read(count=2)
    assert [entry.note for entry in await audit.read(before=page[-1].id, count=3)] == ["y", "x", "c"]
    verdict = await audit.verify()
    assert (verdict.intact, verdict.entries, verdict.trimmed) == (True, 7, 3)
    assert (verdict.first, verdict.last) == (entries[-1].id, entries[0].id)


async def test_each_actor_has_few_refused_attempts_recorded(redis_client: Redis) -> None:
    audit = audit_of(redis_client)
    eve = Actor("token:eve", Role.OPERATOR, "192.0.2.8", "api")
    for _ in range(BURST + 20):
        await audit.record(eve, "change", outcome="refused", note="too high")
    for _ in range(STRANGERS_BURST + 20):
        await audit.record(Actor("unknown", Role.VIEWER, "", "api"), "request", outcome="refused")
    await audit.record(ADA, "login", outcome="refused", note="wrong password")
    await audit.record(eve, "change", note="done")
    entries = await audit.read(count=1000)
    refused = Counter(one.who for one in entries if one.outcome == "refused")
    assert BURST <= refused[eve.name] < BURST + 20
    assert STRANGERS_BURST <= refused["unknown"] < STRANGERS_BURST + 20
    assert refused["ada"] == 1
    assert [one.note for one in entries[:2]] == ["done", "wrong password"]


async def test_each_entry_is_a_log_line(redis_client: Redis) -> None:
    audit = audit_of(redis_client)
    with capture_logs() as lines:
        await audit.record(ADA, "change", room="shop", new={"rate_per_minute": 5}, note="calm")
        await audit.record(ADA, "login", outcome="refused")
    entries = await audit.read()
    assert [(line["event"], line["log_level"]) for line in lines] == [("audit", "info")] * 2
    for line, entry in zip(lines, reversed(entries), strict=True):
        told = {name: value for name, value in entry.json().items() if name not in ("previous", "key", "mac")}
        assert {name: line[name] for name in told} == told


async def test_keys_come_from_the_settings_or_a_private_file(tmp_path: Path) -> None:
    made = load_keys(tmp_path, None, ())
    path = tmp_path / "audit_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_keys(tmp_path, None, ()).ids == made.ids
    path.write_text(f"{NEW}\n{path.read_text()}")
    assert load_keys(tmp_path, None, ()).ids == AuditKeys([NEW]).ids + made.ids
    assert load_keys(tmp_path, OLD, (NEW,)).ids == AuditKeys([OLD, NEW, derived_audit_key(NEW)]).ids
    assert OLD not in str(AuditKeys([OLD]).ids)
