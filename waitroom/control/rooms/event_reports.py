"""The reports and samples of the events, from the store."""

from __future__ import annotations

from collections.abc import Mapping

from waitroom.control.monitoring.event_samples import EventSamples
from waitroom.control.rooms.event_report import EventReport
from waitroom.errors import WaitroomError
from waitroom.queue.schedule import EventRecord, Phase
from waitroom.queue.store import QueueStore


class NoReportError(WaitroomError):
    """There is no such event, or none that has taken place."""


class EventReports:
    """The reports of the events of all rooms.

    Args:
        stores: The queues, by room.
        samples: Their samples.
    """

    def __init__(self, stores: Mapping[str, QueueStore], samples: EventSamples) -> None:
        self._stores = stores
        self._samples = samples

    def __contains__(self, room: str) -> bool:
        return room in self._stores

    async def report(self, room: str, event: str) -> EventReport:
        """The report of an event, up to now if it is in progress. Raises `NoReportError` and `StoreUnavailable`."""
        return EventReport.of(room, await self._record(room, event))

    async def samples(self, room: str, event: str) -> list[bytes]:
        """The samples of an event as JSON, oldest first. Raises `NoReportError` and `StoreUnavailable`."""
        return await self._samples.read_json(room, await self._record(room, event))

    async def ended(self, room: str) -> list[EventReport]:
        """The reports of the events that have ended, newest first. Raises `StoreUnavailable`."""
        records = [one for one in await self._stores[room].events() if one.started_ms and one.ended_ms]
        records.sort(key=lambda record: (record.started_ms or 0, record.event.start_ms), reverse=True)
        return [EventReport.of(room, record) for record in records]

    async def _record(self, room: str, event: str) -> EventRecord:
        record = await self._stores[room].event(event)
        if record is None:
            raise NoReportError("The room has no event of this name.")
        if record.cancelled:
            raise NoReportError("The event was cancelled.")
        if record.phase is Phase.SCHEDULED:
            raise NoReportError("The event has not begun yet.")
        if record.prequeue_at_ms is None and record.started_ms is None:
            raise NoReportError("The event was over before it was scheduled.")
        return record
