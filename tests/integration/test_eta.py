"""The waits that a real line tells: they hold what comes, and don't rise while nothing about the room changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from waitroom.queue.fields import Limits
from waitroom.queue.positions import Forecast
from waitroom.queue.store import QueueStore, SessionChange, Visit
from waitroom.store.connection import connect

SERVER_SECONDS = 30.0
NOON = 1_790_000_000_000
STEP_MS = 500
POLL_MS = 15_000

Shopping = Callable[[random.Random], float]


@dataclass
class Told:
    """What one visitor was told, each with the time in ms, and when they were called."""

    place: int
    waits: list[tuple[int, tuple[int, int] | None]] = field(default_factory=list)
    called_at: int = 0

    @property
    def known(self) -> list[tuple[int, tuple[int, int]]]:
        return [(at, wait) for at, wait in self.waits if wait is not None]

    @property
    def highs(self) -> list[int]:
        return [wait[1] for _, wait in self.known]

    @property
    def share_true(self) -> float:
        """How often the range held what was left to wait; a step and a second's rounding don't count."""
        left = [((self.called_at - at) / 1000, wait) for at, wait in self.known]
        return sum(low - 1 <= seconds <= high + 1 for seconds, (low, high) in left) / len(left)


async def wait_in_line(url: str, limits: Limits, shopping: Shopping, crowd: int, watch: int, absent: float) -> Told:
    """A crowd comes at once; everybody goes in when called and leaves after ``shopping`` seconds."""
    chance = random.Random(7)
    now = NOON
    async with connect(url, timeout_seconds=SERVER_SECONDS) as redis:
        store = QueueStore(redis, "shop", clock=lambda: now)
        await store.open(limits)
        joined = await store.join(crowd)
        places = range(joined.first_place, joined.first_place + crowd)
        gone = {place for place in places if chance.random() < absent}
        told = Told(next(place for place in places[watch:] if place not in gone))
        leaves_at = {place: now + shopping(chance) * 1000 for place in places[: joined.admitted]}
        waiting = list(places[joined.admitted :])
        seen_at = now
        while absent and now < NOON + 250_000:  # until the gone count as absent
            now += 10_000
            await store.seen(place for place in waiting if place not in gone)
        while not told.called_at:
            now += STEP_MS
            if now - seen_at >= POLL_MS:
                seen_at = now
                await store.seen(place for place in waiting if place not in gone)
            done = [place for place, at in leaves_at.items() if at <= now]
            for place in done:
                del leaves_at[place]
            await store.change_sessions([SessionChange("end", place, 0) for place in done])
            ticked = await store.tick()
            passed = waiting[: ticked.called + ticked.skipped]
            del waiting[: len(passed)]
            called = [place for place in passed if place not in gone]
            assert len(called) == ticked.called
            await store.visit([Visit(place, joined.generation, claim=True) for place in called])
            leaves_at |= {place: now + shopping(chance) * 1000 for place in called}
            if told.place in called:
                told.called_at = now
            else:
                view = await store.view()
                position = view.rank_index.position(told.place)
                wait = Forecast(view.rate_per_minute, view.throughput, view.free_slots).wait(position)
                told.waits.append((now, wait))
    return told


def limits(rate: float, slots: int) -> Limits:
    return Limits(rate, slots, 120, 60, 60, 3600)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "slots", "crowd", "watch", "shopping"),
    [
        pytest.param(60, 1_000, 200, 150, lambda _: 60, id="the rate bounds it"),
        pytest.param(600, 50, 400, 150, lambda chance: chance.uniform(20, 60), id="the slots bound it"),
        pytest.param(600, 50, 400, 300, lambda chance: chance.uniform(20, 60), id="the slots bound it, far behind"),
        pytest.param(600, 50, 400, 300, lambda chance: chance.expovariate(1 / 40), id="some leave at once, some stay"),
        pytest.param(600, 3, 60, 50, lambda chance: chance.uniform(5, 20), id="few slots"),
    ],
)
async def test_the_announced_wait_holds_and_does_not_rise(
    valkey: str, rate: float, slots: int, crowd: int, watch: int, shopping: Shopping
) -> None:
    told = await wait_in_line(valkey, limits(rate, slots), shopping, crowd, watch, absent=0)
    assert len(told.known) > len(told.waits) / 2
    assert told.highs == sorted(told.highs, reverse=True)
    assert told.share_true >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "slots"), [(60, 1_000), (600, 50)])
async def test_many_absent_visitors_ahead_shorten_the_wait(valkey: str, rate: float, slots: int) -> None:
    def shopping(chance: random.Random) -> float:
        return chance.uniform(20, 60)

    told = await wait_in_line(valkey, limits(rate, slots), shopping, crowd=500, watch=300, absent=0.4)
    assert told.highs == sorted(told.highs, reverse=True)
    assert told.share_true >= 0.9
