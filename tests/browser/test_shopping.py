"""People with a real browser, before the whole gateway and the demo shop: they wait, are let in, and buy."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from support.gateway_process import SECRET, Gateway, eventually, running_gateway
from support.visitor_client import Visitor
from support.waiting_page import PATIENCE_MS
from waitroom.tokens import Ticket, Tokens

pytestmark = pytest.mark.slow

SHOP_SECONDS = 60.0


@dataclass
class Site:
    """The gateway before the demo shop."""

    gateway: Gateway
    stats: str

    @property
    def url(self) -> str:
        return self.gateway.url

    async def sold(self) -> int:
        async with self.gateway.http.get(self.stats) as answer:
            return (await answer.json())["orders"]


@asynccontextmanager
async def demo_shop(folder: Path) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "waitroom.drill.shop.app",
            "--port",
            "0",
            "--stock",
            "20",
            "--data",
            str(folder / "shop.db"),
        ),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SHOP_SECONDS):
            line = await process.stdout.readline()
        yield line.decode().strip().rpartition(" ")[2]
    finally:
        process.terminate()
        await process.communicate()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    async with demo_shop(folder) as shop:
        rooms = [{"name": "shop", "upstream": shop, "max_active": 1, "rate_per_minute": 600_000}]
        async with running_gateway(folder, rooms, workers=1) as gateway:
            yield Site(gateway, f"{shop}/stats")


@pytest_asyncio.fixture(loop_scope="session")
async def inside(site: Site) -> AsyncIterator[Visitor]:
    """Somebody who has the only slot, and has left in the end like all others."""
    visitor = Visitor(site.gateway, "shop")

    async def goes_in() -> bool:
        return (await visitor.navigate()).status == 200

    await eventually(goes_in)
    yield visitor
    if visitor.cookies:
        await visitor.call("leave")
    for key in ("waiting", "called", "active", "away"):
        for place in await site.gateway.members("shop", key):
            ticket = Tokens([SECRET], "shop").sign_ticket(Ticket(place, 0, 2_000_000_000, 1, 0))
            await Visitor(site.gateway, "shop", cookies={visitor.ticket_cookie: ticket}).call("leave")


Comes = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def comes(browser: Browser, site: Site) -> AsyncIterator[Comes]:
    """Opens the shop as a new visitor. What their browser complains of fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    async def open_page(**options: Any) -> Page:
        context = await browser.new_context(**{"locale": "en", **options})
        contexts.append(context)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        # That the waiting page comes with 503 is as it should be.
        context.on(
            "console", lambda said: said.type == "error" and "503" not in said.text and complaints.append(said.text)
        )
        context.on("request", lambda asked: asked.url.startswith(site.url) or complaints.append(asked.url))
        context.set_default_timeout(PATIENCE_MS)
        page = await context.new_page()
        await page.goto(site.url)
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert not complaints


async def ticket_of(page: Page) -> Ticket:
    (cookie,) = (one for one in await page.context.cookies() if one["name"] == "waitroom_ticket_shop")
    assert cookie["httpOnly"]
    assert cookie["path"] == "/"
    return Tokens([SECRET], "shop").read_ticket(cookie["value"].encode())


def position(page: Page) -> Any:
    return page.locator("[data-waitroom=position]")


async def buys(page: Page, site: Site) -> None:
    """From the product to the order; the shop releases the slot by it."""
    before = await site.sold()
    await page.get_by_role("button", name="Put it in the basket").click()
    await page.get_by_role("link", name="To the checkout").click()
    await page.get_by_label("Name").fill("Ada Visitor")
    await page.get_by_label("E-mail").fill("ada@example.com")
    await page.get_by_role("button", name="Order for").click()
    await expect(page.get_by_role("heading", name="Thank you, Ada Visitor.")).to_be_visible()
    assert await site.sold() == before + 1

    async def released() -> bool:
        return not await site.gateway.members("shop", "active")

    await eventually(released)
    cookies = {one["name"] for one in await page.context.cookies()}
    assert "waitroom_ticket_shop" not in cookies
    (kept,) = (one for one in await page.context.cookies() if one["name"] == "waitroom_pass_shop")
    assert kept["expires"] < time.time() + 31, "for the parts of the last page, and no longer"


async def test_a_visitor_waits_sees_progress_is_admitted_and_buys(site: Site, inside: Visitor, comes: Comes) -> None:
    ahead = Visitor(site.gateway, "shop")
    await ahead.waits()
    page = await comes()
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await expect(position(page)).to_have_text("2")
    place = (await ticket_of(page)).place

    await ahead.call("leave")
    await expect(position(page)).to_have_text("1")
    assert (await page.title()).startswith("1")
    assert (await ticket_of(page)).place == place
    await inside.call("leave")

    # Nobody touches anything: the page takes them in by itself.
    await expect(page.get_by_role("heading", name="Lumen One sees in the dark.")).to_be_visible()
    assert page.url == f"{site.url}/"
    assert list(await site.gateway.members("shop", "active")) == [place]
    await buys(page, site)


async def test_a_visitor_without_scripts_is_admitted_and_buys(site: Site, inside: Visitor, comes: Comes) -> None:
    page = await comes(java_script_enabled=False)
    await expect(position(page)).to_have_text("1")
    place = (await ticket_of(page)).place

    await inside.call("leave")

    await expect(page.get_by_role("heading", name="Lumen One sees in the dark.")).to_be_visible()
    assert list(await site.gateway.members("shop", "active")) == [place]
    await buys(page, site)


async def test_closing_the_tab_and_coming_back_keeps_the_place(site: Site, inside: Visitor, comes: Comes) -> None:
    page = await comes()
    ticket = await ticket_of(page)
    behind = Visitor(site.gateway, "shop")
    await behind.waits()
    joined = await site.gateway.total("shop")

    await page.close()
    back = await page.context.new_page()
    await back.goto(f"{site.url}/basket")

    await expect(position(back)).to_have_text("1")
    assert await ticket_of(back) == ticket
    assert await site.gateway.total("shop") == joined
    await inside.call("leave")
    await expect(back.locator("body[data-page]")).to_be_visible()
    assert back.url == f"{site.url}/basket"
    assert list(await site.gateway.members("shop", "active")) == [ticket.place]


async def test_two_tabs_of_one_visitor_share_a_place(site: Site, inside: Visitor, comes: Comes) -> None:
    page = await comes()
    joined = await site.gateway.total("shop")
    other = await page.context.new_page()
    await other.goto(site.url)
    await expect(position(other)).to_have_text("1")

    await inside.call("leave")

    for tab in (page, other):
        await expect(tab.get_by_role("heading", name="Lumen One sees in the dark.")).to_be_visible()
    assert await site.gateway.total("shop") == joined
    assert len(await site.gateway.members("shop", "active")) == 1


async def test_the_leave_button_gives_up_the_place(site: Site, inside: Visitor, comes: Comes) -> None:
    page = await comes()
    place = (await ticket_of(page)).place
    assert place in await site.gateway.members("shop", "waiting")

    await page.get_by_text("Leave the queue").click()
    await page.get_by_role("button", name="Give up my place").click()

    await expect(page.get_by_role("button", name="Give up my place")).to_have_count(0)
    assert place not in await site.gateway.members("shop", "waiting")
    assert not [one for one in await page.context.cookies() if one["name"].startswith("waitroom_")]
    assert not page.is_closed()


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "id", "hi"])
async def test_nothing_overflows_on_a_phone(site: Site, inside: Visitor, comes: Comes, language: str) -> None:
    page = await comes(locale=language, viewport={"width": 320, "height": 640}, is_mobile=True, has_touch=True)

    await expect(page.locator(f"html[lang|={language}]")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    await page.locator("summary").click()
    await expect(page.locator("details button")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
