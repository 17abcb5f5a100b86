"""Finds the rate that a shop can handle: figures and time in, a rate and a sentence out. Pure; `runner` does the I/O.

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
    Judged,
    judge,
    learnt,
    stay,
)

# Growth factors: per stay of a visitor until the knee is known and around it, and per window while recovering.
START_GROWTH: Final = 1.6
KNEE_GROWTH: Final = 1.08
RETURN_GROWTH: Final = 1.4
MOST_HASTE: Final = 4.0
BEYOND_KNEE: Final = 1.15  # healthy at this multiple of the knee, the shop handles more than it used to
AFTER_ERRORS: Final = 0.93  # of the rate at which requests failed: the first limit of the recovery
# At each look, the knee follows what a full shop delivers by this share, since a look may be chance. It is at most
# halved: an overloaded shop that collapses delivers less than it can handle.
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
    memory, adopted = _adopted(replace(memory, at=now), figures, first=first)
    if not figures.running:
        return memory, Decision(Move.KEEP, figures.rate, "Nobody is let in by the operator's word: the rate stays.")
    judged = judge(memory, bounds, figures)
    memory = learnt(memory, figures, judged, now, passed)
    if memory.held_at is not None:
        return _held(memory, bounds, judged, figures, now)
    if judged.failing:
        return _hold(memory, judged, now)
    memory, decision = _steer(memory, bounds, judged, figures, now, passed)
    return memory, replace(decision, said=adopted) if adopted and decision.move is Move.KEEP else decision


def _adopted(memory: Memory, figures: Figures, *, first: bool) -> tuple[Memory, str]:
    """Continues from a rate that somebody else has set."""
    if abs(figures.rate - memory.rate) <= 1e-6 * max(1.0, memory.rate):
        return memory, ""
    said = f"Going on from {_shown(figures.rate)} a minute" + (", as was set." if first else ", as somebody else set.")
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
    ), said


def _hold(memory: Memory, judged: Judged, now: float) -> tuple[Memory, Decision]:
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
    said = f"Nobody is let in: {judged.failing}. The line stays open, and everyone keeps their place."
    return memory, Decision(Move.HOLD, 0.0, said)


def _held(memory: Memory, bounds: Bounds, judged: Judged, figures: Figures, now: float) -> tuple[Memory, Decision]:
    held_at = now if memory.held_at is None else memory.held_at
    why = judged.failing
    if not why and judged.slowness >= 1:
        why = f"the shop isn't well yet, {judged.latency}"
    if why:
        return replace(memory, held_at=now), Decision(Move.KEEP, 0.0, f"Still nobody is let in: {why}.")
    left = held_at + memory.hold_seconds - now
    if left > 0:
        said = f"Nobody is let in for {left:.0f} s more: the shop must be well for a while first."
        return memory, Decision(Move.KEEP, 0.0, said)
    rate = bounds.within(RETURN_SHARE * memory.knee)
    calm = now + CALM_SECONDS * 2 ** (memory.strikes - 1)
    memory = replace(memory, rate=rate, aim=rate, since=now, held_at=None, slow_since=None, calm_until=calm)
    well = "answers again" if figures.requests > 0 else "is quiet"
    said = f"The shop {well}: visitors are let in again, {_shown(rate)} a minute at first."
    return memory, Decision(Move.RESUME, rate, said)


def _steer(
    memory: Memory, bounds: Bounds, judged: Judged, figures: Figures, now: float, passed: float
) -> tuple[Memory, Decision]:
    """Moves the aim, and the rate once the difference is worth a change."""
    if judged.slowness >= 1:
        memory, queued = _queued(memory, judged, figures, now)
        memory = _slow(memory, judged, figures, queued, now)
        most = memory.rate if judged.failure_share >= ERROR_SHARE else bounds.ceiling
        aim, kept, why = min(most, _drained(memory, judged, queued)), "it is low enough already", judged.latency
        if aim > memory.rate:
            why = f"the queue in the shop goes down; {why}"
    else:
        memory = replace(memory, slow_since=None, clear_since=None)
        kept, why = _kept(memory, bounds, figures), f"{judged.latency}, and nothing fails"
        memory, aim = (memory, memory.aim) if kept else _rise(memory, judged, figures, now, passed)
        if not kept and now < memory.calm_until and aim <= memory.aim:
            kept = f"for {memory.calm_until - now:.0f} s more, since above it requests failed"
    aim = bounds.within(aim)
    was = memory.rate
    edge = aim != was and aim in (bounds.floor, bounds.ceiling)
    memory = replace(memory, aim=aim)
    if abs(aim - was) <= SMALLEST_CHANGE * was and not edge:
        kept = kept or "rising slowly"
        return memory, Decision(Move.KEEP, was, f"Kept at {_shown(was)} a minute ({kept}): {why}.")
    memory = replace(memory, rate=aim)
    move, word = (Move.RAISE, "Raised") if aim > was else (Move.BACK_OFF, "Lowered")
    return memory, Decision(move, aim, f"{word} from {_shown(was)} to {_shown(aim)} a minute: {why}.")


def _queued(memory: Memory, judged: Judged, figures: Figures, now: float) -> tuple[Memory, float]:
    """Estimates how many requests queue in a slow shop, as far as that is certain.

    Latency covers a whole window, and only requests that are done; the number in flight shows earlier that the queue is
    gone. But if few are in flight and latency stays high, only some pages are slow, hidden among the many quick ones.
    """
    if judged.crowded:
        return replace(memory, clear_since=None), min(judged.late, judged.crowded)
    since = now if memory.clear_since is None else memory.clear_since
    over = now - since <= figures.seconds + (figures.p95_seconds or 0.0) + WINDOWS[0]
    return replace(memory, clear_since=since), 0.0 if over else judged.late


def _slow(memory: Memory, judged: Judged, figures: Figures, queued: float, now: float) -> Memory:
    """Handles a full shop: what it delivers is its capacity."""
    begins = memory.slow_since is None
    since = now if memory.slow_since is None else memory.slow_since
    delivered = figures.admitted if judged.delivered is None else judged.delivered
    knee, full_at = (memory.knee, memory.full_at) if memory.knee else (memory.rate, 0.0)
    if judged.failure_share >= ERROR_SHARE:
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
        slow_since=since if queued or judged.failure_share >= ERROR_SHARE else None,
    )
    if not begins or judged.failure_share < ERROR_SHARE:
        return memory
    calm = now + CALM_SECONDS * 2**memory.strikes
    return replace(memory, calm_until=calm, strikes=min(memory.strikes + 1, MOST_STRIKES))


def _drained(memory: Memory, judged: Judged, queued: float) -> float:
    """Returns the rate at which surplus visitors are worked off in `DRAIN_SECONDS`."""
    knee = memory.knee if memory.full_at else UNMEASURED * memory.knee
    if judged.failure_share >= ERROR_SHARE:
        # When requests fail, it is too late to work them off slowly.
        return knee * max(DEEPEST_AT_ERRORS, ERRORS_FACTOR_OF_RATE - ERRORS_WEIGHT * judged.failure_share)
    return max(DEEPEST * knee, min(SLOW_FACTOR_OF_RATE * knee, knee - queued * 60 / DRAIN_SECONDS))


def _rise(memory: Memory, judged: Judged, figures: Figures, now: float, passed: float) -> tuple[Memory, float]:
    """Returns the aim for a healthy shop, while the rate is the limit."""
    ease = (1 - judged.slowness) ** 2
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


def _kept(memory: Memory, bounds: Bounds, figures: Figures) -> str:
    """Returns why the rate isn't raised although the shop is healthy; empty if it may be."""
    come = figures.counted(figures.admitted)
    if memory.rate < bounds.floor:
        return ""
    if memory.rate >= bounds.ceiling:
        return "the ceiling"
    if not figures.waiting:
        return "nobody waits"
    if figures.inside >= figures.max_active:
        return "max_active is what limits"
    if come + 2 * math.sqrt(come) + 1 < LIMITING_SHARE * figures.counted(memory.rate):
        return f"only {_shown(figures.admitted)} a minute come in"
    if figures.counted(figures.requests) < FEWEST_REQUESTS:
        return "too little is seen of the shop to tell"
    return ""


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
