"""The sale page in a real browser: live on a phone and at the wall, and alone without scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, expect

from support.admin_page import PHONE, Operator, fits, operators, violations
from support.fake_admin import EVENT_CLOCK, no_events, no_past_events, room
from support.room_views import EVENT
from waitroom.control.dashboard.pages import add_dashboard
from waitroom.control.dashboard.sale import SalePages
from waitroom.control.dashboard.sale_presenter import sale_texts
from waitroom.control.rooms.presenter import Sold
from waitroom.errors import InvalidTokenError

pytestmark = pytest.mark.slow

WALL = {"width": 1920, "height": 1080}


@dataclass
class Sale:
    """A listener with one sale page, whose figures a test changes as it likes."""

    room: dict[str, Any] = field(default_factory=lambda: room(event=EVENT))
    sold: int = 1880
    revoked: bool = False
    asked: list[str] = field(default_factory=list)
    address: str = ""

    async def check(self, _room: str, token: str) -> None:
        self.asked.append(token)
        if self.revoked:
            raise InvalidTokenError("revoked")

    def figures(self, _room: str) -> dict[str, Any]:
        return sale_texts(self.room, Sold(self.sold, "stock"), 700.0, EVENT_CLOCK)


@asynccontextmanager
async def serving(sale: Sale) -> AsyncIterator[Sale]:
    app = web.Application()
    add_dashboard(app, lambda: [sale.room], no_events, no_past_events)
    steps = iter(range(0, 10**9, 10))  # each request is served new figures
    SalePages(sale.figures, sale.check, lambda: float(next(steps))).add_to(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        sale.address = f"http://{host}:{port}/sale/tickets/token"
        yield sale
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="session")
async def sale() -> AsyncIterator[Sale]:
    async with serving(Sale()) as sale:
        yield sale


@pytest_asyncio.fixture(loop_scope="session")
async def comes(browser: Browser) -> AsyncIterator[Operator]:
    async with operators(browser) as comes:
        yield comes


def figure(page: Page, name: str) -> Any:
    return page.locator(f"[data-f={name}]")


@pytest.mark.parametrize(("viewport", "scheme"), [(PHONE, "light"), (WALL, "dark")], ids=["phone", "wall"])
async def test_the_figures_are_live(sale: Sale, comes: Operator, viewport: dict[str, int], scheme: str) -> None:
    page = await comes(sale.address, viewport=viewport, color_scheme=scheme, events=True)
    await expect(page.get_by_role("heading")).to_have_text("Redmi 1s")
    await expect(page.get_by_role("status")).to_have_text("Live")
    await expect(page.get_by_role("timer")).to_contain_text("in ")
    assert await violations(page) == []
    assert await fits(page)
    assert await page.evaluate("document.documentElement.scrollHeight <= innerHeight")

    sale.sold, sale.room = 5000, room(event={**EVENT, "phase": "ended"}, state="sold_out", remaining=0, store_up=False)

    await expect(figure(page, "sold")).to_have_text("5,000")
    await expect(figure(page, "left")).to_have_text("0")
    await expect(figure(page, "state")).to_have_text("Sold out")
    await expect(page.get_by_role("alert")).to_have_text("No admissions at the moment; all visitors keep their places.")
    await expect(page.get_by_role("timer")).to_have_text("")
    assert await violations(page) == []
    assert await fits(page)


async def test_a_revoked_link_shows_nothing_any_more(sale: Sale, browser: Browser) -> None:
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(sale.address)
        await expect(page.get_by_role("status")).to_have_text("Live")
        sale.revoked = True
        await expect(page.get_by_role("heading")).to_have_text("This link isn't valid")
        assert "1,880" not in await page.content()
        assert await violations(page) == []
    finally:
        await context.close()


async def test_the_page_needs_no_scripts_and_then_refreshes_itself(sale: Sale, comes: Operator) -> None:
    refreshes = "meta[http-equiv=refresh]"
    page = await comes(sale.address, java_script_enabled=False)
    await expect(figure(page, "sold")).to_have_text("1,880")
    await expect(page.get_by_role("timer")).to_have_text("2026-12-12 06:00 UTC")
    await expect(page.locator(refreshes)).to_have_count(1)
    await expect((await comes(sale.address)).locator(refreshes)).to_have_count(0)
