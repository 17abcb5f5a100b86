"""A room with a sale, on a real store whose clock and run id are set by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from waitroom.queue.fields import Limits
from waitroom.queue.schedule import Event, EventRecord, encode_event, shuffle_seed
from waitroom.queue.store import QueueStore
from waitroom.queue.view import RoomView
from waitroom.store.connection import connect

NOON = 1_790_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE
LIMITS = Limits(600, 5, 900, 180, 180, 3600)
SALE = Event("sale", "The sale", NOON + HOUR, NOON + HOUR // 2, NOON + 2 * HOUR)
SEED = shuffle_seed("secret", "shop", "sale", SALE.opens_ms)
AUDIT = json.dumps({"who": "ada", "via": "api", "action": "event"})


@dataclass
class Shop:
    """A room on a server whose clock and run id are set by hand."""

    store: QueueStore
    now: int = NOON
    run_id: str = "first"
    events: tuple[Event, ...] = (SALE,)
    limits: Limits = LIMITS

    async def open(self, *events: Event) -> int:
        self.events = events or self.events
        return await self.store.open(self.limits, {event.name: encode_event(event, SEED) for event in self.events})

    async def at(self, when: int) -> RoomView:
        """The view at a time; the room's clock gets there in small steps, as with a controller."""
        self.now = when
        return await self.store.view()

    async def event(self, name: str = "sale") -> EventRecord:
        return next(one for one in await self.store.events() if one.event.name == name)

    async def tick(self, seconds: int = 1) -> int:
        """Ticks for some seconds; how many were called."""
        called = 0
        for _ in range(seconds):
            self.now += 1000
            called += (await self.store.tick()).called
        return called

    async def act(self, action: Any, name: str = "sale", **more: Any) -> Any:
        return await self.store.change_event(action, name, expected=None, who="ada", audit_event=AUDIT, **more)


@asynccontextmanager
async def sale_room(url: str) -> AsyncIterator[Shop]:
    async with connect(url, timeout_seconds=10) as redis:
        store = QueueStore(redis, "shop", clock=lambda: shop.now, run_id=lambda: shop.run_id)
        shop = Shop(store)
        yield shop
