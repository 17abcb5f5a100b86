"""Sessions that have ended, remembered by their numbers for as long as a pass for them may be presented."""

# mypyc: compile

from __future__ import annotations

from typing import Final

MAX_ENDED: Final = 65_536  # at most about 10 MB


class EndedSessions:
    """The sessions of one room that have ended. Times are Unix times in seconds.

    Args:
        seconds: How long a pass may outlive the end of its session.
    """

    __slots__ = ("_ended", "_forgot_until", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ended: dict[int, tuple[float, float]] = {}  # by number: until when, and when its grace ends
        self._forgot_until = 0.0

    def raise_seconds(self, seconds: float) -> None:
        """Remembers sessions that end from now on for longer."""
        self._seconds = max(self._seconds, seconds)

    def __contains__(self, session: int) -> bool:
        return session in self._ended

    def __len__(self) -> int:
        return len(self._ended)

    def add(self, session: int, now: float, grace_until: float) -> None:
        """Remembers a session, and until when its reads may still reach the shop."""
        known = self._ended.get(session)
        until = now + self._seconds if known is None else known[0]
        self._ended[session] = (until, grace_until)
        if len(self._ended) > MAX_ENDED:
            oldest = next(iter(self._ended))
            self._forgot_until = max(self._forgot_until, self._ended.pop(oldest)[0])

    def grace_until(self, session: int) -> float:
        """When the grace of an ended session ends; 0 if it has none."""
        return self._ended[session][1]

    def complete(self, now: float) -> bool:
        """Whether every ended session is remembered. Otherwise only the store knows."""
        return now >= self._forgot_until

    def forget(self, now: float) -> None:
        """Forgets sessions whose passes have all expired. None is kept for less time than one before it."""
        while self._ended:
            session = next(iter(self._ended))
            if self._ended[session][0] > now:
                return
            del self._ended[session]
