"""The sessions one worker has seen, by their passes.

A pass is verified once; after that a request with it costs one dict lookup. Updates for the store are collected here
and sent once a second, or immediately if a session ends. Ends on other workers come with the view.
"""

# mypyc: compile

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Final

from waitroom.edge.rooms.ended import EndedSessions
from waitroom.edge.rooms.session import Session, SessionLimits, Throttle
from waitroom.errors import InvalidTokenError
from waitroom.queue.store import SessionChange, SessionOperation
from waitroom.tokens import Pass, Tokens

MAX_CACHED_PASSES = 65536
# A slot outlives its pass by 30 s (scripts/common.lua); it is extended well before that time is used up.
KEEP_INTERVAL_SECONDS: Final = 15.0
# A session that the store considers over may have been released a moment ago; the next view shows it.
UNCONFIRMED_END_SECONDS: Final = 1.0

MAX_NETWORKS: Final = 8  # per session
MANY_NETWORKS: Final = 4  # an honest visitor's phone, home, work and VPN
NETWORK_SECONDS: Final = 600.0
MAX_SHARED: Final = 1000  # sessions


class Tunnel(ABC):
    """An open tunnel (a WebSocket) of a session."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Closes it on both sides."""


class Sessions:
    """One worker's sessions of one room.

    Args:
        tokens: The room's tokens.
        limits: The limits of each session.
        max_seconds: The maximum duration of a session, and by how much holds may extend it.

    Attributes:
        max_seconds: The greatest of these that was in force: sessions of an event may outlast it.
    """

    def __init__(self, tokens: Tokens, limits: SessionLimits | None = None, max_seconds: int = 14_400) -> None:
        self._tokens = tokens
        self._limits = limits or SessionLimits()
        self._in_flight = self._limits.in_flight
        self._per_second = self._limits.per_second
        self.max_seconds = max_seconds
        self._by_pass: dict[bytes, Session] = {}
        self._by_id: dict[int, Session] = {}
        self._bindings: dict[bytes, int] = {}  # for passes that have one
        self._busy: set[Session] = set()
        self._due: dict[int, Session] = {}
        self._operations: list[SessionChange] = []
        self._tunnels: dict[Session, list[Tunnel]] = {}
        self._ended = EndedSessions(2 * max_seconds)
        self._ends_known = True
        self._many_networks: dict[int, Session] = {}

    def raise_max_seconds(self, max_seconds: int) -> None:
        """Takes in the maximum duration in force, if it is greater than any before."""
        if max_seconds > self.max_seconds:
            self.max_seconds = max_seconds
            self._ended.raise_seconds(2 * max_seconds)

    # Sessions by pass.

    def find(self, value: bytes) -> Session | None:
        """The session of a pass, whether over or not; None if it isn't one of our passes."""
        session = self._by_pass.get(value)
        if session is None:
            try:
                found = self._tokens.read_pass(value)
            except InvalidTokenError:
                return None
            session = self._cache_pass(value, found, certain=False)
        return session

    def read(self, value: bytes) -> Session | None:
        """The session of a pass; None if it isn't one of our passes, or the session is over."""
        session = self.find(value)
        return None if session is None or session.over else session

    def binding(self, value: bytes, session: Session) -> int:
        """The binding of a pass, or else of the newest pass of its session; 0 for none."""
        return self._bindings.get(value, session.binding)

    def issue_pass(self, id_: int, *, expires_at: int, ends_at: int, binding: int = 0) -> tuple[Session, str]:
        """A new or continued session, and its pass, which lasts at least as long as earlier ones.

        A known session keeps its end: claiming a ticket twice doesn't extend it.
        """
        known, held = self._by_id.get(id_), 0
        if known is not None and not known.over:
            ends_at = known.ends_at
            expires_at = min(max(expires_at, known.expires_at), ends_at)
            held = ends_at - known.hard_end
            known.prolonged = False
        found = Pass(id_, expires_at, ends_at, held, binding)
        value = self._tokens.sign_pass(found)
        return self._cache_pass(value.encode(), found, certain=True), value

    def grace_pass(self, session: Session) -> str:
        """A pass for a released session, valid until its grace ends."""
        return self._tokens.sign_pass(Pass(session.id, session.expires_at, session.ends_at, 0, session.binding))

    def retry_seconds(self, session: Session, now: float) -> int:
        """The number of seconds after which a client beyond the session's limits may retry."""
        return 1 if session.throttle is None else session.throttle.retry_seconds(now)

    # Requests in flight.

    def allow_request(self, session: Session, now: float, tunnel: bool) -> bool:
        """Whether the session's limits allow one more request at the steady clock's ``now``; counts it if so."""
        throttle = session.throttle
        if throttle is not None and throttle.idle(now):
            throttle = session.throttle = None
            session.second_at, session.second_requests = now, 0
        if throttle is None:
            in_flight = session.tunnels if tunnel else session.requests - session.tunnels
            if now - session.second_at >= 1.0:
                session.second_at, session.second_requests = now, 0
            # If no second has more requests than the rate, a bucket of two seconds' worth would never be empty.
            if in_flight < self._in_flight and session.second_requests < self._per_second - 1:
                session.second_requests += 1
                return True
            throttle = session.throttle = Throttle(session, self.finish, self._limits, session.second_requests, now)
        return throttle.enter(now, tunnel=tunnel)

    def begin(self, session: Session, now: float, tunnel: bool = False) -> bool:
        """Starts a request at the Unix time ``now``. Returns whether the store must now be notified."""
        session.requests += 1
        if tunnel:
            session.tunnels += 1
        self._busy.add(session)
        if now - session.kept_at < KEEP_INTERVAL_SECONDS or session.over or session.id in self._due:
            return False
        self._due[session.id] = session
        return True

    def finish(self, session: Session, tunnel: bool = False) -> None:
        """Ends a request."""
        session.requests -= 1
        if tunnel:
            session.tunnels -= 1
        if session.requests == 0:
            self._busy.discard(session)
            self._evict_unused(session)
        if session.throttle is not None:
            session.throttle.wake()

    def open_tunnel(self, session: Session, tunnel: Tunnel) -> None:
        """Registers an open tunnel; it is cut when the session ends."""
        self._tunnels.setdefault(session, []).append(tunnel)

    def close_tunnel(self, session: Session, tunnel: Tunnel) -> None:
        """Unregisters a tunnel that has ended."""
        tunnels = self._tunnels[session]
        tunnels.remove(tunnel)
        if not tunnels:
            del self._tunnels[session]

    # The end of sessions.

    def enqueue(self, session: Session, operation: SessionOperation, ms: int) -> None:
        """Records an operation for the store, requested by the shop or caused by an expired pass."""
        self._operations.append(SessionChange(operation, session.id, ms))

    def release(self, session: Session, now: float, grace_seconds: int) -> None:
        """Ends a session for the shop, except for reads within ``grace_seconds``. `take_pending` notifies the store."""
        self.enqueue(session, "release", self._pass_ms(session, now))
        self._close(session.id, now, now + grace_seconds if grace_seconds else 0.0)

    def apply_ends(self, ended: Iterable[int], released: Iterable[int], now: float, grace_seconds: int) -> None:
        """Applies ends from the view: such a session no longer admits requests, whether seen here or not."""
        for id_ in released:
            if id_ not in self._ended:  # otherwise it was released here, or ended since
                self._close(id_, now, now + grace_seconds if grace_seconds else 0.0)
        for id_ in ended:
            self._close(id_, now, 0.0)

    def prolong(self, prolonged: Iterable[tuple[int, int]], now: float) -> None:
        """Applies new ends from the view, in milliseconds from now: their passes are renewed with the next response.

        Sessions not seen here need nothing: a pass past its end makes the worker ask the store, which knows.
        """
        for id_, left_ms in prolonged:
            session = self._by_id.get(id_)
            if session is not None and not session.over:
                until = int(now + left_ms / 1000)
                session.expires_at = max(session.expires_at, until)
                session.ends_at = max(session.ends_at, until)
                session.prolonged = True

    def recheck_all(self) -> None:
        """Makes the next request of each session ask the store: the views may have left out ends."""
        for session in self._by_id.values():
            session.kept_at = 0.0

    def sweep(self, now: float, *, store_up: bool) -> bool:
        """Cuts the tunnels of sessions that are over, and forgets ends that no longer matter. Called twice a second.

        Args:
            now: Unix time in seconds.
            store_up: Whether the store can be asked if a session has reached its end: clocks may be wrong or jump.

        Returns:
            Whether it must be asked now; `take_pending` has the questions.
        """
        asked = False
        for session in [one for one in self._tunnels if one.over or now >= one.ends_at]:
            if session.over or not store_up:
                self._close_tunnels(session)
            elif not session.confirming:
                session.confirming = asked = True
                self.enqueue(session, "resume", 0)
        self._ended.forget(now)
        self._ends_known = self._ended.complete(now)
        return asked

    # Updates for the store.

    @property
    def has_operations(self) -> bool:
        """Whether there are updates other than that sessions continue."""
        return bool(self._operations)

    def take_pending(self, now: float) -> Sequence[SessionChange]:
        """Returns the pending updates for the store. If sending fails, return them with `requeue`."""
        for session in self._busy:
            if now - session.kept_at >= KEEP_INTERVAL_SECONDS and not session.over:
                self._due[session.id] = session
        # Nothing extends a session past its end, however long a download or a tunnel of it continues. Whether it has
        # reached its end is for the store to say.
        changes = [
            SessionChange("keep", session.id, round((session.ends_at - now) * 1000))
            if now < session.ends_at
            else SessionChange("resume", session.id, 0)
            for session in self._due.values()
        ]
        for session in self._due.values():
            session.kept_at = now
        changes += self._operations
        self._due = {}
        self._operations = []
        return changes

    def live_sessions(self, now: float) -> Sequence[SessionChange]:
        """Updates that report all live sessions to a store that may have lost them."""
        changes = []
        for session in self._by_id.values():
            until = session.ends_at if session.requests else session.expires_at
            if not session.over and now < until:
                changes.append(SessionChange("restore", session.id, round((until - now) * 1000)))
        return changes

    def requeue(self, changes: Sequence[SessionChange]) -> None:
        """Requeues updates that couldn't be sent: they are sent again with the next ones."""
        for change in changes:
            session = self._by_id.get(change.session)
            if change.operation == "keep" and session is not None and not session.over:
                self._due.setdefault(session.id, session)
        lasting = [change for change in changes if change.operation not in ("keep", "restore")]
        self._operations = lasting + self._operations

    def acknowledge(self, changes: Sequence[SessionChange], results: Sequence[int], now: float) -> None:
        """Applies the store's answer to `take_pending`, see `QueueStore.change_sessions`.

        Sessions that are over no longer admit requests. One that has reached its end here, but not in the store,
        continues to the store's.
        """
        for change, result in zip(changes, results, strict=True):
            session = self._by_id.get(change.session)
            if session is None or session.over:
                continue
            session.confirming = False
            if not result:
                # A session whose pass expired gets no grace: its request asked whether it still exists.
                self._end(session, 0.0 if change.operation == "resume" else now + UNCONFIRMED_END_SECONDS)
            elif change.operation == "resume" and now >= session.ends_at:
                ends_at = math.ceil(now + result / 1000)
                session.hard_end += ends_at - session.ends_at
                session.ends_at = ends_at

    # The networks of sessions.

    def record_network(self, session: Session, network: str, now: float) -> None:
        """Records a new neighbourhood of a session's requests, different from the last."""
        if session.networks is None:
            if session.network in ("", network):
                session.network = network
                return
            session.networks = {session.network: now}
        networks = session.networks
        networks.pop(network, None)
        networks[network] = now  # the most recently seen come last
        if len(networks) > MAX_NETWORKS:
            del networks[next(iter(networks))]
        if len(networks) > MANY_NETWORKS and len(self._many_networks) < MAX_SHARED:
            self._many_networks[session.id] = session

    def find_shared(self, now: float) -> list[int]:
        """The sessions that were recently seen from more than `MANY_NETWORKS` neighbourhoods."""
        shared = []
        for session in list(self._many_networks.values()):
            networks = session.networks or {}
            if sum([now - at < NETWORK_SECONDS for at in networks.values()]) > MANY_NETWORKS:
                shared.append(session.id)
            else:
                del self._many_networks[session.id]
        return shared

    # Internal methods.

    def _pass_ms(self, session: Session, now: float) -> int:
        """How long a pass for it may still be presented: another worker may have granted it a hold."""
        return max(0, round((session.hard_end + self.max_seconds - now) * 1000))

    def _close(self, id_: int, now: float, grace_until: float) -> None:
        self._ended.add(id_, now, grace_until)
        session = self._by_id.get(id_)
        if session is not None:
            self._end(session, grace_until)

    def _end(self, session: Session, grace_until: float) -> None:
        session.over = True
        session.grace_until = grace_until
        session.expires_at = session.ends_at = math.ceil(grace_until)
        self._due.pop(session.id, None)
        self._close_tunnels(session)

    def _close_tunnels(self, session: Session) -> None:
        for tunnel in list(self._tunnels.get(session, ())):
            tunnel.close()

    def _cache_pass(self, value: bytes, found: Pass, *, certain: bool) -> Session:
        session = self._by_id.get(found.session)
        hard_end = found.ends_at - found.held
        if session is None:
            session = self._by_id[found.session] = Session(found.session, found.expires_at, found.ends_at, hard_end)
            if found.session in self._ended:
                self._end(session, self._ended.grace_until(found.session))
            elif not certain and not self._ends_known:
                session.expires_at = 0  # the gate makes the store confirm it, as for an expired pass
        elif not session.over:
            session.expires_at = max(session.expires_at, found.expires_at)
            session.ends_at = max(session.ends_at, found.ends_at)
            session.hard_end = min(session.hard_end, hard_end)
        if value not in self._by_pass:
            session.passes += 1
            self._by_pass[value] = session
            if found.binding:
                self._bindings[value] = session.binding = found.binding
            if len(self._by_pass) > MAX_CACHED_PASSES:
                forgotten = next(iter(self._by_pass))
                oldest = self._by_pass.pop(forgotten)
                self._bindings.pop(forgotten, None)
                oldest.passes -= 1
                self._evict_unused(oldest)
        return session

    def _evict_unused(self, session: Session) -> None:
        """Forgets a session that no pass or request here refers to: updates about it would affect nothing."""
        if session.passes == 0 and session.requests == 0:
            self._by_id.pop(session.id, None)
            self._many_networks.pop(session.id, None)
