"""Runs the autopilot of the rooms that use it: observes, lets `controller` decide, applies and records the decision.

Of several control processes, one decides for a room: the holder of its lease, which is renewed with every decision and
expires by itself. The controller's memory is stored beside it, so that another process can take over. While the store
is unavailable nothing is decided, and the rate stays as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import structlog

from waitroom.control.autopilot.controller import decide
from waitroom.control.autopilot.model import ENOUGH_REQUESTS, WINDOWS, Bounds, Decision, Figures, Memory, Move
from waitroom.control.autopilot.state import DecisionLog, RecordedDecision
from waitroom.errors import StoreUnavailable, WaitroomError
from waitroom.logs import RateLimitedLog
from waitroom.metrics.upstream_window import UpstreamStats, UpstreamWindow
from waitroom.queue.view import RoomState, RoomView
from waitroom.settings import RoomSettings

log = structlog.get_logger()
errors = RateLimitedLog(log)

DECIDE_SECONDS = 2.0
SAMPLE_SLACK_SECONDS = 1.0  # samples are not taken exactly on time
# After a pause of this length, the memory may be of a different shop, perhaps of another day.
FORGET_SECONDS = 900.0
_DEPARTURES = ("left:expired", "left:released", "left:ended")  # of active visitors


class RoomStatus(Protocol):
    """The state of a room, see `waitroom.control.rooms.admission_loop.Admission`."""

    view: RoomView | None
    store_up: bool


class RoomController:
    """The autopilot of one room.

    Args:
        settings: The room's.
        status: The room's latest view.
        decision_log: The room's part of the store.
        change: Sets the rate of the room as of that view, with a reason; raises `WaitroomError` if that is
            impossible, such as when somebody else changed the room meanwhile.
        is_enabled: Whether the autopilot is on, given a view of the room.
        unix: The wall clock in seconds, for display.
    """

    def __init__(
        self,
        settings: RoomSettings,
        status: RoomStatus,
        decision_log: DecisionLog,
        change: Callable[[RoomView, float, str], Awaitable[None]],
        is_enabled: Callable[[RoomView], bool],
        unix: Callable[[], float],
    ) -> None:
        self.name = settings.name
        self.bounds = Bounds(settings.autopilot_floor, settings.autopilot_ceiling, settings.autopilot_latency_seconds)
        self.decision_log = decision_log
        self.on = False
        self.latest: RecordedDecision | None = None
        self._status = status
        self._change = change
        self._is_enabled = is_enabled
        self._unix = unix
        self._samples: deque[tuple[float, int, int]] = deque()

    def described(self) -> dict[str, Any]:
        """Returns the status as the API's ``autopilot`` object."""
        latest = None if self.latest is None else self.latest.described()
        return {
            "on": self.on if self._status.view is None else self._is_enabled(self._status.view),
            "floor": self.bounds.floor,
            "ceiling": self.bounds.ceiling,
            "summary": "" if latest is None else latest["summary"],
            "at": None if latest is None else latest["at"],
        }

    async def step(self, shop: Callable[[float], UpstreamStats]) -> Decision | None:
        """Decides on a rate and applies it.

        Args:
            shop: Returns the shop's figures over a number of seconds.

        Returns:
            The decision; None if it is off, too little is known, or another process decides.
        """
        view = self._status.view
        if view is None or not self._status.store_up:
            self._samples.clear()  # figures from an unobserved time would pass for recent ones
            return None
        now = view.clock_ms / 1000
        self._sample(view, now)
        was_on, self.on = self.on, self._is_enabled(view)
        if not self.on and not was_on and view.rate_per_minute > 0:
            return None
        mine, memory, self.latest = await self.decision_log.acquire()
        if not mine:
            return None
        if not self.on:
            return await self._switch_off(view, memory)
        if memory.at is not None and not 0 <= now - memory.at <= FORGET_SECONDS:
            memory = Memory()
        figures = self._figures(view, memory, shop, now)
        if figures is None:
            return None
        memory, decision = decide(memory, self.bounds, figures, now)
        await self._apply(view, memory, decision)
        return decision

    def _sample(self, view: RoomView, now: float) -> None:
        left = sum(view.totals.get(name, 0) for name in _DEPARTURES)
        if self._samples and now <= self._samples[-1][0]:
            return  # the view hasn't changed
        self._samples.append((now, view.totals.get("admitted", 0), left))
        while len(self._samples) > 2 and self._samples[1][0] < now - WINDOWS[-1]:
            self._samples.popleft()

    def _figures(
        self, view: RoomView, memory: Memory, shop: Callable[[float], UpstreamStats], now: float
    ) -> Figures | None:
        until, admitted, left = self._samples[-1]
        if until - self._samples[0][0] < WINDOWS[0] - SAMPLE_SLACK_SECONDS:
            return None
        for seconds in memory.windows(now):
            seen = shop(seconds)
            if seen.answers_per_minute * seconds / 60 >= ENOUGH_REQUESTS:
                break
        if seen.seconds < WINDOWS[0] - SAMPLE_SLACK_SECONDS:
            return None
        since, admitted_before, left_before = next(
            sample for sample in self._samples if sample[0] >= until - seconds - SAMPLE_SLACK_SECONDS
        )
        per_minute = 60 / max(until - since, 1.0)
        return Figures(
            seconds=seconds,
            running=view.state is RoomState.OPEN,
            rate=view.rate_per_minute,
            waiting=view.waiting,
            inside=view.active + view.called,
            full=view.free_slots <= 0,
            admitted=(admitted - admitted_before) * per_minute,
            left=(left - left_before) * per_minute,
            requests=seen.answers_per_minute,
            failures=seen.failures_per_minute,
            given_up=seen.given_up_per_minute,
            p50_seconds=seen.p50_seconds,
            p95_seconds=seen.p95_seconds,
            in_flight=seen.awaiting,
        )

    async def _switch_off(self, view: RoomView, memory: Memory) -> Decision | None:
        """Handles a room whose autopilot was switched off; a hold must not outlive it without an explanation."""
        rate = self.bounds.floor if view.rate_per_minute <= 0 else view.rate_per_minute
        summary = "Autopilot turned off: the rate is unchanged."
        if view.rate_per_minute <= 0:
            summary = f"Autopilot turned off during a hold: the rate is now {rate:,.0f} per minute."
        decision = Decision(Move.RESUME if view.rate_per_minute <= 0 else Move.KEEP, rate, summary)
        await self._apply(view, Memory(), decision)
        return decision

    async def _apply(self, view: RoomView, memory: Memory, decision: Decision) -> None:
        recorded = RecordedDecision(self._unix(), decision.move, decision.rate, decision.summary)
        if decision.rate != view.rate_per_minute:
            await self._change(view, decision.rate, decision.summary)
            log.info("autopilot changed the rate", room=self.name, rate=decision.rate, summary=decision.summary)
        await self.decision_log.record(memory, recorded, keep=decision.move is not Move.KEEP)
        self.latest = recorded


class Controllers:
    """The autopilots of all rooms, and the observation of their shops.

    Args:
        controllers: One per room.
        window: Reads the counters of the edge workers.
    """

    def __init__(self, controllers: Sequence[RoomController], window: UpstreamWindow) -> None:
        self._controllers = controllers
        self._window = window

    async def run(self) -> None:
        """Observes and decides until cancelled. Errors of store or shop don't end it."""
        while True:
            await refresh_window(self._window)
            for controller in self._controllers:
                await self._step(controller)
            await asyncio.sleep(DECIDE_SECONDS)

    async def _step(self, controller: RoomController) -> None:
        try:
            await controller.step(lambda seconds: self._window.stats(controller.name, seconds))
        except StoreUnavailable:
            pass  # the admission loop has logged it, and holds
        except WaitroomError as error:
            log.info("autopilot decision discarded, retrying", room=controller.name, cause=str(error))
        except Exception:
            # An error here must not end admission, which runs beside it.
            errors.warning("autopilot failed", controller.name, room=controller.name, exc_info=True)


async def refresh_window(window: UpstreamWindow) -> None:
    """Reads the edge workers' counters up to now."""
    await asyncio.to_thread(window.refresh, time.monotonic(), time.time())
