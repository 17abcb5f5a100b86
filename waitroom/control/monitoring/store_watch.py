"""Watches the store's clock and the other gateways over the store: announces this one, and warns."""

from __future__ import annotations

import secrets
import time
from typing import Final

import structlog
from redis.asyncio import Redis

from waitroom.control.monitoring.gateways import (
    ClockReading,
    GatewayInfo,
    clock_differs,
    gateway_hints,
    with_other_secrets,
)
from waitroom.errors import StoreUnavailable
from waitroom.store.connection import store_errors
from waitroom.store.scripts import load_script

log = structlog.get_logger()

ANNOUNCE_SECONDS: Final = 5.0
ALIVE_MS: Final = 20_000
KEY: Final = "waitroom:gateways"


class StoreWatch:
    """Compares this gateway with its store and with the others.

    Attributes:
        reading: The last comparison of the clocks; None before the first.
        clock_differs: Whether they differ enough to warn.
        strangers: The machines of gateways with other secrets.

    Args:
        redis: A client of the store.
        own: This gateway.
    """

    def __init__(self, redis: Redis, own: GatewayInfo) -> None:
        self._redis = redis
        self._own = own
        self._id = secrets.token_hex(8)
        self._announce = redis.register_script(load_script("waitroom.control.monitoring", "announce"))
        self.reading: ClockReading | None = None
        self.clock_differs = False
        self.strangers: tuple[str, ...] = ()

    async def check(self) -> None:
        """Announces this gateway and compares it with the rest. A failing store is reported elsewhere."""
        local, sent = time.time(), time.monotonic()
        try:
            with store_errors():
                store_ms, others = await self._announce(keys=[KEY], args=[self._id, self._own.json(), ALIVE_MS])
        except StoreUnavailable:
            return
        self._compare_clocks(ClockReading.of(int(store_ms) / 1000, local, time.monotonic() - sent))
        self._compare_secrets([found for other in others if (found := GatewayInfo.parse(other)) is not None])

    async def leave(self) -> None:
        """Removes this gateway from the store, so that a successor with other secrets is not warned of it."""
        try:
            with store_errors():
                await self._redis.hdel(KEY, self._id)
        except StoreUnavailable:
            pass

    def now(self) -> float:
        """Returns the store's wall clock, which the schedule follows, Unix time in seconds; ours before it is known."""
        return time.time() - (0.0 if self.reading is None else self.reading.ahead)

    def hints(self) -> list[str]:
        """The hints on the gateway as a whole."""
        return gateway_hints(self.reading, self.clock_differs, self.strangers)

    def _compare_clocks(self, reading: ClockReading) -> None:
        differed, self.clock_differs = self.clock_differs, clock_differs(reading, self.clock_differs)
        self.reading = reading
        if self.clock_differs and not differed:
            log.warning("clock differs from the store's", ahead_seconds=round(reading.ahead, 1))
        elif differed and not self.clock_differs:
            log.info("clock agrees with the store's", ahead_seconds=round(reading.ahead, 1))

    def _compare_secrets(self, others: list[GatewayInfo]) -> None:
        before, self.strangers = self.strangers, with_other_secrets(self._own, others)
        if self.strangers and self.strangers != before:
            log.warning("gateways over this store have other secrets: visitors lose places", hosts=self.strangers)
        elif before and not self.strangers:
            log.info("all gateways over this store share a secret")
