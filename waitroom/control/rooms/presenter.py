"""The rooms in the format of the API, the dashboard and the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from waitroom.control.monitoring.hints import hints
from waitroom.control.monitoring.history import Sample, shop_json
from waitroom.control.rooms.admission_loop import Admission
from waitroom.control.rooms.event_presenter import event_actions, event_json, recorded_values
from waitroom.control.rooms.stock_presenter import stock_json
from waitroom.metrics.upstream_window import STATS_SECONDS, UpstreamWindow
from waitroom.queue.fields import AUTOPILOT, OPERATOR_FIELDS, OPERATOR_NUMBERS, STATE, to_hash
from waitroom.queue.positions import Forecast
from waitroom.queue.view import RoomState, RoomView, values_of
from waitroom.settings import RoomSettings, Settings


@dataclass(frozen=True, slots=True)
class LastChange:
    """The last change of a room, as stored.

    Attributes:
        at: The time, RFC 3339 in UTC.
        who: The actor's name, "the shop" or "the settings file".
        old, new: The changed fields of the room's hash, before and after.
        undoable: Whether this kind of change can be undone, regardless of later ones.
    """

    at: str
    who: str
    old: Mapping[str, str]
    new: Mapping[str, str]
    undoable: bool

    @classmethod
    def parse(cls, record: str) -> LastChange | None:
        """Parses a view's ``last_change`` or ``operator_change``; None if there is none, or one that can't be read."""
        if not record:
            return None
        try:
            stored = json.loads(record)
            at = datetime.fromtimestamp(int(stored["at_ms"]) / 1000, UTC).isoformat(timespec="seconds")
            change = cls(at.replace("+00:00", "Z"), stored["who"], stored["old"], stored["new"], stored["undoable"])
            change.summary()
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, RecursionError):
            return None
        return change

    def stands(self, view: RoomView) -> bool:
        """Whether it can be undone and is still in effect; otherwise an undo would revert somebody else's change."""
        now = to_hash({**values_of(view, OPERATOR_FIELDS), STATE.name: view.own_state})
        return self.undoable and all(now.get(name) == value for name, value in self.new.items())

    def json(self) -> dict[str, str]:
        """Returns the change in the API's format."""
        return {"at": self.at, "who": self.who, "what": self.summary()}

    def summary(self) -> str:
        """Describes the change in words."""
        old, new = recorded_values(self.old), recorded_values(self.new)
        event, phase = new.pop("event", None), new.pop("event_phase", None)
        changes = [f"{name} {_in_words(name, old[name])} → {_in_words(name, new[name])}" for name in new]
        if event is None:
            return ", ".join(changes)
        return f"event {event}: {', '.join([*([] if phase is None else [phase]), *changes]) or 'changed'}"


def _in_words(name: str, value: object) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case None:
            return "as in the settings file" if name == AUTOPILOT.name else "none"
        case str() if " " in value or not value:
            return f'"{value}"'
    return str(value)


def wait_of_newcomer(view: RoomView, *, store_up: bool) -> tuple[int, int] | None:
    """Returns the wait in seconds that a visitor who joined now would see, minimum and maximum."""
    if view.state is not RoomState.OPEN or not store_up or view.method != "fifo" or view.rate_per_minute <= 0:
        return None
    return Forecast(view.rate_per_minute, view.throughput, view.free_slots).wait(view.waiting + 1)


def recovery_json(view: RoomView) -> dict[str, Any] | None:
    """Returns the recovery from a loss of data in the API's format, or None."""
    found = view.recovery
    if found is None:
        return None
    waiting, active = (None if one < 0 else one for one in (found.expected_waiting, found.expected_active))
    return {
        "seconds_left": round(found.left_ms / 1000, 1),
        "waiting": {"expected": waiting, "reported": found.reported_waiting},
        "active": {"expected": active, "reported": found.reported_active},
    }


@dataclass(frozen=True, slots=True)
class Sold:
    """The sales: in the current event, or since the room's first day if it has none.

    Attributes:
        number: The units sold, or sessions that the shop released.
        by: How it is known: ``stock`` if the shop reports its stock, ``release`` otherwise.
    """

    number: int
    by: Literal["stock", "release"]

    @classmethod
    def of(cls, view: RoomView) -> Sold:
        """Returns what a view of a room says."""
        totals = _totals_of_event(view)
        if view.remaining is not None or totals.get("sold", 0):
            return cls(max(0, totals.get("sold", 0) - totals.get("units_returned", 0)), "stock")
        return cls(totals.get("left:released", 0), "release")


def _totals_of_event(view: RoomView) -> Mapping[str, int]:
    event = view.event
    if event is None:
        return view.totals
    if event.started_ms is None:
        return {}
    if event.ended_ms is not None:
        return event.totals
    return {name: total - event.begin.get(name, 0) for name, total in view.totals.items()}


class Rooms:
    """The state of all rooms.

    Args:
        settings: The gateway's settings.
        admissions: The admission loops, in the order of the settings; they hold the latest views.
        watch: Provides the shop's figures.
        workers_alive: Returns how many edge workers of this gateway serve.
        autopilot: Returns a room's autopilot in the API's format, or None if it has none.
        gateway_hints: Returns the hints on the gateway as a whole, which are shown with each room.
    """

    def __init__(
        self,
        settings: Settings,
        admissions: Sequence[Admission],
        watch: UpstreamWindow,
        workers_alive: Callable[[], int],
        autopilot: Callable[[str], Mapping[str, Any] | None] = lambda _room: None,
        gateway_hints: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        self._settings = {room.name: room for room in settings.rooms}
        self._workers = settings.workers
        self._admissions = {one.name: one for one in admissions}
        self._watch = watch
        self._workers_alive = workers_alive
        self._autopilot = autopilot
        self._gateway_hints = gateway_hints

    def __contains__(self, room: str) -> bool:
        return room in self._admissions

    def settings(self, room: str) -> RoomSettings:
        """Returns a room's settings, as in the file. Raises `KeyError`."""
        return self._settings[room]

    def view(self, room: str) -> RoomView | None:
        """Returns the latest view of a room, None before the first. Raises `KeyError`."""
        return self._admissions[room].view

    async def refresh(self, room: str) -> RoomView:
        """Returns the current state of a room. Raises `KeyError` and `StoreUnavailable`."""
        return await self._admissions[room].refresh()

    def autopilot_on(self, room: str) -> bool:
        """Whether the autopilot sets a room's rate now. Raises `KeyError`."""
        autopilot = self._autopilot(room)
        return autopilot is not None and bool(autopilot["on"])

    def sold(self, room: str) -> Sold | None:
        """Returns what was sold, None before the first view. Raises `KeyError`."""
        view = self._admissions[room].view
        return None if view is None else Sold.of(view)

    def recent_wait(self, room: str, share: float) -> float | None:
        """Returns the quantile of the waits of visitors admitted in the last minute, by this gateway's workers."""
        return self._watch.wait_seconds(room, share)

    def described(self) -> list[dict[str, Any]]:
        """Returns all rooms in the API's format."""
        return [self.one(name) for name in self._admissions]

    def one(self, name: str) -> dict[str, Any]:
        """Returns one room in the API's format. Raises `KeyError`."""
        admission = self._admissions[name]
        view = admission.view
        upstream = ", ".join(self._settings[name].upstreams)
        described: dict[str, Any] = {"name": name, "upstream": upstream, "store_up": admission.store_up}
        if admission.store_problem:
            described["store_problem"] = admission.store_problem
        if view is None:
            return described
        last, undo = LastChange.parse(view.last_change), LastChange.parse(view.operator_change)
        return described | {
            "version": view.version,
            "state": str(view.state),
            "own_state": str(view.own_state),
            "draining": view.draining,
            "method": view.method,
            "waiting": view.waiting,
            "called": view.called,
            "away": view.away,
            "active": view.active,
            **values_of(view, OPERATOR_NUMBERS),
            "message": view.message,
            "remaining": view.remaining,
            "stock": stock_json(view, admission.selling),
            "totals": view.totals,
            "admitted_per_minute": _rounded(admission.per_minute("admitted")),
            "joined_per_minute": _rounded(admission.per_minute("joined")),
            "left_per_minute": {
                counter.removeprefix("left:"): _rounded(admission.per_minute(counter))
                for counter in view.totals
                if counter.startswith("left:")
            },
            "over_limit": _over_limit(admission, view),
            "wait_seconds": {"newcomer": wait_of_newcomer(view, store_up=admission.store_up)},
            "session_seconds": view.session_ms / 1000,
            "claim_seconds": view.claim_ms / 1000,
            "shop": shop_json(self._watch.stats(name, STATS_SECONDS)),
            "workers": {"alive": self._workers_alive(), "wanted": self._workers},
            "recovery": recovery_json(view),
            "hints": [
                *self._gateway_hints(),
                *hints(self._settings[name], self._watch.observed(name), time.time()),
            ],
            "autopilot": self._autopilot(name),
            "event": None if view.event is None else event_json(view.event),
            "event_actions": event_actions(view.event),
            "events_version": view.events_version,
            "last_change": None if last is None else {**last.json(), "undoable": last.stands(view)},
            "undo": undo.json() if undo is not None and undo.stands(view) else None,
        }

    def samples(self, at: int) -> dict[str, Sample]:
        """Returns samples of the rooms whose store answers, for the history."""
        return {
            name: Sample.of(
                at, one.view, wait_of_newcomer(one.view, store_up=True), self._watch.stats(name, STATS_SECONDS)
            )
            for name, one in self._admissions.items()
            if one.view is not None and one.store_up
        }


def _over_limit(admission: Admission, view: RoomView) -> dict[str, Any] | None:
    """Returns how many visitors each limit would have let wait; None unless the room is a passthrough one."""
    if view.method != "passthrough":
        return None
    return {
        limit: {
            "total": view.totals.get(f"over:{limit}", 0),
            "per_minute": _rounded(admission.per_minute(f"over:{limit}")),
        }
        for limit in ("rate", "max_active")
    }


def _rounded(pace: float | None) -> float | None:
    return None if pace is None else round(pace, 1)
