"""The autopilot's loop over a real store: leases, stored decisions and failures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from waitroom.control.autopilot.model import Move
from waitroom.control.autopilot.runner import RoomController
from waitroom.control.autopilot.state import KEPT_DECISIONS, DecisionLog
from waitroom.errors import StoreUnavailable
from waitroom.metrics.upstream_window import UpstreamStats
from waitroom.queue.fields import limits_of
from waitroom.queue.store import QueueStore
from waitroom.queue.view import RoomState, RoomView
from waitroom.settings import RoomSettings
from waitroom.store.connection import connect

pytestmark = pytest.mark.slow

ROOM = RoomSettings(
    name="shop", upstream="http://127.0.0.1:3000", rate_per_minute=600, autopilot_floor=60, autopilot_ceiling=900
)
HEALTHY = UpstreamStats(4.0, 4200, 0, 0, 0.03, 0.08, 3, 3)
FAILING = UpstreamStats(4.0, 4200, 2100, 0, 0.03, 0.08, 3, 3)


@dataclass
class Control:
    """One control process with its own view and controller; the room's clock is set by hand."""

    store: QueueStore
    controller: RoomController
    clock: list[int]
    store_up: bool = True
    view: RoomView | None = None
    on: bool = True
    changes: list[tuple[float, str]] = field(default_factory=list)

    async def step(self, shop: UpstreamStats = HEALTHY, *, times: int = 1) -> Move | None:
        decision = None
        for _ in range(times):
            self.clock[0] += 2000
            self.view = await self.store.view(self.view)
            decision = await self.controller.step(lambda _seconds: shop)
        return None if decision is None else decision.move

    async def rate(self) -> float:
        self.view = await self.store.view(self.view)
        return self.view.rate_per_minute


@pytest_asyncio.fixture
async def redis_client(valkey: str) -> AsyncIterator[Redis]:
    async with connect(valkey, timeout_seconds=10) as client:
        yield client


@pytest_asyncio.fixture
async def control(redis_client: Redis) -> Callable[[str], Control]:
    clock = [1_800_000_000_000]
    store = QueueStore(redis_client, "shop", clock=lambda: clock[0])
    await store.open(limits_of(ROOM))

    def make(name: str) -> Control:
        async def change(_view: RoomView, rate: float, why: str) -> None:
            made.changes.append((rate, why))
            await store.set_limits({"rate": repr(rate)})

        class Status:
            @property
            def view(self) -> RoomView | None:
                return made.view

            @property
            def store_up(self) -> bool:
                return made.store_up

        controller = RoomController(
            ROOM, Status(), DecisionLog(redis_client, "shop", name), change, lambda _: made.on, lambda: 1e9
        )
        made = Control(store, controller, clock)
        return made

    return make


async def test_a_failing_shop_gets_no_visitors_and_the_room_stays_open(control: Callable[[str], Control]) -> None:
    one = control("one")
    await one.step(times=4)
    assert await one.step(FAILING) is Move.HOLD
    assert await one.rate() == 0
    assert one.view is not None
    assert one.view.state is RoomState.OPEN
    assert one.changes[-1][1] == one.controller.described()["summary"]
    assert (await one.step(HEALTHY, times=8), await one.rate()) != (None, 0)


async def test_one_of_two_controllers_decides_and_the_other_takes_over(
    control: Callable[[str], Control], redis_client: Redis
) -> None:
    one, other = control("one"), control("other")
    await one.step(times=4)
    await other.step(times=4)
    assert await other.step() is None
    assert await one.step(FAILING) is Move.HOLD
    assert await other.step() is None
    assert other.controller.described()["summary"] == one.controller.described()["summary"], (
        "both dashboards show the same"
    )
    # The lease runs out by itself; tests don't wait for it.
    await redis_client.delete(one.controller.decision_log.keys[0])
    assert await other.step(FAILING) is Move.KEEP, "it continues the hold, and doesn't start again"
    assert "Admission is still stopped" in other.controller.described()["summary"]
    assert await one.step() is None


async def test_learned_state_survives_a_restart_of_control(control: Callable[[str], Control]) -> None:
    one = control("one")
    await one.step(times=4)
    before = (await one.controller.decision_log.acquire())[1]
    again = control("one")
    await again.step(times=4)
    after = (await again.controller.decision_log.acquire())[1]
    assert before.best_p50 > 0
    assert after.asked > before.asked > 0
    assert after.best_p50 == pytest.approx(before.best_p50, rel=0.01)


async def test_decisions_with_an_effect_are_kept_within_a_bound(control: Callable[[str], Control]) -> None:
    one = control("one")
    await one.step(times=4)
    await one.step(FAILING)
    kept = await one.controller.decision_log.decisions()
    assert [(one.move, one.rate) for one in kept] == [("hold", 0)]
    assert kept[0].described()["at"] == "2001-09-09T01:46:40Z"
    memory, decision = (await one.controller.decision_log.acquire())[1:]
    assert decision is not None
    for number in range(KEPT_DECISIONS + 5):
        await one.controller.decision_log.record(memory, type(decision)(number, "raise", number, "more"), keep=True)
    assert len(await one.controller.decision_log.decisions(10_000)) == KEPT_DECISIONS


async def test_switched_off_it_does_nothing_and_its_hold_ends(control: Callable[[str], Control]) -> None:
    one = control("one")
    one.on = False
    assert await one.step(FAILING, times=6) is None
    assert one.changes == []
    one.on = True
    await one.step(times=4)
    assert await one.step(FAILING) is Move.HOLD
    one.on = False
    assert await one.step(FAILING) is Move.RESUME
    assert await one.rate() == ROOM.autopilot_floor
    assert await one.step(FAILING) is None


async def test_an_operators_pause_is_not_a_hold_and_stays(control: Callable[[str], Control]) -> None:
    one = control("one")
    await one.step(times=4)
    await one.store.set_state(RoomState.PAUSED)
    assert await one.step(FAILING) is Move.KEEP
    assert await one.rate() == 600
    assert one.view is not None
    assert one.view.state is RoomState.PAUSED


async def test_nothing_is_decided_without_the_store_or_the_shops_figures(control: Callable[[str], Control]) -> None:
    one = control("one")
    await one.step(times=4)
    assert await one.step(UpstreamStats()) is None
    one.store_up = False
    assert await one.step(FAILING) is None
    one.store_up = True
    assert await one.step(FAILING) is None, "figures from the time in between are not recent"
    assert one.changes == []
    assert await one.step(FAILING) is Move.HOLD


async def test_an_unavailable_store_is_logged(control: Callable[[str], Control]) -> None:
    one = control("one")
    await one.step(times=4)
    async with connect("unix:///nowhere/redis.sock") as gone:
        one.controller.decision_log = DecisionLog(gone, "shop", "one")
        with pytest.raises(StoreUnavailable):
            await one.step()
    assert one.changes == []


async def test_nobody_is_called_during_a_hold(control: Callable[[str], Control]) -> None:
    one = control("one")
    await one.step(times=4)
    await one.step(FAILING)
    joined = await one.store.join(5)
    assert joined.admitted <= 1  # a token from before the hold
    await one.store.tick()
    one.clock[0] += 60_000
    assert (await one.store.tick()).called == 0
    assert (await one.store.view()).waiting >= 4


async def test_a_controller_without_the_lease_writes_nothing(control: Callable[[str], Control]) -> None:
    one, other = control("one"), control("other")
    await one.step(times=4)
    _, memory, decision = await one.controller.decision_log.acquire()
    assert decision is not None
    assert not await other.controller.decision_log.record(memory, decision, keep=True)
    assert await one.controller.decision_log.record(memory, decision, keep=True)
