"""The store's answer is lost once: whoever asked asks again, and nothing happens twice."""

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from waitroom.errors import StoreUnavailable
from waitroom.queue.fields import Limits
from waitroom.queue.store import QueueStore, Visit
from waitroom.store.connection import connect

LIMITS = Limits(
    rate_per_minute=600,
    max_active=2,
    session_seconds=900,
    claim_seconds=180,
    away_after_seconds=180,
    keep_place_seconds=3600,
)


class Deaf:
    """A script whose first answers don't arrive, although it ran."""

    def __init__(self, script, lost):
        self.script = script
        self.lost = lost

    async def __call__(self, **arguments):
        answer = await self.script(**arguments)
        if self.lost:
            self.lost -= 1
            raise RedisTimeoutError("no answer in time")
        return answer


@pytest.fixture
async def store(each_server):
    async with connect(each_server, timeout_seconds=10) as redis:
        opened = QueueStore(redis, "shop")
        await opened.open(LIMITS)
        yield opened


def lose_answers(store, name, count):
    store._scripts[name] = Deaf(store._scripts[name], count)


async def test_a_join_whose_reply_is_lost_takes_one_place_and_one_slot(store):
    lose_answers(store, "join", 1)
    first = await store.join(3)
    second = await store.join(1)
    assert first.admitted == 1
    assert second.first_place == first.first_place + 3
    view = await store.view()
    assert (view.active, view.waiting, view.totals["joined"]) == (1, 3, 4)


async def test_two_equal_joins_take_two_places(store):
    places = {(await store.join(1)).first_place for _ in range(5)}
    assert len(places) == 5


async def test_a_claim_whose_reply_is_lost_is_granted(store):
    joined = await store.join(2)
    lose_answers(store, "visit", 1)
    fates = await store.visit([Visit(joined.first_place, joined.generation, claim=True)])
    assert [one.fate for one in fates] == ["admitted"]


EVENT = '{"who": "ada", "via": "api", "action": "change"}'


@pytest.mark.parametrize("name", ["change", "call_out_of_order", "end"])
async def test_an_operators_change_whose_reply_is_lost_is_made_and_audited_once(store, name):
    joined = await store.join(3)  # the first is inside, the others wait
    lose_answers(store, name, 1)
    match name:
        case "change":
            changed = await store.change({"max_active": "9"}, expected=0, who="ada", audit_event=EVENT)
            assert (changed.done, changed.version, changed.old) == (True, 1, {"max_active": "2"})
        case "call_out_of_order":
            assert await store.call_out_of_order(joined.first_place + 2, EVENT) == "called"
        case "end":
            assert await store.end_session(joined.first_place, 1000, EVENT)
            assert (await store.view()).totals["left:ended"] == 1
    assert len(await store.audit_events()) == 1


async def test_a_refused_change_leaves_no_note(store):
    joined = await store.join(1)
    assert not (await store.change({"max_active": "9"}, expected=7, who="ada", audit_event=EVENT)).done
    assert await store.call_out_of_order(joined.first_place + 7, EVENT) == "unknown"
    assert not await store.end_session(joined.first_place + 7, 1000, EVENT)
    assert await store.audit_events() == []


async def test_a_silent_store_is_not_retried_forever(store):
    lose_answers(store, "seen", 2)
    with pytest.raises(StoreUnavailable):
        await store.seen([1])
    assert store._scripts["seen"].lost == 0
