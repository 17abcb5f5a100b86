"""The stock in a worker: which of the shop's reports reach the store, when, and the polls that follow from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.edge_world import BUSY, World
from waitroom.edge.rooms.stock import StockReports
from waitroom.queue.constants import RISE_AFTER_ZERO_MS
from waitroom.queue.positions import RankIndex, Throughput
from waitroom.queue.view import RoomState, RoomView
from waitroom.tokens import Ticket

STOCK = replace(
    BUSY,
    remaining=100,
    stock_began=(0, 0),
    totals={"sold": 900, "left:released": 900, "left:expired": 100},
    throughput=Throughput(turns=1000, present=1000),
)


@pytest.fixture
def world() -> Iterator[World]:
    with World(view=STOCK) as world:
        yield world


def report(world: World, units: int) -> None:
    """Takes in a report, as from a response of the shop."""
    world.loop.do(world.room.stock.report_remaining, units)
    world.loop.do(world.room.send_urgent_stock)
    world.loop.settle()


def sent(world: World) -> list[int]:
    """The units that the store has been sent since the last call."""
    found = world.store.named("set_remaining")
    world.store.calls.clear()
    return found


def flush(world: World) -> list[int]:
    world.loop.wait(world.room.flush())
    return sent(world)


def test_zero_is_sent_immediately_and_other_values_with_the_flush(world: World) -> None:
    world.loop.wait(world.room.refresh())
    report(world, 7)
    report(world, 5)
    assert sent(world) == []
    assert flush(world) == [5]
    report(world, 0)
    assert sent(world) == [0]
    assert flush(world) == []


def test_units_that_come_back_are_sent_immediately(world: World) -> None:
    world.view = replace(STOCK, remaining=0, state=RoomState.SOLD_OUT, state_by="stock")
    world.loop.wait(world.room.refresh())
    report(world, 0)
    assert sent(world) == []
    report(world, 2)
    assert sent(world) == [2]


def test_a_response_that_was_under_way_before_the_zero_is_ignored(world: World) -> None:
    report(world, 0)
    world.loop.now += RISE_AFTER_ZERO_MS / 1000 - 0.1
    report(world, 3)
    assert sent(world) == [0]
    assert flush(world) == []
    world.loop.now += 0.2
    report(world, 3)
    assert sent(world) == [3]


def test_no_zero_is_lost_while_the_store_is_away(world: World) -> None:
    """It's sent before the units that came back later, each with its age."""
    world.store.broken = {"set_remaining"}
    report(world, 0)
    assert not world.room.store_up
    world.loop.now += 5
    report(world, 4)
    world.loop.now += 3
    report(world, 3)
    sent(world)
    assert flush(world) == [], "it isn't asked before a refresh has reached it"
    world.store.broken, world.store.ages = set(), []
    world.loop.now += 1
    world.loop.wait(world.room.refresh())
    assert flush(world) == [0, 3]
    assert world.store.ages == [9000, 1000]
    assert flush(world) == []


def test_a_newer_value_waits_until_the_store_has_the_older_one(world: World) -> None:
    world.loop.wait(world.room.refresh())
    world.store.hold("set_remaining")
    report(world, 9)
    flushing = world.loop.do(lambda: world.loop.create_task(world.room.flush()))
    world.loop.settle()
    report(world, 0)
    assert world.store.named("set_remaining") == [9]
    world.store.let_go("set_remaining")
    world.loop.wait(flushing)
    assert sent(world) == [9, 0]
    assert flush(world) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.1, 1.0, 2.5]), st.booleans()), max_size=20))
def test_values_are_sent_in_order_and_the_last_zero_always(steps: list[tuple[int, float, bool]]) -> None:
    """Whatever is read, and whenever the store takes something."""
    reports, now = StockReports(), 0.0
    taken: list[tuple[float, int]] = []
    read: list[tuple[float, int]] = []
    for units, pause, takes in steps:
        now += pause
        read.append((now, units))
        reports.add(units, now)
        first = reports.first()
        if takes and first is not None:
            taken.append((first.read_at, first.units))
            reports.acknowledge(first)
    while (first := reports.first()) is not None:
        taken.append((first.read_at, first.units))
        reports.acknowledge(first)
    assert taken == sorted(taken), "never an older one after a newer one"
    assert set(taken) <= set(read)
    assert not reports.urgent
    if read and read[-1][1] == 0:
        assert taken[-1][1] == 0
    if any(units == 0 for _, units in read):
        assert any(units == 0 for _, units in taken)


# Visitors.


def status_at(world: World, position: int) -> tuple[bool | None, int]:
    """What a poll from a position finds: whether everything is likely sold, and the seconds until the next poll."""
    ticket = Ticket(STOCK.high_water_mark + position, STOCK.generation, int(world.unix_time()), position, 0)
    found = world.edge._responder.status(world.room, "waiting", ticket)
    return found.likely_sold_out, found.poll_after


def test_a_visitor_learns_whether_those_ahead_are_likely_to_take_everything(world: World) -> None:
    """A share of 0.89 is measured, at least 0.84: 140 visitors take 100 units even if they take few."""
    assert [status_at(world, position)[0] for position in (1, 140, 142, 5000)] == [False, False, True, True]


def test_it_is_known_that_the_stock_lasts_for_all(world: World) -> None:
    """Nobody has bought anything."""
    world.view = replace(STOCK, totals={"left:released": 1000})
    assert status_at(world, 5000)[0] is False


@pytest.mark.parametrize(
    "view",
    [
        replace(STOCK, remaining=None),
        replace(STOCK, stock_began=None),
        replace(STOCK, totals={"sold": 29, "left:released": 29}),
        replace(STOCK, stock_began=(0, 971)),
        replace(STOCK, state=RoomState.PREQUEUE),
    ],
)
def test_it_is_unknown_without_a_stock_or_with_too_few_sessions(world: World, view: RoomView) -> None:
    world.view = view
    assert status_at(world, 5000)[0] is None


def near_end(world: World, waiting: int, seconds: int = 40) -> None:
    """Sells 10 units a second until the rest lasts for some seconds."""
    ranks = RankIndex("2", (0, waiting), (101, 101 + waiting))
    base = replace(STOCK, waiting=waiting, rank_index=ranks)
    for second in range(10):
        remaining = 10 * (seconds + 9 - second)
        totals = {**STOCK.totals, "sold": 5000 - remaining}
        world.view = replace(base, clock_ms=1000 * second, remaining=remaining, totals=totals)
        world.loop.wait(world.room.refresh())


def test_polls_shorten_as_the_stock_nears_its_end(world: World) -> None:
    near_end(world, 5000, seconds=61)
    assert min(status_at(world, 4000)[1] for _ in range(50)) > 11
    near_end(world, 5000, seconds=59)
    assert {status_at(world, 4000)[1] for _ in range(200)} == {9, 10, 11}
    assert status_at(world, 1)[1] <= 3, "at the front they are shorter anyway"


@pytest.mark.parametrize(("waiting", "seconds"), [(60_542, 60_542 / 5000), (100_000, 20.0), (10_000, 10.0)])
def test_all_polls_come_within_the_interval_that_the_workers_can_answer(waiting: int, seconds: float) -> None:
    """Everybody hears of the end with a poll within a tenth more than the interval, and no second has too many."""
    with World(view=STOCK) as world:
        near_end(world, waiting)
        after = [status_at(world, position)[1] for position in range(1, waiting + 1)]
    behind = after[1000:]  # nearer to the front visitors poll more often anyway
    assert max(after) <= round(1.1 * seconds)
    assert sum(1 / pause for pause in behind) <= 5000 * 1.02
    # Those who poll together once, as at the start of the sale, don't stay together.
    assert max(Counter(behind).values()) < 0.7 * waiting
