"""The reference model of a room's fields: its clocks, limits and state, its events and its stock.

`waitroom.queue.reference_model` adds the visitors. Times are Unix times in milliseconds. An event is a dictionary with
the members of its record in the store.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Any

from waitroom.errors import RoomNotOpen
from waitroom.queue.constants import (
    EPOCH_MS,
    EVENT_RETENTION_MS,
    MAX_DRAWS,
    MAX_EVENTS,
    MAX_STEP_MS,
    PLACES_PER_MS,
    RISE_AFTER_ZERO_MS,
    SHUFFLE_SPAN,
)
from waitroom.queue.fields import Limits
from waitroom.queue.schedule import Draws
from waitroom.queue.store import Changed, EventAction, EventRefusal
from waitroom.queue.view import RoomState

SCHEDULE = "the schedule"
FILE = "the settings file"
SHOP = "the shop"

EventData = dict[str, Any]
_IN_PROGRESS = ("prequeue", "running")


class RoomModel(ABC):
    """The fields of one room, and its events."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.events: dict[str, EventData] = {}
        self.event_stats: Counter[str] = Counter()
        self.audit: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self._lose_fields()

    def _lose_fields(self) -> None:
        """Simulates the loss of the room's hash."""
        self.opened_under: str | None = None
        self.missing: set[str] = set()
        self.clock = 0
        self.wall = 0
        self.blocked = 0
        self.tokens = 1.0
        self.limits: dict[str, str] = {}
        self.file_limits: dict[str, str] = {}
        self.own_state = RoomState.OPEN
        self.state_by = ""
        self.state_before = ""
        self.message = ""
        self.remaining = ""
        self.draining = ""
        self.autopilot = ""
        self.version = 0
        self.generation = 0
        self.base = 0
        self.seq = 0
        self.totals: Counter[str] = Counter()
        self._make_current(None)
        self.events_version = 0
        self.draws: list[str] = []
        self.before_event: dict[str, str] | None = None
        self.void_place = 0
        self.ended_place = 0
        self.known_seq = 0  # the newest place when the room was opened
        self.stock_zero_at = 0
        self.stock_began_at: int | None = None
        self.stock_read_at: int | None = None
        self.reopened_at = 0
        self.reopened_sold = 0
        self.reopened_admitted = 0

    @abstractmethod
    def _void_queue(self) -> int:
        """Takes all places from the visitors who wait, are called or away; returns how many."""

    # The state in force.

    @property
    def state(self) -> RoomState:
        """The state in force: the one that was set, unless the event closes the room or opens its prequeue."""
        if self.own_state not in (RoomState.CLOSED, RoomState.SOLD_OUT):
            if self.limits.get("method") == "reject":
                return RoomState.CLOSED
            if self.event_phase == "scheduled" and self.event_before == "closed":
                return RoomState.CLOSED
            if self.event_phase == "prequeue":
                return RoomState.PREQUEUE
        return self.own_state

    def _accepts_claims(self) -> bool:
        return self.state not in (RoomState.CLOSED, RoomState.SOLD_OUT)

    def _limit(self, name: str) -> int:
        return int(self.limits[name])

    def _burst(self) -> float:
        return max(1, float(self.limits["rate"]) / 60)

    # The clock and the values that accumulate over time.

    def _look(self, now: int) -> None:
        if self.opened_under != self.run_id or self.missing or (self.event and not self.events):
            raise RoomNotOpen("the room isn't open since the store was started")
        self._look_at_clock(now)
        self._run_schedule()

    def _look_at_clock(self, now: int) -> None:
        """The room's clock follows the wall clock, but never goes back and never jumps ahead."""
        step = min(max(now - self.wall, 0), MAX_STEP_MS)
        self.wall = now
        self.clock += step
        self.blocked += 0 if self._accepts_claims() else step
        self.tokens = min(self.tokens + step * float(self.limits["rate"]) / 60000, self._burst())

    def _turn_clock(self) -> int:
        """The clock of turns, which stops while nobody can claim one."""
        return self.clock - self.blocked

    # Changes of fields.

    def set_limits(self, now: int, changes: Mapping[str, str]) -> None:
        """As `QueueStore.set_limits`."""
        self._look(now)
        changed = self._set(changes)
        if changed[1]:
            self._record(SHOP, *changed)

    def set_state(self, now: int, state: RoomState, message: str | None = None) -> None:
        """As `QueueStore.set_state`."""
        self.set_limits(now, {"state": state} if message is None else {"state": state, "message": message})

    def change(self, now: int, changes: Mapping[str, str], expected: int | None, who: str) -> Changed:
        """As `QueueStore.change`, with an audit event."""
        self._look(now)
        if expected is not None and expected != self.version:
            return Changed(False, self.version, {})
        before = {name: self._field(name) for name in changes}
        old, new = self._set(changes)
        self.version += bool(new)
        self.audit.append((who, old, new))
        return Changed(True, self.version, before)

    def _field(self, name: str) -> str:
        return (
            self.limits[name] if name in self.limits else str(self.own_state if name == "state" else vars(self)[name])
        )

    def _set(self, changes: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """Sets fields; returns the old and the new values of those that changed."""
        old, new = {}, {}
        for name, value in changes.items():
            if self._field(name) != value:
                old[name], new[name] = self._field(name), str(value)
            if name in self.limits:
                self.limits[name] = value
            elif name == "state":
                self.own_state = RoomState(value)
                self.state_by = ""
            else:
                setattr(self, name, value)
        return old, new

    def _record(self, who: str, old: dict[str, str], new: dict[str, str]) -> None:
        self.version += 1
        self.audit.append((who, old, new))

    # The file.

    def _read_file(self, limits: Limits, *, is_new: bool) -> None:
        """A limit takes the file's value if that is new; one that the running event overrides does so after its end."""
        overridden = self.events[self.event]["limits"] if self.before_event is not None else {}
        new = {name: value for name, value in limits.fields().items() if self.file_limits.get(name) != value}
        self.file_limits.update(new)
        if self.before_event is not None:
            self.before_event.update(new)
        now = {name: value for name, value in new.items() if name not in overridden}
        if is_new:
            self.limits.update(now)
        else:
            changed = self._set(now)
            if changed[1]:
                self._record(FILE, *changed)
        self.tokens = min(self.tokens, self._burst())

    def _end_lost_event(self) -> None:
        """Events that the store has lost begin again, with the limits from before."""
        old: dict[str, str] = {}
        new: dict[str, str] = {}
        self._put_limits_back(old, new)
        if new:
            self._record(SCHEDULE, old, new)

    def _restart_event(self) -> bool:
        """An event in progress takes its steps again in a room that the store has lost."""
        for event in self.events.values():
            if event["phase"] != "ended":
                event["phase"] = "scheduled"
        return bool(self.events)

    def _remove_event(self, name: str, *, is_new: bool) -> None:
        """If the event kept the room closed, the room stays so until the next event or an operator opens it."""
        old, new = {"event": "", "event_phase": self.events[name]["phase"]}, {"event": name, "event_phase": "removed"}
        kept_closed = self.event == name and self.state is not self.own_state
        del self.events[name]
        if is_new:
            return
        if kept_closed:
            self._set_by("schedule", old, new, state=RoomState.CLOSED)
        self._record(FILE, old, new)

    def _read_events(self, definitions: Mapping[str, str], *, is_new: bool) -> None:
        changed = is_new and self._restart_event()
        for name, text in definitions.items():
            without_seed = re.sub('"seed": "[0-9a-f]*"', "", text)
            digest = hashlib.sha1(without_seed.encode(), usedforsecurity=False).hexdigest()
            if self.events.get(name, {}).get("digest") != digest:
                old, new = self._define_event(json.loads(text), "file")
                self.events[name].update(source="file", digest=digest)
                changed = True
                if not is_new:
                    self._record(FILE, old, new)
        for name, event in sorted(self.events.items()):
            if event["source"] == "file" and name not in definitions:
                if event["phase"] == "scheduled":
                    self._remove_event(name, is_new=is_new)
                    changed = True
                elif event["phase"] == "ended":
                    event["source"] = "operator"
        if changed or (self.event and self.event not in self.events):
            self.events_version += 1
            self._choose_event()

    def _resume_after_events(self) -> None:
        """A room that the store has lost is as the last event left it."""
        last = self._last_event()
        if last is not None:
            self._apply_after(last, last["ended_at"])

    # Definitions of events.

    def change_event(
        self,
        now: int,
        action: EventAction,
        name: str,
        *,
        expected: int | None,
        who: str,
        definition: str = "",
    ) -> Changed | EventRefusal:
        """As `QueueStore.change_event`; ``definition`` is from `waitroom.queue.schedule.encode_event`."""
        self._look(now)
        if expected is not None and expected != self.version:
            return Changed(False, self.version, {})
        changed = self._change_event(action, name, definition)
        if isinstance(changed, str):
            return changed
        old, new = changed
        self._record(who, {"event": "", **old}, {"event": name, **new})
        self.events_version += 1
        self._choose_event()
        self._run_schedule()
        return Changed(True, self.version, {})

    def _change_event(
        self, action: EventAction, name: str, definition: str
    ) -> EventRefusal | tuple[dict[str, str], dict[str, str]]:
        event = self.events.get(name)
        if action == "set":
            if event is None and not self._has_room():
                return "too_many"
            return self._define_event(json.loads(definition), "operator")
        if event is None:
            return "unknown"
        if event["phase"] == "ended":
            return "ended"
        if action == "end":
            if event["phase"] != "running":
                return "not_started"
            event["end"] = self.wall
        elif event["phase"] == "running":
            return "started"
        elif action == "cancel":
            return self._cancel(event)
        elif self.event != name and self.event_phase in _IN_PROGRESS:
            return "busy"
        else:
            event["start"] = self.wall
            if event["phase"] == "scheduled":
                event["prequeue"] = 0
        return {}, {}

    def _has_room(self) -> bool:
        """Makes room for a new event: the one that ended first is forgotten."""
        if len(self.events) < MAX_EVENTS:
            return True
        ended = [event for event in self.events.values() if event["phase"] == "ended" and event["source"] != "file"]
        if ended:
            del self.events[min(ended, key=lambda event: event["ended_at"])["name"]]
        return bool(ended)

    def _cancel(self, event: EventData) -> tuple[dict[str, str], dict[str, str]]:
        old, new = {"event_phase": event["phase"]}, {"event_phase": "cancelled"}
        closes = self.event == event["name"] and self.state is not self.own_state
        if event["phase"] == "prequeue":
            self._close_draw()
        if closes:
            self._set_by("", old, new, state=RoomState.CLOSED)
        event.update(phase="ended", cancelled=True, ended_at=self.wall)
        return old, new

    def _define_event(self, definition: EventData, source: str) -> tuple[dict[str, str], dict[str, str]]:
        """A new record if there is none or the old one has ended and the new one is later; else a change."""
        name = definition["name"]
        old, new = {"event": ""}, {"event": name}
        event = self.events.get(name)
        if event is None or (event["phase"] == "ended" and definition["start"] > event["ended_at"]):
            is_over = 0 < definition["end"] <= self.wall
            self.events[name] = {
                **definition,
                "source": source,
                **{kept: event[kept] for kept in ("source", "digest") if event is not None and kept in event},
                "phase": "ended" if is_over else "scheduled",
                "cancelled": False,
                "prequeue_at": 0,
                "started_at": 0,
                "ended_at": definition["end"] if is_over else 0,
            }
            old["event_phase"], new["event_phase"] = "", self.events[name]["phase"]
        else:
            self._redefine_event(event, definition, old, new)
        return old, new

    def _redefine_event(
        self, event: EventData, definition: EventData, old: dict[str, str], new: dict[str, str]
    ) -> None:
        """The limits of a running event change immediately."""
        if event["phase"] == "running" and self.event == event["name"]:
            put_back = {
                name: value
                for name, value in (self.before_event or {}).items()
                if name in event["limits"] and name not in definition["limits"]
            }
            changed = {
                name: value for name, value in definition["limits"].items() if event["limits"].get(name) != value
            }
            self._set_by(self.state_by, old, new, **put_back, **changed)
        for name, value in definition.items():
            if name in ("seed", "limits"):
                continue
            if event[name] != value:
                old[name], new[name] = str(event[name]), str(value)
        seed = definition["seed"] if event["phase"] == "scheduled" else event["seed"]
        event.update({**definition, "seed": seed})

    def _set_by(self, state_by: str, old: dict[str, str], new: dict[str, str], **changes: str) -> None:
        """Sets fields on behalf of an event or the stock, and adds their old and new values."""
        changed = self._set(changes)
        old.update(changed[0])
        new.update(changed[1])
        self.state_by = state_by
        self.tokens = min(self.tokens, self._burst())

    # The steps from one phase to the next.

    def _run_schedule(self) -> None:
        """Takes all steps that are due."""
        while 0 < self.event_due <= self.wall:
            event = self.events[self.event]
            due, phase = _next_step(event)
            old: dict[str, str] = {}
            new: dict[str, str] = {}
            if phase == "prequeue":
                self._open_prequeue(event, old, new)
            elif phase == "running":
                self._start_event(event, old, new)
            else:
                self._end_event(event, due, old, new)
            old, new = (
                {**old, "event_phase": event["phase"], "event": ""},
                {**new, "event_phase": phase, "event": event["name"]},
            )
            event["phase"] = phase
            self._record(SCHEDULE, old, new)
            self.events_version += 1
            if phase == "ended":
                self._choose_event()
            else:
                self._make_current(event)

    def _choose_event(self) -> None:
        """The event in progress, else the next, else the last that ended counts. Forgets those that ended long ago."""
        for event in list(self.events.values()):
            long_ago = event["phase"] == "ended" and event["ended_at"] + EVENT_RETENTION_MS < self.wall
            if long_ago and event["source"] != "file":
                del self.events[event["name"]]
        ahead = [event for event in self.events.values() if event["phase"] != "ended"]
        current = min(ahead, key=lambda event: (event["phase"] == "scheduled", event["start"]), default=None)
        self._make_current(self._last_event() if current is None else current)

    def _make_current(self, event: EventData | None) -> None:
        self.event = "" if event is None else event["name"]
        self.event_phase = "" if event is None else event["phase"]
        self.event_before = "" if event is None else event["before"]
        self.event_due = 0 if event is None else _next_step(event)[0]

    def _last_event(self) -> EventData | None:
        ended = [event for event in self.events.values() if event["phase"] == "ended" and not event["cancelled"]]
        return max(ended, key=lambda event: (event["ended_at"], event["start"]), default=None)

    def _open_event(self, old: dict[str, str], new: dict[str, str]) -> None:
        """Nothing of the event before may count in this one."""
        self.void_place = max(self.void_place, self.ended_place)
        if self.own_state is RoomState.SOLD_OUT or self.state_by:
            self._lift_state(old, new)

    def _lift_state(self, old: dict[str, str], new: dict[str, str]) -> None:
        """Lifts a state; a room that was paused when its stock ran out stays so."""
        paused = self.state_by == "stock" and self.state_before == "paused"
        self._set_by("", old, new, state=RoomState.PAUSED if paused else RoomState.OPEN)

    def _open_prequeue(self, event: EventData, old: dict[str, str], new: dict[str, str]) -> None:
        self._open_event(old, new)
        if event["method"] == "random" and not any(event["seed"] in draw for draw in self.draws):
            self._save_draws([*self.draws, f"{self.seq}::{event['seed']}"])
        event["prequeue_at"] = self.wall
        event["begin"] = self._totals()

    def _start_event(self, event: EventData, old: dict[str, str], new: dict[str, str]) -> None:
        if event["phase"] == "prequeue":
            self._close_draw()
        else:
            self._open_event(old, new)
        self.before_event = {**self.limits, "autopilot": self.autopilot}
        self._set_by(self.state_by, old, new, **event["limits"])
        if event["units"] >= 0:
            self._set_by(self.state_by, old, new, remaining=str(event["units"]))
        elif self.remaining == "0":
            self._set_by(self.state_by, old, new, remaining="")
        self.reopened_at = 0
        self.event_stats.clear()
        self._begin_stock(self.wall)
        kept = ("joined", "left:left", "left:away") if event["phase"] == "prequeue" else ()
        begin = self._totals()
        begin = {name: count for name, count in begin.items() if name not in kept}
        event["begin"] = begin | {name: event["begin"][name] for name in kept if name in event["begin"]}
        event["started_at"] = self.wall

    def _end_event(self, event: EventData, due: int, old: dict[str, str], new: dict[str, str]) -> None:
        self._put_limits_back(old, new)
        self.reopened_at = 0
        self._apply_after(event, due, old, new)
        event["totals"] = {name: count - event["begin"].get(name, 0) for name, count in self._totals().items()}
        event["stats"] = dict(self.event_stats)
        self.event_stats.clear()
        event["ended_at"] = self.wall

    def _put_limits_back(self, old: dict[str, str], new: dict[str, str]) -> None:
        self._set_by(self.state_by, old, new, **(self.before_event or {}))
        self.before_event = None

    def _apply_after(
        self,
        event: EventData,
        ended_at: int,
        old: dict[str, str] | None = None,
        new: dict[str, str] | None = None,
    ) -> None:
        """The room after an event. One that a person has closed stays so, a paused one if the event leaves it open."""
        old, new = {} if old is None else old, {} if new is None else new
        self.ended_place = max(self.ended_place, self._end_places(ended_at))
        if event["after"] == "open":
            if self.own_state is RoomState.SOLD_OUT:
                self._lift_state(old, new)
            if self.remaining == "0":
                self._set_by(self.state_by, old, new, remaining="")
            return
        if self.own_state is not RoomState.CLOSED or self.state_by:
            self._set_by("schedule", old, new, state=RoomState(event["after"]))
        self.totals["left:event_ended"] += self._void_queue()
        self.void_place = max(self.void_place, self.ended_place)

    def _end_places(self, ended_at: int) -> int:
        """The newest place of an event; later ones are greater than its end in time."""
        by_time = max(0, (ended_at - EPOCH_MS) * PLACES_PER_MS)
        if ended_at < self.generation:
            return min(self.base, max(by_time, self.known_seq))
        self.seq = max(self.seq, by_time)
        return self.seq

    def _totals(self) -> dict[str, int]:
        return {name: count for name, count in self.totals.items() if count}

    def _count_event(self, name: str) -> None:
        """Counts something that the report of the running event shows."""
        if self.event_phase == "running":
            self.event_stats[name] += 1

    def _raise_event_peak(self, name: str, value: int) -> None:
        if self.event_phase == "running" and value > self.event_stats[name]:
            self.event_stats[name] = value

    # Shuffled prequeues.

    def _rank(self, place: int) -> int:
        return Draws(" ".join(self.draws)).rank(place)

    def _save_draws(self, draws: list[str]) -> None:
        self.draws = draws[-MAX_DRAWS:]

    def _close_draw(self) -> None:
        """From now on newcomers stand behind the shuffled places."""
        for i, draw in enumerate(self.draws):
            first, last, seed = draw.split(":")
            if not last:
                self.seq = max(self.seq, int(first) + SHUFFLE_SPAN)
                self.draws[i] = f"{first}:{self.seq}:{seed}"

    def _restore_draws(self, seen: str) -> None:
        """Adds the shuffled ranges that a client has seen and the store has lost."""
        draws = [*self.draws]
        for part in seen.split():
            known = next((i for i, draw in enumerate(draws) if draw.split(":")[2] == part.split(":")[2]), None)
            if known is None:
                draws.append(self._restored_range(part))
            elif "::" in draws[known] and "::" not in part:
                draws[known] = self._restored_range(part)
        if draws != self.draws:
            self._save_draws(draws)

    def _close_stale_draws(self) -> None:
        """Closes ranges that are open although their event has begun or is over: a client saw them before the loss."""
        event = self.events.get(self.event)
        pending = event["seed"] if event is not None and event["phase"] in ("scheduled", "prequeue") else ""
        for i, draw in enumerate(self.draws):
            first, last, seed = draw.split(":")
            if not last and seed != pending:
                self.draws[i] = self._restored_range(f"{first}:{self.base}:{seed}")

    def _restored_range(self, part: str) -> str:
        """A range as it counts after a loss: no place of this generation is in it, and newcomers stand behind it."""
        first, last, seed = part.split(":")
        if not last:
            return part
        self.seq = max(self.seq, int(first) + SHUFFLE_SPAN)
        return f"{first}:{min(int(last), self.base)}:{seed}"

    # Stock.

    def set_remaining(self, now: int, units: int, age_ms: int = 0, *, by_api: bool = False) -> None:
        """As `QueueStore.set_remaining`."""
        self._look(now)
        before = int(self.remaining) if self.remaining else None
        read_at = self.wall - age_ms
        if self.stock_began_at is None or (before is None and read_at >= self._past(self.stock_began_at)):
            self._begin_stock(read_at)
        if not by_api and self._is_outdated(units, read_at):
            return
        if before is not None:
            self.totals["sold"] += max(0, before - units)
            self.totals["units_returned"] += max(0, units - before)
        self.remaining = str(units)
        self.stock_read_at = max(self._newest_read(), read_at)
        if units == 0 and before != 0:
            self._sell_out(read_at)
        elif units > 0 and self.own_state is RoomState.SOLD_OUT and self.state_by == "stock":
            self._reopen()

    def report_sold_out(self, now: int, age_ms: int) -> None:
        """As `QueueStore.report_sold_out`."""
        self._look(now)
        is_on_sale = self.state in (RoomState.OPEN, RoomState.PAUSED) or self.state_by == "stock"
        if is_on_sale and self.wall - age_ms >= self._past(self.stock_began_at):
            changed = self._set({"state": RoomState.SOLD_OUT})
            if changed[1]:
                self._record(SHOP, *changed)

    def _past(self, time: int | None) -> int:
        """A time in the future is of another clock, and says nothing."""
        return time if time is not None and time <= self.wall else 0

    def _newest_read(self) -> int:
        return self._past(self.stock_read_at)

    def _begin_stock(self, at: int) -> None:
        self.stock_began_at = self.stock_read_at = at

    def _is_outdated(self, units: int, read_at: int) -> bool:
        """Whether a response reports less than is known already."""
        if units == 0:
            too_late = self._newest_read() - read_at >= RISE_AFTER_ZERO_MS
            return read_at < self._past(self.stock_began_at) or too_late
        too_soon = self.remaining == "0" and read_at - self._past(self.stock_zero_at) < RISE_AFTER_ZERO_MS
        return read_at < self._newest_read() or too_soon

    def _sell_out(self, read_at: int) -> None:
        self.stock_zero_at = read_at
        if self.state in (RoomState.OPEN, RoomState.PAUSED):
            self.state_before = str(self.own_state)
            changed = self._set({"state": RoomState.SOLD_OUT})
            self.state_by = "stock"
            self._record(SHOP, *changed)

    def _reopen(self) -> None:
        self.reopened_at = self.clock
        self.reopened_sold = self._units_sold()
        self.reopened_admitted = self.totals["admitted"]
        paused = self.state_before == "paused"
        self._record(SHOP, *self._set({"state": RoomState.PAUSED if paused else RoomState.OPEN}))

    def _units_sold(self) -> int:
        return self.totals["sold"] - self.totals["units_returned"]


def _next_step(event: EventData) -> tuple[int, str]:
    """When the next phase of an event begins, 0 for never, and which one it is."""
    if event["phase"] == "scheduled" and event["prequeue"]:
        return event["prequeue"], "prequeue"
    if event["phase"] in ("scheduled", "prequeue"):
        return event["start"], "running"
    return (event["end"], "ended") if event["phase"] == "running" else (0, "")
