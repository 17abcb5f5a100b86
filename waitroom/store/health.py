"""Log lines about a failing store: each cause once, from its first call on, however many rooms and calls it affects."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from waitroom.errors import StoreUnavailable
from waitroom.logs import LogLimiter
from waitroom.store.errors import StoreErrorKind


class StoreHealth:
    """The state of the store as the rooms of one process see it, and its log lines.

    A failure of the store is logged once per kind until the store answers again, and at most every ten seconds if it
    keeps coming and going. Unreadable data of a room concerns only that room, and is logged for it.

    Args:
        log: Writes the lines.
        clock: A clock in seconds that never goes back.
    """

    def __init__(self, log: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._limiter = LogLimiter()
        self._failing: dict[str, str] = {}  # the kind of each room's latest failure
        self._logged: set[str] = set()  # kinds since the store last answered, and "data ROOM"
        self._since = 0.0

    def failed(self, room: str, error: StoreUnavailable) -> None:
        """Records that a call for a room failed for good, and logs it."""
        kind, about = error.kind, "store unavailable"
        if not kind:
            return  # the store wasn't called
        fields = {"cause": str(error), "detail": error.detail}
        if kind == StoreErrorKind.DATA:
            kind, about = f"{kind} {room}", "room unavailable"
            fields = {"room": room} | fields
        elif not self._store_failing():
            self._since = self._clock()
        self._failing[room] = kind
        if kind not in self._logged:
            suppressed = self._limiter.permit(about, kind, self._clock())
            if suppressed is not None:
                self._logged.add(kind)
                more = {"suppressed": suppressed} if suppressed else {}
                self._log.error(about, kind=str(error.kind), **fields, **more)

    def answered(self, room: str) -> None:
        """Records that the store answered for a room, and logs it after a logged failure."""
        kind = self._failing.pop(room, None)
        if kind is None:
            return
        if _is_data(kind):
            if kind in self._logged:
                self._logged.remove(kind)
                self._log.info("room available", room=room)
        elif not self._store_failing():
            logged = {one for one in self._logged if not _is_data(one)}
            if logged:
                self._logged -= logged
                self._log.info("store available", seconds=round(self._clock() - self._since, 1))

    def _store_failing(self) -> bool:
        return any(not _is_data(kind) for kind in self._failing.values())


def _is_data(kind: str) -> bool:
    return kind.startswith(StoreErrorKind.DATA)
