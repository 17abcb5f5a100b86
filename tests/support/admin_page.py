"""Operators with a real browser, whose every complaint fails the test that they came for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, Response

from support.waiting_page import PATIENCE_MS

DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
# What a page is told as an answer to a change; anything else that fails is a mistake.
TOLD = frozenset({409, 412, 422})

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()

# The light that shows the feed's life never ends.
ENDED = """
Promise.all(document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime !== Infinity)
  .map((one) => one.finished.catch(() => null)))
"""

Operator = Callable[..., Awaitable[Page]]


@asynccontextmanager
async def operators(browser: Browser) -> AsyncIterator[Operator]:
    """Opens pages, each in a browser of its own. Errors, refused content and outside requests are complaints."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    async def come(address: str, *, events: bool = True, **options: Any) -> Page:
        context = await browser.new_context(**{"locale": "en-GB", "viewport": DESK, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        origin = "/".join(address.split("/")[:3])

        def answered(answer: Response) -> None:
            if answer.status >= 400 and answer.status not in TOLD:
                complaints.append(f"{answer.status} {answer.url}")

        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("request", lambda asked: asked.url.startswith(f"{origin}/") or complaints.append(asked.url))
        context.on("response", answered)
        # Also of what the policy refuses. Failed answers are judged above.
        context.on(
            "console",
            lambda said: (
                said.type in ("error", "warning")
                and "Failed to load resource" not in said.text
                and complaints.append(said.text)
            ),
        )
        if not events:
            await context.route("**/api/v1/events", lambda route: route.fulfill(status=204))
        page = await context.new_page()
        await page.goto(address)
        return page

    yield come
    for context in contexts:
        await context.close()
    assert not complaints, complaints


async def violations(page: Page) -> list[str]:
    """What axe has against the page as it stands."""
    # While something fades in, its colours aren't those that stay.
    await page.evaluate(ENDED)
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


async def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
