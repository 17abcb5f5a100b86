"""A buyer pays elsewhere while the room sells out, closes, restarts or loses its store: the order is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from support.admin_client import Operator
from support.ca import Authority
from support.gateway_process import Gateway, eventually, room, running_gateway
from support.redis_server import SystemRedis, system_redis
from support.upstreams.browser_shop import BrowserShop, Order, browser_shop, one_page, provider_page, served
from support.waiting_page import PATIENCE_MS

pytestmark = pytest.mark.slow

ROOMS = ("soldout", "closed", "restarted", "lost")
NAME = "DNS:*.test"


@dataclass
class Mall:
    gateway: Gateway
    shop: BrowserShop
    redis: SystemRedis

    def url(self, name: str) -> str:
        return f"https://{name}.test:{self.gateway.port}"

    async def told(self, name: str, state: str) -> None:
        """Waits until every worker has heard of it."""

        async def look() -> bool:
            for _ in range(12):
                url = f"https://127.0.0.1:{self.gateway.port}/.waitroom/status?room={name}"
                async with self.gateway.http.get(url, headers={"Host": f"{name}.test"}, ssl=False) as answer:
                    assert (await answer.json())["message"] == state
            return True

        await eventually(look)

    async def webhook(self, name: str, order: int) -> int:
        """The provider's own word, from a machine without cookies."""
        url = f"https://127.0.0.1:{self.gateway.port}/hooks/payment/{order}"
        async with self.gateway.http.post(url, headers={"Host": f"{name}.test"}, ssl=False, data=b"paid") as answer:
            return answer.status


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mall(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mall]:
    folder = tmp_path_factory.mktemp("mall")
    authority = Authority.make(folder / "ca")
    context = authority.server(NAME)
    certificate, key = folder / "ca" / f"{NAME}2.pem", folder / "ca" / f"{NAME}2.key"
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(browser_shop())
        redis = await stack.enter_async_context(system_redis(folder / "redis"))
        port = await stack.enter_async_context(served(one_page(provider_page), tls=context))
        shop.provider = f"https://pay.elsewhere.test:{port}"
        rule = {"paths": ["/hooks/payment"], "methods": ["POST"]}
        rooms = [room(name, upstream=shop.address, bypass=[rule]) for name in ROOMS]
        settings = {"workers": 2, "redis_url": redis.url, "tls_certificate": str(certificate), "tls_key": str(key)}
        gateway = await stack.enter_async_context(running_gateway(folder / "gateway", rooms, **settings))
        yield Mall(gateway, shop, redis)


async def changed(mall: Mall, name: str, state: str) -> None:
    operator = Operator(mall.gateway, name)
    await operator.look()
    assert (await operator.change(state=state, message=state)).status == 200
    await mall.told(name, state)


async def sells_out(mall: Mall) -> None:
    await changed(mall, "soldout", "sold_out")


async def closes(mall: Mall) -> None:
    await changed(mall, "closed", "closed")


async def restarts(mall: Mall) -> None:
    assert await mall.gateway.stop() == 0
    await mall.gateway.start()


async def loses_its_store(mall: Mall) -> None:
    await mall.redis.kill()

    async def lost() -> bool:
        return await mall.gateway.ready() == 503

    await eventually(lost)


async def at_the_provider(page: Page, mall: Mall, name: str) -> tuple[int, str]:
    """The buyer has gone to pay; gives the order's number and the buyer's session."""
    await page.goto(f"{mall.url(name)}/sale")
    await page.get_by_role("button", name="Buy").click()
    await expect(page.get_by_role("heading", name="Pay here")).to_be_visible()
    session = next(session for _, path, session in reversed(mall.shop.seen) if path == "/sale/buy")
    return int(page.url.partition("/pay/")[2].partition("?")[0]), session


async def pays(page: Page, way: str) -> None:
    """Comes back, by a form of another site or by a link."""
    if way == "POST":
        await page.get_by_role("button", name="Pay").click()
    else:
        await page.get_by_role("link", name="Back to the shop").click()
    await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()


@pytest.mark.parametrize(
    ("name", "happens"),
    [("soldout", sells_out), ("closed", closes), ("restarted", restarts), ("lost", loses_its_store)],
    ids=ROOMS,
)
async def test_the_order_is_placed(
    browser: Browser, mall: Mall, name: str, happens: Callable[[Mall], Awaitable[None]]
) -> None:
    async with AsyncExitStack() as stack:
        buyers: list[tuple[Page, str, int, str]] = []
        for way in ("POST", "GET"):
            context = await browser.new_context(locale="en", ignore_https_errors=True)
            stack.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            page = await context.new_page()
            buyers.append((page, way, *await at_the_provider(page, mall, name)))

        await happens(mall)

        for page, way, order, session in buyers:
            assert await mall.webhook(name, order) == 200
            await pays(page, way)
            assert mall.shop.orders[order] == Order(returned=True, paid=True)
            arrived = [(method, who) for method, path, who in mall.shop.seen if path == f"/sale/return/{order}"]
            assert arrived == [(way, session)], "the provider's own request, in the session that bought"
