"""What has become of a room's events, limits, state and stock: judged from the audit log and the records alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from support.queue_order import QueueOrder
from support.stored_room import AuditEntry, Contents, StoredRoom
from waitroom.queue.fields import LIMITS, Limits, from_hash
from waitroom.queue.view import RoomState

PHASES = ("scheduled", "prequeue", "running", "ended")
DUE = {"prequeue": "prequeue", "running": "start", "ended": "end"}
_LIMIT_NAMES = {limit.stored for limit in LIMITS}


@dataclass
class EventHistory:
    """The record of one room's events.

    Attributes:
        limits: Those in force, by the audit log.
        own_state: The state that was set, by the audit log.
        outside: The limits to come back with the end of the running event.
        phases: The phase that each event has reached.
        records: The events as they were stored before.
        void_place: Places up to it don't outlive a loss.
        voided: How many visitors have lost their places to the end of an event.
        may_void, must_void: Whether the last operation may, or must, have taken places away so.
        reopened_at: When units came back to the sold-out room; 0 for never.
        came_for_units: Those who were called or admitted since then; None if that is unknown.
        sold_before: How many units had been sold by then.
        remaining: How many are left.
    """

    limits: Limits
    own_state: RoomState = RoomState.OPEN
    outside: Limits | None = None
    phases: dict[str, str] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    event_phase: str = ""
    event_before: str = ""
    state_by: str = ""
    void_place: int = 0
    voided: int = 0
    may_void: bool = False
    must_void: bool = False
    reopened_at: int = 0
    came_for_units: set[int] | None = None
    sold_before: int = 0
    sold: int = 0
    remaining: int = 0

    @property
    def state(self) -> RoomState:
        """The state in force."""
        if self.own_state in (RoomState.OPEN, RoomState.PAUSED):
            if self.limits.method == "reject":
                return RoomState.CLOSED
            if self.event_phase == "scheduled" and self.event_before == "closed":
                return RoomState.CLOSED
            if self.event_phase == "prequeue":
                return RoomState.PREQUEUE
        return self.own_state

    @property
    def sold_out_by_stock(self) -> bool:
        return self.state is RoomState.SOLD_OUT and self.state_by == "stock"

    @property
    def waits_for_stock(self) -> bool:
        """Whether fewer may be called than there are slots."""
        return self.reopened_at > 0

    def lost_events(self) -> None:
        self.phases.clear()

    def file_read(self, new: Limits, old: Limits) -> None:
        """A value of the file that is new counts at the latest from the end of the running event on."""
        if self.outside is not None:
            changed = {limit.name: getattr(new, limit.name) for limit in LIMITS}
            kept = {name: value for name, value in changed.items() if value == getattr(old, name)}
            self.outside = replace(self.outside, **{name: changed[name] for name in changed.keys() - kept.keys()})

    def follow(self, room: StoredRoom, wall: int, order: QueueOrder, *, is_new: bool) -> None:
        """Takes in what was recorded with an operation."""
        self.may_void, self.must_void = is_new, False
        for entry in room.audit:
            self._take_in(entry, room, wall, order)
        for name, record in room.events.items():
            self.phases.setdefault(name, record["phase"])
            assert record["phase"] == self.phases[name], "a step was taken that nobody has recorded"
        for name in self.phases.keys() - room.events.keys():
            assert self.phases.pop(name) in ("scheduled", "ended"), "an event in progress was removed"
        self.records = room.events
        fields = room.fields
        if is_new:
            self.own_state = RoomState(fields["state"])
        assert fields["state"] == self.own_state, "a change of the state that nobody has recorded"
        stored = {name: fields[name] for name in _LIMIT_NAMES}
        assert stored == self.limits.fields(), "a change of the limits that nobody has recorded"
        self.event_phase, self.event_before = fields["event_phase"], fields["event_before"]
        self.state_by, self.void_place = fields["state_by"], int(fields["void_place"])
        self._follow_stock(room)

    def _take_in(self, entry: AuditEntry, room: StoredRoom, wall: int, order: QueueOrder) -> None:
        new, session_max = entry.new, self.limits.session_max_seconds
        phase, name = new.get("event_phase"), new.get("event", "")
        if phase == "running":
            self.outside = self.limits
        # An event's own method is the order of its prequeue.
        names = _LIMIT_NAMES - ({"method"} if "event" in new and phase is None else set())
        values = from_hash({field: value for field, value in new.items() if field in names})
        self.limits = replace(self.limits, **values)
        self.own_state = RoomState(new.get("state", self.own_state))
        if self.limits.session_max_seconds != session_max:
            self.came_for_units = None
        if phase is not None:
            self._reaches(name, phase, entry, room, wall, order)
        elif entry.who == "the schedule":
            self.outside = None

    def _reaches(
        self, name: str, phase: str, entry: AuditEntry, room: StoredRoom, wall: int, order: QueueOrder
    ) -> None:
        """An event is defined, takes a step, or is cancelled."""
        if entry.who != "the schedule":
            if phase == "cancelled":
                order.prequeue_ends()
            self.phases[name] = "ended" if phase == "cancelled" else phase
            if phase == "removed":
                del self.phases[name]
            return
        record = room.events.get(name)
        before = self.phases.get(name, "scheduled")
        assert entry.old["event_phase"] == before, "a step was taken twice, or left out"
        assert PHASES.index(phase) > PHASES.index(before), "a phase went back"
        self.phases[name] = phase
        if record is not None:
            known = self.records.get(name, record)
            assert wall >= min(record[DUE[phase]], known[DUE[phase]]), "a step was taken too early"
            self._begins(phase, (known, record), order)

    def _begins(self, phase: str, records: tuple[dict[str, Any], ...], order: QueueOrder) -> None:
        """``records``: the event before and after the operation, which may have defined it otherwise."""
        if phase == "prequeue":
            order.prequeue_opens(shuffled=any(record["method"] == "random" for record in records))
        else:
            order.prequeue_ends()
        if phase == "ended":
            assert self.limits == self.outside, "the limits of the event go on"
            self.outside = None
            after = [record["after"] for record in records]
            self.may_void |= after != ["open", "open"]
            self.must_void |= "open" not in after

    # Stock.

    def _follow_stock(self, room: StoredRoom) -> None:
        reopened_at = int(room.fields["reopened_at"])
        self.sold, self.remaining = room.sold, int(room.fields["remaining"] or "0")
        if reopened_at != self.reopened_at:
            self.reopened_at = reopened_at
            self.came_for_units = set()
            self.sold_before = self.sold

    def came(self, places: Iterable[int], after: Contents) -> None:
        """Some were called or admitted: for each unit that came back there is one visitor."""
        if not self.reopened_at or self.came_for_units is None or self.limits.method == "passthrough":
            return
        self.came_for_units |= set(places)
        here = self.came_for_units & (after.called.keys() | after.active.keys())
        if places:
            assert len(here) <= self.remaining + max(0, self.sold - self.sold_before), "more came than there are units"
