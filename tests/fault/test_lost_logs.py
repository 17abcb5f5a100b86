"""A log line that can't be written is lost, and nothing else. The store is away meanwhile, so there is much to log."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.faults import reader_that_dies
from support.gateway_process import Gateway, Process, eventually, needs, room, running_gateway
from support.redis_server import SystemRedis, system_redis
from support.upstreams.server import Shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[SystemRedis]:
    async with system_redis(tmp_path / "redis") as redis:
        yield redis


Output = Callable[[], "contextlib.AbstractContextManager[tuple[int, Callable[[], None]]]"]


@contextlib.contextmanager
def full_disk() -> Iterator[tuple[int, Callable[[], None]]]:
    """From the start: no line is ever written."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        yield descriptor, lambda: None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def reader_that_hangs() -> Iterator[tuple[int, Callable[[], None]]]:
    """It never reads, and the pipe is full from some moment on."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)

    def fill() -> None:
        flags = fcntl.fcntl(writer, fcntl.F_GETFL)
        fcntl.fcntl(writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, b"x" * size)
        fcntl.fcntl(writer, fcntl.F_SETFL, flags)  # the gateway shares the flags

    try:
        yield writer, fill
    finally:
        os.close(writer)
        os.close(reader)


def pids(processes: list[Process]) -> set[int]:
    return {one.pid for one in processes}


async def served(inside: Visitor, waiting: Visitor) -> None:
    """Visitors inside continue to shop, and waiting visitors see their position."""
    assert (await inside.navigate("/page")).status == 200
    assert (await waiting.status())["state"] == "waiting"
    assert (await waiting.navigate()).state in ("waiting", "held")


async def store_is(gateway: Gateway, up: bool) -> None:
    await eventually(lambda: gateway.is_ready() if up else _unready(gateway))


async def _unready(gateway: Gateway) -> bool:
    return await gateway.ready() == 503


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(full_disk, marks=pytest.mark.long),
        reader_that_dies,
        pytest.param(reader_that_hangs, marks=pytest.mark.long),
    ],
)
async def test_a_log_that_takes_no_line(tmp_path: Path, shop: Shop, redis: SystemRedis, output: Output) -> None:
    rooms = [room("shop", upstream=shop.address, max_active=1)]
    with output() as (descriptor, breaks):
        async with running_gateway(
            tmp_path / "gateway", rooms, output=descriptor, redis_url=redis.url, log_level="debug"
        ) as gateway:
            inside, waiting = Visitor(gateway, "shop"), Visitor(gateway, "shop")
            await inside.goes_in()
            await waiting.waits()
            before = pids(gateway.children())
            breaks()

            redis.signal(signal.SIGSTOP)
            await store_is(gateway, False)
            for _ in range(5):
                await served(inside, waiting)
            redis.signal(signal.SIGCONT)
            await store_is(gateway, True)
            await eventually(lambda: _same_answers(inside, waiting))
            assert pids(gateway.children()) == before, "no process was ended by its log"

            # A process that is killed now is replaced, although that can't be logged.
            (control,) = gateway.children("control.worker")
            (edge, _) = gateway.children("edge.worker")
            for one in (control, edge):
                one.kill()
            await eventually(lambda: _replaced(gateway, {control.pid, edge.pid}))
            await store_is(gateway, True)
            await served(inside, waiting)
            await inside.call("leave")
            await waiting.state("called")
            await waiting.is_let_in()
            assert await gateway.stop() == 0


async def _same_answers(inside: Visitor, waiting: Visitor) -> bool:
    await served(inside, waiting)
    await waiting.position(1)
    return True


def _replaced(gateway: Gateway, gone: set[int]) -> bool:
    found = pids(gateway.children())
    return len(found) == 3 and not found & gone


@pytest.mark.long
async def test_standard_streams_that_are_closed(tmp_path: Path, shop: Shop) -> None:
    """Descriptor 2 is another file by then: nothing may be written to it."""
    rooms = [room("shop", upstream=shop.address)]
    wrapper = (needs("sh"), "-c", 'exec "$@" >&- 2>&-', "sh")
    async with running_gateway(tmp_path, rooms, workers=1, wrapper=wrapper, log_level="debug") as gateway:
        visitor = Visitor(gateway, "shop")
        await visitor.goes_in()
        (edge,) = gateway.children("edge.worker")
        edge.kill()
        await gateway.replaced("edge.worker", 1, [edge])
        await eventually(lambda: visitor.is_let_in())
        assert await gateway.stop() == 0
    assert gateway.log == ""
