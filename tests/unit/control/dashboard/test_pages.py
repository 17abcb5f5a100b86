"""The dashboard's pages as served: complete without scripts, nothing from elsewhere, static files cached."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from support.fake_admin import no_events, schedule
from support.room_views import CHANGE, EVENT, OPEN
from waitroom.control.auth.accounts import Actor, Role
from waitroom.control.auth.middleware import ACTOR
from waitroom.control.dashboard.pages import Assets, add_dashboard
from waitroom.control.rooms.changes import InvalidChangeError
from waitroom.control.rooms.event_report import EventReport
from waitroom.control.rooms.operations import Change, check
from waitroom.errors import StoreUnavailable
from waitroom.queue.schedule import Event, EventRecord, Phase

SHOP = {**OPEN, "upstream": "http://127.0.0.1:3000", "last_change": CHANGE}
NEVER_SEEN = {"name": "vinyl", "upstream": "http://127.0.0.1:3001", "store_up": False}


def put_actor(request: web.Request, actor: Actor) -> None:
    """Sets the actor as the access middleware does."""
    request[ACTOR] = actor


class Listener:
    """The client and the rooms."""

    def __init__(self) -> None:
        self.rooms: list[dict[str, Any]] = [SHOP, NEVER_SEEN]
        self.past: list[EventReport] | None = []
        self.actor: Actor | None = Actor("mia", Role.OPERATOR, "127.0.0.1", "dashboard")
        self.events: dict[str, Any] | None = {"version": 3, "events": [], "timeline": []}

    async def events_of(self, _room: str) -> dict[str, Any]:
        if self.events is None:
            raise StoreUnavailable("gone")
        return self.events

    async def past_events(self, _room: str) -> list[EventReport]:
        if self.past is None:
            raise StoreUnavailable("gone")
        return self.past


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest_asyncio.fixture
async def client(listener: Listener) -> AsyncIterator[TestClient[Any, Any]]:
    @web.middleware
    async def somebody(request: web.Request, handler: Any) -> web.StreamResponse:
        if listener.actor is not None:
            put_actor(request, listener.actor)
        return await handler(request)

    app = web.Application(middlewares=[somebody])
    add_dashboard(app, lambda: listener.rooms, listener.events_of, listener.past_events)
    async with TestClient(TestServer(app)) as client:
        yield client


async def page(client: TestClient[Any, Any], path: str, status: int = 200) -> str:
    async with client.get(path, allow_redirects=False) as answer:
        assert answer.status == status
        assert answer.headers["Cache-Control"] == "no-store"
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        return await answer.text()


async def test_the_overview_lists_all_rooms_even_those_without_a_view(client):
    text = await page(client, "/")
    for part in ("1,200", "15 to 25 min", "Rate 30 → 60", "vinyl", "Store unavailable"):
        assert part in text


@pytest.mark.parametrize("rate", [0, 0.001, 0.5, 600, 2_000_000, 10_000_000])
@pytest.mark.parametrize("most", [1, 10_000_000])
async def test_the_form_is_valid_with_every_value_of_a_room(client, listener, rate, most):
    """The rate is 0 while the autopilot holds. One invalid field would block changes of the other."""
    listener.rooms = [{**SHOP, "rate_per_minute": rate, "max_active": most}]
    text = await page(client, "/rooms/shop")
    pattern = r'<input type="number" .*?name="(.*?)" value="(.*?)" min="(.*?)" max="(.*?)" step="(.*?)"'
    fields = re.findall(pattern, text)
    assert [field[0] for field in fields] == ["rate_per_minute", "max_active"]
    for name, value, least, greatest, step in fields:
        assert float(least) <= float(value) <= float(greatest), name
        assert step == "any" or (float(value) - float(least)) % float(step) == 0
    for name, *_ in fields:
        with pytest.raises(InvalidChangeError):
            check(Change(**{name: 10_000_001}), "", None)


async def test_a_single_room_needs_no_overview(client, listener):
    listener.rooms = [SHOP]
    async with client.get("/", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "/rooms/shop")


async def test_a_room_s_page_is_complete_without_scripts(client):
    text = await page(client, "/rooms/shop")
    for part in ("1,200", "80 ms", "session expired", "2 of 2 alive", "ada", "14:12 UTC", 'http-equiv="refresh"'):
        assert part in text


async def test_a_room_without_a_view_has_a_page(client):
    assert "as soon as the store responds" in await page(client, "/rooms/vinyl")


async def test_an_unknown_room_gets_a_page(client):
    assert "Room not found" in await page(client, "/rooms/nowhere", 404)


@pytest.mark.parametrize(
    ("role", "may"), [(Role.VIEWER, False), (Role.OPERATOR, True), (Role.ADMIN, True), (None, False)]
)
async def test_only_operators_see_the_controls(client, listener, role, may):
    listener.actor = None if role is None else Actor("mia", role, "127.0.0.1", "dashboard")
    text = await page(client, "/rooms/shop")
    assert ("data-action" in text) is may
    assert ("controls.js" in text) is may


async def test_a_room_s_page_shows_its_events_without_scripts(client, listener):
    listener.events = schedule()
    listener.rooms = [{**SHOP, "event": EVENT}]
    text = await page(client, "/rooms/shop")
    for part in ("Redmi 1s", "Early birds", "Room open", "2026-12-12 06:00 UTC", "5,000 units", "report.csv"):
        assert part in text
    assert re.findall(r'data-event-action="(\w+)"', text) == ["extend", "edit", "end", "start", "edit", "cancel"]
    assert await page(client, "/rooms/shop/timeline") in text
    async with client.get("/rooms/nowhere/timeline") as answer:
        assert answer.status == 404


async def test_viewers_see_the_events_and_change_none(client, listener):
    listener.events = schedule()
    listener.actor = Actor("vera", Role.VIEWER, "127.0.0.1", "dashboard")
    for path in ("/rooms/shop", "/rooms/shop/timeline"):
        text = await page(client, path)
        assert "Redmi 1s" in text
        assert "data-event-action" not in text
        assert "<dialog" not in text


async def test_events_that_cannot_be_read_are_no_reason_to_show_no_page(client, listener):
    listener.events = None
    assert "Events unavailable" in await page(client, "/rooms/shop")
    listener.events = await no_events("shop")
    assert "No events." in await page(client, "/rooms/shop")


async def test_titles_and_names_of_events_are_escaped(client, listener):
    evil = """'"><img src=x onerror=alert(1)>"""
    listener.events = {"events": [{**EVENT, "title": evil}], "timeline": []}
    text = await page(client, "/rooms/shop/timeline")
    assert "<img" not in text
    (data,) = re.findall(r'data-event="(.*?)"', text)
    assert json.loads(html.unescape(data)) == {**EVENT, "title": evil}


async def test_displayed_texts_are_escaped(client, listener):
    evil = "</script><img src=x onerror=alert(1)>"
    listener.rooms = [{**SHOP, "message": evil, "last_change": {**CHANGE, "who": evil, "what": evil}}]
    text = await page(client, "/rooms/shop")
    assert "<img src=x" not in text
    assert text.count("</script>") == text.count("<script")


async def test_pages_have_no_inline_styles_or_scripts(client):
    for path in ("/", "/rooms/shop"):
        text = await page(client, path)
        assert " style=" not in text
        assert "<style" not in text
        assert not re.search(r"\son[a-z]+=", text)
        for opening in re.findall(r"<script[^>]*>", text):
            assert "src=" in opening or 'type="application/json"' in opening


async def test_static_files_are_cached_forever_by_version(client):
    text = await page(client, "/rooms/shop")
    addresses = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', text))
    assert len(addresses) >= 6
    for address in addresses:
        async with client.get(address) as answer:
            assert answer.status == 200
            assert "immutable" in answer.headers["Cache-Control"]
            kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[address.rpartition(".")[2]]
            assert answer.content_type == kind
    async with client.get(re.sub("/static/[0-9a-f]+/", "/static/000000000000/", addresses.pop())) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("name", ["nothing.js", "../room.html", "%2e%2e/room.html", "uplot"])
async def test_no_other_file_is_served(client, name):
    version = re.findall(r"/static/([0-9a-f]+)/", await page(client, "/"))[0]
    async with client.get(f"/static/{version}/{name}") as answer:
        assert answer.status == 404


async def test_the_charts_library_comes_with_its_licence(client):
    version = re.findall(r"/static/([0-9a-f]+)/", await page(client, "/"))[0]
    async with client.get(f"/static/{version}/uplot/LICENSE") as answer:
        assert "Leon Sorokin" in await answer.text()


def test_the_version_depends_on_the_contents(tmp_path: Path):
    (tmp_path / "a.js").write_text("1")
    first = Assets(tmp_path).version
    assert Assets(tmp_path).version == first
    (tmp_path / "a.js").write_text("2")
    assert Assets(tmp_path).version != first
    with pytest.raises(KeyError):
        Assets(tmp_path).url("b.js")


async def test_past_events_show_their_reports(client, listener):
    text = await page(client, "/rooms/shop")
    assert "Event reports" not in text
    record = EventRecord(
        Event("drop", "<b>The drop</b>", 1_790_000_000_000, units=300),
        *(Phase.ENDED, "file", False, None, 1_790_000_000_000, 1_790_003_600_000, {}, {"sold": 299}, {}),
    )
    listener.past = [EventReport.of("shop", record)]
    text = await page(client, "/rooms/shop")
    for part in (
        "Event reports",
        "&lt;b&gt;The drop&lt;/b&gt;",
        "2026-09-21 14:13 to 15:13 UTC",
        "<dt>Sold</dt><dd>299 of 300 (by stock)</dd>",
        '<a href="/api/v1/rooms/shop/events/drop/report.csv" download>',
        '<a href="/api/v1/rooms/shop/events/drop/samples.csv" download>',
    ):
        assert part in text
    listener.past = None
    assert "Event reports" not in await page(client, "/rooms/shop")
