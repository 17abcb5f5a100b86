"""What has happened to a room, and what must always hold of it: judged from the record alone, not from the model.

The machine in ``test_queue.py`` tells every operation and shows what the store holds before and after it. What is known
here of the rules is only what the visitors were promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace

from support.event_history import EventHistory
from support.queue_order import QueueOrder
from support.stored_room import Contents, StoredRoom
from waitroom.queue.fields import Limits
from waitroom.queue.store import Called, Joined, SessionChange, Ticked, Visit, Visited
from waitroom.queue.view import RoomState

LOOK_MS = 10_000  # a look at the clock adds no more than this to the room's time
BLUR_MS = 15_000  # when somebody was last seen is known that exactly
MARGIN_MS = 30_000  # a slot outlives its pass by so much
ROUNDING = 1e-6


@dataclass
class Memory:
    """What the store can know; a failover takes it back to what it was, a loss empties it.

    Attributes:
        seen: When waiting visitors were last seen.
        doubtful: Of those, who may have been forgotten since by a tick.
        turn_until: Until when those who were called may claim, by the turns' clock.
        told: Who has been told of the turn and has had no other one since; "2" where they asked for more time.
        moved: The new places of those who came back too late from a turn they had been told of.
        moved_until: Until when their old tickets are good.
        kept_until: Until when the places of those who are away are kept.
        missed: Who missed a turn and has had none since.
        inside_until: Until when a session was promised at the least.
        hard_end: When a session ends whatever its visitor does, where that is known.
        held_until: Until when the shop holds a session beyond that.
        ended: Sessions and places that were given up, and until when that is remembered.
        gone: Places whose holders have no claim to them any more.
        contents: What the store holds.
        events: What has become of the events; its limits and state are those in force.
        file: What the settings file said when it was last read.
        void: Places up to it were taken away for good at the end of an event.
        wall, clock: The wall clock when it was last looked at, and the room's time.
        blocked: For how much of that time nobody could claim a turn.
        gathered: How many could be called at once then, for all the rate cares.
    """

    file: Limits
    events: EventHistory
    wall: int
    clock: int
    void: int = 0
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
    blocked: int = 0
    told: dict[int, str] = field(default_factory=dict)
    moved: dict[int, int] = field(default_factory=dict)
    moved_until: dict[int, int] = field(default_factory=dict)
    hard_end: dict[int, int] = field(default_factory=dict)
    held_until: dict[int, int] = field(default_factory=dict)

    def lose(self, name: str) -> None:
        """A key of the store is gone, and with it what it said."""
        lost: dict[str, tuple[str, ...]] = {
            "called": ("turn_until",),
            "away": ("kept_until",),
            "active": ("inside_until",),
            "turns": ("told",),
            "hard_ends": ("hard_end",),
        }
        for known in lost.get(name, (name,)):
            if known in ("missed", "ended", "moved", "moved_until", *sum(lost.values(), ())):
                getattr(self, known).clear()
        if name in ("waiting", "called", "away", "active", "issued_ranges"):
            self.gone.clear()
        if name == "events":
            self.events.lost_events()
        if name not in ("issued_ranges", "feed", "events", "event_stats"):
            self.contents = replace(self.contents, **{name: type(getattr(self.contents, name))()})

    def file_read(self, limits: Limits) -> None:
        """The settings file is read."""
        self.events.file_read(limits, self.file)
        self.file = limits

    @property
    def limits(self) -> Limits:
        return self.events.limits

    @property
    def state(self) -> RoomState:
        return self.events.state

    @property
    def takes_claims(self) -> bool:
        return self.state in (RoomState.OPEN, RoomState.PAUSED, RoomState.PREQUEUE)

    @property
    def turn_clock(self) -> int:
        return self.clock - self.blocked


@dataclass
class Loss:
    """What was there when the store lost it, and workers knew: those visitors report before anybody is called."""

    until: int
    waiting: set[int]
    inside: set[int]
    reported: set[int] = field(default_factory=set)


class History:
    """The record of one room, and the checks after every step."""

    _most: float

    def __init__(self, limits: Limits, wall: int) -> None:
        self.memory = Memory(limits, EventHistory(limits), wall, wall)
        self.order = QueueOrder()
        # Who has a right to a place in the line, and who has a pass that is good until then, whatever the store knows.
        self.holders: set[int] = set()
        self.passes: dict[int, int] = {}
        self.ever_inside: dict[int, None] = {}
        self.greatest_place = 0
        # Whether calls may be held back for a recovery; who has surely reported in it; a loss that workers know of.
        self.holding = False
        # Tickets up to this place count again: a key was lost, so that the store can't know who had a turn.
        self.counting_again = 0
        self.reported: set[int] = set()
        self.recovery_has_just_begun = False
        self.loss: Loss | None = None
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
        memory.blocked += 0 if memory.takes_claims else step
        due = step * memory.limits.rate_per_minute / 60000
        memory.gathered = min(memory.gathered + due, self._burst())
        # From here to any later moment at most what falls due and one second's worth may be called. `_most` is the
        # least that the windows begun so far leave room for.
        self._due += due
        self._most = min(self._most, self._called - self._due + self._burst())

    def follow(self, room: StoredRoom, after: Contents, *, is_new: bool) -> None:
        """Takes in what was recorded with an operation; with ``is_new`` it opened a room that the store didn't know."""
        before, memory = self.memory.limits, self.memory
        gone = {*self.contents.waiting, *self.contents.called, *self.contents.away}
        memory.events.follow(room, memory.wall, self.order, is_new=is_new)
        known, memory.events.voided = 0 if is_new else memory.events.voided, room.total("left:event_ended")
        if memory.events.voided > known:
            assert memory.events.may_void, "places were taken away, and no event had ended"
            assert memory.events.voided - known == len(gone)
            self._queue_voided(gone)
            memory.void = 0 if is_new else self.greatest_place  # a store that knows nothing has to go by the time
        elif gone:
            assert not memory.events.must_void, "places of the event still count"
        assert not any(place <= memory.void for place in after.waiting), "a place of an ended event counts again"
        if memory.limits.method != before.method:
            self._start_counting()
        memory.gathered = min(memory.gathered, self._burst())
        self._most = min(self._most, self._called - self._due + self._burst())
        if not room.fields["draws"]:
            assert after.waiting == sorted(after.waiting)
        self.order.check(after.waiting)

    def _queue_voided(self, gone: set[int]) -> None:
        """The event is over and what follows it isn't open: nobody who was not inside has a place any more."""
        memory = self.memory
        for place in gone:
            self._leaves_line(place)
            memory.gone.add(place)
        for known in (memory.missed, memory.told, memory.moved, memory.moved_until, self.holders):
            known.clear()
        memory.contents = replace(
            memory.contents, waiting=[], called={}, away={}, missed=set(), turns={}, moved={}, moved_until={}
        )

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
        self.order.joined(rest)
        if admitted:
            assert not before.waiting, "a newcomer went in while others waited"
            assert self.memory.state is RoomState.OPEN
            self._count_calls(len(admitted), after)
        state, method = self.memory.state, self.memory.limits.method
        may_go_in = not self.holding and not self.memory.events.waits_for_stock
        if rest and method == "fifo" and state is RoomState.OPEN and not before.waiting and may_go_in:
            assert after.taken >= self.memory.limits.max_active or self.memory.gathered < 1 + ROUNDING, (
                "made to wait for nothing"
            )
        assert answer.waiting == len(after.waiting) == len(before.waiting) + len(rest)
        self.memory.events.came(admitted, after)
        for place in admitted:
            self._begins(place)
        for place in rest:
            self.holders.add(place)
            self._is_seen(place)
        self._check(after)

    def visited(self, visits: Sequence[Visit], answers: Sequence[Visited], after: Contents) -> None:
        memory, before = self.memory, self.contents
        for visit, answer in zip(visits, answers, strict=True):
            place, fate = self._stands_for(visit, answer), answer.fate
            if place not in (*before.waiting, *before.called, *before.away) and place <= memory.events.void_place:
                self.holders.discard(place)  # lost with the store, and of an event before the current one
            if place in self.holders and fate != "admitted":
                assert fate in ("waiting", "called"), f"{place} lost its place"
            if place in memory.gone and place > self.counting_again:
                there = place in after.active and not self._worn_out(place)
                assert fate == ("admitted" if there else "unknown"), f"{place} got another turn"
            if place in memory.turn_until and visit.claim and memory.takes_claims:
                assert fate == "admitted"
                self._begins(place)
            if fate == "admitted":
                # The hard end counts from now where the store has lost it or never knew it.
                hard_end = memory.hard_end.setdefault(place, self._after(memory.limits.session_max_seconds))
                assert answer.left_ms == max(hard_end, memory.inside_until[place]) - memory.clock > 0
            if fate != "unknown":
                self._reports(place)
            if fate == "waiting":
                assert place in after.waiting
                self.holders.add(place)
                self.memory.kept_until.pop(place, None)
                self._is_seen(place)
            if fate == "called":
                if memory.takes_claims and (visit.notify or visit.more):
                    self._is_told(place, more=visit.more)
                assert answer.left_ms == max(0, memory.turn_until[place] - memory.turn_clock)
        self._check(after)

    def _stands_for(self, visit: Visit, answer: Visited) -> int:
        """The place that a ticket stands for by now."""
        memory, place = self.memory, visit.place
        if place in memory.moved:
            memory.moved_until[place] = self._after(memory.limits.keep_place_seconds)
            assert answer.moved_to == (memory.moved[place] if answer.fate != "unknown" else 0)
            return memory.moved[place]
        too_late = place in memory.kept_until and place in memory.told
        assert bool(answer.moved_to) is too_late, "only visitors who were told and didn't come go to the end"
        if not too_late:
            return place
        new = answer.moved_to
        assert new > self.greatest_place, "not behind everybody"
        self.greatest_place = new
        self.order.joined([new])
        self._leaves_line(place)
        memory.missed.add(new)
        memory.moved[place] = new
        memory.moved_until[place] = self._after(memory.limits.keep_place_seconds)
        return new

    def seen(self, places: Iterable[int], after: Contents) -> None:
        for place in places:
            self._is_seen(place)
        self._check(after)

    def ticked(self, answer: Ticked, after: Contents, *, recovered: bool) -> None:
        """``recovered``: with this tick a recovery ended."""
        if recovered:
            self._forget_unreported(after)
        before, memory = self.contents, self.memory
        turns_over = {place for place, until in memory.turn_until.items() if until <= memory.turn_clock}
        self._miss(turns_over)
        if memory.events.sold_out_by_stock:
            assert not after.called, "called for what is gone"
            self._give_back(set(before.called) - turns_over, after)
        else:
            assert turns_over == before.called.keys() - after.called.keys(), "a turn ended early, or not at all"
        self._drop_places(after)
        called = after.called.keys() - before.called.keys()
        skipped = (set(before.waiting) - set(after.waiting)) - called
        assert (answer.called, answer.skipped, answer.missed) == (len(called), len(skipped), len(turns_over))
        self._check_order(called, skipped, after)
        self._count_calls(len(called), after)
        memory.events.came(called, after)
        for place in called:
            memory.turn_until[place] = self._turn_end()
        for place in skipped:
            memory.kept_until[place] = self._after(self.memory.limits.keep_place_seconds)
        if not answer.stopped_early:
            self._check_nobody_waits_in_vain(after)
        for session, until in list(memory.inside_until.items()):
            if session not in after.active:
                assert until <= self.memory.clock, f"session {session} was thrown out"
                self._ends(session)
        for place, until in list(memory.moved_until.items()):
            if until <= memory.clock:
                memory.moved.pop(place, None)
                del memory.moved_until[place]
        memory.doubtful |= {place for place in memory.seen if not self._surely_there(place)}
        self._check(after)

    def _give_back(self, places: set[int], after: Contents) -> None:
        """Nothing is left for those who were called: they wait as before."""
        assert places <= set(after.waiting), "a called visitor lost the place with the stock"
        for place in places:
            del self.memory.turn_until[place]
            self.memory.told.pop(place, None)

    def sessions_changed(self, changes: Sequence[SessionChange], alive: Sequence[bool], after: Contents) -> None:
        adopted = set()
        memory = self.memory
        for asked, answer in zip(changes, alive, strict=True):
            change, session = asked, asked.session
            if asked.operation in ("api_release", "api_hold", "api_extend"):
                self._check_command(asked, answer)
                if session not in memory.inside_until or not answer:
                    continue
                change = self._by_pass(asked)
            if change.operation in ("end", "release"):
                self._reports(session)
                self._gives_up(session, change.ms)
                continue
            has_slot = session in self.memory.inside_until
            keeps = change.operation in ("keep", "resume")
            lasting = change.operation in ("hold", "extend")
            if session in self.memory.ended:
                assert not answer, f"session {session} goes on after its end"
            elif keeps and (self._worn_out(session) if has_slot else change.ms <= 0):
                assert not answer, f"session {session} goes on after its hard end"
            elif not has_slot and not lasting and change.ms <= 0:
                assert not answer, f"session {session} has no time left"
            elif has_slot or (change.operation != "resume" and self.passes.get(session, 0) > self.memory.clock):
                assert answer, f"session {session} was thrown out"
            if not answer:
                continue
            self._reports(session)
            if session not in self.contents.active and session not in self.contents.called:
                adopted.add(session)
            longest = round(memory.limits.session_max_seconds * 1000)
            if keeps:
                memory.hard_end.setdefault(session, memory.clock + change.ms)
            left = memory.hard_end.get(session, memory.clock + longest) - memory.clock
            if keeps:
                ms = min(left, round(memory.limits.session_seconds * 1000))
            else:
                ms = min(change.ms, left + (longest if change.operation in ("hold", "restore") else 0))
            if change.operation in ("hold", "restore") or session not in memory.hard_end:
                memory.held_until[session] = max(memory.held_until.get(session, 0), memory.clock + ms)
            self._goes_in(session, ms)
        self._check(after, len(adopted))

    def _check_command(self, change: SessionChange, answer: int) -> None:
        """A number proves nothing: a command by it concerns only who is inside, and a release may be repeated."""
        session = change.session
        if session not in self.memory.inside_until:
            known = change.operation == "api_release" and session in self.memory.ended
            assert answer == known, f"session {session} is not inside"
        elif change.operation != "api_release":
            assert answer == (not self._worn_out(session))
        else:
            assert answer

    def _by_pass(self, change: SessionChange) -> SessionChange:
        """The same command by the response header, whose worker knows by a pass how long others may last."""
        longest = round(self.memory.limits.session_max_seconds * 1000)
        if change.operation == "api_release":
            left = self.memory.hard_end.get(change.session, self.memory.clock + longest) - self.memory.clock
            return SessionChange("release", change.session, max(0, left + longest))
        return SessionChange("hold" if change.operation == "api_hold" else "extend", change.session, change.ms)

    def left(self, place: int, pass_ms: int, answer: bool, after: Contents, *, has_pass: bool, young: bool) -> None:
        """``young``: of this generation, so that the store knows all that became of the place."""
        before = self.contents
        self.memory.moved_until.pop(place, None)
        place = self.memory.moved.pop(place, place)
        there = place in before.waiting or place in before.called or place in before.away or place in before.active
        assert answer is there
        remembered = place in after.ended
        if has_pass or place in before.active:
            assert remembered, "a pass that was given up would go on"
        elif young:
            assert remembered is (place in before.ended), "a place that had no pass left a trace"
        self._reports(place)
        self._gives_up(place, pass_ms, remembered=after.ended.get(place) != before.ended.get(place))
        self._check(after)

    def called_by_hand(self, place: int, answer: Called, after: Contents) -> None:
        """An operator called somebody out of the order: the one thing that may overtake, and no more than a slot."""
        before, memory = self.contents, self.memory
        place = memory.moved.get(place, place)
        if before == after:
            assert (answer == "called") == (place in before.called)
            assert (answer == "admitted") == (place in before.active)
            assert (answer == "unknown") == (
                not any(place in group for group in (before.waiting, before.called, before.away, before.active))
            )
            if answer == "full":
                assert self.holding or before.taken >= memory.limits.max_active
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
        memory.told.pop(place, None)
        memory.turn_until[place] = self._turn_end()
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
        self.order.forget()
        self.memory.gone.clear()
        self._start_counting()

    def lost_key(self, name: str, wall: int) -> None:
        """One key is gone. With that of the room, its clock starts again, and the limits are those of the file."""
        memory = self.memory
        memory.events.came_for_units = None
        self.order.forget()
        if name in ("room", "waiting", "called", "away", "active", "issued_ranges"):
            self.counting_again = self.greatest_place
        if name == "room":
            kept = {
                one.name: getattr(memory, one.name)
                for one in fields(memory)
                if one.name not in ("file", "events", "wall", "clock", "gathered", "blocked", "gone", "void")
            }
            self.memory = Memory(memory.file, EventHistory(memory.file), wall, wall, **kept)
            self._start_counting()
        else:
            memory.lose(name)

    def recovery_begins(self) -> None:
        """From here on those who were there report; who was seen before may have left since."""
        self.memory.seen.clear()
        self.memory.doubtful.clear()
        self.reported.clear()
        self.recovery_has_just_begun = True

    def workers_know(self, before: Contents, after: Contents) -> None:
        """The store has lost something that its workers had seen: what was there before is not there after."""
        groups = [(set(one.waiting), set(one.called), set(one.away), set(one.active)) for one in (before, after)]
        self.loss = None
        if groups[0] != groups[1]:
            waiting = set(before.waiting) | set(before.called)
            self.loss = Loss(self._after(self.memory.file.recovery_seconds), waiting, set(before.active))

    def _reports(self, place: int) -> None:
        if not self.recovery_has_just_begun:  # else it may have come before the one that showed the loss
            self.reported.add(place)
        if self.loss is not None:
            self.loss.reported.add(place)

    def _forget_unreported(self, after: Contents) -> None:
        """At the end of a recovery, turns and slots of visitors who didn't report may go: they may have left."""
        before, memory = self.contents, self.memory
        self.loss = None
        due = {place for place, until in memory.turn_until.items() if until <= memory.turn_clock}
        for place in before.called.keys() - after.called.keys() - due:
            assert place not in self.reported, f"{place} reported and lost its turn"
            del memory.turn_until[place]
            memory.told.pop(place, None)
            memory.kept_until[place] = self._after(memory.limits.keep_place_seconds)
        for session in before.active.keys() - after.active.keys():
            if memory.inside_until.get(session, 0) > memory.clock:
                assert session not in self.reported, f"session {session} reported and was thrown out"
                self._ends(session)
        self.memory.contents = replace(
            before,
            called={place: until for place, until in before.called.items() if place in after.called or place in due},
        )

    def lost_everything(self, limits: Limits, wall: int) -> None:
        self.memory = Memory(limits, EventHistory(limits), wall, wall)
        self.order.forget()
        self._start_counting()

    # The checks.

    def _count_calls(self, count: int, after: Contents) -> None:
        if not count or self.memory.limits.method == "passthrough":
            return
        assert after.taken <= self.memory.limits.max_active, "more were called than there are slots"
        loss = self.loss
        if loss is not None and self.memory.clock < loss.until:
            assert len(loss.reported) >= 0.9 * len(loss.waiting), "called before those who waited were back"
            inside = {one for one in loss.inside if self.passes.get(one, 0) > self.memory.clock}
            taken = inside | after.active.keys() | after.called.keys()
            assert len(taken) <= self.memory.limits.max_active, "a slot was given away whose visitor had not reported"
        self._called += count
        self.memory.gathered -= count
        assert self._called - self._due <= self._most + ROUNDING, "more were called than the rate allows"

    def _check_order(self, called: set[int], skipped: set[int], after: Contents) -> None:
        before = self.contents
        assert called <= set(before.waiting)
        assert not (called or skipped) or self.memory.state is RoomState.OPEN
        passed = False
        for place in reversed(before.waiting):
            if place in called:
                assert not self._surely_gone(place), f"{place} was called and is not there"
                passed = True
            elif place in skipped:
                assert not self._surely_there(place), f"{place} was stepped over and is there"
                assert place in after.away, f"{place} was stepped over and lost its place"
                passed = True
            else:
                assert not passed, f"{place} was overtaken"

    def _check_nobody_waits_in_vain(self, after: Contents) -> None:
        if (
            self.holding
            or self.memory.events.waits_for_stock
            or self.memory.state is not RoomState.OPEN
            or not any(self._surely_there(place) for place in after.waiting)
        ):
            return
        assert self.memory.limits.method == "fifo"
        full = after.taken >= self.memory.limits.max_active
        assert full or self.memory.gathered < 1 + ROUNDING, "there were a slot and a token, and nobody was called"

    def _check(self, after: Contents, adopted: int = 0) -> None:
        before, memory = self.contents, self.memory
        if self.memory.limits.method == "fifo":
            allowed = max(self.memory.limits.max_active, before.taken + adopted)
            assert after.taken <= allowed, "more slots are taken than there are"
        groups = [set(after.waiting), set(after.called), set(after.away), set(after.active)]
        assert len(set().union(*groups)) == sum(map(len, groups)), "somebody is in two places at once"
        for session, until in memory.inside_until.items():
            assert session in after.active, f"session {session} was thrown out"
            assert after.active[session] > until, "a slot ends before its pass does"
        for session, slot_until in after.active.items():
            last = max(memory.hard_end.get(session, memory.clock), memory.held_until.get(session, 0))
            if session in memory.hard_end:
                assert slot_until <= last + MARGIN_MS, "a slot outlives the session's hard end"
        assert memory.turn_until == after.called, "a turn was taken away, or came from nowhere"
        assert memory.told == after.turns
        assert (memory.moved, memory.moved_until) == (after.moved, after.moved_until)
        assert memory.hard_end == after.hard_ends, "a hard end moved"
        assert set(memory.kept_until) == set(after.away), "a place was not kept"
        assert memory.missed == after.missed
        memory.contents = after

    # What it means for one.

    def _is_seen(self, place: int) -> None:
        self.memory.seen[place] = self.memory.clock
        self.memory.doubtful.discard(place)

    def _is_told(self, place: int, *, more: bool) -> None:
        """From the first time on there is so much time, and as much again once."""
        memory = self.memory
        told_ms = round(memory.limits.claim_after_told_seconds * 1000)
        if place not in memory.told:
            memory.told[place] = "1"
            memory.turn_until[place] = min(memory.turn_until[place], memory.turn_clock + told_ms)
        if more and memory.told[place] == "1":
            memory.told[place] = "2"
            memory.turn_until[place] += told_ms

    def _turn_end(self) -> int:
        return self._after(self.memory.limits.claim_seconds) - self.memory.blocked

    def _worn_out(self, session: int) -> bool:
        memory = self.memory
        hard_end = memory.hard_end.get(session)
        return hard_end is not None and max(hard_end, memory.inside_until.get(session, 0)) <= memory.clock

    def _leaves_line(self, place: int) -> None:
        memory = self.memory
        memory.told.pop(place, None)
        self.holders.discard(place)
        memory.turn_until.pop(place, None)
        memory.kept_until.pop(place, None)
        memory.missed.discard(place)

    def _begins(self, session: int) -> None:
        """A visitor is admitted."""
        self.memory.hard_end[session] = self._after(self.memory.limits.session_max_seconds)
        limits = self.memory.limits
        self._goes_in(session, round(min(limits.session_seconds, limits.session_max_seconds) * 1000))

    def _ends(self, session: int) -> None:
        for known in (self.memory.inside_until, self.memory.hard_end, self.memory.held_until):
            known.pop(session, None)

    def _goes_in(self, session: int, ms: int) -> None:
        self._leaves_line(session)
        self.ever_inside[session] = None
        until = self.memory.clock + ms
        self.passes[session] = max(until, self.passes.get(session, 0))
        self.memory.inside_until[session] = max(until, self.memory.inside_until.get(session, 0))
        self.memory.gone.add(session)

    def _gives_up(self, place: int, pass_ms: int, *, remembered: bool = True) -> None:
        self._leaves_line(place)
        self.passes.pop(place, None)
        if remembered:
            until = max(self.memory.clock + pass_ms, self.memory.inside_until.get(place, 0))
            self.memory.ended[place] = until
        self._ends(place)
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
