"""Connections to Redis or Valkey, with bounded waits and one error for all failures.

A connection may outlive what it leads to. A demoted primary keeps the connections it has, and refuses all writes; a
firewall forgets connections that were idle. After such a failure all connections made so far are dropped, and the next
call connects again, perhaps to another server: see `StorePool`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from waitroom.errors import StoreUnavailable
from waitroom.store.errors import ClosedOnConnectError, StoreErrorKind, TlsTimeoutError, classify

Result = TypeVar("Result")

STORE_TIMEOUT_SECONDS = 0.3
POOL_CONNECTIONS = 16

_FAILURES = (RedisError, OSError, TimeoutError)


class StorePool(BlockingConnectionPool):
    """A pool of connections that can all be dropped: each is closed before it would be used the next time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._made: WeakKeyDictionary[AbstractConnection, int] = WeakKeyDictionary()
        self._drops = 0

    def drop(self) -> None:
        """Drops the connections made so far. Calls in progress are not affected."""
        self._drops += 1

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """See `BlockingConnectionPool.ensure_connection`."""
        drops = self._drops
        if self._made.get(connection, drops) != drops:
            await connection.disconnect(nowait=True)
        try:
            await super().ensure_connection(connection)
        except RedisConnectionError as error:
            if classify(error).kind is not StoreErrorKind.CLOSED:
                raise
            raise ClosedOnConnectError(*error.args) from error
        self._made[connection] = drops


class StoreClient(Redis):
    """A client that drops its connections after a failure that another connection may not have."""

    connection_pool: StorePool

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """See `Redis.execute_command`."""
        with _dropping(self.connection_pool):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """See `Redis.pipeline`."""
        return _StorePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _StorePipeline(Pipeline):
    connection_pool: StorePool

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        with _dropping(self.connection_pool):
            return await super().execute(raise_on_error)


@contextmanager
def _dropping(pool: StorePool) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        if classify(error).reconnect:
            pool.drop()
        raise


class _TlsConnection(SSLConnection):
    async def connect(self) -> None:
        """See `SSLConnection.connect`. A server without TLS may wait for the rest of what it takes for a command."""
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except RedisTimeoutError as error:
            raise TlsTimeoutError(*error.args) from error


def connect(url: str, *, timeout_seconds: float = STORE_TIMEOUT_SECONDS) -> Redis:
    """Returns a client for ``redis://``, ``rediss://`` or ``unix://``, with bounded waits and without its own retries.

    Raises:
        ValueError: The URL has another scheme.
    """
    options: dict[str, Any] = dict(parse_url(url))
    kind = options.pop("connection_class", Connection)
    if kind not in (Connection, SSLConnection, UnixDomainSocketConnection):
        raise ValueError(f"not a Redis URL: {url.split(':', 1)[0]}")
    pool = StorePool(
        connection_class=_TlsConnection if kind is SSLConnection else kind,
        max_connections=POOL_CONNECTIONS,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        **options,
    )
    return StoreClient.from_pool(pool)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns all failures of Redis to answer into `StoreUnavailable`. To be entered in a task."""
    task = asyncio.current_task()
    asked_to_end = 0 if task is None else task.cancelling()
    try:
        yield
    except _FAILURES as error:
        failure = classify(error)
        raise StoreUnavailable(failure.summary, failure.kind, failure.detail, retry=failure.retry) from error
    finally:
        # redis-py sends through `asyncio.wait_for`, which before Python 3.12 may swallow a cancellation.
        if task is not None and task.cancelling() > asked_to_end:
            raise asyncio.CancelledError


async def call_twice(call: Callable[[], Awaitable[Result]]) -> Result:
    """Makes a call that may run twice, and once more if it failed in a way that a second connection may not.

    A connection that has died unnoticed, one slow reply, or a primary that was demoted don't mean that the store is
    down. Only for what is safe to repeat: a read, or a write that recognizes its repetition.

    Raises:
        StoreUnavailable: The second call failed too, or the first in a way that a second can't avoid.
    """
    try:
        with store_errors():
            return await call()
    except StoreUnavailable as error:
        if not error.retry:
            raise
    with store_errors():
        return await call()
