"""Watches the rooms for webhooks, and hands events to their senders.

The reported state of a room is kept in the store, so that it outlives this process. Each event is claimed there, so
that only one of several control processes sends it. While the store is lost all of them do, under the same id.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import structlog
from redis.asyncio import Redis

from waitroom.control.rooms.event_presenter import event_json
from waitroom.control.webhooks.conditions import CONDITIONS, Condition, EdgeDetector, Observation
from waitroom.control.webhooks.milestones import RECENT_MS, Milestone, recent_milestones
from waitroom.control.webhooks.sender import Event, RetryPolicy, Sender, http_session
from waitroom.errors import StoreUnavailable
from waitroom.logs import RateLimitedLog
from waitroom.metrics.collectors import TickStatus
from waitroom.queue.fields import OPERATOR_NUMBERS
from waitroom.queue.schedule import EventRecord
from waitroom.queue.view import RoomView, values_of
from waitroom.settings import Webhook
from waitroom.store.connection import call_twice, store_errors

log = structlog.get_logger()
errors = RateLimitedLog(log)

OBSERVE_SECONDS = 1.0
STATS_SECONDS = 60.0
CLAIM_SECONDS = 60
FAILING_SECONDS = 15  # how long a gateway's report on its shop is valid


class UpstreamStats(Protocol):
    """See `waitroom.metrics.upstream_window`."""

    @property
    def answers_per_minute(self) -> float:
        """Including failed ones."""

    @property
    def failures_per_minute(self) -> float:
        """Failed answers per minute."""


class UpstreamWindow(Protocol):
    """See `waitroom.metrics.upstream_window`."""

    def stats(self, room: str, seconds: float) -> UpstreamStats:
        """Returns the shop's figures over a number of seconds."""


class ReportedState:
    """The reported state of a room: how often each condition began and ended, odd while it holds. Kept in the store.

    Attributes:
        failing: Whether any gateway has recently found the shop failing.
    """

    def __init__(self, redis: Redis, room: str) -> None:
        self._redis = redis
        self._key = f"waitroom:{{{room}}}:told"
        self._counts = dict.fromkeys((condition.name for condition in CONDITIONS), 0)
        self.failing = False

    @property
    def holding(self) -> dict[str, bool]:
        """Returns whether each condition holds, as far as reported."""
        return {name: count % 2 == 1 for name, count in self._counts.items()}

    async def read(self) -> None:
        """Reads the state reported by others, or by this process before a restart. Raises `StoreUnavailable`."""

        async def read() -> Any:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hgetall(self._key)
            pipeline.exists(f"{self._key}:failing")
            return await pipeline.execute()

        stored, failing = await call_twice(read)
        self.failing = bool(failing)
        for name, count in stored.items():
            condition = name.decode()
            if condition in self._counts:
                # The greater count wins: events sent while the store was lost are known only here.
                self._counts[condition] = max(self._counts[condition], int(count))

    async def report_failing(self) -> None:
        """Notifies the other gateways. Raises `StoreUnavailable`."""
        await call_twice(lambda: self._redis.set(f"{self._key}:failing", "1", ex=FAILING_SECONDS))

    async def claim(self, condition: Condition) -> int | None:
        """Claims a condition's change; returns its number, or None if another control process reports it."""
        count = self._counts[condition.name] + 1
        self._counts[condition.name] = count
        try:
            with store_errors():
                won = await self._redis.set(f"{self._key}:{condition.name}:{count}", "1", nx=True, ex=CLAIM_SECONDS)
                if not won:
                    return None
                await self._redis.hset(self._key, condition.name, str(count))
        except StoreUnavailable:
            pass  # sending twice is better than not at all; the id is the same
        return count


class ReportedMilestones:
    """The milestones of a room's events that were reported. Claimed in the store, so that each is reported once.

    Args:
        redis: The store.
        room: The room's name.
        records: Returns the room's events.
    """

    def __init__(self, redis: Redis, room: str, records: Callable[[], Awaitable[Sequence[EventRecord]]]) -> None:
        self._redis = redis
        self._key = f"waitroom:{{{room}}}:told:event"
        self._records = records
        self._owner = secrets.token_hex(8)
        self._seen: tuple[int, int] | None = None
        self._decided: set[str] = set()

    async def due(self, view: RoomView) -> list[Milestone]:
        """Returns the milestones for this process to report. Raises `StoreUnavailable`; the next call retries."""
        stamp = view.generation, view.events_version
        if stamp == self._seen:
            return []
        found = recent_milestones(await self._records(), view.wall_ms)
        self._decided &= {one.key for one in found}
        due = []
        try:
            for one in found:
                if one.key not in self._decided and await self._claim(one):
                    due.append(one)
                self._decided.add(one.key)
            self._seen = stamp
        except StoreUnavailable:
            if not due:
                raise
        return due

    async def _claim(self, milestone: Milestone) -> bool:
        key = f"{self._key}:{milestone.key}"

        async def claim() -> Any:
            # A claim that was made and whose reply was lost is still this process's own.
            won = await self._redis.set(key, self._owner, nx=True, px=2 * RECENT_MS)
            return won or await self._redis.get(key) == self._owner.encode()

        return bool(await call_twice(claim))


class Webhooks:
    """Observes the rooms once a second, and sends events on changes to the webhooks.

    Args:
        webhooks: The webhooks' settings.
        rooms: The rooms as this process sees them.
        redis: The store.
        shop: The shops' figures; None if nothing collects them.
        clock: Returns the monotonic time in seconds.
        records: Returns the events of a room.
    """

    def __init__(
        self,
        webhooks: Sequence[Webhook],
        rooms: Sequence[TickStatus],
        redis: Redis,
        shop: UpstreamWindow | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        records: Callable[[str], Awaitable[Sequence[EventRecord]]],
        proxy_from_environment: bool = False,
    ) -> None:
        self._webhooks = webhooks
        self._proxy_from_environment = proxy_from_environment
        self._rooms = rooms
        self._reported = {room.name: ReportedState(redis, room.name) for room in rooms}
        self._detectors = {room.name: EdgeDetector() for room in rooms}
        self._milestones = {
            room.name: ReportedMilestones(redis, room.name, partial(records, room.name)) for room in rooms
        }
        self._shop = shop
        self._clock = clock

    async def run(self) -> None:
        """Observes and sends until cancelled."""
        session = http_session(proxy_from_environment=self._proxy_from_environment)
        async with session as http, asyncio.TaskGroup() as tasks:
            senders = [Sender(webhook, http, RetryPolicy()) for webhook in self._webhooks]
            for sender in senders:
                tasks.create_task(sender.run())
            while True:
                for room in self._rooms:
                    for event in await self._observe_safely(room):
                        log.info("webhook event", what=event.name, room=event.room, id=event.id)
                        for sender in senders:
                            sender.enqueue(event)
                await asyncio.sleep(OBSERVE_SECONDS)

    async def _observe_safely(self, room: TickStatus) -> list[Event]:
        try:
            return await self.observe(room)
        except Exception:
            # An error here must not end admission, which runs beside it.
            errors.warning("webhook check failed", room.name, room=room.name, exc_info=True)
            return []

    async def observe(self, room: TickStatus) -> list[Event]:
        """Returns the events for this process to send on a room. To be called about once a second."""
        reported = self._reported[room.name]
        seen = self._observation(room, failing_elsewhere=False)
        if room.store_up:
            try:
                await reported.read()
                if seen.shop_fails(held=reported.holding["shop"]):
                    await reported.report_failing()
            except StoreUnavailable:
                return []  # the ticks report it
            seen = self._observation(room, failing_elsewhere=reported.failing)
        events = []
        for condition in self._detectors[room.name].due(reported.holding, seen, self._clock()):
            count = await reported.claim(condition)
            name = condition.begins if reported.holding[condition.name] else condition.ends
            if count is not None and name:
                generation = 0 if room.view is None else room.view.generation
                id_ = f"{room.name}-{condition.name}-{generation}-{count}"
                events.append(Event.make(id_, name, room.name, datetime.now(UTC), _data(room, seen)))
        return events + await self._of_milestones(room, seen)

    async def _of_milestones(self, room: TickStatus, seen: Observation) -> list[Event]:
        if room.view is None or not room.store_up:
            return []
        try:
            due = await self._milestones[room.name].due(room.view)
        except StoreUnavailable:
            return []  # the ticks report it
        return [
            Event.make(
                *(f"{room.name}-{one.key}", one.name, room.name, datetime.now(UTC)),
                {**_data(room, seen), "event": _event_data(one)},
            )
            for one in due
        ]

    def _observation(self, room: TickStatus, *, failing_elsewhere: bool) -> Observation:
        figures = None if self._shop is None else self._shop.stats(room.name, STATS_SECONDS)
        view = room.view
        return Observation(
            store_up=room.store_up,
            state=None if view is None else view.state,
            waiting=0 if view is None else view.waiting,
            requests_per_minute=0.0 if figures is None else figures.answers_per_minute,
            failures_per_minute=0.0 if figures is None else figures.failures_per_minute,
            failing_elsewhere=failing_elsewhere,
        )


def _event_data(milestone: Milestone) -> dict[str, object]:
    data = event_json(milestone.record)
    return data if milestone.name != "event_ended" else {**data, "totals": dict(milestone.record.totals)}


def _data(room: TickStatus, seen: Observation) -> dict[str, object]:
    """Returns the state of the room, as last seen."""
    view = room.view
    state: dict[str, object] = {"store_up": seen.store_up}
    if view is not None:
        state |= {
            **{name: getattr(view, name) for name in ("state", "waiting", "called", "active")},
            **values_of(view, OPERATOR_NUMBERS),
            **{name: getattr(view, name) for name in ("message", "remaining")},
        }
    state["shop"] = {
        "requests_per_minute": round(seen.requests_per_minute, 1),
        "failures_per_minute": round(seen.failures_per_minute, 1),
    }
    return state
