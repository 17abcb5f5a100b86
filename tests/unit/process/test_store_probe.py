"""A store is alive while it answers anything, or does anything."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gateway_process import eventually
from waitroom.process import store_probe
from waitroom.process.store_probe import StoreProbe


@pytest.fixture
def suspended() -> Iterator[int]:
    """A process that does nothing at all."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def busy() -> Iterator[int]:
    """A process that only computes."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_probe, "ANSWER_SECONDS", 0.05)


@pytest.mark.parametrize(
    "answer", [b"+PONG\r\n", b"-LOADING\r\n", b"-BUSY\r\n", b"-ERR max number of clients reached\r\n"]
)
async def test_any_answer_is_a_sign_of_life(
    tmp_path: Path, suspended: int, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_probe, "ANSWER_SECONDS", 30.0)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "store.sock"):
        probe = StoreProbe(tmp_path / "store.sock", tmp_path)
        assert [await probe.is_alive(suspended) for _ in range(3)] == [True] * 3


async def test_a_store_that_only_accepts_is_not_alive(tmp_path: Path, suspended: int) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "store.sock"))
        listener.listen()
        probe = StoreProbe(tmp_path / "store.sock", tmp_path)
        await probe.is_alive(suspended)
        assert not await probe.is_alive(suspended)


async def test_progress_is_a_sign_of_life(tmp_path: Path, suspended: int) -> None:
    probe = StoreProbe(tmp_path / "store.sock", tmp_path)
    file = tmp_path / "appendonlydir" / "appendonly.aof.1.incr.aof"
    file.parent.mkdir()
    file.touch()
    await probe.is_alive(suspended)
    assert not await probe.is_alive(suspended)

    file.write_bytes(b"*1\r\n")
    assert await probe.is_alive(suspended)
    assert not await probe.is_alive(suspended)


async def test_cpu_time_is_a_sign_of_life(tmp_path: Path, busy: int) -> None:
    probe = StoreProbe(tmp_path / "store.sock", tmp_path)
    await probe.is_alive(busy)
    await eventually(lambda: probe.is_alive(busy))


async def test_without_a_file_descriptor_no_store_counts_as_stuck(tmp_path: Path, suspended: int) -> None:
    """The supervisor, or the whole system, has none left: that is no reason to kill a store that serves."""
    probe = StoreProbe(tmp_path / "store.sock", tmp_path)
    await probe.is_alive(suspended)
    assert not await probe.is_alive(suspended)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        found = [await probe.is_alive(suspended) for _ in range(3)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert found == [True] * 3
