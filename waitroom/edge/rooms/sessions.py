"""The sessions one worker has seen, by the passes that stand for them.

A pass is verified once; after that a request under it costs a look into a dict. What the store must know of them is
collected here and sent once a second, or immediately where a session ends. What ended elsewhere comes with the view.
"""

# mypyc: compile

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from waitroom.edge.http.message import Request
from waitroom.edge.rooms.ended import EndedSessions
from waitroom.edge.rooms.throttle import SessionLimits, Throttle
from waitroom.errors import BadToken
from waitroom.queue.store import SessionChange, SessionOperation
from waitroom.tokens import Pass, Tokens

MOST_KEPT = 65536
# A slot outlives its pass by 30 s (scripts/common.lua); it is moved on well before that is used up.
LONGEST_UNKEPT_SECONDS: Final = 15.0
# What the store calls over may have been released a moment ago; the next view tells.
UNSURE_SECONDS: Final = 1.0

NETWORKS_KEPT: Final = 8  # of a session
MANY_NETWORKS: Final = 4  # an honest visitor's phone, home, work and VPN
NETWORK_SECONDS: Final = 600.0
MOST_SHARED: Final = 1000  # sessions


class Tunnel(ABC):
    """An open tunnel (a WebSocket) of a session."""

    __slots__ = ()

    @abstractmethod
    def cut(self) -> None:
        """Closes it on both sides."""


@dataclass(slots=True, eq=False)
class Session:
    """An admitted visitor.

    Attributes:
        id: The session's number, for the store and the shop.
        expires_at, ends_at: Unix times in seconds: of the newest pass, and of the session's end, holds included.
        hard_end: The end without holds, Unix time in seconds.
        kept_at: When the store was last told of activity, Unix time; 0 for never.
        passes: How many that stand for it are remembered.
        requests: How many are under way, tunnels included; an open WebSocket or a long download is activity.
        tunnels: How many of them are tunnels, or ask for one.
        over: Whether it was released or ended.
        grace_until: Until when its reads still reach the shop although it is over, Unix time; 0 for not at all.
        binding: What the newest of its passes is bound to; see `Pass`.
        second_at, second_requests: When the current second began by the steady clock, and the requests since.
        throttle: Holds its requests back; None while it stays below its bounds.
        source: Where its newest request came from, as its peer or a trusted proxy's header has it.
        network: The first neighbourhood it was seen from.
        networks: Those it was seen from lately, and when, once there are several.
    """

    id: int
    expires_at: int
    ends_at: int
    hard_end: int
    kept_at: float = 0.0
    passes: int = 0
    requests: int = 0
    tunnels: int = 0
    over: bool = False
    grace_until: float = 0.0
    binding: int = 0
    second_at: float = 0.0
    second_requests: int = 0
    throttle: Throttle | None = None
    source: str | bytes | None = None
    network: str = ""
    networks: dict[str, float] | None = None

    def lets_in(self, request: Request, now: float) -> bool:
        """Whether a request that was let in may still begin: it has waited, and the session may have ended since."""
        if not self.over:
            return now < self.ends_at
        return now < self.grace_until and request.method in (b"GET", b"HEAD") and request.upgrade is None


class Sessions:
    """One worker's sessions of one room.

    Args:
        tokens: The room's.
        limits: What one of them may send.
        max_seconds: How long one lasts at the most, and by how much holds may prolong it.
    """

    def __init__(self, tokens: Tokens, limits: SessionLimits | None = None, max_seconds: int = 14_400) -> None:
        self._tokens = tokens
        self._limits = limits or SessionLimits()
        self._in_flight = self._limits.in_flight
        self._per_second = self._limits.per_second
        self._max_seconds = max_seconds
        self._by_pass: dict[bytes, Session] = {}
        self._by_id: dict[int, Session] = {}
        self._bindings: dict[bytes, int] = {}  # of the passes that have one
        self._busy: set[Session] = set()
        self._due: dict[int, Session] = {}
        self._commands: list[SessionChange] = []
        self._tunnels: dict[Session, list[Tunnel]] = {}
        self._ended = EndedSessions(2 * max_seconds)
        self._ends_known = True
        self._many_networks: dict[int, Session] = {}

    # By passes.

    def find(self, value: bytes) -> Session | None:
        """The session a pass stands for, be it over or not; None if it is no pass of ours."""
        session = self._by_pass.get(value)
        if session is None:
            try:
                found = self._tokens.read_pass(value)
            except BadToken:
                return None
            session = self._remember(value, found, certain=False)
        return session

    def read(self, value: bytes) -> Session | None:
        """The session a pass stands for; None if it is no pass of ours, or the session is over."""
        session = self.find(value)
        return None if session is None or session.over else session

    def binding(self, value: bytes, session: Session) -> int:
        """What a pass is bound to, or where it isn't, the newest of its session; 0 for nothing."""
        return self._bindings.get(value, session.binding)

    def admit(self, id_: int, *, expires_at: int, ends_at: int, binding: int = 0) -> tuple[Session, str]:
        """A session that begins or goes on, and the pass for it, which lasts at least as long as those before.

        Where the session is known, its end stands: a ticket that is claimed twice doesn't prolong it.
        """
        known, held = self._by_id.get(id_), 0
        if known is not None and not known.over:
            ends_at = known.ends_at
            expires_at = min(max(expires_at, known.expires_at), ends_at)
            held = ends_at - known.hard_end
        found = Pass(id_, expires_at, ends_at, held, binding)
        value = self._tokens.sign_pass(found)
        return self._remember(value.encode(), found, certain=True), value

    def farewell(self, session: Session) -> str:
        """A pass for a session that was released, good until its grace ends."""
        return self._tokens.sign_pass(Pass(session.id, session.expires_at, session.ends_at, 0, session.binding))

    # Requests under way.

    def may_enter(self, session: Session, now: float, tunnel: bool) -> bool:
        """Whether the session's bounds let one more request go on at the steady clock's ``now``; counts it if so."""
        throttle = session.throttle
        if throttle is not None and throttle.idle(now):
            throttle = session.throttle = None
            session.second_at, session.second_requests = now, 0
        if throttle is None:
            under_way = session.tunnels if tunnel else session.requests - session.tunnels
            if now - session.second_at >= 1.0:
                session.second_at, session.second_requests = now, 0
            # While no second has more requests than the rate, a bucket of two seconds' worth would never be empty.
            if under_way < self._in_flight and session.second_requests < self._per_second - 1:
                session.second_requests += 1
                return True
            throttle = session.throttle = Throttle(self, session, self._limits, session.second_requests, now)
        return throttle.enter(now, tunnel=tunnel)

    def begin(self, session: Session, now: float, tunnel: bool = False) -> bool:
        """A request starts under it, at the Unix time ``now``. Returns whether the store must now be told."""
        session.requests += 1
        if tunnel:
            session.tunnels += 1
        self._busy.add(session)
        if now - session.kept_at < LONGEST_UNKEPT_SECONDS or session.over or session.id in self._due:
            return False
        self._due[session.id] = session
        return True

    def finish(self, session: Session, tunnel: bool = False) -> None:
        """A request under it has ended."""
        session.requests -= 1
        if tunnel:
            session.tunnels -= 1
        if session.requests == 0:
            self._busy.discard(session)
            self._forget_unused(session)
        if session.throttle is not None:
            session.throttle.wake()

    def open_tunnel(self, session: Session, tunnel: Tunnel) -> None:
        """A tunnel is open; it is cut when the session ends."""
        self._tunnels.setdefault(session, []).append(tunnel)

    def close_tunnel(self, session: Session, tunnel: Tunnel) -> None:
        """A tunnel has ended."""
        tunnels = self._tunnels[session]
        tunnels.remove(tunnel)
        if not tunnels:
            del self._tunnels[session]

    # The end of them.

    def command(self, session: Session, operation: SessionOperation, ms: int) -> None:
        """Notes for the store what the shop, or a pass that ran out, wants of a session."""
        self._commands.append(SessionChange(operation, session.id, ms))

    def release(self, session: Session, now: float, grace_seconds: int) -> None:
        """Ends a session for the shop, but for reads within ``grace_seconds``. The store is told by `collect`."""
        self.command(session, "release", self._pass_ms(session, now))
        self._close(session.id, now, now + grace_seconds if grace_seconds else 0.0)

    def ended_elsewhere(self, ended: Iterable[int], released: Iterable[int], now: float, grace_seconds: int) -> None:
        """Takes up what the view tells of ends: nobody comes in with such a session any more, seen here or not."""
        for id_ in released:
            if id_ not in self._ended:  # else it was released from here, or ended since
                self._close(id_, now, now + grace_seconds if grace_seconds else 0.0)
        for id_ in ended:
            self._close(id_, now, 0.0)

    def ask_again(self) -> None:
        """Has the store asked about each session with its next request: the views may have left out ends."""
        for session in self._by_id.values():
            session.kept_at = 0.0

    def sweep(self, now: float) -> None:
        """Cuts the tunnels of sessions that are over, and forgets ends that matter no more. Called twice a second."""
        for session in [one for one in self._tunnels if one.over or now >= one.ends_at]:
            self._cut(session)
        self._ended.forget(now)
        self._ends_known = self._ended.complete(now)

    # What the store is told.

    @property
    def has_commands(self) -> bool:
        """Whether there is more to tell than that sessions go on."""
        return bool(self._commands)

    def collect(self, now: float) -> Sequence[SessionChange]:
        """What the store must be told now. Hand it back by `uncollect` if that fails."""
        for session in self._busy:
            if now - session.kept_at >= LONGEST_UNKEPT_SECONDS and not session.over:
                self._due[session.id] = session
        # Past its end a session is kept by nothing, however long a download or a tunnel of it goes on.
        changes = [
            SessionChange("keep", session.id, round((session.ends_at - now) * 1000))
            for session in self._due.values()
            if now < session.ends_at
        ]
        for session in self._due.values():
            session.kept_at = now
        changes += self._commands
        self._due = {}
        self._commands = []
        return changes

    def uncollect(self, changes: Sequence[SessionChange]) -> None:
        """The store couldn't be told: try again with the next ones."""
        for change in changes:
            session = self._by_id.get(change.session)
            if change.operation == "keep" and session is not None and not session.over:
                self._due.setdefault(session.id, session)
        self._commands = [change for change in changes if change.operation != "keep"] + self._commands

    def told(self, changes: Sequence[SessionChange], alive: Sequence[bool], now: float) -> None:
        """The store's answer to `collect`: sessions that are over let nobody in any more."""
        for change, is_alive in zip(changes, alive, strict=True):
            session = self._by_id.get(change.session)
            if session is not None and not is_alive and not session.over:
                # One whose pass ran out has no claim to a grace: it asked whether it is still there.
                self._end(session, 0.0 if change.operation == "resume" else now + UNSURE_SECONDS)

    # Where they are seen from.

    def seen_from(self, session: Session, network: str, now: float) -> None:
        """Notes a neighbourhood that a session's requests come from, other than the last."""
        if session.networks is None:
            if session.network in ("", network):
                session.network = network
                return
            session.networks = {session.network: now}
        networks = session.networks
        networks.pop(network, None)
        networks[network] = now  # the most recently seen stand last
        if len(networks) > NETWORKS_KEPT:
            del networks[next(iter(networks))]
        if len(networks) > MANY_NETWORKS and len(self._many_networks) < MOST_SHARED:
            self._many_networks[session.id] = session

    def shared(self, now: float) -> list[int]:
        """The sessions that were seen from more than `MANY_NETWORKS` neighbourhoods of late."""
        shared = []
        for session in list(self._many_networks.values()):
            networks = session.networks or {}
            if sum([now - at < NETWORK_SECONDS for at in networks.values()]) > MANY_NETWORKS:
                shared.append(session.id)
            else:
                del self._many_networks[session.id]
        return shared

    # The rest is its own.

    def _pass_ms(self, session: Session, now: float) -> int:
        """How long a pass for it may still be presented: another worker may have granted it a hold."""
        return max(0, round((session.hard_end + self._max_seconds - now) * 1000))

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
        self._cut(session)

    def _cut(self, session: Session) -> None:
        for tunnel in list(self._tunnels.get(session, ())):
            tunnel.cut()

    def _remember(self, value: bytes, found: Pass, *, certain: bool) -> Session:
        session = self._by_id.get(found.session)
        hard_end = found.ends_at - found.held
        if session is None:
            session = self._by_id[found.session] = Session(found.session, found.expires_at, found.ends_at, hard_end)
            if found.session in self._ended:
                self._end(session, self._ended.grace_until(found.session))
            elif not certain and not self._ends_known:
                session.expires_at = 0  # the gate has the store asked, as for a pass that ran out
        elif not session.over:
            session.expires_at = max(session.expires_at, found.expires_at)
            session.ends_at = max(session.ends_at, found.ends_at)
            session.hard_end = min(session.hard_end, hard_end)
        if value not in self._by_pass:
            session.passes += 1
            self._by_pass[value] = session
            if found.binding:
                self._bindings[value] = session.binding = found.binding
            if len(self._by_pass) > MOST_KEPT:
                forgotten = next(iter(self._by_pass))
                oldest = self._by_pass.pop(forgotten)
                self._bindings.pop(forgotten, None)
                oldest.passes -= 1
                self._forget_unused(oldest)
        return session

    def _forget_unused(self, session: Session) -> None:
        """Forgets a session that nobody here can come back to: what the store says of it would reach nobody."""
        if session.passes == 0 and session.requests == 0:
            self._by_id.pop(session.id, None)
            self._many_networks.pop(session.id, None)
