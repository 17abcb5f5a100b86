"""The reference model of a room: the same operations as `QueueStore`, in memory, one after the other.

Events and stock are in `waitroom.queue.reference_schedule`. The model defines the behaviour of the scripts in the
plainest way, without regard to speed, so that the real store can be compared with it answer by answer. It has no clock,
does no I/O and uses no randomness: every operation takes the wall clock as an argument. It omits only one thing: a
script handles at most a thousand members of a kind in one call.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import floor, inf, log
from typing import Any

from waitroom.queue.constants import (
    EPOCH_MS,
    FEED_MS,
    MAX_INVITED,
    PLACES_PER_MS,
    SETTLE_MS,
    SHUFFLED_LOOK_UP,
    SLOT_MARGIN_MS,
    WINDOW_MS,
)
from waitroom.queue.fields import AUTOPILOT, Limits
from waitroom.queue.reference_recovery import RecoveryModel
from waitroom.queue.reference_schedule import RoomModel
from waitroom.queue.schedule import parse_record
from waitroom.queue.store import (
    LOOK_UPS_PER_TICK,
    Called,
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


class QueueModel(RoomModel):
    """One room, and the server that stores it.

    Every operation takes the wall clock, ``now``, in milliseconds since the epoch, and raises `RoomNotOpen` if the room
    must be opened first.

    Args:
        run_id: The server's run id; assign another one to simulate a restart or a failover.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.lose_everything()

    def lose_everything(self) -> None:
        """Simulates a server that starts empty."""
        self._lose_fields()
        self.events.clear()
        self.event_stats.clear()
        self.audit.clear()
        self.waiting: dict[int, int] = {}  # with the numbers that order them
        self.called: dict[int, int] = {}
        self.away: dict[int, int] = {}
        self.missed: set[int] = set()
        self.turns: dict[int, str] = {}
        self.moved: dict[int, int] = {}
        self.moved_until: dict[int, int] = {}
        self.hard_ends: dict[int, int] = {}
        self.feed: dict[tuple[str, int], int] = {}
        self.active: dict[int, int] = {}
        self.ended: dict[int, int] = {}
        self.seen_in: dict[int, int] = {}
        self.issued_ranges: list[tuple[int, int]] = []
        self.recovered: set[tuple[int, int]] = set()  # with the generation in which the older ones were forgotten

    def _lose_fields(self) -> None:
        super()._lose_fields()
        self.invited: list[int] = []
        self.high_water_mark = 0
        self.recovered_in = 0
        self.changes = 0
        self.moves = 0
        self.opened_changes = 0
        self.opened_seq = 0
        self.opened_at = 0
        self.resume_at = 0
        self.recovery: RecoveryModel | None = None
        self.recovered_generation = 0

    def lose(self, name: str) -> None:
        """Simulates the loss of one key, by the names of `waitroom.queue.store.KEYS`; ``room`` is the hash."""
        if name == "room":
            reported = self.recovery is not None and self.recovery.reported
            self._lose_fields()
            if reported or any(getattr(self, key) for key in (*_FATES, *_OTHERS)):
                self.missing.add("room")
        elif getattr(self, name):
            getattr(self, name).clear()
            if name in (*_FATES, *_OTHERS):
                self.missing.add(name)

    # The operations.

    def open(
        self, now: int, limits: Limits, newest: Newest | None = None, events: Mapping[str, str] | None = None
    ) -> int:
        """As `QueueStore.open`; ``newest`` is what the client has seen."""
        seen = newest or Newest()
        is_new = self.opened_under is None
        if is_new:
            self.clock = self.wall = now
        else:
            self._look_at_clock(now)
            if self.event and not self.events:
                self._end_lost_event()
        self.known_seq = self.seq
        self._read_file(limits, is_new=is_new)
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
        self._restore_draws(seen.draws)
        self._read_events(events or {}, is_new=is_new)
        if is_new:
            self._resume_after_events()
        self._run_schedule()
        self._close_stale_draws()
        self.known_seq = 0
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
        self._restore_draws(newest.draws)
        self._close_stale_draws()
        return True

    def _void_queue(self) -> int:
        gone = len(self.waiting) + len(self.called) + len(self.away)
        for places in (self.waiting, self.called, self.away, self.missed, self.turns, self.moved, self.moved_until):
            places.clear()
        self.changes += gone > 0
        self.high_water_mark = max(self.high_water_mark, self.seq)
        return gone

    def join(self, now: int, count: int) -> Joined:
        """As `QueueStore.join`."""
        self._look(now)
        if self.state in (RoomState.CLOSED, RoomState.SOLD_OUT):
            return Joined(self.generation, 0, 0, len(self.waiting), self.state, self.clock)
        self.changes += 1
        newcomers = range(self.seq + 1, self.seq + 1 + count)
        self.seq += count
        if self.state is RoomState.OPEN and self._passthrough() and not self.waiting:
            self._count_overruns(count)
        admitted = 0
        for place in newcomers:
            if self.state is RoomState.OPEN and not self.waiting and self._may_call():
                self._take_token()
                self._enter(place)
                self.totals["admitted"] += 1
                admitted += 1
            else:
                self._wait(place)
                self._mark(place)
        self.totals["joined"] += count
        return Joined(self.generation, newcomers[0], admitted, len(self.waiting), self.state, self.clock)

    def _count_overruns(self, count: int) -> None:
        """Counts those whom the limits of a passthrough room would have let wait."""
        by_rate = max(0, count - max(0, floor(self.tokens + 1e-9)))
        self.tokens -= count - by_rate
        self.totals["over:rate"] += by_rate
        self.totals["over:max_active"] += min(count, max(0, count - self._vacant_slots()))

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
        given_back = self._give_places_back()
        self._raise_event_peak("peak_waiting", len(self.waiting) + len(self.away))
        called, skipped, stopped_early = self._call(look_ups)
        self.totals["left:expired"] += len(ended)
        self.totals["missed_turns"] += len(missed)
        self.totals["left:missed"] += twice
        self.totals["left:away"] += len(dropped)
        self.changes += called + skipped + len(ended) + len(missed) + twice + len(dropped) + given_back > 0
        self._raise_event_peak("peak_active", len(self.active))
        self._raise_event_peak("overshoot", len(self.active) + len(self.called) - self._limit("max_active"))
        return Ticked(called, skipped, len(ended) + swept, len(missed), twice + len(dropped), stopped_early)

    def call_out_of_order(self, now: int, place: int, who: str) -> Called:
        """As `QueueStore.call_out_of_order`; ``who`` is the author of the audit event."""
        self._look(now)
        called = self._call_out_of_order(place)
        if called in ("called", "admitted"):
            self.audit.append((who, {}, {}))
        return called

    def _call_out_of_order(self, place: int) -> Called:
        place = self.moved.get(place, place)
        if place in self.active:
            return "admitted"
        if place in self.called:
            return "called"
        if place not in self.waiting and place not in self.away:
            return "unknown"
        if not self._accepts_claims():
            return "not_open"
        if not self._passthrough() and self._vacant_slots() <= 0:
            return "full"
        if self._rank(place) > self.high_water_mark:
            here = self.called.keys() | self.away.keys()
            kept = [one for one in self.invited if self._rank(one) > self.high_water_mark and one in here]
            if len(kept) >= MAX_INVITED:
                return "too_many"
            self.invited = [*kept, place]
        self.waiting.pop(place, None)
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
            "own_state": self.own_state,
            "state_by": self.state_by,
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
            "totals": self._totals(),
            "event": parse_record(json.dumps(self.events[self.event])) if self.event else None,
            "events_version": self.events_version,
            "draws": " ".join(self.draws),
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

    # Limits.

    def _passthrough(self) -> bool:
        return self.limits["method"] == "passthrough"

    def _may_call(self) -> bool:
        """Whether the rate and the slots allow one more."""
        vacant = self._vacant_slots() > 0 and self._slots_by_stock() > 0 and not self._holds_calls()
        return self._passthrough() or (vacant and self.tokens >= 1 - 1e-9)

    def _take_token(self) -> None:
        if not self._passthrough():
            self.tokens -= 1

    def _slots_by_stock(self) -> float:
        """Once units have come back: how many visitors may come for them."""
        if not self.reopened_at or not self.remaining:
            return inf
        since = self.reopened_at + self._limit("session_max_ms")
        inside = sum(hard_end >= since for hard_end in self.hard_ends.values())
        admitted = self.totals["admitted"] - self.reopened_admitted
        sold = self._units_sold() - self.reopened_sold
        buyers = max(0, min(inside, admitted - sold))
        return int(self.remaining) - len(self.called) - buyers

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

    def _wait(self, place: int) -> None:
        self.waiting[place] = self._rank(place)

    def queue(self) -> list[int]:
        """The places of those who wait, in order."""
        return sorted(self.waiting, key=lambda place: (self.waiting[place], str(place)))

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
            place = self.queue()[0]
            del self.waiting[place]
            self.high_water_mark = max(self.high_water_mark, self._rank(place))
            look_ups -= SHUFFLED_LOOK_UP if self._rank(place) != place else 1
            if place in self.seen_in and self.seen_in[place] >= oldest:
                self.called[place] = self._turn_clock() + self._limit("claim_ms")
                self._take_token()
                called += 1
            else:
                self.away[place] = self.clock + self._limit("keep_ms")
                skipped += 1
        return called, skipped, False

    def _give_places_back(self) -> int:
        """Nothing is left for visitors who were called and haven't entered: they have missed no turn."""
        if self.state is not RoomState.SOLD_OUT or self.state_by != "stock":
            return 0
        given_back = [*self.called]
        for place in given_back:
            del self.called[place]
            self.turns.pop(place, None)
            self._wait(place)
        return len(given_back)

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
            self._wait(place)
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
                self._count_event(f"wait:{_class_of(visit.waited_seconds)}")
                if visit.promised_seconds:
                    self._count_event(f"eta:{_class_of(abs(visit.waited_seconds - visit.promised_seconds))}")
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
        self._wait(self.seq)
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
        if place <= self.void_place:
            return False
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
            self.totals["released_by_shop"] += ended and kind == "released"
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
        self.waiting.pop(place, None)
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


def _class_of(seconds: int) -> int:
    """The number of the class of some seconds; the bounds of the classes grow by a fifth."""
    return floor(log(seconds + 1) / log(1.2))


def _take_expired(until: dict[int, int], clock: int) -> list[int]:
    """Removes all entries whose time has come, ordered by time and then by place."""
    gone = sorted((time, member) for member, time in until.items() if time <= clock)
    for _, member in gone:
        del until[member]
    return [member for _, member in gone]
