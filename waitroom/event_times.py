"""The times of events: how those of a room may contradict each other. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol


class EventTimes(Protocol):
    """The name and the times of an event, in milliseconds of Unix time; None without one."""

    @property
    def name(self) -> str:
        """Its name within the room."""

    @property
    def start_ms(self) -> int:
        """The start."""

    @property
    def prequeue_ms(self) -> int | None:
        """When the prequeue opens."""

    @property
    def end_ms(self) -> int | None:
        """The end."""

    @property
    def opens_ms(self) -> int:
        """When the event first lets visitors join."""


@dataclass(frozen=True, slots=True)
class EventConflict:
    """Why an event can't be scheduled as it is.

    Attributes:
        name: The event's name.
        field: The field to change: ``prequeue_start``, ``start`` or ``end``.
        what: The problem, to be read after the field.
        fix: The remedy.
    """

    name: str
    field: str
    what: str
    fix: str


def find_conflicts(events: Sequence[EventTimes]) -> list[EventConflict]:
    """Finds events whose times contradict each other. Cancelled and ended events must be left out."""
    found = []
    for event in events:
        if event.prequeue_ms is not None and event.prequeue_ms >= event.start_ms:
            found.append(
                EventConflict(
                    event.name, "prequeue_start", "is not before start.", "Open the prequeue earlier, or leave it out."
                )
            )
        if event.end_ms is not None and event.end_ms <= event.start_ms:
            found.append(
                EventConflict(event.name, "end", "is not after start.", "End the event later, or leave it out.")
            )
    if found:
        return found
    ordered = sorted(events, key=lambda event: (event.opens_ms, event.start_ms))
    for earlier, later in pairwise(ordered):
        if earlier.end_ms is None:
            found.append(
                EventConflict(
                    earlier.name,
                    "end",
                    f'is missing, but the event "{later.name}" follows.',
                    "Set an end; only the last event may have none.",
                )
            )
        elif earlier.end_ms > later.opens_ms:
            field_name = "start" if later.prequeue_ms is None else "prequeue_start"
            found.append(
                EventConflict(
                    later.name,
                    field_name,
                    f'is before the end of the event "{earlier.name}".',
                    "Events of a room must not overlap. Begin it later, or end the other one earlier.",
                )
            )
    return found
