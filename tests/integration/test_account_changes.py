"""Who was added, changed or removed is in the audit log, also where nobody ran meanwhile."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.admin_app import QUICK, USERS, WORDS
from waitroom.control.audit.account_changes import RECORDED_FILE, AccountWatcher
from waitroom.control.audit.keys import AuditKeys
from waitroom.control.audit.log import STATE, Audit
from waitroom.control.auth.accounts import AccountsFile, Role, User
from waitroom.store.connection import connect

KEYS = AuditKeys(["the key of the audit log in tests"])


@pytest.fixture
async def redis_client(valkey: str) -> AsyncIterator[Redis]:
    async with connect(valkey, timeout_seconds=10) as client:
        yield client


async def told(redis: Redis) -> list[tuple[dict[str, object], dict[str, object]]]:
    """What was written down since it was asked last, oldest first."""
    entries = await Audit(redis, KEYS).read()
    await redis.flushall()
    assert all((one.who, one.action, one.outcome) == ("local", "people", "done") for one in entries)
    return [(dict(one.old), dict(one.new)) for one in reversed(entries)]


async def test_changes_are_audited_once_whether_or_not_the_gateway_runs(redis_client: Redis, tmp_path: Path) -> None:
    file = AccountsFile(tmp_path)
    watcher = AccountWatcher(tmp_path, (), Audit(redis_client, KEYS))
    await watcher.check()
    assert await told(redis_client) == [], "nobody is there"
    file.add_user(User("anna", Role.OPERATOR, QUICK.hash(WORDS)))
    file.add_token("ci", Role.VIEWER)
    for _ in range(2):
        await watcher.check()
    assert await told(redis_client) == [({}, {"anna": "operator", "token:ci": "viewer"})]

    file.change_user("anna", lambda user: dataclasses.replace(user, password_hash=QUICK.hash("another one")))
    file.remove_token("ci")
    file.add_token("ci", Role.VIEWER)
    file.add_user(User("bob", Role.VIEWER, QUICK.hash(WORDS)))
    for _ in range(2):
        await AccountWatcher(tmp_path, (), Audit(redis_client, KEYS)).check()
    other = "other credentials"
    assert await told(redis_client) == [
        ({"anna": other, "token:ci": other}, {"anna": other, "token:ci": other, "bob": "viewer"})
    ]

    file.remove_user("bob")
    file.change_user("anna", lambda user: dataclasses.replace(user, role=Role.ADMIN))
    await AccountWatcher(tmp_path, USERS[:1], Audit(redis_client, KEYS)).check()
    assert await told(redis_client) == [({"anna": "operator", "bob": "viewer"}, {"anna": "admin", "vera": "viewer"})]
    assert stat.S_IMODE((tmp_path / RECORDED_FILE).stat().st_mode) == 0o600
    kept = (tmp_path / RECORDED_FILE).read_text()
    assert not any(one.password_hash in kept for one in file.read().users.values())
    assert not any(one.sha256 in kept for one in file.read().tokens.values())


async def test_the_rooms_of_a_shop_s_token_are_audited(redis_client: Redis, tmp_path: Path) -> None:
    file, watcher = AccountsFile(tmp_path), AccountWatcher(tmp_path, (), Audit(redis_client, KEYS))
    file.add_token("till", Role.SHOP, ["vip", "sale"])
    await watcher.check()
    assert await told(redis_client) == [({}, {"token:till": "shop of sale, vip"})]


async def test_changes_are_audited_when_the_log_is_available_again(redis_client: Redis, tmp_path: Path) -> None:
    AccountsFile(tmp_path).add_user(User("anna", Role.OPERATOR, QUICK.hash(WORDS)))
    watcher = AccountWatcher(tmp_path, (), Audit(redis_client, KEYS))
    await redis_client.set(STATE, "in the way")
    await watcher.check()
    assert not (tmp_path / RECORDED_FILE).exists()
    await redis_client.delete(STATE)
    await watcher.check()
    assert await told(redis_client) == [({}, {"anna": "operator"})]


@pytest.mark.parametrize("damaged", ["", "[]", "{", '{"anna": 3}', '{"anna": ["viewer"]}'])
async def test_an_unreadable_snapshot_is_rewritten(redis_client: Redis, tmp_path: Path, damaged: str) -> None:
    AccountsFile(tmp_path).add_user(User("anna", Role.OPERATOR, QUICK.hash(WORDS)))
    (tmp_path / RECORDED_FILE).write_text(damaged)
    await AccountWatcher(tmp_path, (), Audit(redis_client, KEYS)).check()
    assert await told(redis_client) == [({}, {"anna": "operator"})]


async def test_a_damaged_people_file_is_no_removal(redis_client: Redis, tmp_path: Path) -> None:
    file = AccountsFile(tmp_path)
    file.add_user(User("anna", Role.OPERATOR, QUICK.hash(WORDS)))
    watcher = AccountWatcher(tmp_path, (), Audit(redis_client, KEYS))
    await watcher.check()
    await told(redis_client)
    kept = file.path.read_bytes()
    file.path.write_text("{")
    await watcher.check()
    file.path.write_bytes(kept)
    await watcher.check()
    assert await told(redis_client) == []
