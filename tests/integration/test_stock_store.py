"""Stock, report by report, on a real store whose clock is set by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from support.sale_room import HOUR, LIMITS, MINUTE, NOON, SALE, Shop, sale_room
from waitroom.queue.store import Visit
from waitroom.queue.view import RoomState

pytestmark = pytest.mark.slow


@pytest.fixture
async def shop(valkey: str) -> AsyncIterator[Shop]:
    async with sale_room(valkey) as shop:
        yield shop


async def test_stock_sells_out_and_reopens_for_the_next(shop: Shop) -> None:
    shop.limits = replace(LIMITS, rate_per_minute=60_000)
    await shop.store.open(shop.limits)
    shop.now += 1000
    joined = await shop.store.join(20)
    assert joined.admitted == 5
    places = list(range(joined.first_place, joined.first_place + 20))
    await shop.store.set_remaining(3)
    await shop.store.set_remaining(0)
    view = await shop.store.view()
    assert (view.state, view.state_by, view.sold) == (RoomState.SOLD_OUT, "stock", 3)
    shop.now += 1000
    await shop.store.set_remaining(1)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT, "the response was under way before"
    shop.now += 1000
    await shop.store.set_remaining(1)
    assert (await shop.store.view()).state is RoomState.OPEN
    for session in places[:2]:
        await shop.store.leave(session, 0, has_pass=True)
    await shop.store.seen(places)
    assert await shop.tick() == 1, "one unit, one visitor"
    visits = await shop.store.visit([Visit(place, joined.generation, claim=True) for place in places[5:]])
    assert [one.fate for one in visits] == ["admitted"] + ["waiting"] * 14
    await shop.store.seen(places)
    assert await shop.tick() == 0
    await shop.store.leave(places[5], 0, has_pass=True)
    await shop.store.seen(places)
    assert await shop.tick() == 1, "the first one left without it"


async def test_units_sold_to_visitors_who_have_left_call_nobody(shop: Shop) -> None:
    shop.limits = replace(LIMITS, rate_per_minute=60_000, max_active=20)
    await shop.store.open(shop.limits)
    await shop.store.set_remaining(1)
    await shop.store.set_remaining(0)
    await shop.store.set_remaining(4, by_api=True)
    shop.now += 1000
    first = await shop.store.join(4)
    assert first.admitted == 4
    await shop.store.set_remaining(2)
    for session in range(first.first_place, first.first_place + 3):
        await shop.store.leave(session, 0, has_pass=True)
    joined = await shop.store.join(9)
    assert joined.admitted == 1, "two units; one visitor is inside and may not have bought yet"
    assert (await shop.store.join(9)).admitted == 0


async def test_newcomers_at_the_moment_of_the_reopening_count_too(shop: Shop) -> None:
    await shop.store.open(LIMITS)
    await shop.store.set_remaining(1)
    await shop.store.set_remaining(0)
    shop.now += 1000
    await shop.store.set_remaining(1, by_api=True)
    assert [(await shop.store.join(1)).admitted for _ in range(3)] == [1, 0, 0]


async def test_called_visitors_of_a_sold_out_room_get_their_places_back(shop: Shop) -> None:
    await shop.store.open(replace(LIMITS, max_active=2))
    joined = await shop.store.join(4)
    places = list(range(joined.first_place, joined.first_place + 4))
    assert joined.admitted == 1
    await shop.store.seen(places)
    assert await shop.tick() == 1
    await shop.store.set_remaining(1)
    await shop.store.set_remaining(0)
    await shop.tick()
    view = await shop.store.view()
    assert (view.waiting, view.called, view.away) == (3, 0, 0)
    await shop.store.set_remaining(5, by_api=True)
    await shop.store.seen(places)
    await shop.tick()
    [visited] = await shop.store.visit([Visit(places[1], joined.generation, claim=False)])
    assert visited.fate == "called"


@pytest.mark.parametrize("state", [RoomState.SOLD_OUT, RoomState.CLOSED])
async def test_stock_lifts_no_state_that_was_set(shop: Shop, state: RoomState) -> None:
    await shop.store.open(LIMITS)
    await shop.store.set_remaining(1)
    await shop.store.set_remaining(0)
    await shop.store.set_state(state)
    await shop.store.set_remaining(9, by_api=True)
    assert (await shop.store.view()).state is state


async def test_stock_of_a_sale_that_has_not_started_closes_nothing(shop: Shop) -> None:
    await shop.open(replace(SALE, units=5))
    shop.now = NOON + HOUR // 2
    await shop.store.set_remaining(0)
    assert (await shop.store.view()).state is RoomState.PREQUEUE
    view = await shop.at(NOON + HOUR)
    assert (view.state, view.remaining) == (RoomState.OPEN, 5)


async def test_a_room_that_is_open_until_its_next_event_sells_out_by_its_stock(shop: Shop) -> None:
    """As without an event; the event opens it again."""
    await shop.open(replace(SALE, before="open", prequeue_ms=None, units=5))
    await shop.store.set_remaining(1)
    await shop.store.set_remaining(0)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT
    view = await shop.at(NOON + HOUR)
    assert (view.state, view.remaining) == (RoomState.OPEN, 5)


async def end_sessions(shop: Shop, count: int) -> None:
    for _ in range(count):
        joined = await shop.store.join(1)
        assert joined.admitted == 1
        await shop.store.leave(joined.first_place, 0, has_pass=True)
        shop.now += 100


async def test_what_visitors_buy_is_measured_from_the_first_report(shop: Shop) -> None:
    shop.limits = replace(LIMITS, rate_per_minute=60_000)
    await shop.store.open(shop.limits)
    await end_sessions(shop, 5)
    assert (await shop.store.view()).stock_began is None
    await shop.store.set_remaining(100)
    await end_sessions(shop, 3)
    await shop.store.set_remaining(98)
    view = await shop.store.view()
    assert (view.stock_began, view.sold, view.sessions_ended) == ((0, 5), 2, 8)


async def test_each_event_measures_what_visitors_buy_from_its_start(shop: Shop) -> None:
    shop.limits = replace(LIMITS, rate_per_minute=60_000)
    await shop.open(replace(SALE, before="open", units=50))
    await shop.store.set_remaining(100)
    await end_sessions(shop, 4)
    await shop.store.set_remaining(93)
    assert (await shop.store.view()).stock_began == (0, 0)
    view = await shop.at(NOON + HOUR)
    assert (view.stock_began, view.remaining) == ((7, 4), 50)
    await shop.store.set_remaining(49)
    assert (await shop.store.view()).stock_began == (7, 4)


async def test_units_come_back_by_when_they_and_the_zero_were_read(shop: Shop) -> None:
    """Both arrive together, after the store was away."""
    await shop.store.open(LIMITS)
    await shop.store.set_remaining(1)
    shop.now += 10_000
    await shop.store.set_remaining(0, age_ms=9000)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT
    await shop.store.set_remaining(2, age_ms=7001)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT
    await shop.store.set_remaining(2, age_ms=7000)
    assert (await shop.store.view()).state is RoomState.OPEN


async def test_sold_out_by_the_shop_ends_a_sale_and_none_that_has_not_begun(shop: Shop) -> None:
    await shop.open(SALE)
    await shop.store.report_sold_out()
    assert (await shop.store.view()).own_state is RoomState.OPEN, "scheduled"
    shop.now = NOON + HOUR // 2
    await shop.store.report_sold_out()
    assert (await shop.at(NOON + HOUR)).state is RoomState.OPEN
    await shop.store.set_state(RoomState.CLOSED)
    await shop.store.report_sold_out()
    assert (await shop.store.view()).state is RoomState.CLOSED
    await shop.store.set_state(RoomState.PAUSED)
    await shop.store.report_sold_out()
    assert (await shop.store.view()).state is RoomState.SOLD_OUT


async def test_sold_out_by_the_shop_stays_after_the_stock_said_so(shop: Shop) -> None:
    await shop.store.open(LIMITS)
    await shop.store.set_remaining(0)
    await shop.store.report_sold_out()
    await shop.store.set_remaining(3, by_api=True)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT


async def test_reports_of_several_workers_count_by_when_they_were_read(shop: Shop) -> None:
    await shop.store.open(LIMITS)
    shop.now += 10_000
    for units, age_ms in ((9, 5000), (7, 3000), (8, 4000), (6, 3000), (5, 3001)):
        await shop.store.set_remaining(units, age_ms=age_ms)
    view = await shop.store.view()
    assert (view.remaining, view.totals["sold"], view.totals.get("units_returned", 0)) == (6, 3, 0)


@pytest.mark.parametrize(("age_ms", "state"), [(5000, RoomState.SOLD_OUT), (5001, RoomState.OPEN)])
async def test_a_zero_counts_unless_units_were_left_two_seconds_later(
    shop: Shop, age_ms: int, state: RoomState
) -> None:
    """Its worker couldn't reach the store any earlier."""
    await shop.store.open(LIMITS)
    await shop.store.set_remaining(9)
    shop.now += 10_000
    await shop.store.set_remaining(3, age_ms=3001)
    await shop.store.set_remaining(0, age_ms=age_ms)
    assert (await shop.store.view()).state is state


async def test_reports_from_before_the_start_of_an_event_say_nothing_of_it(shop: Shop) -> None:
    await shop.open(replace(SALE, before="open", units=5))
    await shop.at(NOON + HOUR)
    shop.now += 2000
    await shop.store.set_remaining(0, age_ms=2001)
    await shop.store.report_sold_out(age_ms=2001)
    await shop.store.set_remaining(7, age_ms=2001)
    view = await shop.store.view()
    assert (view.state, view.remaining) == (RoomState.OPEN, 5)
    await shop.store.set_remaining(0, age_ms=1999)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT


async def test_no_report_is_outdated_by_an_outage_or_a_clock_that_was_set_back(shop: Shop) -> None:
    """The room's clock leaves out most of an outage, and the reports are as old as it was."""
    await shop.store.open(LIMITS)
    await shop.store.set_remaining(9)
    shop.now += MINUTE
    await shop.store.set_remaining(0, age_ms=40_000)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT
    shop.now += MINUTE
    await shop.store.set_remaining(2, age_ms=50_000)
    assert (await shop.store.view()).state is RoomState.OPEN
    shop.now -= HOUR
    await shop.store.set_remaining(1, age_ms=500)
    await shop.store.set_remaining(0, age_ms=400)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT
    shop.now -= HOUR
    await shop.store.set_remaining(1, age_ms=500)
    assert (await shop.store.view()).state is RoomState.OPEN
    shop.now -= HOUR
    await shop.store.report_sold_out(age_ms=500)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT


async def test_units_that_come_back_leave_a_paused_room_paused(shop: Shop) -> None:
    await shop.store.open(LIMITS)
    await shop.store.set_state(RoomState.PAUSED)
    await shop.store.set_remaining(0, by_api=True)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT
    await shop.store.set_remaining(3, by_api=True)
    assert (await shop.store.view()).state is RoomState.PAUSED


@pytest.mark.parametrize("after", ["open", "closed"])
async def test_a_pause_outlasts_the_stock_and_the_event(shop: Shop, after: Any) -> None:
    later = replace(SALE, name="later", start_ms=NOON + 4 * HOUR, prequeue_ms=None, end_ms=NOON + 5 * HOUR)
    await shop.open(replace(SALE, after=after, units=5), later)
    await shop.at(NOON + HOUR)
    await shop.store.change({"state": "paused"}, expected=None, who="ada")
    await shop.store.set_remaining(0, by_api=True)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT
    if after == "open":
        assert (await shop.at(NOON + 2 * HOUR)).own_state is RoomState.PAUSED
        assert (await shop.at(NOON + 4 * HOUR)).state is RoomState.PAUSED
    else:
        assert (await shop.at(NOON + 2 * HOUR)).state is RoomState.CLOSED
