"""The report of an event: who came, who got in, what was sold, and how long the visitors waited. Pure.

The scripts count waits and estimates in classes whose bounds grow by a fifth (``class_of`` in ``scripts/visit.lua``).
Percentiles are interpolated within a class, so they are within 20 % of the true value; up to ten seconds they are
exact within a second. The maximum is the upper bound of its class: the true one is at most as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from waitroom.control.rooms.event_presenter import time_json
from waitroom.queue.schedule import EventRecord

SoldBy = Literal["stock", "release"]

_GROWTH: Final = 1.2  # of the bounds of the classes
_GAVE_UP: Final = ("left", "away", "missed")
_LIMITS: Final = ("rate", "max_active")


@dataclass(frozen=True, slots=True)
class EventReport:
    """The report of one event, up to now if it is in progress.

    Attributes:
        room, name, title, phase: The event.
        prequeue_opened_at, started_at, ended_at: When its phases began, Unix times in milliseconds; None for those it
            hasn't reached or had.
        joined: Visitors who got a place, those of the prequeue included.
        admitted: Visitors admitted since the start.
        sold: Units sold as the shop reported them, less those that came back; without such reports, the sessions that
            the shop released.
        sold_by: Which of the two; None if the shop reported neither.
        units: Units for sale; None if unknown.
        gave_up: Visitors who gave up their places, by how: ``left``, ``away`` (for too long) or ``missed`` (their turn,
            twice).
        no_shows: Turns that their visitors missed. Most of them keep the place, so it isn't a number of visitors.
        voided: Visitors whose places ended with the event.
        peak_waiting: The most visitors in the queue at the same time, away ones included.
        peak_active: The most sessions at the same time.
        wait_seconds: From joining to admission, ``p50``, ``p90`` and ``max``; None if nobody was admitted. Visitors who
            were admitted directly waited 0 s.
        eta_error_seconds: By how much the wait differed from the first estimate, ``p50`` and ``p90``; None if nobody
            had one.
        overshoot: By how many visitors inside or called ``max_active`` was exceeded at most.
        over_limit: In a passthrough room: the visitors whom each limit would have let wait.
    """

    room: str
    name: str
    title: str
    phase: str
    prequeue_opened_at: int | None
    started_at: int | None
    ended_at: int | None
    joined: int
    admitted: int
    sold: int
    sold_by: SoldBy | None
    units: int | None
    gave_up: Mapping[str, int]
    no_shows: int
    voided: int
    peak_waiting: int
    peak_active: int
    wait_seconds: Mapping[str, int | None]
    eta_error_seconds: Mapping[str, int | None]
    overshoot: int
    over_limit: Mapping[str, int]

    @classmethod
    def of(cls, room: str, record: EventRecord) -> EventReport:
        """The report of a record as from `waitroom.queue.store.QueueStore.event`."""
        # Totals that the store has lost count from there on.
        totals, stats = {name: max(0, total) for name, total in record.totals.items()}, record.stats
        admitted = totals.get("admitted", 0)
        waits = _histogram(stats, "wait:")
        direct = max(0, admitted - sum(waits.values()))
        waits[0] = waits.get(0, 0) + direct
        errors = _histogram(stats, "eta:")
        gave_up = {how: totals.get(f"left:{how}", 0) for how in _GAVE_UP}
        sold, sold_by = _sold(totals)
        return cls(
            room=room,
            name=record.event.name,
            title=record.event.title,
            phase=str(record.phase),
            prequeue_opened_at=record.prequeue_at_ms,
            started_at=record.started_ms,
            ended_at=record.ended_ms,
            joined=totals.get("joined", 0),
            admitted=admitted,
            sold=sold,
            sold_by=sold_by,
            units=record.event.units,
            gave_up={**gave_up, "total": sum(gave_up.values())},
            no_shows=totals.get("missed_turns", 0),
            voided=totals.get("left:event_ended", 0),
            peak_waiting=stats.get("peak_waiting", 0),
            peak_active=stats.get("peak_active", 0),
            wait_seconds={"p50": percentile(waits, 0.5), "p90": percentile(waits, 0.9), "max": _longest(waits)},
            eta_error_seconds={"p50": percentile(errors, 0.5), "p90": percentile(errors, 0.9)},
            overshoot=stats.get("overshoot", 0),
            over_limit={limit: totals.get(f"over:{limit}", 0) for limit in _LIMITS},
        )

    def json(self) -> dict[str, Any]:
        """Returns the format of the API."""
        return {
            "room": self.room,
            "event": self.name,
            "title": self.title,
            "phase": self.phase,
            "prequeue_opened_at": time_json(self.prequeue_opened_at),
            "started_at": time_json(self.started_at),
            "ended_at": time_json(self.ended_at),
            "joined": self.joined,
            "admitted": self.admitted,
            "sold": self.sold,
            "sold_by": self.sold_by,
            "units": self.units,
            "gave_up": dict(self.gave_up),
            "no_shows": self.no_shows,
            "voided": self.voided,
            "peak_waiting": self.peak_waiting,
            "peak_active": self.peak_active,
            "wait_seconds": dict(self.wait_seconds),
            "eta_error_seconds": dict(self.eta_error_seconds),
            "overshoot": self.overshoot,
            "over_limit": dict(self.over_limit),
        }


def _sold(totals: Mapping[str, int]) -> tuple[int, SoldBy | None]:
    sold, returned = totals.get("sold", 0), totals.get("units_returned", 0)
    if sold or returned:
        return max(0, sold - returned), "stock"
    released = totals.get("released_by_shop", 0)
    return (released, "release") if released else (0, None)


def _histogram(stats: Mapping[str, int], prefix: str) -> dict[int, int]:
    """The classes of a histogram: the number of visitors by class."""
    return {int(name.removeprefix(prefix)): count for name, count in stats.items() if name.startswith(prefix)}


def bounds(number: int) -> tuple[int, int]:
    """The first and the last whole second of a class."""
    first = math.ceil(_GROWTH**number - 1)
    return first, max(first, math.ceil(_GROWTH ** (number + 1) - 1) - 1)


def percentile(histogram: Mapping[int, int], share: float) -> int | None:
    """The time in seconds that a share of the visitors didn't exceed, interpolated; None without visitors."""
    total = sum(histogram.values())
    left = max(1, math.ceil(share * total))
    for number, count in _ascending(histogram):
        if left <= count:
            first, last = bounds(number)
            return round(first + (last - first) * (left - 0.5) / count)
        left -= count
    return None


def _longest(histogram: Mapping[int, int]) -> int | None:
    classes = [number for number, count in _ascending(histogram) if count]
    return bounds(classes[-1])[1] if classes else None


def _ascending(histogram: Mapping[int, int]) -> Iterable[tuple[int, int]]:
    return sorted(histogram.items())
