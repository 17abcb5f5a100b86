"""The protocol of sd_notify(3), spoken to a real socket."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from waitroom.process.systemd import ServiceManager

PID = 4711


@contextmanager
def receiver(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.settimeout(10)
        one.bind(address)
        yield one


@pytest.mark.parametrize("abstract", [False, True])
def test_values_arrive_in_one_datagram(tmp_path: Path, abstract: bool) -> None:
    name = f"waitroom-{uuid.uuid4().hex}" if abstract else str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": f"@{name}" if abstract else name, "HOME": "/"}
    with receiver(f"\0{name}" if abstract else name) as one:
        manager = ServiceManager(environment, PID)
        manager.notify(READY="1", STATUS="2 of 2 workers serve visitors → ok")
        assert one.recv(1000) == "READY=1\nSTATUS=2 of 2 workers serve visitors → ok".encode()
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    "address", ["", "/nowhere/at/all", "@nobody-listens", "vsock:2:1234", "relative", "/" + "x" * 200]
)
def test_a_manager_that_cannot_be_reached_changes_nothing(address: str) -> None:
    ServiceManager({"NOTIFY_SOCKET": address}, PID).notify(READY="1")


def test_a_manager_that_reads_nothing_delays_nobody(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with receiver(address):
        manager = ServiceManager({"NOTIFY_SOCKET": address}, PID)
        for _ in range(int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 3):
            manager.notify(WATCHDOG="1")


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(PID)}, 1.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # another process's
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_or_nobodys(variables: dict[str, str], seconds: float | None) -> None:
    environment = {"NOTIFY_SOCKET": "/run/notify", **variables}
    assert ServiceManager(environment, PID).watchdog_seconds == seconds
    assert not environment


def test_an_environment_without_a_manager() -> None:
    assert ServiceManager({"WATCHDOG_USEC": "30000000"}, os.getpid()).watchdog_seconds is None
