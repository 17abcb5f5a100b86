"""A session, and the throttle that delays its requests when it exceeds its limits.

A session has no throttle while it stays below them: two counters are enough to detect that.
"""

# mypyc: compile

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from waitroom.budgets import TokenBucket
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.message import Request

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


@dataclass(slots=True, eq=False)
class Session:
    """An admitted visitor.

    Attributes:
        id: The session's number, used in the store and in headers for the shop.
        expires_at, ends_at: Unix times in seconds: of the newest pass, and of the session's end, including holds.
        hard_end: The end without holds, Unix time in seconds.
        kept_at: When the store last received activity, Unix time; 0 for never.
        passes: How many of its passes are cached.
        requests: Requests in flight, tunnels included; an open WebSocket or a long download is activity.
        tunnels: How many of them are tunnels, or request one.
        over: Whether it was released or ended.
        grace_until: Until when its reads still reach the shop although it is over, Unix time; 0 for no grace.
        binding: The binding of its newest pass; see `Pass`.
        second_at, second_requests: The start of the current second by the steady clock, and the requests since then.
        throttle: Delays its requests; None while it stays below its limits.
        source: The source of its newest request, as the peer or a trusted proxy's header gives it.
        network: The first neighbourhood it was seen from.
        networks: The neighbourhoods it was seen from recently, and when, once there are several.
        confirming: Whether the store has been asked if the session has really reached its end.
        prolonged: Whether a command by the API has moved its end, which no pass has yet.
        proof, proven_at: The newest header of `Proofs`, and when it was made, Unix time; 0 for never.
    """

    id: int
    expires_at: int
    ends_at: int
    hard_end: int
    kept_at: float = 0.0
    passes: int = 0
    requests: int = 0
    tunnels: int = 0
    over: bool = False
    grace_until: float = 0.0
    binding: int = 0
    second_at: float = 0.0
    second_requests: int = 0
    throttle: Throttle | None = None
    source: str | bytes | None = None
    network: str = ""
    networks: dict[str, float] | None = None
    confirming: bool = False
    prolonged: bool = False
    proof: HeaderBlock = field(default=b"", repr=False)
    proven_at: float = 0.0

    def allows(self, request: Request, now: float) -> bool:
        """Whether an admitted request may still begin: it has waited, and the session may have ended since."""
        if not self.over:
            return now < self.ends_at
        return now < self.grace_until and request.method in (b"GET", b"HEAD") and request.upgrade is None


class _Waiter:
    """A request that waits for its turn."""

    __slots__ = ("future", "tunnel")

    def __init__(self, future: asyncio.Future[bool], tunnel: bool) -> None:
        self.future = future
        self.tunnel = tunnel


class Throttle:
    """Decides when the requests of one session proceed: first come, first served, with tunnels in a queue of their own.

    Args:
        session: The session; its counters give the requests in flight.
        finish: Ends a request of the session, which is a tunnel or not; see `Sessions.finish`.
        limits: Its limits.
        used: Requests of the current second that have already proceeded.
        now: The steady clock's time in seconds.
    """

    __slots__ = ("_bucket", "_finish", "_limits", "_loop", "_session", "_timer", "_waiting")

    def __init__(
        self, session: Session, finish: Callable[[Session, bool], None], limits: SessionLimits, used: int, now: float
    ) -> None:
        burst = limits.per_second * BURST_SECONDS
        self._session = session
        self._finish = finish
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
                self._finish(self._session, tunnel)
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
