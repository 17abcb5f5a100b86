"""A visitor's status, and its JSON. Pure."""

# mypyc: compile

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

from waitroom.edge.pages.messages import PageKind
from waitroom.edge.visitor.shown import PositionReason
from waitroom.queue.positions import LONGEST_POLL_SECONDS, SHORTEST_POLL_SECONDS, poll_after
from waitroom.queue.store import Fate
from waitroom.queue.view import RoomState, RoomView

HELD_POLL_SECONDS: Final = 12

# The contract's states of a visitor.
VisitorState = Literal["waiting", "prequeue", "paused", "called", "admitted", "sold_out", "closed", "unknown"]

# For visitors in the queue: the page and the state, by the room's state.
_STATUS_BY_ROOM_STATE: Final[dict[RoomState, tuple[PageKind, VisitorState]]] = {
    RoomState.OPEN: (PageKind.WAITING, "waiting"),
    RoomState.PREQUEUE: (PageKind.PREQUEUE, "prequeue"),
    RoomState.PAUSED: (PageKind.PAUSED, "paused"),
    RoomState.CLOSED: (PageKind.CLOSED, "closed"),
    RoomState.SOLD_OUT: (PageKind.SOLD_OUT, "sold_out"),
}
_WITHOUT_VIEW: Final = _STATUS_BY_ROOM_STATE[RoomState.OPEN]


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
        message: The operator's message.
        remaining: Units left, as reported by the shop.
        updated_at: The time of these numbers; aware.
        place: The place of a waiting visitor, or 0.
        position_reason: Why the position is larger than one shown before; empty if it isn't.
        likely_sold_out: Whether nothing is likely to be left when the turn comes; None if that is unknown.
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
        message: str,
        remaining: int | None,
        updated_at: datetime,
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
        self.message = message
        self.remaining = remaining
        self.updated_at = updated_at
        self.place = place
        self.position_reason = position_reason
        self.likely_sold_out: bool | None = None

    def json(self, room: str) -> bytes:
        """The body of ``/.waitroom/status``."""
        position, waiting, eta = self.position, self.waiting, self.eta
        return (
            b'{"room":"%b","state":"%b","position":%b,"waiting":%b,"eta_seconds":%b,"poll_after":%d,"claim_by":%b,'
            b'"position_reason":%b,%b'
        ) % (
            room.encode(),
            self.state.encode(),
            b"null" if position is None else b"%d" % position,
            b"null" if waiting is None else b"%d" % waiting,
            b"null" if eta is None else b"[%d,%d]" % eta,
            self.poll_after,
            b"null" if self.claim_by is None else b'"%b"' % rfc3339(self.claim_by),
            b'"%b"' % self.position_reason.encode() if self.position_reason else b"null",
            _common_json(self.message, self.remaining, self.updated_at),
        )


def build_status(
    fate: Fate,
    view: RoomView | None,
    viewed_at: datetime,
    *,
    position: int | None,
    start_position: int | None = None,
    eta: tuple[int, int] | None = None,
    claim_left_ms: int = 0,
    store_up: bool,
    jitter: float,
) -> VisitorStatus:
    """Builds a visitor's status.

    Args:
        fate: The ticket's status in the store.
        view: The last view of the room.
        viewed_at: The time of the view; aware.
        position: The ticket's position, for a waiting one.
        start_position: Its first position.
        eta: The range of the wait from its position.
        claim_left_ms: How long a called visitor has left.
        store_up: Whether the view is fresh.
        jitter: Uniform in [0, 1), so that visitors don't poll in step.
    """
    state: VisitorState = fate
    kind: PageKind | None = None
    claim_by = None
    after = SHORTEST_POLL_SECONDS
    if fate == "waiting":
        kind, state = _WITHOUT_VIEW if view is None else _STATUS_BY_ROOM_STATE[view.state]
        if state == "waiting":
            if store_up:
                after = poll_after(eta, position or 1, jitter)
            else:
                # Nothing changes until the store is back: frequent polls are of no use.
                kind = PageKind.HELD
                after = round(HELD_POLL_SECONDS * (0.5 + jitter / 2))
        else:
            after = round(LONGEST_POLL_SECONDS * (0.5 + jitter / 2))
            eta = None
    else:
        position = start_position = eta = None
        if fate == "called":
            kind = PageKind.CALLED
            claim_by = viewed_at + timedelta(milliseconds=claim_left_ms)
            if view is not None and view.state in (RoomState.CLOSED, RoomState.SOLD_OUT):
                kind, state = _STATUS_BY_ROOM_STATE[view.state]
                claim_by = None
    return VisitorStatus(
        state=state,
        kind=kind,
        position=position,
        waiting=None if view is None else max(view.waiting, position or 0),
        start_position=start_position,
        eta=eta,
        poll_after=after,
        claim_by=claim_by,
        message="" if view is None else view.message,
        remaining=None if view is None else view.remaining,
        updated_at=viewed_at,
    )


@lru_cache(maxsize=64)
def rfc3339(at: datetime) -> bytes:
    """A time in the format for JSON and HTML, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()


@lru_cache(maxsize=64)
def _common_json(message: str, remaining: int | None, updated_at: datetime) -> bytes:
    """The rest of the JSON: the part common to all visitors who poll between two views of the room."""
    left = b"null" if remaining is None else b"%d" % remaining
    text = json.dumps(message).encode()
    return b'"message":%b,"remaining":%b,"updated_at":"%b"}' % (text, left, rfc3339(updated_at))
