"""What has happened to a room, and what must always hold of it: judged from the record alone, not from the model.

The machine in ``test_queue.py`` tells every operation and shows what the store holds before and after it. What is known
here of the rules is only what the visitors were promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace

from waitroom.queue.store import Called, Joined, Limits, SessionChange, Ticked, Visit, Visited
from waitroom.queue.view import RoomState

LOOK_MS = 10_000  # a look at the clock adds no more than this to the room's time
BLUR_MS = 15_000  # when somebody was last seen is known that exactly
ROUNDING = 1e-6


@dataclass(frozen=True)
class Contents:
    """What the store holds of a room; the numbers with members are the room's time in milliseconds."""

    waiting: list[int] = field(default_factory=list)
    called: dict[int, int] = field(default_factory=dict)
    away: dict[int, int] = field(default_factory=dict)
    active: dict[int, int] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)
    missed: set[int] = field(default_factory=set)

    @property
    def line(self) -> tuple[Iterable[int], ...]:
        return self.waiting, self.called, self.away

    @property
    def taken(self) -> int:
        return len(self.active) + len(self.called)


@dataclass
class Memory:
    """What the store can know; a failover takes it back to what it was, a loss empties it.

    Attributes:
        seen: When waiting visitors were last seen.
        doubtful: Of those, who may have been forgotten since by a tick.
        turn_until: Until when those who were called may claim.
        kept_until: Until when the places of those who are away are kept.
        missed: Who missed a turn and has had none since.
        inside_until: Until when a session was promised at the least.
        ended: Sessions and places that were given up, and until when that is remembered.
        gone: Places whose holders have no claim to them any more.
        contents: What the store holds.
        limits, state: What the operator wants; `file` is what the settings file said when it was last read.
        wall, clock: The wall clock when it was last looked at, and the room's time.
        gathered: How many could be called at once then, for all the rate cares.
    """

    file: Limits
    limits: Limits
    wall: int
    clock: int
    state: RoomState = RoomState.OPEN
    gathered: float = 1.0
    contents: Contents = field(default_factory=Contents)
    seen: dict[int, int] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)
    turn_until: dict[int, int] = field(default_factory=dict)
    kept_until: dict[int, int] = field(default_factory=dict)
    missed: set[int] = field(default_factory=set)
    inside_until: dict[int, int] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)


class History:
    """The record of one room, and the checks after every step."""

    _most: float

    def __init__(self, limits: Limits, wall: int) -> None:
        self.memory = Memory(limits, limits, wall, wall)
        # Who has a right to a place in the line, and who has a pass that is good until then, whatever the store knows.
        self.holders: set[int] = set()
        self.passes: dict[int, int] = {}
        self.ever_inside: dict[int, None] = {}
        self.greatest_place = 0
        self._start_counting()

    @property
    def contents(self) -> Contents:
        return self.memory.contents

    # The room's time, and how many may have been called by then.

    def look(self, wall: int) -> None:
        """An operation looks at the clock."""
        memory = self.memory
        step = min(max(wall - memory.wall, 0), LOOK_MS)
        memory.wall = wall
        memory.clock += step
        due = step * memory.limits.rate_per_minute / 60000
        memory.gathered = min(memory.gathered + due, self._burst())
        # From here to any later moment at most what falls due and one second's worth may be called. `_most` is the
        # least that the windows begun so far leave room for.
        self._due += due
        self._most = min(self._most, self._called - self._due + self._burst())

    def _start_counting(self) -> None:
        self._called = 0
        self._due = 0.0
        self._most = float("inf")

    def _burst(self) -> float:
        return max(1.0, self.memory.limits.rate_per_minute / 60)

    def _after(self, seconds: float) -> int:
        return self.memory.clock + round(seconds * 1000)

    def _unseen_ms(self, place: int) -> float:
        seen = self.memory.seen.get(place)
        return float("inf") if seen is None else self.memory.clock - seen

    def _surely_there(self, place: int) -> bool:
        away_ms = self.memory.limits.away_after_seconds * 1000
        return place not in self.memory.doubtful and self._unseen_ms(place) <= away_ms

    def _surely_gone(self, place: int) -> bool:
        away_ms = self.memory.limits.away_after_seconds * 1000
        return self._unseen_ms(place) > away_ms + BLUR_MS

    # What was done.

    def joined(self, answer: Joined, count: int, after: Contents) -> None:
        before = self.contents
        if self.memory.state in (RoomState.CLOSED, RoomState.SOLD_OUT):
            assert answer.first_place == 0
            assert after == before
            return
        places = range(answer.first_place, answer.first_place + count)
        assert places[0] > self.greatest_place, "a place was given twice, or before an older one"
        self.greatest_place = places[-1]
        admitted, rest = places[: answer.admitted], places[answer.admitted :]
        if admitted:
            assert not before.waiting, "a newcomer went in while others waited"
            assert self.memory.state is RoomState.OPEN
            self._count_calls(len(admitted), after)
        if rest and self.memory.limits.method == "fifo" and self.memory.state is RoomState.OPEN and not before.waiting:
            assert after.taken >= self.memory.limits.max_active or self.memory.gathered < 1 + ROUNDING, (
                "made to wait for nothing"
            )
        assert answer.waiting == len(after.waiting) == len(before.waiting) + len(rest)
        for place in admitted:
            self._goes_in(place)
        for place in rest:
            self.holders.add(place)
            self._is_seen(place)
        self._check(after)

    def visited(self, visits: Sequence[Visit], answers: Sequence[Visited], after: Contents) -> None:
        before = self.contents
        for visit, answer in zip(visits, answers, strict=True):
            place, fate = visit.place, answer.fate
            if place in self.holders and fate != "admitted":
                assert fate in ("waiting", "called"), f"{place} lost its place"
            if place in self.memory.gone:
                assert fate == ("admitted" if place in after.active else "unknown"), f"{place} got another turn"
            if place in before.called and visit.claim and self.memory.state in (RoomState.OPEN, RoomState.PAUSED):
                assert fate == "admitted"
                self._goes_in(place)
            if fate == "waiting":
                assert place in after.waiting
                self.holders.add(place)
                self.memory.kept_until.pop(place, None)
                self._is_seen(place)
            if fate == "called":
                assert answer.claim_left_ms == max(0, self.memory.turn_until[place] - self.memory.clock)
        self._check(after)

    def seen(self, places: Iterable[int], after: Contents) -> None:
        for place in places:
            self._is_seen(place)
        self._check(after)

    def ticked(self, answer: Ticked, after: Contents) -> None:
        before, memory = self.contents, self.memory
        turns_over = {place for place, until in memory.turn_until.items() if until <= self.memory.clock}
        assert turns_over == before.called.keys() - after.called.keys(), "a turn ended early, or not at all"
        self._miss(turns_over)
        self._drop_places(after)
        called = after.called.keys() - before.called.keys()
        stepped_over = (set(before.waiting) - set(after.waiting)) - called
        assert (answer.called, answer.stepped_over, answer.missed) == (len(called), len(stepped_over), len(turns_over))
        self._check_order(called, stepped_over, after)
        self._count_calls(len(called), after)
        for place in called:
            memory.turn_until[place] = self._after(self.memory.limits.claim_seconds)
        for place in stepped_over:
            memory.kept_until[place] = self._after(self.memory.limits.keep_place_seconds)
        if not answer.stopped_early:
            self._check_nobody_waits_in_vain(after)
        for session, until in list(memory.inside_until.items()):
            if session not in after.active:
                assert until <= self.memory.clock, f"session {session} was thrown out"
                del memory.inside_until[session]
        memory.doubtful |= {place for place in memory.seen if not self._surely_there(place)}
        self._check(after)

    def sessions_changed(self, changes: Sequence[SessionChange], alive: Sequence[bool], after: Contents) -> None:
        adopted = set()
        for change, answer in zip(changes, alive, strict=True):
            session = change.session
            if change.operation == "end":
                self._gives_up(session, change.ms)
                continue
            has_slot = session in self.memory.inside_until
            if session in self.memory.ended:
                assert not answer, f"session {session} goes on after its end"
            elif has_slot or (change.operation != "resume" and self.passes.get(session, 0) > self.memory.clock):
                assert answer, f"session {session} was thrown out"
            if not answer:
                continue
            if session not in self.contents.active and session not in self.contents.called:
                adopted.add(session)
            ms = change.ms
            if change.operation in ("keep", "resume"):
                ms = min(ms, round(self.memory.limits.session_seconds * 1000))
            self._goes_in(session, ms)
        self._check(after, len(adopted))

    def left(self, place: int, pass_ms: int, answer: bool, after: Contents) -> None:
        before = self.contents
        there = place in before.waiting or place in before.called or place in before.away or place in before.active
        assert answer is there
        self._gives_up(place, pass_ms)
        self._check(after)

    def called_by_hand(self, place: int, answer: Called, after: Contents) -> None:
        """An operator called somebody out of the order: the one thing that may overtake, and no more than a slot."""
        before, memory = self.contents, self.memory
        if before == after:
            assert (answer == "called") == (place in before.called)
            assert (answer == "admitted") == (place in before.active)
            assert (answer == "unknown") == (not any(place in group for group in (*before.line, before.active)))
            if answer == "full":
                assert before.taken >= memory.limits.max_active
            if answer == "not_open":
                assert memory.state in (RoomState.CLOSED, RoomState.SOLD_OUT)
            self._check(after)
            return
        assert answer == "called"
        assert place in before.waiting or place in before.away
        assert after.called.keys() - before.called.keys() == {place}
        if memory.limits.method == "fifo":
            assert after.taken <= memory.limits.max_active, "called by hand beyond the limit"
            memory.gathered -= 1
            # The rate is told of it; it may have been exceeded by this one, and by none that a tick calls after it.
            self._called += 1
        memory.kept_until.pop(place, None)
        memory.turn_until[place] = self._after(memory.limits.claim_seconds)
        self._check(after)

    def nothing_moved(self, after: Contents) -> None:
        """After an operation that changes no visitor's lot: limits, states, opening, looking."""
        assert after == self.contents
        self._check(after)

    # What befell the store.

    def snapshot(self) -> Memory:
        return deepcopy(self.memory)

    def fell_back(self, snapshot: Memory) -> None:
        """The store stands where it stood at the snapshot; what it answered since then it has forgotten."""
        self.memory = deepcopy(snapshot)
        self.memory.gone.clear()
        self._start_counting()

    def lost_everything(self, limits: Limits, wall: int) -> None:
        self.memory = Memory(limits, limits, wall, wall)
        self._start_counting()

    # What the operator wants.

    def limits_changed(self, limits: Limits) -> None:
        if limits.method != self.memory.limits.method:
            self._start_counting()
        self.memory.limits = limits

    def file_read(self, limits: Limits) -> None:
        """A value of the file counts when it isn't the one the file had before."""
        new = {item.name: getattr(limits, item.name) for item in fields(limits)}
        old = {item.name: getattr(self.memory.file, item.name) for item in fields(limits)}
        changed = {name: value for name, value in new.items() if value != old[name]}
        self.memory.file = limits
        self.limits_changed(replace(self.memory.limits, **changed))

    # The checks.

    def _count_calls(self, count: int, after: Contents) -> None:
        if not count or self.memory.limits.method == "passthrough":
            return
        assert after.taken <= self.memory.limits.max_active, "more were called than there are slots"
        self._called += count
        self.memory.gathered -= count
        assert self._called - self._due <= self._most + ROUNDING, "more were called than the rate allows"

    def _check_order(self, called: set[int], stepped_over: set[int], after: Contents) -> None:
        before = self.contents
        assert called <= set(before.waiting)
        assert not (called or stepped_over) or self.memory.state is RoomState.OPEN
        last = max(called | stepped_over, default=0)
        for place in before.waiting:
            if place in called:
                assert not self._surely_gone(place), f"{place} was called and is not there"
            elif place in stepped_over:
                assert not self._surely_there(place), f"{place} was stepped over and is there"
                assert place in after.away, f"{place} was stepped over and lost its place"
            else:
                assert place > last, f"{place} was overtaken"

    def _check_nobody_waits_in_vain(self, after: Contents) -> None:
        if self.memory.state is not RoomState.OPEN or not any(self._surely_there(place) for place in after.waiting):
            return
        assert self.memory.limits.method == "fifo"
        full = after.taken >= self.memory.limits.max_active
        assert full or self.memory.gathered < 1 + ROUNDING, "there were a slot and a token, and nobody was called"

    def _check(self, after: Contents, adopted: int = 0) -> None:
        before, memory = self.contents, self.memory
        if self.memory.limits.method == "fifo":
            allowed = max(self.memory.limits.max_active, before.taken + adopted)
            assert after.taken <= allowed, "more slots are taken than there are"
        assert after.waiting == sorted(set(after.waiting))
        groups = [set(after.waiting), set(after.called), set(after.away), set(after.active)]
        assert len(set().union(*groups)) == sum(map(len, groups)), "somebody is in two places at once"
        for session, until in memory.inside_until.items():
            assert session in after.active, f"session {session} was thrown out"
            assert after.active[session] > until, "a slot ends before its pass does"
        assert set(memory.turn_until) == set(after.called), "a turn was taken away, or came from nowhere"
        assert set(memory.kept_until) == set(after.away), "a place was not kept"
        assert memory.missed == after.missed
        memory.contents = after

    # What it means for one.

    def _is_seen(self, place: int) -> None:
        self.memory.seen[place] = self.memory.clock
        self.memory.doubtful.discard(place)

    def _leaves_line(self, place: int) -> None:
        memory = self.memory
        self.holders.discard(place)
        memory.turn_until.pop(place, None)
        memory.kept_until.pop(place, None)
        memory.missed.discard(place)

    def _goes_in(self, session: int, ms: int | None = None) -> None:
        self._leaves_line(session)
        self.ever_inside[session] = None
        until = self._after(self.memory.limits.session_seconds if ms is None else ms / 1000)
        self.passes[session] = max(until, self.passes.get(session, 0))
        self.memory.inside_until[session] = max(until, self.memory.inside_until.get(session, 0))
        self.memory.gone.add(session)

    def _gives_up(self, place: int, pass_ms: int) -> None:
        self._leaves_line(place)
        self.memory.inside_until.pop(place, None)
        self.passes.pop(place, None)
        self.memory.ended[place] = self.memory.clock + pass_ms
        self.memory.gone.add(place)

    def _miss(self, places: Iterable[int]) -> None:
        for place in places:
            if place in self.memory.missed:
                self._leaves_line(place)
                self.memory.gone.add(place)
            else:
                self.memory.missed.add(place)
                del self.memory.turn_until[place]
                self.memory.kept_until[place] = self._after(self.memory.limits.keep_place_seconds)

    def _drop_places(self, after: Contents) -> None:
        memory = self.memory
        for place, until in list(memory.kept_until.items()):
            if until <= self.memory.clock:
                assert place not in after.away
                self._leaves_line(place)
                memory.gone.add(place)
        memory.ended = {place: until for place, until in memory.ended.items() if until > self.memory.clock}
