"""The milestones of scheduled events that webhooks tell of. Pure: no clock and no I/O.

The store records when each phase was reached, once, so a milestone is a fact and needs no observation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from waitroom.queue.schedule import EventRecord

RECENT_MS: Final = 3600 * 1000
"""How long a milestone may be reported late, after a time without a gateway or after the first start with webhooks."""


MILESTONES: Final = ("prequeue_opened", "event_started", "event_ended")


@dataclass(frozen=True, slots=True)
class Milestone:
    """The beginning of a phase.

    Attributes:
        name: The webhook event, as in the settings.
        record: The event.
        at_ms: When the phase began.
    """

    name: str
    record: EventRecord
    at_ms: int

    @property
    def key(self) -> str:
        """Distinguishes it from all others of the room."""
        return f"{self.record.event.name}-{self.name}-{self.at_ms}"


def recent_milestones(records: Iterable[EventRecord], now_ms: int) -> list[Milestone]:
    """Returns the milestones of the last hour, oldest first. An event that never started doesn't end."""
    found = []
    for record in records:
        ended_ms = record.ended_ms if record.started_ms is not None else None
        for name, at_ms in zip(MILESTONES, (record.prequeue_at_ms, record.started_ms, ended_ms), strict=True):
            if at_ms is not None and now_ms - at_ms < RECENT_MS:
                found.append(Milestone(name, record, at_ms))
    return sorted(found, key=lambda one: one.at_ms)
