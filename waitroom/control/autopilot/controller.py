"""Finds the rate that a shop can handle: figures and time in, a rate and a summary out. Pure; `runner` does the I/O.

Admitted visitors stay for minutes, so load follows the number of active visitors, and the rate only with a delay.
Steering the rate by latency alone means steering an integrator with a delay: it oscillates. Hence two different moves:

- **Up** by at most a factor per stay of a visitor, so that the effect of a step is visible before the next one is half
  done. The factor shrinks to 1 as latency approaches the slow threshold (Vegas, Gradient2), is large until the shop was
  first seen to be full (slow start), and small around the rate at which that happened (CUBIC).
- **While the shop is full**, the rate is what it delivers, in visitors' worth of answers per minute, less what it needs
  to work off its queue (BBR, and Little's law). The queue is measured now, not when its requests finish: so the rate
  recovers as soon as the queue is gone, and a short stall costs little.

docs/autopilot.md has the reasons, the sources and the figures.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from waitroom.control.autopilot.model import SHORTEST_HOLD_SECONDS, WINDOWS, Bounds, Decision, Figures, Memory, Move
from waitroom.control.autopilot.signals import (
    ARRIVAL_SECONDS,
    ERROR_SHARE,
    FEWEST_REQUESTS,
    Assessment,
    assess,
    stay,
    update_baseline,
)

# Growth factors: per stay of a visitor until the knee is known and around it, and per window while recovering.
START_GROWTH: Final = 1.6
KNEE_GROWTH: Final = 1.08
RETURN_GROWTH: Final = 1.4
MOST_HASTE: Final = 4.0
BEYOND_KNEE: Final = 1.15  # healthy at this multiple of the knee, the shop handles more than it used to
AFTER_ERRORS: Final = 0.93  # of the rate at which requests failed: the first limit of the recovery
# With each decision, the knee follows what a full shop delivers by this share, since one sample may be chance. It is at
# most halved: an overloaded shop that collapses delivers less than it can handle.
KNEE_GAIN: Final = 0.3
DEEPEST_KNEE: Final = 0.5
KNEE_STEP_AT_ERRORS: Final = 0.8
UNMEASURED: Final = 0.8  # share of the rate taken as the knee, from when the shop is first full until it is measured
# Surplus visitors are worked off in this time, by admitting less than the shop delivers. It is more than twice the time
# until a change shows, as a loop with dead time requires (Ziegler and Nichols, 1942).
DRAIN_SECONDS: Final = 15.0
DEEPEST: Final = 0.3  # of the knee, except for a hold
SLOW_FACTOR_OF_RATE: Final = 0.97
ERRORS_FACTOR_OF_RATE: Final = 0.75
ERRORS_WEIGHT: Final = 5.0
DEEPEST_AT_ERRORS: Final = 0.3

CALM_SECONDS: Final = 30.0  # at AFTER_ERRORS of the knee before the next attempt; doubled after each failure
MOST_STRIKES: Final = 3

LONGEST_HOLD_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 120.0  # a hold that follows another within this time lasts longer
RETURN_SHARE: Final = 0.25  # of the knee, when a hold ends

LIMITING_SHARE: Final = 0.8  # of the rate must actually be used, or something else is the limit
SMALLEST_CHANGE: Final = 0.03
LONGEST_STEP_SECONDS: Final = 10.0


def decide(memory: Memory, bounds: Bounds, figures: Figures, now: float) -> tuple[Memory, Decision]:
    """Decides the rate.

    Args:
        memory: Returned with the last decision; ``Memory()`` at first.
        bounds: The operator's limits.
        figures: The current state of room and shop.
        now: The room's clock, in seconds; it never goes back.
    """
    passed = 0.0 if memory.at is None else min(max(now - memory.at, 0.0), LONGEST_STEP_SECONDS)
    first = memory.at is None
    memory, adopted = _adopt_rate(replace(memory, at=now), figures, first=first)
    if not figures.running:
        return memory, Decision(Move.KEEP, figures.rate, "Admission is stopped by the operator: the rate is unchanged.")
    assessment = assess(memory, bounds, figures)
    memory = update_baseline(memory, figures, assessment, now, passed)
    if memory.held_at is not None:
        return _continue_hold(memory, bounds, assessment, figures, now)
    if assessment.failure:
        return _start_hold(memory, assessment, now)
    memory, decision = _adjust(memory, bounds, assessment, figures, now, passed)
    return memory, replace(decision, summary=adopted) if adopted and decision.move is Move.KEEP else decision


def _adopt_rate(memory: Memory, figures: Figures, *, first: bool) -> tuple[Memory, str]:
    """Continues from a rate that somebody else has set."""
    if abs(figures.rate - memory.rate) <= 1e-6 * max(1.0, memory.rate):
        return memory, ""
    source = "the configured rate" if first else "set by somebody else"
    summary = f"Continues from {_format_rate(figures.rate)} per minute, {source}."
    rate = figures.rate
    return replace(
        memory,
        rate=rate,
        aim=rate,
        held_at=None,
        knee=0.0,
        slow_since=None,
        clear_since=None,
        strikes=0,
        calm_until=0.0,
    ), summary


def _start_hold(memory: Memory, assessment: Assessment, now: float) -> tuple[Memory, Decision]:
    again = 0 < memory.since > now - AGAIN_SECONDS
    # Failures during recovery say nothing about the capacity of a healthy shop.
    knee = memory.knee if again and memory.knee else min(memory.knee or memory.rate, memory.rate)
    memory = replace(
        memory,
        rate=0.0,
        aim=0.0,
        knee=knee,
        full_at=knee,
        since=now,
        held_at=now,
        hold_seconds=min(LONGEST_HOLD_SECONDS, 2 * memory.hold_seconds) if again else SHORTEST_HOLD_SECONDS,
        strikes=min(memory.strikes + 1, MOST_STRIKES),
    )
    summary = f"Admission stopped: {assessment.failure}. The queue stays open, and visitors keep their places."
    return memory, Decision(Move.HOLD, 0.0, summary)


def _continue_hold(
    memory: Memory, bounds: Bounds, assessment: Assessment, figures: Figures, now: float
) -> tuple[Memory, Decision]:
    held_at = now if memory.held_at is None else memory.held_at
    why = assessment.failure
    if not why and assessment.slowness >= 1:
        why = f"the shop hasn't recovered yet, {assessment.latency}"
    if why:
        return replace(memory, held_at=now), Decision(Move.KEEP, 0.0, f"Admission is still stopped: {why}.")
    left = held_at + memory.hold_seconds - now
    if left > 0:
        summary = f"Admission resumes in {left:.0f} s if the shop stays healthy."
        return memory, Decision(Move.KEEP, 0.0, summary)
    rate = bounds.within(RETURN_SHARE * memory.knee)
    calm = now + CALM_SECONDS * 2 ** (memory.strikes - 1)
    memory = replace(memory, rate=rate, aim=rate, since=now, held_at=None, slow_since=None, calm_until=calm)
    state = "responds again" if figures.requests > 0 else "is idle"
    summary = f"The shop {state}: admission resumes at {_format_rate(rate)} per minute."
    return memory, Decision(Move.RESUME, rate, summary)


def _adjust(
    memory: Memory, bounds: Bounds, assessment: Assessment, figures: Figures, now: float, passed: float
) -> tuple[Memory, Decision]:
    """Moves the aim, and the rate once the difference is worth a change."""
    if assessment.slowness >= 1:
        memory, queued = _estimate_queue(memory, assessment, figures, now)
        memory = _update_knee(memory, assessment, figures, queued, now)
        most = memory.rate if assessment.failure_share >= ERROR_SHARE else bounds.ceiling
        aim, kept, why = (
            min(most, _drain_rate(memory, assessment, queued)),
            "already low enough",
            assessment.latency,
        )
        if aim > memory.rate:
            why = f"the shop's backlog is shrinking; {why}"
    else:
        memory = replace(memory, slow_since=None, clear_since=None)
        kept, why = _limit_reason(memory, bounds, figures), f"{assessment.latency}, no failures"
        memory, aim = (memory, memory.aim) if kept else _raise_target(memory, assessment, figures, now, passed)
        if not kept and now < memory.calm_until and aim <= memory.aim:
            kept = f"for {memory.calm_until - now:.0f} s more, because requests failed above it"
    aim = bounds.within(aim)
    was = memory.rate
    edge = aim != was and aim in (bounds.floor, bounds.ceiling)
    memory = replace(memory, aim=aim)
    if abs(aim - was) <= SMALLEST_CHANGE * was and not edge:
        kept = kept or "rising slowly"
        return memory, Decision(Move.KEEP, was, f"Kept at {_format_rate(was)} per minute ({kept}): {why}.")
    memory = replace(memory, rate=aim)
    move, word = (Move.RAISE, "Raised") if aim > was else (Move.BACK_OFF, "Lowered")
    return memory, Decision(move, aim, f"{word} from {_format_rate(was)} to {_format_rate(aim)} per minute: {why}.")


def _estimate_queue(memory: Memory, assessment: Assessment, figures: Figures, now: float) -> tuple[Memory, float]:
    """Estimates how many requests queue in a slow shop, as far as that is certain.

    Latency covers a whole window, and only requests that are done; the number in flight shows earlier that the queue is
    gone. But if few are in flight and latency stays high, only some pages are slow, hidden among the many quick ones.
    """
    if assessment.queued_by_in_flight:
        return replace(memory, clear_since=None), min(assessment.queued_by_latency, assessment.queued_by_in_flight)
    since = now if memory.clear_since is None else memory.clear_since
    over = now - since <= figures.seconds + (figures.p95_seconds or 0.0) + WINDOWS[0]
    return replace(memory, clear_since=since), 0.0 if over else assessment.queued_by_latency


def _update_knee(memory: Memory, assessment: Assessment, figures: Figures, queued: float, now: float) -> Memory:
    """Handles a full shop: what it delivers is its capacity."""
    begins = memory.slow_since is None
    since = now if memory.slow_since is None else memory.slow_since
    delivered = figures.admitted if assessment.delivered is None else assessment.delivered
    knee, full_at = (memory.knee, memory.full_at) if memory.knee else (memory.rate, 0.0)
    if assessment.failure_share >= ERROR_SHARE:
        knee = full_at = min(knee, max(delivered, KNEE_STEP_AT_ERRORS * knee))
    elif queued and now - since >= figures.seconds:
        # Only if it was full for the whole window; otherwise the figure would include a time at a standstill.
        delivered = max(delivered, DEEPEST_KNEE * knee)
        knee = full_at = knee + (KNEE_GAIN if full_at else 1.0) * (delivered - knee)
    memory = replace(
        memory,
        knee=knee,
        full_at=full_at,
        slow_at=now if full_at else memory.slow_at,
        slow_since=since if queued or assessment.failure_share >= ERROR_SHARE else None,
    )
    if not begins or assessment.failure_share < ERROR_SHARE:
        return memory
    calm = now + CALM_SECONDS * 2**memory.strikes
    return replace(memory, calm_until=calm, strikes=min(memory.strikes + 1, MOST_STRIKES))


def _drain_rate(memory: Memory, assessment: Assessment, queued: float) -> float:
    """Returns the rate at which surplus visitors are worked off in `DRAIN_SECONDS`."""
    knee = memory.knee if memory.full_at else UNMEASURED * memory.knee
    if assessment.failure_share >= ERROR_SHARE:
        # When requests fail, it is too late to work them off slowly.
        return knee * max(DEEPEST_AT_ERRORS, ERRORS_FACTOR_OF_RATE - ERRORS_WEIGHT * assessment.failure_share)
    return max(DEEPEST * knee, min(SLOW_FACTOR_OF_RATE * knee, knee - queued * 60 / DRAIN_SECONDS))


def _raise_target(
    memory: Memory, assessment: Assessment, figures: Figures, now: float, passed: float
) -> tuple[Memory, float]:
    """Returns the aim for a healthy shop, while the rate is the limit."""
    ease = (1 - assessment.slowness) ** 2
    step = ARRIVAL_SECONDS + stay(figures) + figures.seconds
    stays = passed / step
    if not memory.knee:
        return memory, memory.aim * (1 + (START_GROWTH - 1) * ease) ** stays
    if now < memory.calm_until:
        most = AFTER_ERRORS * memory.knee
    else:
        most = memory.knee
        if memory.aim >= 0.98 * memory.knee:
            # The longer the shop is healthy, the more likely it is that the knee has moved.
            haste = min(MOST_HASTE, 1 + (now - max(memory.slow_at, memory.calm_until)) / (2 * step))
            memory = replace(memory, knee=memory.knee * (1 + (KNEE_GROWTH - 1) * ease) ** (stays * haste))
            # This also holds if it was never measured: then the shop was slow only for a moment.
            if memory.knee > BEYOND_KNEE * memory.full_at:
                memory = replace(memory, knee=0.0, strikes=0)
    aim = memory.aim * RETURN_GROWTH ** (passed / figures.seconds)
    return memory, max(memory.aim, min(most, aim))


def _limit_reason(memory: Memory, bounds: Bounds, figures: Figures) -> str:
    """Returns why the rate isn't raised although the shop is healthy; empty if it may be."""
    come = figures.counted(figures.admitted)
    if memory.rate < bounds.floor:
        return ""
    if memory.rate >= bounds.ceiling:
        return "at the ceiling"
    if not figures.waiting:
        return "nobody is waiting"
    if figures.full:
        return "the room is full"
    if come + 2 * math.sqrt(come) + 1 < LIMITING_SHARE * figures.counted(memory.rate):
        return f"only {_format_rate(figures.admitted)} per minute enter"
    if figures.counted(figures.requests) < FEWEST_REQUESTS:
        return "too few requests to judge the shop"
    return ""


def _format_rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
