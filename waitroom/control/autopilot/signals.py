"""Interprets a shop's figures: how slow it is, whether it fails, how many requests queue in it, its healthy latency.

Pure. `controller` decides what to do; docs/autopilot.md has the reasons and the sources.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from waitroom.control.autopilot.model import Bounds, Figures, Memory
from waitroom.control.monitoring.thresholds import BACK_OFF, GIVING_UP, HOLD

# The slow threshold if the operator set none: a multiple of the healthy shop's latency, and at least this much more.
# A tenth of a second is what people notice (Nielsen, Usability Engineering, 1993).
SLOW_FACTOR: Final = 3.0
SLOW_LEAST_SECONDS: Final = 0.1
SLOW_LEAST_P95_SECONDS: Final = 0.25
FEWEST_REQUESTS: Final = 20  # in a window, to learn from
# Drift per second: pages change, so the best latency ever seen is not believed forever; and if the shop stays slow at
# a reduced load, load is not the cause.
BASELINE_DRIFT: Final = 0.0003
BASELINE_DRIFT_IN_VAIN: Final = 0.004
# The minimum of many small samples is chance, so a window's weight is its number of requests. And the first visitors
# see only the fastest pages: latency measured before the shop was ever full is its healthy latency.
BASELINE_REQUESTS: Final = 200
BASELINE_SECONDS: Final = 60.0

ARRIVAL_SECONDS: Final = 4.0  # from a change of the rate until the visitors it calls reach the shop
LONGEST_STAY_SECONDS: Final = 60.0
SHORTEST_STAY_SECONDS: Final = 4.0

ERROR_SHARE: Final = BACK_OFF.share
SLOWNESS_OF_ERRORS: Final = 2.0
SLOWNESS_OF_GIVING_UP: Final = 1.5

FEWEST_STALLED: Final = 3  # requests in flight while nothing is answered

SERVED_MEMORY_SECONDS: Final = 180.0
SMALLEST_SERVED: Final = 5.0  # visitors, before the number of requests per visitor is known


@dataclass(frozen=True, slots=True)
class Assessment:
    """The meaning of the figures. ``slowness``: 0 as fast as ever, 1 at the slow threshold, more beyond."""

    slowness: float
    failure_share: float
    failure: str  # why admission must stop; empty if it need not
    delivered: float | None  # visitors' worth of answers per minute
    # Requests, and so visitors, that queue in the shop beyond its healthy load: by response times (Little's law) and by
    # the number in flight now.
    queued_by_latency: float
    queued_by_in_flight: float
    latency: str  # in words


def assess(memory: Memory, bounds: Bounds, figures: Figures) -> Assessment:
    """Interprets the figures, given the memory of the healthy shop and the operator's slow threshold."""
    requests = figures.counted(figures.requests)
    share = figures.failures / figures.requests if figures.requests > 0 else 0.0
    failure = ""
    failures = figures.counted(figures.failures)
    if HOLD.reached(requests, failures):
        failure = f"{share:.0%} of the shop's responses failed"
    elif (
        requests == 0 and figures.in_flight >= FEWEST_STALLED and (memory.asked > 0 or memory.served >= SMALLEST_SERVED)
    ):
        failure = f"the shop isn't responding, {figures.in_flight} requests are waiting"
    slowness, excess, allowed, latency = _slowness(memory, bounds, figures)
    asked, gave_up = figures.requests + figures.given_up, figures.counted(figures.given_up)
    if GIVING_UP.reached(figures.counted(asked), gave_up):
        slowness = max(slowness, SLOWNESS_OF_GIVING_UP)
        latency = f"{figures.given_up / asked:.0%} of the visitors gave up before the response"
    if BACK_OFF.reached(requests, failures):
        slowness = max(slowness, SLOWNESS_OF_ERRORS)
        latency = f"{share:.1%} of its responses failed"
    delivered = None
    if memory.served >= SMALLEST_SERVED and memory.asked > 0:
        delivered = (figures.requests - figures.failures) * memory.served / memory.asked
    per_second = figures.requests / 60
    queued_by_latency = max(per_second * excess, gave_up)
    queued_by_in_flight = max(0.0, figures.in_flight - per_second * allowed)
    return Assessment(slowness, share, failure, delivered, queued_by_latency, queued_by_in_flight, latency)


def _slowness(memory: Memory, bounds: Bounds, figures: Figures) -> tuple[float, float, float, str]:
    """Returns the slowness as in `Assessment`, the excess and the allowed latency in seconds, and a description."""
    p50, p95 = figures.p50_seconds, figures.p95_seconds
    if p50 is None or p95 is None or figures.counted(figures.requests) < FEWEST_REQUESTS:
        return 0.0, 0.0, 0.0, "too few requests to measure latency"
    best50, best95 = memory.best_p50 or p50, memory.best_p95 or p95
    if bounds.latency_seconds is not None:
        best95 = min(best95, bounds.latency_seconds / 2)
        room = bounds.latency_seconds - best95
        latency = f"p95 latency {_seconds(p95)}, slow from {_seconds(bounds.latency_seconds)}"
        return max(0.0, (p95 - best95) / room), _excess(p95 - best95, room) / 2, best50 + room / 4, latency
    room50 = max((SLOW_FACTOR - 1) * best50, SLOW_LEAST_SECONDS)
    room95 = max((SLOW_FACTOR - 1) * best95, SLOW_LEAST_P95_SECONDS)
    slow50, slow95 = (p50 - best50) / room50, (p95 - best95) / room95
    # The mean excess is about half of the excess of the 95th percentile.
    excess = max(_excess(p50 - best50, room50), _excess(p95 - best95, room95) / 2)
    if slow95 > slow50:
        latency = f"p95 latency {_seconds(p95)}, baseline {_seconds(best95)}"
    else:
        latency = f"median latency {_seconds(p50)}, baseline {_seconds(best50)}"
    return max(0.0, slow50, slow95), excess, best50 + room50 / 2, latency


def _excess(longer: float, room: float) -> float:
    return max(0.0, longer - room / 2)


def update_baseline(memory: Memory, figures: Figures, assessment: Assessment, now: float, passed: float) -> Memory:
    """Updates the latency of the healthy shop, and the number of requests per visitor."""
    if assessment.failure or assessment.failure_share > ERROR_SHARE or memory.held_at is not None:
        return memory
    if figures.p50_seconds and figures.p95_seconds and figures.counted(figures.requests) >= FEWEST_REQUESTS:
        in_vain = memory.slow_since is not None and now - memory.slow_since > _reaction(figures)
        drift = 1 + (BASELINE_DRIFT_IN_VAIN if in_vain else BASELINE_DRIFT) * passed
        never_full = assessment.slowness < 1 and not memory.knee
        fall = min(1.0, figures.counted(figures.requests) / BASELINE_REQUESTS)
        rise = passed / BASELINE_SECONDS if never_full else 0.0
        memory = replace(
            memory,
            best_p50=_best(memory.best_p50, figures.p50_seconds, fall, rise, drift),
            best_p95=_best(memory.best_p95, figures.p95_seconds, fall, rise, drift),
        )
    # Active visitors are on average halfway through their visit, so growth of their number counts half (Little's law
    # requires a steady state, which a growing crowd is not).
    served = max(0.0, figures.admitted - (figures.admitted - figures.left) / 2) * passed / 60
    fade = math.exp(-passed / SERVED_MEMORY_SECONDS)
    asked = figures.requests * passed / 60
    return replace(memory, served=memory.served * fade + served, asked=memory.asked * fade + asked)


def _best(known: float, seen: float, fall: float, rise: float, drift: float) -> float:
    """Returns the latency of the healthy shop from the known and the current value, in seconds."""
    if not known:
        return seen
    if seen < known:
        return known + fall * (seen - known)
    return min(seen, known * drift + rise * (seen - known))


def _reaction(figures: Figures) -> float:
    """Returns the time until the figures show the effect of a change, in seconds."""
    return ARRIVAL_SECONDS + figures.seconds + stay(figures) / 2


def stay(figures: Figures) -> float:
    """Returns a visitor's stay by Little's law, clamped to what is worth waiting for, in seconds."""
    if figures.left <= 0:
        return LONGEST_STAY_SECONDS
    return min(max(figures.inside * 60 / figures.left, SHORTEST_STAY_SECONDS), LONGEST_STAY_SECONDS)


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
