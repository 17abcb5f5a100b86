"""Passthrough: the visitors whom each limit would have let wait, counted by a real store with a clock set by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from waitroom.queue.fields import Limits
from waitroom.queue.store import QueueStore
from waitroom.store.connection import connect

pytestmark = pytest.mark.slow

LIMITS = Limits(60, 1000, 900, 180, 180, 3600, method="passthrough")


@dataclass
class Room:
    """A passthrough room; ``now`` is its wall clock in milliseconds."""

    store: QueueStore
    now: int = 1_790_000_000_000

    async def open(self, limits: Limits = LIMITS) -> None:
        await self.store.open(limits)

    async def join(self, *counts: int) -> list[int]:
        """Joins in several calls at the same time; how many each admitted."""
        return [(await self.store.join(count)).admitted for count in counts]

    async def over(self) -> tuple[int, int]:
        """The visitors over the rate and over max_active."""
        totals = (await self.store.view()).totals
        return totals.get("over:rate", 0), totals.get("over:max_active", 0)


@pytest.fixture
async def room(valkey: str) -> AsyncIterator[Room]:
    async with connect(valkey, timeout_seconds=10) as redis:
        room = Room(QueueStore(redis, "shop", clock=lambda: room.now, run_id=lambda: "run"))
        yield room


@pytest.mark.parametrize("calls", [(100,), (1,) * 100, (1, 60, 39)])
async def test_the_rate_would_have_let_all_but_one_of_100_wait(room: Room, calls: tuple[int, ...]) -> None:
    await room.open()
    assert sum(await room.join(*calls)) == 100
    assert await room.over() == (99, 0)


async def test_tokens_accumulate_up_to_the_burst(room: Room) -> None:
    await room.open(replace(LIMITS, rate_per_minute=600))
    room.now += 1000
    await room.join(15)
    assert await room.over() == (5, 0)
    room.now += 300
    await room.join(2, 2)
    assert await room.over() == (6, 0)
    room.now += 60_000
    await room.join(10)
    assert await room.over() == (6, 0)


async def test_slots_in_use_count_and_those_that_become_free(room: Room) -> None:
    await room.open(replace(LIMITS, rate_per_minute=60_000, max_active=10))
    room.now += 1000
    first = await room.store.join(8)
    await room.join(5, 5)
    assert await room.over() == (0, 8)
    for place in range(first.first_place, first.first_place + 8):
        await room.store.leave(place, 0, has_pass=True)
    await room.join(1)
    assert await room.over() == (0, 9)  # 10 of 18 are still inside
    for place in range(first.first_place + 8, first.first_place + 10):
        await room.store.leave(place, 0, has_pass=True)
    await room.join(1)
    assert await room.over() == (0, 9)


async def test_one_visitor_can_exceed_both_limits(room: Room) -> None:
    await room.open(replace(LIMITS, max_active=1))
    await room.join(3)
    assert await room.over() == (2, 2)


async def test_tokens_taken_in_advance_count_no_visitor_twice(room: Room) -> None:
    """An operator's call out of order takes a token that isn't there yet."""
    await room.open(replace(LIMITS, method="fifo"))
    joined = await room.store.join(4)
    for place in range(joined.first_place + 1, joined.first_place + 4):
        await room.store.call_out_of_order(place, "")
    await room.open(LIMITS)
    await room.join(1)
    assert await room.over() == (1, 0)


async def test_a_room_with_a_queue_counts_nothing(room: Room) -> None:
    await room.open(replace(LIMITS, method="fifo"))
    await room.join(100)
    assert await room.over() == (0, 0)
