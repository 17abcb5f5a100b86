"""Benchmarks the queue with 100,000 and 1,000,000 waiting visitors, on its own server; fails if a target is missed.

python -m benchmarks.queue [--server /usr/bin/redis-server] [--waiting 100000 --waiting 1000000] [--prequeue 100]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from benchmarks.event_start import SIZES as PREQUEUE_SIZES
from benchmarks.event_start import StartFigures, measure_start
from benchmarks.queue_room import Room
from waitroom.process.embedded_store import EmbeddedStore
from waitroom.queue.fields import Limits
from waitroom.store.connection import connect

SIZES = (100_000, 1_000_000)
SMALLEST = 20_000
TICKED = 100  # visitors called by one tick
ROUNDS = 9
WINDOW_MS = 15_000
AWAY_SECONDS = 180
LIMITS = Limits(
    rate_per_minute=TICKED * 60,
    max_active=1_000_000,
    session_seconds=900,
    claim_seconds=180,
    away_after_seconds=AWAY_SECONDS,
    keep_place_seconds=3600,
)


@dataclass(frozen=True, slots=True)
class Figures:
    """The measurements at one size. Server times are medians, in the unit of the name."""

    waiting: int
    joins_per_second_by_100: float
    joins_per_second_by_500: float
    joins_per_cpu_second: float
    bytes_queue: float
    bytes_last_seen: float
    tick_ms: float
    view_ms: float
    step_over_ms: float
    skipped: float
    seen_us: float

    @property
    def bytes_per_visitor(self) -> float:
        """All Redis memory per waiting visitor."""
        return self.bytes_queue + self.bytes_last_seen


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: the figure, its unit, the target in words, and whether a figure meets it."""

    what: str
    of: Callable[[Any], float]
    shape: str = "{:,.0f}"
    target: str = ""
    meets: Callable[[float], bool] = lambda _figure: True
    size_independent: bool = False  # within a factor of two at both sizes


ROWS = (
    Row("joins/s, 100 per call", lambda f: f.joins_per_second_by_100, target=">= 20,000", meets=lambda n: n >= 20_000),
    Row("joins/s, 500 per call", lambda f: f.joins_per_second_by_500, target=">= 20,000", meets=lambda n: n >= 20_000),
    Row("joins/s of CPU, worker and store", lambda f: f.joins_per_cpu_second, size_independent=True),
    Row("bytes per visitor in the queue", lambda f: f.bytes_queue, "{:.1f}"),
    Row("bytes per visitor in last-seen marks", lambda f: f.bytes_last_seen, "{:.1f}"),
    Row(
        "bytes per visitor",
        lambda f: f.bytes_per_visitor,
        "{:.1f}",
        "<= 130",
        lambda n: n <= 130,
        size_independent=True,
    ),
    Row(f"tick calling {TICKED}, ms", lambda f: f.tick_ms, "{:.2f}", "<= 5", lambda n: n <= 5, size_independent=True),
    Row("tick skipping absent visitors, ms", lambda f: f.step_over_ms, "{:.2f}"),
    Row("  visitors skipped", lambda f: f.skipped),
    Row("view with a new rank index, ms", lambda f: f.view_ms, "{:.2f}", size_independent=True),
    Row("last-seen mark, us", lambda f: f.seen_us, "{:.2f}"),
)


async def measure(url: str, waiting: int) -> Figures:
    """Fills a room and measures it. The server is flushed first."""
    async with connect(url, timeout_seconds=30) as redis:
        await redis.flushall()
        room = Room(redis)
        await room.store.open(LIMITS)
        first = (await room.store.join(1)).first_place + 1  # the first visitor of an empty room is admitted
        places = range(first, first + waiting)
        empty = await room.used_memory()
        cpu = await room.cpu_seconds()
        few = waiting // 5
        by_500 = await joins_per_second(room, waiting - few, 500)
        by_100 = await joins_per_second(room, few, 100)
        cpu = await room.cpu_seconds() - cpu
        line = await room.used_memory() - empty
        seen_ms = await room.server_ms(lambda: room.store.seen(places))
        for _ in range(AWAY_SECONDS * 1000 // WINDOW_MS):
            await room.wait(WINDOW_MS)
            await room.store.seen(places)
        marked = await room.used_memory() - empty - line
        return Figures(
            waiting=waiting,
            joins_per_second_by_100=by_100,
            joins_per_second_by_500=by_500,
            joins_per_cpu_second=waiting / cpu,
            bytes_queue=line / waiting,
            bytes_last_seen=marked / waiting,
            tick_ms=await tick_ms(room),
            view_ms=await view_ms(room),
            seen_us=seen_ms * 1000 / waiting,
            **await measure_skipping(room),
        )


async def joins_per_second(room: Room, count: int, together: int) -> float:
    """Measures joins as a worker sends them under load: one call in progress while the next joins collect."""
    started = time.perf_counter()
    for _ in range(count // together):
        await room.store.join(together)
    return count / (time.perf_counter() - started)


async def tick_ms(room: Room) -> float:
    """Returns the server's time for a tick that calls `TICKED` visitors."""
    times = []
    for _ in range(ROUNDS):
        room.now += 1000

        async def tick() -> None:
            assert (await room.store.tick()).called == TICKED

        times.append(await room.server_ms(tick))
    return median(times)


async def view_ms(room: Room) -> float:
    """Returns the server's time for a view that builds a new table."""
    times = []
    for _ in range(ROUNDS):
        room.now += 1001
        times.append(await room.server_ms(room.store.view))
    return median(times)


async def measure_skipping(room: Room) -> dict[str, float]:
    """Returns the server's time for a tick that finds nobody present, and how many it skips before it stops."""
    await room.wait(AWAY_SECONDS * 1000 + 2 * WINDOW_MS)
    times, counts = [], []
    for _ in range(ROUNDS):

        async def tick() -> None:
            ticked = await room.store.tick()
            assert ticked.stopped_early
            assert not ticked.called
            counts.append(ticked.skipped)

        times.append(await room.server_ms(tick))
    return {"step_over_ms": median(times), "skipped": median(counts)}


@asynccontextmanager
async def running(server: str | None) -> AsyncIterator[str]:
    """A server of its own, the bundled one or the program ``server``; its URL."""
    chosen = patch("waitroom.process.embedded_store.get_binary_path", return_value=server) if server else nullcontext()
    with tempfile.TemporaryDirectory(prefix="waitroom-bench-") as folder, chosen:
        store = EmbeddedStore(Path(folder))
        await store.start()
        try:
            yield store.url
        finally:
            await store.stop()


async def run(
    sizes: Sequence[int], prequeues: Sequence[int], server: str | None
) -> tuple[list[Figures], list[StartFigures]]:
    """Measures every size, and every size of a prequeue."""
    async with running(server) as url:
        figures = [await measure(url, size) for size in sizes]
    async with running(server) as url, connect(url, timeout_seconds=30) as redis:
        return figures, [await measure_start(Room(redis), size) for size in prequeues]


START_ROWS = (
    Row("bytes per visitor", lambda f: f.bytes_per_visitor, "{:.1f}"),
    Row("script that starts the event, ms", lambda f: f.start_ms, "{:.2f}", "<= 10", lambda n: n <= 10),
    Row("scripts until the first call, ms", lambda f: f.first_called_ms, "{:.2f}", "<= 10", lambda n: n <= 10),
    Row("longest script after the start, ms", lambda f: f.longest_ms, "{:.2f}", "<= 10", lambda n: n <= 10),
    Row("longest tick, half of them gone, ms", lambda f: f.skipping_ms, "{:.2f}", "<= 10", lambda n: n <= 10),
    Row("memory that the start takes, KiB", lambda f: f.grown_bytes / 1024),
    Row("script that ends the event, ms", lambda f: f.end_ms, "{:.2f}", "<= 10", lambda n: n <= 10),
)


def missed_targets(rows: Sequence[Row], figures: Sequence[Any]) -> list[str]:
    """Returns the missed targets, in words."""
    found = []
    for row in rows:
        values = [row.of(figure) for figure in figures]
        for figure, value in zip(figures, values, strict=True):
            if not row.meets(value):
                found.append(f"{row.what} at {figure.waiting:,}: {row.shape.format(value)}, target {row.target}")
        if row.size_independent and max(values) > 2 * min(values):
            found.append(f"{row.what}: differs by more than a factor of two between the sizes")
    return found


def print_results(console: Console, title: str, rows: Sequence[Row], figures: Sequence[Any]) -> None:
    """Prints a table."""
    table = Table(title=title)
    table.add_column("waiting")
    for figure in figures:
        table.add_column(f"{figure.waiting:,}", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("target")
    for row in rows:
        values = [row.of(figure) for figure in figures]
        ratio = f"{values[-1] / values[0]:.2f}" if len(values) > 1 and values[0] else ""
        table.add_row(row.what, *(row.shape.format(value) for value in values), ratio, row.target)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the queue and compares the figures with the targets.")
    parser.add_argument("--server", help="a redis-server or valkey-server to use instead of the bundled one")
    parser.add_argument("--waiting", type=int, action="append", help="a queue length; may be repeated")
    parser.add_argument("--prequeue", type=int, action="append", help="a number in the prequeue; may be repeated")
    options = parser.parse_args()
    if any(size < SMALLEST for size in options.waiting or ()):
        parser.error(f"at least {SMALLEST:,} waiting visitors are needed for all measurements")
    console = Console()
    prequeues = options.prequeue or PREQUEUE_SIZES
    figures, starts = asyncio.run(run(options.waiting or SIZES, prequeues, options.server))
    server = options.server or "the embedded Valkey"
    print_results(console, f"The queue on {server}", ROWS, figures)
    print_results(console, f"A shuffled prequeue on {server}", START_ROWS, starts)
    missed = missed_targets(ROWS, figures) + missed_targets(START_ROWS, starts)
    for miss in missed:
        console.print(f"missed: {miss}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
