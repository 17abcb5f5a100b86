"""Operations on a room, by dashboard, API, command line or autopilot.

Every operation and every refusal is recorded in the audit log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from waitroom.control.auth.accounts import Actor
from waitroom.control.rooms.audit_outbox import audit_event
from waitroom.control.rooms.changes import (
    InvalidChangeError,
    RoomChanges,
    RoomStateError,
    StaleVersionError,
    check_note,
    text_problem,
)
from waitroom.control.rooms.event_effects import event_effects
from waitroom.control.rooms.presenter import LastChange, Rooms
from waitroom.control.rooms.preview import Preview, changed_view, preview_of
from waitroom.errors import InvalidTokenError, StoreUnavailable
from waitroom.queue.fields import AUTOPILOT, DRAINING, OPERATOR_NUMBERS, RATE, STATE, Limits, to_hash
from waitroom.queue.store import Called, QueueStore, Visit
from waitroom.queue.view import RoomState
from waitroom.tokens import TICKET_SECONDS, Tokens

TICKET = re.compile(r"[0-9a-f]{1,16}(\.[A-Za-z0-9_.-]{1,239})?")
SESSION = re.compile(r"[0-9a-f]{1,16}")

_NOT_CALLED: dict[Called, str] = {
    "unknown": "No visitor with this ticket is waiting in this room.",
    "not_open": "The room is closed or sold out. Open or pause it first.",
    "full": "The room is full. Raise max_active, or wait until a visitor leaves.",
    "too_many": "100 visitors called out of order have not entered yet. Wait until some have.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a room; None leaves a field unchanged.

    Attributes:
        rate_per_minute: New visitors per minute.
        max_active: The maximum of active and called visitors.
        state: The new state; opening, closing or selling out ends a drain.
        message: The message to waiting visitors; "" clears it.
        draining: Pauses the room, which is drained when the last active visitor has left. False leaves it paused.
        autopilot: Whether the autopilot sets the rate.
    """

    rate_per_minute: float | None = None
    max_active: int | None = None
    state: RoomState | None = None
    message: str | None = None
    draining: bool | None = None
    autopilot: bool | None = None

    def values(self) -> dict[str, Any]:
        """The new values by field."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


class Operations:
    """Carries out operations on the rooms of one gateway.

    Methods raise `KeyError` for an unknown room, `StaleVersionError`, `InvalidChangeError`, `RoomStateError`, and
    `StoreUnavailable` if the outcome is unknown.

    Args:
        rooms: The state of the rooms.
        stores: The stores, by room.
        changes: The steps around a change of a room.
        secrets: Signing keys of the tickets, newest first.
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
        self._tokens = {name: Tokens(secrets, name) for name in stores}

    async def change(self, room: str, change: Change, *, expected: int | None, actor: Actor, note: str = "") -> int:
        """Changes a room in one step; returns its new version, or the current one if nothing had to change.

        Args:
            room: The room's name.
            change: The change.
            expected: The version that the change is based on; None applies it to any.
            actor: The actor.
            note: The reason.
        """
        store = self._stores[room]
        async with self._changes.refusals(actor, "change", room, change.values(), note):
            check(change, note, actor)
            wanted = self._fields(room, change, actor)
            event = audit_event(actor, "change", note) if self._is_audited(room, change, actor) else ""
            done = await store.change(wanted, expected=expected, who=_recorded_name(actor), audit_event=event)
            if not done.done:
                raise StaleVersionError(done.version)
        await self._changes.done(room)
        return done.version

    def preview(self, room: str, change: Change) -> Preview:
        """Previews a change. Raises `InvalidChangeError`, and `StoreUnavailable` before the first view of the room."""
        check(change, "", None)
        view = self._rooms.view(room)
        if view is None:
            raise StoreUnavailable("the room has not been read yet")
        values = change.values()
        after = changed_view(view, {**values, STATE.name: RoomState.PAUSED} if change.draining else values)
        off = self._rooms.autopilot_on(room) and (
            change.autopilot is False or (change.rate_per_minute is not None and change.autopilot is None)
        )
        return preview_of(view, after, autopilot_off=off, schedule=event_effects(view, after, values))

    async def undo(self, room: str, *, expected: int, actor: Actor, note: str = "") -> int:
        """Reverts the fields of the last change to their previous values; returns the new version."""
        store = self._stores[room]
        async with self._changes.refusals(actor, "undo", room, {}, note):
            check_note(note)
            view = await self._rooms.refresh(room)
            if view.version != expected:
                raise StaleVersionError(view.version)
            last = LastChange.parse(view.operator_change)
            if last is None:
                raise RoomStateError("There is no change by an operator to undo.")
            if not last.undoable:
                raise RoomStateError("The last change by an operator was an undo, which can't be undone.")
            if not last.stands(view):
                raise RoomStateError(
                    "The values of the last change by an operator have been changed since. Set them by hand."
                )
            event = audit_event(actor, "undo", note)
            done = await store.change(last.old, expected=expected, who=actor.name, undoable=False, audit_event=event)
            if not done.done:
                raise StaleVersionError(done.version)
        await self._changes.done(room)
        return done.version

    async def admit(self, room: str, ticket: str, *, actor: Actor, note: str = "") -> None:
        """Calls a ticket now, ahead of the queue. Its number, the part before the first dot, is enough."""
        store = self._stores[room]
        number = ticket.partition(".")[0][:16]
        async with self._changes.refusals(actor, "admit", room, {"ticket": number}, note):
            check_note(note)
            if not TICKET.fullmatch(ticket):
                raise InvalidChangeError({"ticket": "Invalid ticket. Send the visitor's ticket, or its number."})
            place = int(number, 16)
            if "." in ticket:
                await self._recover(room, ticket)
            called = await store.call_out_of_order(place, audit_event(actor, "admit", note, {"ticket": number}))
            if called in _NOT_CALLED:
                raise RoomStateError(_NOT_CALLED[called])
        await self._changes.done(room)

    async def end_session(self, room: str, session: int, *, actor: Actor, note: str = "") -> None:
        """Ends a visitor's active session, given its number."""
        store = self._stores[room]
        named = {"session": f"{session:x}"}
        async with self._changes.refusals(actor, "end_session", room, named, note):
            check_note(note)
            pass_seconds = max(self._rooms.settings(room).session_max_seconds, TICKET_SECONDS)
            event = audit_event(actor, "end_session", note, named)
            if not await store.end_session(session, pass_seconds * 1000, event):
                raise RoomStateError("No active visitor has this session.")
        await self._changes.done(room)

    async def running(self, room: str) -> Limits:
        """Returns the limits in force."""
        return await self._stores[room].limits()

    def _fields(self, room: str, change: Change, actor: Actor) -> dict[str, str]:
        """Returns the fields to set in the room's hash."""
        found = to_hash(change.values())
        by_hand = actor.via != "autopilot" and change.rate_per_minute is not None
        if by_hand and change.autopilot is None and self._rooms.autopilot_on(room):
            found |= to_hash({AUTOPILOT.name: False})  # otherwise it would change the rate again immediately
        if change.draining:
            found |= to_hash({STATE.name: RoomState.PAUSED})
        elif change.state not in (None, RoomState.PAUSED):
            found |= to_hash({DRAINING.name: False})
        return found

    async def _recover(self, room: str, ticket: str) -> None:
        """Verifies that a ticket is one of ours, and restores its place in the queue if the store had lost it."""
        try:
            read = self._tokens[room].read_ticket(ticket.encode())
        except InvalidTokenError as error:
            raise RoomStateError(f"The ticket is not valid in this room: {error}.") from error
        view = self._rooms.view(room)
        if view is None or view.generation != read.generation:
            await self._stores[room].visit([Visit(read.place, read.generation, claim=False, notify=False)])

    def _is_audited(self, room: str, change: Change, actor: Actor) -> bool:
        """Whether the change is audited: of the autopilot's many small ones (see its decision log), only holds are."""
        view = self._rooms.view(room)
        return actor.via != "autopilot" or change.rate_per_minute == 0 or view is None or view.rate_per_minute == 0


def check(change: Change, note: str, actor: Actor | None) -> None:
    """Raises `InvalidChangeError` with all problems."""
    problems: dict[str, str] = {}
    values = change.values()
    if not values:
        problems["change"] = "No fields to change."
    for field in OPERATOR_NUMBERS:
        number = values.get(field.name)
        held = field is RATE and number == 0 and actor is not None and actor.via == "autopilot"
        if number is not None and not held and (problem := field.problem(number)):
            problems[field.name] = f"{problem} To stop admissions, pause the room."
    if change.state is RoomState.PREQUEUE:
        problems["state"] = "Must be open, paused, closed or sold_out. Events open prequeues."
    if change.message is not None and (problem := text_problem(change.message)):
        problems["message"] = problem
    if change.draining and change.state not in (None, RoomState.PAUSED):
        problems["draining"] = "A draining room is paused. Omit state, or don't drain."
    if problem := text_problem(note):
        problems["note"] = problem
    if problems:
        raise InvalidChangeError(problems)


def _recorded_name(actor: Actor) -> str:
    """Returns the name recorded with the last change; the autopilot's changes aren't recorded and can't be undone."""
    return "" if actor.via == "autopilot" else actor.name
