"""Logs: events only, one per line, on standard error; readable on a terminal, otherwise as JSON.

A log call never raises and never waits: see `waitroom.log_output` for what happens to a line that can't be written.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from waitroom.log_output import LogOutput, replace_standard_streams

log = structlog.get_logger()

LOG_INTERVAL_SECONDS: Final = 10.0
MOST_LOG_KINDS: Final = 256


def configure(level: str, process: str) -> None:
    """Sets up structlog for this process. Every line has ``process`` as a field.

    From then on a log call never raises and never waits, and neither does any other output of this process.
    """
    replace_standard_streams()
    colored = sys.stderr.isatty()
    # By default, tracebacks on a terminal show local variables, which may be secrets.
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if colored
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([] if colored else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_LineWriter,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)


def _bound_logger(level: int) -> type[Any]:
    """Returns structlog's logger for a level, whose methods never raise: a value may fail to be rendered."""
    base: Any = structlog.make_filtering_bound_logger(level)

    class SafeLogger(base):  # type: ignore[misc]
        def _proxy_to_logger(self, method_name: str, event: str | None = None, *args: Any, **values: Any) -> Any:
            try:
                return super()._proxy_to_logger(method_name, event, *args, **values)
            except Exception as error:
                fields = {"event": "log line not rendered", "line": str(event), "cause": type(error).__name__}
                return _LineWriter().msg(json.dumps(fields))

    return SafeLogger


class _LineWriter:
    """Writes rendered lines to standard error, and says how many were lost before."""

    def msg(self, line: str) -> None:
        output = sys.stderr
        if not isinstance(output, LogOutput):  # replaced by a test
            output.write(line + "\n")
            return
        lost = output.lost
        output.write(line + "\n")
        if lost and output.lost == lost:
            output.lost = 0
            log.warning("log lines lost", count=lost)

    debug = info = warning = error = critical = exception = msg


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
