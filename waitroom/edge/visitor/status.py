"""A visitor's status, and its JSON. Pure."""

# mypyc: compile

from __future__ import annotations

import json
from datetime import datetime, timedelta
from math import ceil, inf
from typing import Final, Literal

from waitroom.edge.pages.event_notice import EventNotice, event_notice
from waitroom.edge.pages.messages import PageKind, PageText
from waitroom.edge.pages.times import rfc3339, utc
from waitroom.edge.visitor.shown import PositionReason
from waitroom.queue.positions import LONGEST_POLL_SECONDS, SHORTEST_POLL_SECONDS, poll_after
from waitroom.queue.schedule import EventRecord, Phase
from waitroom.queue.store import Fate
from waitroom.queue.view import RoomState, RoomView

HELD_POLL_SECONDS: Final = 12
PHASE_SPREAD_SECONDS: Final = 3  # visitors who wait for a phase to begin poll within this time after it
MAX_OVERDUE_SECONDS: Final = 5  # a phase that is due for longer awaits the store

# The contract's states of a visitor.
VisitorState = Literal["waiting", "prequeue", "paused", "called", "admitted", "sold_out", "closed", "unknown"]

# Why a closed or sold-out room may open again: the next event opens it, or units come back.
Reopening = Literal["", "event", "stock"]

# For visitors in the queue: the page and the state, by the room's state.
_STATUS_BY_ROOM_STATE: Final[dict[RoomState, tuple[PageKind, VisitorState]]] = {
    RoomState.OPEN: (PageKind.WAITING, "waiting"),
    RoomState.PREQUEUE: (PageKind.PREQUEUE, "prequeue"),
    RoomState.PAUSED: (PageKind.PAUSED, "paused"),
    RoomState.CLOSED: (PageKind.CLOSED, "closed"),
    RoomState.SOLD_OUT: (PageKind.SOLD_OUT, "sold_out"),
}
# States whose page has a countdown, if the event has a next phase.
STATES_WITH_NOTICE: Final = frozenset({"prequeue", "closed", "sold_out"})
# Rooms don't have these members yet.
_NO_LOT: Final = b"null"
_NO_LANE: Final = b"null"


class SharedStatus:
    """The part of a status that is the same for all visitors of a room, computed once for each view.

    Attributes:
        view: The view; None before the first.
        state: The room's state; open before the first view.
        updated_at: The time of the view; aware.
        message: The operator's message.
        remaining: Units left, as reported by the shop.
        event: The event that visitors see, or None.
        notice: The event that they wait for, if the next phase of the event changes what they may do.
        reopening: Why a closed or sold-out room may open again.
        json: The members of the JSON, with the closing brace.
        spread_seconds: The time after the beginning of a phase in which all visitors poll.

    Args:
        view: See above.
        updated_at: See above.
        polls_per_second: The polls that all workers together can answer.
    """

    __slots__ = (
        "event",
        "json",
        "message",
        "notice",
        "remaining",
        "reopening",
        "spread_seconds",
        "state",
        "updated_at",
        "view",
    )

    def __init__(self, view: RoomView | None, updated_at: datetime, polls_per_second: float = inf) -> None:
        self.view = view
        self.spread_seconds = max(PHASE_SPREAD_SECONDS, 0 if view is None else view.waiting / polls_per_second)
        self.updated_at = updated_at
        self.state = RoomState.OPEN if view is None else view.state
        self.message = "" if view is None else view.message
        self.remaining = None if view is None else view.remaining
        event = None if view is None else view.event
        self.event = event if event is not None and view is not None and event.is_shown(view.wall_ms) else None
        self.reopening: Reopening = "" if view is None else _reopening(view, self.event)
        self.notice: EventNotice | None = None
        if self.event is not None and (self.reopening or self.state is RoomState.PREQUEUE):
            self.notice = event_notice(self.event)
        self.json = (b'"message":%b,"remaining":%b,"updated_at":"%b","event":%b,"lot":%b,"lane":%b,"reopening":%b}') % (
            json.dumps(self.message).encode(),
            b"null" if self.remaining is None else b"%d" % self.remaining,
            rfc3339(updated_at),
            b"null" if self.event is None else _event_json(self.event),
            _NO_LOT,
            _NO_LANE,
            b'"%b"' % self.reopening.encode() if self.reopening else b"null",
        )

    def text(self, kind: PageKind) -> PageText:
        """The texts of a page of this kind."""
        if kind is PageKind.CLOSED:
            if self.reopening == "event":
                return PageText.SCHEDULED
            if self.event is not None and self.event.phase is Phase.ENDED and self.state is RoomState.CLOSED:
                return PageText.ENDED
        if kind is PageKind.SOLD_OUT and self.reopening == "stock":
            return PageText.SOLD_OUT_FOR_NOW
        return PageText(kind)


def _reopening(view: RoomView, event: EventRecord | None) -> Reopening:
    is_next = event is not None and event.phase is Phase.SCHEDULED
    if view.state is RoomState.SOLD_OUT:
        return "stock" if view.state_by == "stock" else "event" if is_next else ""
    # A room that a person has closed isn't opened by an event.
    by_schedule = view.own_state is not RoomState.CLOSED or view.state_by == "schedule"
    return "event" if view.state is RoomState.CLOSED and is_next and by_schedule else ""


class VisitorStatus:
    """The status of a visitor.

    Not a dataclass: the constructor of a dataclass isn't compiled, and every poll needs one of these.

    Attributes:
        state: The state, as the contract names it.
        kind: The page that shows it; None if none does.
        position, waiting, start_position: Numbers of the queue, or None if they don't apply or are unknown.
        eta: The range of the wait in seconds, or None.
        poll_after: Seconds until the visitor's next poll.
        claim_by: The deadline for a called visitor to claim the turn.
        shared: The part that is the same for all visitors.
        place: The place of a waiting visitor, or 0.
        position_reason: Why the position is larger than one shown before, or that it was drawn; empty otherwise.
        likely_sold_out: Whether the visitors ahead will probably buy all that is left; None if unknown.
    """

    def __init__(
        self,
        state: VisitorState,
        kind: PageKind | None,
        position: int | None,
        waiting: int | None,
        start_position: int | None,
        eta: tuple[int, int] | None,
        poll_after: int,
        claim_by: datetime | None,
        shared: SharedStatus,
        place: int = 0,
        position_reason: PositionReason = "",
    ) -> None:
        self.state = state
        self.kind = kind
        self.position = position
        self.waiting = waiting
        self.start_position = start_position
        self.eta = eta
        self.poll_after = poll_after
        self.claim_by = claim_by
        self.shared = shared
        self.place = place
        self.position_reason = position_reason
        self.likely_sold_out: bool | None = None

    def json(self, room: str) -> bytes:
        """The body of ``/.waitroom/status``."""
        position, waiting, eta, likely = self.position, self.waiting, self.eta, self.likely_sold_out
        return (
            b'{"room":"%b","state":"%b","position":%b,"waiting":%b,"eta_seconds":%b,"poll_after":%d,"claim_by":%b,'
            b'"position_reason":%b,"likely_sold_out":%b,%b'
        ) % (
            room.encode(),
            self.state.encode(),
            b"null" if position is None else b"%d" % position,
            b"null" if waiting is None else b"%d" % waiting,
            b"null" if eta is None else b"[%d,%d]" % eta,
            self.poll_after,
            b"null" if self.claim_by is None else b'"%b"' % rfc3339(self.claim_by),
            b'"%b"' % self.position_reason.encode() if self.position_reason else b"null",
            b"null" if likely is None else b"true" if likely else b"false",
            self.shared.json,
        )


def build_status(
    fate: Fate,
    shared: SharedStatus,
    *,
    position: int | None,
    start_position: int | None = None,
    eta: tuple[int, int] | None = None,
    claim_left_ms: int = 0,
    store_up: bool,
    jitter: float,
    now: float,
    state: RoomState | None = None,
) -> VisitorStatus:
    """Builds a visitor's status.

    Args:
        fate: The ticket's status in the store.
        shared: The part that all visitors share.
        position: The ticket's position, for a waiting one.
        start_position: Its first position.
        eta: The range of the wait from its position.
        claim_left_ms: How long a called visitor has left.
        store_up: Whether the view is fresh.
        jitter: Uniform in [0, 1), so that visitors don't poll in step.
        now: Unix time in seconds.
        state: The room's state if the store has just reported it; None for that of the view.
    """
    room_state = shared.state if state is None else state
    visitor_state: VisitorState = fate
    kind: PageKind | None = None
    claim_by = None
    after = SHORTEST_POLL_SECONDS
    if fate == "waiting":
        kind, visitor_state = _STATUS_BY_ROOM_STATE[room_state]
        if visitor_state == "waiting":
            if store_up:
                after = poll_after(eta, position or 1, jitter)
            else:
                # Nothing changes until the store is back: frequent polls are of no use.
                kind = PageKind.HELD
                after = round(HELD_POLL_SECONDS * (0.5 + jitter / 2))
        else:
            after = _poll_after_idle(shared, visitor_state, jitter, now)
            eta = None
    else:
        position = start_position = eta = None
        if fate == "called":
            kind = PageKind.CALLED
            claim_by = shared.updated_at + timedelta(milliseconds=claim_left_ms)
            if room_state in (RoomState.CLOSED, RoomState.SOLD_OUT):
                kind, visitor_state = _STATUS_BY_ROOM_STATE[room_state]
                claim_by = None
    return VisitorStatus(
        state=visitor_state,
        kind=kind,
        position=position,
        waiting=None if shared.view is None else max(shared.view.waiting, position or 0),
        start_position=start_position,
        eta=eta,
        poll_after=after,
        claim_by=claim_by,
        shared=shared,
    )


def build_rejected_status(shared: SharedStatus, state: RoomState, *, jitter: float, now: float) -> VisitorStatus:
    """Builds the status of a visitor without a place in a closed or sold-out room."""
    kind, visitor_state = _STATUS_BY_ROOM_STATE[state]
    return VisitorStatus(
        state=visitor_state,
        kind=kind,
        position=None,
        waiting=None if shared.view is None else shared.view.waiting,
        start_position=None,
        eta=None,
        poll_after=_poll_after_idle(shared, visitor_state, jitter, now),
        claim_by=None,
        shared=shared,
    )


def _poll_after_idle(shared: SharedStatus, state: VisitorState, jitter: float, now: float) -> int:
    """Seconds until the next poll of a visitor who can't be called now: at most until the next phase has begun."""
    least = 0.9 if state == "sold_out" and shared.reopening == "stock" else 0.5
    after = round(LONGEST_POLL_SECONDS * (least + jitter * (1 - least)))
    if shared.notice is None:
        return after
    due = ceil(shared.notice.next_ms / 1000 - now)
    if not -MAX_OVERDUE_SECONDS <= due < after:
        return after
    return max(SHORTEST_POLL_SECONDS, due + round(shared.spread_seconds * jitter))


def _event_json(record: EventRecord) -> bytes:
    """The ``event`` member."""
    event = record.event
    times = (event.prequeue_ms, event.start_ms, event.end_ms)
    return b'{"name":%b,"title":%b,"phase":"%b","prequeue_starts_at":%b,"starts_at":%b,"ends_at":%b}' % (
        json.dumps(event.name).encode(),
        json.dumps(event.title).encode(),
        str(record.phase).encode(),
        *[b"null" if ms is None else b'"%b"' % rfc3339(utc(ms)) for ms in times],
    )
