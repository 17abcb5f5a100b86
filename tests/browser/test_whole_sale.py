"""A whole sale in a real browser, on a phone and without JavaScript: countdown, prequeue, start, sold out, a unit back.

The gateway and its store have a clock of their own, which the test sets from one phase to the next.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from support.faketime import FakeClock, fake_clock
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.server import Shop, response, running_shop
from support.waiting_page import PATIENCE_MS
from waitroom.edge.pages.messages import TEXTS, PageText

pytestmark = pytest.mark.slow

HTML = ("Content-Type: text/html", "Cache-Control: no-store")
PAGE = response(
    b"<!doctype html><title>Shop</title><h1>The shop</h1><form method=post action=/order><button>Buy</button></form>",
    *HTML,
)
BOUGHT = response(
    b"<!doctype html><title>Thank you</title><h1>Thank you</h1>", *HTML, "Waitroom-Command: remaining=0, release"
)


def in_hours(hours: float) -> str:
    return datetime.fromtimestamp(time.time() + hours * 3600, UTC).isoformat(timespec="seconds")


@asynccontextmanager
async def sale(folder: Path) -> AsyncIterator[tuple[Gateway, FakeClock, Shop]]:
    event = {
        "name": "drop",
        "title": "The drop",
        "prequeue_start": in_hours(1),
        "start": in_hours(2),
        "method": "random",
        "units": 1,
    }
    clock = fake_clock(folder)
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(running_shop())
        shop.answers |= {"/": PAGE, "/order": BOUGHT}
        rooms = [room("sale", upstream=shop.address, max_active=1, events=[event])]
        gateway = await stack.enter_async_context(
            running_gateway(folder / "gateway", rooms, workers=1, environment=clock.environment)
        )
        yield gateway, clock, shop


def heading(page: Page) -> Callable[[], Awaitable[str]]:
    async def read() -> str:
        await page.reload()
        return await page.get_by_role("heading", level=1).inner_text()

    return read


async def comes_to(page: Page, text: str) -> None:
    """Reloads until the page has a heading: it doesn't know that the clock was set."""
    read = heading(page)

    async def there() -> bool:
        return await read() == text

    await eventually(there)


async def test_a_sale_from_the_countdown_to_the_last_unit(tmp_path: Path, browser: Browser) -> None:
    async with AsyncExitStack() as stack:
        gateway, clock, shop = await stack.enter_async_context(sale(tmp_path))
        pages = []
        for scripted in (True, False):
            context = await browser.new_context(
                locale="en", viewport={"width": 360, "height": 740}, java_script_enabled=scripted
            )
            stack.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            page = await context.new_page()
            await page.goto(f"http://sale.test:{gateway.port}/")
            pages.append(page)

        for page in pages:
            await comes_to(page, TEXTS[PageText.SCHEDULED].heading)
            await expect(page.get_by_text("The drop")).to_be_visible()
            await expect(page.locator("[data-waitroom=starts]")).to_be_visible()
        await expect(pages[0].locator("[data-waitroom=countdown]")).to_be_visible()
        assert await gateway.total("sale") == 0, "a countdown takes no place"

        clock.set(1)
        for page in pages:
            await comes_to(page, TEXTS[PageText.PREQUEUE].heading)
            await expect(page.locator("[data-waitroom=position]")).to_be_hidden()
        assert await gateway.total("sale") == 2

        clock.set(2)
        in_shop: list[Page] = []

        async def somebody_is_in() -> bool:
            for page in pages:
                if await heading(page)() == "The shop":
                    in_shop.append(page)
            return bool(in_shop)

        await eventually(somebody_is_in)
        [first] = in_shop
        [second] = [page for page in pages if page is not first]
        await comes_to(second, "You’re in the queue")
        await expect(second.locator("[data-waitroom=position]")).to_have_text("1")
        await expect(second.locator("[data-waitroom=remaining]")).to_have_text("1")

        await first.get_by_role("button", name="Buy").click()
        await expect(first.get_by_role("heading", name="Thank you")).to_be_visible()
        await comes_to(second, TEXTS[PageText.SOLD_OUT_FOR_NOW].heading)
        late = await (await browser.new_context(locale="en")).new_page()
        stack.push_async_callback(late.context.close)
        await late.goto(f"http://sale.test:{gateway.port}/")
        await expect(late.get_by_role("heading", level=1)).to_have_text(TEXTS[PageText.SOLD_OUT_FOR_NOW].heading)
        assert await gateway.total("sale") == 2

        stock = f"{gateway.admin}/api/v1/rooms/sale/stock"
        async with gateway.http.post(stock, json={"remaining": 1}) as answer:
            assert answer.status == 204
        await comes_to(second, "The shop")
        await second.get_by_role("button", name="Buy").click()
        await expect(second.get_by_role("heading", name="Thank you")).to_be_visible()
        assert [one.method for one in shop.seen if one.path == "/order"] == ["POST", "POST"]
        assert await gateway.total("sale", "sold") == 2
        assert await gateway.total("sale", "units_returned") == 1
