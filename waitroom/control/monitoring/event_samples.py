"""The samples of events: copies of the rooms' history from the time of an event, kept as long as its record.

Any number of controllers copy them, once a minute while an event is in progress, because the history reaches back only
hours, and once more after its end. A script copies each sample once; whatever a restart or an unavailable store has
prevented is copied the next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from waitroom.control.monitoring.history import SAMPLE_SECONDS, history_key
from waitroom.errors import StoreUnavailable
from waitroom.logs import RateLimitedLog
from waitroom.queue.constants import EVENT_RETENTION_MS
from waitroom.queue.schedule import EventRecord
from waitroom.queue.store import QueueStore
from waitroom.store.connection import call_twice
from waitroom.store.scripts import load_script

log = RateLimitedLog(structlog.get_logger())

ARCHIVE_SECONDS: Final = 60.0
MAX_SAMPLES: Final = 2000  # of an event
MOST_COPIED: Final = 500  # in one call of the script, which holds up the store
COMPLETE_AFTER_SECONDS: Final = 60  # after the end: by then every controller has written its last sample


def sample_interval(seconds: int) -> int:
    """The seconds between the samples of an event of some length: no more than `MAX_SAMPLES` fit in."""
    interval = SAMPLE_SECONDS
    while seconds / interval > MAX_SAMPLES - 2:  # the first and the last interval are incomplete
        interval *= 2
    return interval


class EventSamples:
    """The samples of the events of all rooms.

    Args:
        redis: A client that returns bytes.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._archive = redis.register_script(load_script("waitroom.control.monitoring", "archive_samples"))

    async def archive(self, room: str, record: EventRecord, now: float) -> None:
        """Copies the samples of an event that are missing, up to the Unix time ``now``. Raises `StoreUnavailable`."""
        begun_ms = _begun_ms(record)
        if begun_ms is None:
            return
        begin, end = begun_ms // 1000, int(now) if record.ended_ms is None else record.ended_ms // 1000
        given: list[str | int] = [begin, end, sample_interval(end - begin), MOST_COPIED, MAX_SAMPLES]
        given.append(EVENT_RETENTION_MS // 1000)
        keys = [history_key(room), _key(room, record)]
        while await call_twice(lambda: self._archive(keys=keys, args=given)):
            pass

    async def read_json(self, room: str, record: EventRecord) -> list[bytes]:
        """Returns the samples of an event as separate JSON texts, oldest first. Raises `StoreUnavailable`."""
        found: Any = await call_twice(lambda: self._redis.zrange(_key(room, record), 0, -1))
        return list(found)


class EventArchiver:
    """Archives the samples of all events.

    Args:
        stores: The queues, by room.
        samples: Stores the samples.
        clock: Unix time in seconds.
    """

    def __init__(
        self, stores: Mapping[str, QueueStore], samples: EventSamples, clock: Callable[[], float] = time.time
    ) -> None:
        self._stores = stores
        self._samples = samples
        self._clock = clock
        self._complete: dict[str, set[str]] = {}

    async def archive_all(self) -> None:
        """Archives what is missing of every event that has begun. Failures of the store are logged."""
        for room, store in self._stores.items():
            try:
                await self._archive_room(room, await store.events())
            except StoreUnavailable as error:
                log.warning("event samples not stored", room, room=room, cause=str(error))

    async def _archive_room(self, room: str, records: list[EventRecord]) -> None:
        known = self._complete.get(room, set())
        complete = self._complete[room] = {key for key in map(_name, records) if key in known}
        now = self._clock()
        for record in records:
            if record.cancelled or _name(record) in complete:
                continue
            await self._samples.archive(room, record, now)
            if record.ended_ms is not None and now - record.ended_ms / 1000 > COMPLETE_AFTER_SECONDS:
                complete.add(_name(record))


def _begun_ms(record: EventRecord) -> int | None:
    return record.prequeue_at_ms or record.started_ms


def _name(record: EventRecord) -> str:
    """The name of one run of an event: a later one may have the same name."""
    return f"{record.event.name}:{_begun_ms(record) or 0}"


def _key(room: str, record: EventRecord) -> str:
    return f"waitroom:{{{room}}}:event_samples:{_name(record)}"
