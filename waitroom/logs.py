"""Logs: events only, one per line, on standard error; readable on a terminal, otherwise as JSON."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

LOG_INTERVAL_SECONDS: Final = 10.0
MOST_LOG_KINDS: Final = 256


def configure(level: str, process: str) -> None:
    """Sets up structlog for this process. Every line has ``process`` as a field."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([] if sys.stderr.isatty() else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)


class LogLimiter:
    """Decides which log lines to write: the first of each kind, then at most one per interval. Pure.

    A kind is an event and a cause. If more than `MOST_LOG_KINDS` kinds occur within an interval, the rest share one
    line per interval, so that the number of lines is bounded for any causes.

    Args:
        interval: The minimum time between two lines of a kind, in seconds.
    """

    __slots__ = ("_interval", "_kinds")

    def __init__(self, interval: float = LOG_INTERVAL_SECONDS) -> None:
        self._interval = interval
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}  # the oldest line first: when, and suppressed since

    def __len__(self) -> int:
        return len(self._kinds)

    def permit(self, event: str, cause: str, now: float) -> int | None:
        """The number of lines of this kind suppressed since the last one; None suppresses this one too.

        Args:
            event: The line's event.
            cause: One of a fixed set of words. Texts that vary, such as addresses or bytes, are fields, not causes.
            now: Seconds of any clock that never goes back.
        """
        kinds = self._kinds
        kind = (event, cause)
        if kind not in kinds:
            while len(kinds) >= MOST_LOG_KINDS:
                oldest = next(iter(kinds))
                if now - kinds[oldest][0] < self._interval:
                    kind = ("", "")
                    break
                del kinds[oldest]
        written, suppressed = kinds.get(kind, (float("-inf"), 0))
        if now - written < self._interval:
            kinds[kind] = (written, suppressed + 1)
            return None
        kinds.pop(kind, None)
        kinds[kind] = (now, 0)
        return suppressed


class RateLimitedLog:
    """A log for events that a client or the upstream can cause any number of times; see `LogLimiter`.

    A line that follows suppressed ones has their number in the field ``suppressed``.

    Args:
        log: Writes the lines.
        clock: A clock in seconds that never goes back.
    """

    __slots__ = ("_clock", "_limiter", "_log")

    def __init__(self, log: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._limiter = LogLimiter()

    def warning(self, event: str, kind: str = "", /, **values: Any) -> None:
        """Logs a warning, unless one of this event and kind was logged in the last `LOG_INTERVAL_SECONDS`."""
        suppressed = self._limiter.permit(event, kind, self._clock())
        if suppressed is not None:
            self._log.warning(event, **values, **({"suppressed": suppressed} if suppressed else {}))
