"""Shared by all operations on rooms: their errors, notes, records of refusals, and the steps after a change."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping

import structlog

from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor
from waitroom.control.rooms.audit_outbox import AuditOutbox
from waitroom.control.rooms.presenter import Rooms
from waitroom.errors import StoreUnavailable, WaitroomError
from waitroom.queue.store import QueueStore

log = structlog.get_logger()

LONGEST_TEXT = 500
# Of unusable input, in the audit log.
LONGEST_VALUE_KEPT = 200
MOST_VALUES_KEPT = 20
LARGEST_NUMBER_KEPT = 10_000_000

LONGEST_NAME_SHOWN = 40
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class StaleVersionError(WaitroomError):
    """Somebody else changed the room meanwhile. ``version`` is the current one."""

    def __init__(self, version: int) -> None:
        self.version = version
        super().__init__(f"The room has changed; its version is now {version}. Read it again, then decide.")


class InvalidChangeError(WaitroomError):
    """The change is invalid. ``problems`` has a message for each field: what is wrong, and how to fix it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__(" ".join(f"{name}: {what}" for name, what in self.problems.items()))


class RoomStateError(WaitroomError):
    """The room's state doesn't allow the operation, such as admitting a visitor to a full room."""


class UnknownEventError(WaitroomError):
    """The room has no event of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f'The room has no event "{name[:LONGEST_NAME_SHOWN]}".')


class RoomChanges:
    """The steps around a change of a room that all operations share.

    Args:
        rooms: The state of the rooms.
        stores: The stores, by room.
        audit: The audit log.
        changed: Called after each change, to notify listeners.
    """

    def __init__(
        self,
        rooms: Rooms,
        stores: Mapping[str, QueueStore],
        audit: Audit,
        changed: Callable[[], None],
    ) -> None:
        self._rooms = rooms
        self._audit = audit
        self._outbox = AuditOutbox(audit, stores)
        self._changed = changed

    def refusals(self, actor: Actor, action: str, room: str, wanted: Mapping[str, object], note: str) -> Refusals:
        """Returns a context that records refusals of an operation; see `Refusals`."""
        return Refusals(self._audit, actor, action, room, wanted, note)

    async def done(self, room: str) -> None:
        """Records the operation and shows its result: here immediately, elsewhere at the next refresh."""
        try:
            await self._outbox.flush(room)
        except StoreUnavailable as error:  # the change is made all the same, and the next process to come records it
            log.warning("audit log write delayed", room=room, cause=str(error))
        with contextlib.suppress(StoreUnavailable):  # the next tick retries
            await self._rooms.refresh(room)
        self._changed()


_RECORDED = (StaleVersionError, InvalidChangeError, RoomStateError, UnknownEventError, StoreUnavailable)


class Refusals:
    """Records refusals raised inside the block, and their reasons."""

    def __init__(
        self, audit: Audit, actor: Actor, action: str, room: str, wanted: Mapping[str, object], note: str
    ) -> None:
        self._audit = audit
        self._actor = actor
        self._action = action
        self._room = room
        self._wanted = wanted
        self._note = note

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        logged = self._actor.via != "autopilot"  # which decides again immediately, and would crowd out all others
        if logged and isinstance(error, _RECORDED):
            await record_refusal(self._audit, self._actor, self._action, self._room, error, self._wanted, self._note)


async def record_refusal(
    audit: Audit,
    actor: Actor,
    action: str,
    room: str,
    error: WaitroomError,
    wanted: Mapping[str, object],
    note: str = "",
) -> None:
    """Records a refused request, truncated so that the entry is sure to be short."""
    short = {str(_short(name)): _short(value) for name, value in list(wanted.items())[:MOST_VALUES_KEPT]}
    because = str(error)[: 2 * LONGEST_TEXT].encode(errors="replace").decode()
    await audit.record(
        actor, action, room=room, new={**short, "because": because}, note=str(_short(note)), outcome="refused"
    )


def _short(value: object) -> object:
    if isinstance(value, bool | None) or (isinstance(value, float | int) and abs(value) <= LARGEST_NUMBER_KEPT):
        return value
    return str(value)[:LONGEST_VALUE_KEPT].encode(errors="replace").decode()


def check_note(note: str) -> None:
    """Raises `InvalidChangeError` if a note is too long or not text."""
    if problem := text_problem(note):
        raise InvalidChangeError({"note": problem})


def text_problem(text: str) -> str:
    """Returns the problem with a message or note, or ""."""
    if len(text) > LONGEST_TEXT:
        return f"Must have at most {LONGEST_TEXT} characters; it has {len(text):,}."
    if _CONTROL.search(text):
        return "Must not contain control characters except line feeds."
    try:
        text.encode()
    except UnicodeEncodeError:
        return "Must be well-formed Unicode."
    return ""
