"""The responses of the admin API, as far as the commands use them.

Missing members have defaults here, so that responses of other versions are read as far as possible. Members of the
wrong type are rejected (`pydantic.ValidationError`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

Span = tuple[float, float]
"""The shortest and the longest, in seconds."""


@dataclass(frozen=True, slots=True)
class Shop:
    """The shop's figures, by this machine's workers: requests, failures and latency of the last ten seconds."""

    requests_per_minute: float = 0.0
    failures_per_minute: float = 0.0
    given_up_per_minute: float = 0.0
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Workers:
    """Edge workers: the number alive, and the configured number."""

    alive: int = 0
    wanted: int | None = None


@dataclass(frozen=True, slots=True)
class Autopilot:
    """The autopilot: its rate limits per minute, its latest decision, and the time of that (RFC 3339)."""

    on: bool = False
    floor: float | None = None
    ceiling: float | None = None
    summary: str = ""
    at: str | None = None


@dataclass(frozen=True, slots=True)
class LastChange:
    """A change of a room: time (RFC 3339), author and summary; for the latest, whether it can be undone."""

    at: str | None = None
    who: str = ""
    what: str = ""
    undoable: bool = False


@dataclass(frozen=True, slots=True)
class WaitSeconds:
    """The wait of a visitor who joins now; None if unknown."""

    newcomer: Span | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A scheduled event. Times are RFC 3339; a rate of ``auto`` is the autopilot's."""

    name: str
    title: str = ""
    phase: str = ""
    source: str = ""
    cancelled: bool = False
    prequeue_start: str | None = None
    start: str | None = None
    end: str | None = None
    method: str = ""
    before: str = ""
    after: str = ""
    units: int | None = None
    limits: dict[str, float | str] = field(default_factory=dict)
    ended_at: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a room's timeline, with the limits in force in it."""

    to: str | None = None
    event: str | None = None
    phase: str = ""
    state: str = ""
    limits: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Events:
    """The events of a room, by start, and its timeline from now on."""

    events: tuple[Event, ...]
    timeline: tuple[Segment, ...] = ()

    def find(self, name: str) -> Event | None:
        """Returns an event, or None."""
        return next((event for event in self.events if event.name == name), None)


@dataclass(frozen=True, slots=True)
class OverLimit:
    """Visitors whom a limit of a passthrough room would have let wait."""

    total: int = 0
    per_minute: float | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """One room. ``state`` is None until the gateway has seen it in its store. ``undo`` is what an undo reverts.

    ``event`` is the event in progress, else the next one, else the last one.
    """

    name: str
    store_up: bool = False
    store_problem: str = ""
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
    over_limit: dict[str, OverLimit] | None = None
    autopilot: Autopilot | None = None
    last_change: LastChange | None = None
    undo: LastChange | None = None
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class Rooms:
    """All rooms."""

    rooms: tuple[Room, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """The preview of a change: a summary, warnings, and the waits before and after, by kind of visitor."""

    summary: str
    warnings: tuple[str, ...] = ()
    now: dict[str, Span | None] = field(default_factory=dict)
    after: dict[str, Span | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DryRun:
    """The response to a dry run of a change."""

    effect: Effect


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of a room at a time, in seconds since 1970; ``joined`` and ``admitted`` are counters."""

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
    """A room's limits in the settings file as of the start, the limits in force, and the names of differing ones."""

    file: dict[str, float | str | None]
    running: dict[str, float | str | None]
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision of a room's autopilot: time (RFC 3339), kind, the new rate, and the reason."""

    at: str
    move: str = ""
    rate_per_minute: float = 0.0
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions, newest first."""

    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class EventReport:
    """The report of an event. ``sold_by`` is ``stock`` or ``release``; None if the shop reported no sales."""

    event: str
    title: str = ""
    phase: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    joined: int = 0
    admitted: int = 0
    sold: int = 0
    sold_by: str | None = None
    units: int | None = None
    gave_up: dict[str, int] = field(default_factory=dict)
    no_shows: int = 0
    voided: int = 0
    peak_waiting: int = 0
    peak_active: int = 0
    wait_seconds: dict[str, float | None] = field(default_factory=dict)
    eta_error_seconds: dict[str, float | None] = field(default_factory=dict)
    overshoot: int = 0
    over_limit: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the audit log."""

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
    """Whether the audit log is complete and unaltered, and a summary of the problem if it isn't."""

    intact: bool
    summary: str


@dataclass(frozen=True, slots=True)
class SaleLink:
    """A link to a sale page: its path on the admin listener, and when it expires."""

    path: str
    expires_at: str
