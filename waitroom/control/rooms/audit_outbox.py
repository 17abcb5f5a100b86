"""Moves the audit events that the rooms' scripts enqueue to the audit log.

A script enqueues the event in the same step as the change, so that no change goes unrecorded, even if a process is
killed. Any control process may move it to the audit log, which accepts each event once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from waitroom.control.audit.chain import canonical
from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor
from waitroom.control.rooms.event_presenter import recorded_values
from waitroom.errors import StoreUnavailable, UnreadableRoomError
from waitroom.logs import RateLimitedLog
from waitroom.queue.store import QueueStore

log = structlog.get_logger()
errors = RateLimitedLog(log)

FLUSH_SECONDS = 1.0
LOGGED_BYTES = 300

_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, RecursionError)


def audit_event(actor: Actor, action: str, note: str, new: Mapping[str, object] | None = None) -> str:
    """Returns the event for a script to enqueue.

    Args:
        actor: The actor.
        action: The action, such as ``change``.
        note: The reason, as the actor gave it.
        new: New values that the script doesn't add itself.
    """
    who = {"who": actor.name, "role": str(actor.role), "address": actor.address, "via": actor.via}
    return json.dumps({**who, "action": action, "note": note, "new": dict(new or {})})


class AuditOutbox:
    """The pending audit events of all rooms of one gateway.

    Args:
        audit: The audit log.
        stores: The stores, by room.
    """

    def __init__(self, audit: Audit, stores: Mapping[str, QueueStore]) -> None:
        self._audit = audit
        self._stores = stores
        self._failing = False

    async def flush(self, room: str) -> None:
        """Moves all events of a room to the audit log, oldest first.

        Raises `StoreUnavailable`; the remaining ones stay in the outbox then.
        """
        store = self._stores[room]
        while events := await store.audit_events():
            for event in events:
                try:
                    number, entry = parse_audit_event(room, event)
                except _MALFORMED:
                    # Left in place, it would keep all later ones from the log.
                    log.error("unreadable audit event dropped", room=room, audit_event=event[:LOGGED_BYTES])
                else:
                    await self._audit.append_once(entry, source=room, number=number)
                await store.remove_audit_event(event)

    async def flush_all(self) -> None:
        """Moves events enqueued by others: the shop, the settings file, a control process that was killed."""
        for room in self._stores:
            try:
                await self.flush(room)
            except StoreUnavailable as error:
                if isinstance(error, UnreadableRoomError):
                    continue  # the admission loop reports it; the other rooms are not affected
                if not self._failing:
                    log.warning("audit log write delayed", cause=str(error))
                self._failing = True
                return
            except Exception:
                # An error here must not end admission, which runs beside it.
                errors.warning("audit log write failed", room, room=room, exc_info=True)
        self._failing = False


def parse_audit_event(room: str, event: bytes) -> tuple[int, dict[str, Any]]:
    """Returns an event's number, and its audit log entry. Raises various errors if the event is malformed."""
    stored = json.loads(event)
    by = json.loads(stored["told"])
    at = datetime.fromtimestamp(int(stored["at_ms"]) / 1000, UTC).isoformat(timespec="milliseconds")
    entry = {
        "at": at.replace("+00:00", "Z"),
        "who": by["who"],
        "role": by.get("role", ""),
        "address": by.get("address", ""),
        "via": by["via"],
        "action": by["action"],
        "room": room,
        "old": recorded_values(stored["old"]),
        "new": {**by.get("new", {}), **recorded_values(stored["new"])},
        "note": by.get("note", ""),
        "outcome": "done",
    }
    canonical(entry)  # fails for a text that isn't well-formed Unicode
    return int(stored["number"]), entry
