"""What browsers do by themselves, before a whole gateway: service workers, prefetches, preflights, hidden tabs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, expect

from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.browser_shop import BrowserShop, app_page, browser_shop, one_page, served
from support.visitor_client import Visitor
from support.waiting_page import PATIENCE_MS

pytestmark = pytest.mark.slow

# A tab that nobody sees: its timers fire once a minute, and it says so.
HIDDEN = """
    Object.defineProperty(Document.prototype, "hidden", {get: () => true});
    Object.defineProperty(Document.prototype, "visibilityState", {get: () => "hidden"});
"""
MINUTE_MS = 60_000


@dataclass
class Site:
    gateway: Gateway
    shop: BrowserShop
    app: int

    def url(self, host: str) -> str:
        return f"http://{host}:{self.gateway.port}"

    async def counted(self, name: str) -> float:
        """How many requests a room has answered, whichever way."""
        metrics = await self.gateway.metrics_of(name)
        return sum(value for key, value in metrics.items() if key[0] == "waitroom_requests_total")

    async def fill(self, name: str, host: str) -> Visitor:
        """Takes the only slot of a room."""
        visitor = Visitor(self.gateway, name, host=host)
        await visitor.is_let_in("/sale")
        return visitor


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(browser_shop())
        app = await stack.enter_async_context(served(one_page(app_page)))
        rooms = [
            # Service workers and speculation rules need a secure context, which this machine's own names are.
            room("worker", upstream=shop.address, max_active=1) | {"hosts": ["localhost"]},
            room("quiet", upstream=shop.address, paths=["/sale"]) | {"hosts": ["127.0.0.1"]},
            room("app", upstream=shop.address, max_active=1),
            room("hidden", upstream=shop.address, max_active=1),
        ]
        folder = tmp_path_factory.mktemp("gateway")
        gateway = await stack.enter_async_context(running_gateway(folder, rooms, workers=2))
        yield Site(gateway, shop, app)


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(locale="en")
    context.set_default_timeout(PATIENCE_MS)
    yield context
    await context.close()


async def test_a_service_worker_forwards_the_waiting_page(site: Site, context: BrowserContext) -> None:
    page = await context.new_page()
    await page.goto(f"{site.url('localhost')}/with-worker")
    await expect(page.locator("body[data-ready=yes]")).to_be_attached()
    cookies = {one["name"]: one["value"] for one in await context.cookies()}
    await Visitor(site.gateway, "worker", host="localhost", cookies=cookies).call("leave")
    await context.clear_cookies()
    inside = await site.fill("worker", "localhost")
    joined = await site.gateway.total("worker")

    answer = await page.goto(f"{site.url('localhost')}/sale")

    assert answer is not None
    assert answer.from_service_worker
    assert await page.evaluate("navigator.serviceWorker.controller !== null")
    await expect(page.locator("[data-waitroom=position]")).to_have_text("1")
    await page.reload()
    await expect(page.locator("[data-waitroom=position]")).to_have_text("1")
    assert await site.gateway.total("worker") == joined + 1, "one place"

    await inside.call("leave")
    await expect(page.get_by_role("heading", name="The shop")).to_be_visible()
    assert await site.gateway.total("worker") == joined + 1
    assert "waitroom_pass_worker" in {one["name"] for one in await context.cookies()}


@pytest.mark.parametrize("way", ["prefetch", "prefetch by rules", "prerender by rules"])
async def test_a_prefetched_page_is_requested_again_on_click(site: Site, context: BrowserContext, way: str) -> None:
    page = await context.new_page()
    before = await site.counted("quiet")
    await page.goto(f"{site.url('127.0.0.1')}/links?way={way}")

    async def fetched_ahead() -> bool:
        return await site.counted("quiet") >= before + 2

    await eventually(fetched_ahead)
    assert not [one for one in await context.cookies() if one["name"].startswith("waitroom_")]

    await page.get_by_role("link", name="To the sale").click()

    await expect(page.get_by_role("heading", name="The shop")).to_be_visible()
    names = {one["name"] for one in await context.cookies()}
    assert "waitroom_pass_quiet" in names, "inside without a session"
    await page.get_by_role("heading", name="The shop").wait_for()
    answer = await page.request.post(f"{site.url('127.0.0.1')}/sale/basket", data="item=1")
    assert answer.status == 200


async def test_an_app_on_another_origin_works_in_a_full_room(site: Site, context: BrowserContext) -> None:
    page = await context.new_page()
    await page.goto(f"{site.url('app.test')}/sale")
    await expect(page.get_by_role("heading", name="The shop")).to_be_visible()
    await Visitor(site.gateway, "app").waits("/sale")
    await page.goto(f"http://app.test:{site.app}/?shop={site.url('app.test')}")
    site.shop.seen.clear()

    statuses = [await page.evaluate("n => ask(n)", number) for number in range(10)]
    together = await page.evaluate("Promise.all([...Array(10).keys()].map(n => ask(n)))")

    assert statuses + together == [200] * 20
    puts = [one for one in site.shop.seen if one[0] == "PUT"]
    assert len(puts) == 20
    assert len({session for _, _, session in puts} - {""}) == 1
    assert [one for one in site.shop.seen if one[0] == "OPTIONS"], "the browser asked before"


# Tells every state that the page learns, and an empty one where a poll failed.
TELLING = """
const send = XMLHttpRequest.prototype.send;
XMLHttpRequest.prototype.send = function () {
    this.addEventListener("loadend", () => window.toldState(this.status ? JSON.parse(this.responseText).state : ""));
    send.call(this);
};
"""


async def test_a_hidden_tab_is_admitted_with_one_timer_a_minute(site: Site, context: BrowserContext) -> None:
    """A real hidden tab can't be forced without a window, so the page's clock stands still and moves by a minute.

    `fast_forward` fires what has become due once, as a browser does in a tab that was hidden for five minutes. The
    shortest time for a claim is 90 s: what needs a second timer after the turn was told comes too late.
    """
    inside = await site.fill("hidden", "hidden.test")
    page = await context.new_page()
    # The page goes in as soon as it has the answer, and the browser then forgets the answer's body.
    states: asyncio.Queue[str] = asyncio.Queue()
    await page.expose_function("toldState", states.put_nowait)
    # Before the page's first poll: on a busy machine its own clock may get that far.
    await page.add_init_script(HIDDEN)
    await page.add_init_script(TELLING)
    await page.clock.install()
    await page.goto(f"{site.url('hidden.test')}/sale")
    await expect(page.locator("[data-waitroom=position]")).to_have_text("1")
    await page.clock.pause_at(await page.evaluate("Date.now() + 1000"))
    places = list(await site.gateway.members("hidden", "waiting"))
    await inside.call("leave")

    state = ""
    while state != "called":  # a worker may hear of the call half a second later
        await page.clock.fast_forward(MINUTE_MS)
        async with asyncio.timeout(60):
            state = await states.get()
        assert state in ("", "waiting", "called")

    await expect(page.get_by_role("heading", name="The shop")).to_be_visible(timeout=20_000)
    assert list(await site.gateway.members("hidden", "active")) == places
