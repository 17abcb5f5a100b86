"""The sessions one worker has seen, by the passes that stand for them.

A pass is verified once; after that a request under it costs a look into a dict. What the store must know of them is
collected here and sent once a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from waitroom.errors import BadToken
from waitroom.queue.store import SessionChange, SessionOperation
from waitroom.tokens import Pass, Tokens

MOST_KEPT = 65536
# A slot outlives its pass by 30 s (scripts/common.lua); it is moved on well before that is used up.
LONGEST_UNKEPT_SECONDS: Final = 15.0


@dataclass(slots=True, eq=False)
class Session:
    """An admitted visitor.

    Attributes:
        id: The session's number, for the store and the shop.
        expires_at, ends_at: Unix times in seconds: of the newest pass, and the hard end.
        kept_at: When the store was last told of activity, Unix time; 0 for never.
        passes: How many that stand for it are remembered.
        requests: How many are under way; an open WebSocket or a long download is activity.
        over: Whether it was released or ended.
    """

    id: int
    expires_at: int
    ends_at: int
    kept_at: float = 0.0
    passes: int = 0
    requests: int = 0
    over: bool = False


class Sessions:
    """One worker's sessions of one room.

    Args:
        tokens: The room's.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._by_pass: dict[bytes, Session] = {}
        self._by_id: dict[int, Session] = {}
        self._busy: set[Session] = set()
        self._due: dict[int, Session] = {}
        self._commands: list[SessionChange] = []

    def read(self, value: bytes) -> Session | None:
        """The session a pass stands for; None if it is no pass of ours, or the session is over."""
        session = self._by_pass.get(value)
        if session is None:
            try:
                found = self._tokens.read_pass(value)
            except BadToken:
                return None
            session = self._remember(value, found)
        return None if session.over else session

    def admit(self, id_: int, *, expires_at: int, ends_at: int) -> tuple[Session, str]:
        """A session that begins or goes on, and the pass for it, which lasts at least as long as those before."""
        known = self._by_id.get(id_)
        if known is not None:
            expires_at, ends_at = max(expires_at, known.expires_at), max(ends_at, known.ends_at)
        found = Pass(id_, expires_at, ends_at)
        value = self._tokens.sign_pass(found)
        return self._remember(value.encode(), found), value

    def begin(self, session: Session, now: float) -> bool:
        """A request starts under it. Returns whether the store is to be told of it."""
        session.requests += 1
        self._busy.add(session)
        if now - session.kept_at < LONGEST_UNKEPT_SECONDS:
            return False
        self._due[session.id] = session
        return True

    def finish(self, session: Session) -> None:
        """A request under it has ended."""
        session.requests -= 1
        if session.requests == 0:
            self._busy.discard(session)
            self._forget_unused(session)

    def command(self, session: Session, operation: SessionOperation, ms: int) -> None:
        """Notes for the store what the shop, or the visitor, wants of a session."""
        self._commands.append(SessionChange(operation, session.id, ms))
        if operation == "end":
            session.over = True
            self._due.pop(session.id, None)

    def collect(self, now: float) -> Sequence[SessionChange]:
        """What the store must be told now. Hand it back by `uncollect` if that fails."""
        for session in self._busy:
            if now - session.kept_at >= LONGEST_UNKEPT_SECONDS and not session.over:
                self._due[session.id] = session
        changes = [
            SessionChange("keep", session.id, max(0, round((session.ends_at - now) * 1000)))
            for session in self._due.values()
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
            if change.operation == "keep" and session is not None:
                self._due.setdefault(session.id, session)
        self._commands = [change for change in changes if change.operation != "keep"] + self._commands

    def told(self, changes: Sequence[SessionChange], alive: Sequence[bool]) -> None:
        """The store's answer to `collect`: sessions that are over let nobody in any more."""
        for change, is_alive in zip(changes, alive, strict=True):
            session = self._by_id.get(change.session)
            if session is not None and not is_alive:
                session.over = True

    def _remember(self, value: bytes, found: Pass) -> Session:
        session = self._by_id.get(found.session)
        if session is None:
            session = self._by_id[found.session] = Session(found.session, found.expires_at, found.ends_at)
        else:
            session.expires_at = max(session.expires_at, found.expires_at)
            session.ends_at = max(session.ends_at, found.ends_at)
        if value not in self._by_pass:
            session.passes += 1
            self._by_pass[value] = session
            if len(self._by_pass) > MOST_KEPT:
                oldest = self._by_pass.pop(next(iter(self._by_pass)))
                oldest.passes -= 1
                self._forget_unused(oldest)
        return session

    def _forget_unused(self, session: Session) -> None:
        """Forgets a session that nobody here can come back to: what the store says of it would reach nobody."""
        if session.passes == 0 and session.requests == 0:
            self._by_id.pop(session.id, None)
