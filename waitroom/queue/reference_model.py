"""The reference model of a room: the same operations as `QueueStore`, in memory, one after the other.

It defines the behaviour of the scripts in the plainest way, without regard to speed, so that the real store can be
compared with it answer by answer. It has no clock, does no I/O and uses no randomness: every operation takes the wall
clock as an argument. It omits only one thing: a script handles at most a thousand members of a kind in one call.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from waitroom.errors import RoomNotOpen
from waitroom.queue.constants import (
    EPOCH_MS,
    FEED_MS,
    MAX_INVITED,
    MAX_STEP_MS,
    PLACES_PER_MS,
    SETTLE_MS,
    SLOT_MARGIN_MS,
    WINDOW_MS,
)
from waitroom.queue.fields import AUTOPILOT, Limits
from waitroom.queue.reference_recovery import RecoveryModel
from waitroom.queue.store import (
    LOOK_UPS_PER_TICK,
    Called,
    Changed,
    Joined,
    Newest,
    SessionChange,
    Ticked,
    Visit,
    Visited,
)
from waitroom.queue.view import RoomState

# The attributes that are keys in the store: those that say where visitors are, and others.
_FATES = ("waiting", "called", "away", "active")
_OTHERS = ("missed", "ended", "issued_ranges", "turns", "moved", "moved_until", "hard_ends", "feed", "seen_in")


class QueueModel:
    """One room, and the server that stores it.

    Every operation takes the wall clock, ``now``, in milliseconds since the epoch, and raises `RoomNotOpen` if the room
    must be opened first.

    Args:
        run_id: The server's run id; assign another one to simulate a restart or a failover.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.lose_everything()

    def lose_everything(self) -> None:
        """Simulates a server that starts empty."""
        self.opened_under: str | None = None
        self.clock = 0
        self.wall = 0
        self.tokens = 1.0
        self.limits: dict[str, str] = {}
        self.file_limits: dict[str, str] = {}
        self.own_state = RoomState.OPEN
        self.message = ""
        self.remaining = ""
        self.draining = ""
        self.autopilot = ""
        self.version = 0
        self.invited: list[int] = []
        self.generation = 0
        self.base = 0
        self.seq = 0
        self.high_water_mark = 0
        self.waiting: list[int] = []
        self.called: dict[int, int] = {}
        self.away: dict[int, int] = {}
        self.missed: set[int] = set()
        self.turns: dict[int, str] = {}
        self.moved: dict[int, int] = {}
        self.moved_until: dict[int, int] = {}
        self.hard_ends: dict[int, int] = {}
        self.feed: dict[tuple[str, int], int] = {}
        self.blocked = 0
        self.active: dict[int, int] = {}
        self.ended: dict[int, int] = {}
        self.seen_in: dict[int, int] = {}
        self.issued_ranges: list[tuple[int, int]] = []
        self.recovered: set[tuple[int, int]] = set()  # with the generation in which the older ones were forgotten
        self.recovered_in = 0
        self.totals: Counter[str] = Counter()
        self.changes = 0
        self.moves = 0
        self.missing: set[str] = set()
        self.opened_changes = 0
        self.opened_seq = 0
        self.opened_at = 0
        self.resume_at = 0
        self.recovery: RecoveryModel | None = None
        self.recovered_generation = 0

    def lose(self, name: str) -> None:
        """Simulates the loss of one key, by the names of `waitroom.queue.store.KEYS`; ``room`` is the hash."""
        if name == "room":
            kept = {key: getattr(self, key) for key in (*_FATES, *_OTHERS, "recovered")}
            reported = self.recovery is not None and self.recovery.reported
            self.lose_everything()
            vars(self).update(kept)
            if reported or any(kept[key] for key in (*_FATES, *_OTHERS)):
                self.missing.add("room")
        elif getattr(self, name):
            getattr(self, name).clear()
            self.missing.add(name)

    # The operations.

    def open(self, now: int, limits: Limits, newest: Newest | None = None) -> int:
        """As `QueueStore.open`; ``newest`` is what the client has seen."""
        seen = newest or Newest()
        is_new = self.opened_under is None
        if is_new:
            self.clock = self.wall = now
        else:
            self._look_at_clock(now)
        before = dict(self.limits)
        for name, value in limits.fields().items():
            if self.file_limits.get(name) != value:
                self.file_limits[name] = self.limits[name] = value
        self.version += bool(before) and self.limits != before
        self.tokens = min(self.tokens, self._burst())
        behind = seen.changes > self.changes or seen.place > self.seq
        if self.opened_under != self.run_id or self.missing or behind:
            lost = bool(self.missing) or behind or self.recovery is not None
            waiting, active = seen.waiting, seen.active
            if self.recovery is not None:
                waiting = max(waiting, self.recovery.expected_waiting)
                active = max(active, self.recovery.expected_active)
            self._begin_generation(now, seen)
            if lost:
                self._begin_recovery(waiting, active)
            else:
                self.resume_at = 0 if is_new else self.clock + SETTLE_MS
        return self.generation

    def _begin_generation(self, now: int, seen: Newest) -> None:
        self.opened_changes, self.opened_seq, self.opened_at = self.changes, self.seq, self.clock
        if self.missing & set(_FATES):
            self.issued_ranges.clear()
            self.recovered_in = max(now, self.generation + 1)
            self.opened_seq = 0
        elif self.seq > self.base:
            self.issued_ranges.append((self.base, self.seq))
        self.missing.clear()
        self.opened_under = self.run_id
        self.generation = max(now, self.generation + 1)
        self.base = self.seq = max((now - EPOCH_MS) * PLACES_PER_MS, self.seq, seen.place)
        self.changes = max(self.changes, seen.changes)
        self.recovery = None

    def recover(self, now: int, newest: Newest) -> bool:
        """As ``scripts/recover.lua``; returns whether the generation began with less than was seen."""
        self._look(now)
        exceeds = newest.changes > self.opened_changes or newest.place > self.opened_seq
        if newest.generation >= self.generation or not exceeds:
            return False
        self.changes = max(self.changes, newest.changes)
        self._begin_recovery(newest.waiting, newest.active)
        return True

    def join(self, now: int, count: int) -> Joined:
        """As `QueueStore.join`."""
        self._look(now)
        if self.state in (RoomState.CLOSED, RoomState.SOLD_OUT):
            return Joined(self.generation, 0, 0, len(self.waiting), self.state, self.clock)
        self.changes += 1
        newcomers = range(self.seq + 1, self.seq + 1 + count)
        self.seq += count
        admitted = 0
        for place in newcomers:
            if self.state is RoomState.OPEN and not self.waiting and self._may_call():
                self._take_token()
                self._enter(place)
                admitted += 1
            else:
                self.waiting.append(place)
                self._mark(place)
        self.totals["joined"] += count
        self.totals["admitted"] += admitted
        return Joined(self.generation, newcomers[0], admitted, len(self.waiting), self.state, self.clock)

    def visit(self, now: int, visits: Sequence[Visit]) -> list[Visited]:
        """As `QueueStore.visit`."""
        self._look(now)
        before = self.totals["admitted"] + self.totals["returned"]
        visited = [self._visit(visit) for visit in visits]
        for visit, one in zip(visits, visited, strict=True):
            if one.fate == "waiting":
                self._mark(one.moved_to or visit.place)
        self.changes += self.totals["admitted"] + self.totals["returned"] > before
        return visited

    def seen(self, now: int, places: Iterable[int]) -> None:
        """As `QueueStore.seen`."""
        everyone = list(places)
        if everyone:
            self._look(now)
        for place in everyone:
            self._mark(place)

    def change_sessions(self, now: int, changes: Sequence[SessionChange]) -> list[int]:
        """As `QueueStore.change_sessions`."""
        self._look(now)
        before = self.moves
        alive = [self._change_session(change) for change in changes]
        self.changes += self.moves > before
        return alive

    def leave(self, now: int, place: int, pass_ms: int, has_pass: bool = False) -> bool:
        """As `QueueStore.leave`."""
        self._look(now)
        if place in self.moved:
            self.moved_until.pop(place, None)
            place = self.moved.pop(place)
        in_queue = self._leave_queue(place)
        is_session = has_pass or place in self.active
        inside = False
        if is_session or place <= self.base:
            inside = self._end_session(place, pass_ms, "ended")
        if is_session or in_queue:
            self._report(place, active=is_session)
        self.totals["left:left"] += in_queue
        self.totals["left:released"] += inside
        self.changes += in_queue or inside
        return in_queue or inside

    def tick(self, now: int, look_ups: int = LOOK_UPS_PER_TICK) -> Ticked:
        """As `QueueStore.tick`."""
        self._look(now)
        ended = _take_expired(self.active, self.clock)
        for session in ended:
            self.hard_ends.pop(session, None)
        _take_expired(self.ended, self.clock)
        for place in _take_expired(self.moved_until, self.clock):
            self.moved.pop(place, None)
        missed = _take_expired(self.called, self._turn_clock())
        twice = 0
        for place in missed:
            if place in self.missed:
                self.missed.discard(place)
                self.turns.pop(place, None)
                twice += 1
            else:
                self.missed.add(place)
                self.away[place] = self.clock + self._limit("keep_ms")
        dropped = _take_expired(self.away, self.clock)
        self.missed -= set(dropped)
        for place in dropped:
            self.turns.pop(place, None)
        self._forget_unseen()
        moves = self.moves
        swept = self._end_recovery()
        self.changes += self.moves > moves
        called, skipped, stopped_early = self._call(look_ups)
        self.totals["left:expired"] += len(ended)
        self.totals["missed_turns"] += len(missed)
        self.totals["left:missed"] += twice
        self.totals["left:away"] += len(dropped)
        self.changes += called + skipped + len(ended) + len(missed) + twice + len(dropped) > 0
        return Ticked(called, skipped, len(ended) + swept, len(missed), twice + len(dropped), stopped_early)

    def set_limits(self, now: int, changes: Mapping[str, str]) -> None:
        """As `QueueStore.set_limits`."""
        self._look(now)
        self._set(changes)

    def set_state(self, now: int, state: RoomState, message: str | None = None) -> None:
        """As `QueueStore.set_state`."""
        self._look(now)
        self._set({"state": state} if message is None else {"state": state, "message": message})

    def set_remaining(self, now: int, remaining: int) -> None:
        """As `QueueStore.set_remaining`."""
        self._look(now)
        self.remaining = str(remaining)

    def change(self, now: int, changes: Mapping[str, str], expected: int | None) -> Changed:
        """As `QueueStore.change`."""
        self._look(now)
        if expected is not None and expected != self.version:
            return Changed(False, self.version, {})
        old = {name: self._field(name) for name in changes}
        self._set(changes)
        return Changed(True, self.version, old)

    def call_out_of_order(self, now: int, place: int) -> Called:
        """As `QueueStore.admit`."""
        self._look(now)
        place = self.moved.get(place, place)
        if place in self.active:
            return "admitted"
        if place in self.called:
            return "called"
        if place not in self.waiting and place not in self.away:
            return "unknown"
        if self.state not in (RoomState.OPEN, RoomState.PAUSED):
            return "not_open"
        if not self._passthrough() and self._vacant_slots() <= 0:
            return "full"
        if place > self.high_water_mark:
            here = self.called.keys() | self.away.keys()
            kept = [one for one in self.invited if one > self.high_water_mark and one in here]
            if len(kept) >= MAX_INVITED:
                return "too_many"
            self.invited = [*kept, place]
        if place in self.waiting:
            self.waiting.remove(place)
        self.away.pop(place, None)
        self.turns.pop(place, None)
        self.called[place] = self._turn_clock() + self._limit("claim_ms")
        self._report(place)
        self.changes += 1
        self._take_token()
        return "called"

    def view(self, now: int) -> dict[str, object]:
        """The attributes of a `RoomView` that aren't estimates."""
        self._look(now)
        return {
            "generation": self.generation,
            "clock_ms": self.clock,
            "state": self.state,
            "method": self.limits["method"],
            "high_water_mark": self.high_water_mark,
            "waiting": len(self.waiting),
            "called": len(self.called),
            "away": len(self.away),
            "active": len(self.active),
            "rate_per_minute": float(self.limits["rate"]),
            "max_active": self._limit("max_active"),
            "session_ms": self._limit("session_ms"),
            "claim_ms": self._limit("claim_ms"),
            "message": self.message,
            "remaining": int(self.remaining) if self.remaining else None,
            "version": self.version,
            "draining": self.draining == "1" and self.state is RoomState.PAUSED,
            "autopilot": AUTOPILOT.format.from_text(self.autopilot),
            "invited": frozenset(self.invited),
            "totals": {name: count for name, count in self.totals.items() if count},
            "changes": self.changes,
            "newest_place": self.seq,
            "opened_changes": self.opened_changes,
            "opened_place": self.opened_seq,
            "recovery": None if self.recovery is None else self.recovery.in_view(self.clock),
        }

    def ends(self, now: int, read: int) -> tuple[dict[str, tuple[Any, ...]], int]:
        """The sessions that a view lists as ended, released and prolonged, and the new read position.

        ``read`` is the old one.
        """
        self._look(now)
        read = max(read, (self.clock - FEED_MS) * 1000)
        news = sorted((number, kind, session) for (kind, session), number in self.feed.items() if number > read)
        found: dict[str, tuple[Any, ...]] = {
            kind: tuple(end[2] for end in news if end[1] == kind) for kind in ("ended", "released")
        }
        prolonged = [end[2] for end in news if end[1] == "prolonged" and end[2] in self.active]
        found["prolonged"] = tuple(
            (session, max(0, self.active[session] - SLOT_MARGIN_MS - self.clock)) for session in prolonged
        )
        return found, max([read, *(end[0] for end in news)])

    # Operators' changes.

    @property
    def state(self) -> RoomState:
        """The state in force: the one that was set, unless the method closes the room."""
        closes = self.limits.get("method") == "reject" and self.own_state is not RoomState.SOLD_OUT
        return RoomState.CLOSED if closes else self.own_state

    def _field(self, name: str) -> str:
        if name == "state":
            return str(self.own_state)
        return self.limits[name] if name in self.limits else str(getattr(self, name))

    def _set(self, changes: Mapping[str, str]) -> None:
        self.version += any(self._field(name) != value for name, value in changes.items())
        for name, value in changes.items():
            if name in self.limits:
                self.limits[name] = value
            elif name == "state":
                self.own_state = RoomState(value)
            else:
                setattr(self, name, value)

    # The clock and the values that accumulate over time.

    def _look(self, now: int) -> None:
        if self.opened_under != self.run_id or self.missing:
            raise RoomNotOpen("the room isn't open since the store was started")
        self._look_at_clock(now)

    def _look_at_clock(self, now: int) -> None:
        """The room's clock follows the wall clock, but never goes back and never jumps ahead."""
        step = min(max(now - self.wall, 0), MAX_STEP_MS)
        self.wall = now
        self.clock += step
        self.blocked += 0 if self._accepts_claims() else step
        self.tokens = min(self.tokens + step * float(self.limits["rate"]) / 60000, self._burst())

    def _accepts_claims(self) -> bool:
        return self.state in (RoomState.OPEN, RoomState.PAUSED)

    def _turn_clock(self) -> int:
        """The clock of turns, which stops while nobody can claim one."""
        return self.clock - self.blocked

    def _burst(self) -> float:
        return max(1, float(self.limits["rate"]) / 60)

    def _limit(self, name: str) -> int:
        return int(self.limits[name])

    def _passthrough(self) -> bool:
        return self.limits["method"] == "passthrough"

    def _may_call(self) -> bool:
        """Whether the rate and the slots allow one more."""
        vacant = self._vacant_slots() > 0 and not self._holds_calls()
        return self._passthrough() or (vacant and self.tokens >= 1 - 1e-9)

    def _take_token(self) -> None:
        if not self._passthrough():
            self.tokens -= 1

    def _slot_end(self, ms: int) -> int:
        return self.clock + ms + SLOT_MARGIN_MS

    # Recovery after a loss.

    def _begin_recovery(self, waiting: int, active: int) -> None:
        """Those who were there report first; once in a generation, and later only the expectations rise."""
        if self.recovered_generation != self.generation:
            self.recovered_generation = self.generation
            self.seen_in.clear()
            self.totals["recoveries"] += 1
            self.resume_at = self.clock + self._limit("recovery_ms")
            self.recovery = RecoveryModel(self.clock + SETTLE_MS, self.resume_at, waiting, active)
        elif self.recovery is not None:
            self.recovery.expect(waiting, active)

    def _report(self, place: int, *, active: bool = False) -> None:
        if self.recovery is not None and place <= self.base:
            self.recovery.report(place, active=active)

    def _vacant_slots(self) -> int:
        reserved = 0 if self.recovery is None else self.recovery.reserved_slots
        return self._limit("max_active") - len(self.active) - len(self.called) - reserved

    def _holds_calls(self) -> bool:
        if not self.resume_at:
            return False
        return self.recovery is None or not self.recovery.may_call(self.clock)

    def _end_recovery(self) -> int:
        """Ends the recovery when its time is over; returns how many sessions of visitors who had left ended."""
        if not self.resume_at or self.clock < self.resume_at:
            return 0
        recovery, self.recovery, self.resume_at = self.recovery, None, 0
        if recovery is None:
            return 0
        for place in self._unreported(self.called, recovery):
            del self.called[place]
            self.turns.pop(place, None)
            self.away[place] = self.clock + self._limit("keep_ms")
            self.moves += 1
        gone = self._unreported(self.active, recovery) if recovery.knows_sessions else []
        for session in gone:
            del self.active[session]
            self.hard_ends.pop(session, None)
            self.moves += 1
        self.totals["left:expired"] += len(gone)
        return len(gone)

    def _unreported(self, places: Iterable[int], recovery: RecoveryModel) -> list[int]:
        return [place for place in places if place <= self.base and place not in recovery.reported]

    # Presence and calls.

    def _mark(self, place: int) -> None:
        self.seen_in[place] = self.clock // WINDOW_MS

    def _oldest_window(self) -> int:
        return (self.clock - self._limit("away_ms")) // WINDOW_MS

    def _forget_unseen(self) -> None:
        oldest = self._oldest_window()
        self.seen_in = {place: window for place, window in self.seen_in.items() if window >= oldest}

    def _call(self, look_ups: int) -> tuple[int, int, bool]:
        """Calls the first visitors present; returns how many, how many were skipped, and whether more is due."""
        oldest = self._oldest_window()
        called = skipped = 0
        if self.state is not RoomState.OPEN:
            return 0, 0, False
        while self.waiting and self._may_call():
            if look_ups <= 0:
                return called, skipped, True
            place = self.waiting.pop(0)
            self.high_water_mark = max(self.high_water_mark, place)
            look_ups -= 1
            if place in self.seen_in and self.seen_in[place] >= oldest:
                self.called[place] = self._turn_clock() + self._limit("claim_ms")
                self._take_token()
                called += 1
            else:
                self.away[place] = self.clock + self._limit("keep_ms")
                skipped += 1
        return called, skipped, False

    # Outcomes of single visitors.

    def _visit(self, visit: Visit) -> Visited:
        place = visit.place
        if place in self.called:
            return self._visit_called(place, visit)
        if place in self.active:
            self.hard_ends.setdefault(place, self._hard_end())
            left = self._session_left(place)
            if left > 0:
                self._report(place, active=True)
            return Visited("admitted", left) if left > 0 else Visited("unknown", 0)
        if place not in self.waiting:
            if place in self.away:
                del self.away[place]
                if self.turns.pop(place, None) is not None:
                    self.moved[place] = self._new_place(place)
                    self.moved_until[place] = self.clock + self._limit("keep_ms")
                    return Visited("waiting", 0, self.moved[place])
            elif place in self.moved:
                new = self.moved[place]
                self.moved_until[place] = self.clock + self._limit("keep_ms")
                visited = self._visit(replace(visit, place=new, generation=self.generation))
                return visited if visited.fate == "unknown" else replace(visited, moved_to=new)
            elif visit.generation == self.generation or not self._claim_lost_place(place):
                return Visited("unknown", 0)
            insort(self.waiting, place)
            self.totals["returned"] += 1
        self._report(place)
        self._mark(place)
        return Visited("waiting", 0)

    def _visit_called(self, place: int, visit: Visit) -> Visited:
        self._report(place)
        if self._accepts_claims():
            if visit.claim:
                del self.called[place]
                self.missed.discard(place)
                self.turns.pop(place, None)
                self._enter(place)
                self.totals["admitted"] += 1
                return Visited("admitted", self._limit("session_max_ms"))
            if visit.notify or visit.more:
                self._notify(place, more=visit.more)
        return Visited("called", max(0, self.called[place] - self._turn_clock()))

    def _notify(self, place: int, *, more: bool) -> None:
        """Starts the visitor's time to claim the turn with the first notification; extends it once on request."""
        told_ms = self._limit("told_ms")
        if place not in self.turns:
            self.called[place] = min(self.called[place], self._turn_clock() + told_ms)
            self.turns[place] = "1"
        if more and self.turns[place] == "1":
            self.called[place] += told_ms
            self.turns[place] = "2"

    def _new_place(self, place: int) -> int:
        """Gives a visitor who was notified and missed the turn a place at the end; a second miss loses it."""
        self.seq += 1
        self.missed.discard(place)
        self.missed.add(self.seq)
        self.waiting.append(self.seq)
        self.totals["returned"] += 1
        self._mark(self.seq)
        return self.seq

    def _enter(self, place: int) -> None:
        self.active[place] = self._slot_end(min(self._limit("session_ms"), self._limit("session_max_ms")))
        self.hard_ends[place] = self._hard_end()

    def _hard_end(self) -> int:
        return self.clock + self._limit("session_max_ms")

    def _session_left(self, session: int) -> int:
        """Milliseconds until its hard end, or until that of a hold beyond it."""
        return max(self.hard_ends[session], self.active[session] - SLOT_MARGIN_MS) - self.clock

    def _claim_lost_place(self, place: int) -> bool:
        """Marks a place as seen; returns whether it predates the store's data loss and is unknown here."""
        given = any(after < place <= last for after, last in self.issued_ranges)
        if place > self.base or given or (self.recovered_in, place) in self.recovered:
            return False
        self.recovered.add((self.recovered_in, place))
        if place > self.opened_seq and self.clock - self.opened_at <= self._limit("recovery_ms"):
            self._begin_recovery(-1, -1)
        return True

    def _change_session(self, change: SessionChange) -> int:
        session, ms = change.session, change.ms
        if change.operation in ("api_release", "api_hold", "api_extend"):
            return self._command_session(change)
        keeps = change.operation in ("keep", "resume")
        if change.operation in ("end", "release"):
            self._leave_queue(session)
            kind = "ended" if change.operation == "end" else "released"
            ended = self._end_session(session, ms, kind)
            self.totals[f"left:{kind}"] += ended
            self.totals["released_by_shop"] += ended if kind == "released" else 0
            self.moves += ended
            self._report(session, active=True)
            return 1
        if session in self.ended:
            return 0
        lasting = change.operation in ("hold", "extend")
        if session not in self.active and (change.operation == "resume" or (not lasting and ms <= 0)):
            return 0
        if session in self.active and keeps and session in self.hard_ends and self._session_left(session) <= 0:
            return 0
        if session not in self.active:
            self._leave_queue(session)
            self._claim_lost_place(session)
            self.moves += 1
            self.totals["overshoot"] += len(self.active) + len(self.called) >= self._limit("max_active")
        self._report(session, active=True)
        if keeps:
            self.hard_ends.setdefault(session, self.clock + ms)
        left = self.hard_ends.get(session, self._hard_end()) - self.clock
        if keeps:
            ms = min(self._limit("session_ms"), left)
        elif change.operation == "extend":
            ms = min(ms, left)
        else:
            ms = min(ms, left + self._limit("session_max_ms"))
        until = max(self.clock + left, self.active.get(session, -inf) - SLOT_MARGIN_MS)
        self.active[session] = int(max(self.active.get(session, -inf), self._slot_end(ms)))
        return max(1, int(until - self.clock)) if change.operation == "resume" else 1

    def _command_session(self, change: SessionChange) -> int:
        """A command by the API, which names the session instead of showing its pass."""
        session, releases = change.session, change.operation == "api_release"
        if session not in self.active:
            return int(releases and session in self.ended)
        if releases:
            pass_ms = self.hard_ends.get(session, self._hard_end()) + self._limit("session_max_ms") - self.clock
            return self._change_session(SessionChange("release", session, max(0, pass_ms)))
        if session in self.hard_ends and self._session_left(session) <= 0:
            return 0
        self._change_session(SessionChange("hold" if change.operation == "api_hold" else "extend", session, change.ms))
        self._list("prolonged", session)
        return 1

    def _leave_queue(self, place: int) -> bool:
        in_queue = place in self.waiting or place in self.called or place in self.away
        if place in self.waiting:
            self.waiting.remove(place)
        self.called.pop(place, None)
        self.away.pop(place, None)
        self.missed.discard(place)
        self.turns.pop(place, None)
        return in_queue

    def _end_session(self, session: int, pass_ms: int, kind: str) -> bool:
        self._claim_lost_place(session)
        self.ended[session] = max(self.clock + pass_ms, self.active.get(session, 0) - SLOT_MARGIN_MS)
        self._list(kind, session)
        self.hard_ends.pop(session, None)
        return self.active.pop(session, None) is not None

    def _list(self, kind: str, session: int) -> None:
        """Lists a session for the workers."""
        self.feed[kind, session] = max(self.clock * 1000, max(self.feed.values(), default=0) + 1)


def _take_expired(until: dict[int, int], clock: int) -> list[int]:
    """Removes all entries whose time has come, ordered by time and then by place."""
    gone = sorted((time, member) for member, time in until.items() if time <= clock)
    for _, member in gone:
        del until[member]
    return [member for _, member in gone]
