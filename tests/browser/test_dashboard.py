"""Every control of the dashboard, before a whole gateway, through to what a visitor in the line sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from support.admin_page import DESK, PHONE, Operator, fits, operators, violations
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.server import Shop, running_shop
from support.visitor_client import Visitor
from support.waiting_page import PATIENCE_MS

pytestmark = pytest.mark.slow

SIZES = (PHONE, DESK)
NAMES = ("most", "pause", "drain", "close", "sold", "say", "admit", "end", "undo", "event")
ROOMS = [room(name, max_active=1) for name in NAMES]
FAST = {"autopilot_floor": 60_000, "autopilot_ceiling": 60_000}
ROOMS += [room("rate", rate_per_minute=0.01), room("pilot", rate_per_minute=0.01, **FAST), room("two")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop() -> AsyncIterator[Shop]:
    async with running_shop() as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    rooms = [{"upstream": shop.address, **one} for one in ROOMS]
    async with running_gateway(tmp_path_factory.mktemp("gateway"), rooms, workers=1) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def comes(browser: Browser) -> AsyncIterator[Operator]:
    async with operators(browser) as comes:
        yield comes


@pytest_asyncio.fixture(loop_scope="session")
async def shopping(browser: Browser) -> AsyncIterator[BrowserContext]:
    """The browser of a visitor."""
    context = await browser.new_context(locale="en")
    context.set_default_timeout(PATIENCE_MS)
    yield context
    await context.close()


async def at_desk(gateway: Gateway, comes: Operator, name: str, width: str = "desk") -> Page:
    """An operator before a room that a visitor has filled."""
    page = await comes(f"{gateway.admin}/rooms/{name}", viewport=DESK if width == "desk" else PHONE)
    await expect(page.locator("#link")).to_have_attribute("data-link", "live")
    return page


async def in_line(gateway: Gateway, shopping: BrowserContext, name: str) -> Page:
    """A visitor with a browser who waits."""
    page = await shopping.new_page()
    await page.goto(f"http://{name}.test:{gateway.port}/")
    await expect(page.locator("html")).to_have_attribute("data-state", "waiting")
    return page


async def fill(gateway: Gateway, name: str) -> Visitor:
    """Takes the only slot."""
    visitor = Visitor(gateway, name)
    await visitor.is_let_in()
    return visitor


def figure(page: Page, name: str) -> Locator:
    return page.locator(f"#page [data-f={name}]").first


async def is_in(page: Page) -> None:
    """The page comes to the shop by itself."""
    await expect(page.locator("body")).to_contain_text("The shop.")


async def goes_in(page: Page) -> None:
    """The visitor is let in; the page itself may ask again much later."""

    async def look() -> bool:
        await page.reload()
        return "The shop." in await page.locator("body").inner_text()

    await eventually(look)


async def state(page: Page, state: str) -> None:
    await expect(page.locator("html")).to_have_attribute("data-state", state)


async def press(page: Page, control: Locator) -> None:
    """Clicks it, once it could be clicked on a phone and at a desk: there, in view, and covered by nothing."""
    for size in SIZES:
        await page.set_viewport_size(size)
        await control.click(trial=True)
    await control.click()


async def write(page: Page, field: Locator, text: str) -> None:
    """Fills it, once it could be clicked on a phone and at a desk."""
    for size in SIZES:
        await page.set_viewport_size(size)
        await field.click(trial=True)
    await field.fill(text)


async def agree(page: Page, button: str, *, says: str = "") -> None:
    """Reads what the dialog says, and does it."""
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text(says)
    await press(page, dialog.get_by_role("button", name=button, exact=True))
    await expect(dialog).to_be_hidden()


async def test_raising_max_active_admits_the_next_visitor(
    gateway: Gateway, comes: Operator, shopping: BrowserContext
) -> None:
    name = "most"
    await fill(gateway, name)
    visitor = await in_line(gateway, shopping, name)
    page = await at_desk(gateway, comes, name)
    await expect(figure(page, "waiting")).to_have_text("1")
    await expect(figure(page, "says")).to_have_text(
        "Full: the next visitor is admitted when one leaves. 1 visitor waiting."
    )

    await write(page, page.get_by_label("Max active visitors"), "2")
    await expect(page.locator("#effect dd")).to_have_count(2)
    await write(page, page.get_by_label("Reason").first, "one more fits")
    await press(page, page.get_by_role("button", name="Apply"))

    await expect(figure(page, "limit")).to_have_text("2")
    await expect(figure(page, "change")).to_have_text("Max active 1 → 2")
    await is_in(visitor)
    await expect(figure(page, "active")).to_have_text("2")
    for size in SIZES:
        await page.set_viewport_size(size)
        assert await fits(page)


async def test_raising_the_rate_calls_waiting_visitors(
    gateway: Gateway, comes: Operator, shopping: BrowserContext
) -> None:
    name = "rate"
    await fill(gateway, name)
    visitor = await in_line(gateway, shopping, name)
    page = await at_desk(gateway, comes, name)

    await write(page, page.get_by_label("Rate, per minute"), "40")
    number = page.get_by_label("Rate per minute", exact=True)
    await expect(number).not_to_have_value("0.01")
    await write(page, number, "60000")
    await expect(page.get_by_role("button", name="Apply")).to_be_enabled()
    await press(page, page.get_by_role("button", name="Apply"))

    await expect(figure(page, "rate")).to_have_text("60,000")
    await is_in(visitor)


async def test_the_autopilot_takes_over_the_rate_and_returns_it(
    gateway: Gateway, comes: Operator, shopping: BrowserContext
) -> None:
    name = "pilot"
    await fill(gateway, name)
    visitor = await in_line(gateway, shopping, name)
    page = await at_desk(gateway, comes, name)
    switch = page.get_by_role("switch", name="Autopilot")
    await expect(switch).not_to_be_checked()

    await press(page, switch)

    await expect(switch).to_be_checked()
    await is_in(visitor)
    await expect(figure(page, "rate")).to_have_text("60,000")
    await press(page, switch)
    await expect(switch).not_to_be_checked()
    assert (await gateway.room(name))["autopilot"]["on"] is False


async def test_a_pause_stops_the_queue_until_resumed(
    gateway: Gateway, comes: Operator, shopping: BrowserContext
) -> None:
    name = "pause"
    inside = await fill(gateway, name)
    visitor = await in_line(gateway, shopping, name)
    page = await at_desk(gateway, comes, name)
    await expect(figure(page, "waiting")).to_have_text("1")

    await press(page, page.get_by_role("button", name="Pause…"))
    await agree(page, "Pause", says="1 visitor in the queue keep")

    await expect(figure(page, "state")).to_have_text("Paused")
    await state(visitor, "paused")
    await inside.call("leave")
    await expect(figure(page, "active")).to_have_text("0")
    await expect(figure(page, "waiting")).to_have_text("1")
    await press(page, page.get_by_role("button", name="Resume"))
    await goes_in(visitor)


async def test_a_room_is_drained(gateway: Gateway, comes: Operator, shopping: BrowserContext) -> None:
    name = "drain"
    inside = await fill(gateway, name)
    visitor = await in_line(gateway, shopping, name)
    page = await at_desk(gateway, comes, name)

    await press(page, page.get_by_role("button", name="Drain…"))
    await agree(page, "Drain", says="1 visitor in the shop may finish, and nobody is removed")

    await expect(figure(page, "state")).to_have_text("Draining")
    await state(visitor, "paused")
    assert (await inside.navigate()).status == 200
    await press(page, page.get_by_role("button", name="Resume"))
    await expect(figure(page, "state")).to_have_text("Open")


@pytest.mark.parametrize(
    ("name", "button", "yes", "shown"),
    [("close", "Close…", "Close the room", "closed"), ("sold", "Sold out…", "Mark as sold out", "sold_out")],
)
async def test_waiting_visitors_see_that_the_room_is_closed(
    gateway: Gateway,
    comes: Operator,
    shopping: BrowserContext,
    name: str,
    button: str,
    yes: str,
    shown: str,
) -> None:
    inside = await fill(gateway, name)
    visitor = await in_line(gateway, shopping, name)
    page = await at_desk(gateway, comes, name)
    await press(page, page.get_by_role("button", name=button))
    await write(page, page.get_by_role("dialog").get_by_label("Message to waiting visitors"), "Thank you for coming!")
    await agree(page, yes, says="1 visitor in the shop may finish")

    await state(visitor, shown)
    await expect(visitor.get_by_text("Thank you for coming!")).to_be_visible()
    assert (await inside.navigate()).status == 200
    await press(page, page.get_by_role("button", name="Reopen…"))
    await agree(page, "Reopen")
    await expect(figure(page, "state")).to_have_text("Open")


async def test_waiting_visitors_see_the_operators_message(
    gateway: Gateway, comes: Operator, shopping: BrowserContext
) -> None:
    name = "say"
    await fill(gateway, name)
    visitor = await in_line(gateway, shopping, name)
    page = await at_desk(gateway, comes, name)

    await write(page, page.locator("#message"), "More at <b>noon</b>")
    await press(page, page.get_by_role("button", name="Publish"))
    await expect(visitor.get_by_text("More at <b>noon</b>")).to_be_visible()
    await press(page, page.get_by_role("button", name="Clear"))
    await expect(visitor.get_by_text("More at <b>noon</b>")).to_be_hidden()
    await expect(page.get_by_role("button", name="Clear")).to_be_hidden()


async def test_one_ticket_is_admitted_ahead_of_the_queue(
    gateway: Gateway, comes: Operator, shopping: BrowserContext
) -> None:
    name = "admit"
    inside = await fill(gateway, name)
    ahead = Visitor(gateway, name)
    await ahead.waits()
    visitor = await in_line(gateway, shopping, name)
    (cookie,) = (one for one in await shopping.cookies() if one["name"] == f"waitroom_ticket_{name}")
    page = await at_desk(gateway, comes, name)
    await press(page, page.get_by_text("Single visitor"))

    await write(page, page.get_by_label("Ticket to admit now"), cookie["value"])
    await press(page, page.get_by_role("button", name="Admit", exact=True))
    await expect(page.get_by_role("status").filter(has_text="The room is full")).to_be_visible()

    # With the line paused, a slot that gets free is nobody's until an operator gives it.
    await press(page, page.get_by_role("button", name="Pause…"))
    await agree(page, "Pause")
    await inside.call("leave")
    await expect(figure(page, "active")).to_have_text("0")
    await press(page, page.get_by_role("button", name="Admit", exact=True))
    await goes_in(visitor)
    assert (await ahead.status())["state"] == "paused"


async def test_one_session_is_ended(gateway: Gateway, shop: Shop, comes: Operator, shopping: BrowserContext) -> None:
    name = "end"
    inside = await fill(gateway, name)
    session = shop.seen[-1].session
    assert session is not None
    visitor = await in_line(gateway, shopping, name)
    page = await at_desk(gateway, comes, name)
    await press(page, page.get_by_text("Single visitor"))

    await write(page, page.get_by_label("Session to end"), "fffffff")
    await press(page, page.get_by_role("button", name="End…"))
    await press(page, page.get_by_role("button", name="End session"))
    await expect(page.get_by_role("dialog")).to_contain_text("No active visitor has this session.")
    await press(page, page.get_by_role("button", name="Cancel"))

    await write(page, page.get_by_label("Session to end"), session)
    await press(page, page.get_by_role("button", name="End…"))
    await agree(page, "End session", says=f"Session {session} ends within a second.")
    await goes_in(visitor)

    async def is_out() -> bool:
        return (await inside.navigate()).status == 503

    await eventually(is_out)


async def test_the_last_change_is_undone(gateway: Gateway, comes: Operator, shopping: BrowserContext) -> None:
    name = "undo"
    await fill(gateway, name)
    visitor = await in_line(gateway, shopping, name)
    page = await at_desk(gateway, comes, name)
    await expect(page.get_by_role("button", name="Undo…")).to_be_hidden()
    await press(page, page.get_by_role("button", name="Close…"))
    await agree(page, "Close the room")
    await state(visitor, "closed")

    await press(page, page.get_by_role("button", name="Undo…"))
    await agree(page, "Undo", says="This reverts the last change: State open → closed (local")

    await expect(figure(page, "state")).to_have_text("Open")
    await expect(page.get_by_role("button", name="Undo…")).to_be_hidden()

    async def takes_newcomers() -> bool:
        return (await Visitor(gateway, name).navigate()).state == "waiting"

    await eventually(takes_newcomers)


async def test_changes_of_two_operators_are_never_merged(gateway: Gateway, comes: Operator) -> None:
    ada = await at_desk(gateway, comes, "two")
    ben = await comes(f"{gateway.admin}/rooms/two", events=False)
    await ben.get_by_label("Rate per minute", exact=True).fill("300")
    await expect(ben.get_by_role("button", name="Apply")).to_be_enabled()
    eve = await at_desk(gateway, comes, "two", "phone")

    await ada.get_by_label("Rate per minute", exact=True).fill("900")
    marked = asyncio.create_task(figure(eve, "rate").and_(eve.locator(".flash")).wait_for())  # for a while only
    await ada.get_by_role("button", name="Apply").click()
    await marked
    await expect(figure(eve, "rate")).to_have_text("900")
    await expect(eve.get_by_label("Rate per minute", exact=True)).to_have_value("900")

    await ben.get_by_role("button", name="Apply").click()
    note = ben.locator("#limits-stale")
    await expect(note).to_contain_text("rate_per_minute 600000 → 900. Your change was not made.")
    assert (await gateway.room("two"))["rate_per_minute"] == 900
    await note.get_by_role("button", name="Review").click()
    told = asyncio.create_task(ada.get_by_role("status").filter(has_text="900 → 300").wait_for())  # for a while only
    await ben.get_by_role("button", name="Apply").click()
    await told
    await expect(figure(ada, "rate")).to_have_text("300")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_on_the_overview(gateway: Gateway, comes: Operator, scheme: str) -> None:
    page = await comes(f"{gateway.admin}/", color_scheme=scheme, viewport=PHONE)
    await expect(page.locator("#link")).to_have_attribute("data-link", "live")
    await expect(page.get_by_role("heading", name="All rooms")).to_be_visible()
    assert await violations(page) == []
    assert await fits(page)


async def test_an_event_is_added_started_watched_and_ended(
    gateway: Gateway, comes: Operator, shopping: BrowserContext
) -> None:
    name = "event"
    page = await at_desk(gateway, comes, name)
    await press(page, page.get_by_role("button", name="Add event…"))
    dialog = page.get_by_role("dialog", name="Add an event")
    await write(page, dialog.get_by_label("Name"), "drop")
    await write(page, dialog.get_by_label("Title"), "The drop")
    await write(page, dialog.get_by_label("Start"), "2099-01-01T10:00:00")
    await write(page, dialog.get_by_label("Units"), "40")
    await agree(page, "Save", says="drop")
    await expect(figure(page, "says")).to_have_text("Closed by the schedule: visitors are told when it opens.")
    await expect(page.get_by_role("timer")).to_contain_text(" d ")
    visitor = await shopping.new_page()
    await visitor.goto(f"http://{name}.test:{gateway.port}/")
    await state(visitor, "closed")

    await press(page, page.get_by_role("button", name="Start now… The drop"))
    await agree(page, "Start now", says='The event "drop" starts now.')
    await expect(page.locator("#timeline [data-name=drop] .state")).to_have_text("Running")
    await expect(figure(page, "state")).to_have_text("Open")
    await goes_in(visitor)

    await press(page, page.get_by_role("button", name="Share a sale page…"))
    await press(page, page.get_by_role("button", name="Create a link"))
    link = await page.get_by_label("Link, valid until").input_value()
    watcher = await comes(link)
    await expect(watcher.get_by_role("heading")).to_have_text("The drop")
    await expect(watcher.locator("[data-f=left]")).to_have_text("40")
    await press(page, page.get_by_role("dialog").get_by_role("button", name="Close"))

    await press(page, page.get_by_role("button", name="End now… The drop"))
    await agree(page, "End now", says='The event "drop" ends now')
    await expect(page.locator("#past [data-name=drop] .state")).to_have_text("Ended")
    await expect(watcher.locator("[data-f=event_phase]")).to_have_text("Ended")
