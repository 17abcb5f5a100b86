"""The live feed ends for whoever is no longer let in, with a real store behind it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from support.admin_app import QUICK, USERS, WORDS, Admin, Diary, Gone, settings_in
from waitroom.control.auth.accounts import AccountsFile, Role, User
from waitroom.control.auth.login_store import LoginStore
from waitroom.control.dashboard import feed as live
from waitroom.control.dashboard.feed import Room
from waitroom.store.connection import connect

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("endless")]


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feeds that end by no time of their own."""
    monkeypatch.setattr(live, "MAX_RESPONSE_SECONDS", 3600.0)


@pytest.fixture
async def store(valkey: str) -> AsyncIterator[LoginStore]:
    async with connect(valkey, timeout_seconds=10) as redis:
        yield LoginStore(redis)


class Made:
    """No rooms; counts the frames that were made of them."""

    def __init__(self) -> None:
        self.frames = 0

    def __call__(self) -> list[Room]:
        self.frames += 1
        return []


@asynccontextmanager
async def listening(admin: Admin, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.StreamReader]:
    """The feed, for somebody who was let in."""
    async with admin.http.get(f"{admin.origin}/api/v1/events", headers=headers) as answer:
        assert answer.status == 200
        await answer.content.readuntil(b"event: rooms")
        yield answer.content


async def goes_on(feed: aiohttp.StreamReader) -> None:
    """Two frames more: before one of them at least it was asked whether they may be sent."""
    for _ in range(2):
        assert (await feed.readuntil(b"event: rooms")).endswith(b"event: rooms"), "the feed has ended"


@pytest.mark.parametrize("what", ["logout", "role", "password", "removed", "token"])
async def test_the_feed_ends_only_for_users_who_lose_access(store: LoginStore, tmp_path: Path, what: str) -> None:
    made = Made()
    async with Admin(settings_in(tmp_path, USERS), store, Diary(), made) as admin:
        await ends(admin, made, tmp_path, what)


async def ends(admin: Admin, made: Made, tmp_path: Path, what: str) -> None:
    file = AccountsFile(tmp_path)
    for name in ("emma", "fred"):
        file.add_user(User(name, Role.OPERATOR, QUICK.hash(WORDS)))
    emma, fred = await admin.cookie("emma"), await admin.cookie("fred")
    if what == "token":
        emma = {"Authorization": f"Bearer {file.add_token('emma', Role.VIEWER)}"}
    before = made.frames
    async with listening(admin, emma) as hers, listening(admin, fred) as his, asyncio.timeout(20):
        match what:
            case "logout":
                await admin.post("/logout", emma)
            case "role":
                file.change_user("emma", lambda user: dataclasses.replace(user, role=Role.VIEWER))
            case "password":
                file.change_user("emma", lambda user: dataclasses.replace(user, password_hash=QUICK.hash(WORDS)))
            case "removed":
                file.remove_user("emma")
            case "token":
                file.remove_token("emma")
        told = made.frames
        # Behind the first no more than what had been made, and one that was on its way.
        assert (await hers.read()).count(b"event: rooms") <= told - before
        await goes_on(his)


async def test_local_feeds_end_when_the_first_user_is_added(store: LoginStore, tmp_path: Path) -> None:
    made = Made()
    async with (
        Admin(settings_in(tmp_path), store, Diary(), made) as lone,
        listening(lone, {}) as feed,
        asyncio.timeout(20),
    ):
        AccountsFile(tmp_path).add_user(User("emma", Role.OPERATOR, QUICK.hash(WORDS)))
        told = made.frames
        assert (await feed.read()).count(b"event: rooms") <= told + 1


async def test_listeners_keep_listening_without_the_store(store: LoginStore, tmp_path: Path) -> None:
    async with Admin(settings_in(tmp_path, USERS), store, Diary()) as admin:
        cookie = await admin.cookie("ada")
    async with (
        Admin(settings_in(tmp_path, USERS), Gone(), Diary()) as cut_off,
        listening(cut_off, cookie) as feed,
        asyncio.timeout(20),
    ):
        await goes_on(feed)
