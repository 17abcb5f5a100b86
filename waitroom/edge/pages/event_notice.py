"""The part of an event that the pages show: a countdown to its next phase, and what happens then."""

# mypyc: compile

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from waitroom.edge.pages.times import utc
from waitroom.queue.schedule import EventRecord, Phase

# The next step of an event, as a key of `waitroom.edge.pages.messages.PLAN_MESSAGES`.
Plan = Literal["queue_random", "queue_fifo", "start", "start_random", "start_fifo"]


@dataclass(frozen=True, slots=True)
class EventNotice:
    """An event whose next phase visitors wait for.

    Attributes:
        key: The event's name and phase, and whether it has a prequeue: a page shows the texts of one of them. The
            waiting page's script makes the same of a status.
        title: The event's title; "" for none.
        plan: The next step.
        next_ms: When the next phase begins. Unix time in milliseconds.
        queue_opens_at: When the prequeue opens; None without one, or if it is open.
        starts_at: The start.
    """

    key: str
    title: str
    plan: Plan
    next_ms: int
    queue_opens_at: datetime | None
    starts_at: datetime


def event_notice(record: EventRecord) -> EventNotice | None:
    """The notice of an event; None if it has started."""
    event = record.event
    random = event.method == "random"
    opens_ms = event.prequeue_ms
    plan: Plan
    if record.phase is Phase.PREQUEUE:
        opens_ms = None
        plan = "start_random" if random else "start_fifo"
    elif record.phase is Phase.SCHEDULED:
        plan = "start" if opens_ms is None else "queue_random" if random else "queue_fifo"
    else:
        return None
    return EventNotice(
        key=" ".join((event.name, record.phase, "" if event.prequeue_ms is None else "queue")).rstrip(),
        title=event.title,
        plan=plan,
        next_ms=event.start_ms if opens_ms is None else opens_ms,
        queue_opens_at=None if opens_ms is None else utc(opens_ms),
        starts_at=utc(event.start_ms),
    )
