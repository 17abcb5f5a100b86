"""Benchmarks the start and the end of an event: part of ``benchmarks.queue``.

However many wait in the prequeue, the first ones are to be called immediately, and no script may block the store.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.queue_room import Room
from waitroom.queue.fields import Limits
from waitroom.queue.schedule import Event, encode_event, shuffle_seed

SIZES = (100, 100_000, 1_000_000)
AUDIT = json.dumps({"who": "benchmark", "via": "api", "action": "event"})
TICKS = 50  # after the start
CALLED_PER_SECOND = 100
LIMITS = Limits(
    rate_per_minute=CALLED_PER_SECOND * 60,
    max_active=10_000_000,
    session_seconds=900,
    claim_seconds=180,
    away_after_seconds=180,
    keep_place_seconds=3600,
)


@dataclass(frozen=True, slots=True)
class StartFigures:
    """The measurements with one size of prequeue. All times are the server's own, in milliseconds.

    Attributes:
        waiting: How many visitors wait in the prequeue.
        bytes_per_visitor: The memory that one takes, without presence marks.
        start_ms: The script that takes the step, which is a join here.
        first_called_ms: All scripts from the start until the first visitor is called.
        longest_ms: The longest single script from the start on, with ticks, views, joins and look-ups in between.
        skipping_ms: The longest tick if half of the visitors are gone.
        grown_bytes: The growth of the memory at the start.
        end_ms: The script that ends the event and voids the places.
    """

    waiting: int
    bytes_per_visitor: float
    start_ms: float
    first_called_ms: float
    longest_ms: float
    skipping_ms: float
    grown_bytes: int
    end_ms: float


async def measure_start(room: Room, waiting: int) -> StartFigures:
    """Fills a shuffled prequeue, starts the event and ends it. The server is flushed first."""
    await room.redis.flushall()
    event = Event(
        "sale", "", room.now + 3_600_000, room.now + 1000, room.now + 7_200_000, method="random", after="closed"
    )
    seed = shuffle_seed("benchmark", "bench", "sale", event.opens_ms)
    await room.store.open(LIMITS, {"sale": encode_event(event, seed)})
    room.now += 1000
    empty = await room.used_memory()
    places = await _fill(room, waiting)
    full = await room.used_memory()
    room.now = event.start_ms
    await room.store.seen(places)
    before = await room.used_memory()
    scripts = [await room.server_ms(lambda: room.store.join(1))]
    start_ms = scripts[0]
    first_called_ms = start_ms
    called = 0
    for _ in range(TICKS):
        scripts.append(await room.server_ms(room.store.tick))
        if not called:
            first_called_ms += scripts[-1]
        called = (await room.store.view()).called
        others: list[Callable[[], Awaitable[Any]]] = [room.store.view, lambda: room.store.join(500)]
        room.now += 1001
        scripts += [await room.server_ms(other) for other in others]
    grown = await room.used_memory() - before
    assert called >= min(waiting, TICKS - 1)
    skipping_ms = await _longest_skip(room, places)
    room.now = event.end_ms or 0
    end_ms = await room.server_ms(room.store.view)
    assert (await room.store.view()).waiting == 0
    return StartFigures(
        waiting, (full - empty) / waiting, start_ms, first_called_ms, max(scripts), skipping_ms, grown, end_ms
    )


async def _fill(room: Room, waiting: int) -> range:
    first = (await room.store.join(min(500, waiting))).first_place
    for joined in range(500, waiting, 500):
        await room.store.join(min(500, waiting - joined))
    return range(first, first + waiting)


async def _longest_skip(room: Room, places: range) -> float:
    """The longest tick if only every second visitor has been seen lately."""
    await room.wait(240_000)
    await room.store.seen(places[::2])
    times = []
    for _ in range(TICKS):
        room.now += 1000
        times.append(await room.server_ms(room.store.tick))
    return max(times)
