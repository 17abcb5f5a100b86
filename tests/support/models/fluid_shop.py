"""A shop, a line and their visitors in plain arithmetic, fast enough to try the autopilot on thousands of shops.

It knows nothing of the controller. Time goes in steps; visitors are real numbers, with the noise of real ones. What
comes out is what the gateway would see: histograms with its own buckets, totals, and how many are inside.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

from waitroom.control.autopilot.controller import decide
from waitroom.control.autopilot.model import ENOUGH_REQUESTS, WINDOWS, Bounds, Decision, Figures, Memory
from waitroom.metrics.recorder import DISTRIBUTIONS
from waitroom.metrics.upstream_window import quantile

BOUNDS = DISTRIBUTIONS["upstream_request_seconds"]
STEP_SECONDS = 0.25
DECIDE_SECONDS = 2.0
LOOK_SECONDS = 1.0  # edge workers write down what they counted once a second
# How the latencies of one moment are spread around their middle.
SPREAD = (0.6, 0.8, 0.95, 1.05, 1.4, 2.2)


@dataclass(unsafe_hash=True)
class ShopModel:
    """What kind of shop it is.

    Attributes:
        per_second: Requests it can answer.
        service_seconds: How long one takes while it is idle.
        swelling: How much longer one takes in a full shop: 1 is twice as long.
        patience_seconds: How long a request may queue; those beyond it fail.
        collapse: The share of its capacity it loses when it is overrun.
        think_seconds, pages: Of a visitor, between pages and in all.
        session_seconds: How long a session lasts after the last page; 0 where the shop releases it.
        broken: It answers errors alone.
    """

    per_second: float = 50.0
    service_seconds: float = 0.02
    swelling: float = 1.0
    patience_seconds: float = 0.6
    collapse: float = 0.0
    think_seconds: float = 5.0
    pages: int = 7
    session_seconds: float = 0.0
    broken: bool = False

    @property
    def best_rate(self) -> float:
        """Visitors per minute that it can serve at the most, by its capacity: no fixed rate sells more."""
        return self.per_second * 60 / self.pages


@dataclass
class World:
    """One run."""

    shop: ShopModel
    rng: random.Random
    rate: float
    max_active: int = 10_000_000
    waiting: float = math.inf
    arrivals_per_minute: float = 0.0
    now: float = 0.0
    thinking: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    lingering: deque[tuple[float, float]] = field(default_factory=deque)
    lingers: float = 0.0
    called: deque[tuple[float, float]] = field(default_factory=deque)
    due: float = 0.0
    admitted: float = 0.0
    left: float = 0.0
    sold: float = 0.0
    requests: float = 0.0
    failures: float = 0.0
    counts: list[float] = field(default_factory=lambda: [0.0] * (len(BOUNDS) + 1))
    marks: deque[tuple[float, float, float, float, float, list[float]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.thinking = [0.0] * self.shop.pages
        self.queued = [0.0] * self.shop.pages

    @property
    def inside(self) -> float:
        return sum(self.thinking) + sum(self.queued) + self.lingers + sum(count for _, count in self.called)

    def step(self) -> None:
        shop, dt = self.shop, STEP_SECONDS
        self.now += dt
        self._line(dt)
        # Who has thought enough asks for the next page.
        share = 1 - math.exp(-dt / shop.think_seconds)
        for stage in range(shop.pages):
            asks = min(self.thinking[stage], self._noisy(self.thinking[stage] * share))
            self.thinking[stage] -= asks
            self.queued[stage] += asks
        queue = sum(self.queued)
        capacity = shop.per_second
        overrun = queue > capacity * shop.patience_seconds
        if overrun:
            capacity *= 1 - shop.collapse
        served = 0.0 if shop.broken else min(queue, capacity * dt)
        left_over = queue - served
        failed = queue if shop.broken else max(0.0, left_over - capacity * shop.patience_seconds)
        load = min(1.0, served / (capacity * dt)) if capacity else 0.0
        latency = shop.service_seconds * (1 + shop.swelling * load) + (left_over - failed) / max(capacity, 1e-9)
        for stage in range(shop.pages):
            part = self.queued[stage] / queue if queue else 0.0
            self.queued[stage] -= (served + failed) * part
            done = served * part
            if stage + 1 == shop.pages:
                self.sold += done
                self._leave(done)
            else:
                self.thinking[stage + 1] += done
            # Who met a failure tries again, and one in five has had enough.
            self.thinking[stage] += failed * part * 0.8
            self._leave(failed * part * 0.2)
        self.requests += served + failed
        self.failures += failed
        for factor in SPREAD:
            self.counts[bisect_left(BOUNDS, latency * factor)] += (served + failed) / len(SPREAD)
        if self.marks and self.now < self.marks[-1][0] + LOOK_SECONDS - 1e-9:
            return
        self.marks.append((self.now, self.admitted, self.left, self.requests, self.failures, list(self.counts)))
        while self.marks[0][0] < self.now - WINDOWS[-1]:
            self.marks.popleft()

    def figures(self, memory: Memory) -> Figures:
        for seconds in memory.windows(self.now):
            before = self._mark(seconds)
            if self.requests - before[3] >= ENOUGH_REQUESTS:
                break
        seconds = max(self.now - before[0], STEP_SECONDS)
        counts = [now - then for now, then in zip(self.counts, before[5], strict=True)]
        per_minute = 60 / seconds
        return Figures(
            seconds=seconds,
            running=True,
            rate=self.rate,
            waiting=int(min(self.waiting, 1e9)),
            inside=int(self.inside),
            full=int(self.inside) >= self.max_active,
            admitted=(self.admitted - before[1]) * per_minute,
            left=(self.left - before[2]) * per_minute,
            requests=(self.requests - before[3]) * per_minute,
            failures=(self.failures - before[4]) * per_minute,
            given_up=0.0,
            p50_seconds=quantile(BOUNDS, counts, 0.5),
            p95_seconds=quantile(BOUNDS, counts, 0.95),
            in_flight=int(sum(self.queued)),
        )

    def _mark(self, seconds: float) -> tuple[float, float, float, float, float, list[float]]:
        return next((mark for mark in self.marks if mark[0] >= self.now - seconds), self.marks[-1])

    def _line(self, dt: float) -> None:
        self.waiting += self.arrivals_per_minute * dt / 60
        free = max(0.0, self.max_active - self.inside)
        # Admission lets in whole visitors, exactly at the rate.
        self.due = min(self.due + self.rate * dt / 60, max(1.0, self.rate / 60))
        comes = min(self.waiting, free, float(int(self.due)))
        self.due -= comes
        self.waiting -= comes
        # The page asks every two seconds whether it is its turn.
        self.called.append((self.now + self.rng.uniform(0.2, 2.2), comes))
        still: deque[tuple[float, float]] = deque()
        for due, count in self.called:
            if due <= self.now:
                self.admitted += count
                self.queued[0] += count
            elif count:
                still.append((due, count))
        self.called = still
        while self.lingering and self.lingering[0][0] <= self.now:
            _, count = self.lingering.popleft()
            self.lingers -= count
            self.left += count

    def _leave(self, count: float) -> None:
        if self.shop.session_seconds:
            self.lingering.append((self.now + self.shop.session_seconds, count))
            self.lingers += count
        else:
            self.left += count

    def _noisy(self, expected: float) -> float:
        """A Poisson number (Knuth, TAOCP 2, 3.4.1); where it is not small, a normal one that is as good."""
        if expected > 6:
            return max(0.0, self.rng.gauss(expected, math.sqrt(expected)))
        count, product, least = -1, 1.0, math.exp(-expected)
        while product >= least:
            count += 1
            product *= self.rng.random()
        return float(count)


@dataclass
class Flight:
    """A run under the autopilot, with what it decided."""

    world: World
    bounds: Bounds
    memory: Memory = field(default_factory=Memory)
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    rates: list[tuple[float, float]] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        until = self.world.now + seconds
        decided = self.world.now
        while self.world.now < until - 1e-9:
            self.world.step()
            if self.world.now - decided >= DECIDE_SECONDS - 1e-9:
                decided = self.world.now
                self.decide()
            self.rates.append((self.world.now, self.world.rate))

    def decide(self) -> Decision:
        self.memory, decision = decide(self.memory, self.bounds, self.world.figures(self.memory), self.world.now)
        self.world.rate = decision.rate
        self.decisions.append((self.world.now, decision))
        return decision
