"""The demo shop, a crowd in it and the gateway's view of both, event by event: minutes in a tenth of a second.

`shop_model` reckons with streams of visitors; here each is one, with all the chance that is in so few. It is the shop
of `waitroom.drill.shop.app` and the visitor of `waitroom.drill.load.visitor`, so that what `test_autopilot_live` shows
once with real processes can be shown many times. It knows nothing of the controller.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from waitroom.control.autopilot.controller import decide
from waitroom.control.autopilot.model import ENOUGH_REQUESTS, WINDOWS, Bounds, Decision, Figures, Memory
from waitroom.control.autopilot.runner import SAMPLE_SLACK_SECONDS
from waitroom.drill.shop.app import BACKLOG_PER_CONNECTION, CONNECTION_WAIT_SECONDS
from waitroom.metrics.recorder import DISTRIBUTIONS
from waitroom.metrics.upstream_window import quantile

BOUNDS = DISTRIBUTIONS["upstream_request_seconds"]
TICK_SECONDS = 0.25
LOOK_SECONDS = 1.0
DECIDE_SECONDS = 2.0
SAMPLE_SECONDS = 0.1
# What else a query takes, on average: the machine's doing.
NOISE_SECONDS = 0.004
THINK_SECONDS = (0.5, 1.5)
RETRY_SECONDS = (0.5, 2.0)
# From being called to seeing the shop: the waiting page asks every two seconds.
NOTICE_SECONDS = (0.1, 2.2)
# The requests of a visit: how many queries each makes, and whether the visitor looks at a page before it.
VISIT = ((1, False), (1, True), (1, False), (1, True), (2, True), (1, False))

Then = Callable[[], None]


@dataclass
class Query:
    """One that waits for a connection."""

    granted: Then
    refused: Then
    waits: bool = True


@dataclass(frozen=True)
class Look:
    """All that was counted up to a moment."""

    at: float
    admitted: int
    left: int
    requests: int
    failures: int
    counts: tuple[int, ...]
    in_flight: int


@dataclass
class DemoFlight:
    """A crowd before the demo shop, under the autopilot.

    Attributes:
        connections: Of the shop's database.
        query_seconds: How long a query takes in an idle database; twice as long in a full one.
        rate: In force, visitors per minute.
        stalls: From when to when the shop stands still, in seconds.
        full: Looks at how full the pool was: when, and the share of its connections in use.
    """

    rng: random.Random
    connections: int
    query_seconds: float
    rate: float
    bounds: Bounds
    stalls: Sequence[tuple[float, float]] = ()
    now: float = 0.0
    waiting: int = 0
    inside: int = 0
    admitted: int = 0
    left: int = 0
    requests: int = 0
    failures: int = 0
    in_flight: int = 0
    full: list[tuple[float, float]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self._events: list[tuple[float, int, Then]] = []
        self._numbers = count()
        self._busy = 0
        self._queue: deque[Query] = deque()
        self._backlog = BACKLOG_PER_CONNECTION * self.connections
        self._counts = [0] * (len(BOUNDS) + 1)
        self._looks: deque[Look] = deque()
        self._due = 0.0
        self._every(TICK_SECONDS, self._admit)
        self._every(LOOK_SECONDS, self._look)
        self._every(DECIDE_SECONDS, self._decide)
        self._every(SAMPLE_SECONDS, self._sample)

    def comes(self, visitors: int, at_once: int, seconds: float) -> None:
        """Lets a crowd come: some at once, the others by and by, in so many seconds on average."""
        at, late = 0.0, visitors - at_once
        self._after(0.0, lambda: self._joins(at_once))
        for _ in range(late):
            at += self.rng.expovariate(late / seconds)
            self._after(at, lambda: self._joins(1))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] < until:
            self.now, _, then = heapq.heappop(self._events)
            then()
        self.now = until

    def resize(self, connections: int) -> None:
        """As `waitroom.drill.shop.database.Pool.resize`."""
        self._backlog = self._backlog * connections // self.connections
        self.connections = connections

    def figures(self) -> Figures:
        """What the autopilot is shown."""
        now = self._looks[-1]
        for seconds in self.memory.windows(self.now):
            before = next(look for look in self._looks if look.at >= now.at - seconds - SAMPLE_SLACK_SECONDS)
            if now.requests - before.requests >= ENOUGH_REQUESTS:
                break
        per_minute = 60 / max(now.at - before.at, 1.0)
        counts = [new - old for new, old in zip(now.counts, before.counts, strict=True)]
        return Figures(
            seconds=seconds,
            running=True,
            rate=self.rate,
            waiting=self.waiting,
            inside=self.inside,
            full=False,
            admitted=(now.admitted - before.admitted) * per_minute,
            left=(now.left - before.left) * per_minute,
            requests=(now.requests - before.requests) * per_minute,
            failures=(now.failures - before.failures) * per_minute,
            given_up=0.0,
            p50_seconds=quantile(BOUNDS, counts, 0.5),
            p95_seconds=quantile(BOUNDS, counts, 0.95),
            in_flight=now.in_flight,
        )

    def since(self, at: float) -> tuple[int, float | None]:
        """What the shop did in the last part of the flight: failures, and within how long half of the answers came."""
        before = next(look for look in self._looks if look.at >= at)
        counts = [new - old for new, old in zip(self._counts, before.counts, strict=True)]
        return self.failures - before.failures, quantile(BOUNDS, counts, 0.5)

    # The gateway.

    def _joins(self, visitors: int) -> None:
        self.waiting += visitors

    def _admit(self) -> None:
        self._due = min(self._due + self.rate / 60 * TICK_SECONDS, max(1.0, self.rate / 60))
        while self._due >= 1 and self.waiting:
            self._due -= 1
            self.waiting -= 1
            self.inside += 1
            self._after(self.rng.uniform(*NOTICE_SECONDS), self._enters)

    def _look(self) -> None:
        counts = tuple(self._counts)
        self._looks.append(
            Look(self.now, self.admitted, self.left, self.requests, self.failures, counts, self.in_flight)
        )
        while self._looks[0].at < self.now - WINDOWS[-1] - SAMPLE_SLACK_SECONDS:
            self._looks.popleft()

    def _decide(self) -> None:
        if len(self._looks) > 2:
            self.memory, decision = decide(self.memory, self.bounds, self.figures(), self.now)
            self.rate = decision.rate
            self.decisions.append(decision)

    # The visitors.

    def _enters(self) -> None:
        self.admitted += 1
        self._asks(0)

    def _asks(self, page: int) -> None:
        self.in_flight += 1
        begun = self.now
        queries = VISIT[page][0]

        def done(*, failed: bool) -> None:
            self.in_flight -= 1
            self.requests += 1
            self._counts[bisect_left(BOUNDS, self.now - begun)] += 1
            if failed:
                self.failures += 1
                self._after(self.rng.uniform(*RETRY_SECONDS), lambda: self._asks(page))
            elif page + 1 < len(VISIT):
                pause = self.rng.uniform(*THINK_SECONDS) if VISIT[page + 1][1] else 0.0
                self._after(pause, lambda: self._asks(page + 1))
            else:
                self.left += 1
                self.inside -= 1

        def next_query() -> None:
            nonlocal queries
            if not queries:
                done(failed=False)
                return
            queries -= 1
            self._query(Query(next_query, lambda: done(failed=True)))

        next_query()

    # The shop's pool of connections, see `waitroom.drill.shop.database.Pool`.

    def _query(self, query: Query) -> None:
        if self._busy < self.connections and not self._queue:
            self._grant(query)
        elif len(self._queue) >= self._backlog:
            query.refused()
        else:
            self._queue.append(query)
            self._after(CONNECTION_WAIT_SECONDS, lambda: self._gives_up(query))

    def _gives_up(self, query: Query) -> None:
        if query.waits:
            query.waits = False
            self._queue.remove(query)
            query.refused()

    def _grant(self, query: Query) -> None:
        query.waits = False
        self._busy += 1
        takes = self.query_seconds * (1 + self._busy / self.connections) + self.rng.expovariate(1 / NOISE_SECONDS)
        takes += sum(end - self.now for begin, end in self.stalls if begin <= self.now < end)

        def over() -> None:
            self._busy -= 1
            while self._queue and self._busy < self.connections:
                self._grant(self._queue.popleft())
            query.granted()

        self._after(takes, over)

    def _sample(self) -> None:
        self.full.append((self.now, min(1.0, self._busy / self.connections)))

    # Time.

    def _after(self, seconds: float, then: Then) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), then))

    def _every(self, seconds: float, then: Then) -> None:
        def again() -> None:
            then()
            self._after(seconds, again)

        self._after(seconds, again)


def share_of_the_best(full: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """What was sold of what the best fixed rate sells, from looks at how full the shop's pool was.

    No fixed rate sells more than a pool that is always full: tried with such a crowd, one that keeps it just full sold
    97 to 100 % of that. A pool with the share u of its connections in use does 2u/(1+u) of the queries of a full one,
    since a query takes 1+u times its idle time. Machine and shop may become slower or faster during the run as they
    like: it is the same for both.
    """
    fullness = [share for at, share in full if since <= at < until]
    return sum(2 * share / (1 + share) for share in fullness) / len(fullness)
