"""The store's eviction policy: Redis and Valkey may delete keys when their memory is full, unless told not to."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import Redis

from waitroom.store.connection import store_errors

SAFE_POLICY: Final = "noeviction"
EVICTION_HINT: Final = "The store may delete keys of the queue"  # the beginning of the warning


async def read_eviction_policy(redis: Redis) -> str | None:
    """Returns the server's ``maxmemory-policy``; None if the server doesn't say.

    Raises:
        StoreUnavailable: The server doesn't answer, or refuses INFO.
    """
    with store_errors():
        memory: dict[str, Any] = await redis.info("memory")
    policy = memory.get("maxmemory_policy")
    return None if policy is None else str(policy)


def eviction_warning(policy: str | None) -> str:
    """Returns what is wrong with a policy and what to do, in two sentences; "" if nothing is."""
    if policy is None or policy == SAFE_POLICY:
        return ""
    return (
        f"{EVICTION_HINT} when its memory is full (maxmemory-policy is {policy}); each time, "
        "admissions stop until visitors have reported. Set maxmemory-policy to noeviction, and give a cache that "
        "must evict a Redis of its own."
    )
