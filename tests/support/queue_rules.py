"""What befalls a room: visitors come and go, operators change it, controllers stall, the store fails."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from support.queue_machine import HOUR_MS, TOLD, QueueMachine
from support.room_history import LOOK_MS, History
from waitroom.queue.fields import Limits
from waitroom.queue.store import SessionChange, SessionOperation
from waitroom.queue.view import RoomState

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
LOSABLE = (
    *("room", "waiting", "waiting", "called", "away", "active", "missed", "ended", "issued_ranges", "turns", "moved"),
    *("moved_until", "hard_ends", "feed", "events", "events", "event_stats"),
)
SET_STATES = [state for state in RoomState if state is not RoomState.PREQUEUE]
STATES = st.sampled_from([RoomState.OPEN, RoomState.OPEN, RoomState.OPEN, *SET_STATES])
PICKS = st.lists(st.integers(0, 30), min_size=1, max_size=6)
LOOK_UPS = st.one_of(st.just(5000), st.integers(1, 12))
MS = st.sampled_from([0, 8_000, 30_000, 300_000])
STEP_MS = st.sampled_from([1, 100, 1_000, 5_000, 10_000])
SOME = st.sampled_from(["none", "all", "every other"])
PURPOSES = st.sampled_from(["look", "tell", "claim", "more"])


def some(members: Iterable[int], which: str) -> list[int]:
    return list(members)[:: 2 if which == "every other" else 1] if which != "none" else []


class Line(QueueMachine):
    """One room, its visitors, its workers and controllers, and what befalls them."""

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
                lambda place=place: self.model.call_out_of_order(self.wall, place, "ada"),
            )
            self.history.called_by_hand(place, called, after)

    @rule(rate=RATES, crowd=st.integers(0, 12))
    def change_rate_between_ticks(self, rate: float, crowd: int) -> None:
        self._join(crowd + 1)
        self._tick(5000)
        self._set_limits(replace(self.history.memory.limits, rate_per_minute=rate))
        self._tick(5000)

    @rule(
        state=st.sampled_from([RoomState.PAUSED, RoomState.CLOSED, RoomState.SOLD_OUT, None]),
        empty=st.booleans(),
        reopen=st.booleans(),
        later_ms=STEP_MS,
    )
    def not_open(self, state: RoomState | None, empty: bool, reopen: bool, later_ms: int) -> None:
        """Some have been called when the room is closed or paused, or rejects everybody (None); newcomers come.

        The line may be empty.
        """
        self.wall += 1000
        self._tick(5000)
        if empty:
            for place in self.history.contents.waiting:
                self._leave(place, 0)
        limits = self.history.memory.limits
        if state is None:
            self._set_limits(replace(limits, method="reject"))
        else:
            self._set_state(state)
        self._join(2)
        self._visit(list(self.history.contents.called), "claim")
        self.wall += later_ms
        self._tick(5000)
        if reopen:
            self._set_limits(limits)
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
        if name == "event_stats" or (name == "events" and not self.model.event):
            self._look()  # no visitor is concerned
        else:
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
