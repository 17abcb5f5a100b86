"""Pages whose countdowns end at the same moment, before a whole gateway: all get in, and none sees an error."""

from __future__ import annotations

import asyncio
import json
import re
import time

import pytest

from support.gateway_process import SECRET, Gateway, eventually, room
from support.visitor_client import Visitor
from waitroom.queue.schedule import Event, shuffle_seed
from waitroom.queue.store import QueueStore

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

VISITORS = 60  # positions are exact within the first 64
AUDIT = json.dumps({"who": "ada", "via": "api", "action": "event"})
OPENS_MS, STARTS_MS = 2_000, 7_000


# Each visitor has an address of their own.
SETTINGS = {"workers": 1, "trusted_proxies": ["127.0.0.1"]}
ROOMS = [room("drawn", max_active=1), room("direct")]


async def schedule(gateway: Gateway, name: str, *, prequeue: bool) -> None:
    """Schedules an event of a room: it opens soon, and with a prequeue it starts later."""
    now = time.time_ns() // 1_000_000
    opens, starts = now + OPENS_MS, now + STARTS_MS
    event = Event("sale", "The sale", starts, opens, None, "random") if prequeue else Event("sale", "", opens)
    async with gateway.store() as redis:
        seed = shuffle_seed(SECRET, name, "sale", event.opens_ms)
        store = QueueStore(redis, name)
        changed = await store.change_event(
            "set", "sale", expected=None, who="ada", audit_event=AUDIT, definition=(event, seed)
        )
    assert not isinstance(changed, str)

    async def is_known() -> bool:
        return (await Visitor(gateway, name).status())["event"] is not None

    await eventually(is_known)


class Page(Visitor):
    """The page of a visitor, with the moves of its script.

    Attributes:
        seen: The states it has shown, each once in a row.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.seen: list[str] = []

    async def follow(self, *ends: str) -> None:
        """Loads the page, and polls as it is told, until one of these states or the shop."""
        wait = await self._load()
        while self.seen[-1] not in (*ends, "inside"):
            await asyncio.sleep(wait)
            status = await self.status()
            if status["state"] in ("unknown", "called", "admitted"):
                wait = await self._load()
            else:
                self._show(status["state"])
                wait = status["poll_after"]

    async def _load(self) -> float:
        answer = await self.navigate()
        if answer.status == 200:
            self._show("inside")
            return 0
        assert (answer.status, answer.is_page) == (503, True)
        self._show(answer.state)
        found = re.search(rb'data-poll-after="(\d+)"', answer.body)
        assert found
        return float(found[1])

    def _show(self, state: str) -> None:
        if self.seen[-1:] != [state]:
            self.seen.append(state)


def pages(gateway: Gateway, name: str, count: int) -> list[Page]:
    return [Page(gateway, name, headers={"X-Forwarded-For": f"10.1.{one // 250}.{one % 250}"}) for one in range(count)]


async def test_all_get_in_and_none_sees_an_error(gateway: Gateway) -> None:
    await asyncio.gather(drawn(gateway), direct(gateway))


async def drawn(gateway: Gateway) -> None:
    """All are in the draw; after it each has a position of their own, and latecomers stand behind them."""
    await schedule(gateway, "drawn", prequeue=True)
    early = pages(gateway, "drawn", VISITORS)
    await asyncio.gather(*[page.follow("prequeue") for page in early])
    for page in early:
        assert page.seen == ["closed", "prequeue"]
        assert (await page.status())["position"] is None
    await asyncio.gather(*[page.follow("waiting") for page in early])
    assert {tuple(page.seen) for page in early} == {("closed", "prequeue", end) for end in ("waiting", "inside")}
    waiting = sorted([page for page in early if page.seen[-1] == "waiting"], key=lambda page: page.ticket.place)
    assert len(waiting) == VISITORS - 1, "there is one slot"
    statuses = [await page.status() for page in waiting]
    assert {status["position_reason"] for status in statuses} == {"drawn"}
    positions = [status["position"] for status in statuses]
    assert sorted(positions) == list(range(1, VISITORS))
    assert positions != sorted(positions)
    [late] = pages(gateway, "drawn", 1)
    await late.follow("waiting")
    status = await late.status()
    assert (status["position"], status["position_reason"]) == (VISITORS, None)


async def direct(gateway: Gateway) -> None:
    """Without a prequeue all go in at the start."""
    await schedule(gateway, "direct", prequeue=False)
    crowd = pages(gateway, "direct", VISITORS)
    await asyncio.gather(*[page.follow() for page in crowd])
    assert {page.seen[-1] for page in crowd} == {"inside"}
    assert {state for page in crowd for state in page.seen} <= {"closed", "waiting", "inside"}
