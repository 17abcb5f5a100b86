"""Watches whether the store may evict keys of the queue."""

from __future__ import annotations

import structlog
from redis.asyncio import Redis

from waitroom.errors import StoreUnavailable
from waitroom.store.eviction import eviction_warning, read_eviction_policy

log = structlog.get_logger()

CHECK_SECONDS = 10.0


class EvictionWatch:
    """The eviction policy of the store, checked at the start and every `CHECK_SECONDS`.

    Attributes:
        policy: The ``maxmemory-policy``; None as long as it is unknown.
    """

    def __init__(self, redis: Redis) -> None:
        self.policy: str | None = None
        self._redis = redis

    @property
    def warning(self) -> str:
        """The problem with the policy and what to do; "" if there is none."""
        return eviction_warning(self.policy)

    def hints(self) -> list[str]:
        """The warning as a hint, if there is one."""
        return [self.warning] if self.warning else []

    async def check(self) -> None:
        """Reads the policy, and logs a change. An unavailable store leaves it as it was."""
        try:
            policy = await read_eviction_policy(self._redis)
        except StoreUnavailable:
            return  # the admission loop logs that
        last, self.policy = self.policy, policy
        if policy == last:
            return
        if self.warning:
            log.warning("store may evict keys", maxmemory_policy=policy, warning=self.warning)
        elif last is not None:
            log.info("store no longer evicts keys", maxmemory_policy=policy)
