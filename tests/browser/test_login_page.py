"""Logging in, in a real browser: what it sends by itself is what the listener asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from support.admin_app import USERS, WORDS, Admin, Diary, settings_in
from support.admin_page import violations
from support.fake_admin import no_events, no_past_events, room
from waitroom.control.auth.login_store import LoginStore
from waitroom.control.dashboard.pages import add_dashboard
from waitroom.store.connection import connect

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(loop_scope="session")
async def admin(valkey: str, tmp_path: Path) -> AsyncIterator[Admin]:
    async with (
        connect(valkey, timeout_seconds=10) as redis,
        Admin(settings_in(tmp_path, USERS), LoginStore(redis), Diary()) as admin,
    ):
        yield admin


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1200, "light")])
async def test_login_with_the_keyboard_returns_to_the_requested_page(
    browser: Browser, admin: Admin, width: int, scheme: str
) -> None:
    context = await browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        page = await context.new_page()
        await page.goto(f"{admin.origin}/thing?x=1")
        await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width

        await expect(page.get_by_label("Name")).to_be_focused()
        await page.keyboard.type("otto")
        await page.keyboard.press("Tab")
        await page.keyboard.type("incorrect horse")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("Wrong name, password or code.")
        await expect(page.get_by_label("Name")).to_have_value("otto")

        await expect(page.get_by_label("Password")).to_be_focused()
        await page.keyboard.type(WORDS)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{admin.origin}/thing?x=1")
        await expect(page.get_by_text('"name": "otto"')).to_be_visible()
        assert await page.evaluate("document.cookie") == ""
        change = "fetch('/api/v1/thing', {method: 'POST'}).then(answer => answer.status)"
        assert await page.evaluate(change) == 200
        await page.evaluate("fetch('/logout', {method: 'POST'})")
        assert await page.evaluate(change) == 401
    finally:
        await context.close()


async def test_a_form_from_another_page_is_refused(browser: Browser, admin: Admin) -> None:
    """It is on another port of the same host, to which the browser sends the cookie."""
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(f"{admin.origin}/login")
        await page.get_by_label("Name").fill("ada")
        await page.get_by_label("Password").fill(WORDS)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(f"{admin.origin}/")
        form = f'<form method="post" action="{admin.origin}/logout"><button>Win a prize</button></form>'
        await page.route("http://127.0.0.1:1/", lambda route: route.fulfill(body=form, content_type="text/html"))
        await page.goto("http://127.0.0.1:1/")
        await page.get_by_role("button", name="Win a prize").click()
        await expect(page.get_by_role("heading", name="Cross-site request")).to_be_visible()
        assert (await context.cookies())[0]["name"] == "waitroom_admin", "the cookie was there"
        assert admin.diary.last() == ("ada", "request", "refused", "Cross-site request")
    finally:
        await context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(browser: Browser, admin: Admin, scheme: str) -> None:
    context = await browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        page = await context.new_page()
        await page.goto(f"{admin.origin}/login")
        assert await violations(page) == []
        await page.get_by_label("Name").fill("otto")
        await page.get_by_label("Password").fill("incorrect horse")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        assert await violations(page) == []
    finally:
        await context.close()


async def test_the_dashboard_requires_a_login(browser: Browser, valkey: str, tmp_path: Path) -> None:
    rooms = [room()]
    async with connect(valkey, timeout_seconds=10) as redis:
        admin = Admin(settings_in(tmp_path, USERS), LoginStore(redis), Diary(), rooms=lambda: rooms)
        add_dashboard(admin.app, lambda: rooms, no_events, no_past_events)
        async with admin:
            context = await browser.new_context()
            try:
                page = await context.new_page()
                for name, may in (("vera", False), ("otto", True)):
                    await page.goto(f"{admin.origin}/rooms/tickets")
                    await page.get_by_label("Name").fill(name)
                    await page.get_by_label("Password").fill(WORDS)
                    await page.get_by_role("button", name="Log in").click()
                    await expect(page.locator("#link")).to_have_attribute("data-link", "live")
                    await expect(page.get_by_role("button", name="Pause…")).to_have_count(int(may))
                    if not may:
                        await page.get_by_role("button", name="Log out").click()
                        await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
                # Signed out in another tab: this one follows at once.
                other = await context.new_page()
                await other.goto(f"{admin.origin}/rooms/tickets")
                await other.get_by_role("button", name="Log out").click()
                await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
            finally:
                await context.close()
