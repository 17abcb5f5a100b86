"""The admission loop: ticks a room, and resumes after any failure of the store."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping

import structlog

from waitroom.errors import RoomNotOpen, StoreUnavailable
from waitroom.queue.fields import limits_of
from waitroom.queue.stock import SellingPace
from waitroom.queue.store import QueueStore
from waitroom.queue.view import RoomView
from waitroom.settings import RoomSettings
from waitroom.store.health import StoreHealth

log = structlog.get_logger()

TICK_SECONDS = 0.1
VIEW_EVERY_TICKS = 5
# A tick that had to stop early is followed by the next one immediately, but others need the store too.
MOST_TICKS_IN_A_ROW = 20


class Admission:
    """Ticks one room. Any number of these may run anywhere: the store keeps their sum correct.

    Args:
        settings: The room's settings.
        store: Its queue.
        health: Logs the store's failures, for all rooms of the process.
        events: The events in the settings, from `waitroom.queue.schedule.file_events`.

    Attributes:
        view: The latest view of the room, None before the first.
        store_up: Whether the store answered the last time.
        store_problem: Why it didn't, for an operator; "" if it did or wasn't called yet.
        ticked_at: The Unix time of the last successful tick; None before the first.
        selling: How fast the room sells.
    """

    def __init__(
        self,
        settings: RoomSettings,
        store: QueueStore,
        health: StoreHealth | None = None,
        events: Mapping[str, str] | None = None,
    ) -> None:
        self.name = settings.name
        self.view: RoomView | None = None
        self.store_up = False
        self.store_problem = ""
        self._health = StoreHealth(log) if health is None else health
        self._was_ready = False
        self._opened = False
        self.ticked_at: float | None = None
        self.selling = SellingPace()
        self._limits = limits_of(settings)
        self._events = events
        self._store = store
        self._ticks = 0
        self._refreshing = asyncio.Lock()
        self._totals: deque[tuple[float, Mapping[str, int]]] = deque(
            maxlen=round(60 / (TICK_SECONDS * VIEW_EVERY_TICKS))
        )

    @property
    def admitted_per_minute(self) -> float | None:
        """Visitors admitted per minute, over the last minute; None while there is too little data."""
        return self.per_minute("admitted")

    def per_minute(self, counter: str) -> float | None:
        """Returns the rate of one of the view's totals over the last minute; None while there is too little data."""
        if len(self._totals) < 2:
            return None
        (since, before), (until, now) = self._totals[0], self._totals[-1]
        return max(0, now.get(counter, 0) - before.get(counter, 0)) * 60 / (until - since)

    async def run(self) -> None:
        """Ticks until cancelled. Failures of the store don't end it."""
        while True:
            try:
                if not self._opened:
                    await self._open()
                await self._step()
            except RoomNotOpen:
                self._opened = False
            except StoreUnavailable as error:
                self._on_store_error(error)
            await asyncio.sleep(TICK_SECONDS)

    async def _step(self) -> None:
        for _ in range(MOST_TICKS_IN_A_ROW):
            if not (await self._store.tick()).stopped_early:
                break
        self.ticked_at = time.time()
        if self._ticks % VIEW_EVERY_TICKS == 0:
            view = await self.refresh()
            self._totals.append((asyncio.get_running_loop().time(), view.totals))
        self._ticks += 1
        if not self.store_up:
            self.store_up, self.store_problem = True, ""
            self._health.answered(self.name)
            log.info("admission resumed" if self._was_ready else "room ready", room=self.name)
            self._was_ready = True

    async def refresh(self) -> RoomView:
        """Refreshes the view now, before or after a change, besides twice a second. Raises `StoreUnavailable`."""
        async with self._refreshing:  # otherwise an older view could replace a newer one
            view = await self._store.view(self.view)
            _log_recovery(self.name, self.view, view)
            self.view = view
            self.selling.observe(view)
        return view

    async def _open(self) -> None:
        """Opens the room, at the start also one that is open: it may be of an older version or settings file."""
        generation = await self._store.open(self._limits, self._events)
        self._opened = True
        log.info("room opened", room=self.name, generation=generation)

    def _on_store_error(self, error: StoreUnavailable) -> None:
        self.store_up, self.store_problem = False, str(error)
        self._health.failed(self.name, error)


def _log_recovery(room: str, last: RoomView | None, view: RoomView) -> None:
    was = last is not None and last.recovering
    recovery = view.recovery
    if recovery is not None and not was:
        log.warning(
            "store lost data: calls wait until visitors have reported",
            room=room,
            seconds=round(recovery.left_ms / 1000),
            waiting=recovery.expected_waiting if recovery.expected_waiting >= 0 else "unknown",
            active=recovery.expected_active if recovery.expected_active >= 0 else "unknown",
        )
    elif was and recovery is None:
        log.info("recovery finished", room=room, waiting=view.waiting, active=view.active)
