"""The waiting page for everyone: without JavaScript, by keyboard, on the smallest phone, by night, without motion."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playwright.async_api import expect

from support.waiting_page import LANGUAGES, STATUS, VALUES, Line, Open, marked
from waitroom.edge.pages.messages import ROOM_MESSAGES
from waitroom.edge.pages.renderer import PageKind

pytestmark = pytest.mark.slow


async def test_without_javascript_the_page_refreshes_itself(line: Line, visit: Open) -> None:
    line.values = replace(VALUES, poll_after=1)
    page = await visit(java_script_enabled=False)
    await expect(page.locator("noscript p")).to_be_visible()
    await expect(page.get_by_role("progressbar")).to_be_visible()
    await expect(page.locator(marked("updated"))).to_have_text("10:42:05 UTC")
    line.kind = None
    await line.count("GET /", 2)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to the shop")
    assert STATUS not in line.requests


@pytest.mark.parametrize("scripted", [True, False])
async def test_the_queue_is_left_with_the_keyboard(line: Line, visit: Open, scripted: bool) -> None:
    page = await visit(java_script_enabled=scripted)
    leave = page.get_by_role("button", name="Give up my place")
    await expect(leave).to_be_hidden()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(leave).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(leave).to_be_focused()
    await page.keyboard.press("Enter")
    await line.count("POST /.waitroom/leave", 1)
    await expect(page.get_by_role("heading", level=1)).to_have_text("You’ve left the queue")


# A text's contrast with the nearest ground that is not see-through; a hidden text has no box.
CONTRASTS = """
() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const each of document.querySelectorAll("body *")) {
    const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !each.getClientRects().length || ["SCRIPT", "NOSCRIPT"].includes(each.tagName)) continue;
    let ground = each;
    while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const pair = [light(getComputedStyle(each).color), light(getComputedStyle(ground).backgroundColor)].sort();
    found.push([each.textContent.trim(), (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)]);
  }
  return found;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_readable_on_the_smallest_phone(line: Line, visit: Open, scheme: str) -> None:
    line.values = replace(VALUES, message="W" * 90, position=987_654, waiting=1_234_567, remaining=5)
    for code in LANGUAGES:
        page = await visit(locale=code, color_scheme=scheme, viewport={"width": 320, "height": 600})
        # German has the longest words of them all.
        for kind in ROOM_MESSAGES if code == "de" else (PageKind.WAITING,):
            line.kind = kind
            await page.goto(line.address)
            await expect(page.locator("html")).to_have_attribute("lang", code)
            for details in await page.locator("details").all():
                await details.evaluate("(details) => { details.open = true; }")
            assert await page.evaluate("document.documentElement.scrollWidth") == 320
            contrasts = await page.evaluate(CONTRASTS)
            assert len(contrasts) >= 4
            assert [text for text, contrast in contrasts if contrast < 4.5] == []


async def test_reduced_motion_is_respected(visit: Open) -> None:
    page = await visit(reduced_motion="reduce")
    moving = "[...document.querySelectorAll('*')].filter((e) => getComputedStyle(e).animationName !== 'none'"
    moving += " || getComputedStyle(e).transitionDuration !== '0s').length"
    assert await page.evaluate(moving) == 0
    page = await visit(reduced_motion="no-preference")
    assert await page.evaluate(moving) > 0
