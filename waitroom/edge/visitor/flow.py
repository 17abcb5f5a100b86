"""The visitor flow: joining, claiming a turn, looking up a ticket, and the effect of a failing store on each.

Every step returns its outcome as a value. Pages (`responses`, `app`) and the JSON API (`endpoints`) only render it, so
that both give a visitor the same result.
"""

# mypyc: compile

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from waitroom.edge.rooms.room import JoinResult, Room
from waitroom.edge.rooms.session import Session
from waitroom.edge.visitor.arrivals import Arrivals
from waitroom.edge.visitor.context import RequestContext
from waitroom.errors import StoreUnavailable
from waitroom.queue.store import Fate, Visited
from waitroom.queue.view import RoomState
from waitroom.tokens import Ticket


@dataclass(frozen=True, slots=True)
class Admitted:
    """The visitor is admitted: a new or continued session, and its pass."""

    session: Session
    value: str


class Queued:
    """A newcomer has a place in the queue. Not a dataclass, like `JoinResult`.

    Attributes:
        ticket: The ticket.
        position: The position; None while the prequeue is shuffled and hasn't ended.
        state: The room's state.
    """

    __slots__ = ("position", "state", "ticket")

    def __init__(self, ticket: Ticket, position: int | None, state: RoomState) -> None:
        self.ticket = ticket
        self.position = position
        self.state = state


@dataclass(frozen=True, slots=True)
class TicketStatus:
    """The store has looked up a ticket.

    Attributes:
        ticket: The ticket as its holder should store it.
        changed: Whether it differs from the one presented.
        fate: The ticket's status.
        left_ms: How many milliseconds a called visitor has left.
    """

    ticket: Ticket
    changed: bool
    fate: Fate
    left_ms: int


@dataclass(frozen=True, slots=True)
class Delayed:
    """A newcomer must try again later: too many come from one neighbourhood.

    Attributes:
        seconds: The delay.
        headers: Header lines with the signed time of first arrival.
    """

    seconds: int
    headers: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """The room accepts nobody: it is closed or sold out."""

    state: RoomState


@dataclass(frozen=True, slots=True)
class Held:
    """The store is unavailable. The visitor keeps the ticket; without one, a place is given later."""

    ticket: Ticket | None


Outcome = Admitted | Queued | TicketStatus | Delayed | Rejected | Held


class VisitorFlow:
    """Takes the visitors of one worker's rooms through the flow.

    Args:
        arrivals: Decides whether a newcomer may join now.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals

    def before_join(self, context: RequestContext) -> Outcome | None:
        """The outcome for a newcomer who gets no place now; None if the store is to be asked for one."""
        if not context.room.store_up:
            return self.on_store_error(context)
        wait = self._arrivals.retry_after(context)
        if wait:
            context.room.count("join_limited")
            return Delayed(wait, self._arrivals.arrival_headers(context))
        return None

    def on_joined(self, context: RequestContext, joined: asyncio.Future[JoinResult]) -> Outcome:
        """The outcome of `Room.join`."""
        try:
            result = joined.result()
        except StoreUnavailable:
            return self.on_store_error(context)
        return self._join_outcome(context, result)

    async def join(self, context: RequestContext) -> Outcome:
        """Takes a place for a newcomer."""
        outcome = self.before_join(context)
        if outcome is not None:
            return outcome
        try:
            result = await context.room.join()
        except StoreUnavailable:
            return self.on_store_error(context)
        return self._join_outcome(context, result)

    async def visit_or_join(self, context: RequestContext, ticket: Ticket, *, claim: bool) -> Outcome:
        """Looks a ticket up, see `claim` and `look_up`; the holder of one unknown to the store is a newcomer."""
        outcome = await (self.claim(context, ticket) if claim else self.look_up(context, ticket))
        if isinstance(outcome, TicketStatus) and outcome.fate == "unknown":
            context.ticket = None
            return await self.join(context)
        return outcome

    async def claim(self, context: RequestContext, ticket: Ticket) -> Outcome:
        """Admits the holder of a ticket if the turn has come."""
        try:
            visited = await context.room.visit(ticket, claim=True)
        except StoreUnavailable:
            return Held(ticket)
        if visited.fate == "admitted":
            return Admitted(*context.start_claimed_session(ticket, visited))
        return _status(context.room, ticket, visited)

    async def look_up(self, context: RequestContext, ticket: Ticket, *, more: bool = False) -> Outcome:
        """Looks up a ticket whose status memory doesn't show, and admits nobody.

        Args:
            context: The request.
            ticket: The visitor's ticket.
            more: Whether a called visitor asks for more time.
        """
        try:
            visited = await context.room.visit(ticket, claim=False, more=more)
        except StoreUnavailable:
            return Held(ticket)
        return _status(context.room, ticket, visited)

    async def resume(self, context: RequestContext, session: Session) -> Admitted | None:
        """Renews the pass of a session if it still exists; None if it has ended."""
        try:
            alive = await context.room.resume(session, context.now)
        except StoreUnavailable:
            alive = context.now < session.ends_at  # passes stay valid while the store is unavailable
        return Admitted(*context.start_session(session.id, session.ends_at)) if alive else None

    def on_store_error(self, context: RequestContext) -> Outcome:
        """The outcome for a newcomer while the store is unavailable: the room's ``on_store_error``."""
        match context.room.on_store_error:
            case "admit":
                return self.admit_offline(context)
            case "hold":
                return self.held(context)
            case "close":
                return Rejected(RoomState.CLOSED)

    def admit_offline(self, context: RequestContext) -> Outcome:
        """Admits newcomers at the room's rate without the store, and holds the rest."""
        admitted = context.start_offline_session()
        return self.held(context) if admitted is None else Admitted(*admitted)

    def held(self, context: RequestContext) -> Held:
        """The outcome for a visitor while the store is unavailable."""
        return Held(context.ticket)

    def _join_outcome(self, context: RequestContext, result: JoinResult) -> Outcome:
        room = context.room
        if result.admitted:
            room.metrics.wait_seconds.observe(0)
            return Admitted(*context.start_session(result.place))
        if not result.place:
            return Rejected(result.state)
        return Queued(room.ticket_for(result, context.now), result.position, result.state)


def _status(room: Room, ticket: Ticket, visited: Visited) -> TicketStatus:
    renewed = _renewed(room, ticket, visited)
    return TicketStatus(renewed, renewed is not ticket, visited.fate, visited.left_ms)


def _renewed(room: Room, ticket: Ticket, visited: Visited) -> Ticket:
    """The ticket as its holder should store it.

    A looked-up ticket of an older generation is renewed, and so is one that now stands for another place; the wait
    promised at first doesn't apply to that place.
    """
    view = room.view
    generation = ticket.generation if view is None else view.generation
    if visited.moved_to:
        return Ticket(visited.moved_to, generation, ticket.joined_at, ticket.start_position, 0)
    if visited.fate != "waiting" or ticket.generation == generation:
        return ticket
    return Ticket(ticket.place, generation, ticket.joined_at, ticket.start_position, ticket.promised_seconds)
