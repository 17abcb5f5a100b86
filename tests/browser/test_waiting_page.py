"""The waiting page in a real browser: how it polls, goes on, and bears what goes wrong.

Time is the browser's own fake clock, so a minute of waiting takes no time.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from support.waiting_page import LANGUAGES, NOW, STATUS, VALUES, Line, Open, asked, hide, marked, poll
from waitroom.edge.pages.messages import ROOM_MESSAGES
from waitroom.edge.pages.renderer import PageKind, Pages
from waitroom.settings import RoomSettings

pytestmark = pytest.mark.slow


# Records the page's texts as the browser leaves it; afterwards they can't be read.
LAST_WORDS = """addEventListener("pagehide", () => {
  const text = (selector) => document.querySelector(selector).textContent;
  const go = getComputedStyle(document.querySelector(".go")).display;
  sessionStorage.lastWords = [text("h1"), text("[role=status]"), document.title, go].join(", ");
})"""


async def enter(page: Page, seconds: float = 20) -> None:
    """Let time pass until the next poll, and none after that: its answer leads elsewhere."""
    async with page.expect_navigation():
        await page.clock.run_for(int(seconds * 1000))


async def test_the_page_is_kept_up_to_date(line: Line, visit: Open) -> None:
    page = await visit()
    await expect(page.locator(marked("position"))).to_have_text("1,234")
    await expect(page).to_have_title("1,234 · You’re in the queue")
    line.now(position=500, waiting=9876, eta_seconds=[60, 170], message="Blue is <b>gone</b>", remaining=42)
    await poll(page)
    await expect(page.locator(marked("position"))).to_have_text("500")
    await expect(page.locator(marked("waiting"))).to_have_text("9,876")
    await expect(page.locator(marked("remaining"))).to_be_visible()
    await expect(page.locator(marked("remaining"))).to_have_text("42")
    await expect(page.locator(marked("eta"))).to_have_text("about 1 to 3 minutes")
    await expect(page.locator(marked("message"))).to_have_text("Blue is <b>gone</b>")
    await expect(page.locator(marked("message"))).to_be_visible()
    await expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "75")
    await expect(page.locator("rect")).to_have_attribute("width", "75%")
    await expect(page).to_have_title("500 · You’re in the queue")
    line.now(message=None)
    await poll(page)
    await expect(page.locator(marked("message"))).to_be_hidden()
    await expect(page.locator(marked("remaining"))).to_be_hidden()


async def test_the_server_determines_the_next_poll(line: Line, visit: Open) -> None:
    page = await visit()
    await page.clock.run_for(19_000)
    assert await asked(page) == 0
    line.now(poll_after=60)
    await poll(page, 1.5)
    await page.clock.run_for(58_000)
    assert await asked(page) == 1
    line.now(poll_after=3)
    await poll(page, 3)
    await poll(page, 3.1)


async def test_an_invalid_poll_after_causes_no_flood_of_polls(line: Line, visit: Open) -> None:
    for nonsense in (0, -5, None, "soon"):
        page = await visit()
        line.now(poll_after=nonsense)
        await poll(page)
        await page.clock.run_for(900)
        assert await asked(page) == 1


async def test_an_unknown_wait_is_shown_as_unknown(line: Line, visit: Open) -> None:
    page = await visit()
    line.now(eta_seconds=None, position=None, waiting=None)
    await poll(page)
    await expect(page.locator(marked("eta"))).to_have_text("not known right now")
    for name in ("position", "waiting", "progress"):
        await expect(page.locator(f"[data-waitroom-if={name}]")).to_be_hidden()


async def test_a_position_that_rises_is_shown_as_it_is(line: Line, visit: Open) -> None:
    page = await visit()
    line.now(position=2040)
    await poll(page)
    await expect(page.locator(marked("position"))).to_have_text("2,040")
    await expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "0")


async def test_script_and_server_format_the_same_way(line: Line, visit: Open) -> None:
    waits = [(0, 0), (0, 60), (60, 60), (240, 400), (601, 1201), (239, 1300), (3600, 7200), (3600, 7201)]
    waits += [(2400, 9000), (100, 9000), (10_800, 10_800), (36_000, 90_000)]
    numbers = (1, 999, 1000, 1234, 12_345, 1_234_567)
    for code, language in LANGUAGES.items():
        page = await visit(locale=code)
        await expect(page.locator("html")).to_have_attribute("lang", code)
        for low, high in waits:
            line.now(eta_seconds=[low, high])
            await poll(page)
            shown = await page.locator(marked("eta")).text_content() or ""
            assert shown.replace("\xa0", " ") == language.wait(low, high).replace("\xa0", " ")
        for value in numbers:
            line.now(position=value)
            await poll(page)
            assert await page.locator(marked("position")).text_content() == language.number(value)


@pytest.mark.parametrize("state", ["called", "admitted"])
async def test_a_called_visitor_enters_automatically(line: Line, visit: Open, state: str) -> None:
    page = await visit("/phones?colour=blue")
    await page.evaluate(LAST_WORDS)
    line.now(state)
    line.kind = None
    await enter(page)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to the shop")
    assert await page.evaluate("sessionStorage.lastWords") == "It’s your turn, It’s your turn, It’s your turn, block"
    assert page.url == line.address + "/phones?colour=blue"
    assert await page.evaluate("history.length") == 2


@pytest.mark.parametrize("address", ["/phones#blue", "/phones?colour=1#blue"])
async def test_an_address_with_a_fragment_is_loaded(line: Line, visit: Open, address: str) -> None:
    page = await visit(address)
    line.now("called")
    line.kind = None
    await enter(page)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to the shop")
    assert page.url == line.address + address
    assert await page.evaluate("history.length") == 2


async def test_a_visitor_who_came_by_post_enters_by_get(line: Line, visit: Open) -> None:
    page = await visit()
    await page.evaluate(
        "(() => { const f = document.createElement('form'); f.method = 'post'; f.action = '/basket';"
        " document.body.append(f); f.submit(); })()"
    )
    await line.count("POST /basket", 1)
    await page.wait_for_url("**/basket")
    line.now("called")
    line.kind = None
    await enter(page)
    await line.count("GET /basket", 1)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to the shop")
    assert line.requests.count("POST /basket") == 1


@pytest.mark.parametrize("hidden", [True, False])
async def test_it_enters_without_another_timer(line: Line, visit: Open, hidden: bool) -> None:
    """The page's clock stands still once it has asked: in a hidden tab the next timer may be a minute away."""
    page = await visit()
    await hide(page, hidden=hidden)
    line.now("called")
    line.kind = None
    await enter(page)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to the shop")


async def test_it_enters_without_another_timer_right_after_a_reload(line: Line, visit: Open) -> None:
    page = await visit()
    await page.evaluate("sessionStorage.setItem('waitroom_went_shop', JSON.stringify([Date.now() + 20000, 1]))")
    line.now("called")
    line.kind = None
    await enter(page)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to the shop")


async def test_a_click_asks_for_more_time(line: Line, visit: Open) -> None:
    line.kind = PageKind.CALLED
    line.values = replace(VALUES, position=None, eta=None, start_position=None, poll_after=105)
    page = await visit("/phones?colour=blue")
    await page.get_by_role("button", name="I need more time").click()
    await page.wait_for_url("**/.waitroom/claim?room=shop&more=1&to=%2Fphones%3Fcolour%3Dblue")
    await expect(page.get_by_role("heading", level=1)).to_have_text("It’s your turn")
    await page.clock.run_for(104_000)
    assert await asked(page) == 0, "there is time: the page takes the visitor in only before it ends"
    line.kind = None
    await page.get_by_role("link", name="Enter the shop").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to the shop")
    claims = [request for request in line.requests if request.endswith("claim")]
    assert claims == ["POST /.waitroom/claim", "GET /.waitroom/claim"]


# Says for how long the page means to wait, but hardly waits: no time passes on its clock.
HASTE = """
Date.now = () => 1795776125000;
const later = setTimeout;
window.setTimeout = (what, delay) => {
  console.log(delay);
  return later(what, delay < 90000 ? 0 : delay);
};
"""
NO_STORAGE = "Object.defineProperty(window, 'sessionStorage', { get() { throw new Error('no'); } });"


@pytest.mark.parametrize(
    ("script", "pauses"),
    [(HASTE, [0, 5000, 10_000, 20_000, 40_000, 60_000, 60_000]), (HASTE + NO_STORAGE, [5000] * 7)],
)
async def test_it_never_reloads_in_a_loop(line: Line, visit: Open, script: str, pauses: list[int]) -> None:
    line.values = replace(VALUES, poll_after=1)
    line.now("unknown")
    page = await visit(at=None, script=script)
    await line.count("GET /", 1 + len(pauses))
    line.kind = None
    await expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to the shop")
    # Each page waits until it asks, and then until it is loaded again.
    said = [delay for delay in line.said if delay != "90000"]
    expected = [text for pause in pauses for text in ("1000", str(pause))]
    assert said[: len(expected)] == expected


async def test_without_cookies_it_says_so_and_does_not_reload(line: Line, visit: Open) -> None:
    page = await visit(script="Object.defineProperty(navigator, 'cookieEnabled', { get: () => false });")
    line.now("unknown")
    await poll(page)
    await expect(page.locator(marked("notice"))).to_contain_text("allow cookies")
    await page.clock.run_for(50_000)
    assert line.requests.count("GET /") == 1


async def test_a_removed_room_ends_the_wait(line: Line, visit: Open) -> None:
    page = await visit()
    line.status_code, line.status_body = 404, "{}"
    line.kind = None
    await poll(page)
    await page.clock.run_for(1)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to the shop")


@pytest.mark.parametrize(
    ("code", "body"), [(500, "{}"), (503, "<h1>oops</h1>"), (200, "<h1>Hotel WLAN</h1>"), (200, "null"), (429, "{}")]
)
async def test_failures_never_end_the_wait(line: Line, visit: Open, code: int, body: str) -> None:
    page = await visit()
    line.status_code, line.status_body = code, body
    await poll(page)
    await expect(page.locator(marked("notice"))).to_be_hidden()
    await poll(page, 26)
    await expect(page.locator(marked("notice"))).to_contain_text("Your place is kept")
    await expect(page.get_by_role("status")).to_contain_text("Your place is kept")
    await expect(page.locator(marked("position"))).to_have_text("1,234")
    for _ in range(8):
        await poll(page, 76)
    line.status_code, line.status_body = 200, None
    await poll(page, 76)
    await expect(page.locator(marked("notice"))).to_be_hidden()
    await expect(page.locator(marked("position"))).to_have_text("1,000")


async def test_a_lost_connection_is_retried_with_growing_delays(line: Line, visit: Open) -> None:
    page = await visit()
    tries: list[float] = []
    now = 0.0

    async def lose(route: Any) -> None:
        tries.append(now)
        await route.abort()

    await page.route("**/.waitroom/status*", lose)
    for second in range(400):
        now = float(second)
        await page.clock.run_for(1000)
        await page.evaluate("whenAnswered(asked)")  # else the time runs on meanwhile
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert len(tries) >= 5
    assert min(gaps) >= 19
    assert max(gaps) <= 77
    assert gaps[-1] >= 58
    await expect(page.locator(marked("updated"))).to_have_text(re.compile(r"^\d minutes ago$"))
    await page.unroute("**/.waitroom/status*")
    await poll(page, 77)
    await expect(page.locator(marked("position"))).to_have_text("1,000")
    await expect(page.locator(marked("updated"))).to_have_text(re.compile(r"^now$|seconds ago$"))


async def test_retry_after_is_respected(line: Line, visit: Open) -> None:
    page = await visit()
    line.status_code, line.status_headers = 429, {"Retry-After": "120"}
    await poll(page)
    await page.clock.run_for(119_000)
    assert await asked(page) == 1
    await poll(page, 32)


async def test_it_polls_immediately_when_shown_again(line: Line, visit: Open) -> None:
    page = await visit()
    await hide(page, hidden=True)
    await page.clock.run_for(10_000)
    assert await asked(page) == 0
    await hide(page, hidden=False)
    await line.count(STATUS, 1)
    await expect(page.locator(marked("position"))).to_have_text("1,000")
    for _ in range(5):
        await hide(page, hidden=True)
        await page.clock.run_for(300)
        await hide(page, hidden=False)
    assert await asked(page) == 1


async def test_it_polls_immediately_when_online_again(line: Line, visit: Open) -> None:
    page = await visit()
    await page.clock.run_for(10_000)
    await page.evaluate("dispatchEvent(new Event('online'))")
    await line.count(STATUS, 1)


async def test_a_wrong_clock_is_harmless(line: Line, visit: Open) -> None:
    for wrong in (timedelta(days=-400), timedelta(hours=3)):
        page = await visit(at=NOW + wrong)
        await expect(page.locator(marked("updated"))).to_have_text("now")
        line.now(updated_at=(NOW - timedelta(seconds=2)).isoformat())
        await poll(page)
        await expect(page.locator(marked("updated"))).to_have_text("now")
        line.now(updated_at=(NOW - timedelta(minutes=5)).isoformat())
        await poll(page)
        await expect(page.locator(marked("updated"))).to_have_text("5 minutes ago")


@pytest.mark.parametrize("state", ["prequeue", "paused", "sold_out", "closed"])
async def test_a_change_of_state_needs_no_new_page(line: Line, visit: Open, state: str) -> None:
    page = await visit()
    line.now(state, eta_seconds=None)
    await poll(page)
    message = ROOM_MESSAGES[PageKind(state)]
    await expect(page.get_by_role("heading", level=1)).to_have_text(message.heading)
    await expect(page.locator(marked("lead"))).to_have_text(message.lead)
    await expect(page.get_by_role("status")).to_have_text(message.heading)
    await expect(page).to_have_title(message.heading)
    over = state in ("sold_out", "closed")
    assert await page.get_by_text("Leave the queue").is_visible() is not over
    assert await page.locator(marked("eta")).is_visible() is (state == "paused"), "a prequeue has a countdown instead"
    assert await page.locator("main > .notes").is_visible() is not over
    line.now("waiting", position=3)
    await poll(page)
    await expect(page).to_have_title("3 · You’re in the queue")
    await expect(page.locator(marked("eta"))).to_be_visible()
    assert line.requests.count("GET /") == 1


async def test_a_held_page_shows_the_queue_again_when_possible(line: Line, visit: Open) -> None:
    line.kind = PageKind.HELD
    line.values = replace(VALUES, position=None, waiting=None, eta=None, start_position=None)
    page = await visit()
    await expect(page.locator(marked("updated"))).to_have_text("10:42:05 UTC")
    await expect(page.locator(marked("position"))).to_be_hidden()
    await poll(page)
    await expect(page.get_by_role("heading", level=1)).to_have_text("You’re in the queue")
    await expect(page.locator(marked("position"))).to_have_text("1,000")
    await expect(page.locator(marked("updated"))).to_have_text("now")


async def test_screen_readers_get_few_announcements(line: Line, visit: Open) -> None:
    page = await visit()
    spoken = page.get_by_role("status")
    assert await spoken.get_attribute("aria-live") == "polite"
    for position in (1200, 1000):
        line.now(position=position)
        await poll(page)
        await expect(spoken).to_be_empty()
    line.now(position=900)
    await poll(page, 21)
    await expect(spoken).to_have_text("You’re number 900 in the queue. about 3 to 6 minutes")
    for position in (850, 840, 830, 820):
        line.now(position=position)
        await poll(page)
        await expect(spoken).to_have_text("You’re number 900 in the queue. about 3 to 6 minutes")
    line.now(position=9, eta_seconds=[0, 30])
    await poll(page)
    await expect(spoken).to_have_text("You’re number 9 in the queue. less than a minute")


async def test_a_custom_template_is_reloaded(visit: Open, line: Line, tmp_path: Path) -> None:
    path = tmp_path / "own.html"
    path.write_text(
        "<h1>{% if kind == 'waiting' %}Hello{% else %}{{ kind }}{% endif %}</h1>"
        '<progress max="100" data-waitroom="progress" value="{{ progress }}"></progress>'
        '<b data-waitroom="position">{{ position }}</b>{% include "waitroom/script.html" %}'
    )
    line.pages = Pages([RoomSettings(name="shop", upstream="http://127.0.0.1:3000", template=str(path))])
    page = await visit()
    line.now(position=500)
    await poll(page)
    await expect(page.locator("b")).to_have_text("500")
    assert await page.locator("progress").evaluate("(bar) => bar.value") == 75
    line.now("paused")
    line.kind = PageKind.PAUSED
    await poll(page)
    await page.clock.run_for(1)
    await expect(page.get_by_role("heading", level=1)).to_have_text("paused")
    assert line.requests.count("GET /") == 2
