"""What the admin API answers, as far as commands read it.

A member that is missing has a value of its own here, so that a gateway of another version is read as far as it goes;
one of the wrong kind is refused (`pydantic.ValidationError`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

Span = tuple[float, float]
"""The shortest and the longest, in seconds."""


@dataclass(frozen=True, slots=True)
class Shop:
    """How the shop does, by this machine's workers: the last ten seconds' requests, failures and times."""

    requests_per_minute: float = 0.0
    failures_per_minute: float = 0.0
    given_up_per_minute: float = 0.0
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Workers:
    """Edge workers: how many live, and how many there should be."""

    alive: int = 0
    wanted: int | None = None


@dataclass(frozen=True, slots=True)
class Autopilot:
    """What moves the rate by itself, between two rates a minute; what it last said, and when (RFC 3339)."""

    on: bool = False
    floor: float | None = None
    ceiling: float | None = None
    said: str = ""
    at: str | None = None


@dataclass(frozen=True, slots=True)
class LastChange:
    """A change of a room: when (RFC 3339), by whom, what in words, and of the newest whether it can be taken back."""

    at: str | None = None
    who: str = ""
    what: str = ""
    undoable: bool = False


@dataclass(frozen=True, slots=True)
class WaitSeconds:
    """How long who comes now will wait; None where it can't be known."""

    newcomer: Span | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """One room. ``state`` is None until the gateway has seen it in its store. ``undo`` is what an undo takes back."""

    name: str
    store_up: bool = False
    state: str | None = None
    draining: bool = False
    version: int | None = None
    waiting: int = 0
    called: int = 0
    away: int = 0
    active: int = 0
    max_active: int = 0
    rate_per_minute: float = 0.0
    message: str = ""
    remaining: int | None = None
    admitted_per_minute: float | None = None
    wait_seconds: WaitSeconds = field(default_factory=WaitSeconds)
    shop: Shop | None = None
    workers: Workers | None = None
    hints: tuple[str, ...] = ()
    autopilot: Autopilot | None = None
    last_change: LastChange | None = None
    undo: LastChange | None = None


@dataclass(frozen=True, slots=True)
class Rooms:
    """All rooms."""

    rooms: tuple[Room, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change would do: in a sentence, what to beware of, and the waits now and then, by who waits."""

    said: str
    warnings: tuple[str, ...] = ()
    now: dict[str, Span | None] = field(default_factory=dict)
    then: dict[str, Span | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DryRun:
    """The answer to a change that was only tried."""

    effect: Effect


@dataclass(frozen=True, slots=True)
class Sample:
    """How a room stood at a time, seconds since 1970; ``joined`` and ``admitted`` are counters."""

    at: float
    state: str = ""
    waiting: int = 0
    called: int = 0
    active: int = 0
    max_active: int = 0
    rate_per_minute: float = 0.0
    joined: int = 0
    admitted: int = 0
    wait_seconds: Span | None = None
    shop: Shop | None = None


@dataclass(frozen=True, slots=True)
class History:
    """Samples, oldest first."""

    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Diff:
    """A room's limits in the settings file as it was read at the start, those in force, and which of them differ."""

    file: dict[str, float | str | None]
    running: dict[str, float | str | None]
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a room's autopilot decided: when (RFC 3339), what, the rate from then on, and in words."""

    at: str
    move: str = ""
    rate_per_minute: float = 0.0
    said: str = ""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions, newest first."""

    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the audit."""

    id: str
    at: str = ""
    who: str = ""
    address: str = ""
    via: str = ""
    action: str = ""
    room: str = ""
    old: dict[str, object] = field(default_factory=dict)
    new: dict[str, object] = field(default_factory=dict)
    note: str = ""
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the audit is whole and unaltered, and in words what is wrong where it isn't."""

    intact: bool
    said: str
