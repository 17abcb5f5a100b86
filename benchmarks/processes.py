"""Processes for the benchmarks: started here, pinned to a core, with CPU time and memory read from the system."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
# Below the ports that the system uses for outgoing connections.
PORTS = range(20000, 32000)


class StartFailedError(Exception):
    """A process didn't start, or ended early."""


def cores() -> tuple[set[int], set[int]]:
    """Returns the core for the server under test, and those for everything else."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SystemExit("at least two cores are needed: one for the server under test, one for the load and the shop")
    return {usable[0]}, set(usable[1:])


def raise_file_limit() -> int:
    """Raises the limit of open files to its maximum, for this process and its children; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def program(name: str) -> str:
    """Returns the path of an installed program."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if path is None:
        raise SystemExit(f"{name} is missing; benchmarks/system-packages.sh installs it on Debian")
    return path


def free_port() -> int:
    """Returns a free port of the loopback address."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise SystemExit("no free port on 127.0.0.1")


def wait_until_answers(port: int, process: subprocess.Popen[bytes], path: str = "/") -> None:
    """Waits until a process answers HTTP on the port, or has ended."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(POLL_SECONDS)
        finally:
            connection.close()
    raise StartFailedError(f"no response on 127.0.0.1:{port}")


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program until the block ends, then terminates it. Its output goes to ``log``."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("WAITROOM_")}
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
    try:
        yield process
        if process.poll() is not None:
            raise StartFailedError(f"it exited unexpectedly ({process.returncode})")
    except StartFailedError as error:
        raise SystemExit(f"{command[0]}: {error}\n{log.read_text(errors='replace')[-2000:]}") from error
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def process_tree(pid: int) -> list[int]:
    """Returns a process and its descendants."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def command_line(pid: int) -> str:
    """Returns the arguments of a process; "" if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def pin(pids: Sequence[int], to: set[int]) -> None:
    """Pins every thread of these processes to these cores."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), to)


def cpu_seconds(pids: Sequence[int]) -> float:
    """Returns user and system time of all threads, as the scheduler counts it, in nanoseconds at best."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def memory_bytes(pids: Sequence[int]) -> int:
    """Returns the processes' own memory, plus their shares of shared memory (PSS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
