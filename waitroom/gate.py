"""The gate: decides how to handle a request.

The decision depends on the request head, the visitor's tokens, the last known view of the room, and the clock. Pure.
"""

# mypyc: compile

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Literal, Protocol

from waitroom.queue.view import RoomState, RoomView
from waitroom.tokens import Ticket

# The values of the room settings ``on_store_error`` and ``without_pass``.
StoreErrorPolicy = Literal["hold", "admit", "close"]
WithoutPassPolicy = Literal["refuse", "safe", "all"]


class Expiring(Protocol):
    """The part of a pass or session that the gate needs. Unix times in seconds."""

    expires_at: int
    ends_at: int


class Kind(Enum):
    """The kinds of request."""

    NAVIGATION = "navigation"  # a browser requests a page: the only kind that takes a place by itself
    EMBEDDED = "embedded"  # a page for a frame on another origin, which shows no waiting page and keeps no cookie
    PREFETCH = "prefetch"  # a page that nobody has asked for yet
    PREFLIGHT = "preflight"  # carries no cookies by design and asks for nothing
    OTHER = "other"  # scripts, images, apps, crawlers


class Action(Enum):
    """The gate's decision."""

    FORWARD = "forward"  # with the visitor's pass
    PASS_THROUGH = "pass_through"  # forward without a session: the room only counts
    WITHOUT_PASS = "without_pass"  # forward without a session, within the budget for such requests
    PREFLIGHT = "preflight"  # answer from the cache or, within its budget, by asking the shop
    RESUME = "resume"  # the pass has expired: ask the store whether its session still exists
    JOIN = "join"  # take a place in the queue
    CLAIM = "claim"  # the turn may have come: ask the store, and admit the visitor if so
    WAIT = "wait"  # respond with the status, from memory or, if that isn't enough, from the store
    HOLD = "hold"  # the store is unavailable: the visitor keeps the place, or gets one later
    ADMIT = "admit"  # the store is unavailable, and the room's setting admits newcomers, at its rate
    REJECT = "reject"  # the store is unavailable, and the room's setting turns newcomers away
    DEFER = "defer"  # a prefetch without a pass: make the browser ask again on the click
    REFUSE = "refuse"  # neither pass nor ticket, and not a kind of request that may take a place


# How browsers and apps mark speculative requests: Chromium, Firefox, Safari and in-app browsers.
_SPECULATION_HEADERS: Final = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
_SPECULATION_VALUES: Final = (b"prefetch", b"prerender", b"preview", b"preload")
_FRAMES: Final = frozenset((b"iframe", b"frame", b"embed", b"object", b"fencedframe"))


def classify(method: bytes, fields: Mapping[bytes, bytes]) -> Kind:
    """Distinguishes navigations from other requests: by fetch metadata if present, else by the Accept header.

    Args:
        method: As sent.
        fields: The header fields by lower-case name.
    """
    if method == b"OPTIONS":
        asks = b"origin" in fields and b"access-control-request-method" in fields
        bare = b"transfer-encoding" not in fields and fields.get(b"content-length", b"0") == b"0"
        return Kind.PREFLIGHT if asks and bare else Kind.OTHER
    if method not in (b"GET", b"POST"):
        return Kind.OTHER
    for name in _SPECULATION_HEADERS:
        value = fields.get(name)
        if value is not None and _is_speculative(value):
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


def _is_speculative(value: bytes) -> bool:
    lower = value.lower()
    return any(word in lower for word in _SPECULATION_VALUES)


def decide(
    kind: Kind,
    safe: bool,
    pass_: Expiring | None,
    ticket: Ticket | None,
    view: RoomView | None,
    *,
    store_up: bool,
    on_store_error: StoreErrorPolicy,
    without_pass: WithoutPassPolicy,
    now: float,
) -> Action:
    """The action for a request that no rule lets through.

    Args:
        kind: See `classify`.
        safe: Whether the request is safe: GET or HEAD, without a protocol change.
        pass_: A pass that we signed for this room and that has not been ended; it may have expired.
        ticket: A ticket that we signed for this room; it may be too old.
        view: The last view of the room, None before the first.
        store_up: Whether the store answered when last asked.
        on_store_error: The room's setting for newcomers while the store is down: ``hold``, ``admit`` or ``close``.
        without_pass: The room's setting for other requests without a pass: ``refuse``, ``safe`` or ``all``.
        now: Unix time in seconds.
    """
    reachable = store_up and view is not None
    if kind is Kind.PREFLIGHT:
        return Action.PREFLIGHT
    if pass_ is not None:
        if now < pass_.expires_at or (now < pass_.ends_at and not reachable):
            return Action.FORWARD
        if reachable:  # also past its end: clocks may be wrong or jump, and the store has one that doesn't
            return Action.RESUME
    if kind is Kind.PREFETCH:
        return Action.DEFER
    if ticket is not None and not is_void(ticket, view, now):
        if kind is not Kind.NAVIGATION:
            return Action.WAIT
        if not needs_lookup(ticket, view):
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
            case "close":
                return Action.REJECT
    return _without_pass(safe, view, reachable, on_store_error, without_pass)


def _without_pass(
    safe: bool,
    view: RoomView | None,
    reachable: bool,
    on_store_error: StoreErrorPolicy,
    without_pass: WithoutPassPolicy,
) -> Action:
    """The action for a request that has neither pass nor ticket and takes no place."""
    if view is not None and view.method == "passthrough" and view.state is RoomState.OPEN:
        return Action.PASS_THROUGH
    nobody_waits = has_capacity(view) if reachable and view is not None else on_store_error == "admit"
    allowed = without_pass == "all" or (without_pass == "safe" and safe)
    return Action.WITHOUT_PASS if nobody_waits and allowed else Action.REFUSE


def is_void(ticket: Ticket, view: RoomView | None, now: float) -> bool:
    """Whether a ticket is too old. In the generation that issued it the store knows; no clock decides that."""
    return ticket.expired(now) and (view is None or ticket.generation != view.generation)


def needs_lookup(ticket: Ticket, view: RoomView | None) -> bool:
    """Whether a ticket needs a store lookup: it may have been called, or is of another generation."""
    if view is None or ticket.generation != view.generation:
        return True
    if view.draws.rank(ticket.place) <= view.high_water_mark:
        return True
    return ticket.place in view.invited


def has_capacity(view: RoomView) -> bool:
    """Whether a newcomer would be admitted immediately: the room is open, nobody waits, and a slot is free."""
    if view.state is not RoomState.OPEN:
        return False
    if view.recovering and view.method != "passthrough":
        return False
    return view.method == "passthrough" or (view.waiting == 0 and view.free_slots > 0)
