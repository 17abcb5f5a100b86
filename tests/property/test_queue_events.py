"""Events and stock by random operations, beside all else that befalls a room: see ``test_queue.py``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from support.examples import examples
from support.queue_machine import HOUR_MS, machine_settings
from support.queue_rules import LIMITS, LOOK_UPS, SOME, STEP_MS, Line, some
from waitroom.queue.fields import Limits
from waitroom.queue.schedule import After, Before, Event, QueueOrder
from waitroom.queue.store import EventAction

NAMES = 4
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True)
class Plan:
    """An event, with times from the one before it on."""

    wait_ms: int
    prequeue_ms: int | None
    lasts_ms: int | None
    method: QueueOrder
    before: Before
    after: After
    units: int | None
    limits: dict[str, Any] = field(default_factory=dict)

    def event(self, name: str, now: int) -> Event:
        opens = now + self.wait_ms
        start = opens + (self.prequeue_ms or 0)
        return Event(
            *(name, "", start, None if self.prequeue_ms is None else opens),
            *(None if self.lasts_ms is None else start + self.lasts_ms, self.method, self.before, self.after),
            *(self.units, self.limits),
        )


METHODS = st.sampled_from(["random", "random", "fifo"])
BEFORE = st.sampled_from(["closed", "open"])
AFTER = st.sampled_from(["open", "closed", "sold_out"])
UNITS = st.sampled_from([0, 0, 1, 2, 3, 40])
EVENT_LIMITS = st.sampled_from(
    [
        {},
        {"max_active": 1},
        {"rate_per_minute": 6000.0, "autopilot": False, "max_active": 5},
        {"rate_per_minute": 60.0, "autopilot": True},
        {"session_seconds": 10.0, "claim_seconds": 5.0, "max_active": 3},
        {"session_max_seconds": 15.0, "keep_place_seconds": 20.0, "recovery_seconds": 3.0},
    ]
)
PLANS = st.builds(
    Plan,
    st.sampled_from([1, 3_000, 20_000, 60_000]),
    st.sampled_from([None, 2_000, 10_000, 30_000]),
    st.sampled_from([None, 2_000, 20_000, 60_000, HOUR_MS]),
    *(METHODS, BEFORE, AFTER, st.one_of(st.none(), UNITS), EVENT_LIMITS),
)
CHANGES = st.one_of(
    *(st.tuples(st.just("title"), st.sampled_from(["", "The sale"])), st.tuples(st.just("method"), METHODS)),
    *(st.tuples(st.just("before"), BEFORE), st.tuples(st.just("after"), AFTER), st.tuples(st.just("units"), UNITS)),
    *(st.tuples(st.just("limits"), EVENT_LIMITS), st.tuples(st.just("start_ms"), STEP_MS)),
    *(st.tuples(st.just("prequeue_ms"), st.one_of(st.none(), STEP_MS)), st.tuples(st.just("end_ms"), STEP_MS)),
)
ACTIONS = st.sampled_from(["start", "start", "end", "cancel"])
WHICH = st.integers(0, NAMES)


class Sales(Line):
    """A room with events, whose shop reports its stock."""

    @initialize(limits=LIMITS, crowd=st.integers(0, 12), plans=st.lists(PLANS, max_size=2))
    def first_opened(self, limits: Limits, crowd: int, plans: list[Plan]) -> None:
        self.file_events = self._planned(plans)
        super().first_opened(limits, crowd)

    def _planned(self, plans: list[Plan]) -> dict[str, Event]:
        """One event after the other; names come back, of those that have ended as of those that haven't."""
        now, events = self.wall, {}
        for plan in plans:
            self.planned += 1
            name = f"sale {self.planned % NAMES}"
            events[name] = plan.event(name, now)
            now = max(now, events[name].end_ms or events[name].start_ms)
        return events

    def _moved(self, event: Event, change: tuple[str, Any]) -> Event:
        """An event with a change; times are meant from now on."""
        name, value = change
        return replace(event, **{name: self.wall + value if name.endswith("_ms") and value is not None else value})

    @rule(plans=st.lists(PLANS, max_size=3), keep=st.booleans())
    def plan(self, plans: list[Plan], keep: bool) -> None:
        """The settings file gets other events."""
        self.file_events = {**(self.file_events if keep else {}), **self._planned(plans)}
        self._open(self.history.memory.file)

    @rule(pick=WHICH, change=CHANGES)
    def reword(self, pick: int, change: tuple[str, Any]) -> None:
        """An event of the settings file is changed."""
        for name in self._pick_names(self.file_events, pick):
            self.file_events = {**self.file_events, name: self._moved(self.file_events[name], change)}
        self._open(self.history.memory.file)

    def _pick_names(self, names: Any, pick: int) -> list[str]:
        ordered = sorted(names)
        return [ordered[pick % len(ordered)]] if ordered else []

    @rule(action=ACTIONS, pick=WHICH, late=st.integers(0, 2), any_version=st.booleans())
    def act_on_event(self, action: EventAction, pick: int, late: int, any_version: bool) -> None:
        name = f"sale {pick}" if pick == NAMES else self.model.event or f"sale {pick}"
        self._change_event(action, name, None if any_version else self.model.version - late)

    @rule(action=ACTIONS, pick=WHICH)
    def act_on_any_event(self, action: EventAction, pick: int) -> None:
        self._change_event(action, f"sale {pick}")

    @rule(plan=PLANS, pick=WHICH)
    def set_event(self, plan: Plan, pick: int) -> None:
        """An operator plans an event or another one of that name."""
        name = f"sale {pick}"
        self._change_event("set", name, None, plan.event(name, self.wall))

    @rule(pick=WHICH, change=CHANGES)
    def move_event(self, pick: int, change: tuple[str, Any]) -> None:
        """An operator changes an event of the settings file."""
        for name in self._pick_names(self.file_events, pick):
            self._change_event("set", name, None, self._moved(self.file_events[name], change))

    @rule(units=UNITS, age_ms=st.sampled_from([0, 0, 500, 5_000]), by_api=st.booleans())
    def report_stock(self, units: int, age_ms: int, by_api: bool) -> None:
        self._report_stock(units, age_ms, by_api=by_api)

    @rule(age_ms=st.sampled_from([0, 500, 5_000]))
    def report_sold_out(self, age_ms: int) -> None:
        _, after = self._do(
            lambda store: store.report_sold_out(age_ms=age_ms), lambda: self.model.report_sold_out(self.wall, age_ms)
        )
        self.history.nothing_moved(after)

    @rule(units=UNITS, shopping=SOME, there=SOME, later_ms=STEP_MS, look_ups=LOOK_UPS)
    def sell_out_and_reopen(self, units: int, shopping: str, there: str, later_ms: int, look_ups: int) -> None:
        """The stock runs out while some are called; then units come back."""
        self._report_stock(2, 0, by_api=True)
        self.wall += 1000
        self._tick(look_ups)
        self._report_stock(0, 0, by_api=False)
        self.wall += later_ms
        self._visit(some(self.history.contents.called, shopping), "claim")
        self._tick(look_ups)
        self._report_stock(units, 0, by_api=later_ms < 2_000)
        for _ in range(3):
            self.wall += 1000
            self._visit(some(sorted(self.history.holders), there), "look")
            self._tick(look_ups)
            self._visit(some(self.history.contents.called, shopping), "claim")
            self._join(1)
        for session in some(self.history.contents.active, shopping):
            self._leave(session, 0, has_pass=True)
        self._tick(look_ups)

    @rule(off_ms=st.sampled_from([-1, 0, 0, 1, 5_000]), newcomers=st.integers(0, 3), looks=st.booleans())
    def go_to_the_next_step(self, off_ms: int, newcomers: int, looks: bool) -> None:
        """The clock jumps to when the next phase begins."""
        if self.model.event_due:
            self.wall = max(self.wall, self.model.event_due + off_ms)
        if looks:
            self._look()
        if newcomers:
            self._join(newcomers)
        self._tick(5000)

    @rule(by_ms=st.sampled_from([-60_000, -20_000, -1_000, 20_000, 60_000, 91 * DAY_MS]))
    def jump(self, by_ms: int) -> None:
        self.wall += by_ms

    @rule(
        plan=PLANS,
        early=st.integers(0, 8),
        late=st.integers(0, 3),
        there=SOME,
        claiming=SOME,
        look_ups=LOOK_UPS,
        step_ms=STEP_MS,
        hand=st.booleans(),
    )
    def sale(
        self,
        plan: Plan,
        early: int,
        late: int,
        there: str,
        claiming: str,
        look_ups: int,
        step_ms: int,
        hand: bool,
    ) -> None:
        """A whole event: visitors come to its prequeue, it starts, they buy, it ends."""
        self.file_events = self._planned([plan])
        self._open(self.history.memory.file)
        [name] = self.file_events
        self.go_to_the_next_step(0, early, True)
        self._visit(some(sorted(self.history.holders), there), "look")
        if hand:
            self._change_event("start", name)
        self.go_to_the_next_step(0, late, False)
        for _ in range(3):
            self.wall += step_ms
            self._visit(some(sorted(self.history.holders), there), "look")
            self._tick(look_ups)
            self._visit(some(self.history.contents.called, claiming), "claim")
        if hand:
            self._change_event("end", name)
        else:
            self.go_to_the_next_step(0, late, True)


def _run(url: str, count: int) -> None:
    class SalesOfServer(Sales):
        def __init__(self) -> None:
            super().__init__(url)

    run_state_machine_as_test(SalesOfServer, settings=machine_settings(count))


@pytest.mark.slow
def test_events_on_valkey(valkey: str) -> None:
    _run(valkey, examples(40, long=1000))


@pytest.mark.slow
def test_events_on_the_systems_redis(redis: str) -> None:
    _run(redis, examples(8, long=200))
