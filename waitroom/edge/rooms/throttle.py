"""Delays the requests of a session that exceeds its limits.

A session has no throttle while it stays below them: two counters are enough to detect that.
"""

# mypyc: compile

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from waitroom.budgets import TokenBucket

if TYPE_CHECKING:
    from waitroom.edge.rooms.sessions import Session, Sessions

BURST_SECONDS: Final = 2.0
MAX_WAITING: Final = 256  # requests of one session in one worker


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The limits of one session, in one worker.

    Attributes:
        in_flight: Requests in flight at a time; tunnels are counted separately, with the same limit.
        per_second: Requests per second.
        wait_seconds: How long a request beyond these limits may wait.
    """

    in_flight: int = 1 << 30
    per_second: float = float("inf")
    wait_seconds: float = 0.0


class _Waiter:
    """A request that waits for its turn."""

    __slots__ = ("future", "tunnel")

    def __init__(self, future: asyncio.Future[bool], tunnel: bool) -> None:
        self.future = future
        self.tunnel = tunnel


class Throttle:
    """Decides when the requests of one session proceed: first come, first served, with tunnels in a queue of their own.

    Args:
        sessions: The sessions of the room.
        session: The session; its counters give the requests in flight.
        limits: Its limits.
        used: Requests of the current second that have already proceeded.
        now: The steady clock's time in seconds.
    """

    __slots__ = ("_bucket", "_limits", "_loop", "_session", "_sessions", "_timer", "_waiting")

    def __init__(self, sessions: Sessions, session: Session, limits: SessionLimits, used: int, now: float) -> None:
        burst = limits.per_second * BURST_SECONDS
        self._sessions = sessions
        self._session = session
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[_Waiter] = deque()
        self._bucket: TokenBucket | None = None
        if burst < float("inf"):
            self._bucket = TokenBucket(limits.per_second, burst - used)
            self._bucket.change_rate(limits.per_second, burst, now)

    def enter(self, now: float, *, tunnel: bool) -> bool:
        """Whether a request may proceed now, without overtaking any that wait."""
        if self._timer is not None or any(one.tunnel == tunnel for one in self._waiting):
            return False
        return self._has_slot(tunnel) and (self._bucket is None or self._bucket.take(now))

    def idle(self, now: float) -> bool:
        """Whether nothing is delayed, so that the session no longer needs a throttle."""
        return not self._waiting and (self._bucket is None or self._bucket.left(now) >= self._bucket.burst)

    def retry_seconds(self, now: float) -> int:
        """The number of seconds after which a refused client may retry."""
        return 1 if self._bucket is None else 1 + int(self._bucket.wait_seconds(now))

    async def wait(self, *, tunnel: bool) -> bool:
        """Waits until a request may proceed; False if that takes too long or too many are already waiting.

        A request that may proceed counts as in flight: until `take_over`, when it starts, or `Sessions.finish`.
        """
        if len(self._waiting) >= MAX_WAITING:
            return False
        waiter = _Waiter(self._loop.create_future(), tunnel)
        self._waiting.append(waiter)
        self.wake()
        timer = self._loop.call_later(self._limits.wait_seconds, _too_late, waiter.future)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter not in self._waiting:
                self._sessions.finish(self._session, tunnel=tunnel)
            raise
        finally:
            timer.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self.wake()

    def take_over(self, *, tunnel: bool) -> None:
        """Starts a request that `wait` let proceed."""
        self._session.requests -= 1
        self._session.tunnels -= tunnel

    def wake(self) -> None:
        """Lets waiting requests proceed as far as the limits allow, in their order."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        blocked = [False, False]
        for waiter in list(self._waiting):
            if all(blocked):
                return
            if blocked[waiter.tunnel] or waiter.future.done():
                continue
            if not self._has_slot(waiter.tunnel):
                blocked[waiter.tunnel] = True
                continue
            if self._bucket is not None and not self._bucket.take(now):
                self._timer = self._loop.call_later(self._bucket.wait_seconds(now) + 0.001, self.wake)
                return
            self._waiting.remove(waiter)
            self._session.requests += 1
            self._session.tunnels += waiter.tunnel
            waiter.future.set_result(True)

    def _has_slot(self, tunnel: bool) -> bool:
        session = self._session
        in_flight = session.tunnels if tunnel else session.requests - session.tunnels
        return in_flight < self._limits.in_flight


def _too_late(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
