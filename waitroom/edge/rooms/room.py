"""One room in one worker: its view, its sessions, and its exchange with the store."""

# mypyc: compile

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal

import structlog

from waitroom.bounded import put
from waitroom.budgets import TokenBucket, neighbourhood
from waitroom.edge.client.interfaces import Client
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.message import Request, Response
from waitroom.edge.outcomes import RequestOutcome
from waitroom.edge.rooms.batcher import Batcher
from waitroom.edge.rooms.bypass import BypassRules
from waitroom.edge.rooms.joins import JoinLimiter
from waitroom.edge.rooms.neighbours import Neighbours
from waitroom.edge.rooms.preflight import Preflights
from waitroom.edge.rooms.proofs import Proofs
from waitroom.edge.rooms.session import Session, SessionLimits
from waitroom.edge.rooms.sessions import Sessions
from waitroom.edge.rooms.stock import Stock
from waitroom.edge.rooms.without_pass_budget import WithoutPassBudget
from waitroom.edge.upstream.pool import UpstreamPool
from waitroom.errors import InvalidTokenError, RoomNotOpen, StoreUnavailable
from waitroom.gate import StoreErrorPolicy, needs_lookup
from waitroom.jobs import Jobs
from waitroom.metrics.recorder import RoomMetrics
from waitroom.queue.fields import limits_of
from waitroom.queue.positions import Forecast
from waitroom.queue.store import Joined, QueueStore, SessionChange, Visit, Visited
from waitroom.queue.view import RoomState, RoomView
from waitroom.settings import RoomSettings
from waitroom.shop.proof import Via
from waitroom.store.health import StoreHealth
from waitroom.timing import Clock
from waitroom.tokens import BOUND_TO_AGENT, BOUND_TO_NETWORK, Ticket, Tokens

log = structlog.get_logger()

REFRESH_SECONDS = 0.5
FLUSH_SECONDS = 1.0
MAX_VIEW_GAP_SECONDS: Final = 20.0  # between views; the store lists ended sessions for somewhat longer
MAX_CHANGES_PER_CALL = 1000  # after an outage there are many: in one script they would exceed the timeout of a call
# Bytes of a response that reports a failure by a text: a longer one counts as a success.
MAX_FAILURE_BODY_BYTES: Final = 4096
MAX_REFUSED_KINDS = 20
# Verified tickets kept in a worker: at most about 25 MB, however many visitors wait.
MAX_CACHED_TICKETS = 65536
_BOUND_TO: Final = {"none": 0, "agent": BOUND_TO_AGENT, "network": BOUND_TO_NETWORK}
# A pass is renewed after this share of its life: often enough to outlast a pause, rarely enough to be cheap.
RENEW_SHARE: Final = 0.2
# Sessions that begin while the store is unavailable get numbers above all places.
OFFLINE_SESSIONS = 1 << 62

# The turn of a request beyond its session's limits: it may proceed; it has to ask the limits again, as they no longer
# apply; it waited for too long; its session has ended meanwhile.
Turn = Literal["now", "again", "limited", "ended"]


class JoinResult:
    """The result of a join: a place, or immediately a session; neither if the room accepts nobody.

    The position is None in a prequeue whose places are shuffled.

    Not a dataclass: the constructor of a dataclass isn't compiled, and every newcomer needs one of these.
    """

    __slots__ = ("admitted", "generation", "place", "position", "state")

    def __init__(self, place: int, generation: int, admitted: bool, position: int | None, state: RoomState) -> None:
        self.place = place
        self.generation = generation
        self.admitted = admitted
        self.position = position
        self.state = state


class Room:
    """One room in one worker.

    Args:
        settings: The settings from the file; the values in force come with the view.
        workers: The number of workers that share the bypass rules' caps.
        clock: The clocks.
        health: Logs the store's failures, for all rooms of the process.
        events: The events in the settings, from `waitroom.queue.schedule.file_events`.
        polls_per_second: The gateway's setting, for one worker.
    """

    def __init__(
        self,
        settings: RoomSettings,
        tokens: Tokens,
        store: QueueStore,
        pool: UpstreamPool,
        metrics: RoomMetrics,
        workers: int,
        clock: Clock,
        health: StoreHealth | None = None,
        events: Mapping[str, str] | None = None,
        polls_per_second: int = 5000,
    ) -> None:
        self.clock = clock
        self.settings = settings
        self.name = settings.name
        self.tokens = tokens
        self.pool = pool
        limits = SessionLimits(
            settings.session_requests_in_flight,
            settings.session_requests_per_second / workers,
            settings.upstream_wait_seconds,
        )
        self.sessions = Sessions(tokens, limits, settings.session_max_seconds)
        self.bound_to = _BOUND_TO[settings.bind_pass]
        self.view: RoomView | None = None
        self.viewed_at = datetime.fromtimestamp(clock.unix(), UTC)
        self._refreshed_at = 0.0
        self._reported_in = 0  # the generation to which the live sessions were reported
        self.store_up = False
        self.bypass = BypassRules(settings.bypass, workers, self.count)
        self.join_limiter = JoinLimiter(settings.join_rate, workers)
        self.without_pass = WithoutPassBudget(settings, workers)
        self.neighbours = Neighbours(tokens.digest_key, settings.session_seconds)
        self.proofs = Proofs(settings.shop_secret, settings.name)
        self.preflights = Preflights(
            settings, pool, self.neighbours, partial(self.proof, "preflight"), workers, clock.steady
        )
        self._workers = workers
        self._offline = TokenBucket(settings.rate_per_minute / 60 / workers)
        self.arrival_cookie = f"waitroom_arrival_{settings.name}"
        self.ticket_cookie = f"waitroom_ticket_{settings.name}"
        self.pass_cookie = f"waitroom_pass_{settings.name}"
        self.shown_cookie = f"waitroom_shown_{settings.name}"
        self.ticket_cookie_name = self.ticket_cookie.encode() + b"="
        self.pass_cookie_name = self.pass_cookie.encode() + b"="
        self.shown_cookie_name = self.shown_cookie.encode() + b"="
        self.room_header = b"Waitroom-Room: %b\r\n" % settings.name.encode()
        self.metrics = metrics
        name, self._failure_by_value, value = (settings.failure_header or "").encode().partition(b":")
        self._failure_name, self._failure_value = name, value
        self.failure_text = (settings.failure_text or "").encode()
        self._store = store
        self._health = StoreHealth(log) if health is None else health
        self._limits = limits_of(settings)
        self._events = events
        self._seen: set[int] = set()
        self._tickets: dict[bytes, Ticket] = {}
        self._forecast: Forecast | None = None
        self._forecast_of: RoomView | None = None
        self.stock = Stock(store, polls_per_second * workers, clock.steady)
        self._jobs = Jobs(clock.steady)
        self._sending_ends: asyncio.Task[None] | None = None
        self._sending_stock: asyncio.Task[None] | None = None
        self._joins: Batcher[None, JoinResult] = Batcher(self._join_batch)
        self._visits: Batcher[Visit, Visited] = Batcher(self._visit_batch)

    @property
    def session_max_seconds(self) -> int:
        """The maximum length of a session that starts now; an event may set another one than the settings."""
        return self.settings.session_max_seconds if self.view is None else self.view.session_max_ms // 1000

    @property
    def on_store_error(self) -> StoreErrorPolicy:
        """The response to newcomers while the store is unavailable.

        A room that admitted nobody when it was last seen doesn't begin to: an event may keep it closed.
        """
        if self.settings.method == "reject":
            return "close"
        policy = self.settings.on_store_error
        if policy == "admit" and self.view is not None:
            if self.view.state is RoomState.PREQUEUE:
                return "hold"
            if self.view.state in (RoomState.CLOSED, RoomState.SOLD_OUT):
                return "close"
        return policy

    def count(self, outcome: RequestOutcome) -> None:
        """Counts a request by its outcome."""
        self.metrics.requests[outcome] += 1

    def proof(self, via: Via) -> HeaderBlock:
        """The header of `Proofs` for a request that the gateway sends by itself, or for several visitors."""
        return self.proofs.header(None, via, self.clock.unix())

    def has_failure_header(self, response: Response) -> bool:
        """Whether the shop reports a failed request in the room's ``failure_header``."""
        name = self._failure_name
        if not name:
            return False
        for field in response.headers:
            if field.lower == name and (not self._failure_by_value or field.value == self._failure_value):
                return True
        return False

    def may_have_failure_text(self, response: Response) -> bool:
        """Whether to search a response for the room's ``failure_text``: only small JSON that isn't compressed."""
        length = response.content_length
        if length is None or not len(self.failure_text) <= length <= MAX_FAILURE_BODY_BYTES:
            return False
        is_json = False
        for field in response.headers:
            if field.lower == b"content-encoding":
                return False
            if field.lower == b"content-type":
                kind = field.value.partition(b";")[0].strip().lower()
                is_json = kind == b"application/json" or kind.endswith(b"+json")
        return is_json

    # Batched calls to the store.

    def join(self) -> asyncio.Future[JoinResult]:
        """Takes a place for a newcomer. The result may raise `StoreUnavailable`."""
        return self._joins.submit(None)

    def visit(self, ticket: Ticket, *, claim: bool, more: bool = False) -> asyncio.Future[Visited]:
        """Looks up a ticket whose status memory doesn't show. The result may raise `StoreUnavailable`.

        The visitor must get the answer: a called visitor has less time from then on.
        """
        waited, promised = (self._waited(ticket), ticket.promised_seconds) if claim else (0, 0)
        return self._visits.submit(
            Visit(ticket.place, ticket.generation, claim, more, waited_seconds=waited, promised_seconds=promised)
        )

    def _waited(self, ticket: Ticket) -> int:
        return max(0, round(self.clock.unix() - ticket.joined_at))

    async def resume(self, session: Session, now: float) -> bool:
        """Whether a session whose pass has expired still exists. Raises `StoreUnavailable`."""
        self._require_store()
        self.sessions.enqueue(session, "resume", max(0, round((session.ends_at - now) * 1000)))
        changes = self.sessions.take_pending(now)
        await self._send_changes(changes)
        return not session.over

    async def leave(self, place: int, *, has_pass: bool) -> bool:
        """Gives up a place, or a session whose pass was presented. Raises `StoreUnavailable`."""
        self._require_store()
        try:
            left = await self._store.leave(place, self.sessions.max_seconds * 1000, has_pass=has_pass)
        except StoreUnavailable as error:
            self.store_failed(error)
            raise
        if has_pass:
            self.sessions.apply_ends((place,), (), self.clock.unix(), 0)
        return left

    def release(self, session: Session, now: float) -> None:
        """Frees a session's slot for the shop, here immediately and in the store as soon as it answers."""
        self.sessions.release(session, now, self.settings.release_grace_seconds)
        self._send_operations()

    # From memory.

    def begin_request(self, client: Client, request: Request, session: Session) -> None:
        """Starts a request of a session; `Sessions.finish` ends it."""
        now = self.clock.unix()
        if self.sessions.begin(session, now, request.upgrade is not None):
            self.neighbours.record(neighbourhood(client.visitor), int(now))
        peer = client.peer
        # For most requests it is the same as for the previous one, which is cheaper to check than the address.
        source: str | bytes | None = peer.address if not peer.trusted else _forwarded_source(request)
        if source is not session.source and source != session.source:
            session.source = source
            self.sessions.record_network(session, neighbourhood(peer.client_info(request).address), now)

    async def wait_turn(self, session: Session, request: Request) -> Turn:
        """Waits until the limits of a session allow a request; see `Turn`."""
        throttle, tunnel = session.throttle, request.upgrade is not None
        if throttle is None:
            return "again"
        if not await throttle.wait(tunnel=tunnel):
            self.count("session_limited")
            return "limited"
        if not session.allows(request, self.clock.unix()):
            self.sessions.finish(session, tunnel=tunnel)
            return "ended"
        throttle.take_over(tunnel=tunnel)
        return "now"

    def pass_is_due(self, session: Session, now: float) -> bool:
        """Whether a session's pass has to be renewed at the Unix time ``now``."""
        lasts = self.settings.session_seconds if self.view is None else self.view.session_ms // 1000
        return session.prolonged or session.expires_at - now < (1 - RENEW_SHARE) * lasts

    def read_ticket(self, value: bytes) -> Ticket | None:
        """The ticket, or None if it isn't one of ours. It is verified once, then cached."""
        ticket = self._tickets.get(value)
        if ticket is None:
            try:
                ticket = self.tokens.read_ticket(value)
            except InvalidTokenError:
                return None
            put(self._tickets, value, ticket, MAX_CACHED_TICKETS)
        return ticket

    def mark_seen(self, ticket: Ticket) -> None:
        """Marks a waiting visitor as present."""
        self._seen.add(ticket.place)

    def is_waiting(self, ticket: Ticket) -> bool:
        """Whether memory shows that this ticket is waiting."""
        return not needs_lookup(ticket, self.view)

    def ticket_for(self, result: JoinResult, now: float) -> Ticket:
        """The ticket of a visitor who has just joined at the Unix time ``now``."""
        position = result.position
        eta = None if position is None else self.expected_wait(position)
        promised = 0 if eta is None else max(1, sum(eta) // 2)
        return Ticket(result.place, result.generation, int(now), position or 1, promised)

    def expected_wait(self, position: int) -> tuple[int, int] | None:
        """The range of the wait in seconds from a position, if it is known."""
        view = self.view
        if view is None or view.state is not RoomState.OPEN or not self.store_up or view.recovering:
            return None
        if self._forecast is None or self._forecast_of is not view:
            self._forecast = Forecast(view.rate_per_minute, view.throughput, view.free_slots)
            self._forecast_of = view
        return self._forecast.wait(position)

    def start_session(self, id_: int, now: float, ends_at: int | None = None, *, binding: int) -> tuple[Session, str]:
        """A new or continued session, and its pass.

        Args:
            id_: The session's number.
            now: Unix time in seconds.
            ends_at: When it ends, Unix time in seconds; None for a new session.
            binding: The binding of the pass, see `binding`.
        """
        lasts = self.view.session_ms // 1000 if self.view is not None else self.settings.session_seconds
        if ends_at is None:
            ends_at = int(now) + self.session_max_seconds
        expires_at = min(int(now) + lasts, ends_at)
        return self.sessions.issue_pass(id_, expires_at=expires_at, ends_at=ends_at, binding=binding)

    def start_offline_session(self, now: float, *, binding: int) -> tuple[Session, str] | None:
        """A session without the store, if the room's settings allow that; None if the rate allows none now."""
        rate = self.settings.rate_per_minute if self.view is None else self.view.rate_per_minute
        steady = self.clock.steady()
        self._offline.change_rate(rate / 60 / self._workers, 1.0, steady)
        if not self._offline.take(steady):
            return None
        return self.start_session(OFFLINE_SESSIONS + secrets.randbits(61), now, binding=binding)

    def bindings(self, client: Client, request: Request) -> tuple[int, ...]:
        """The possible bindings of a pass in this request, the one for a new pass first; see ``bind_pass``."""
        if self.bound_to == BOUND_TO_AGENT:
            value = request.fields.get(b"user-agent", b"")
        else:
            value = neighbourhood(client.peer.client_info(request).address).encode()
        return self.tokens.bindings(self.bound_to, value)

    def binding(self, client: Client, request: Request) -> int:
        """The binding of a new pass; 0 for none."""
        return self.bindings(client, request)[0] if self.bound_to else 0

    def observe_wait(self, ticket: Ticket, now: float) -> None:
        """Records how long a visitor waited, compared with the promised wait."""
        waited = max(0.0, now - ticket.joined_at)
        self.metrics.wait_seconds.observe(waited)
        if ticket.promised_seconds:
            self.metrics.eta_error_seconds.observe(abs(waited - ticket.promised_seconds))

    def record_refused(self, kind: str, now: float) -> None:
        """Records a kind of request that was refused for lack of a pass, for a hint to operators."""
        put(self.metrics.refused, kind, now, MAX_REFUSED_KINDS)

    def send_urgent_stock(self) -> None:
        """Sends the store what the shop has reported about its stock if that can't wait for the next flush."""
        if self._sending_stock is None and self.stock.urgent:
            self._sending_stock = self._jobs.start("reports of the stock", self._send_stock)

    # Periodic tasks of the worker.

    async def refresh(self) -> None:
        """Refreshes the view; opens the room if the store doesn't know it."""
        sent = self.clock.steady()
        try:
            try:
                view = await self._store.view(self.view)
            except RoomNotOpen:
                await self._store.open(self._limits, self._events)
                view = await self._store.view()
        except StoreUnavailable as error:
            self.store_failed(error)
            return
        last_refresh, self._refreshed_at = self._refreshed_at, self.clock.steady()
        if self.view is not None and self._refreshed_at - last_refresh > MAX_VIEW_GAP_SECONDS:
            self.sessions.recheck_all()
        generation, self.view = self._reported_in, view
        self.sessions.raise_max_seconds(self.session_max_seconds)
        if view.ended or view.released:
            grace = self.settings.release_grace_seconds
            self.sessions.apply_ends(view.ended, view.released, self.clock.unix(), grace)
        if view.wall_ms:
            self.clock.observe(view.wall_ms / 1000, sent, self._refreshed_at)
        if view.prolonged:
            self.sessions.prolong(view.prolonged, self.clock.unix())
        self.viewed_at = datetime.fromtimestamp(self.clock.unix(), UTC)
        self.stock.observe(view)
        self.store_up = True
        self._health.answered(self.name)
        if generation != view.generation:
            await self._report_sessions(view.generation)

    async def _report_sessions(self, generation: int) -> None:
        """Reports all live sessions to a store of another generation, before anybody is called to their slots."""
        try:
            await self._send_changes(self.sessions.live_sessions(self.clock.unix()))
        except StoreUnavailable:
            return  # already logged; the next refresh tries again
        self._reported_in = generation

    async def flush(self) -> None:
        """Sends the store the visitors seen, the sessions to keep, and the shop's reports."""
        if not self.store_up:
            return
        seen, self._seen = self._seen, set()
        try:
            if seen:
                await self._store.seen(seen)
            changes = self.sessions.take_pending(self.clock.unix())
            if changes:
                await self._send_changes(changes)
            await self.stock.send()
        except StoreUnavailable as error:
            self._seen |= seen
            self.store_failed(error)
        except BaseException:
            self._seen |= seen
            raise

    def sweep(self) -> None:
        """Ends expired sessions and tunnels. Called twice a second."""
        now = self.clock.unix()
        if self.sessions.sweep(now, store_up=self.store_up):
            self._send_operations()
        self.metrics.shared_sessions = self.sessions.find_shared(now)

    async def close(self) -> None:
        """Sends all pending updates, and ends."""
        sending = [task for task in (self._sending_ends, self._sending_stock) if task is not None]
        if sending:
            await asyncio.wait(sending)
        await self._jobs.close()
        await self.flush()
        await self._joins.close()
        await self._visits.close()
        await self.preflights.close()
        self.pool.close()

    def store_failed(self, error: StoreUnavailable) -> None:
        """Records that the store didn't answer; it isn't called again until a refresh has reached it."""
        self.metrics.store_errors += 1
        self.store_up = False
        self._health.failed(self.name, error)

    def _require_store(self) -> None:
        if not self.store_up:
            raise StoreUnavailable("the store is unavailable")

    def _send_operations(self) -> None:
        if self._sending_ends is None:
            self._sending_ends = self._jobs.start("ends of sessions", self._send_ends)

    async def _send_ends(self) -> None:
        """Sends the store what can't wait for the next flush: sessions that ended here, and those that may have.

        The other workers learn of the ends with their next view.
        """
        try:
            while self.store_up and self.sessions.has_operations:
                await self._send_changes(self.sessions.take_pending(self.clock.unix()))
        except StoreUnavailable:
            pass  # already logged; the next flush tries again
        finally:
            self._sending_ends = None

    async def _send_changes(self, changes: Sequence[SessionChange]) -> None:
        for start in range(0, len(changes), MAX_CHANGES_PER_CALL):
            piece = changes[start : start + MAX_CHANGES_PER_CALL]
            try:
                alive = await self._store.change_sessions(piece)
            except BaseException as error:
                self.sessions.requeue(changes[start:])
                if isinstance(error, StoreUnavailable):
                    self.store_failed(error)
                raise
            self.sessions.acknowledge(piece, alive, self.clock.unix())

    async def _send_stock(self) -> None:
        try:
            while self.store_up and self.stock.urgent:
                await self.stock.send()
        except StoreUnavailable as error:
            self.store_failed(error)  # the flush tries again
        finally:
            self._sending_stock = None

    async def _join_batch(self, questions: Sequence[None]) -> Sequence[JoinResult]:
        self._require_store()  # it may have failed the calls before this one
        count = len(questions)
        try:
            joined = await self._store.join(count)
        except StoreUnavailable as error:
            self.store_failed(error)
            raise
        return [self._join_result(joined, index, count) for index in range(count)]

    def _join_result(self, joined: Joined, index: int, count: int) -> JoinResult:
        if not joined.first_place:
            return JoinResult(0, joined.generation, False, 0, joined.state)
        admitted = index < joined.admitted
        position: int | None = None
        if joined.state is not RoomState.PREQUEUE or not self._is_shuffled():
            # Newcomers are at the end, in order: the number behind each is known exactly.
            position = max(1, joined.waiting - (count - 1 - index))
        return JoinResult(joined.first_place + index, joined.generation, admitted, position, joined.state)

    def _is_shuffled(self) -> bool:
        """Whether the event's prequeue is shuffled. It may have opened since the last view."""
        event = None if self.view is None else self.view.event
        return event is not None and event.event.method == "random"

    async def _visit_batch(self, visits: Sequence[Visit]) -> Sequence[Visited]:
        self._require_store()
        try:
            return await self._store.visit(visits)
        except StoreUnavailable as error:
            self.store_failed(error)
            raise


def _forwarded_source(request: Request) -> bytes | None:
    """The header in which a trusted proxy names the source of a request."""
    fields = request.fields
    return fields.get(b"x-forwarded-for") or fields.get(b"forwarded")
