"""The experience of visitors in a full room during faults, as a table for docs/reliability.md.

Forty visitors are inside a room of forty slots and shop, two hundred wait and poll, and now and then one leaves. Each
fault lasts a moment or five seconds. Times are only printed; what is asserted is what visitors are promised.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.exceptions import RedisError

from support.busy_room import NAME, SLOTS, WAITING, Answers, BusyRoom, busy_room
from support.faketime import FakeClock, fake_clock
from support.faults import (
    emptied,
    evicted,
    fill,
    flushed,
    killed,
    many_files,
    reader_that_dies,
    rolled_back,
    small_disk,
)
from support.gateway_process import Gateway, eventually, needs, room, running_gateway
from support.redis_server import SystemRedis, system_redis
from support.upstreams.server import running_shop
from support.visitor_client import Wire

SECONDS = 5.0  # how long a fault lasts that is ended by somebody
STUCK_SECONDS = 5  # the least that `stuck_after_seconds` may be
AFTER_SECONDS = 6.0  # how long visitors are watched after it
WARM_UP_ENTRIES = 3
IDLE_CONNECTIONS = 1600
HOURS = 7
DISK_BYTES = 48 << 20


@dataclass
class World:
    """What a fault may break.

    Attributes:
        options: For `running_gateway`.
    """

    folder: Path
    stack: AsyncExitStack
    shop_stack: AsyncExitStack
    shop_port: int
    options: dict[str, Any] = field(default_factory=dict)
    own_redis: SystemRedis | None = None
    own_clock: FakeClock | None = None
    breaks: Callable[[], None] = lambda: None
    running: Gateway | None = None
    busy: BusyRoom | None = None

    @property
    def gateway(self) -> Gateway:
        assert self.running is not None
        return self.running

    @property
    def redis(self) -> SystemRedis:
        assert self.own_redis is not None
        return self.own_redis

    async def command(self, *words: str) -> None:
        """Runs a command in the store."""
        async with self.gateway.store() as client:
            await client.execute_command(*words)


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        strike: Breaks something, and returns when that is over, or has begun if it lasts.
        own_redis: Whether the store is a Redis of the system's, and not the embedded one.
        loses: Whether the store loses data that its gateway knows.
        prepare: Runs before the gateway starts.
        warm: Runs in the full room, some time before the fault.
    """

    name: str
    strike: Callable[[World], Awaitable[None]]
    own_redis: bool = False
    loses: bool = False
    prepare: Callable[[World], None] = lambda world: None
    warm: Callable[[World], Awaitable[None]] | None = None


@dataclass
class Row:
    """What was met during one fault.

    Attributes:
        normal: Seconds from the beginning of the fault until a visitor entered who was called after it.
        pause: The longest time between two entries, in seconds.
        lost: How many places of waiting visitors the store doesn't hold.
        beyond: How many visitors too many were inside or called at one moment.
        overtaken: How many visitors waited while a later one was called.
    """

    fault: str
    inside: Answers
    waiting: Answers
    normal: float
    pause: float
    lost: int
    beyond: int
    overtaken: int

    def __str__(self) -> str:
        """As docs/reliability.md has it."""
        cells = [
            *(self.fault, told(self.inside), f"{self.inside.slowest:.1f} s"),
            *(told(self.waiting), f"{self.waiting.gap:.1f} s"),
            *(f"{self.normal:.1f} s", f"{self.pause:.1f} s"),
            *(str(count) for count in (self.lost, self.beyond, self.overtaken)),
        ]
        return f"| {' | '.join(cells)} |"


TITLES = (
    "| fault | inside: failed | slowest | waiting: failed | longest gap | normal after | longest pause | places lost "
    "| beyond `max_active` | overtaken |\n|---|---|---:|---|---:|---:|---:|---:|---:|---:|"
)


def told(answers: Answers) -> str:
    """How many requests failed, and how."""
    others = ", ".join(f"{count} {what}" for what, count in answers.others.most_common())
    return f"{answers.others.total():,} of {answers.requests:,}" + (f" ({others})" if others else "")


async def nothing(world: World) -> None:
    pass


def kills(part: str) -> Callable[[World], Awaitable[None]]:
    async def strike(world: World) -> None:
        old = world.gateway.children(part)
        old[0].kill()
        await world.gateway.replaced(part, len(old), old[:1])

    return strike


def suspends(part: str) -> Callable[[World], Awaitable[None]]:
    async def strike(world: World) -> None:
        old = world.gateway.children(part)
        await old[0].suspend()
        await world.gateway.replaced(part, len(old), old[:1])

    return strike


async def restarts(world: World) -> None:
    assert await world.gateway.stop() == 0
    await world.gateway.start()


async def power_cut(world: World) -> None:
    file = await killed(world.gateway)
    with file.open("ab") as damaged:
        damaged.write(b"\xff\x00*3\r\n$3\r\nSE" * 9)
    await world.gateway.start()


async def store_stops(world: World) -> None:
    await world.redis.stop()
    await asyncio.sleep(SECONDS)
    await world.redis.start()


async def store_empties(world: World) -> None:
    await emptied(world.redis, world.gateway)


async def store_is_flushed(world: World) -> None:
    await flushed(world.redis, world.gateway)


async def store_evicts(world: World) -> None:
    await evicted(world.gateway, NAME)


async def copies_store(world: World) -> None:
    shutil.copytree(world.redis.file, world.folder / "older")


async def store_goes_back(world: World) -> None:
    await rolled_back(world.redis, world.folder / "older")


def for_a_while(begin: tuple[str, ...], end: tuple[str, ...]) -> Callable[[World], Awaitable[None]]:
    """Two commands in the store, and what is between them."""

    async def strike(world: World) -> None:
        await world.command(*begin)
        await asyncio.sleep(SECONDS)
        await world.command(*end)

    return strike


async def store_is_busy(world: World) -> None:
    async def endless() -> None:
        with contextlib.suppress(RedisError, TimeoutError):
            await world.command("EVAL", "while true do end", "0")

    await world.command("CONFIG", "SET", "lua-time-limit", "100")
    script = asyncio.create_task(endless())
    await asyncio.sleep(SECONDS)
    await world.command("SCRIPT", "KILL")
    await script


def on_a_small_disk(world: World) -> None:
    world.folder = world.stack.enter_context(small_disk(world.folder / "disk", DISK_BYTES))


async def disk_is_full(world: World) -> None:
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        fill(world.folder)
        await asyncio.sleep(0.1)
    fill(world.folder).unlink()


async def metrics_are_removed(world: World) -> None:
    shutil.rmtree(world.gateway.data_dir / "metrics")


def logs_to_a_pipe(world: World) -> None:
    world.options["output"], world.breaks = world.stack.enter_context(reader_that_dies())


async def breaks(world: World) -> None:
    world.breaks()


def has_a_clock(world: World) -> None:
    world.own_clock = fake_clock(world.folder)
    world.options["environment"] = world.own_clock.environment


async def clock_jumps(world: World) -> None:
    assert world.own_clock is not None
    world.own_clock.set(HOURS)
    await asyncio.sleep(1)  # the processes read it once a second


def has_few_files(world: World) -> None:
    world.stack.enter_context(many_files())
    world.options["wrapper"] = (needs("sh"), "-c", 'ulimit -n 1024 && exec "$@"', "sh")


async def files_run_out(world: World) -> None:
    async with AsyncExitStack() as idle:
        for number in range(IDLE_CONNECTIONS):
            with contextlib.suppress(OSError):
                await idle.enter_async_context(Wire.open(world.gateway, source=f"127.0.{1 + number % 100}.1"))
        await asyncio.sleep(SECONDS)


async def shop_is_down(world: World) -> None:
    await world.shop_stack.aclose()
    await asyncio.sleep(SECONDS)
    await world.shop_stack.enter_async_context(running_shop(world.shop_port))


HASH = f"waitroom:{{{NAME}}}:room"
EMBEDDED = [
    Fault("none", nothing),
    Fault("an edge worker is killed", kills("edge.worker")),
    Fault("an edge worker is stopped", suspends("edge.worker")),
    Fault("the control process is killed", kills("control.worker")),
    Fault("the control process is stopped", suspends("control.worker")),
    Fault("the embedded store is killed", kills("valkey")),
    Fault("the embedded store is stopped", suspends("valkey")),
    Fault("the gateway is restarted", restarts),
    Fault("power cut, damaged file", power_cut, loses=True),
    Fault("full disk, 5 s", disk_is_full, prepare=on_a_small_disk),
    Fault("the metrics folder is removed", metrics_are_removed),
    Fault("the reader of the log is gone", breaks, prepare=logs_to_a_pipe),
    Fault("1,600 connections at `ulimit -n 1024`, 5 s", files_run_out, prepare=has_few_files),
    Fault("the shop is down, 5 s", shop_is_down),
]
OWN_REDIS = [
    Fault("Redis is down, 5 s", store_stops, own_redis=True),
    Fault("Redis comes back empty", store_empties, own_redis=True, loses=True),
    Fault("FLUSHALL", store_is_flushed, own_redis=True, loses=True),
    Fault("Redis evicts keys", store_evicts, own_redis=True, loses=True),
    Fault("Redis goes back to an older file", store_goes_back, own_redis=True, loses=True, warm=copies_store),
    Fault(
        "Redis is a replica, 5 s",
        for_a_while(("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        own_redis=True,
    ),
    Fault(
        "Redis is out of memory, 5 s",
        for_a_while(("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        own_redis=True,
    ),
    Fault("Redis is busy with a script, 5 s", store_is_busy, own_redis=True),
    Fault(
        "an odd value in the room's hash, 5 s",
        for_a_while(("HSET", HASH, "state", "bogus"), ("HSET", HASH, "state", "open")),
        own_redis=True,
    ),
    Fault("the gateway's clock is 7 h ahead", clock_jumps, own_redis=True, prepare=has_a_clock),
]


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    print("\n", TITLES, *rows, sep="\n")


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> Any:
    async with AsyncExitStack() as stack, AsyncExitStack() as shop_stack:
        shop = await shop_stack.enter_async_context(running_shop())
        port = int(shop.address.rpartition(":")[2])
        yield World(tmp_path, stack, shop_stack, port)


async def moves(busy: BusyRoom) -> None:
    """Waits until some visitors have entered."""
    wanted = len(busy.entries) + WARM_UP_ENTRIES
    await eventually(lambda: len(busy.entries) >= wanted)


@pytest.mark.parametrize("fault", EMBEDDED + OWN_REDIS, ids=lambda fault: fault.name.replace(" ", "-"))
async def test_visitors_keep_what_they_have(world: World, rows: list[Row], fault: Fault) -> None:
    stack = world.stack
    fault.prepare(world)
    if fault.own_redis:
        world.own_redis = await stack.enter_async_context(system_redis(world.folder / "redis"))
        world.options["redis_url"] = world.own_redis.url
    rooms = [room(NAME, upstream=f"http://127.0.0.1:{world.shop_port}", max_active=SLOTS)]
    options = {"stuck_after_seconds": STUCK_SECONDS, **world.options}
    world.running = await stack.enter_async_context(running_gateway(world.folder / "gateway", rooms, **options))
    busy = await stack.enter_async_context(busy_room(world.gateway))
    await moves(busy)
    if fault.warm:
        await fault.warm(world)
        await moves(busy)

    busy.begin()
    began = time.monotonic()
    await fault.strike(world)
    over = time.monotonic()
    normal = await busy.next_entry()
    await asyncio.sleep(max(0.0, over + AFTER_SECONDS - time.monotonic()))
    lost = await busy.lost()
    times = [began, *(at for at, _ in busy.entries)]
    row = Row(
        fault.name,
        deepcopy(busy.inside),
        deepcopy(busy.waiting),
        normal - began,
        max(later - earlier for earlier, later in itertools.pairwise(times)),
        len(lost),
        max(0, busy.most - SLOTS),
        len(busy.overtaken),
    )
    rows.append(row)
    print(f"\n{row}\nleaving: {told(busy.leaving)}; {busy.samples} samples, {len(busy.entries)} entries")

    wrongs = {visitor.place: visitor.wrongs for visitor in busy.visitors if visitor.wrongs}
    assert not wrongs
    assert (row.lost, row.beyond) == (0, 0)
    # After a loss, calls resume once nine tenths of those who waited have reported.
    assert row.overtaken <= (WAITING // 10 if fault.loses else 0)
    # An overshoot is counted for each visitor whom a store adopts while it has visitors again who had left.
    assert fault.loses or await world.gateway.total(NAME, "overshoot") == 0
    assert busy.most > 0
    assert busy.samples > 20
