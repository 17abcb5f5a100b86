"""The gate: what to do with a request.

Decided from its head, what its visitor holds, the room as last seen, and the clock. Pure.
"""

# mypyc: compile

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol

from waitroom.queue.view import RoomState, RoomView
from waitroom.tokens import Ticket


class Lasting(Protocol):
    """A pass or session, as far as the gate cares. Unix times in seconds."""

    expires_at: int
    ends_at: int


class Kind(Enum):
    """What sort of request it is."""

    NAVIGATION = "navigation"  # a person's browser asks for a page: the only sort that takes a place by itself
    EMBEDDED = "embedded"  # a page for a frame on another origin, which shows no waiting page and keeps no cookie
    PREFETCH = "prefetch"  # a page that nobody has asked for yet
    PREFLIGHT = "preflight"  # carries no cookies by design and asks for nothing
    OTHER = "other"  # scripts, images, apps, crawlers


class Action(Enum):
    """What to do."""

    FORWARD = "forward"  # under the visitor's pass
    TRANSIT = "transit"  # forward without a session: the room only counts
    WITHOUT_PASS = "without_pass"  # forward without a session, within the budget for such requests
    PREFLIGHT = "preflight"  # answer from memory or, within its budget, by asking the shop
    RESUME = "resume"  # the pass ran out: ask the store whether its session is still there
    JOIN = "join"  # take a place in the line
    CLAIM = "claim"  # the turn may have come: ask the store, and go in if so
    WAIT = "wait"  # show how it stands, from memory or, where that can't tell, by asking
    HOLD = "hold"  # the store can't be asked: the place is kept, or given later
    ADMIT = "admit"  # the store can't be asked, and the room says: let newcomers in, at its rate
    CLOSE = "close"  # the store can't be asked, and the room says: turn newcomers away
    LATER = "later"  # a prefetch without a pass: make the browser ask again on the click
    REFUSE = "refuse"  # neither pass nor ticket, and not the sort of request that may take a place


# How browsers and apps mark what nobody has asked for yet: Chromium, Firefox, Safari and in-app browsers.
_SPECULATION: Final = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
_SPECULATIVE: Final = (b"prefetch", b"prerender", b"preview", b"preload")
_FRAMES: Final = frozenset((b"iframe", b"frame", b"embed", b"object", b"fencedframe"))


def classify(method: bytes, fields: Mapping[bytes, bytes]) -> Kind:
    """Tells a navigation from the rest, by the fetch metadata where there is any, else by what it accepts.

    Args:
        method: As sent.
        fields: By lower-case name.
    """
    if method == b"OPTIONS":
        asks = b"origin" in fields and b"access-control-request-method" in fields
        bare = b"transfer-encoding" not in fields and fields.get(b"content-length", b"0") == b"0"
        return Kind.PREFLIGHT if asks and bare else Kind.OTHER
    if method not in (b"GET", b"POST"):
        return Kind.OTHER
    for name in _SPECULATION:
        value = fields.get(name)
        if value is not None and _speculative(value):
            return Kind.PREFETCH
    mode = fields.get(b"sec-fetch-mode")
    if mode is not None:
        # Only a browser's own navigation has this mode, also when a service worker passes it on with an empty
        # destination.
        if mode != b"navigate":
            return Kind.OTHER
        framed = fields.get(b"sec-fetch-dest") in _FRAMES
        framed = framed and fields.get(b"sec-fetch-site", b"same-origin") != b"same-origin"
        return Kind.EMBEDDED if framed else Kind.NAVIGATION
    accepted = fields.get(b"accept", b"").lower()
    html = b"text/html" in accepted or b"application/xhtml+xml" in accepted
    return Kind.NAVIGATION if html else Kind.OTHER


def _speculative(value: bytes) -> bool:
    lower = value.lower()
    return any(word in lower for word in _SPECULATIVE)


def decide(
    kind: Kind,
    safe: bool,
    pass_: Lasting | None,
    ticket: Ticket | None,
    view: RoomView | None,
    *,
    store_up: bool,
    on_store_error: str,
    without_pass: str,
    now: float,
) -> Action:
    """What to do with a request that no rule lets by.

    Args:
        kind: See `classify`.
        safe: Whether it asks for something and changes nothing: GET or HEAD, and no change of protocol.
        pass_: A pass that we signed for this room and that nobody has ended, perhaps run out.
        ticket: A ticket that we signed for this room, perhaps too old.
        view: The room as last seen, None before the first look.
        store_up: Whether the store answered when last asked.
        on_store_error: What the room does with newcomers otherwise: ``hold``, ``admit`` or ``close``.
        without_pass: What requests without a pass that are no navigation may do: ``refuse``, ``safe`` or ``all``.
        now: Unix time in seconds.
    """
    reachable = store_up and view is not None
    if kind is Kind.PREFLIGHT:
        return Action.PREFLIGHT
    if pass_ is not None and now < pass_.ends_at:
        if now < pass_.expires_at or not reachable:
            return Action.FORWARD
        return Action.RESUME
    if kind is Kind.PREFETCH:
        return Action.LATER
    if ticket is not None and not ticket.expired(now):
        if kind is not Kind.NAVIGATION:
            return Action.WAIT
        if not must_look_up(ticket, view):
            return Action.WAIT
        return Action.CLAIM if reachable else Action.HOLD
    if kind is Kind.NAVIGATION:
        if reachable:
            return Action.JOIN
        match on_store_error:
            case "admit":
                return Action.ADMIT
            case "hold":
                return Action.HOLD
            case _:
                return Action.CLOSE
    return _without_pass(safe, view, reachable, on_store_error, without_pass)


def _without_pass(safe: bool, view: RoomView | None, reachable: bool, on_store_error: str, without_pass: str) -> Action:
    """The action for a request that has neither pass nor ticket and takes no place."""
    if view is not None and view.method == "passthrough" and view.state is RoomState.OPEN:
        return Action.TRANSIT
    nobody_waits = quiet(view) if reachable and view is not None else on_store_error == "admit"
    allowed = without_pass == "all" or (without_pass == "safe" and safe)
    return Action.WITHOUT_PASS if nobody_waits and allowed else Action.REFUSE


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
