"""Requests with neither pass nor ticket that take no place: their budget, and a hint for each refused kind."""

# mypyc: compile

from __future__ import annotations

from typing import Final

import structlog

from waitroom.budgets import TokenBucket
from waitroom.queue.view import RoomView
from waitroom.settings import RoomSettings

log = structlog.get_logger()

LOG_INTERVAL_SECONDS: Final = 3600.0
# Per worker, if no rate is set: a monitor that polls every ten seconds uses one connection, so one worker.
MIN_PER_SECOND: Final = 0.1
MAX_KINDS: Final = 256
MAX_SHOWN_BYTES: Final = 64


class WithoutPassBudget:
    """One worker's share of the budget for requests to the shop without a pass.

    Args:
        settings: The room's settings.
        workers: How many workers share the budget.
    """

    def __init__(self, settings: RoomSettings, workers: int) -> None:
        self._room = settings.name
        self._configured = settings.without_pass_per_second
        self._workers = workers
        first = self._per_second(settings.rate_per_minute)
        self._budget = TokenBucket(first, first)
        self._logged: dict[tuple[bytes, bytes], float] = {}

    def take(self, view: RoomView, now: float) -> bool:
        """Whether one more request may proceed at the steady time ``now``."""
        if self._configured is None:
            per_second = self._per_second(view.rate_per_minute)
            self._budget.change_rate(per_second, per_second, now)
        return self._budget.take(now)

    def log_refused(self, method: bytes, path: bytes, now: float) -> str | None:
        """Logs a refused request: each method and first path segment once an hour, with the rule that would allow it.

        Returns:
            The method and segment if they were logged, else None.
        """
        segment = b"/" + path[1:].partition(b"/")[0][:MAX_SHOWN_BYTES]
        key = (method, segment)
        logged_at = self._logged.get(key)
        if logged_at is not None and now - logged_at < LOG_INTERVAL_SECONDS:
            return None
        self._logged.pop(key, None)
        if len(self._logged) >= MAX_KINDS:
            oldest = next(iter(self._logged))
            if now - self._logged[oldest] < LOG_INTERVAL_SECONDS:
                return None  # this many kinds come from a scanner
            del self._logged[oldest]
        self._logged[key] = now
        verb, shown = method.decode(), segment.decode("latin-1")
        log.warning(
            "request without a pass refused",
            room=self._room,
            method=verb,
            path=shown,
            rule=f'[[rooms.bypass]] paths = ["{shown}"] methods = ["{verb}"]',
        )
        return f"{verb} {shown}"

    def _per_second(self, rate_per_minute: float) -> float:
        if self._configured is not None:
            return self._configured / self._workers
        return max(max(1.0, rate_per_minute / 600) / self._workers, MIN_PER_SECOND)
