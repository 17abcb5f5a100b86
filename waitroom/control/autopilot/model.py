"""The autopilot's input, memory and decisions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

SHORTEST_HOLD_SECONDS: Final = 5.0
# The shortest of these windows with enough requests is used: newer figures say more.
WINDOWS: Final = (2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
HELD_WINDOWS: Final = WINDOWS[:3]
ENOUGH_REQUESTS: Final = 40


class Move(StrEnum):
    """The kind of a decision."""

    KEEP = "keep"
    RAISE = "raise"
    BACK_OFF = "back_off"
    HOLD = "hold"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The operator's limits. Rates in visitors per minute.

    Attributes:
        floor, ceiling: The rate stays between them; only a hold goes below, to 0.
        latency_seconds: A 95th percentile above this is slow; None learns the threshold.
    """

    floor: float
    ceiling: float
    latency_seconds: float | None = None

    def within(self, rate: float) -> float:
        """Returns the nearest allowed rate."""
        return min(max(rate, self.floor), self.ceiling)


@dataclass(frozen=True, slots=True)
class Figures:
    """The state of room and shop. Rates are per minute, over the last ``seconds``.

    Attributes:
        seconds: The length of the window.
        running: Whether the room is open: not paused, closed or sold out.
        rate: The rate in force.
        waiting, inside: Visitors in the queue, and active or called visitors.
        full: Whether no slot is free.
        admitted, left: Visitors admitted, and active visitors who left.
        requests: Completed requests of the shop, failures included.
        failures: Those that failed: a 5xx, no response, or what the room defines as a failure.
        given_up: Requests whose visitors left before the response.
        p50_seconds, p95_seconds: Latency, the time to a response's head; None if there were no responses.
        in_flight: Requests waiting for the shop's response now; streams and tunnels don't count.
    """

    seconds: float
    running: bool
    rate: float
    waiting: int
    inside: int
    full: bool
    admitted: float
    left: float
    requests: float
    failures: float
    given_up: float
    p50_seconds: float | None
    p95_seconds: float | None
    in_flight: int

    def counted(self, per_minute: float) -> float:
        """Returns the number in the window, from a figure per minute."""
        return per_minute * self.seconds / 60


@dataclass(frozen=True, slots=True)
class Memory:
    """The state from one decision to the next. Times are seconds of the room's clock.

    Attributes:
        at: The time of the last decision; None before the first.
        rate: The rate decided then, visitors per minute.
        aim: The target rate: changes too small to apply accumulate here.
        best_p50, best_p95: Latency of the healthy shop, in seconds; 0 if unknown.
        served, asked: Visitors' worth of recent visits, and the requests they made.
        knee: The estimated capacity of the shop as a rate; 0 before it was ever full.
        full_at: The knee as last measured, to detect that it has moved; 0 before the first measurement.
        slow_at: When a measured knee was last exceeded.
        slow_since: Since when requests have queued in the shop without a break; None while they don't.
        clear_since: Since when the shop has been slow with few requests in flight; None while it isn't.
        calm_until: Until then, the rate stays at or below AFTER_ERRORS of the knee.
        strikes: How often in a row requests failed.
        since: Figures from before this no longer count: they are from before a hold, or from before it ended.
        held_at, hold_seconds: When admission stopped, and for how long at least; None while it continues.
    """

    at: float | None = None
    rate: float = 0.0
    aim: float = 0.0
    best_p50: float = 0.0
    best_p95: float = 0.0
    served: float = 0.0
    asked: float = 0.0
    knee: float = 0.0
    full_at: float = 0.0
    slow_at: float = 0.0
    slow_since: float | None = None
    clear_since: float | None = None
    calm_until: float = 0.0
    strikes: int = 0
    since: float = 0.0
    held_at: float | None = None
    hold_seconds: float = SHORTEST_HOLD_SECONDS

    def windows(self, now: float) -> tuple[float, ...]:
        """Returns the windows that `Figures` may cover at ``now``, in seconds, shortest first."""
        newest = max(now - self.since, WINDOWS[0])
        return tuple(one for one in (WINDOWS if self.held_at is None else HELD_WINDOWS) if one <= newest)

    def dump(self) -> dict[str, Any]:
        """Returns all fields, for JSON."""
        return asdict(self)

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Memory:
        """Loads the output of `dump`; unknown fields, from another version, are ignored."""
        return cls(**{name: value for name, value in dumped.items() if name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class Decision:
    """The rate to set (0 holds), and the reason, in words for the operator."""

    move: Move
    rate: float
    summary: str
