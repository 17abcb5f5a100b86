"""A real browser for the tests in this folder, started once and shared.

All of them run on one event loop, the session's, since the browser's connection belongs to the loop it was made on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from support.gateway_process import needs
from support.waiting_page import COUNT, NOW, PATIENCE_MS, Line, Open, serve
from waitroom.edge.pages.renderer import Pages
from waitroom.settings import RoomSettings

expect.set_options(timeout=PATIENCE_MS)

HERE = Path(__file__).parent
# Rooms of a gateway under test are told apart by their hosts.
ARGUMENTS = ["--no-sandbox", "--host-resolver-rules=MAP *.test 127.0.0.1,MAP shop.example 127.0.0.1"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium without a window; each test takes a context of its own from it."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=needs("chromium"), args=ARGUMENTS)
        try:
            yield started
        finally:
            async with asyncio.timeout(30):
                await started.close()


@pytest_asyncio.fixture(loop_scope="session")
async def line() -> AsyncIterator[Line]:
    line = Line(Pages([RoomSettings(name="shop", upstream="http://127.0.0.1:3000")]))
    line.now()
    runner = await serve(line)
    yield line
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, line: Line) -> AsyncIterator[Open]:
    """Open the page as a visitor whose clock stands at ``NOW``, or at ``at``; at None it runs."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        (complaints if message.type == "error" else line.said).append(message.text)

    async def open_page(path: str = "/", *, at: datetime | None = NOW, script: str = "", **options: Any) -> Page:
        context = await browser.new_context(**{"locale": "en", "viewport": {"width": 360, "height": 740}, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        await context.add_init_script(COUNT + script)
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", listen)
        if at is not None and options.get("java_script_enabled", True):
            await page.clock.install(time=at)
            await page.clock.pause_at(at + timedelta(seconds=1))
        await page.goto(line.address + path)
        return page

    yield open_page
    async with asyncio.timeout(30):
        for context in contexts:
            await context.close()
    # A browser complains of every 503 and lost connection; of the page itself it must have nothing to say.
    assert [text for text in complaints if "Failed to load resource" not in text] == []
