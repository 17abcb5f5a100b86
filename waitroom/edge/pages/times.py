"""Times in the form for machines. Pure."""

# mypyc: compile

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def utc(ms: int) -> datetime:
    """A Unix time in milliseconds as a UTC time, to the second."""
    return datetime.fromtimestamp(ms // 1000, UTC)


@lru_cache(maxsize=64)
def rfc3339(at: datetime) -> bytes:
    """A time in the format for JSON and HTML, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
