"""A room whose data in the store can't be read: the error names it, and nothing is lost when it is fixed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from support.gateway_process import eventually
from waitroom.control.audit.keys import AuditKeys
from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor, Role
from waitroom.control.monitoring.history import History, Sample, record_history
from waitroom.control.rooms.admission_loop import Admission
from waitroom.control.rooms.audit_outbox import AuditOutbox, audit_event
from waitroom.control.rooms.presenter import LastChange
from waitroom.queue.constants import SCHEMA, SCHEMA_WITHOUT_EVENTS
from waitroom.queue.fields import Limits
from waitroom.queue.schedule import Event, encode_event
from waitroom.queue.store import QueueStore, UnreadableRoomError, Visit
from waitroom.settings import RoomSettings
from waitroom.store.connection import connect

LIMITS = Limits(600, 2, 900, 180, 180, 3600)
ROOM = "waitroom:{shop}:room"


@pytest_asyncio.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    async with connect(valkey, timeout_seconds=10) as redis:
        yield redis


@pytest_asyncio.fixture
async def store(redis: Redis) -> QueueStore:
    store = QueueStore(redis, "shop")
    await store.open(LIMITS)
    await store.join(4)
    return store


async def error_of(store: QueueStore) -> str:
    """What ticks and views report."""
    found = ""
    for call in (store.view, store.tick):
        try:
            await call()
        except UnreadableRoomError as error:
            found = f"{error.kind}: {error}"
    return found


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("state", "bogus", "field state of waitroom:{shop}:room is 'bogus': not one of open, paused, closed, sold_out"),
        ("method", "lottery", ""),
        ("rate", "many", "field rate of waitroom:{shop}:room is 'many': not a number"),
        ("rate", "nan", "field rate of waitroom:{shop}:room is 'nan': out of bounds"),
        ("rate", "-1", "field rate of waitroom:{shop}:room is '-1': out of bounds"),
        ("rate", "inf", "field rate of waitroom:{shop}:room is 'inf': out of bounds"),
        ("max_active", "inf", "field max_active of waitroom:{shop}:room is 'inf': not a number"),
        ("max_active", "2.5", "field max_active of waitroom:{shop}:room is '2.5': not a number"),
        ("claim_ms", "", "field claim_ms of waitroom:{shop}:room is '': not a number"),
        ("tokens", "x" * 1000, "field tokens of waitroom:{shop}:room is 'xxxx"),
        ("remaining", "few", "field remaining of waitroom:{shop}:room is 'few': not a whole number"),
        ("total:joined", "x", "field total:joined of waitroom:{shop}:room is 'x': not a whole number"),
        ("invited", "one two", "another format"),
    ],
)
async def test_a_field_that_cannot_be_read_is_named(
    redis: Redis, store: QueueStore, field: str, value: str, named: str
) -> None:
    before = await redis.hget(ROOM, field)
    await redis.hset(ROOM, field, value)
    error = await error_of(store)
    assert named in error
    assert not error or error.startswith("data: the data of room shop can't be read: ")
    assert len(error) < 300
    if before is None:
        await redis.hdel(ROOM, field)
    else:
        await redis.hset(ROOM, field, before)
    assert await error_of(store) == ""
    view = await store.view()
    assert (view.waiting + view.called, view.active) == (3, 1)


@pytest.mark.parametrize("key", ["room", "waiting", "called", "away", "active", "feed", "seen", "notes", "table"])
async def test_a_key_of_another_type_is_named_and_nobody_loses_the_place(
    redis: Redis, store: QueueStore, key: str
) -> None:
    joined = await store.join(1)
    at = f"waitroom:{{shop}}:{key}"
    if await redis.exists(at):
        await redis.rename(at, "aside")
    await redis.set(at, "not ours")
    error = await error_of(store)
    if key == "notes":  # only read by the outbox
        assert error == ""
        with pytest.raises(UnreadableRoomError):
            await store.audit_events()
    else:
        assert f"key {at} is a string, not a" in error
    await redis.delete(at)
    if await redis.exists("aside"):
        await redis.rename("aside", at)
    assert await error_of(store) == ""
    (fate,) = await store.visit([Visit(joined.first_place, joined.generation, claim=False)])
    assert fate.fate == "waiting"


async def test_turns_are_not_lost_in_scripts_that_fail_halfway(redis: Redis, store: QueueStore) -> None:
    wall = 1_800_000_000_000
    timed = QueueStore(redis, "timed", clock=lambda: wall, run_id=lambda: "r1")
    await timed.open(LIMITS)
    await timed.join(3)
    await redis.set("waitroom:{timed}:missed", "not ours")
    for _ in range(40):  # the turn of the second visitor runs out
        wall += 10_000
        try:
            await timed.seen([(await timed.join(1)).first_place])
            await timed.tick()
        except UnreadableRoomError:
            break
    else:
        pytest.fail("no tick noticed the wrong key")
    called = await redis.zcard("waitroom:{timed}:called")
    for _ in range(40):
        wall += 10_000
        with pytest.raises(UnreadableRoomError):
            await timed.tick()
    assert await redis.zcard("waitroom:{timed}:called") == called


async def test_another_room_is_not_affected(redis: Redis, store: QueueStore) -> None:
    other = QueueStore(redis, "tickets")
    await other.open(LIMITS)
    await redis.hset(ROOM, "state", "bogus")
    assert "bogus" in await error_of(store)
    assert await error_of(other) == ""
    assert (await other.join(1)).admitted == 1


@pytest.mark.parametrize(
    "record", ["{", "[" * 100_000, "[]", '"x"', '{"at_ms": "x"}', '{"at_ms": "1", "who": "a", "old": 1}']
)
def test_a_record_of_the_last_change_that_cannot_be_read_is_none(record: str) -> None:
    assert LastChange.parse(record) is None


def test_a_change_of_a_field_of_a_newer_version_is_shown() -> None:
    record = '{"at_ms": "1000", "who": "ada", "undoable": true, "old": {"later": "1"}, "new": {"later": "2"}}'
    change = LastChange.parse(record)
    assert change is not None
    assert change.summary() == "later 1 → 2"


async def test_a_room_of_a_newer_version_is_refused_unchanged(redis: Redis, store: QueueStore) -> None:
    await redis.hset(ROOM, "schema", SCHEMA + 1)
    before = await redis.hgetall(ROOM)
    for call in (store.open(LIMITS), store.tick(), store.join(1), store.view()):
        with pytest.raises(UnreadableRoomError, match="a newer version of Waitroom has written it"):
            await call
    assert await redis.hgetall(ROOM) == before
    await redis.hset(ROOM, "schema", SCHEMA)
    assert await error_of(store) == ""


async def test_a_room_of_an_older_version_is_upgraded(redis: Redis, store: QueueStore) -> None:
    await redis.hdel(ROOM, "schema")
    assert await error_of(store) == ""
    assert await store.open(LIMITS) == (await store.view()).generation
    assert await redis.hget(ROOM, "schema") == str(SCHEMA_WITHOUT_EVENTS).encode(), "earlier versions can still read it"


async def test_a_room_with_events_is_refused_by_versions_that_know_none(redis: Redis, store: QueueStore) -> None:
    event = Event("sale", "", start_ms=4_000_000_000_000)
    await store.open(LIMITS, {"sale": encode_event(event, "ab")})
    assert await redis.hget(ROOM, "schema") == str(SCHEMA).encode()
    await store.open(LIMITS)
    assert await redis.hget(ROOM, "schema") == str(SCHEMA_WITHOUT_EVENTS).encode()


async def test_a_start_reads_the_settings_file_into_an_open_room(redis: Redis, store: QueueStore) -> None:
    settings = RoomSettings(name="shop", upstream="http://127.0.0.1:9", rate_per_minute=300, max_active=2)
    admission = Admission(settings, store)
    async with asyncio.TaskGroup() as tasks:
        ticking = tasks.create_task(admission.run())
        await eventually(lambda: admission.store_up)
        ticking.cancel()
    assert admission.view is not None
    assert admission.view.rate_per_minute == 300


async def test_a_user_who_may_only_run_the_scripts_learns_what_failed(valkey: str, redis: Redis) -> None:
    await redis.execute_command("ACL", "SETUSER", "scripts", "on", ">word", "~waitroom:*", "+@all", "-type")
    try:
        async with connect(valkey.replace("unix://", "unix://scripts:word@"), timeout_seconds=10) as limited:
            store = QueueStore(limited, "shop")
            await store.open(LIMITS)
            await redis.hset(ROOM, "rate", "many")
            assert "data of another format" in await error_of(store)
            await redis.hset(ROOM, "rate", "600")
            assert await error_of(store) == ""
    finally:
        await redis.execute_command("ACL", "DELUSER", "scripts")


def unreadable(at_ms: float, note: str = "") -> str:
    """An audit event like ours, but for a time or a text that can't be written into the audit log."""
    by = audit_event(Actor("ada", Role.OPERATOR, "127.0.0.1", "api"), "change", note)
    return json.dumps({"told": by, "at_ms": at_ms, "old": {}, "new": {}, "number": 1})


async def test_unreadable_audit_events_and_samples_keep_nothing_else_from_being_written(
    redis: Redis, store: QueueStore
) -> None:
    other = QueueStore(redis, "tickets")
    await other.open(LIMITS)
    event = audit_event(Actor("ada", Role.OPERATOR, "127.0.0.1", "api"), "change", "")
    await redis.rpush("waitroom:{shop}:notes", "rubbish", '{"told": 5}', *map(unreadable, (1e20, 1e18, 1e17)))
    await redis.rpush("waitroom:{shop}:notes", unreadable(1e12, note="\ud800"), "[" * 100_000)
    await redis.set("waitroom:{broken}:notes", "not a list")
    for one in (store, other):
        await one.change({"max_active": "9"}, expected=None, who="ada", audit_event=event)
    audit = Audit(redis, AuditKeys(["the key of the audit log in tests"]))
    stores = {"broken": QueueStore(redis, "broken"), "shop": store, "tickets": other}
    await AuditOutbox(audit, stores).flush_all()
    assert [entry.room for entry in await audit.read()] == ["tickets", "shop"]
    assert await store.audit_events() == []

    await redis.set("waitroom:{shop}:history", "not a sorted set")
    sample = Sample(5, {"waiting": 1})
    history = History(redis)
    taken = asyncio.Event()

    def take(at: int) -> dict[str, Sample]:
        if taken.is_set():
            return {}
        taken.set()
        return {"shop": sample, "tickets": sample}

    recording = asyncio.create_task(record_history(history, take))
    try:
        await eventually(lambda: redis.zcard("waitroom:{tickets}:history"))
    finally:
        recording.cancel()
