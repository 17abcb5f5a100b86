"""Operations on the events of a room, by dashboard, API or command line.

Every operation and every refusal is recorded in the audit log.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from waitroom.control.auth.accounts import Actor
from waitroom.control.rooms.audit_outbox import audit_event
from waitroom.control.rooms.changes import (
    RoomChanges,
    RoomStateError,
    StaleVersionError,
    UnknownEventError,
    check_note,
)
from waitroom.control.rooms.event_changes import (
    EventChange,
    changed_event,
    conflict_problems,
    is_planned,
)
from waitroom.control.rooms.event_presenter import events_json
from waitroom.control.rooms.event_preview import (
    EventRoom,
    preview_cancel,
    preview_end,
    preview_set,
    preview_start,
)
from waitroom.control.rooms.presenter import Rooms
from waitroom.control.rooms.preview import Preview
from waitroom.queue.constants import MAX_EVENTS
from waitroom.queue.fields import AUTOPILOT, limits_of
from waitroom.queue.schedule import Event, EventRecord, Phase, shuffle_seed
from waitroom.queue.store import EventAction, EventRefusal, QueueStore
from waitroom.queue.view import RoomView

Result = TypeVar("Result")
EventMove = Literal["start", "end", "cancel"]
"""Operations on an event that take no values."""

# How often a change is tried that isn't based on a version; it fails only if others change the room all the time.
ATTEMPTS = 5

_REFUSALS: dict[EventRefusal, str] = {
    "unknown": "The event no longer exists.",
    "ended": "The event has ended.",
    "not_started": "The event hasn't started. Cancel it, or change its end.",
    "started": "The event has started. End it, or change its end.",
    "busy": "Another event is in progress. End or cancel it first.",
    "too_many": f"The room has {MAX_EVENTS} events that haven't ended. Cancel one first.",
}
_PREVIEWS: dict[EventMove, Callable[[EventRoom, EventRecord], Preview]] = {
    "start": preview_start,
    "end": preview_end,
    "cancel": preview_cancel,
}


@dataclass(frozen=True, slots=True)
class RoomEvents:
    """The events of a room, with the view that they belong to."""

    view: RoomView
    records: Sequence[EventRecord]

    def find(self, name: str) -> EventRecord:
        """Returns an event. Raises `UnknownEventError`."""
        for record in self.records:
            if record.event.name == name:
                return record
        raise UnknownEventError(name)


class EventOperations:
    """Carries out operations on the events of one gateway's rooms.

    Methods raise `KeyError` for an unknown room, `UnknownEventError`, `StaleVersionError`, `InvalidChangeError`,
    `RoomStateError`, and `StoreUnavailable` if the outcome is unknown.

    Args:
        rooms: The state of the rooms.
        stores: The stores, by room.
        changes: The steps around a change of a room.
        secrets: Signing keys, newest first. The newest one shuffles prequeues.
    """

    def __init__(
        self,
        rooms: Rooms,
        stores: Mapping[str, QueueStore],
        changes: RoomChanges,
        secrets: Sequence[str],
    ) -> None:
        self._rooms = rooms
        self._stores = stores
        self._changes = changes
        self._secret = secrets[0]
        self._known: dict[str, tuple[tuple[int, int], list[EventRecord]]] = {}

    # State.

    async def events(self, room: str) -> RoomEvents:
        """Returns the events as of the room's latest view. The store is asked only for those that have changed."""
        view = self._rooms.view(room)
        if view is None:
            view = await self._rooms.refresh(room)
        stamp = view.generation, view.events_version
        known = self._known.get(room)
        if known is None or known[0] != stamp:
            known = self._known[room] = (stamp, await self._stores[room].events())
        return RoomEvents(view, known[1])

    async def records(self, room: str) -> Sequence[EventRecord]:
        """Returns the events as of the room's latest view."""
        return (await self.events(room)).records

    async def described(self, room: str) -> dict[str, Any]:
        """Returns the events and the timeline of a room in the API's format."""
        found = await self.events(room)
        return events_json(found.view.version, found.records, await self._limits(room, found.view), found.view.wall_ms)

    # Changes.

    async def set(
        self, room: str, name: str, change: EventChange, *, expected: int | None, actor: Actor, note: str = ""
    ) -> bool:
        """Schedules a new event, or changes one in one step; returns whether it is new.

        Args:
            room: The room's name.
            name: The event's name.
            change: The change.
            expected: The version that the change is based on; None applies it to any.
            actor: The actor.
            note: The reason.
        """
        values = change.described()

        async def attempt(found: RoomEvents) -> bool:
            event, current = self._changed(room, name, change, found)
            if current is None or event != current.event:
                seed = shuffle_seed(self._secret, room, name, event.opens_ms)
                audited = audit_event(actor, "set_event", note, values)
                await self._store(room, "set", name, found, actor, audited, (event, seed))
            return current is None

        async with self._changes.refusals(actor, "set_event", room, {"event": name, **values}, note):
            check_note(note)
            is_new = await self._attempt(room, expected, attempt)
        await self._changes.done(room)
        return is_new

    async def move(
        self, move: EventMove, room: str, name: str, *, expected: int | None, actor: Actor, note: str = ""
    ) -> int:
        """Starts, ends or cancels an event now; returns the room's new version. Arguments as for `set`."""
        action = f"{move}_event"

        async def attempt(found: RoomEvents) -> int:
            _check_move(move, found, name)
            return await self._store(room, move, name, found, actor, audit_event(actor, action, note))

        async with self._changes.refusals(actor, action, room, {"event": name}, note):
            check_note(note)
            version = await self._attempt(room, expected, attempt)
        await self._changes.done(room)
        return version

    # Previews.

    async def preview_set(self, room: str, name: str, change: EventChange, *, expected: int) -> Preview:
        """Previews `set`."""
        found = await self._read(room, expected)
        event, current = self._changed(room, name, change, found)
        return preview_set(await self._event_room(room, found), event, current)

    async def preview_move(self, move: EventMove, room: str, name: str, *, expected: int) -> Preview:
        """Previews `move`."""
        found = await self._read(room, expected)
        _check_move(move, found, name)
        return _PREVIEWS[move](await self._event_room(room, found), found.find(name))

    # Shared.

    async def _read(self, room: str, expected: int | None) -> RoomEvents:
        """Reads the room, then its events: whatever changes in between makes the version stale."""
        view = await self._rooms.refresh(room)
        if expected is not None and view.version != expected:
            raise StaleVersionError(view.version)
        return RoomEvents(view, await self._stores[room].events())

    async def _attempt(
        self, room: str, expected: int | None, attempt: Callable[[RoomEvents], Awaitable[Result]]
    ) -> Result:
        """Makes a change on the version that was read; again on the next one, unless the caller named a version."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await attempt(await self._read(room, expected))
            except StaleVersionError:
                if expected is not None:
                    raise
        return await attempt(await self._read(room, expected))

    async def _store(
        self,
        room: str,
        action: EventAction,
        name: str,
        found: RoomEvents,
        actor: Actor,
        audited: str,
        definition: tuple[Event, str] | None = None,
    ) -> int:
        done = await self._stores[room].change_event(
            action, name, expected=found.view.version, who=actor.name, audit_event=audited, definition=definition
        )
        if isinstance(done, str):
            raise RoomStateError(_REFUSALS[done])
        if not done.done:
            raise StaleVersionError(done.version)
        return done.version

    def _changed(
        self, room: str, name: str, change: EventChange, found: RoomEvents
    ) -> tuple[Event, EventRecord | None]:
        limits = limits_of(self._rooms.settings(room))
        if limits.method != "fifo":
            raise RoomStateError(
                f'An event needs a queue, but the method of the room is "{limits.method}". '
                'Set method = "fifo" in the settings file.'
            )
        return changed_event(name, change, found.records, limits, found.view.wall_ms)

    async def _event_room(self, room: str, found: RoomEvents) -> EventRoom:
        in_force = dataclasses.asdict(await self._stores[room].limits())
        in_force[AUTOPILOT.name] = self._rooms.autopilot_on(room)
        return EventRoom(found.view, found.records, await self._limits(room, found.view), in_force)

    async def _limits(self, room: str, view: RoomView) -> dict[str, Any]:
        """Returns the limits of the room without an event, and whether its autopilot is on then."""
        limits = await self._stores[room].limits_without_event()
        if limits.get(AUTOPILOT.name) is None:
            limits[AUTOPILOT.name] = self._rooms.settings(room).autopilot
        return limits


def _check_move(move: EventMove, found: RoomEvents, name: str) -> None:
    """Raises if an event's phase or the other events don't allow it."""
    record = found.find(name)
    if record.phase is Phase.ENDED:
        raise RoomStateError(_REFUSALS["ended"])
    if move == "end" and record.phase is not Phase.RUNNING:
        raise RoomStateError(_REFUSALS["not_started"])
    if move != "end" and record.phase is Phase.RUNNING:
        raise RoomStateError(_REFUSALS["started"])
    if move == "start":
        _check_start(found, record)


def _check_start(found: RoomEvents, record: EventRecord) -> None:
    others = [one for one in found.records if is_planned(one) and one is not record]
    if any(one.phase is not Phase.SCHEDULED for one in others):
        raise RoomStateError(_REFUSALS["busy"])
    started = dataclasses.replace(record.event, start_ms=found.view.wall_ms, prequeue_ms=None)
    problems = conflict_problems(started, [one.event for one in others])
    if problems:
        raise RoomStateError(" ".join(problems.values()))
