"""Shops and neighbours for real browsers: one with a service worker, an app of another origin, a payment provider."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PASS_ON = "self.addEventListener('fetch', event => event.respondWith(fetch(event.request)));"
TAKE_OVER = "self.addEventListener('activate', event => event.waitUntil(clients.claim()));"


def html(body: str, head: str = "", **options: object) -> web.Response:
    """A page; cacheable unless headers say otherwise."""
    return web.Response(text=f"<!doctype html><title>A page</title>{head}{body}", content_type="text/html", **options)  # type: ignore[arg-type]


@dataclass
class Order:
    """What the shop knows of one."""

    returned: bool = False
    paid: bool = False


@dataclass
class BrowserShop:
    """A small shop that notes what it was asked, and by which session.

    Attributes:
        seen: Method, path and session of every request.
        orders: By number.
        provider: Where buyers pay.
    """

    address: str = ""
    provider: str = ""
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._note])
        app.add_routes(
            [
                web.get("/worker.js", self._worker),
                web.get("/with-worker", self._with_worker),
                web.get("/links", self._links),
                web.post("/sale/buy", self._buy),
                web.route("*", "/sale/return/{order}", self._returned),
                web.post("/hooks/payment/{order}", self._paid),
                web.route("*", "/api/{rest:.*}", self._api),
                web.route("*", "/{rest:.*}", self._page),
            ]
        )
        return app

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.seen.append((request.method, request.path, request.headers.get("Waitroom-Session", "")))
        return await handler(request)

    async def _worker(self, request: web.Request) -> web.Response:
        return web.Response(text=PASS_ON + TAKE_OVER, content_type="text/javascript")

    async def _with_worker(self, request: web.Request) -> web.Response:
        script = """<script>
            navigator.serviceWorker.register("/worker.js").then(() => navigator.serviceWorker.ready).then(() => {
              const done = () => document.body.dataset.ready = "yes";
              navigator.serviceWorker.controller ? done()
                : navigator.serviceWorker.addEventListener("controllerchange", done);
            });
        </script>"""
        return html(f"<h1>The shop</h1>{script}")

    async def _links(self, request: web.Request) -> web.Response:
        """An uncovered page whose links the browser fetches before anybody clicks: ``?prefetch``, ``?prerender`` …"""
        rules = '<script type="speculationrules">{"WAY": [{"urls": ["/sale/page"], "eagerness": "immediate"}]}</script>'
        ways = {
            "prefetch": '<link rel="prefetch" href="/sale/page">',
            "prefetch by rules": rules.replace("WAY", "prefetch"),
            "prerender by rules": rules.replace("WAY", "prerender"),
        }
        return html('<a href="/sale/page">To the sale</a>', ways[request.query["way"]])

    async def _page(self, request: web.Request) -> web.Response:
        return html(
            "<h1>The shop</h1><form method=post action=/sale/buy><button>Buy</button></form>",
            headers={"Cache-Control": "max-age=600"} if request.path == "/sale/page" else {"Cache-Control": "no-store"},
        )

    async def _api(self, request: web.Request) -> web.Response:
        allowed = {
            "Access-Control-Allow-Origin": request.headers.get("Origin", "*"),
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Allow-Methods": "GET, POST, PUT",
            "Access-Control-Allow-Headers": "content-type, x-requested-with",
        }
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=allowed)
        return web.json_response({"path": request.path}, headers=allowed)

    async def _buy(self, request: web.Request) -> web.Response:
        self.orders.append(Order())
        number = len(self.orders) - 1
        raise web.HTTPSeeOther(
            f"{self.provider}/pay/{number}?back={request.scheme}s://{request.host}/sale/return/{number}"
        )

    async def _returned(self, request: web.Request) -> web.Response:
        order = self.orders[int(request.match_info["order"])]
        # The provider's form says how the payment went; a link says nothing.
        order.returned = request.method == "GET" or (await request.post()).get("result") == "paid"
        return html("<h1>Thank you</h1>", headers={"Cache-Control": "no-store"})

    async def _paid(self, request: web.Request) -> web.Response:
        self.orders[int(request.match_info["order"])].paid = True
        return web.Response(text="ok")


async def provider_page(request: web.Request) -> web.Response:
    """Where the buyer is while the room changes: a form that posts back, and a link."""
    back = request.query["back"]
    return html(
        f'<h1>Pay here</h1><form method=post action="{back}"><input type=hidden name=result value=paid>'
        f'<button>Pay</button></form><a href="{back}">Back to the shop</a>'
    )


async def app_page(request: web.Request) -> web.Response:
    """A single-page app of another origin; ``ask(n)`` calls the shop's API so that the browser asks before."""
    return html(
        """<h1>The app</h1><script>
        const shop = new URLSearchParams(location.search).get("shop");
        async function ask(n) {
          const answer = await fetch(`${shop}/api/basket/${n}`, {
            method: "PUT", credentials: "include", body: "{}",
            headers: {"Content-Type": "application/json", "X-Requested-With": "app"},
          });
          return answer.status;
        }</script>"""
    )


@contextlib.asynccontextmanager
async def served(app: web.Application, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """An application on the loopback address; gives its port."""
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def browser_shop() -> AsyncIterator[BrowserShop]:
    """The shop, over plain HTTP behind the gateway."""
    shop = BrowserShop()
    async with served(shop.application()) as port:
        shop.address = f"http://127.0.0.1:{port}"
        yield shop


def one_page(page: Handler) -> web.Application:
    """A site with the same page everywhere."""
    app = web.Application()
    app.add_routes([web.route("*", "/{rest:.*}", page)])
    return app
