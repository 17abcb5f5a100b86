"""Runs the autopilot of the rooms that use it: observes, lets `controller` decide, applies and records the decision.

Of several control processes, one decides for a room: the holder of its lease, which is renewed with every look and
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
from waitroom.control.autopilot.state import Logbook, Said
from waitroom.errors import StoreUnavailable, WaitroomError
from waitroom.metrics.upstream_window import UpstreamStats, UpstreamWindow
from waitroom.queue.view import RoomState, RoomView
from waitroom.settings import RoomSettings

log = structlog.get_logger()

DECIDE_SECONDS = 2.0
LOOK_SLACK_SECONDS = 1.0  # looks are not made to the second
# After a pause of this length, the memory may be of a different shop, perhaps of another day.
FORGET_SECONDS = 900.0
_LEFT_INSIDE = ("left:expired", "left:released", "left:ended")  # of active visitors


class Sight(Protocol):
    """The state of a room, see `waitroom.control.rooms.admission_loop.Admission`."""

    view: RoomView | None
    store_up: bool


class Pilot:
    """The autopilot of one room.

    Args:
        settings: The room's.
        sight: The room's latest view.
        logbook: The room's part of the store.
        change: Sets the rate of the room as of that view, with a reason; raises `WaitroomError` if that is
            impossible, such as when somebody else changed the room meanwhile.
        switched: Whether the autopilot is on, given a view of the room.
        unix: The wall clock in seconds, for display.
    """

    def __init__(
        self,
        settings: RoomSettings,
        sight: Sight,
        logbook: Logbook,
        change: Callable[[RoomView, float, str], Awaitable[None]],
        switched: Callable[[RoomView], bool],
        unix: Callable[[], float],
    ) -> None:
        self.name = settings.name
        self.bounds = Bounds(settings.autopilot_floor, settings.autopilot_ceiling, settings.autopilot_latency_seconds)
        self.logbook = logbook
        self.on = False
        self.said: Said | None = None
        self._sight = sight
        self._change = change
        self._switched = switched
        self._unix = unix
        self._looks: deque[tuple[float, int, int]] = deque()

    def described(self) -> dict[str, Any]:
        """Returns the status as the API's ``autopilot`` object."""
        said = None if self.said is None else self.said.described()
        return {
            "on": self.on if self._sight.view is None else self._switched(self._sight.view),
            "floor": self.bounds.floor,
            "ceiling": self.bounds.ceiling,
            "summary": "" if said is None else said["summary"],
            "at": None if said is None else said["at"],
        }

    async def step(self, shop: Callable[[float], UpstreamStats]) -> Decision | None:
        """Decides on a rate and applies it.

        Args:
            shop: Returns the shop's figures over a number of seconds.

        Returns:
            The decision; None if it is off, too little is known, or another process decides.
        """
        view = self._sight.view
        if view is None or not self._sight.store_up:
            self._looks.clear()  # figures from an unobserved time would pass for recent ones
            return None
        now = view.clock_ms / 1000
        self._look(view, now)
        was_on, self.on = self.on, self._switched(view)
        if not self.on and not was_on and view.rate_per_minute > 0:
            return None
        mine, memory, self.said = await self.logbook.take()
        if not mine:
            return None
        if not self.on:
            return await self._off(view, memory)
        if memory.at is not None and not 0 <= now - memory.at <= FORGET_SECONDS:
            memory = Memory()
        figures = self._figures(view, memory, shop, now)
        if figures is None:
            return None
        memory, decision = decide(memory, self.bounds, figures, now)
        await self._apply(view, memory, decision)
        return decision

    def _look(self, view: RoomView, now: float) -> None:
        left = sum(view.totals.get(name, 0) for name in _LEFT_INSIDE)
        if self._looks and now <= self._looks[-1][0]:
            return  # the view hasn't changed
        self._looks.append((now, view.totals.get("admitted", 0), left))
        while len(self._looks) > 2 and self._looks[1][0] < now - WINDOWS[-1]:
            self._looks.popleft()

    def _figures(
        self, view: RoomView, memory: Memory, shop: Callable[[float], UpstreamStats], now: float
    ) -> Figures | None:
        until, admitted, left = self._looks[-1]
        if until - self._looks[0][0] < WINDOWS[0] - LOOK_SLACK_SECONDS:
            return None
        for seconds in memory.windows(now):
            seen = shop(seconds)
            if seen.answers_per_minute * seconds / 60 >= ENOUGH_REQUESTS:
                break
        if seen.seconds < WINDOWS[0] - LOOK_SLACK_SECONDS:
            return None
        since, admitted_before, left_before = next(
            look for look in self._looks if look[0] >= until - seconds - LOOK_SLACK_SECONDS
        )
        per_minute = 60 / max(until - since, 1.0)
        return Figures(
            seconds=seconds,
            running=view.state is RoomState.OPEN,
            rate=view.rate_per_minute,
            waiting=view.waiting,
            inside=view.active + view.called,
            max_active=view.max_active,
            admitted=(admitted - admitted_before) * per_minute,
            left=(left - left_before) * per_minute,
            requests=seen.answers_per_minute,
            failures=seen.failures_per_minute,
            given_up=seen.given_up_per_minute,
            p50_seconds=seen.p50_seconds,
            p95_seconds=seen.p95_seconds,
            in_flight=seen.awaiting,
        )

    async def _off(self, view: RoomView, memory: Memory) -> Decision | None:
        """Handles a room whose autopilot was switched off; a hold must not outlive it without an explanation."""
        rate = self.bounds.floor if view.rate_per_minute <= 0 else view.rate_per_minute
        said = "The autopilot was switched off: the rate stays as it is."
        if view.rate_per_minute <= 0:
            said = f"The autopilot was switched off while it let nobody in: {rate:,.0f} a minute from now on."
        decision = Decision(Move.RESUME if view.rate_per_minute <= 0 else Move.KEEP, rate, said)
        await self._apply(view, Memory(), decision)
        return decision

    async def _apply(self, view: RoomView, memory: Memory, decision: Decision) -> None:
        said = Said(self._unix(), decision.move, decision.rate, decision.said)
        if decision.rate != view.rate_per_minute:
            await self._change(view, decision.rate, decision.said)
            log.info("the autopilot changed the rate", room=self.name, rate=decision.rate, said=decision.said)
        await self.logbook.note(memory, said, keep=decision.move is not Move.KEEP)
        self.said = said


class Pilots:
    """The autopilots of all rooms, and the observation of their shops.

    Args:
        pilots: One per room.
        watch: Reads the counters of the edge workers.
    """

    def __init__(self, pilots: Sequence[Pilot], watch: UpstreamWindow) -> None:
        self._pilots = pilots
        self._watch = watch

    async def run(self) -> None:
        """Observes and decides until cancelled. Errors of store or shop don't end it."""
        while True:
            await refresh_window(self._watch)
            for pilot in self._pilots:
                await self._step(pilot)
            await asyncio.sleep(DECIDE_SECONDS)

    async def _step(self, pilot: Pilot) -> None:
        try:
            await pilot.step(lambda seconds: self._watch.stats(pilot.name, seconds))
        except StoreUnavailable:
            pass  # the admission loop has logged it, and holds
        except WaitroomError as error:
            log.info("the autopilot decides anew", room=pilot.name, cause=str(error))
        except Exception:
            # An error here must not end admission, which runs beside it.
            log.exception("the autopilot can't decide", room=pilot.name)


async def refresh_window(window: UpstreamWindow) -> None:
    """Reads the edge workers' counters up to now."""
    await asyncio.to_thread(window.refresh, time.monotonic(), time.time())
