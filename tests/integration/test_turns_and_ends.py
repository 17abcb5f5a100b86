"""Turns that visitors are told of and miss, the hard end of sessions, and how workers learn of ends: on real stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from waitroom.queue.fields import Limits
from waitroom.queue.reference_model import QueueModel
from waitroom.queue.store import QueueStore, SessionChange, SessionOperation, Visit, Visited
from waitroom.queue.view import RoomState
from waitroom.store.connection import connect

pytestmark = pytest.mark.slow

SERVER_SECONDS = 10.0
NOON = 1_790_000_000_000
TOLD_SECONDS = 90
LIMITS = Limits(6000, 5, 900, 180, 180, 3600, claim_after_told_seconds=TOLD_SECONDS, session_max_seconds=3600)
ONE_SLOT = replace(LIMITS, max_active=1)


@dataclass
class Shop:
    """A room on a server whose clock is set by hand."""

    store: QueueStore = field(init=False)
    now: int = NOON
    generation: int = 0

    async def open(self, limits: Limits = LIMITS) -> None:
        self.generation = await self.store.open(limits)

    async def join(self) -> int:
        return (await self.store.join(1)).first_place

    async def visit(self, place: int, *, claim: bool = False, more: bool = False, told: bool = True) -> Visited:
        [visited] = await self.store.visit([Visit(place, self.generation, claim, more, told)])
        return visited

    async def session(self, operation: SessionOperation, session: int, ms: int) -> bool:
        [alive] = await self.store.change_sessions([SessionChange(operation, session, ms)])
        return alive

    async def wait(self, seconds: float, step: float = 10) -> None:
        """Lets the room's time pass, with a tick after each step."""
        for _ in range(round(seconds / step)):
            self.now += round(step * 1000)
            await self.store.tick()


@pytest.fixture
async def shop(each_server: str) -> AsyncIterator[Shop]:
    shop = Shop()
    async with connect(each_server, timeout_seconds=SERVER_SECONDS) as redis:
        shop.store = QueueStore(redis, "shop", clock=lambda: shop.now, run_id=lambda: "run")
        yield shop


async def called_one(shop: Shop, limits: Limits = ONE_SLOT) -> tuple[int, int]:
    """Somebody who has just been called, and somebody behind."""
    await shop.open(limits)
    inside = await shop.join()
    first, second = await shop.join(), await shop.join()
    await shop.session("end", inside, 0)
    await shop.wait(1, 1)
    assert (await shop.visit(first, told=False)).fate == "called"
    return first, second


# Turns.


async def test_a_notified_visitor_has_less_time_from_the_first_notification(shop: Shop) -> None:
    first, _ = await called_one(shop)
    assert (await shop.visit(first, told=False)).left_ms == 180_000
    await shop.wait(30)
    assert (await shop.visit(first)).left_ms == 90_000
    await shop.wait(10)
    assert (await shop.visit(first)).left_ms == 80_000


async def test_the_time_never_exceeds_that_of_the_call(shop: Shop) -> None:
    first, _ = await called_one(shop)
    await shop.wait(150)
    assert (await shop.visit(first)).left_ms == 30_000


async def test_more_time_is_given_once(shop: Shop) -> None:
    first, _ = await called_one(shop)
    await shop.visit(first)
    await shop.wait(60)
    for _ in range(2):
        assert await shop.visit(first, more=True) == Visited("called", 120_000)
    await shop.wait(110)
    assert (await shop.visit(first, claim=True)).fate == "admitted"


async def test_a_notified_visitor_who_missed_the_turn_returns_once_at_the_end(shop: Shop) -> None:
    late, second = await called_one(shop)
    await shop.visit(late)
    await shop.wait(TOLD_SECONDS)
    assert (await shop.visit(second, told=False)).fate == "called"
    third = await shop.join()
    moved = await shop.visit(late)
    assert moved.fate == "waiting"
    assert moved.moved_to > third
    for _ in range(2):
        assert await shop.visit(late) == moved, "an old ticket stands for the same place, however often it is shown"
    fourth = await shop.join()
    assert fourth > moved.moved_to
    assert (await shop.visit(second, claim=True)).fate == "admitted"
    await shop.session("end", second, 0)
    await shop.wait(1, 1)
    assert (await shop.visit(third, claim=True)).fate == "admitted"
    await shop.session("end", third, 0)
    await shop.wait(1, 1)
    assert (await shop.visit(late)) == Visited("called", 90_000, moved.moved_to)
    await shop.wait(TOLD_SECONDS)
    assert (await shop.visit(late)).fate == (await shop.visit(moved.moved_to)).fate == "unknown"


async def test_the_new_place_is_claimed_with_either_ticket(shop: Shop) -> None:
    late, second = await called_one(shop)
    await shop.visit(late)
    await shop.wait(TOLD_SECONDS)
    await shop.store.leave(second, 0)
    moved = await shop.visit(late)
    await shop.wait(1, 1)
    assert await shop.visit(late, claim=True) == Visited("admitted", 3_600_000, moved.moved_to)
    assert await shop.visit(moved.moved_to, claim=True) == Visited("admitted", 3_600_000)
    assert (await shop.store.view()).active == 1


async def test_an_old_ticket_is_forgotten_when_nobody_shows_it(shop: Shop) -> None:
    late, _ = await called_one(shop, replace(ONE_SLOT, keep_place_seconds=300))
    await shop.visit(late)
    await shop.wait(TOLD_SECONDS)
    await shop.visit(late)
    await shop.wait(290)
    await shop.visit(late)
    assert await remembered(shop) == 2
    await shop.wait(300)
    assert await remembered(shop) == 0
    assert (await shop.visit(late)).fate == "unknown"


async def remembered(shop: Shop) -> int:
    """How many entries are kept of old tickets."""
    redis = shop.store._redis
    moved, until = ("waitroom:{shop}:moved", "waitroom:{shop}:moved_until")
    return int(await redis.hlen(moved)) + int(await redis.zcard(until))  # type: ignore[misc]


async def test_giving_up_an_old_ticket_gives_up_the_new_place(shop: Shop) -> None:
    late, _ = await called_one(shop)
    await shop.visit(late)
    await shop.wait(TOLD_SECONDS)
    moved = (await shop.visit(late)).moved_to
    assert await shop.store.leave(late, 0)
    assert (await shop.visit(late)).fate == (await shop.visit(moved)).fate == "unknown"
    assert await remembered(shop) == 0


async def test_a_visitor_who_was_not_notified_keeps_the_place(shop: Shop) -> None:
    first, second = await called_one(shop)
    await shop.wait(180)
    assert (await shop.store.view()).away == 1
    back = await shop.visit(first)
    assert (back.fate, back.moved_to) == ("waiting", 0)
    await shop.store.leave(second, 0)
    await shop.wait(1, 1)
    assert (await shop.visit(first, claim=True)).fate == "admitted"


@pytest.mark.parametrize("state", [RoomState.CLOSED, RoomState.SOLD_OUT])
async def test_a_turn_that_cannot_be_used_is_not_missed(shop: Shop, state: RoomState) -> None:
    first, _ = await called_one(shop)
    await shop.wait(10)
    await shop.visit(first)
    await shop.store.set_state(state)
    await shop.wait(3600)
    assert (await shop.visit(first, claim=True)) == Visited("called", 90_000)
    await shop.store.set_state(RoomState.OPEN)
    await shop.wait(80)
    assert (await shop.visit(first, claim=True)).fate == "admitted"


async def test_a_turn_survives_a_restart_of_the_store(shop: Shop) -> None:
    first, _ = await called_one(shop)
    await shop.visit(first)
    shop.now += 86_400_000
    await shop.store.tick()
    assert (await shop.visit(first)).left_ms == 80_000


async def test_paused_rooms_accept_claims_and_turns_continue(shop: Shop) -> None:
    first, _ = await called_one(shop)
    await shop.store.set_state(RoomState.PAUSED)
    await shop.wait(10)
    assert (await shop.visit(first, told=False)).left_ms == 170_000
    assert (await shop.visit(first, claim=True)).fate == "admitted"


@dataclass
class Squatters:
    """They poll once a second with the tickets they joined with, and never go in."""

    tickets: list[int]

    def visits(self, generation: int) -> list[Visit]:
        return [Visit(place, generation, claim=False) for place in self.tickets]


async def test_squatters_cost_those_behind_one_short_turn_each(shop: Shop) -> None:
    await shop.open()
    model = QueueModel("run")
    model.open(shop.now, LIMITS)
    inside = await shop.store.join(5)
    squatters = Squatters(list(range(inside.first_place + 5, inside.first_place + 20)))
    honest = squatters.tickets[-1] + 1
    assert (await shop.store.join(15)).first_place == squatters.tickets[0]
    assert await shop.join() == honest
    assert [model.join(shop.now, number) for number in (5, 15, 1)][-1].first_place == honest
    ends = [SessionChange("end", inside.first_place + one, 0) for one in range(5)]
    assert await shop.store.change_sessions(ends) == model.change_sessions(shop.now, ends)
    turns = dict.fromkeys(squatters.tickets, 0)
    fates = dict.fromkeys(squatters.tickets, "waiting")
    bound = (15 // 5 + 1) * TOLD_SECONDS
    for second in count(1):
        assert second <= bound, "squatters keep an honest visitor out"
        shop.now += 1000
        assert await shop.store.tick() == model.tick(shop.now)
        visits = squatters.visits(shop.generation)
        answers = await shop.store.visit(visits)
        assert answers == model.visit(shop.now, visits)
        mine = [Visit(honest, shop.generation, claim=True)]
        [visited] = await shop.store.visit(mine)
        assert [visited] == model.visit(shop.now, mine)
        if visited.fate == "admitted":
            break  # with this tick some are called again, behind the honest one
        for place, answer in zip(squatters.tickets, answers, strict=True):
            turns[place] += answer.fate == "called" and fates[place] != "called"
            fates[place] = answer.fate
    assert set(turns.values()) == {1}


# Hard ends.


async def test_a_used_ticket_gets_the_same_hard_end_again(shop: Shop) -> None:
    first, _ = await called_one(shop)
    assert await shop.visit(first, claim=True) == Visited("admitted", 3_600_000)
    for minute in range(1, 60):
        await shop.wait(60)
        assert await shop.session("keep", first, 3_600_000)
        assert await shop.visit(first, claim=True) == Visited("admitted", 3_600_000 - minute * 60_000)
    await shop.wait(60)
    assert (await shop.visit(first, claim=True)).fate == "unknown"
    assert not await shop.session("keep", first, 3_600_000)
    await shop.wait(30)
    assert (await shop.store.view()).active == 0


async def test_a_directly_admitted_visitor_has_a_hard_end(shop: Shop) -> None:
    await shop.open()
    place = await shop.join()
    await shop.wait(100)
    assert await shop.visit(place, claim=True) == Visited("admitted", 3_500_000)


async def test_endless_activity_keeps_no_slot_beyond_the_hard_end(shop: Shop) -> None:
    """An open WebSocket is activity; a worker tells it with what its pass has left, which is nothing in the end."""
    await shop.open()
    place = await shop.join()
    for left in range(3_600, -120, -10):
        await shop.session("keep", place, max(0, left * 1000))
        await shop.wait(10)
    assert (await shop.store.view()).active == 0


async def test_holds_add_up_to_one_more_session_at_most(shop: Shop) -> None:
    await shop.open()
    place = await shop.join()
    for _ in range(7_000 // 100):
        assert await shop.session("hold", place, 1_000_000)
        await shop.wait(100)
    assert (await shop.store.view()).active == 1
    assert await shop.visit(place, claim=True) == Visited("admitted", 200_000)
    await shop.session("hold", place, 1_000_000)
    await shop.wait(230)
    assert (await shop.store.view()).active == 0


async def test_a_lost_hard_end_is_restored(shop: Shop) -> None:
    await shop.open()
    place = await shop.join()
    await shop.store._redis.flushall()
    await shop.open()
    assert await shop.session("keep", place, 1_000_000)
    assert await shop.session("keep", place, 2_000_000)
    assert await shop.visit(place, claim=True) == Visited("admitted", 1_000_000)


# The method reject.


async def test_a_room_that_rejects_admits_nobody_and_throws_nobody_out(shop: Shop) -> None:
    called, waiting = await called_one(shop)
    await shop.open(replace(ONE_SLOT, max_active=2))
    await shop.wait(1, 1)
    assert (await shop.visit(waiting, claim=True)).fate == "admitted"
    behind = await shop.join()
    inside = waiting

    await shop.open(replace(LIMITS, method="reject"))

    view = await shop.store.view()
    assert (view.state, view.own_state, view.method) == (RoomState.CLOSED, RoomState.OPEN, "reject")
    joined = await shop.store.join(1)
    assert (joined.first_place, joined.state) == (0, RoomState.CLOSED)
    await shop.wait(20)
    assert [(await shop.visit(place, claim=True)).fate for place in (called, behind)] == ["called", "waiting"]
    assert await shop.store.call_out_of_order(behind, "{}") == "not_open"
    assert await shop.session("keep", inside, 900_000)
    await shop.store.set_state(RoomState.PAUSED)
    assert (await shop.store.view()).state is RoomState.CLOSED
    await shop.store.set_state(RoomState.SOLD_OUT)
    assert (await shop.store.view()).state is RoomState.SOLD_OUT
    await shop.store.set_state(RoomState.OPEN)

    await shop.open(LIMITS)
    assert (await shop.store.view()).state is RoomState.OPEN
    assert (await shop.visit(called, claim=True)).fate == "admitted"
    await shop.wait(1, 1)
    assert (await shop.visit(behind)).fate == "called"


# How workers learn of ends.


async def test_every_worker_learns_of_every_end_once(shop: Shop) -> None:
    await shop.open(replace(LIMITS, method="passthrough"))
    places = [await shop.join() for _ in range(5)]
    one, other = await shop.store.view(), await shop.store.view()
    assert one.ended == one.released == ()
    await shop.session("end", places[0], 1000)
    await shop.session("release", places[1], 1000)
    await shop.store.leave(places[2], 1000, has_pass=True)
    one = await shop.store.view(one)
    assert (one.ended, one.released) == ((places[0], places[2]), (places[1],))
    await shop.store.end_session(places[3], 1000, "{}")
    one, other = await shop.store.view(one), await shop.store.view(other)
    assert (one.ended, one.released) == ((places[3],), ())
    assert (other.ended, other.released) == ((places[0], places[2], places[3]), (places[1],))
    new = await shop.store.view()
    assert (new.ended, new.released) == (other.ended, other.released)
    await shop.wait(40)
    assert (await shop.store.view()).ended == ()
    assert (await shop.store.view(one)).ended == ()


async def test_many_ends_come_a_thousand_at_a_time(shop: Shop) -> None:
    await shop.open(replace(LIMITS, method="passthrough"))
    first = (await shop.store.join(2_500)).first_place
    view = await shop.store.view()
    for start in range(0, 2_500, 500):
        ends = [SessionChange("end", first + start + one, 1000) for one in range(500)]
        await shop.store.change_sessions(ends)
    told: list[int] = []
    for expected in (1_000, 1_000, 500, 0):
        view = await shop.store.view(view)
        assert len(view.ended) == expected
        told += view.ended
    assert told == list(range(first, first + 2_500))


# Places for nothing.


async def test_a_place_that_only_waited_leaves_no_trace(shop: Shop) -> None:
    await shop.open(replace(LIMITS, max_active=1))
    redis = shop.store._redis
    await shop.join()
    await take_and_give_up(shop, 500)
    await forget_answers(shop)
    before = int((await redis.info("memory"))["used_memory"])
    for _ in range(10):
        place = await take_and_give_up(shop, 500)
    await forget_answers(shop)
    after = int((await redis.info("memory"))["used_memory"])
    assert after - before < 10 * 5_000, "bytes a place"
    assert await redis.zcard("waitroom:{shop}:ended") == 0
    assert (await shop.visit(place, claim=True)).fate == "unknown"


async def take_and_give_up(shop: Shop, count: int) -> int:
    first = (await shop.store.join(count)).first_place
    for place in range(first, first + count):
        assert await shop.store.leave(place, 14_400_000)
    return first


async def forget_answers(shop: Shop) -> None:
    """The store keeps the answer to a join for ten seconds of its own clock."""
    redis = shop.store._redis
    for key in await redis.keys("*:answered:*"):
        await redis.delete(key)


async def test_a_used_ticket_that_gives_up_ends_its_session(shop: Shop) -> None:
    await shop.open()
    place = await shop.join()
    assert await shop.store.leave(place, 14_400_000)
    assert not await shop.session("keep", place, 1_000_000)
    assert (await shop.visit(place, claim=True)).fate == "unknown"


# What the last version stored.


async def test_a_room_stored_by_an_earlier_version_continues(shop: Shop) -> None:
    """Its hash has no field of turns and hard ends; somebody is called, inside and away each."""
    redis, key = shop.store._redis, "waitroom:{shop}:"
    stored = (
        f"clock={NOON} wall={NOON} rate=600.0 max_active=5 session_ms=900000 claim_ms=60000 away_ms=180000 "
        f"keep_ms=3600000 method=fifo state=open tokens=1 seq=104 head=103 generation={NOON} base=100 run_id=run "
        f"freed=0 message= remaining= pace_clock={NOON} pace_freed=0 pace_slot_ms=0 pace_since_ms=0 pace_told=0 "
        "pace_called=0 pace_met=0 version=7"
    )
    fields = dict(pair.split("=") for pair in stored.split())
    fields |= {f"file:{name}": fields[name] for name in ("rate", "max_active", "session_ms", "claim_ms")}
    fields |= {f"file:{name}": fields[name] for name in ("away_ms", "keep_ms", "method")}
    await redis.hset(key + "room", mapping=fields)  # type: ignore[misc]
    await redis.zadd(key + "active", {"101": NOON + 930_000})
    await redis.zadd(key + "called", {"102": NOON + 60_000})
    await redis.zadd(key + "away", {"103": NOON + 3_600_000})
    await redis.zadd(key + "waiting", {"104": 104})
    shop.generation = NOON
    limits = await shop.store.limits()
    assert (limits.claim_after_told_seconds, limits.session_max_seconds) == (60, 14_400)
    assert (await shop.visit(102)).left_ms == 60_000
    assert await shop.visit(101, claim=True) == Visited("admitted", 14_400_000)
    await shop.wait(10)
    assert await shop.visit(101, claim=True) == Visited("admitted", 14_390_000)
    assert (await shop.visit(102, claim=True)).fate == "admitted"
    assert (await shop.visit(103)).fate == "waiting"
    now = replace(limits, claim_after_told_seconds=45)
    assert await shop.store.open(now) == NOON
    view = await shop.store.view()
    assert (view.version, view.last_change) == (7, ""), "a limit that the room never had is no change of it"
    assert (await shop.store.limits()) == now
