"""A real browser, and a proxy that asks the gateway and serves the shop itself: Caddy, with the file in deploy/."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from support.gateway_process import Gateway, room, running_gateway
from support.proxies import HOST, Behind, Front, Proxies, running_proxies
from support.upstreams.server import Shop, response, running_shop
from support.waiting_page import PATIENCE_MS

pytestmark = pytest.mark.slow

PAGE = response(
    b"<!doctype html><title>Shop</title><h1>The shop</h1><form method=post action=/order><button>Buy</button></form>",
    "Content-Type: text/html",
    "Cache-Control: no-store",
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gateway, Proxies, Shop]]:
    folder = tmp_path_factory.mktemp("proxies")
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(running_shop())
        rooms = [room("shop", upstream=shop.address, max_active=1) | {"hosts": [HOST]}]
        gateway = await stack.enter_async_context(
            running_gateway(folder, rooms, workers=1, trusted_proxies=["127.0.0.1"])
        )
        proxies = await stack.enter_async_context(running_proxies(folder, gateway, shop))
        yield gateway, proxies, shop


async def test_a_visitor_waits_at_the_address_and_goes_in(
    place: tuple[Gateway, Proxies, Shop], browser: Browser
) -> None:
    gateway, proxies, shop = place
    proxy = await proxies.get(Front("caddy", "forward-auth"))
    shop.answers |= {"/sale": PAGE, "/order": PAGE}
    inside = Behind(gateway, "shop", host=HOST, http=proxies.http, proxy=proxy)
    await inside.is_let_in("/sale")

    context = await browser.new_context(locale="en", ignore_https_errors=True)
    context.set_default_timeout(PATIENCE_MS)
    try:
        page = await context.new_page()
        address = f"https://{HOST}:{proxy.port}/sale?size=L"
        answer = await page.goto(address)
        assert answer is not None
        assert answer.status == 429
        await expect(page.locator("[data-waitroom=position]")).to_have_text("1")
        assert page.url == address
        await inside.call("leave")
        await expect(page.get_by_role("heading", name="The shop")).to_be_visible()
        assert page.url == address
        await page.get_by_role("button", name="Buy").click()
        await expect(page).to_have_url(f"https://{HOST}:{proxy.port}/order")
        await expect(page.get_by_role("heading", name="The shop")).to_be_visible()
        order = shop.last("/order")
        assert (order.method, order.one("Cookie")) == ("POST", None)
        assert order.session is not None
        assert await gateway.total("shop") == 2, "a place for each visitor"
    finally:
        await context.close()
