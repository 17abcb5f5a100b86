"""Events: scheduled sales of a room, their phases, and their records in the store. Pure.

A phase follows from the event's times and the store's wall clock. The scripts move a room from one phase to the next
(``scripts/schedule.lua``) and record the phase reached, so that no clock that goes back repeats or undoes one.
"""

# mypyc: compile

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

from waitroom.queue.constants import SHUFFLE_SPAN
from waitroom.queue.fields import AUTOPILOT, LIMITS, METHOD, from_hash, to_hash

if TYPE_CHECKING:
    from waitroom.settings import EventSettings, RoomSettings

QueueOrder = Literal["fifo", "random"]
Before = Literal["closed", "open"]
After = Literal["open", "closed", "sold_out"]
EventSource = Literal["file", "operator"]

SHOWN_AFTER_END_MS: Final = 24 * 3600 * 1000
"""How long an ended event is shown to visitors if none follows."""


class Phase(StrEnum):
    """The phases of an event, in order."""

    SCHEDULED = "scheduled"
    PREQUEUE = "prequeue"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Event:
    """A scheduled sale.

    Attributes:
        name: Its name within the room.
        title: The title shown to visitors; "" shows none.
        start_ms: The start. All times are Unix times in milliseconds.
        prequeue_ms: When the prequeue opens; None without one.
        end_ms: The end; None if an operator ends it.
        method: The order of the prequeue.
        before: The room until the prequeue opens or, without one, until the start.
        after: The room after the end.
        units: Units for sale; None if unknown.
        limits: Fields of the room that the event overrides while it runs, by public name: those that a settings file
            sets, and ``autopilot``; see `waitroom.queue.fields`.
    """

    name: str
    title: str
    start_ms: int
    prequeue_ms: int | None = None
    end_ms: int | None = None
    method: QueueOrder = "fifo"
    before: Before = "closed"
    after: After = "open"
    units: int | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def opens_ms(self) -> int:
        """When the event first lets visitors join."""
        return self.start_ms if self.prequeue_ms is None else self.prequeue_ms


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event as the store has it.

    Attributes:
        event: The event, with the changes that operators have made.
        phase: The phase it has reached.
        source: Where it was defined.
        cancelled: Whether an operator cancelled it before it started.
        prequeue_at_ms, started_ms, ended_ms: When the phases began; None for those it hasn't reached or had.
        begin: The room's totals at the start; visitors who joined or left count from the opening of the prequeue on.
        totals: The growth of the totals from then to the end; empty before the end.
        stats: Figures gathered while it ran, by name; see ``count_event`` in ``scripts/schedule.lua``.
    """

    event: Event
    phase: Phase
    source: EventSource
    cancelled: bool
    prequeue_at_ms: int | None
    started_ms: int | None
    ended_ms: int | None
    begin: Mapping[str, int]
    totals: Mapping[str, int]
    stats: Mapping[str, int]

    def is_shown(self, now_ms: int) -> bool:
        """Whether visitors see it: until a day after its end."""
        return not self.cancelled and (self.ended_ms is None or now_ms - self.ended_ms < SHOWN_AFTER_END_MS)


def phase_at(event: Event, now_ms: int, reached: Phase = Phase.SCHEDULED) -> Phase:
    """The phase of an event at a time, if it has reached ``reached`` before. Phases never go back."""
    if event.end_ms is not None and now_ms >= event.end_ms:
        phase = Phase.ENDED
    elif now_ms >= event.start_ms:
        phase = Phase.RUNNING
    elif event.prequeue_ms is not None and now_ms >= event.prequeue_ms:
        phase = Phase.PREQUEUE
    else:
        phase = Phase.SCHEDULED
    order = list(Phase)
    return max(phase, reached, key=order.index)


def encode_event(event: Event, seed: str) -> str:
    """The definition of an event as the scripts read it. ``seed`` shuffles its prequeue; see `shuffle_seed`."""
    return json.dumps(
        {
            "name": event.name,
            "title": event.title,
            "prequeue": event.prequeue_ms or 0,
            "start": event.start_ms,
            "end": event.end_ms or 0,
            "method": event.method,
            "before": event.before,
            "after": event.after,
            "units": -1 if event.units is None else event.units,
            "limits": to_hash(event.limits),
            "seed": seed,
        }
    )


def parse_record(text: str) -> EventRecord:
    """Parses an event of the store. Raises `ValueError` or `KeyError` if it is malformed."""
    found: dict[str, Any] = json.loads(text)
    units = int(found["units"])
    return EventRecord(
        Event(
            str(found["name"]),
            str(found["title"]),
            int(found["start"]),
            int(found["prequeue"]) or None,
            int(found["end"]) or None,
            found["method"],
            found["before"],
            found["after"],
            None if units < 0 else units,
            from_hash(dict(found["limits"])),
        ),
        Phase(found["phase"]),
        found["source"],
        bool(found["cancelled"]),
        int(found["prequeue_at"]) or None,
        int(found["started_at"]) or None,
        int(found["ended_at"]) or None,
        _whole_numbers(found.get("begin")),
        _whole_numbers(found.get("totals")),
        _whole_numbers(found.get("stats")),
    )


def _whole_numbers(found: Any) -> dict[str, int]:
    return {name: int(value) for name, value in dict(found or {}).items()}


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a room's timeline in which nothing changes by the schedule.

    Attributes:
        from_ms: Its beginning; None for now.
        to_ms: Its end; None if it is open-ended.
        event: The name of the event; None if none is scheduled.
        phase: The event's phase.
        state: The room's state: open, prequeue, closed or sold_out. An operator may still pause or close the room.
        limits: The limits in force, by public name, with inherited values filled in.
    """

    from_ms: int | None
    to_ms: int | None
    event: str | None
    phase: Phase
    state: str
    limits: Mapping[str, Any]


def timeline(events: Iterable[Event], limits: Mapping[str, Any]) -> list[Segment]:
    """The timeline of a room, from before its first event to after its last one.

    Args:
        events: Events without conflicts; see `waitroom.event_times.find_conflicts`.
        limits: The limits in force without an event, by public name.
    """
    segments: list[Segment] = []
    reached: int | None = None
    state_between = "open"
    for event in sorted(events, key=lambda event: event.opens_ms):
        state = "closed" if event.before == "closed" and state_between != "sold_out" else state_between
        if reached != event.opens_ms:
            segments.append(Segment(reached, event.opens_ms, event.name, Phase.SCHEDULED, state, limits))
        if event.prequeue_ms is not None:
            segments.append(Segment(event.prequeue_ms, event.start_ms, event.name, Phase.PREQUEUE, "prequeue", limits))
        segments.append(
            Segment(event.start_ms, event.end_ms, event.name, Phase.RUNNING, "open", {**limits, **event.limits})
        )
        reached, state_between = event.end_ms, str(event.after)
    if segments and reached is not None:
        segments.append(Segment(reached, None, segments[-1].event, Phase.ENDED, state_between, limits))
    return segments


def shuffle_seed(secret: str, room: str, event: str, opens_ms: int) -> str:
    """The seed that shuffles the prequeue of an event: 64 hexadecimal digits. Nobody can know it without the secret."""
    message = f"waitroom prequeue shuffle\n{room}\n{event}\n{opens_ms}".encode()
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def event_of(settings: EventSettings) -> Event:
    """An event as the settings define it. A rate of its own switches the autopilot off for its duration."""
    limits = {
        field.name: value
        for field in (*LIMITS, AUTOPILOT)
        if field is not METHOD and (value := getattr(settings, field.name)) is not None
    }
    if "rate_per_minute" in limits:
        limits.setdefault(AUTOPILOT.name, False)
    return Event(
        settings.name,
        settings.title,
        settings.start_ms,
        settings.prequeue_ms,
        settings.end_ms,
        settings.method,
        settings.before,
        settings.after,
        settings.units,
        limits,
    )


def file_events(room: RoomSettings, secret: str) -> dict[str, str]:
    """The events in a room's settings by name, as `waitroom.queue.store.QueueStore.open` takes them.

    Args:
        room: The settings.
        secret: The newest secret of the gateway; it makes the order of shuffled prequeues unpredictable.
    """
    events = [event_of(event) for event in room.events]
    return {
        event.name: encode_event(event, shuffle_seed(secret, room.name, event.name, event.opens_ms)) for event in events
    }


class Draws:
    """The order of places: that of arrival, except in a shuffled prequeue. See ``rank_of`` in ``scripts/common.lua``.

    Args:
        text: As stored: for each prequeue ``FIRST:LAST:SEED``, separated by blanks. Places after FIRST up to LAST are
            shuffled; LAST is "" while the prequeue is open.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._ranges: list[tuple[int, int, str]] = []
        for part in text.split():
            first, last, seed = part.split(":")
            self._ranges.append((int(first), int(last) if last else -1, seed))

    def rank(self, place: int) -> int:
        """The number that orders the queue: the place itself, unless it was shuffled."""
        for first, last, seed in self._ranges:
            if place > first and (last < 0 or place <= last):
                digest = hashlib.sha1(f"{seed}:{place}".encode(), usedforsecurity=False).hexdigest()
                return first + 1 + int(digest[:8], 16) % SHUFFLE_SPAN
        return place

    def is_open(self, place: int) -> bool:
        """Whether a place is of a prequeue whose order isn't known yet."""
        return any(last < 0 and place > first for first, last, _ in self._ranges)

    def is_drawn(self, place: int) -> bool:
        """Whether the order of a place was drawn when its prequeue ended."""
        return bool(self._ranges) and any(first < place <= last for first, last, _ in self._ranges)


UNSHUFFLED: Final = Draws("")
