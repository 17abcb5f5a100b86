"""Visitors before, in and after a prequeue, as pages and the API show it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from support.edge_world import BUSY, PAGE, WALL, World, get
from support.endpoint_calls import call, ticket, told
from support.http_reader import Message
from waitroom.edge.pages.messages import PLAN_MESSAGES, ROOM_MESSAGES, SCRIPT_MESSAGES, TEXTS, PageKind, PageText
from waitroom.queue.constants import SHUFFLE_SPAN
from waitroom.queue.positions import RankIndex
from waitroom.queue.schedule import Draws, Event, EventRecord, Phase
from waitroom.queue.store import Visited
from waitroom.queue.view import RoomState, RoomView

SOON = 100
SEED = "5eed" * 16


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def sale(phase: Phase, **changes: Any) -> EventRecord:
    """A sale whose prequeue opens in ``SOON`` seconds, and which starts as many seconds later."""
    opens = (WALL + SOON) * 1000
    event = replace(Event("sale", "Redmi 1s", opens + SOON * 1000, opens, method="random"), **changes)
    return EventRecord(event, phase, "file", False, None, None, None, {}, {}, {})


def before_the_prequeue(**changes: Any) -> RoomView:
    event = sale(Phase.SCHEDULED, **changes)
    return replace(BUSY, state=RoomState.CLOSED, event=event, wall_ms=WALL * 1000, waiting=0)


def in_the_prequeue(**changes: Any) -> RoomView:
    event = sale(Phase.PREQUEUE, **changes)
    draws = Draws(f"100::{SEED}") if event.event.method == "random" else Draws("")
    return replace(BUSY, state=RoomState.PREQUEUE, event=event, wall_ms=(WALL + SOON) * 1000, draws=draws)


def after_the_start() -> RoomView:
    index = RankIndex("2", (0, 50), (101, 101 + SHUFFLE_SPAN))
    draws = Draws(f"100:{100 + SHUFFLE_SPAN}:{SEED}")
    return replace(BUSY, event=sale(Phase.RUNNING), draws=draws, rank_index=index)


def page(world: World, *lines: bytes) -> tuple[Message, str]:
    got = world.ask(get(b"/", PAGE, *lines))
    return got, got.body.decode()


def shown(text: str, name: str) -> str | None:
    """The text of a marked element; None if it is hidden."""
    found = re.search(rf"<(\w+)[^>]*data-waitroom={name}[^>]*>(.*?)</\1>", text.replace('"', ""), re.DOTALL)
    assert found, name
    return None if " hidden" in found[0].partition(">")[0] else found[2]


def countdown(text: str) -> str | None:
    return shown(text, "countdown") if "data-waitroom-if=event>" in text.replace('"', "") else None


@pytest.mark.parametrize(("line", "place"), [(b"", None), (b"x", 120)])
def test_before_the_prequeue_the_page_counts_down_to_it(world: World, line: bytes, place: int | None) -> None:
    world.view = before_the_prequeue()
    world.store.takes = False
    got, text = page(world, *([] if place is None else [ticket(world, place)]))
    assert got.status == 503
    assert TEXTS[PageText.SCHEDULED].heading in text
    assert countdown(text) == "1 minute"
    assert "The queue opens in" in text
    assert PLAN_MESSAGES["queue_random"] in text
    assert shown(text, "event_title") == "Redmi 1s"
    assert 'datetime="2027-01-15T08:01:40Z" data-waitroom="queue_opens"' in text
    assert 'datetime="2027-01-15T08:03:20Z" data-waitroom="starts"' in text
    assert 'data-state="closed"' in text
    assert f'data-now="{WALL * 1000}"' in text
    refresh = re.search(r'http-equiv="refresh" content="(\d+)"', text)
    assert refresh
    assert 15 <= int(refresh[1]) <= 30
    assert got[b"Retry-After"] == refresh[1].encode()


@pytest.mark.parametrize(
    ("changes", "plan", "label"),
    [
        ({"method": "fifo"}, "queue_fifo", "The queue opens in"),
        ({"prequeue_ms": None}, "start", "The sale starts in"),
    ],
)
def test_the_page_says_what_happens_next(world: World, changes: Any, plan: Any, label: str) -> None:
    world.view = before_the_prequeue(**changes)
    world.store.takes = False
    _, text = page(world)
    assert PLAN_MESSAGES[plan] in text
    assert label in text
    assert ('<time data-waitroom="queue_opens"' in text) is (plan == "start")


def test_a_visitor_without_a_place_learns_that_the_room_is_closed(world: World) -> None:
    """The page would load again with each poll if the status said only that the place is unknown."""
    world.view = before_the_prequeue()
    world.store.fates[99] = Visited("unknown", 0)
    for lines in ([], [ticket(world, 99)], [ticket(world, age=7 * 86400, generation=6)]):
        got = told(call(world, "status", *lines))
        assert (got["state"], got["position"], got["reopening"]) == ("closed", None, "event")
    world.view = replace(BUSY, state=RoomState.SOLD_OUT, state_by="stock")
    assert told(call(world, "status"))["state"] == "sold_out"
    world.view = in_the_prequeue()
    assert told(call(world, "status"))["state"] == "unknown", "the page loads again, and joins"
    world.view = before_the_prequeue()
    world.room.store_up = False
    assert told(call(world, "status"))["state"] == "unknown"


def test_the_first_in_the_prequeue_are_in_it_before_the_worker_has_seen_it_open(world: World) -> None:
    """A countdown must not end on a page that says that the queue is closed."""
    world.view = before_the_prequeue()
    world.store.view_ = in_the_prequeue()
    got, text = page(world)
    assert got.status == 503
    assert ROOM_MESSAGES[PageKind.PREQUEUE].heading in text
    assert 'data-state="prequeue"' in text
    assert shown(text, "position") == ""
    body = told(call(world, "join"), "ticket")
    assert (body["state"], body["position"], body["eta_seconds"]) == ("prequeue", None, None)


def test_the_place_in_a_random_prequeue_is_unknown(world: World) -> None:
    world.view = in_the_prequeue()
    got = call(world, "join")
    body = told(got, "ticket")
    assert (got.status, body["state"], body["position"], body["eta_seconds"]) == (201, "prequeue", None, None)
    assert world.tokens.read_ticket(got[b"Waitroom-Ticket"]).start_position == 1
    assert b"waitroom_shown" not in b"".join(got.all(b"Set-Cookie"))
    body = told(call(world, "status", ticket(world)))
    assert (body["state"], body["position"], body["eta_seconds"], body["waiting"]) == ("prequeue", None, None, 50)
    _, text = page(world, ticket(world))
    assert "data-waitroom-if=position hidden" in text.replace('"', "")
    assert 'data-position=""' in text
    assert PLAN_MESSAGES["start_random"] in text
    assert "The sale starts in" in text
    assert countdown(text) == "3 minutes"


def test_the_place_in_a_prequeue_in_order_of_arrival_is_known(world: World) -> None:
    world.view = in_the_prequeue(method="fifo")
    body = told(call(world, "join"), "ticket")
    assert (body["state"], body["position"], body["eta_seconds"]) == ("prequeue", 51, None)
    body = told(call(world, "status", ticket(world)))
    assert (body["state"], body["position"], body["position_reason"]) == ("prequeue", 20, None)
    _, text = page(world, ticket(world))
    assert shown(text, "position") == "20"
    assert PLAN_MESSAGES["start_fifo"] in text


def test_after_the_start_the_drawn_position_appears_with_the_reason(world: World) -> None:
    world.view = after_the_start()
    got = call(world, "status", ticket(world), b"Waitroom-Shown:")
    body = told(got)
    assert body["position_reason"] == "drawn"
    rank = world.view.draws.rank(120)
    assert body["position"] == world.view.rank_index.position(rank)
    _, text = page(world, ticket(world))
    assert SCRIPT_MESSAGES["drawn"] in text
    assert countdown(text) is None
    late = told(call(world, "status", ticket(world, 100 + SHUFFLE_SPAN + 1)))
    assert (late["position"], late["position_reason"]) == (51, None)
    restored = told(call(world, "status", ticket(world), b"Waitroom-Shown: 120.6.1"))
    assert restored["position_reason"] == "restored", "the newer reason"


def test_a_sold_out_page_counts_down_to_the_next_event(world: World) -> None:
    world.view = replace(before_the_prequeue(), state=RoomState.SOLD_OUT, own_state=RoomState.SOLD_OUT)
    world.store.takes = False
    _, text = page(world)
    assert TEXTS[PageText.SOLD_OUT].heading in text
    assert countdown(text) == "1 minute"


def test_a_room_that_an_operator_has_closed_promises_nothing(world: World) -> None:
    world.view = replace(before_the_prequeue(), own_state=RoomState.CLOSED)
    world.store.takes = False
    _, text = page(world)
    assert TEXTS[PageText.CLOSED].heading in text
    assert countdown(text) is None


def test_a_room_sold_out_by_stock_says_that_units_may_come_back(world: World) -> None:
    world.view = replace(BUSY, state=RoomState.SOLD_OUT, own_state=RoomState.SOLD_OUT, state_by="stock")
    _, text = page(world, ticket(world))
    assert TEXTS[PageText.SOLD_OUT_FOR_NOW].heading in text
    assert shown(text, "position") == "20"
    assert 'data-state="sold_out" data-text="sold_out_for_now"' in text
    assert 27 <= told(call(world, "status", ticket(world)))["poll_after"] <= 30
    assert world.room._seen == {120}, "the place is kept"
