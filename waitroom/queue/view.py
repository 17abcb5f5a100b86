"""A room as an edge keeps it in memory: refreshed twice a second, and enough to answer visitors who only wait."""

# mypyc: compile

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from waitroom.queue.fields import AUTOPILOT, Field
from waitroom.queue.positions import RankIndex, Throughput
from waitroom.queue.schedule import UNSHUFFLED, Draws, Event, EventRecord, Phase, parse_record


class RoomState(StrEnum):
    """The state of a room. Operators and the shop set all but ``prequeue``, which an event causes."""

    OPEN = "open"
    PREQUEUE = "prequeue"
    PAUSED = "paused"
    CLOSED = "closed"
    SOLD_OUT = "sold_out"


@dataclass(frozen=True, slots=True)
class Recovery:
    """The recovery from a loss of data: who was there before reports first.

    Attributes:
        left_ms: Milliseconds until it ends.
        expected_waiting, expected_active: The numbers known from before the loss, -1 if unknown.
        reported_waiting, reported_active: How many of them have reported.
    """

    left_ms: int
    expected_waiting: int
    expected_active: int
    reported_waiting: int
    reported_active: int


@dataclass(frozen=True, slots=True)
class RoomView:
    """A snapshot of a room.

    Attributes:
        generation: The generation of the store's data; a ticket of another one must be looked up.
        clock_ms: The room's own clock at the time of the snapshot.
        state: The state in force.
        own_state: The state that was set; the current event may close the room or open its prequeue instead.
        state_by: ``stock`` or ``schedule`` if one of these set it; "" if a person or the shop did.
        state_before: The state before the stock set it.
        high_water_mark: The greatest rank (see ``draws``) that a tick has called or skipped; tickets up to it must be
            looked up.
        waiting, called, away, active: The number of visitors in each state.
        rate_per_minute, max_active: The limits in force.
        session_ms, session_max_ms, claim_ms: The sliding session lifetime, the maximum length of a session and the time
            to claim a turn, in force.
        remaining: Units left as reported by the shop, or None.
        version: Incremented by every change of limits, state or message; a change may name the one it was based on.
        draining: Whether the room is paused and ends when the last visitor inside has left.
        autopilot: The operator's run-time switch; None if unset.
        last_change: The change that last incremented the version, by any actor, as stored, JSON or "".
        operator_change: The same for the last change by an operator.
        invited: Places that an operator called out of order; their tickets must be looked up.
        totals: Counters since the room's first day, such as ``joined`` or ``left:expired``.
        rank_index: Ranks and places, for positions.
        throughput: The measurements behind the wait estimate.
        ended: Sessions ended since the previous view, by an operator or by their visitors, on any worker; without a
            previous view, those of the last 30 s. At most a thousand, the rest next time.
        released: The same for sessions that the shop released.
        prolonged: The same for sessions whose end the shop has moved by the API, each with the milliseconds left.
        ends_read: The position up to which the ended sessions have been read, for the next view.
        wall_ms: The store's wall clock at the time of the snapshot; 0 if unknown.
        changes, newest_place: The number of changes counted, and the newest place.
        opened_changes, opened_place: The same at the beginning of the generation.
        lost_data: Whether the generation began after a loss of data.
        recovery: The recovery from it, while it lasts.
        event: The running event, else the next, else the last one; None if the room has none.
        events_version: Incremented by every change of an event.
        draws: The order of places.
        stock_began: The units sold (see `sold`) and the sessions ended when the stock began: at the start of the event
            or, without one, at the first report; None if the shop has reported none.
    """

    generation: int
    clock_ms: int
    state: RoomState
    own_state: RoomState
    method: str
    high_water_mark: int
    waiting: int
    called: int
    away: int
    active: int
    rate_per_minute: float
    max_active: int
    session_ms: int
    claim_ms: int
    message: str
    remaining: int | None
    version: int
    draining: bool
    autopilot: bool | None
    last_change: str
    operator_change: str
    invited: frozenset[int]
    totals: dict[str, int]
    rank_index: RankIndex
    throughput: Throughput
    ended: tuple[int, ...] = ()
    released: tuple[int, ...] = ()
    prolonged: tuple[tuple[int, int], ...] = ()
    ends_read: str = ""
    wall_ms: int = 0
    changes: int = 0
    newest_place: int = 0
    opened_changes: int = 0
    opened_place: int = 0
    lost_data: bool = False
    recovery: Recovery | None = None
    event: EventRecord | None = None
    events_version: int = 0
    draws: Draws = UNSHUFFLED
    state_by: str = ""
    state_before: str = ""
    session_max_ms: int = 14_400_000
    stock_began: tuple[int, int] | None = None

    def position(self, place: int) -> int | None:
        """The number of visitors ahead of a place, plus one; None while its prequeue is shuffled and hasn't ended."""
        if self.draws.is_open(place):
            return None
        return self.rank_index.position(self.draws.rank(place))

    @property
    def sold(self) -> int:
        """Units sold since the room's first day, as reported by the shop, less those that came back."""
        return self.totals.get("sold", 0) - self.totals.get("units_returned", 0)

    @property
    def sessions_ended(self) -> int:
        """Sessions that have ended since the room's first day."""
        return sum([self.totals.get(f"left:{how}", 0) for how in ("ended", "expired", "released")])

    @property
    def recovering(self) -> bool:
        """Whether admissions wait until those who were there before a loss have reported."""
        return self.recovery is not None

    @property
    def free_slots(self) -> int:
        """Free slots; negative while more are in use than the limit now allows."""
        return self.max_active - self.active - self.called


def lifted_state(view: RoomView) -> RoomState:
    """The own state of a room once an event opens it or units come back; see ``lift_state`` in the scripts."""
    if view.own_state is not RoomState.SOLD_OUT and not view.state_by:
        return view.own_state  # a person has set it
    paused = view.state_by == "stock" and view.state_before == RoomState.PAUSED
    return RoomState.PAUSED if paused else RoomState.OPEN


def own_state_after(view: RoomView, event: Event) -> RoomState:
    """The own state of a room when an event has ended; see ``apply_after`` in the scripts."""
    if event.after == "open":
        return lifted_state(view) if view.own_state is RoomState.SOLD_OUT else view.own_state
    closed_by_person = view.own_state is RoomState.CLOSED and not view.state_by
    return RoomState.CLOSED if closed_by_person else RoomState(event.after)


def state_in_force(own_state: RoomState, event: EventRecord | None) -> RoomState:
    """The state of a room with this state of its own and this current event; see ``effective_state`` in the scripts."""
    if event is not None and own_state not in (RoomState.CLOSED, RoomState.SOLD_OUT):
        if event.phase is Phase.SCHEDULED and event.event.before == "closed":
            return RoomState.CLOSED
        if event.phase is Phase.PREQUEUE:
            return RoomState.PREQUEUE
    return own_state


def values_of(view: RoomView, fields: Iterable[Field]) -> dict[str, Any]:
    """The values of some fields in a view, by their names."""
    return {field.name: getattr(view, field.name) for field in fields}


def parse_view(reply: Any, known: RankIndex | None) -> RoomView:
    """Parses the reply of ``scripts/view.lua``; ``known`` is the rank index the caller already has.

    Raises:
        ValueError, KeyError: A field is malformed or missing.
    """
    pairs, waiting, called, away, active, stamp, body, ends, ends_read, state_text, event = reply
    fields = {pairs[i].decode(): pairs[i + 1].decode() for i in range(0, len(pairs), 2)}
    stamp = stamp.decode()
    state = RoomState(state_text.decode())
    rank_index = known if known is not None and known.stamp == stamp else RankIndex.parse(stamp, body)
    return RoomView(
        generation=int(fields["generation"]),
        clock_ms=int(fields["clock"]),
        state=state,
        own_state=RoomState(fields["state"]),
        method=fields["method"],
        high_water_mark=int(fields["head"]),
        waiting=waiting,
        called=called,
        away=away,
        active=active,
        rate_per_minute=_number(fields["rate"]),
        max_active=int(fields["max_active"]),
        session_ms=int(fields["session_ms"]),
        claim_ms=int(fields["claim_ms"]),
        message=fields["message"],
        remaining=int(fields["remaining"]) if fields["remaining"] else None,
        version=int(fields.get("version", "0")),
        draining=state is RoomState.PAUSED and fields.get("draining") == "1",
        autopilot=AUTOPILOT.format.from_text(fields.get(AUTOPILOT.stored, "")),
        last_change=fields.get("last_change", ""),
        operator_change=fields.get("operator_change", ""),
        invited=frozenset([int(place) for place in fields.get("invited", "").split()]),
        totals={key.removeprefix("total:"): int(value) for key, value in fields.items() if key.startswith("total:")},
        rank_index=rank_index,
        throughput=Throughput(
            released=_number(fields["pace_freed"]),
            per_slot_ms=_number(fields["pace_told"]),
            slots=int(fields["max_active"]),
            turns=_number(fields["pace_met"]),
            present=_number(fields["pace_called"]),
        ),
        ended=_sessions(ends, b"ended:"),
        released=_sessions(ends, b"released:"),
        prolonged=_prolonged(ends),
        ends_read=ends_read.decode(),
        wall_ms=int(fields["wall"]),
        changes=int(fields.get("changes", "0")),
        newest_place=int(fields["seq"]),
        opened_changes=int(fields.get("opened_changes", "0")),
        opened_place=int(fields.get("opened_seq", "0")),
        lost_data=fields.get("lost_in") == fields["generation"],
        recovery=_recovery(fields),
        event=parse_record(event.decode()) if event else None,
        events_version=int(fields.get("events_version", "0")),
        draws=Draws(fields.get("draws", "")),
        state_by=fields.get("state_by", ""),
        state_before=fields.get("state_before", ""),
        session_max_ms=int(fields.get("session_max_ms", "14400000")),
        stock_began=_stock_began(fields),
    )


def _stock_began(fields: dict[str, str]) -> tuple[int, int] | None:
    if "stock_began_sold" not in fields:
        return None
    return int(fields["stock_began_sold"]), int(fields["stock_began_ended"])


def _recovery(fields: dict[str, str]) -> Recovery | None:
    resume_at = int(fields.get("resume_at", "0"))
    if not resume_at or fields.get("lost_in") != fields["generation"]:
        return None
    return Recovery(
        max(0, resume_at - int(fields["clock"])),
        int(fields["expected_waiting"]),
        int(fields["expected_active"]),
        int(fields["reported_waiting"]),
        int(fields["reported_active"]),
    )


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"not a finite number of at least 0: {text!r}")
    return number


def _sessions(ends: Any, kind: bytes) -> tuple[int, ...]:
    return tuple([int(end[len(kind) :]) for end in ends if end.startswith(kind)])


def _prolonged(ends: Any) -> tuple[tuple[int, int], ...]:
    found = [end.split(b":") for end in ends if end.startswith(b"prolonged:")]
    return tuple([(int(session), int(left_ms)) for _, session, left_ms in found])
