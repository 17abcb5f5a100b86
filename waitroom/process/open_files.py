"""The limit of open files: raised as far as needed, and compared with the requirements of the settings."""

from __future__ import annotations

import errno
import os
import resource
from typing import Final

import structlog

log = structlog.get_logger()

OTHER_FILES: Final = 128  # the store's connections, health checks, logs, metrics, name look-ups


_OUT_OF_FILES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


def is_out_of_files(error: OSError) -> bool:
    """Whether the reason for an error is that this process, or its system, has no descriptor or memory left.

    A look-up of a name, and attempts to connect to several addresses, report their failure without that reason. So it
    is also found by trying to get a descriptor.
    """
    if error.errno in _OUT_OF_FILES:
        return True
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as failure:
        return failure.errno in _OUT_OF_FILES
    return False


def files_needed(connections: int, upstream: int) -> int:
    """Returns how many files an edge worker opens at most, for its client connections and those to shops."""
    return connections + upstream + OTHER_FILES


def raise_limit(needed: int) -> int | None:
    """Raises the soft limit to what is needed, or to the hard limit. Returns the limit; None if there is no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # some systems have a lower limit than the one they report
            pass
    return soft


def connection_limit(limit: int | None, wanted: int, upstream: int, *, warn: bool) -> int:
    """Returns the maximum of client connections under a limit of open files.

    Args:
        limit: The limit of open files.
        wanted: The number in the settings.
        upstream: The maximum of connections to shops.
        warn: Whether to log a warning if the result is lower than wanted.
    """
    needed = files_needed(wanted, upstream)
    if limit is None or limit >= needed:
        return wanted
    # The pools could exceed the limit by themselves, but they are rarely full.
    most = min(wanted, max(limit - upstream - OTHER_FILES, limit // 2))
    if warn:
        log.warning("open file limit too low", limit=limit, needed=needed, client_connections=most, wanted=wanted)
    return most
