"""How it stands with a visitor, and the JSON that says so. Pure."""

# mypyc: compile

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from waitroom.edge.pages.messages import PageKind
from waitroom.queue.positions import LONGEST_POLL_SECONDS, SHORTEST_POLL_SECONDS, poll_after
from waitroom.queue.store import Fate
from waitroom.queue.view import RoomState, RoomView

HELD_POLL_SECONDS: Final = 12

# What the contract calls the states of a visitor, for those who are in line while the room is in such a state.
_WHILE_WAITING = {
    RoomState.OPEN: (PageKind.WAITING, "waiting"),
    RoomState.PAUSED: (PageKind.PAUSED, "paused"),
    RoomState.CLOSED: (PageKind.CLOSED, "closed"),
    RoomState.SOLD_OUT: (PageKind.SOLD_OUT, "sold_out"),
}
_BEFORE_THE_FIRST_LOOK: Final = _WHILE_WAITING[RoomState.OPEN]


@dataclass(slots=True)
class Standing:
    """What a visitor is told.

    Attributes:
        state: One of the contract's states.
        kind: Which page says it; None where none does.
        position, waiting, start_position: Numbers in the line, or None where they don't apply or can't be known.
        eta: The range of the wait in seconds, or None.
        poll_after: Seconds until they should ask again.
        claim_by: Until when a called one may go in.
        message: The operator's.
        remaining: Units left, as the shop told.
        updated_at: When this was known to be true; aware.
    """

    state: str
    kind: PageKind | None
    position: int | None
    waiting: int | None
    start_position: int | None
    eta: tuple[int, int] | None
    poll_after: int
    claim_by: datetime | None
    message: str
    remaining: int | None
    updated_at: datetime

    def said(self, state: str, kind: PageKind | None) -> Standing:
        """The same numbers under another state."""
        return replace(self, state=state, kind=kind)

    def json(self, room: str) -> bytes:
        """The body of ``/.waitroom/status``."""
        position, waiting, eta = self.position, self.waiting, self.eta
        return (
            b'{"room":"%b","state":"%b","position":%b,"waiting":%b,"eta_seconds":%b,"poll_after":%d,"claim_by":%b,%b'
        ) % (
            room.encode(),
            self.state.encode(),
            b"null" if position is None else b"%d" % position,
            b"null" if waiting is None else b"%d" % waiting,
            b"null" if eta is None else b"[%d,%d]" % eta,
            self.poll_after,
            b"null" if self.claim_by is None else b'"%b"' % rfc3339(self.claim_by),
            _told_to_all(self.message, self.remaining, self.updated_at),
        )


def stand(
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
) -> Standing:
    """What to tell a visitor.

    Args:
        fate: What became of the ticket.
        view: The room as last seen.
        viewed_at: When that was; aware.
        position: Where the ticket stands, for a waiting one.
        start_position: Where it stood at first.
        eta: The range of the wait from there.
        claim_left_ms: How long a called one has left.
        store_up: Whether the view is fresh.
        jitter: Uniform in [0, 1), so that visitors don't come in step.
    """
    state: str = fate
    kind: PageKind | None = None
    claim_by = None
    after = SHORTEST_POLL_SECONDS
    if fate == "waiting":
        kind, state = _BEFORE_THE_FIRST_LOOK if view is None else _WHILE_WAITING[view.state]
        if state == "waiting":
            if store_up:
                after = poll_after(eta, position or 1, jitter)
            else:
                # Nothing changes until the store is back: there is no use in asking often.
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
                kind, state = _WHILE_WAITING[view.state]
                claim_by = None
    return Standing(
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
    """A moment as JSON and HTML want it, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()


@lru_cache(maxsize=64)
def _told_to_all(message: str, remaining: int | None, updated_at: datetime) -> bytes:
    """The rest of the JSON: what everybody is told who asks between two looks at the room."""
    left = b"null" if remaining is None else b"%d" % remaining
    text = json.dumps(message).encode()
    return b'"message":%b,"remaining":%b,"updated_at":"%b"}' % (text, left, rfc3339(updated_at))
