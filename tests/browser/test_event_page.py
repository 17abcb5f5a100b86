"""The page before, in and after an event, in a real browser: its countdown, and how it follows the phases."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Page, expect

from support.waiting_page import NOW, VALUES, Line, Open, asked, marked, poll
from waitroom.edge.pages.event_notice import EventNotice
from waitroom.edge.pages.messages import PLAN_MESSAGES, SCRIPT_MESSAGES, TEXTS, PageKind, PageText
from waitroom.edge.pages.times import rfc3339

pytestmark = pytest.mark.slow

OPENS = NOW + timedelta(hours=30)
STARTS = NOW + timedelta(hours=31)
NO_PLACE = replace(VALUES, position=None, eta=None, start_position=None, now_ms=int(NOW.timestamp() * 1000))


def event(phase: str = "scheduled", *, opens: datetime | None = OPENS, starts: datetime = STARTS) -> dict[str, Any]:
    return {
        "name": "redmi",
        "title": "Redmi 1s",
        "phase": phase,
        "prequeue_starts_at": None if opens is None else rfc3339(opens).decode(),
        "starts_at": rfc3339(starts).decode(),
        "ends_at": None,
    }


def notice(phase: str = "scheduled") -> EventNotice:
    if phase == "prequeue":
        return EventNotice("redmi prequeue queue", "Redmi 1s", "start_random", ms(STARTS), None, STARTS)
    return EventNotice("redmi scheduled queue", "Redmi 1s", "queue_random", ms(OPENS), OPENS, STARTS)


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def before_the_event(line: Line) -> None:
    line.kind = PageKind.CLOSED
    line.values = replace(NO_PLACE, text=PageText.SCHEDULED, notice=notice())
    line.now("closed", position=None, eta_seconds=None, event=event(), reopening="event")


def in_the_prequeue(line: Line) -> None:
    line.kind = PageKind.PREQUEUE
    line.values = replace(NO_PLACE, notice=notice("prequeue"))
    line.now("prequeue", position=None, eta_seconds=None, event=event("prequeue"), reopening=None)


async def seconds_left(page: Page) -> int:
    """The countdown below a day."""
    text = await page.locator(marked("countdown")).text_content() or ""
    total = 0
    for part in text.rpartition(" ")[2].split(":"):
        total = 60 * total + int(part)
    return total


async def load_again(page: Page) -> None:
    """Let time pass until the next poll, whose answer leads to another page."""
    await poll(page)
    async with page.expect_navigation():
        await page.clock.run_for(1)


@pytest.mark.parametrize("wrong", [timedelta(), timedelta(days=-400), timedelta(hours=7)])
async def test_the_countdown_follows_the_servers_clock(line: Line, visit: Open, wrong: timedelta) -> None:
    before_the_event(line)
    page = await visit(at=NOW + wrong, timezone_id="Asia/Jakarta")
    await page.clock.run_for(1000)
    await expect(page.locator(marked("countdown"))).to_contain_text("1 day 5:59:5")
    await expect(page.locator(marked("queue_opens"))).to_have_text("Saturday, November 28 at 11:42\u202fPM GMT+7")
    left = await seconds_left(page)
    await page.clock.run_for(60_000)
    assert left - await seconds_left(page) == 60
    line.now("closed", position=None, event=event(opens=NOW + timedelta(seconds=90)), reopening="event")
    await poll(page)
    assert await seconds_left(page) < 10, "the page has counted on, whatever a delayed reading of the clock says"
    await page.clock.run_for(20_000)
    await expect(page.locator(marked("countdown"))).to_have_text("any moment now")
    assert line.requests.count("GET /") == 1


async def test_it_joins_when_the_queue_opens_and_shows_the_position_after_the_start(line: Line, visit: Open) -> None:
    before_the_event(line)
    page = await visit()
    heading, section = page.get_by_role("heading", level=1), page.locator("[data-waitroom-if=event]")
    await expect(heading).to_have_text(TEXTS[PageText.SCHEDULED].heading)
    await expect(section).to_contain_text(PLAN_MESSAGES["queue_random"])
    await expect(page.get_by_text("Leave the queue")).to_be_hidden()
    await poll(page)
    assert line.requests.count("GET /") == 1, "nothing has changed"
    in_the_prequeue(line)
    line.now("unknown", event=event("prequeue"))
    await load_again(page)
    await expect(heading).to_have_text("You’re early")
    await expect(section).to_contain_text(PLAN_MESSAGES["start_random"])
    await expect(page.locator(marked("position"))).to_be_hidden()
    await expect(page.get_by_text("Leave the queue")).to_be_visible()
    in_the_prequeue(line)
    await poll(page)
    await expect(section).to_be_visible()
    line.now(position=812, position_reason="drawn", event=event("running"))
    await poll(page)
    await expect(section).to_be_hidden()
    await expect(page.locator(marked("position"))).to_have_text("812")
    await expect(page.locator(marked("message"))).to_have_text(SCRIPT_MESSAGES["drawn"])
    assert line.requests.count("GET /") == 2


async def test_it_loads_the_texts_of_another_event(line: Line, visit: Open) -> None:
    page = await visit()
    before_the_event(line)
    line.values = replace(line.values, text=PageText.SOLD_OUT)
    line.kind = PageKind.SOLD_OUT
    line.now("sold_out", position=None, event=event(), reopening="event")
    await load_again(page)
    await expect(page.get_by_role("heading", level=1)).to_have_text(TEXTS[PageText.SOLD_OUT].heading)
    await expect(page.locator(marked("event_title"))).to_have_text("Redmi 1s")
    await poll(page)
    assert line.requests.count("GET /") == 2
    line.now("sold_out", position=None, event=event("ended"), reopening=None)
    await poll(page)
    await expect(page.locator("[data-waitroom-if=event]")).to_be_hidden()


async def test_it_says_that_units_may_come_back(line: Line, visit: Open) -> None:
    page = await visit()
    heading, leave = page.get_by_role("heading", level=1), page.get_by_text("Leave the queue")
    line.now("sold_out", event=None, reopening="stock")
    await poll(page)
    await expect(heading).to_have_text(TEXTS[PageText.SOLD_OUT_FOR_NOW].heading)
    await expect(page.locator(marked("position"))).to_be_visible()
    await expect(leave).to_be_visible()
    line.now("sold_out", event=None, reopening=None)
    await poll(page)
    await expect(heading).to_have_text(TEXTS[PageText.SOLD_OUT].heading)
    await expect(leave).to_be_hidden()
    line.now("closed", event=event("ended"), reopening=None)
    await poll(page)
    await expect(heading).to_have_text(TEXTS[PageText.ENDED].heading)
    line.now(event=None)
    await poll(page)
    await expect(heading).to_have_text("You’re in the queue")


@pytest.mark.parametrize("scripted", [True, False])
async def test_who_will_hardly_get_anything_may_leave_with_a_click(line: Line, visit: Open, scripted: bool) -> None:
    line.values = replace(VALUES, likely_sold_out=not scripted)
    page = await visit(java_script_enabled=scripted)
    leave = page.get_by_role("button", name="Leave now")
    if scripted:
        await expect(leave).to_be_hidden()
        line.now(likely_sold_out=True)
        await poll(page)
        await expect(leave).to_be_visible()
        line.now(likely_sold_out=False)
        await poll(page)
        await expect(leave).to_be_hidden()
        line.now(likely_sold_out=True)
        await poll(page)
    await leave.click()
    await line.count("POST /.waitroom/leave", 1)
    await expect(page.get_by_role("heading", level=1)).to_have_text("You’ve left the queue")


async def test_a_countdown_without_a_script(line: Line, visit: Open) -> None:
    before_the_event(line)
    line.values = replace(line.values, now_ms=ms(OPENS) - 1000, poll_after=2)
    page = await visit(java_script_enabled=False)
    await expect(page.locator(marked("countdown"))).to_have_text("1 second")
    await expect(page.locator(marked("starts"))).to_have_text("Saturday, November 28, 2026, 5:42\u202fPM UTC")
    in_the_prequeue(line)
    await expect(page.get_by_role("heading", level=1)).to_have_text("You’re early")


async def test_it_is_never_asked_more_often_for_a_countdown(line: Line, visit: Open) -> None:
    before_the_event(line)
    line.values = replace(line.values, now_ms=ms(OPENS) + 1000)
    page = await visit()
    await page.clock.run_for(19_000)
    assert await asked(page) == 0, "the server says when"
