"""The line, by random operations: a real store against the reference model and against what must always hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from support.examples import LONG, examples
from support.room_history import LOOK_MS, Contents, History, Memory
from waitroom.queue.constants import EPOCH_MS, PLACES_PER_MS
from waitroom.queue.fields import Limits
from waitroom.queue.positions import Forecast
from waitroom.queue.reference_model import QueueModel
from waitroom.queue.store import KEYS, Newest, QueueStore, RoomNotOpen, SessionChange, SessionOperation, Visit
from waitroom.queue.view import RoomState, RoomView
from waitroom.store.connection import connect

Answer = TypeVar("Answer")

NOON = 1_790_000_000_000
HOUR_MS = 3_600_000
SERVER_SECONDS = 10.0

RATES = st.sampled_from([1.0, 30.0, 59.0, 60.0, 90.0, 600.0, 6000.0])
SLOTS = st.sampled_from([1, 2, 3, 5, 8, 40])
SESSIONS = st.sampled_from([10.0, 40.0])
CLAIMS = st.sampled_from([5.0, 20.0])
AWAYS = st.sampled_from([10.0, 15.0, 40.0])
KEEPS = st.sampled_from([20.0, 90.0])
TOLDS = st.sampled_from([2.0, 5.0, 20.0])
LONGEST = st.sampled_from([15.0, 60.0, 3600.0])
RECOVERIES = st.sampled_from([0.0, 3.0, 30.0])
LIMITS = st.builds(
    Limits,
    *(RATES, SLOTS, SESSIONS, CLAIMS, AWAYS, KEEPS),
    claim_after_told_seconds=TOLDS,
    session_max_seconds=LONGEST,
    recovery_seconds=RECOVERIES,
)
CHANGES = st.one_of(
    st.tuples(st.just("rate_per_minute"), RATES),
    st.tuples(st.just("max_active"), SLOTS),
    st.tuples(st.just("max_active"), st.just(1)),
    st.tuples(st.just("session_seconds"), SESSIONS),
    st.tuples(st.just("claim_seconds"), CLAIMS),
    st.tuples(st.just("claim_after_told_seconds"), TOLDS),
    st.tuples(st.just("session_max_seconds"), LONGEST),
    st.tuples(st.just("recovery_seconds"), RECOVERIES),
    st.tuples(st.just("away_after_seconds"), AWAYS),
    st.tuples(st.just("keep_place_seconds"), KEEPS),
    st.tuples(st.just("method"), st.sampled_from(["fifo", "passthrough", "reject"])),
)
TOLD = '{"who": "ada", "via": "api", "action": "admit"}'
READ = """
local sets = { redis.call('HGET', KEYS[1], 'clock'), redis.call('SMEMBERS', KEYS[5]) }
for _, key in ipairs({ KEYS[2], KEYS[3], KEYS[4], KEYS[6], KEYS[7] }) do
  sets[#sets + 1] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
end
for _, key in ipairs({ KEYS[13], KEYS[14] }) do
  sets[#sets + 1] = redis.call('HGETALL', key)
end
for _, key in ipairs({ KEYS[15], KEYS[16] }) do
  sets[#sets + 1] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
end
return sets
"""
assert list(KEYS)[:7] == ["room", "waiting", "called", "away", "missed", "active", "ended"]
assert list(KEYS)[12:16] == ["turns", "moved", "moved_until", "hard_ends"]

LOSABLE = (
    *("room", "waiting", "waiting", "called", "away", "active", "missed", "ended", "issued_ranges", "turns", "moved"),
    *("moved_until", "hard_ends", "feed"),
)
STATES = st.sampled_from([RoomState.OPEN, RoomState.OPEN, RoomState.OPEN, *RoomState])
PICKS = st.lists(st.integers(0, 30), min_size=1, max_size=6)
LOOK_UPS = st.one_of(st.just(5000), st.integers(1, 12))
MS = st.sampled_from([0, 8_000, 30_000, 300_000])
STEP_MS = st.sampled_from([1, 100, 1_000, 5_000, 10_000])
SOME = st.sampled_from(["none", "all", "every other"])
PURPOSES = st.sampled_from(["look", "tell", "claim", "more"])


def some(members: Iterable[int], which: str) -> list[int]:
    return list(members)[:: 2 if which == "every other" else 1] if which != "none" else []


class Line(RuleBasedStateMachine):
    """One room, its visitors, its workers and controllers, and what befalls them."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.wall = NOON
        self.run_id = "run 0"
        self.clients = [connect(url, timeout_seconds=SERVER_SECONDS) for _ in range(2)]
        self.stores = [
            QueueStore(client, "shop", clock=lambda: self.wall, run_id=lambda: self.run_id)
            for client in self.clients
            for _ in range(2)
        ]
        self.reader = self.clients[0].register_script(READ)
        self.model = QueueModel(self.run_id)
        self.tickets: dict[int, int] = {}
        self.known_view: RoomView | None = None
        self.newest_generation = 0
        self.saved: tuple[dict[Any, Any], QueueModel, Memory] | None = None
        self.runner.run(self._restore({}))

    def teardown(self) -> None:
        for client in self.clients:
            self.runner.run(client.aclose())
        self.runner.close()

    @initialize(limits=LIMITS, crowd=st.integers(0, 12))
    def first_opened(self, limits: Limits, crowd: int) -> None:
        self.history = History(limits, self.wall)
        self._refused()
        self._open(limits)
        if crowd:
            self._join(crowd)

    # Visitors.

    @rule(count=st.integers(1, 6))
    def join(self, count: int) -> None:
        self._join(count)

    @rule(
        whom=st.sampled_from(["anyone", "waiting", "called", "called", "away", "moved", "gone"]),
        picks=PICKS,
        purpose=PURPOSES,
    )
    def visit(self, whom: str, picks: list[int], purpose: str) -> None:
        contents, gone = self.history.contents, self.history.memory.gone
        crowds: dict[str, Iterable[int]] = {
            "anyone": self.tickets,
            "waiting": contents.waiting,
            "called": contents.called,
            "away": contents.away,
            "moved": contents.moved,
            "gone": [place for place in self.tickets if place in gone],
        }
        self._visit(self._pick(crowds[whom], picks), purpose)

    @rule(picks=PICKS)
    def poll(self, picks: list[int]) -> None:
        self._poll(sorted(set(self._pick(self.history.contents.waiting, picks))))

    @rule(pick=st.integers(0, 30), pass_ms=MS)
    def leave(self, pick: int, pass_ms: int) -> None:
        for place in self._pick(self.tickets, [pick]):
            self._leave(place, pass_ms)

    @rule(pick=st.integers(0, 30), pass_ms=MS)
    def leave_with_a_pass(self, pick: int, pass_ms: int) -> None:
        for session in self._pick(self.history.ever_inside, [pick]):
            self._leave(session, pass_ms, has_pass=True)

    @rule(
        picks=PICKS,
        operation=st.sampled_from(
            ["keep", "resume", "hold", "extend", "end", "release", "api_release", "api_hold", "api_extend"]
        ),
        ms=MS,
    )
    def change_sessions(self, picks: list[int], operation: SessionOperation, ms: int) -> None:
        sessions = self._pick(self.history.ever_inside, picks)
        self._change_sessions([SessionChange(operation, session, ms) for session in sessions])

    @rule(operation=st.sampled_from(["keep", "resume", "hold", "extend"]), ms=MS)
    def change_all_sessions(self, operation: SessionOperation, ms: int) -> None:
        """Of all who were ever inside: the shop holds them all, or the passes of all have run out."""
        self._change_sessions([SessionChange(operation, session, ms) for session in self.history.ever_inside])

    # Controllers and time.

    @rule(look_ups=LOOK_UPS, later_ms=STEP_MS)
    def tick(self, look_ups: int, later_ms: int) -> None:
        self.wall += later_ms
        self._tick(look_ups)

    def _time_passes(
        self,
        steps: int,
        step_ms: int,
        there: str,
        claiming: str,
        shopping: str,
        newcomers: int,
        controllers: int,
        look_ups: int,
        told: bool,
    ) -> None:
        """Visitors come, stay or go away, take their turns or miss them, shop or don't; controllers may stall."""
        for _ in range(steps):
            self.wall += step_ms
            if newcomers:
                self._join(newcomers)
            self._visit(some(sorted(self.history.holders), there), "tell" if told else "look")
            self._visit(some(self.history.contents.called, claiming), "claim")
            inside = some(self.history.contents.active, shopping)
            self._change_sessions([SessionChange("keep", session, HOUR_MS) for session in inside])
            for _ in range(controllers):
                self._tick(look_ups)
            if not controllers:
                self._look()

    a_while = rule(
        steps=st.integers(1, 6),
        step_ms=STEP_MS,
        there=SOME,
        claiming=SOME,
        shopping=SOME,
        newcomers=st.integers(0, 2),
        controllers=st.integers(0, 2),
        look_ups=LOOK_UPS,
        told=st.booleans(),
    )(_time_passes)

    everybody_goes_away = rule(
        steps=st.integers(4, 8),
        step_ms=st.just(10_000),
        there=st.just("none"),
        claiming=st.just("none"),
        shopping=SOME,
        newcomers=st.integers(0, 2),
        controllers=st.integers(0, 1),
        look_ups=LOOK_UPS,
        told=st.just(False),
    )(_time_passes)

    @rule(more=st.booleans(), late=SOME, returning=SOME, again=st.booleans())
    def come_too_late(self, more: bool, late: str, returning: str, again: bool) -> None:
        """Visitors are told of their turn, let it pass, and come back; perhaps they do the same with the next one."""
        limits = self.history.memory.limits
        step_ms = round(min(limits.claim_after_told_seconds, limits.claim_seconds, LOOK_MS / 1000) * 1000)
        for _ in range(1 + again):
            self.wall += 1000
            self._visit(sorted(self.history.holders), "look")
            self._tick(5000)
            told = some(self.history.contents.called, late)
            self._visit(told, "tell")
            for _ in range(2 * more):
                self._visit(told, "more")
            for _ in range(5 if more else 3):
                self.wall += step_ms
                self._tick(5000)
            self._visit(some(told, returning), "tell")

    @rule()
    def look(self) -> None:
        self._look()

    # Operators.

    @rule(change=st.one_of(CHANGES, STATES, LIMITS))
    def operate(self, change: tuple[str, Any] | RoomState | Limits) -> None:
        """Changes a limit or the state while the room is open, or the settings file."""
        if isinstance(change, Limits):
            self._open(change)
        elif isinstance(change, RoomState):
            self._set_state(change)
        else:
            self._set_limits(replace(self.history.memory.limits, **dict([change])))

    @rule(change=st.one_of(CHANGES, STATES), late=st.integers(0, 2), any_version=st.booleans())
    def change(self, change: tuple[str, Any] | RoomState, late: int, any_version: bool) -> None:
        """Changes what was seen in some version, the newest or an older one; or whatever the version is."""
        self._change(change, None if any_version else self.model.version - late)

    @rule(whom=st.sampled_from(["waiting", "waiting", "away", "anyone"]), picks=PICKS)
    def admit(self, whom: str, picks: list[int]) -> None:
        contents = self.history.contents
        crowds: dict[str, Iterable[int]] = {
            "anyone": self.tickets,
            "waiting": contents.waiting,
            "away": contents.away,
        }
        for place in self._pick(crowds[whom], picks):
            called, after = self._do(
                lambda store, place=place: store.call_out_of_order(place, TOLD),
                lambda place=place: self.model.call_out_of_order(self.wall, place),
            )
            self.history.called_by_hand(place, called, after)

    @rule(rate=RATES, crowd=st.integers(0, 12))
    def change_rate_between_ticks(self, rate: float, crowd: int) -> None:
        self._join(crowd + 1)
        self._tick(5000)
        self._set_limits(replace(self.history.memory.limits, rate_per_minute=rate))
        self._tick(5000)

    @rule(
        state=st.sampled_from([RoomState.PAUSED, RoomState.CLOSED, RoomState.SOLD_OUT]),
        empty=st.booleans(),
        reopen=st.booleans(),
        later_ms=STEP_MS,
    )
    def not_open(self, state: RoomState, empty: bool, reopen: bool, later_ms: int) -> None:
        """Some have been called when the room is closed or paused; newcomers come, perhaps to a line that is empty."""
        self.wall += 1000
        self._tick(5000)
        if empty:
            for place in self.history.contents.waiting:
                self._leave(place, 0)
        self._set_state(state)
        self._join(2)
        self._visit(list(self.history.contents.called), "claim")
        self.wall += later_ms
        self._tick(5000)
        if reopen:
            self._set_state(RoomState.OPEN)

    # What befalls the store.

    @rule(
        what=st.sampled_from(["jump", "restart", "replicate", "fail over", "fail over", "lose"]),
        by=st.integers(-5, 5),
        known=st.booleans(),
    )
    def disaster(self, what: str, by: int, known: bool) -> None:
        """``known``: all workers have seen the last that the store knew."""
        if known:
            for _ in self.stores:
                self._look()
        before = self.history.contents if known else None
        if what == "jump":
            self.wall += by * HOUR_MS
        elif what == "restart":
            self._new_server()
        elif what == "replicate":
            # A replica has what is there now, and falls behind from here on.
            self.saved = (self.runner.run(self._dump()), deepcopy(self.model), self.history.snapshot())
        elif what == "lose":
            self._clock_is_right()
            self.runner.run(self._restore({}))
            self.model.lose_everything()
            self.history.lost_everything(self.history.memory.file, self.wall + 1)
            self.saved = None
            self._new_server(before)
        elif self.saved is not None:
            self._clock_is_right()
            dump, model, memory = self.saved
            self.runner.run(self._restore(dump))
            self.model = deepcopy(model)
            self.history.fell_back(memory)
            self._new_server(before)

    @rule(name=st.sampled_from(LOSABLE), known=st.booleans())
    def lose_a_key(self, name: str, known: bool) -> None:
        """It was evicted, or somebody deleted it."""
        if known:
            for _ in self.stores:
                self._look()
        self._clock_is_right()
        before = self.history.contents if known else None
        there = self.runner.run(self.clients[0].delete(self.stores[0].keys[name]))
        if not there:
            return
        self.model.lose(name)
        self.history.lost_key(name, self.wall)
        self._begin_again(before)

    @rule(
        what=st.sampled_from(["lose", "waiting", "active", "room"]),
        crowd=st.integers(4, 12),
        back=st.lists(st.integers(0, 30), min_size=1, max_size=6),
        shop_empties=st.booleans(),
        step_ms=STEP_MS,
    )
    def lose_a_queue(self, what: str, crowd: int, back: list[int], shop_empties: bool, step_ms: int) -> None:
        """Workers know of a full room and a queue; then some of those who waited come back, and controllers tick."""
        if self.history.memory.state is not RoomState.OPEN:
            self._set_state(RoomState.OPEN)
        self._join(crowd)
        self._visit(list(self.history.contents.called), "claim")
        waiting = list(self.history.contents.waiting)
        if what == "lose":
            self.disaster("lose", 0, True)
        else:
            self.lose_a_key(what, True)
        if shop_empties:
            inside = list(self.history.contents.active)[:1]
            self._change_sessions([SessionChange("end", session, 0) for session in inside])
        for place in self._pick(waiting, back):
            self._visit([place], "look")
            self.wall += step_ms
            self._tick(5000)

    def _clock_is_right(self) -> None:
        """A server that has forgotten the newest places can tell only by its clock that they were given."""
        given = EPOCH_MS + self.history.greatest_place // PLACES_PER_MS + 1
        self.wall = max(self.wall, given, self.newest_generation + 1)

    def _new_server(self, before: Contents | None = None) -> None:
        self.wall += 1
        self.run_id = self.model.run_id = f"run {int(self.run_id.split()[1]) + 1}"
        self._begin_again(before)

    def _begin_again(self, before: Contents | None) -> None:
        """``before``: what was there before a loss, if all workers know it."""
        self.known_view = None
        self._refused()
        self._open(self.history.memory.file)
        self.history.loss = None
        if before is not None:
            self.history.workers_know(before, self.history.contents)
        # Workers report sessions; some inside go on and one has done; who has had a turn tries the old ticket of an
        # older generation.
        inside = list(self.history.passes)
        clock = self.history.memory.clock
        self._change_sessions(
            [SessionChange("restore", session, self.history.passes[session] - clock) for session in inside[1::2]]
            + [SessionChange("keep", session, HOUR_MS) for session in inside[::4]]
            + [SessionChange("end", session, 0) for session in inside[1:2]]
        )
        self._visit([place for place in self.tickets if place in self.history.memory.gone], "tell")

    # How it is all done.

    def _do(
        self, ask: Callable[[QueueStore], Coroutine[Any, Any, Answer]], expect: Callable[[], Answer]
    ) -> tuple[Answer, Contents]:
        """The same of the store, through one worker after the other, and of the model."""
        self.stores.append(self.stores.pop(0))
        recovery = self.model.recovery
        expected = expect()
        answer = self.runner.run(ask(self.stores[-1]))
        assert answer == expected
        clock, after = self.runner.run(self._read())
        model = self.model
        assert after == Contents(
            *(model.waiting[:], {**model.called}, {**model.away}, {**model.active}, {**model.ended}, {*model.missed}),
            *({**model.turns}, {**model.moved}, {**model.moved_until}, {**model.hard_ends}),
        )
        self.history.look(self.wall)
        self.history.holding = model.resume_at > 0
        self.history.recovery_has_just_begun = False
        if model.recovery is not None and model.recovery is not recovery:
            self.history.recovery_begins()
        assert clock == self.history.memory.clock
        return answer, after

    def _refused(self) -> None:
        """Until the room is opened nothing is done."""
        before = self.runner.run(self._read())
        asks: list[Callable[[QueueStore], Coroutine[Any, Any, object]]] = [
            lambda store: store.join(1),
            lambda store: store.visit([Visit(1, 1, claim=True)]),
            lambda store: store.tick(),
            lambda store: store.seen([1]),
            lambda store: store.view(),
        ]
        for ask in asks:
            with pytest.raises(RoomNotOpen):
                self.runner.run(ask(self.stores[0]))
        with pytest.raises(RoomNotOpen):
            self.model.join(self.wall, 1)
        assert self.runner.run(self._read()) == before

    def _open(self, limits: Limits) -> None:
        generation, after = self._do(
            lambda store: store.open(limits, run_id=self.run_id),
            lambda: self.model.open(self.wall, limits, self.stores[-1].newest),
        )
        self.newest_generation = max(self.newest_generation, generation)
        self.history.file_read(limits)
        self.history.nothing_moved(after)

    def _set_limits(self, limits: Limits) -> None:
        old, new = self.history.memory.limits.fields(), limits.fields()
        changes = {name: new[name] for name in new if new[name] != old[name]}
        _, after = self._do(lambda store: store.set_limits(changes), lambda: self.model.set_limits(self.wall, changes))
        self.history.limits_changed(limits)
        self.history.nothing_moved(after)

    def _set_state(self, state: RoomState) -> None:
        _, after = self._do(
            lambda store: store.set_state(state, "soon"), lambda: self.model.set_state(self.wall, state, "soon")
        )
        self.history.memory.state = state
        self.history.nothing_moved(after)

    def _change(self, change: tuple[str, Any] | RoomState, expected: int | None) -> None:
        limits, state = self.history.memory.limits, self.history.memory.state
        if isinstance(change, RoomState):
            state, changes = change, {"state": str(change), "draining": "1" if change is RoomState.PAUSED else ""}
        else:
            old, limits = limits.fields(), replace(limits, **dict([change]))
            changes = {name: value for name, value in limits.fields().items() if value != old[name]}
        version = self.model.version
        changed, after = self._do(
            lambda store: store.change(changes, expected=expected, who="somebody"),
            lambda: self.model.change(self.wall, changes, expected),
        )
        assert changed.done is (expected in (None, version))
        if changed.done:
            self.history.limits_changed(limits)
            self.history.memory.state = state
        self.history.nothing_moved(after)

    def _pick(self, crowd: Iterable[int], picks: list[int]) -> list[int]:
        members = list(crowd)
        return [members[pick % len(members)] for pick in picks] if members else []

    def _join(self, count: int) -> None:
        joined, after = self._do(lambda store: store.join(count), lambda: self.model.join(self.wall, count))
        if joined.first_place:
            for place in range(joined.first_place, joined.first_place + count):
                self.tickets[place] = joined.generation
        self.history.joined(joined, count, after)

    def _visit(self, places: list[int], purpose: str) -> None:
        visits = [
            Visit(
                place, self.tickets[place], claim=purpose == "claim", more=purpose == "more", notify=purpose != "look"
            )
            for place in places
        ]
        if visits:
            answers, after = self._do(lambda store: store.visit(visits), lambda: self.model.visit(self.wall, visits))
            for answer in answers:
                if answer.moved_to:
                    self.tickets.setdefault(answer.moved_to, self.model.generation)
            self.history.visited(visits, answers, after)

    def _poll(self, places: list[int]) -> None:
        if places:
            _, after = self._do(lambda store: store.seen(places), lambda: self.model.seen(self.wall, places))
            self.history.seen(places, after)

    def _leave(self, place: int, pass_ms: int, *, has_pass: bool = False) -> None:
        young = self.tickets[place] == self.model.generation
        answer, after = self._do(
            lambda store: store.leave(place, pass_ms, has_pass=has_pass),
            lambda: self.model.leave(self.wall, place, pass_ms, has_pass),
        )
        self.history.left(place, pass_ms, answer, after, has_pass=has_pass, young=young)

    def _change_sessions(self, changes: list[SessionChange]) -> None:
        if changes:
            alive, after = self._do(
                lambda store: store.change_sessions(changes), lambda: self.model.change_sessions(self.wall, changes)
            )
            self.history.sessions_changed(changes, alive, after)

    def _tick(self, look_ups: int) -> None:
        recovering = self.model.recovery is not None
        ticked, after = self._do(lambda store: store.tick(look_ups), lambda: self.model.tick(self.wall, look_ups))
        self.history.ticked(ticked, after, recovered=recovering and self.model.recovery is None)

    def _look(self) -> None:
        """What an edge sees, with a table that is new."""
        self.wall += 1001
        views: list[RoomView] = []

        async def look(store: QueueStore) -> dict[str, object]:
            views.append(await store.view(self.known_view))
            return {name: getattr(views[0], name) for name in self.model.view(self.wall)}

        known = self.known_view
        _, after = self._do(look, lambda: self._expected_view(self.stores[-1].newest))
        self.history.nothing_moved(after)
        self._check_ends(known, views[0])
        view = self.known_view = views[0]
        for place in (*after.called, *after.away):
            # Else an edge would go on telling from memory that they wait.
            assert place <= view.high_water_mark or place in view.invited or self.tickets[place] != view.generation
        # The room's clock stands still after a wall clock was set back, and so does the table.
        is_new = known is None or known.rank_index.stamp != view.rank_index.stamp
        if is_new and view.rank_index.stamp == str(view.clock_ms) and len(after.waiting) <= 64:
            assert [view.rank_index.position(place) for place in after.waiting] == [*range(1, len(after.waiting) + 1)]
        waits = [
            Forecast(view.rate_per_minute, view.throughput, view.free_slots).wait(position)
            for position in range(1, len(after.waiting) + 2)
        ]
        known = [wait for wait in waits if wait is not None]
        assert known == sorted(known)
        assert waits[: len(known)] == known

    def _expected_view(self, newest: Newest) -> dict[str, object]:
        """Reads a view as a worker that has seen this much before; the worker reports to a store that is behind."""
        if newest.generation and newest.generation != self.model.generation:
            self.model.recover(self.wall, newest)
        return self.model.view(self.wall)

    def _check_ends(self, known: RoomView | None, view: RoomView) -> None:
        """A view tells all that ended since the one before it, once."""
        same = known is not None and known.generation == view.generation
        ends, read = self.model.ends(self.wall, int(known.ends_read) if known is not None and same else 0)
        assert (view.ended, view.released, view.ends_read) == (ends["ended"], ends["released"], str(read))
        assert view.prolonged == ends["prolonged"]

    async def _read(self) -> tuple[int, Contents]:
        """The room's time, and who is where."""
        clock, missed, *sets = await self.reader(keys=list(self.stores[0].keys.values()))
        waiting, called, away, active, ended, turns, moved, moved_until, hard_ends = (
            {int(member): int(score) for member, score in zip(pairs[::2], pairs[1::2], strict=True)} for pairs in sets
        )
        assert all(place == score for place, score in waiting.items())
        return int(clock or 0), Contents(
            *(list(waiting), called, away, active, ended, {int(place) for place in missed}),
            *({place: str(turn) for place, turn in turns.items()}, moved, moved_until, hard_ends),
        )

    async def _dump(self) -> dict[Any, Any]:
        return {key: await self.clients[0].dump(key) for key in await self.clients[0].keys("*")}

    async def _restore(self, dump: dict[Any, Any]) -> None:
        await self.clients[0].flushall()
        for key, value in dump.items():
            await self.clients[0].restore(key, 0, value)


def _line_settings(count: int) -> settings:
    return settings(
        max_examples=count,
        stateful_step_count=40,
        deadline=None,
        # What is wrong must be found by whoever brings it; the long profile tries new examples.
        derandomize=settings.get_current_profile_name() != LONG,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


def _run(url: str, count: int) -> None:
    class LineOfServer(Line):
        def __init__(self) -> None:
            super().__init__(url)

    run_state_machine_as_test(LineOfServer, settings=_line_settings(count))


@pytest.mark.slow
def test_queue_on_valkey(valkey: str) -> None:
    _run(valkey, examples(50, long=1000))


@pytest.mark.slow
def test_queue_on_the_systems_redis(redis: str) -> None:
    _run(redis, examples(10, long=200))
