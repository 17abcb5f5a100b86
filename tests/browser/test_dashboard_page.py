"""The dashboard in a real browser, before rooms that are made up: what it shows, when, and to whom."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from support.admin_page import DESK, PHONE, Operator, fits, operators, violations
from support.fake_admin import FakeAdmin, decision, room, serving
from waitroom.control.auth.accounts import Role
from waitroom.wait_range import short_wait

pytestmark = pytest.mark.slow

WIDTHS = pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])


@pytest_asyncio.fixture(loop_scope="session")
async def admin() -> AsyncIterator[FakeAdmin]:
    async with serving(FakeAdmin()) as admin:
        yield admin


@pytest_asyncio.fixture(loop_scope="session")
async def comes(browser: Browser) -> AsyncIterator[Operator]:
    async with operators(browser) as comes:
        yield comes


def figure(page: Page, name: str) -> Any:
    return page.locator(f"#page [data-f={name}]").first


async def live(page: Page) -> None:
    await expect(page.locator("#link")).to_have_attribute("data-link", "live")


# What it shows.


async def test_script_and_server_round_waits_the_same_way(admin: FakeAdmin, comes: Operator) -> None:
    waits = [(0, 59), (0, 60), (60, 60), (240, 400), (601, 1201), (1080, 1460), (239, 1300), (3500, 7500)]
    waits += [(3600, 7200), (3600, 7201), (2400, 9000), (100, 9000), (10_800, 10_800), (36_000, 90_000)]
    page = await comes(admin.address)

    written = await page.evaluate(
        """async (ranges) => {
            const controls = document.querySelector("script[src$='controls.js']").src;
            const { waits } = await import(controls.replace("controls.js", "waits.js"));
            return ranges.map(waits);
        }""",
        [list(wait) for wait in waits],
    )

    assert written == [short_wait(low, high) for low, high in waits]


async def test_the_figures_are_shown_without_scripts(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, java_script_enabled=False)
    await expect(figure(page, "waiting")).to_have_text("12,431")
    await expect(figure(page, "newcomer")).to_have_text("15 to 25 min")
    await expect(page.locator("aside noscript p")).to_be_visible()


@WIDTHS
async def test_the_figures_update_without_moving_the_layout(
    admin: FakeAdmin, comes: Operator, viewport: dict[str, int]
) -> None:
    page = await comes(admin.address, viewport=viewport)
    await live(page)
    await expect(page.locator("#log li")).to_have_count(5)  # comes after the first figures
    where = "[...document.querySelectorAll('.tile, .card, h1, button')]"
    where += ".map((one) => JSON.stringify(one.getBoundingClientRect()))"
    before = await page.evaluate(where)
    admin.rooms[0] |= {"waiting": 99, "active": 3, "wait_seconds": {"newcomer": [10, 20]}, "called": 0}
    admin.feed.notify()
    await expect(figure(page, "waiting")).to_have_text("99")
    await expect(figure(page, "newcomer")).to_have_text("under 1 min")
    await expect(page).to_have_title("99 waiting · tickets · Waitroom")
    assert await page.evaluate(where) == before
    assert await fits(page)


async def test_the_charts_continue_where_the_history_ends(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    line = page.locator("[data-chart=line]")
    await expect(page.locator("figure canvas")).to_have_count(4)
    await expect(line.locator(".value")).to_have_text("12,431")
    admin.rooms[0]["waiting"] = 77
    admin.feed.notify()
    await expect(line.locator(".value")).to_have_text("77")
    await expect(line.get_by_role("img")).to_have_attribute("aria-label", re.compile("the last 60 minutes"))
    await page.get_by_role("button", name="6 hours").click()
    await expect(page.get_by_role("button", name="6 hours")).to_have_attribute("aria-pressed", "true")
    await expect(line.get_by_role("img")).to_have_attribute("aria-label", re.compile("the last 360 minutes"))


async def test_another_operators_change_appears_and_is_highlighted(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    # Both go by themselves.
    marked = asyncio.gather(
        figure(page, "limit").and_(page.locator(".flash")).wait_for(),
        page.get_by_role("status").get_by_text("grace: Max active 2000 → 1500", exact=True).wait_for(),
    )
    admin.change(max_active=1500)
    await marked
    await expect(figure(page, "limit")).to_have_text("1,500")
    await expect(page.get_by_label("Max active visitors")).to_have_value("1500")


async def test_the_controls_follow_the_autopilot(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    rate, most = page.get_by_label("Rate per minute"), page.get_by_label("Max active visitors")
    admin.rooms[0]["rate_per_minute"] = 640.0
    admin.feed.notify()
    await expect(rate).to_have_value("640")
    await most.fill("2500")
    await expect(page.get_by_role("button", name="Apply")).to_be_enabled()
    admin.rooms[0]["rate_per_minute"] = 655.0
    admin.feed.notify()
    await expect(rate).to_have_value("655")
    await expect(most).to_have_value("2500")
    await page.get_by_role("button", name="Apply").click()
    await expect(figure(page, "limit")).to_have_text("2,500")
    assert [call[2:] for call in admin.calls] == [({"max_active": 2500}, '"7"')]


async def test_a_lost_connection_is_shown_and_restored(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    await admin.feed.close()
    await expect(page.get_by_role("alert").filter(has_text="No connection")).to_be_visible()
    await expect(page.locator("#link-text")).to_have_text(re.compile("^[0-9]+ s old$"))
    await expect(page.locator("body[data-old]")).to_have_count(1)
    assert await violations(page) == []
    admin.feed._open = True
    await live(page)
    await expect(page.get_by_role("alert").filter(has_text="No connection")).to_be_hidden()


async def test_warnings_appear_and_disappear(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    admin.rooms[0]["store_up"] = False
    admin.feed.notify()
    await expect(page.get_by_text("Store unavailable: no admissions")).to_be_visible()
    assert await violations(page) == []
    admin.rooms[0]["store_up"] = True
    admin.feed.notify()
    await expect(page.get_by_text("Store unavailable: no admissions")).to_have_count(0)


async def test_a_room_that_opens_later_gets_its_page(admin: FakeAdmin, comes: Operator) -> None:
    whole = admin.rooms[0]
    admin.rooms[0] = {"name": "tickets", "upstream": "http://a", "store_up": False}
    page = await comes(admin.address)
    await expect(page.get_by_text("as soon as the store responds")).to_be_visible()
    await live(page)
    admin.rooms[0] = whole
    admin.feed.notify()
    await expect(figure(page, "waiting")).to_have_text("12,431")


async def test_viewers_see_everything_and_change_nothing(admin: FakeAdmin, comes: Operator) -> None:
    admin.role = Role.VIEWER
    page = await comes(admin.address)
    await live(page)
    await expect(figure(page, "waiting")).to_have_text("12,431")
    await expect(page.locator("input, textarea, [data-action]")).to_have_count(0)
    assert await violations(page) == []


async def test_operators_input_is_shown_as_plain_text(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    evil = "<img src=x onerror=alert(1)>"
    admin.change(who=evil, what=evil, message=evil)
    await expect(figure(page, "change")).to_have_text(evil)
    await expect(page.locator("img[src=x]")).to_have_count(0)


async def test_changes_by_the_shop_are_attributed_and_undo_names_the_author(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    shop = {"at": "2026-09-21T14:20:00Z", "who": "the shop", "what": "state open → sold_out", "undoable": False}
    admin.change(state="sold_out", last_change=shop, undo=admin.rooms[0]["undo"])
    await expect(page.get_by_role("status").filter(has_text="the shop: State open → sold_out")).to_be_visible()
    await expect(figure(page, "change_who")).to_have_text("the shop")
    await page.get_by_role("button", name="Undo…").click()
    await expect(page.get_by_role("dialog")).to_contain_text(
        "This reverts the last change by an operator: Rate 450 → 600 (ada, 14:12 UTC). Later changes are kept."
    )


async def test_the_autopilots_decisions_are_shown_on_request(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    rows = page.locator("#decisions li")
    await expect(rows).to_have_count(0)
    await page.get_by_text("Autopilot decisions").click()
    await expect(rows).to_have_count(20)
    await expect(rows.first).to_contain_text("610/min")
    await expect(rows.first.locator("time")).to_have_attribute("datetime", admin.decisions[0]["at"])

    admin.decisions.insert(0, decision(-1, 0.0, "hold"))
    admin.rooms[0]["autopilot"] = {**admin.rooms[0]["autopilot"], "at": admin.decisions[0]["at"]}
    admin.feed.notify()

    await expect(rows.first.locator("time")).to_have_attribute("datetime", admin.decisions[0]["at"])
    await expect(rows).to_have_count(20)


async def test_a_decision_made_before_the_feed_connects_is_listed(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, events=False)
    await page.get_by_text("Autopilot decisions").click()
    await expect(page.locator("#decisions li")).to_have_count(20)
    admin.decisions.insert(0, decision(-1, 0.0, "hold"))
    admin.rooms[0]["autopilot"] = {**admin.rooms[0]["autopilot"], "at": admin.decisions[0]["at"]}
    await page.context.unroute("**/api/v1/events")
    newest = page.locator("#decisions li").first.locator("time")
    await expect(newest).to_have_attribute("datetime", admin.decisions[0]["at"])


async def test_an_outdated_response_is_ignored(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, events=False)
    summary, rows = page.get_by_text("Autopilot decisions"), page.locator("#decisions li")
    first, held = asyncio.Event(), asyncio.Event()

    async def answer(route: Route) -> None:
        if first.is_set():
            await route.continue_()
        else:
            first.set()
            await held.wait()
            await route.fulfill(json={"decisions": []})

    await page.route("**/decisions?*", answer)
    await summary.click()
    await first.wait()
    await summary.click()
    await summary.click()
    await expect(rows).to_have_count(20)
    async with page.expect_response("**/decisions?*") as overtaken:
        held.set()
    await (await overtaken.value).finished()
    await page.evaluate("fetch('/api/v1/rooms').then((answer) => answer.json())")  # what came before has been shown
    assert await rows.count() == 20


async def test_an_autopilot_without_decisions_says_so(admin: FakeAdmin, comes: Operator) -> None:
    admin.decisions = []
    page = await comes(admin.address)
    await page.get_by_text("Autopilot decisions").click()
    await expect(page.get_by_text("No decisions yet.")).to_be_visible()


# Two at once.


async def test_an_open_dialog_shows_another_operators_change(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    await page.get_by_label("Rate per minute").fill("900")
    await expect(page.get_by_text("A newcomer would wait")).to_be_visible()
    admin.change(max_active=1500)
    note = page.locator("#limits-stale")
    await expect(note).to_contain_text("grace: max_active 2000 → 1500. Your change was not made.")
    await expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    assert await violations(page) == []
    await note.get_by_role("button", name="Review").click()
    await page.get_by_role("button", name="Apply").click()
    await expect(figure(page, "rate")).to_have_text("900")
    assert [call[2:] for call in admin.calls] == [({"rate_per_minute": 900}, '"8"')]


async def test_a_change_based_on_stale_values_is_refused_not_merged(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, events=False)
    await page.get_by_label("Rate per minute").fill("900")
    await expect(page.get_by_role("button", name="Apply")).to_be_enabled()
    admin.change(rate_per_minute=300.0, what="rate_per_minute 600 → 300")
    await page.get_by_role("button", name="Apply").click()
    note = page.locator("#limits-stale")
    await expect(note).to_contain_text("grace: rate_per_minute 600 → 300. Your change was not made.")
    assert admin.rooms[0]["rate_per_minute"] == 300.0
    await expect(page.get_by_label("Rate per minute")).to_have_value("900")
    await note.get_by_role("button", name="Review").click()
    await expect(page.get_by_text("A newcomer would wait")).to_be_visible()
    async with asyncio.TaskGroup() as tasks:  # the message goes away by itself
        tasks.create_task(expect(page.get_by_role("status").filter(has_text="Done")).to_be_visible())
        await page.get_by_role("button", name="Apply").click()
    assert admin.rooms[0]["rate_per_minute"] == 900
    assert [call[3] for call in admin.calls] == ['"7"', '"8"']


async def test_an_outdated_confirmation_is_asked_again(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, events=False)
    await page.get_by_role("button", name="Pause…").click()
    admin.change()
    await page.get_by_role("button", name="Pause", exact=True).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("grace: max_active 2000 → 1500. Your change was not made.")
    assert admin.rooms[0]["state"] == "open"
    assert await violations(page) == []
    await dialog.get_by_role("button", name="Review").click()
    await page.get_by_role("button", name="Pause", exact=True).click()
    await expect(dialog).to_be_hidden()
    assert admin.rooms[0]["state"] == "paused"


# For everyone.


async def test_the_rate_is_changed_with_the_keyboard_only(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    seen = []
    for _ in range(40):
        await page.keyboard.press("Tab")
        focus = await page.evaluate(
            "(() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.id || e.type, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]; })()"
        )
        assert focus[1], f"the focus on {focus[0]} can't be seen"
        seen.append(focus[0])
        if focus[0] == "range":
            break
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_label("Rate per minute")).to_have_value("800")
    await expect(page.get_by_text("A newcomer would wait")).to_be_visible()
    await expect(page.get_by_role("button", name="Apply")).to_be_enabled()
    await page.get_by_label("Reason").first.focus()
    await page.keyboard.type("the shop is well")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(figure(page, "rate")).to_have_text("800")
    assert admin.calls[0][2] == {"rate_per_minute": 800, "note": "the shop is well"}
    await expect(page.get_by_label("Rate per minute")).to_be_focused()


async def test_a_dialog_is_closed_with_the_keyboard_and_returns_the_focus(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address)
    await live(page)
    button = page.get_by_role("button", name="Close…")
    await button.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await expect(button).to_be_focused()
    assert admin.calls == []


async def test_reduced_motion_is_respected(admin: FakeAdmin, comes: Operator) -> None:
    page = await comes(admin.address, reduced_motion="reduce")
    await live(page)
    moving = "[...document.querySelectorAll('*')].filter((e) => getComputedStyle(e).animationName !== 'none'"
    moving += " || getComputedStyle(e).transitionDuration !== '0s').length"
    assert await page.evaluate(moving) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@WIDTHS
async def test_axe_finds_nothing(admin: FakeAdmin, comes: Operator, viewport: dict[str, int], scheme: str) -> None:
    page = await comes(admin.address, viewport=viewport, color_scheme=scheme)
    await live(page)
    for summary in await page.locator("main summary:visible").all():
        await summary.click()
    await expect(page.locator("#decisions li")).to_have_count(20)
    await page.get_by_label("Rate per minute").fill("1200")
    await expect(page.get_by_text("never had so many")).to_be_visible()
    assert await violations(page) == []
    assert await fits(page)
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Close…").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    assert await violations(page) == []
    await page.get_by_role("button", name="Cancel").click()
    admin.rooms[0] |= {"state": "paused", "autopilot": {**admin.rooms[0]["autopilot"], "on": True}}
    admin.feed.notify()
    await expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert await violations(page) == []
    many = {"store_up": False}, {"state": "closed"}, {"state": "sold_out"}, {"state": "paused", "draining": True}
    admin.rooms[1:] = [room(f"room-{number}", **values) for number, values in enumerate(many)]
    await page.goto(f"{admin.address}/")
    await live(page)
    assert await violations(page) == []
    assert await fits(page)
