"""The role shop on every endpoint that the admin listener has: two are permitted, for the rooms of the token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from support.admin_app import Diary, Gone, settings_in
from waitroom.control.api.event_routes import EventApi
from waitroom.control.api.report_routes import ReportApi
from waitroom.control.api.routes import Api
from waitroom.control.api.sale_links import SaleLinkApi
from waitroom.control.app import make_app
from waitroom.control.auth.accounts import AccountsFile, Actor, Role
from waitroom.control.auth.login import Login
from waitroom.control.auth.middleware import PUBLIC_PATHS, Access
from waitroom.control.auth.passwords import PasswordChecker
from waitroom.control.auth.sale_links import SALE_PATHS
from waitroom.control.dashboard.feed import Feed
from waitroom.control.dashboard.sale import SalePages
from waitroom.control.monitoring.readiness import WorkerReports
from waitroom.control.rooms.event_reports import EventReports
from waitroom.control.worker import add_endpoints
from waitroom.shop_commands import ShopCommand

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PERMITTED = {
    ("POST", "/api/v1/rooms/{room}/sessions/{session}"): {"command": "hold=900"},
    ("POST", "/api/v1/rooms/{room}/stock"): {"remaining": 5},
}
# What stands for the parts of a path; "gone" is a room of the token that doesn't exist.
PARTS = {"{session}": "5a", "{event}": "sale", "{version}": "1", "{name}": "admin.css"}


class Commands:
    """Keeps what the endpoints were permitted to do."""

    def __init__(self) -> None:
        self.done: list[tuple[str, object, Actor]] = []

    async def command_session(self, room: str, session: int, command: ShopCommand, *, actor: Actor) -> None:
        self.done.append((room, (session, command), actor))

    async def report_stock(self, room: str, remaining: int, *, actor: Actor) -> None:
        self.done.append((room, remaining, actor))

    async def refuse_invalid(self, *_: object, **__: object) -> None:
        pass


class Listener:
    """The admin listener with all of its endpoints, of which only the shop's work."""

    def __init__(self, folder: Path) -> None:
        nothing: Any = None
        rooms: Any = {"sale", "vip", "other"}
        settings = settings_in(folder)
        self.diary, self.commands, self.passwords = Diary(), Commands(), PasswordChecker()
        access = Access(settings, Gone(), self.diary, "the local token")
        self.app = make_app(settings, [], access, WorkerReports())
        api = Api(rooms, nothing, self.commands, nothing, nothing, {})  # type: ignore[arg-type]
        apis = (api, EventApi(rooms, nothing, nothing), ReportApi(EventReports(dict.fromkeys(rooms, nothing), nothing)))
        sale = (SaleLinkApi(rooms, nothing, nothing), SalePages(nothing, nothing))
        login = Login(access, self.passwords)
        add_endpoints(self.app, access, login, (*apis, *sale), Feed(list), list, nothing, nothing)
        # What is added to a path of the shop's later isn't the shop's by that.
        self.app.router.add_get("/api/v1/rooms/{room}/stock", _answer)
        self.token = AccountsFile(folder).add_token("till", Role.SHOP, ["sale", "vip", "gone"])
        self.server = TestServer(self.app)

    @property
    def paths(self) -> set[str]:
        return {resource.canonical for resource in self.app.router.resources()}

    async def ask(self, method: str, path: str, token: str = "", **more: Any) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        url = self.server.make_url(path)
        async with self.http.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
            return answer.status, await answer.text()


@pytest_asyncio.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    listener = Listener(tmp_path)
    async with listener.server, aiohttp.ClientSession() as listener.http:
        yield listener
    listener.passwords.close()


async def _answer(_request: web.Request) -> web.Response:
    return web.Response()


def filled(path: str, room: str) -> str:
    for part, value in {**PARTS, "{room}": room}.items():
        path = path.replace(part, value)
    assert "{" not in path, f"{path}: add the part to PARTS"
    return path


async def test_a_shop_may_use_its_two_endpoints_and_no_others(listener: Listener) -> None:
    paths = listener.paths
    assert {path for _, path in PERMITTED} < paths
    assert {"/", "/logout", "/api/v1/me", "/api/v1/events", "/api/v1/rooms/{room}"} < paths
    assert {"/healthz", "/readyz", "/metrics", "/login"} == PUBLIC_PATHS, "what is added is open to everybody"
    assert paths > SALE_PATHS, "open to whoever has a link: see test_sale_links.py"
    for path in paths - PUBLIC_PATHS - SALE_PATHS:
        for method in METHODS:
            for room in ("sale", "other", "gone", "unknown"):
                body = PERMITTED.get((method, path))
                status, text = await listener.ask(method, filled(path, room), json=body)
                where = f"{method} {path} of {room}: {text}"
                if body is None or room in ("other", "unknown"):
                    assert status == 403, where
                else:
                    assert status == (204 if room == "sale" else 404), where
    assert sorted(room for room, _, _ in listener.commands.done) == ["sale", "sale"]
    assert {what for _, what, _ in listener.commands.done} == {5, (0x5A, ShopCommand("hold", 900))}
    (actor,) = {actor for _, _, actor in listener.commands.done}
    assert (actor.name, actor.role, actor.rooms) == ("token:till", Role.SHOP, ("gone", "sale", "vip"))
    assert listener.diary.last() == ("token:till", "request", "refused", "Insufficient role")


@pytest.mark.parametrize(
    "path",
    [
        *("/api/v1/nothing", "/api/v1/rooms/sale/sessions", "/api/v1/rooms/sale/sessions/5a/more"),
        *("/api/v1/rooms/sale/stock/", "/api/v1//rooms/sale/stock", "/api/v2/rooms/sale/stock"),
        *("/api/v1/rooms/sale%2Fstock", "/api/v1/rooms/other%2F..%2Fsale/stock", "/api/v1/rooms/SALE/stock"),
    ],
)
async def test_a_shop_learns_of_no_other_path(listener: Listener, path: str) -> None:
    assert (await listener.ask("POST", path, json={"remaining": 5}))[0] == 403
    assert listener.commands.done == []


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
async def test_other_roles_use_them_if_they_may_change_rooms(listener: Listener, tmp_path: Path, role: Role) -> None:
    token = AccountsFile(tmp_path).add_token("ci", role)
    for (method, path), body in PERMITTED.items():
        status, _ = await listener.ask(method, filled(path, "other"), token, json=body)
        assert status == (403 if role is Role.VIEWER else 204)


async def test_a_shop_sends_json_and_no_parameters(listener: Listener) -> None:
    path = "/api/v1/rooms/sale/stock"
    assert (await listener.ask("POST", path, data=b'{"remaining": 5}'))[0] == 415
    assert (await listener.ask("POST", path, data={"remaining": "5"}))[0] == 415
    assert (await listener.ask("POST", path))[0] == 415
    assert (await listener.ask("POST", f"{path}?remaining=5", json={"remaining": 5}))[0] == 422
    assert (await listener.ask("POST", path, json={"remaining": "x" * 20_000}))[0] == 413
    for body in ({}, {"remaining": -1}, {"remaining": 5, "sold_out": True}):
        assert (await listener.ask("POST", path, json=body))[0] == 422
    assert (await listener.ask("POST", "/api/v1/rooms/sale/sessions/XYZ", json={"command": "release"}))[0] == 422
    assert listener.commands.done == []


async def test_a_shop_s_token_needs_no_origin(listener: Listener) -> None:
    """No page can make a browser send it."""
    headers = {"Authorization": f"Bearer {listener.token}", "Origin": "https://shop.test"}
    url = listener.server.make_url("/api/v1/rooms/vip/stock")
    async with listener.http.post(url, headers=headers, json={"remaining": 1}) as answer:
        assert answer.status == 204
        assert answer.headers["Cache-Control"] == "no-store"
