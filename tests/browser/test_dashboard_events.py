"""A room's events on the dashboard, before rooms that are made up: shown to all, changed by operators."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from support.admin_page import DESK, PHONE, Operator, fits, operators, violations
from support.fake_admin import FakeAdmin, room, schedule, serving
from support.room_views import EVENT
from waitroom.control.auth.accounts import Role

pytestmark = pytest.mark.slow

BERLIN = {"timezone_id": "Europe/Berlin"}


@pytest_asyncio.fixture(loop_scope="session")
async def admin() -> AsyncIterator[FakeAdmin]:
    async with serving(FakeAdmin(rooms=[room(event=EVENT, events_version=1)], events=schedule())) as admin:
        yield admin


@pytest_asyncio.fixture(loop_scope="session")
async def comes(browser: Browser) -> AsyncIterator[Operator]:
    async with operators(browser) as comes:
        yield comes


def row(page: Page, name: str) -> Locator:
    return page.locator(f"#timeline [data-name={name}]")


async def press(page: Page, name: str, action: str) -> None:
    await row(page, name).locator(f"[data-event-action={action}]").click()


async def test_times_are_the_browsers_and_the_countdown_is_the_servers(admin: FakeAdmin, comes: Operator) -> None:
    """The browser's own clock is months away from the server's, which is an hour before the end."""
    page = await comes(admin.address, **BERLIN)
    await expect(page.get_by_role("timer")).to_have_text(re.compile(r"^in (01:00:00|59:5\d)$"))
    start = row(page, "redmi-1s").locator("time").nth(1)
    await expect(start).to_have_text("12 Dec 2026, 05:00")
    await expect(start).to_have_attribute("title", "2026-12-12 04:00:01 UTC")
    await page.get_by_text("Past events").click()
    await expect(row(page, "early").get_by_role("link", name="Report (CSV)")).to_be_visible()

    admin.events["events"][1] = ended = {**EVENT, "phase": "ended", "ended_at": "2026-12-12T05:00:00Z"}
    admin.change("the schedule", "event_phase running → ended", event=ended, events_version=2)

    await expect(page.locator("#next")).to_be_hidden()
    await expect(page.locator("#past [data-name=redmi-1s]")).to_be_visible()


async def test_an_event_ends_once_its_effect_was_read(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await press(page, "redmi-1s", "end")
    dialog = page.get_by_role("dialog", name="End Redmi 1s now?")
    await expect(dialog).to_contain_text("end redmi-1s: .A warning.")
    assert admin.calls == []
    await dialog.get_by_label("Reason").fill("sold out early")
    async with asyncio.TaskGroup() as tasks:  # the message goes away by itself
        tasks.create_task(expect(page.get_by_role("status").filter(has_text="Done")).to_be_visible())
        await dialog.get_by_role("button", name="End now").click()
    await expect(dialog).to_be_hidden()
    path = "/api/v1/rooms/tickets/events/redmi-1s/end"
    assert admin.calls == [("POST", path, {"note": "sold out early"}, '"7"')]


async def test_an_outdated_event_is_reviewed_before_it_starts(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, events=False)
    await press(page, "redmi-2", "start")
    start = page.get_by_role("button", name="Start now", exact=True)
    await expect(start).to_be_enabled()
    admin.change()
    await start.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("grace: max_active 2000 → 1500. Your change was not made.")
    await expect(start).to_be_disabled()
    await dialog.get_by_role("button", name="Review").click()
    await start.click()
    await expect(dialog).to_be_hidden()
    assert [call[3] for call in admin.calls] == ['"7"', '"8"']


async def test_extending_sets_a_new_end_in_utc(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, **BERLIN)
    await press(page, "redmi-1s", "extend")
    dialog = page.get_by_role("dialog", name="Extend Redmi 1s")
    await expect(dialog).to_contain_text("Europe/Berlin")
    await expect(dialog.get_by_label("End")).to_have_value("2026-12-12T07:30")
    await dialog.get_by_label("End").fill("2026-12-12T08:15")
    await expect(dialog).to_contain_text("set redmi-1s: end.")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_be_hidden()
    assert [call[2] for call in admin.calls] == [{"end": "2026-12-12T07:15:00Z"}]
    await expect(row(page, "redmi-1s")).to_contain_text("12 Dec 2026, 08:15")
    await expect(row(page, "redmi-1s").get_by_role("button", name="Extend…")).to_be_focused()


async def test_the_focus_survives_a_list_that_is_rendered_again(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    for number, action in enumerate(("extend", "end"), 2):
        await press(page, "redmi-1s", action)
        await expect(page.get_by_role("dialog")).to_be_visible()
        async with page.expect_response("**/timeline") as rendered:
            admin.change(events_version=number)
        await (await rendered.value).finished()
        await page.evaluate("fetch('/api/v1/rooms').then((answer) => answer.json())")  # what came before is shown
        await page.keyboard.press("Escape")
        await expect(row(page, "redmi-1s").locator(f"[data-event-action={action}]")).to_be_focused()


async def test_an_edit_sends_only_the_members_that_differ(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, **BERLIN)
    await press(page, "redmi-2", "edit")
    dialog = page.get_by_role("dialog", name="Edit redmi-2")
    save = dialog.get_by_role("button", name="Save")
    await expect(dialog).to_contain_text("Nothing is changed yet.")
    await expect(dialog.get_by_label("Rate")).to_have_value("auto")
    await dialog.get_by_label("Title").fill("Second window")
    await dialog.get_by_label("Prequeue opens").fill("2027-01-02T04:30:00")
    await dialog.get_by_label("Order of the prequeue").select_option("First come, first served")
    await dialog.get_by_label("Units").fill("800")
    await dialog.get_by_label("Rate").fill("")
    await dialog.get_by_label("Max active").fill("900")
    admin.change()  # by somebody else
    await expect(dialog).to_contain_text("Your change was not made.")
    await expect(save).to_be_disabled()
    await dialog.get_by_role("button", name="Review").click()
    await save.click()
    await expect(dialog).to_be_hidden()
    changed = {"title": "Second window", "prequeue_start": "2027-01-02T03:30:00Z", "method": "fifo", "units": 800}
    assert [call[2:] for call in admin.calls] == [({**changed, "rate_per_minute": None, "max_active": 900}, '"8"')]


async def test_members_that_can_no_longer_change_are_fixed(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await press(page, "redmi-1s", "edit")
    dialog = page.get_by_role("dialog")
    for label in ("Prequeue opens", "Start", "Order of the prequeue", "Room before it", "Units for sale"):
        await expect(dialog.get_by_label(label)).to_be_disabled()
    for label in ("Title", "End", "Room after it"):
        await expect(dialog.get_by_label(label)).to_be_enabled()


async def test_a_new_event_is_added_and_an_existing_one_is_not_overwritten(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, **BERLIN)
    await page.get_by_role("button", name="Add event…").click()
    dialog = page.get_by_role("dialog", name="Add an event")
    save = dialog.get_by_role("button", name="Save")
    await expect(dialog).to_contain_text("Enter a name and a start")
    await dialog.get_by_label("Start").fill("2027-02-01T10:00:00")
    await dialog.get_by_label("Name").fill("early")
    await expect(dialog).to_contain_text("There is an event of this name.")
    await expect(save).to_be_disabled()
    await dialog.get_by_label("Name").fill("winter")
    await save.click()
    await expect(dialog).to_be_hidden()
    path = "/api/v1/rooms/tickets/events/winter"
    assert admin.calls == [("PUT", path, {"start": "2027-02-01T09:00:00Z"}, '"7"')]
    await expect(row(page, "winter")).to_be_visible()


async def test_links_to_the_sale_page_are_made_copied_and_revoked(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, permissions=["clipboard-read", "clipboard-write"])
    await page.get_by_role("button", name="Share a sale page…").click()
    dialog = page.get_by_role("dialog", name="Share a sale page")
    await dialog.get_by_label("The link works for").select_option("1 day")
    await dialog.get_by_role("button", name="Create a link").click()
    link = f"{admin.address}/sale/tickets/a-token-of-24-hours"
    await expect(dialog.get_by_label("Link, valid until")).to_have_value(link)
    await dialog.get_by_role("button", name="Copy").click()
    await expect(dialog.get_by_role("status")).to_have_text("Link copied.")
    assert await page.evaluate("navigator.clipboard.readText()") == link
    await dialog.get_by_role("button", name="Revoke all links").click()
    await expect(dialog.get_by_role("status")).to_contain_text("revoked")
    assert admin.links == []


async def test_viewers_see_the_events_without_controls(admin: FakeAdmin, comes: Operator) -> None:
    admin.role = Role.VIEWER
    page = await comes(admin.address, **BERLIN)
    await expect(row(page, "redmi-1s")).to_contain_text("12 Dec 2026, 07:00")
    await expect(page.locator("#timeline button, #share, #add-event, dialog")).to_have_count(0)


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
async def test_axe_finds_nothing(admin: FakeAdmin, comes: Operator, viewport: dict[str, int], scheme: str) -> None:
    page = await comes(admin.address, viewport=viewport, color_scheme=scheme)
    await expect(page.get_by_role("timer")).to_contain_text("in ")
    await page.get_by_text("Past events").click()
    admin.events["events"][2]["phase"] = "prequeue"
    admin.change(events_version=2)
    await expect(row(page, "redmi-2")).to_contain_text("Prequeue")
    assert await violations(page) == []
    assert await fits(page)
    openers = [row(page, "redmi-1s").get_by_role("button", name=name) for name in ("Edit…", "Extend…", "End now…")]
    for opener in (*openers, page.get_by_role("button", name="Share a sale page…")):
        await opener.click()
        await expect(page.get_by_role("dialog")).to_be_visible()
        assert await violations(page) == []
        assert await fits(page)
        await page.keyboard.press("Escape")
        await expect(opener).to_be_focused()
