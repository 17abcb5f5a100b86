"""The outbox of the audit log: writes the notes left by the rooms' scripts to the log.

A note is left in the same step as its change, so that no change goes unrecorded, even if a process is killed. Any
control process may write it to the audit log, which accepts each note once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor
from waitroom.control.rooms.presenter import plain
from waitroom.errors import StoreUnavailable
from waitroom.queue.store import QueueStore

log = structlog.get_logger()

LOOK_SECONDS = 1.0


def told(actor: Actor, action: str, note: str, new: Mapping[str, object] | None = None) -> str:
    """Returns the note for a script to leave, on an action of an actor.

    Args:
        actor: The actor.
        action: The action, such as ``change``.
        note: The reason, as the actor gave it.
        new: New values that the script doesn't add itself.
    """
    who = {"who": actor.name, "role": str(actor.role), "address": actor.address, "via": actor.via}
    return json.dumps({**who, "action": action, "note": note, "new": dict(new or {})})


class Notes:
    """The notes of all rooms of one gateway.

    Args:
        audit: The audit log.
        stores: The stores, by room.
    """

    def __init__(self, audit: Audit, stores: Mapping[str, QueueStore]) -> None:
        self._audit = audit
        self._stores = stores
        self._failing = False

    async def settle(self, room: str) -> None:
        """Records all notes of a room, oldest first. Raises `StoreUnavailable`; the remaining ones stay notes then."""
        store = self._stores[room]
        while notes := await store.notes():
            for note in notes:
                number, entry = read_note(room, note)
                await self._audit.append_once(entry, source=room, number=number)
                await store.forget_note(note)

    async def look(self) -> None:
        """Records notes left by others: the shop, the settings file, a control process that was killed."""
        for room in self._stores:
            try:
                await self.settle(room)
            except StoreUnavailable as error:
                if not self._failing:
                    log.warning("audit log write delayed", cause=str(error))
                self._failing = True
                return
            except Exception:
                # An error here must not end admission, which runs beside it.
                log.exception("audit log write failed", room=room)
        self._failing = False


def read_note(room: str, note: bytes) -> tuple[int, dict[str, Any]]:
    """Returns a note's number, and its audit log entry."""
    left = json.loads(note)
    by = json.loads(left["told"])
    at = datetime.fromtimestamp(int(left["at_ms"]) / 1000, UTC).isoformat(timespec="milliseconds")
    entry = {
        "at": at.replace("+00:00", "Z"),
        "who": by["who"],
        "role": by.get("role", ""),
        "address": by.get("address", ""),
        "via": by["via"],
        "action": by["action"],
        "room": room,
        "old": plain(left["old"]),
        "new": {**by.get("new", {}), **plain(left["new"])},
        "note": by.get("note", ""),
        "outcome": "done",
    }
    return int(left["number"]), entry
