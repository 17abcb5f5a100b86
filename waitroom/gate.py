"""The gate: what to do with a request.

Decided from its head, what its visitor holds, the room as last seen, and the clock. Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from waitroom.queue.view import RoomState, RoomView
from waitroom.tokens import Ticket


class Lasting(Protocol):
    """A pass or session, as far as the gate cares. Unix times in seconds."""

    expires_at: int
    ends_at: int


class Kind(Enum):
    """What sort of request it is."""

    NAVIGATION = "navigation"  # a person's browser asks for a page: the only sort that takes a place by itself
    PREFLIGHT = "preflight"  # carries no cookies by design and asks for nothing
    OTHER = "other"  # scripts, images, apps, crawlers


class Action(Enum):
    """What to do."""

    FORWARD = "forward"  # under the visitor's pass
    TRANSIT = "transit"  # forward without a session: nobody waits, or it never has to
    RESUME = "resume"  # the pass ran out: ask the store whether its session is still there
    JOIN = "join"  # take a place in the line
    CLAIM = "claim"  # the turn may have come: ask the store, and go in if so
    WAIT = "wait"  # show how it stands, from memory or, where that can't tell, by asking
    HOLD = "hold"  # the store can't be asked: the place is kept, or given later
    ADMIT = "admit"  # the store can't be asked, and the room says: let newcomers in
    CLOSE = "close"  # the store can't be asked, and the room says: turn newcomers away
    REFUSE = "refuse"  # neither pass nor ticket, and not the sort of request that may take a place


def classify(method: bytes, fields: dict[bytes, bytes]) -> Kind:
    """Tells a navigation from the rest, by the fetch metadata where there is any, else by what it accepts."""
    if method == b"OPTIONS":
        asks = b"origin" in fields and b"access-control-request-method" in fields
        return Kind.PREFLIGHT if asks else Kind.OTHER
    if method not in (b"GET", b"POST"):
        return Kind.OTHER
    if b"prefetch" in fields.get(b"sec-purpose", b"") + fields.get(b"purpose", b""):
        return Kind.OTHER  # nobody has asked for the page yet
    mode = fields.get(b"sec-fetch-mode")
    if mode is not None:
        wanted = mode == b"navigate" and fields.get(b"sec-fetch-dest", b"document") not in (b"empty", b"")
        return Kind.NAVIGATION if wanted else Kind.OTHER
    accepted = fields.get(b"accept", b"").lower()
    html = b"text/html" in accepted or b"application/xhtml+xml" in accepted
    return Kind.NAVIGATION if html else Kind.OTHER


def decide(
    kind: Kind,
    pass_: Lasting | None,
    ticket: Ticket | None,
    view: RoomView | None,
    *,
    store_up: bool,
    on_store_error: str,
    now: float,
) -> Action:
    """What to do with a request that no rule lets by.

    Args:
        kind: See `classify`.
        pass_: A pass that we signed for this room and that nobody has ended, perhaps run out.
        ticket: A ticket that we signed for this room, perhaps too old.
        view: The room as last seen, None before the first look.
        store_up: Whether the store answered when last asked.
        on_store_error: What the room does with newcomers otherwise: ``hold``, ``admit`` or ``close``.
        now: Unix time in seconds.
    """
    reachable = store_up and view is not None
    if kind is Kind.PREFLIGHT:
        return Action.TRANSIT
    if pass_ is not None and now < pass_.ends_at:
        if now < pass_.expires_at or not reachable:
            return Action.FORWARD
        return Action.RESUME
    if ticket is not None and not ticket.expired(now):
        if kind is not Kind.NAVIGATION:
            return Action.WAIT
        if not must_look_up(ticket, view):
            return Action.WAIT
        return Action.CLAIM if reachable else Action.HOLD
    if not reachable:
        if on_store_error == "admit":
            return Action.ADMIT if kind is Kind.NAVIGATION else Action.TRANSIT
        if kind is Kind.NAVIGATION:
            return Action.HOLD if on_store_error == "hold" else Action.CLOSE
        return Action.REFUSE
    if kind is Kind.NAVIGATION:
        return Action.JOIN
    return Action.TRANSIT if view is not None and quiet(view) else Action.REFUSE


def must_look_up(ticket: Ticket, view: RoomView | None) -> bool:
    """Whether memory can't tell what became of a ticket: it may have been called, or is of another generation."""
    if view is None or ticket.place <= view.head or ticket.generation != view.generation:
        return True
    return ticket.place in view.invited


def quiet(view: RoomView) -> bool:
    """Whether a newcomer would be let in at once: open, nobody waits, and there is a slot."""
    if view.state is not RoomState.OPEN:
        return False
    return view.method == "passthrough" or (view.waiting == 0 and view.free_slots > 0)
