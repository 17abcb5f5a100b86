"""What the waiting page's tests share: a gateway that answers as they say, and a hold on the page's time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from playwright.async_api import Page

from waitroom.edge.pages.i18n import Languages
from waitroom.edge.pages.renderer import PageKind, Pages, PageValues
from waitroom.resources import resource_path

LANGUAGES = Languages(resource_path("templates") / "locale").by_code
# On a busy machine a page may need much longer than what a browser is given otherwise.
PATIENCE_MS = 60_000
NOW = datetime(2026, 11, 27, 10, 42, 5, tzinfo=UTC)
VALUES = PageValues(
    position=1234,
    waiting=12345,
    eta=(240, 400),
    start_position=2000,
    poll_after=20,
    message="",
    updated_at=NOW,
    request_id="01JDK8Q2X4",
)


@dataclass
class Line:
    """A gateway with one visitor, whose every answer the test decides."""

    pages: Pages
    kind: PageKind | None = PageKind.WAITING
    values: PageValues = field(default_factory=lambda: VALUES)
    status: dict[str, Any] = field(default_factory=dict)
    status_code: int = 200
    status_body: str | None = None
    status_headers: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    address: str = ""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def now(self, state: str = "waiting", **changes: Any) -> None:
        """Set the next status."""
        self.status = {
            "room": "shop",
            "state": state,
            "position": 1000,
            "waiting": 11111,
            "eta_seconds": [200, 350],
            "poll_after": 20,
            "claim_by": None,
            "message": "",
            "remaining": None,
            "updated_at": NOW.isoformat(),
            **changes,
        }

    async def count(self, request: str, at_least: int) -> None:
        """Wait until so many of these requests, such as ``GET /``, have come."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: self.requests.count(request) >= at_least)

    async def noted(self, request: web.Request) -> None:
        async with self._changed:
            self.requests.append(f"{request.method} {request.path}")
            self._changed.notify_all()

    async def page(self, request: web.Request) -> web.Response:
        await self.noted(request)
        if self.kind is None:
            return web.Response(text="<h1>Welcome to the shop</h1>", content_type="text/html")
        language = self.pages.language(request.headers.get("Accept-Language", "").encode())
        body = self.pages.room_page("shop", self.kind, language, self.values)
        headers = {"Content-Security-Policy": self.pages.csp, "Cache-Control": "no-store"}
        return web.Response(status=503, body=body, content_type="text/html", charset="utf-8", headers=headers)

    async def answer(self, request: web.Request) -> web.Response:
        await self.noted(request)
        headers = {"Date": f"{NOW:%a, %d %b %Y %H:%M:%S} GMT", **self.status_headers}
        if self.status_body is not None:
            return web.Response(status=self.status_code, text=self.status_body, headers=headers)
        return web.json_response(self.status, status=self.status_code, headers=headers)

    async def more(self, request: web.Request) -> web.Response:
        assert request.query["more"] == "1"
        return await self.page(request)

    async def leave(self, request: web.Request) -> web.Response:
        await self.noted(request)
        assert request.query["room"] == "shop"
        return web.Response(body=self.pages.left_page("en", "01JDK8Q2X4"), content_type="text/html")


async def serve(line: Line) -> web.AppRunner:
    application = web.Application()
    application.router.add_get("/.waitroom/status", line.answer)
    application.router.add_post("/.waitroom/leave", line.leave)
    application.router.add_post("/.waitroom/claim", line.more)
    application.router.add_route("*", "/{path:.*}", line.page)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    line.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return runner


Open = Callable[..., Awaitable[Page]]

# What the page asked, and how often that came to an end that the page has dealt with.
COUNT = """
window.asked = window.answered = 0;
window.whenAnswered = (times) => new Promise((done) => {
  if (answered >= times) done();
  else addEventListener("answered", () => { if (answered >= times) done(); });
});
const send = XMLHttpRequest.prototype.send;
XMLHttpRequest.prototype.send = function (...all) {
  asked += 1;
  this.addEventListener("loadend", () => { answered += 1; dispatchEvent(new Event("answered")); });
  return send.apply(this, all);
};
"""


def marked(name: str) -> str:
    return f"[data-waitroom={name}]"


STATUS = "GET /.waitroom/status"


async def asked(page: Page) -> int:
    """Return how often the page has asked so far, answered or not."""
    count: int = await page.evaluate("asked")
    return count


async def poll(page: Page, seconds: float = 20) -> None:
    """Let time pass until the next poll, and let it be answered.

    The page schedules a poll when the one before has been answered, so that answer has to come before the time passes:
    the clock of the page also runs by itself, and may have started another poll meanwhile.
    """
    async with asyncio.timeout(60):
        before: int = await page.evaluate("whenAnswered(asked).then(() => asked)")
    await page.clock.run_for(int(seconds * 1000))
    async with asyncio.timeout(60):
        await page.evaluate("whenAnswered", before + 1)


async def hide(page: Page, *, hidden: bool) -> None:
    await page.evaluate(
        "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )
