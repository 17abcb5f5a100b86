"""Connections to Redis or Valkey, with bounded waits and one error for all failures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from waitroom.errors import StoreUnavailable

STORE_TIMEOUT_SECONDS = 0.3
POOL_CONNECTIONS = 16


def connect(url: str, *, timeout_seconds: float = STORE_TIMEOUT_SECONDS) -> Redis:
    """Returns a client for ``redis://``, ``rediss://`` or ``unix://``, with bounded waits and without its own retries.

    Raises:
        ValueError: The URL has another scheme.
    """
    options: dict[str, Any] = dict(parse_url(url))
    kind = options.pop("connection_class", Connection)
    if kind not in (Connection, SSLConnection, UnixDomainSocketConnection):
        raise ValueError(f"not a Redis URL: {url.split(':', 1)[0]}")
    pool = BlockingConnectionPool(
        connection_class=kind,
        max_connections=POOL_CONNECTIONS,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        **options,
    )
    return Redis.from_pool(pool)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns all failures of Redis to answer into `StoreUnavailable`. To be entered in a task."""
    task = asyncio.current_task()
    asked_to_end = 0 if task is None else task.cancelling()
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
    finally:
        # redis-py sends through `asyncio.wait_for`, which before Python 3.12 may swallow a cancellation.
        if task is not None and task.cancelling() > asked_to_end:
            raise asyncio.CancelledError
