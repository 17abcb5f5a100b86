"""Links to the sale page: valid for one room until they expire or are revoked, and for nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from itsdangerous import URLSafeSerializer

from support.admin_app import LOCAL_TOKEN, USERS, Admin, Diary, Gone, settings_in
from support.room_views import OPEN
from waitroom.control.api.routes import Api
from waitroom.control.api.sale_links import SaleLinkApi
from waitroom.control.auth.accounts import Actor
from waitroom.control.auth.middleware import PUBLIC_PATHS
from waitroom.control.auth.sale_links import SALE_PATHS, SERIES_SECONDS, SaleLinks
from waitroom.control.dashboard import sale
from waitroom.control.dashboard.pages import add_dashboard
from waitroom.control.dashboard.sale import SalePages
from waitroom.control.dashboard.sale_presenter import sale_texts
from waitroom.control.rooms.presenter import Sold
from waitroom.errors import InvalidTokenError, StoreUnavailable

NEW, OLD = "the newest secret 0", "an older secret 0000"
NOON = 1_790_000_000.0
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PARTS = {"{room}": "shop", "{session}": "5a", "{version}": "1", "{name}": "admin.css", "{event}": "sale"}


class Keys:
    """The few commands of a store that links need."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.reads = 0
        self.up = True

    async def get(self, key: str) -> bytes | None:
        self.reads += 1
        self._check()
        return self.values.get(key)

    async def set(self, key: str, value: str, *, nx: bool = False) -> None:
        self._check()
        if not (nx and key in self.values):
            self.values[key] = value.encode()

    def _check(self) -> None:
        if not self.up:
            raise StoreUnavailable("gone")


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def links(keys: Keys, clock: Clock) -> SaleLinks:
    return links_of(keys, clock)


def links_of(keys: Any, clock: Clock, *secrets: str) -> SaleLinks:
    return SaleLinks(keys, secrets or (NEW, OLD), now=clock, monotonic=clock)


async def token_of(links: SaleLinks, room: str = "shop", hours: float = 1) -> str:
    path, _ = await links.create(room, hours)
    return path.rpartition("/")[2]


def forged(payload: object, secret: str = NEW, salt: str = "waitroom.sale-link.1") -> str:
    options = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
    return str(URLSafeSerializer(secret, salt=salt, signer_kwargs=options).dumps(payload))


async def refuses(links: SaleLinks, token: str, why: str, room: str = "shop") -> None:
    with pytest.raises(InvalidTokenError, match=why):
        await links.check(room, token)


async def test_a_link_is_valid_until_it_expires(links: SaleLinks, clock: Clock) -> None:
    path, ends_at = await links.create("shop", 1)
    token = path.removeprefix("/sale/shop/")
    assert ends_at == NOON + 3600
    clock.now += 3599.9
    await links.check("shop", token)
    clock.now += 0.1
    await refuses(links, token, "expired")


async def test_a_link_is_valid_for_its_room_only(links: SaleLinks) -> None:
    token = await token_of(links)
    await token_of(links, "vip")
    await refuses(links, token, "another room", "vip")


async def test_a_revoked_link_is_refused_everywhere_and_later_ones_are_valid(
    links: SaleLinks, keys: Keys, clock: Clock
) -> None:
    elsewhere = links_of(keys, clock)
    tokens = [await token_of(links), await token_of(elsewhere)]
    other = await token_of(links, "vip")
    for token in tokens:
        await elsewhere.check("shop", token)
    await links.revoke("shop")
    for token in tokens:
        await refuses(links, token, "revoked")
    clock.now += SERIES_SECONDS
    for token in tokens:
        await refuses(elsewhere, token, "revoked")
    await links.check("vip", other)
    await elsewhere.check("shop", await token_of(links))


async def test_a_store_that_has_lost_its_data_ends_all_links(links: SaleLinks, keys: Keys, clock: Clock) -> None:
    token = await token_of(links)
    keys.values.clear()
    clock.now += SERIES_SECONDS
    await refuses(links, token, "revoked")
    await refuses(links, forged(["shop", "", int(NOON) + 60]), "revoked")
    await token_of(links)
    await refuses(links, token, "revoked")


async def test_the_store_is_asked_once_a_second_and_its_last_reply_outlasts_it(
    links: SaleLinks, keys: Keys, clock: Clock
) -> None:
    token = await token_of(links)
    before = keys.reads
    for _ in range(10):
        await links.check("shop", token)
    assert keys.reads == before
    keys.up = False
    clock.now += SERIES_SECONDS
    await links.check("shop", token)
    with pytest.raises(StoreUnavailable):
        await links_of(keys, clock).check("shop", token)


async def test_links_of_an_older_secret_are_valid_and_of_unknown_ones_are_not(
    links: SaleLinks, keys: Keys, clock: Clock
) -> None:
    await links.check("shop", await token_of(links_of(keys, clock, OLD)))
    await refuses(links, await token_of(links_of(keys, clock, "somebody else's 0000")), "signature")


async def test_no_other_signed_value_is_a_link(links: SaleLinks, keys: Keys) -> None:
    token = await token_of(links)
    series = next(iter(keys.values.values())).decode()
    assert forged(["shop", series, int(NOON) + 3600]) == token, "the test forges what the code signs"
    await refuses(links, forged(["shop", series, int(NOON) + 60], salt="waitroom.admin-session.1"), "signature")
    await refuses(links, forged(["shop", series]), "format")
    for value in ("", "a", token[:-1], f"{token}A", f"{token}=", "x" * 2000, "ä" * 50):
        await refuses(links, value, "malformed|signature")


# On the listener.


class Audit:
    """Keeps what was recorded."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, dict[str, object]]] = []

    async def record(self, actor: Actor, action: str, *, room: str, new: dict[str, object], **_: object) -> None:
        self.entries.append((actor.name, f"{action} {room}", new))


class World:
    """The admin listener with its API, its dashboard and its sale pages."""

    def __init__(self, folder: Path, links: SaleLinks, keys: Keys, clock: Clock) -> None:
        self.links, self.keys, self.clock, self.rendered = links, keys, clock, 0
        self.rooms: dict[str, Any] = {"shop": OPEN}
        self.audit: Any = Audit()
        self.admin = Admin(settings_in(folder, USERS), Gone(), Diary(), lambda: [OPEN])
        nothing: Any = None
        rooms: Any = self.rooms
        Api(rooms, nothing, nothing, nothing, nothing, {}).add_to(self.admin.app)
        SaleLinkApi(rooms, links, self.audit).add_to(self.admin.app)
        SalePages(self.figures, links.check, clock).add_to(self.admin.app)
        add_dashboard(self.admin.app, lambda: [OPEN], nothing, nothing)

    def figures(self, room: str) -> dict[str, Any]:
        self.rendered += 1
        return sale_texts(self.rooms[room], Sold(1_880, "stock"), 700.0, self.clock())

    @property
    def paths(self) -> set[str]:
        return {resource.canonical for resource in self.admin.app.router.resources()}


@pytest_asyncio.fixture
async def world(links: SaleLinks, keys: Keys, clock: Clock, tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, links, keys, clock)
    async with world.admin:
        yield world


LOCAL = {"Authorization": f"Bearer {LOCAL_TOKEN}"}


async def made(world: World, **body: object) -> dict[str, Any]:
    answer = await world.admin.post("/api/v1/rooms/shop/sale-links", LOCAL, json=body)
    assert answer.status == 201, answer.text
    return dict(json.loads(answer.text))


async def test_the_page_shows_the_figures_and_nothing_else_of_the_room(world: World) -> None:
    link = await made(world)
    assert link["expires_at"] == "2026-09-28T14:13:20Z"
    answer = await world.admin.get(link["path"])
    assert answer.status == 200
    for shown in ("1,880", "1,200", "12 min", "58", "Healthy"):
        assert shown in answer.text
    assert "/static/" not in answer.text
    assert "<a " not in answer.text
    figures = json.loads((await world.admin.get(f"{link['path']}/figures")).text)
    assert set(figures) == {
        *("clock", "room", "state", "tone", "problem", "event", "event_phase", "event_tone", "step", "step_at"),
        *("sold", "sold_by", "left", "waiting", "wait", "wait_of", "admitted", "health", "health_note", "health_tone"),
    }


async def test_no_referrer_no_cache_no_frame_no_index(world: World) -> None:
    path = (await made(world))["path"]
    for where in (path, f"{path}/figures", "/sale/shop/x"):
        answer = await world.admin.get(where)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Robots-Tag"] == "noindex"
        assert "Set-Cookie" not in answer.headers
    policies = [(await world.admin.get(path)).headers["Content-Security-Policy"] for _ in range(2)]
    assert policies[0] != policies[1], "each page has a nonce of its own"
    assert "unsafe" not in policies[0]
    assert "frame-ancestors 'none'" in policies[0]


async def test_the_token_opens_nothing_else(world: World) -> None:
    """Neither on another path nor as a token, a cookie or a parameter."""
    path = (await made(world))["path"]
    token = path.rpartition("/")[2]
    assert {"/", "/rooms/{room}", "/api/v1/events", "/static/{version}/{name}", "/api/v1/audit"} < world.paths
    ways: list[tuple[dict[str, str], str]] = [
        ({"Authorization": f"Bearer {token}"}, ""),
        ({"Cookie": f"waitroom_admin={token}"}, ""),
        ({"Referer": f"{world.admin.origin}{path}"}, f"?t={token}&token={token}"),
    ]
    for each in world.paths - PUBLIC_PATHS:
        for method in METHODS:
            for headers, query in ways:
                where = each.replace("{token}", "x" if each in SALE_PATHS else token)
                for part, value in PARTS.items():
                    where = where.replace(part, value)
                assert "{" not in where, f"{where}: add the part to PARTS"
                answer = await world.admin.ask(method, where + query, {"Origin": world.admin.origin, **headers})
                if each in SALE_PATHS and method in ("GET", "HEAD"):
                    assert answer.status == 404, where
                else:
                    assert answer.status in (303, 401), f"{method} {where}: {answer.status}"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await world.admin.ask(method, path, {"Origin": world.admin.origin})).status == 303


@pytest.mark.parametrize("path", ["", "/", "//x", "/shop", "/shop/", "/shop/x/more", "/shop/x/figures/"])
async def test_nothing_beside_the_page_is_open(world: World, path: str) -> None:
    assert (await world.admin.get(f"/sale{path}")).status == 303


async def test_all_invalid_links_look_the_same(world: World) -> None:
    path = (await made(world, hours=1))["path"]
    token = path.rpartition("/")[2]
    unknown, strange = await world.admin.get(f"/sale/nowhere/{token}"), await world.admin.get("/sale/shop/x")
    world.clock.now += 3600
    expired = await world.admin.get(path)
    world.clock.now -= 3600
    assert (await world.admin.get(path)).status == 200
    revoked = await world.admin.ask("DELETE", "/api/v1/rooms/shop/sale-links", LOCAL)
    assert revoked.status == 204
    answers = [unknown, strange, expired, await world.admin.get(path)]
    assert [answer.status for answer in answers] == [404] * 4
    assert len({answer.text.replace(_nonce(answer.text), "") for answer in answers}) == 1
    assert "expired or was revoked" in answers[0].text
    assert (await world.admin.get(f"{path}/figures")).text == "{}"


def _nonce(text: str) -> str:
    return text.partition('nonce="')[2].partition('"')[0]


async def test_operators_make_and_revoke_links_and_viewers_do_not(world: World, tmp_path: Path) -> None:
    answer = await world.admin.post("/api/v1/rooms/shop/sale-links", json={})
    assert answer.status == 401
    for hours in (0, 2161, 1.5, "1", None):
        refused = await world.admin.post("/api/v1/rooms/shop/sale-links", LOCAL, json={"hours": hours})
        assert refused.status == 422, hours
    assert (await world.admin.post("/api/v1/rooms/nowhere/sale-links", LOCAL, json={})).status == 404
    assert (await world.admin.ask("POST", "/api/v1/rooms/shop/sale-links", LOCAL)).status == 201
    await world.admin.ask("DELETE", "/api/v1/rooms/shop/sale-links", LOCAL)
    assert [new["because"] for _, _, new in world.audit.entries if "because" in new] == [
        "hours: Must be an integer from 1 to 2,160."
    ] * 5
    entries = [entry for entry in world.audit.entries if "because" not in entry[2]]
    assert [(who, action, new["link"]) for who, action, new in entries] == [
        ("local", "sale_link shop", "created"),
        ("local", "sale_link shop", "all revoked"),
    ]
    assert "path" not in entries[0][2]


async def test_a_store_that_is_gone_is_no_reason_to_trust_a_link(world: World) -> None:
    path = (await made(world))["path"]
    assert (await world.admin.get(path)).status == 200
    world.keys.up = False
    world.clock.now += 2
    assert (await world.admin.get(path)).status == 200, "the series known last counts"
    world.links._series.clear()
    for where in (path, f"{path}/figures"):
        answer = await world.admin.get(where)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


async def test_watchers_cannot_use_up_the_gateway(world: World) -> None:
    path = (await made(world))["path"]
    most = int(sale.MAX_REQUESTS_PER_SECOND)
    statuses = [(await world.admin.get(f"{path}/figures")).status for _ in range(most + 1)]
    assert statuses == [200] * most + [503]
    assert world.rendered == 1
    world.clock.now += 1
    assert (await world.admin.get(f"{path}/figures")).status == 200
    assert world.rendered == 2
