"""The limit of open files: raised as far as possible, and compared with the requirements of the settings."""

from __future__ import annotations

import resource
from typing import Final

import structlog

log = structlog.get_logger()

OTHER_FILES: Final = 128  # the store's connections, health checks, logs, metrics, name look-ups


def raise_limit() -> int | None:
    """Raises the soft limit to the hard one. Returns the limit; None if there is no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):  # some systems have a lower limit than the one they report
            pass
    return None if soft == resource.RLIM_INFINITY else soft


def connection_limit(limit: int | None, wanted: int, upstream: int, *, warn: bool) -> int:
    """Returns the maximum of client connections under a limit of open files.

    Args:
        limit: The limit of open files.
        wanted: The number in the settings.
        upstream: The maximum of connections to shops.
        warn: Whether to log a warning if the result is lower than wanted.
    """
    needed = wanted + upstream + OTHER_FILES
    if limit is None or limit >= needed:
        return wanted
    # The pools could exceed the limit by themselves, but they are rarely full.
    most = min(wanted, max(limit - upstream - OTHER_FILES, limit // 2))
    if warn:
        log.warning("open file limit too low", limit=limit, needed=needed, client_connections=most)
    return most
