"""Faults of the machine, the store and the shop, for a gateway in real processes."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.gateway_process import Gateway, needs
from support.redis_server import SystemRedis
from waitroom.queue.store import KEYS


async def killed(gateway: Gateway) -> Path:
    """Kills everything as a power cut does; returns the file that the embedded store was writing to."""
    assert gateway.process is not None
    gateway.process.kill()
    assert await gateway.ended() == -signal.SIGKILL
    return max((gateway.data_dir / "appendonlydir").glob("*.incr.aof"))


async def emptied(redis: SystemRedis, gateway: Gateway) -> None:
    """The store comes back without its file."""
    await redis.kill()
    redis.forget()
    await redis.start()


async def flushed(redis: SystemRedis, gateway: Gateway) -> None:
    """``FLUSHALL``."""
    async with gateway.store() as client:
        await client.flushall()


async def rolled_back(redis: SystemRedis, older: Path) -> None:
    """The store goes back to an older copy of its file, as after a failover to a replica that lagged."""
    await redis.kill()
    redis.forget()
    shutil.copytree(older, redis.file)
    await redis.start()


async def evicted(gateway: Gateway, name: str) -> None:
    """Something else fills the store's memory, until one of the room's keys has gone for it."""
    keys = [f"waitroom:{{{name}}}:{KEYS[key]}" for key in ("room", "waiting", "active")]
    async with gateway.store() as client:
        used = int((await client.info("memory"))["used_memory"])
        await client.config_set("maxmemory-policy", "allkeys-random")
        await client.config_set("maxmemory", used + 500_000)
        for number in range(100_000):
            if number % 20 == 0 and await client.exists(*keys) < len(keys):
                break
            await client.set(f"cache:{number}", bytes(10_000))
        else:
            pytest.fail("nothing was evicted")
        await client.config_set("maxmemory", 0)


@contextlib.contextmanager
def small_disk(folder: Path, size: int = 1 << 20) -> Iterator[Path]:
    """A file system of its own; where this user may not mount one, the test is skipped, or fails where CI is set."""
    folder.mkdir()
    command = [needs("mount"), "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        assert not os.environ.get("CI"), mounted.stderr
        pytest.skip(f"can't mount a file system: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run([needs("umount"), "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all that is left; call it again, since a worker may have been replacing its file."""
    path = folder / "full"
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


@contextlib.contextmanager
def reader_that_dies() -> Iterator[tuple[int, Callable[[], None]]]:
    """A pipe, and what closes its other end."""
    reader, writer = os.pipe()
    with os.fdopen(reader) as file:
        try:
            yield writer, file.close
        finally:
            os.close(writer)


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """As many files for this process as it may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
