"""The admin listener with users, in this process: for tests of who gets in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from argon2 import PasswordHasher

from waitroom.control.app import make_app
from waitroom.control.auth.accounts import Actor, Role
from waitroom.control.auth.login import Login
from waitroom.control.auth.login_store import LoginStore
from waitroom.control.auth.middleware import ACTOR, Access
from waitroom.control.auth.passwords import PasswordChecker
from waitroom.control.auth.session_cookie import COOKIE, DEVICE_COOKIE
from waitroom.control.dashboard.feed import Feed, Room, add_feed
from waitroom.control.monitoring.readiness import WorkerReports
from waitroom.errors import StoreUnavailable
from waitroom.settings import Settings, UserSettings

WORDS = "correct horse battery"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
TOTP = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
LOCAL_TOKEN = "the token of whoever is on this machine"
SECRETS = ("the newest secret 0", "an older secret 0000")
USERS = (
    UserSettings("vera", "viewer", QUICK.hash(WORDS)),
    UserSettings("otto", "operator", QUICK.hash(WORDS)),
    UserSettings("ada", "admin", QUICK.hash(WORDS)),
    UserSettings("tina", "operator", QUICK.hash(WORDS), TOTP),
)


@dataclass
class Entry:
    who: str
    role: Role
    address: str
    action: str
    outcome: str
    note: str
    new: Mapping[str, object]


@dataclass
class Diary:
    """An audit log that can be looked into, and can fail."""

    entries: list[Entry] = field(default_factory=list)
    lost: bool = False

    async def record(self, actor: Actor, action: str, **told: Any) -> None:
        if self.lost:
            raise StoreUnavailable("gone")
        self.entries.append(
            Entry(actor.name, actor.role, actor.address, action, told["outcome"], told["note"], told["new"])
        )

    def last(self) -> tuple[str, str, str, str]:
        one = self.entries[-1]
        return (one.who, one.action, one.outcome, one.note)


class Answer:
    def __init__(self, raw: aiohttp.ClientResponse, text: str) -> None:
        self.status, self.headers, self.text = raw.status, raw.headers, text
        set_cookies = [one for one in raw.headers.getall("Set-Cookie", []) if one.startswith(f"{COOKIE}=")]
        self.set_cookie = set_cookies[0] if set_cookies else None
        self.devices = [one for one in raw.headers.getall("Set-Cookie", []) if one.startswith(f"{DEVICE_COOKIE}=")]
        self.type = raw.content_type

    @property
    def cookie(self) -> dict[str, str]:
        assert self.set_cookie is not None
        return {"Cookie": self.set_cookie.partition(";")[0]}


class Admin:
    """One controller, and a client that keeps no cookies of its own."""

    def __init__(
        self, settings: Settings, store: LoginStore, diary: Diary, rooms: Callable[[], Sequence[Room]] = list
    ) -> None:
        self.now = 1_790_000_000.0
        self.diary, self.store = diary, store
        self.access = Access(settings, store, diary, LOCAL_TOKEN, now=lambda: self.now)
        self.passwords = PasswordChecker()
        self.app = make_app(settings, [], self.access, WorkerReports())
        Login(self.access, self.passwords).install(self.app)
        for path in ("/api/v1/thing", "/thing"):
            self.app.router.add_get(path, _who)
            self.app.router.add_post(path, _who)
        add_feed(self.app, Feed(rooms), self.access.still_allowed)
        self.server = TestServer(self.app)

    async def __aenter__(self) -> Admin:
        await self.server.start_server()
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        await self.server.close()
        self.passwords.close()

    @property
    def origin(self) -> str:
        return str(self.server.make_url("")).rstrip("/")

    async def ask(self, method: str, path: str, headers: Mapping[str, str] = {}, **more: Any) -> Answer:
        url = f"{self.origin}{path}"
        async with self.http.request(method, url, headers=headers, allow_redirects=False, **more) as raw:
            return Answer(raw, await raw.text())

    async def get(self, path: str, headers: Mapping[str, str] = {}) -> Answer:
        return await self.ask("GET", path, headers)

    async def post(self, path: str, headers: Mapping[str, str] = {}, **more: Any) -> Answer:
        return await self.ask("POST", path, {"Origin": self.origin, **headers}, **more)

    async def log_in(self, name: str, password: str = WORDS, headers: Mapping[str, str] = {}, **fields: str) -> Answer:
        return await self.post("/login", headers, data={"name": name, "password": password, **fields})

    async def cookie(self, name: str) -> dict[str, str]:
        answer = await self.log_in(name)
        assert answer.status == 303, answer.text
        return answer.cookie


async def _who(request: web.Request) -> web.Response:
    return web.json_response(dataclasses.asdict(request[ACTOR]))


def settings_in(folder: Path, users: tuple[UserSettings, ...] = (), **more: Any) -> Settings:
    # Nobody has to reach the public port here: whoever asks for /readyz learns that it isn't served.
    return Settings(
        rooms=(),
        data_dir=str(folder),
        secrets=SECRETS,
        users=users,
        listen="127.0.0.1:1",
        **{"admin_hosts": (), **more},
    )


class Gone(LoginStore):
    """A store that doesn't answer."""

    def __init__(self) -> None:
        pass

    async def attempt(self, name: str, address: str, device: str | None = None) -> float:
        raise StoreUnavailable("gone")

    async def ended(self, session: str) -> bool:
        raise StoreUnavailable("gone")

    async def end_session(self, session: str, seconds: float) -> None:
        raise StoreUnavailable("gone")
