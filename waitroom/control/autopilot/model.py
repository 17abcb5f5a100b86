"""What the autopilot is shown, what it remembers and what it decides."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

SHORTEST_HOLD_SECONDS: Final = 5.0
# The shortest of these windows that holds enough requests is looked at: what is newer tells more.
WINDOWS: Final = (2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
HELD_WINDOWS: Final = WINDOWS[:3]
ENOUGH_REQUESTS: Final = 40


class Move(StrEnum):
    """What was decided."""

    KEEP = "keep"
    RAISE = "raise"
    BACK_OFF = "back_off"
    HOLD = "hold"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the operator allows. Rates in visitors per minute.

    Attributes:
        floor, ceiling: The rate stays between them; only a hold goes below, to 0.
        latency_seconds: An answer of which one in twenty takes longer than this is slow; None learns it.
    """

    floor: float
    ceiling: float
    latency_seconds: float | None = None

    def within(self, rate: float) -> float:
        """The nearest rate that is allowed."""
        return min(max(rate, self.floor), self.ceiling)


@dataclass(frozen=True, slots=True)
class Figures:
    """How room and shop stand. Rates are per minute, over the last ``seconds``.

    Attributes:
        seconds: How long the window is.
        running: Whether the room is open: nobody paused, closed or sold it out.
        rate: The rate in force.
        waiting, inside, max_active: Visitors in the line, in the shop or called, and the bound on the latter.
        admitted, left: Visitors let in, and those inside who left.
        requests: Answers of the shop, failures included.
        failures: Of these, those that failed: 5xx, none at all, or what the room names a failure.
        given_up: Requests whose visitors went away before the answer.
        p50_seconds, p95_seconds: Latency, the time to an answer's head; None where there were no answers.
        in_flight: Requests that wait for the shop's answer now; streams and tunnels don't.
    """

    seconds: float
    running: bool
    rate: float
    waiting: int
    inside: int
    max_active: int
    admitted: float
    left: float
    requests: float
    failures: float
    given_up: float
    p50_seconds: float | None
    p95_seconds: float | None
    in_flight: int

    def counted(self, per_minute: float) -> float:
        """How many of something there were in the window."""
        return per_minute * self.seconds / 60


@dataclass(frozen=True, slots=True)
class Memory:
    """What must be remembered from one decision to the next. Times are seconds of the room's clock.

    Attributes:
        at: When it was last decided; None before the first time.
        rate: The rate decided then, visitors per minute.
        aim: What it is on the way to: changes too small to be worth a change add up here.
        best_p50, best_p95: Latency of the well shop, in seconds; 0 where unknown.
        served, asked: Visitors' worth of visits lately, and requests they made.
        knee: The rate that the shop is thought to bear; 0 before it was ever seen full.
        full_at: The knee as it was last measured, so that one can tell when it has moved; 0 before it was.
        slow_at: When a measured knee was last passed.
        slow_since: Since when requests have queued in the shop, without a break; None while they don't.
        clear_since: Since when the shop has been slow with few requests in it; None while it isn't.
        calm_until: Not above AFTER_ERRORS of the knee before this.
        strikes: How often in a row requests failed.
        since: What was seen before this no longer counts: it is of before a hold, or of before it ended.
        held_at, hold_seconds: When admission stopped and for how long at the least; None where it goes on.
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
        """The windows that `Figures` may be of at ``now``, in seconds, shortest first."""
        newest = max(now - self.since, WINDOWS[0])
        return tuple(one for one in (WINDOWS if self.held_at is None else HELD_WINDOWS) if one <= newest)

    def dump(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Memory:
        """What `dump` gave; what is unknown in it, from another version, is left out."""
        return cls(**{name: value for name, value in dumped.items() if name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done: the rate (0 holds), and why, in words for the operator."""

    move: Move
    rate: float
    said: str
