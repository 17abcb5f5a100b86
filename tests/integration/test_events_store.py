"""Events, step by step, on a real store whose clock is set by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from support.sale_room import AUDIT, HOUR, LIMITS, MINUTE, NOON, SALE, SEED, Shop, sale_room
from waitroom.errors import RoomNotOpen
from waitroom.gate import needs_lookup
from waitroom.queue.schedule import Phase, encode_event, shuffle_seed
from waitroom.queue.store import Visit
from waitroom.queue.view import RoomState
from waitroom.tokens import Ticket

pytestmark = pytest.mark.slow


@pytest.fixture
async def shop(valkey: str) -> AsyncIterator[Shop]:
    async with sale_room(valkey) as shop:
        yield shop


async def test_the_phases_set_the_state_and_each_begins_once(shop: Shop) -> None:
    await shop.open()
    seen = []
    for when in (NOON, NOON + HOUR // 2 - 1, NOON + HOUR // 2, NOON + HOUR, NOON + 2 * HOUR - 1, NOON + 2 * HOUR):
        view = await shop.at(when)
        assert view.event is not None
        seen.append((str(view.state), str(view.event.phase)))
    assert seen == [
        ("closed", "scheduled"),
        ("closed", "scheduled"),
        ("prequeue", "prequeue"),
        ("open", "running"),
        ("open", "running"),
        ("open", "ended"),
    ]
    events = [json.loads(event) for event in await shop.store.audit_events()]
    assert [event["new"]["event_phase"] for event in events] == ["prequeue", "running", "ended"]
    assert json.loads(events[0]["told"])["who"] == "the schedule"
    record = await shop.event()
    assert (record.prequeue_at_ms, record.started_ms, record.ended_ms) == (
        NOON + HOUR // 2,
        NOON + HOUR,
        NOON + 2 * HOUR,
    )


async def test_no_clock_takes_a_phase_back(shop: Shop) -> None:
    await shop.open()
    version = (await shop.at(NOON + HOUR)).version
    view = await shop.at(NOON)
    assert (view.state, view.version) == (RoomState.OPEN, version)
    shop.run_id = "second"
    await shop.open()
    assert (await shop.at(NOON)).version == version
    assert (await shop.at(NOON + HOUR)).version == version


async def test_the_join_at_the_start_decides_by_the_clock_of_the_store(shop: Shop) -> None:
    """No controller has ticked since the prequeue opened."""
    await shop.open()
    shop.now = NOON + HOUR - 1
    assert (await shop.store.join(1)).state is RoomState.PREQUEUE
    shop.now += 1
    assert (await shop.store.join(1)).state is RoomState.OPEN


async def test_nobody_is_called_before_the_start_and_all_in_order_after(shop: Shop) -> None:
    await shop.open()
    shop.now = NOON + HOUR // 2
    joined = await shop.store.join(20)
    assert (joined.admitted, joined.waiting) == (0, 20)
    assert await shop.tick(5) == 0
    shop.now = NOON + HOUR
    places = range(joined.first_place, joined.first_place + 20)
    await shop.store.seen(places)
    assert await shop.tick() == 5
    visits = await shop.store.visit([Visit(place, joined.generation, claim=False) for place in places])
    assert [one.fate for one in visits] == ["called"] * 5 + ["waiting"] * 15


async def test_a_shuffled_prequeue_has_one_place_for_each_and_latecomers_behind(shop: Shop) -> None:
    shop.limits = replace(LIMITS, max_active=1000, rate_per_minute=60_000)
    await shop.open(replace(SALE, method="random"))
    shop.now = NOON + HOUR // 2
    early = await shop.store.join(200)
    view = await shop.store.view()
    assert view.position(early.first_place) is None
    view = await shop.at(NOON + HOUR)
    late = await shop.store.join(10)
    shop.now += 2000
    view = await shop.store.view()
    places = list(range(early.first_place, early.first_place + 200))
    ranks = [view.draws.rank(place) for place in places]
    assert len(set(ranks)) == 200
    assert sorted(ranks) != ranks
    newcomers = list(range(late.first_place, late.first_place + 10))
    assert max(ranks) < min(newcomers)
    assert [view.draws.rank(place) for place in newcomers] == newcomers
    ordered = sorted(places, key=view.draws.rank)
    assert [view.position(place) for place in ordered[:64]] == list(range(1, 65))
    shop.limits = replace(shop.limits, max_active=50)
    await shop.open()
    await shop.store.seen([*places, *newcomers])
    await shop.tick()
    visits = await shop.store.visit([Visit(place, early.generation, claim=False) for place in ordered])
    assert [one.fate for one in visits] == ["called"] * 50 + ["waiting"] * 150
    view = await shop.store.view()
    assert view.high_water_mark == view.draws.rank(ordered[49])


async def test_who_waited_before_a_shuffled_prequeue_stays_ahead(shop: Shop) -> None:
    shop.limits = replace(LIMITS, max_active=1)
    await shop.open(replace(SALE, method="random", before="open"))
    before = await shop.store.join(4)
    assert before.admitted == 1
    shop.now = NOON + HOUR // 2
    await shop.store.join(50)
    shop.now = NOON + HOUR
    view = await shop.store.view()
    assert [view.position(before.first_place + i) for i in (1, 2, 3)] == [1, 2, 3]


async def test_the_limits_of_an_event_end_with_it_and_so_do_operators_changes(shop: Shop) -> None:
    await shop.open(replace(SALE, limits={"rate_per_minute": 1200.0, "autopilot": False}, units=7))
    view = await shop.at(NOON + HOUR)
    assert (view.rate_per_minute, view.max_active, view.remaining, view.autopilot) == (1200, 5, 7, False)
    await shop.store.change({"rate": "60.0", "max_active": "9"}, expected=None, who="ada")
    shop.limits = replace(LIMITS, rate_per_minute=500, claim_seconds=240)
    await shop.open()  # a new settings file counts at once, unless the event overrides the limit
    view = await shop.store.view()
    assert (view.rate_per_minute, view.max_active, view.claim_ms) == (60, 9, 240_000)
    view = await shop.at(NOON + 2 * HOUR)
    assert (view.rate_per_minute, view.max_active, view.claim_ms, view.autopilot) == (500, 5, 240_000, None)


async def test_tokens_of_a_higher_rate_do_not_burst_into_an_event(shop: Shop) -> None:
    shop.limits = replace(LIMITS, rate_per_minute=6000, max_active=50)
    await shop.open(replace(SALE, limits={"rate_per_minute": 60.0}))
    shop.now = NOON + HOUR // 2
    joined = await shop.store.join(20)
    shop.now = NOON + HOUR - 1
    await shop.store.seen(range(joined.first_place, joined.first_place + 20))
    shop.now += 1
    assert (await shop.store.tick()).called == 1


async def test_a_passthrough_room_counts_those_whom_its_limits_would_have_held(shop: Shop) -> None:
    shop.limits = replace(LIMITS, rate_per_minute=60)
    await shop.store.open(shop.limits)
    first = await shop.store.join(4)
    for place in range(first.first_place + 1, first.first_place + 4):
        assert await shop.store.call_out_of_order(place, AUDIT) == "called"
    await shop.store.open(replace(shop.limits, method="passthrough"))
    await shop.store.visit([Visit(first.first_place + 3, first.generation, claim=True)])
    totals = (await shop.store.view()).totals
    assert "over:rate" not in totals
    joined = await shop.store.join(4)
    assert joined.admitted == 4
    totals = (await shop.store.view()).totals
    assert (totals["over:rate"], totals["over:max_active"]) == (4, 3)


async def test_the_start_and_the_end_throw_nobody_out(shop: Shop) -> None:
    await shop.open(replace(SALE, before="open", after="closed", limits={"max_active": 1, "session_seconds": 60}))
    shop.now += 1000  # the tokens of a second
    joined = await shop.store.join(5)
    assert joined.admitted == 5
    for when in (NOON + HOUR // 2, NOON + HOUR, NOON + 2 * HOUR):
        view = await shop.at(when)
        assert view.active == 5


async def test_places_of_an_ended_event_are_void(shop: Shop) -> None:
    await shop.open(replace(SALE, after="closed"))
    shop.now = NOON + HOUR // 2
    joined = await shop.store.join(20)
    view = await shop.at(NOON + 2 * HOUR)
    assert (view.state, view.waiting, view.called) == (RoomState.CLOSED, 0, 0)
    shop.run_id = "second"
    await shop.open()
    [visited] = await shop.store.visit([Visit(joined.first_place, joined.generation, claim=True)])
    assert visited.fate == "unknown"


async def test_a_lost_place_of_the_last_event_is_not_restored_in_the_next(shop: Shop) -> None:
    later = replace(SALE, name="later", start_ms=NOON + 4 * HOUR, prequeue_ms=NOON + 3 * HOUR, end_ms=NOON + 5 * HOUR)
    await shop.open(SALE, later)
    shop.now = NOON + HOUR // 2
    joined = await shop.store.join(20)
    await shop.at(NOON + 2 * HOUR)
    await shop.store._redis.flushall()
    shop.run_id, shop.now = "second", NOON + 3 * HOUR
    await shop.open()
    newcomer = await shop.store.join(1)
    assert newcomer.state is RoomState.PREQUEUE
    [visited] = await shop.store.visit([Visit(joined.first_place, joined.generation, claim=True)])
    assert visited.fate == "unknown"


async def test_places_of_a_later_event_outlive_the_store_and_those_of_the_event_before_do_not(shop: Shop) -> None:
    later = replace(SALE, name="later", start_ms=NOON + 4 * HOUR, prequeue_ms=NOON + 3 * HOUR, end_ms=NOON + 5 * HOUR)
    await shop.open(replace(SALE, after="closed"), later)
    shop.now = NOON + HOUR
    old = await shop.store.join(20)
    await shop.at(NOON + 2 * HOUR)
    shop.now = NOON + 3 * HOUR
    new = await shop.store.join(1)
    await shop.store._redis.flushall()
    shop.run_id, shop.now = "second", shop.now + 1000
    await shop.open()
    tickets = [Visit(joined.first_place, joined.generation, claim=True) for joined in (old, new)]
    assert [one.fate for one in await shop.store.visit(tickets)] == ["unknown", "waiting"]


async def test_latecomers_of_a_shuffled_event_that_ends_during_a_restart_are_void(shop: Shop) -> None:
    """Their places are ahead of the time."""
    times = {"prequeue_ms": NOON + MINUTE, "start_ms": NOON + 2 * MINUTE, "end_ms": NOON + 3 * MINUTE}
    await shop.open(replace(SALE, method="random", after="closed", **times))
    await shop.at(NOON + MINUTE)
    shop.now = NOON + 2 * MINUTE
    joined = await shop.store.join(20)
    await shop.store._redis.delete(shop.store.keys["active"])
    shop.run_id, shop.now = "second", NOON + 2 * HOUR
    await shop.open()
    [visited] = await shop.store.visit([Visit(joined.first_place, joined.generation, claim=True)])
    assert visited.fate == "unknown"


async def test_a_shuffle_that_a_client_saw_open_ends_with_its_event_when_the_store_is_lost(shop: Shop) -> None:
    await shop.open(replace(SALE, method="random"))
    await shop.at(NOON + HOUR // 2)
    await shop.store._redis.flushall()
    shop.run_id, shop.now = "second", NOON + 2 * HOUR
    await shop.open()
    joined = await shop.store.join(20)
    view = await shop.store.view()
    places = range(joined.first_place, joined.first_place + 20)
    assert [view.draws.rank(place) for place in places] == [*places]
    assert view.position(places[19]) is not None


async def test_a_tick_that_has_looked_at_enough_says_so(shop: Shop) -> None:
    """A shuffled place costs several times as much to look up."""
    await shop.open(replace(SALE, method="random"))
    shop.now = NOON + HOUR // 2
    await shop.store.join(8)
    for _ in range(20):  # everybody goes away
        shop.now += 10_000
        await shop.store.tick()
    shop.now = NOON + HOUR
    ticked = await shop.store.tick(look_ups=8)
    assert (ticked.skipped, ticked.stopped_early) == (2, True)


@pytest.mark.parametrize("gone", [False, True])
async def test_a_lost_store_keeps_phase_and_draw(shop: Shop, gone: bool) -> None:
    shop.limits = replace(LIMITS, max_active=1)
    await shop.open(replace(SALE, method="random"))
    shop.now = NOON + HOUR // 2
    joined = await shop.store.join(30)
    view = await shop.at(NOON + HOUR)
    order = sorted(range(joined.first_place, joined.first_place + 30), key=view.draws.rank)
    if gone:
        await shop.store._redis.flushall()
    shop.run_id, shop.now = "second", shop.now + 1000
    await shop.open()
    view = await shop.store.view()
    assert (view.state, view.event and view.event.phase) == (RoomState.OPEN, Phase.RUNNING)
    await shop.store.visit([Visit(place, joined.generation, claim=False) for place in reversed(order)])
    shop.now += 2000
    view = await shop.store.view()
    assert [view.position(place) for place in order] == list(range(1, 31))


async def test_a_lost_store_stays_closed_after_the_last_event(shop: Shop) -> None:
    await shop.open(replace(SALE, after="sold_out"))
    await shop.at(NOON + 2 * HOUR)
    await shop.store._redis.flushall()
    shop.now += HOUR
    await shop.open()
    view = await shop.store.view()
    assert (view.state, view.state_by) == (RoomState.SOLD_OUT, "schedule")
    assert await shop.store.audit_events() == []


async def test_a_lost_record_of_a_running_event_keeps_the_limits_to_put_back(shop: Shop) -> None:
    await shop.open(replace(SALE, limits={"max_active": 50}))
    await shop.at(NOON + HOUR)
    await shop.store._redis.delete(shop.store.keys["events"])
    shop.now += 1000
    await shop.open()
    view = await shop.store.view()
    assert (view.state, view.max_active) == (RoomState.OPEN, 50)
    assert (await shop.at(NOON + 2 * HOUR)).max_active == 5


async def test_a_lost_room_is_not_as_a_cancelled_event_would_have_left_it(shop: Shop) -> None:
    await shop.open(replace(SALE, before="open", after="sold_out"))
    assert (await shop.act("cancel")).done
    await shop.store._redis.delete(shop.store.keys["room"])
    await shop.open()
    assert (await shop.store.view()).state is RoomState.OPEN


async def test_of_events_that_a_jump_of_the_clock_ended_at_once_the_last_one_counts(shop: Shop) -> None:
    times = [(f"sale {number}", NOON + number * HOUR) for number in range(1, 9)]
    sales = [replace(SALE, name=name, prequeue_ms=None, start_ms=start, end_ms=start + MINUTE) for name, start in times]
    await shop.open(*sales)
    view = await shop.at(NOON + 20 * HOUR)
    assert view.event is not None
    assert view.event.event.name == "sale 8"


async def test_the_limits_of_a_lost_event_end_if_nothing_begins_it_again(shop: Shop) -> None:
    await shop.open(replace(SALE, limits={"rate_per_minute": 1200.0}))
    await shop.at(NOON + HOUR)
    await shop.store._redis.delete(shop.store.keys["events"])
    with pytest.raises(RoomNotOpen):
        await shop.store.view()
    await shop.store.open(LIMITS, {})
    view = await shop.store.view()
    assert (view.event, view.rate_per_minute) == (None, LIMITS.rate_per_minute)


async def test_an_event_goes_on_in_a_room_whose_fields_were_lost(shop: Shop) -> None:
    await shop.open(replace(SALE, limits={"rate_per_minute": 1200.0}))
    await shop.at(NOON + HOUR)
    await shop.store._redis.delete(shop.store.keys["room"])
    await shop.open()
    view = await shop.store.view()
    assert (view.event and view.event.phase, view.rate_per_minute) == (Phase.RUNNING, 1200)
    assert (await shop.at(NOON + 2 * HOUR)).rate_per_minute == LIMITS.rate_per_minute


async def test_an_event_of_the_file_that_ended_long_ago_does_not_begin_again(shop: Shop) -> None:
    await shop.open(replace(SALE, end_ms=None))
    await shop.at(NOON + HOUR)
    assert (await shop.act("end")).done
    moved = replace(SALE, name="by hand", prequeue_ms=None, start_ms=NOON + 2 * HOUR, end_ms=NOON + 3 * HOUR)
    assert (await shop.act("set", "by hand", definition=(moved, SEED))).done
    version = (await shop.at(NOON + 3 * HOUR)).version
    shop.now += 91 * 24 * HOUR
    await shop.open()
    view = await shop.store.view()
    assert (view.event and view.event.phase, view.version) == (Phase.ENDED, version)
    later = replace(SALE, name="later", prequeue_ms=None, start_ms=shop.now + HOUR, end_ms=None)
    assert (await shop.act("set", "later", definition=(later, SEED))).done
    assert [one.event.name for one in await shop.store.events()] == ["sale", "later"]
    await shop.store.open(LIMITS, {})
    assert (await shop.act("cancel", "later")).done
    assert [one.event.name for one in await shop.store.events()] == ["later"]


async def test_the_file_does_not_undo_an_event_that_an_operator_repeats(shop: Shop) -> None:
    await shop.open()
    await shop.at(NOON + 2 * HOUR)
    again = replace(SALE, prequeue_ms=None, start_ms=NOON + 4 * HOUR, end_ms=NOON + 5 * HOUR)
    assert (await shop.act("set", definition=(again, SEED))).done
    await shop.open()
    record = await shop.event()
    assert (record.phase, record.event) == (Phase.SCHEDULED, again)


async def test_operators_start_end_and_cancel(shop: Shop) -> None:
    later = replace(SALE, name="later", start_ms=NOON + 4 * HOUR, prequeue_ms=None, end_ms=None)
    await shop.open(SALE, later)
    assert await shop.act("end") == "not_started"
    assert (await shop.act("start")).done
    view = await shop.store.view()
    assert view.event is not None
    assert (view.state, view.event.phase, view.event.event.start_ms) == (RoomState.OPEN, Phase.RUNNING, NOON)
    assert await shop.act("start") == "started"
    assert await shop.act("start", "later") == "busy"
    assert await shop.act("cancel") == "started"
    assert (await shop.act("end")).done
    assert (await shop.event()).phase is Phase.ENDED
    assert await shop.act("end") == "ended"
    assert (await shop.act("cancel", "later")).done
    view = await shop.store.view()
    assert view.state is RoomState.CLOSED  # it kept the room closed; an operator opens it
    assert (await shop.event("later")).cancelled
    await shop.open()
    assert (await shop.event("later")).cancelled, "the file hasn't changed"
    assert await shop.act("start", "unknown") == "unknown"


async def test_an_operator_moves_an_event_and_the_file_only_undoes_that_if_it_changes(shop: Shop) -> None:
    await shop.open()
    moved = replace(SALE, start_ms=SALE.start_ms + HOUR, end_ms=NOON + 3 * HOUR)
    assert (await shop.act("set", definition=(moved, SEED))).done
    await shop.open()
    assert (await shop.event()).event == moved
    await shop.open(replace(SALE, title="Another title"))
    assert (await shop.event()).event == replace(SALE, title="Another title")


@pytest.mark.parametrize("after", ["open", "closed", "sold_out"])
async def test_a_room_that_a_person_has_closed_stays_so_after_an_event_and_in_the_next(shop: Shop, after: Any) -> None:
    later = replace(SALE, name="later", start_ms=NOON + 4 * HOUR, prequeue_ms=None, end_ms=NOON + 5 * HOUR)
    await shop.open(replace(SALE, after=after), later)
    await shop.at(NOON + HOUR)
    await shop.store.change({"state": "closed"}, expected=None, who="ada")
    for when in (NOON + 2 * HOUR, NOON + 4 * HOUR, NOON + 5 * HOUR):
        view = await shop.at(when)
        assert (view.state, view.state_by) == (RoomState.CLOSED, "")


async def test_a_change_that_is_based_on_an_older_version_is_refused(shop: Shop) -> None:
    await shop.open()
    await shop.store.change({"message": "hello"}, expected=None, who="ada")
    done = await shop.store.change_event("start", "sale", expected=0, who="ada", audit_event=AUDIT)
    assert not isinstance(done, str)
    assert (done.done, done.version) == (False, 1)
    assert (await shop.event()).phase is Phase.SCHEDULED


async def test_events_that_the_file_no_longer_has_are_removed_unless_in_progress(shop: Shop) -> None:
    later = replace(SALE, name="later", start_ms=NOON + 4 * HOUR, prequeue_ms=None)
    await shop.open(SALE, replace(later, end_ms=None))
    await shop.at(NOON + HOUR)
    await shop.store.open(LIMITS, {})
    assert [one.event.name for one in await shop.store.events()] == ["sale"]
    view = await shop.at(NOON + 2 * HOUR)
    assert view.state is RoomState.OPEN


async def test_a_room_that_a_removed_event_kept_closed_stays_so_until_the_next_one(shop: Shop) -> None:
    """Another gateway may still have the old file."""
    await shop.open()
    await shop.store.open(LIMITS, {})
    view = await shop.store.view()
    assert (view.state, view.state_by, view.event) == (RoomState.CLOSED, "schedule", None)
    removed = json.loads((await shop.store.audit_events())[-1])
    assert (removed["new"]["event"], removed["new"]["event_phase"]) == ("sale", "removed")
    await shop.open()
    assert (await shop.at(NOON + HOUR // 2)).state is RoomState.PREQUEUE


async def test_an_event_that_kept_nothing_closed_is_removed_without_a_trace_in_the_state(shop: Shop) -> None:
    await shop.open(replace(SALE, before="open"))
    await shop.store.open(LIMITS, {})
    assert (await shop.store.view()).state is RoomState.OPEN


async def test_what_an_event_did_is_recorded(shop: Shop) -> None:
    await shop.open(replace(SALE, units=10))
    shop.now = NOON + HOUR // 2
    joined = await shop.store.join(20)
    shop.now = NOON + HOUR
    await shop.store.seen(range(joined.first_place, joined.first_place + 20))
    assert await shop.tick() == 5
    claims = [Visit(joined.first_place + i, joined.generation, True, True, True, 100, 90) for i in range(5)]
    await shop.store.visit(claims)
    await shop.store.set_remaining(6)
    await shop.tick()
    await shop.at(NOON + 2 * HOUR)
    record = await shop.event()
    assert (record.totals["admitted"], record.totals["sold"]) == (5, 4)
    waits = {name: number for name, number in record.stats.items() if name.startswith("wait:")}
    assert sum(waits.values()) == 5
    assert record.stats["peak_active"] == 5
    assert record.stats["peak_waiting"] >= 15


async def test_the_next_event_opens_a_sold_out_room_but_not_a_closed_one(shop: Shop) -> None:
    later = replace(SALE, name="later", start_ms=NOON + 4 * HOUR, prequeue_ms=None, end_ms=NOON + 5 * HOUR)
    await shop.open(replace(SALE, after="sold_out"), later)
    await shop.at(NOON + 2 * HOUR)
    assert (await shop.at(NOON + 4 * HOUR)).state is RoomState.OPEN
    await shop.store.set_state(RoomState.CLOSED)
    assert (await shop.at(NOON + 5 * HOUR)).state is RoomState.CLOSED


async def test_a_room_of_an_earlier_version_is_measured_from_its_next_report(shop: Shop) -> None:
    """It has a number of units, and nothing says since when."""
    await shop.store.open(LIMITS)
    await shop.store.set_remaining(100)
    await shop.store._redis.hdel(shop.store.keys["room"], "stock_began_at", "stock_began_sold", "stock_began_ended")  # type: ignore[misc]
    assert (await shop.store.view()).stock_began is None
    await shop.store.set_remaining(90)
    assert (await shop.store.view()).stock_began == (0, 0)


async def test_workers_look_up_the_tickets_of_an_ended_event(shop: Shop) -> None:
    """Else a worker would take their holders for waiting, and they would miss the next prequeue."""
    later = replace(SALE, name="later", start_ms=NOON + 5 * HOUR, prequeue_ms=NOON + 4 * HOUR, end_ms=None)
    await shop.open(replace(SALE, after="sold_out", method="random"), later)
    shop.now = NOON + HOUR // 2
    old = (await shop.store.join(20)).first_place
    await shop.at(NOON + HOUR)
    await shop.at(NOON + 2 * HOUR)
    shop.now = NOON + 4 * HOUR
    joined = await shop.store.join(1)
    view = await shop.store.view()
    tickets = [Ticket(place, joined.generation, 0, 1, 0) for place in (*range(old, old + 20), joined.first_place)]
    assert [needs_lookup(ticket, view) for ticket in tickets] == [True] * 20 + [False]
    [visited] = await shop.store.visit([Visit(old, joined.generation, claim=True)])
    assert visited.fate == "unknown"


async def test_a_cancelled_prequeue_shuffles_no_later_places(shop: Shop) -> None:
    await shop.open(replace(SALE, method="random"))
    await shop.at(NOON + HOUR // 2)
    assert (await shop.act("cancel")).done
    await shop.store.set_state(RoomState.PAUSED)
    joined = await shop.store.join(1)
    view = await shop.store.view()
    assert (view.draws.is_open(joined.first_place), view.draws.rank(joined.first_place)) == (False, joined.first_place)


async def test_the_seed_of_an_open_prequeue_stays(shop: Shop) -> None:
    await shop.open(replace(SALE, method="random"))
    view = await shop.at(NOON + HOUR // 2)
    later = replace(SALE, method="random", start_ms=NOON + HOUR + MINUTE)
    assert (await shop.act("set", definition=(later, "ab" * 32))).done
    record = json.loads(await shop.store._redis.hget(shop.store.keys["events"], "sale"))  # type: ignore[misc]
    assert view.draws.text.endswith(record["seed"])


async def test_another_secret_is_no_change_of_an_event(shop: Shop) -> None:
    await shop.open()
    assert (await shop.act("cancel")).done
    other = shuffle_seed("another secret", "shop", "sale", SALE.opens_ms)
    await shop.store.open(shop.limits, {"sale": encode_event(SALE, other)})
    record = await shop.event()
    assert (record.phase, record.cancelled) == (Phase.ENDED, True)


def test_an_event_that_is_set_again_is_shuffled_again() -> None:
    """Its prequeue opens later, since it can't be set to open in the past."""
    again = replace(SALE, prequeue_ms=SALE.opens_ms + MINUTE)
    assert shuffle_seed("secret", "shop", "sale", again.opens_ms) != SEED
