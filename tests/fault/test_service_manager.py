"""The gateway under a service manager that speaks systemd's protocol, and as the parent of processes of others."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from support.gateway_process import Gateway, Process, eventually, needs, room
from support.upstreams.server import Shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow

WATCHDOG_SECONDS = 4


class Manager:
    """The service manager: its socket, and all values that it was sent."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(str(path))
        self.values: list[tuple[str, str]] = []

    def read(self) -> list[tuple[str, str]]:
        """Reads all values that have come in; returns all so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                lines = self.socket.recv(4096).decode().splitlines()
                self.values += [(name, value) for name, _, value in (line.partition("=") for line in lines)]
        return self.values

    def count(self, name: str, value: str) -> int:
        return self.read().count((name, value))

    async def gets(self, name: str, value: str, times: int = 1) -> None:
        await eventually(lambda: self.count(name, value) >= times)


@contextlib.asynccontextmanager
async def managed(gateway: Gateway, path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Manager]:
    manager = Manager(path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_SECONDS * 1_000_000))
    try:
        await gateway.spawn()
        yield manager
    finally:
        await gateway.close()
        manager.socket.close()


async def test_systemd_learns_of_start_reload_stuck_processes_and_stop(
    tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(tmp_path, {"stuck_after_seconds": 5}, [room("shop", upstream=shop.address)])
    async with managed(gateway, tmp_path / "notify", monkeypatch) as manager:
        await manager.gets("READY", "1")
        await Visitor(gateway, "shop").goes_in()  # it is true
        await manager.gets("STATUS", "2 of 2 workers serving")
        await manager.gets("WATCHDOG", "1", times=3)
        for child in gateway.children():
            assert not {b"NOTIFY_SOCKET", b"WATCHDOG_USEC"} & environment(child), child

        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGHUP)
        await manager.gets("READY", "1", times=2)
        names = [name for name, _ in manager.values]
        assert names.index("RELOADING") < names.index("MONOTONIC_USEC") < len(names) - names[::-1].index("READY") - 1

        old = gateway.children("edge.worker")
        await old[0].suspend()
        await manager.gets("STATUS", "1 of 2 workers serving")  # replaced, and not yet ready
        await manager.gets("STATUS", "2 of 2 workers serving", times=2)
        await gateway.replaced("edge.worker", 2, old[:1])
        before = manager.count("WATCHDOG", "1")
        await manager.gets("WATCHDOG", "1", times=before + 2)

        await gateway.stop()
        assert manager.count("STOPPING", "1") == 1


def environment(process: Process) -> set[bytes]:
    """The names of the variables that a process was started with."""
    pairs = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    return {name for name, _, _ in (pair.partition(b"=") for pair in pairs)}


def zombies(parent: int) -> Iterable[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                state, found = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                if state == "Z" and int(found) == parent:
                    yield int(folder.name)


async def test_processes_of_others_do_not_stay_zombies(tmp_path: Path, shop: Shop) -> None:
    """A script that starts the gateway by exec leaves it the script's children, as a container does to process 1."""
    gateway = Gateway(tmp_path, {}, [room("shop", upstream=shop.address)])
    shell = 'for n in 1 2 3 4 5; do (exit $n) & done; sleep 0.1 & exec "$@"'
    gateway.wrapper = (needs("sh"), "-c", shell, "sh")
    process = await gateway.spawn()
    try:
        assert await eventually(lambda: list(zombies(process.pid)))
        await eventually(gateway.is_ready)
        await eventually(lambda: not list(zombies(process.pid)))

        (worker, *_) = old = gateway.children("edge.worker")
        worker.kill()
        await gateway.replaced("edge.worker", 2, old[:1])
        assert '"exit_code": -9' in gateway.log  # reaped by whom it concerns
    finally:
        await gateway.close()
