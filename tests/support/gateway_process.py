"""A whole gateway as people run it: real processes, started and ended by a test, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from support.ports import free_port, port_is_free
from waitroom.process.embedded_store import EmbeddedStore
from waitroom.store.connection import connect
from waitroom.tokens import Tokens

# Two, as during a rotation of secrets: the first signs, both verify.
SECRET = "the secret that signs in these tests"
OLD_SECRET = "the secret that signed before that one"
MARK = "GATEWAY_UNDER_TEST"
START_SECONDS = 120.0
WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.05
STORE_SECONDS = 10.0
PATIENCE_SECONDS = 120.0  # of a client with a busy machine

Found = TypeVar("Found")


async def eventually(
    check: Callable[[], Found | Awaitable[Found]], *, seconds: float = WAIT_SECONDS, every: float = LOOK_SECONDS
) -> Found:
    """What ``check`` gives as soon as that is true. An assertion that fails in it is tried again.

    Raises:
        AssertionError: it never was in so many seconds; with the last reason.
    """
    deadline = time.monotonic() + seconds
    while True:
        reason: Exception | None = None
        found: Any = None
        try:
            found = check()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
        except (AssertionError, OSError, aiohttp.ClientError, TimeoutError) as error:
            reason = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {reason or found!r}") from reason
        await asyncio.sleep(every)


def needs(program: str) -> str:
    """The path of a program of the system's, or of a Python package's.

    Without it the test is skipped, or fails where CI is set.
    """
    folders = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin")
    path = shutil.which(program, path=":".join(folders))
    if path is None:
        assert not os.environ.get("CI"), f"{program} is missing: install it"
        pytest.skip(f"{program} is missing")
    return path


def room(name: str, **settings: Any) -> dict[str, Any]:
    """A room of its own host, so that tests share a gateway and nothing else; with slots enough for whoever comes."""
    return {"name": name, "hosts": [f"{name}.test"], "rate_per_minute": 600_000, "max_active": 10_000, **settings}


@dataclass(frozen=True)
class Process:
    """A process of a gateway's."""

    pid: int
    parent: int
    command: str

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    @property
    def peak_memory(self) -> int:
        """The most bytes of memory it ever held at once."""
        return int(self._told("VmHWM").split()[0]) * 1024

    async def suspend(self) -> None:
        """Stops it until SIGCONT; it takes no signal meanwhile."""
        self.kill(signal.SIGSTOP)
        await eventually(lambda: self._told("State").split()[0] == "T")

    def awaits(self, number: signal.Signals) -> bool:
        """Whether it has been sent a signal that it hasn't taken yet, being suspended."""
        return bool(int(self._told("ShdPnd"), 16) & 1 << (number - 1))

    def _told(self, name: str) -> str:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(line for line in lines if line.startswith(f"{name}:")).partition(":")[2]


@dataclass
class Gateway:
    """A gateway over a folder; may be started, stopped and killed again and again.

    Attributes:
        folder: Of its settings, log and data.
        settings: The top level of its file; ``rooms`` are the rooms.
        mistakes: Whether its log may hold tracebacks.
        source: The folder of another version's source, to run that one.
        environment: Variables that only this gateway has, such as those that change its clock.
        output: What its standard output and error lead to, instead of its log.
        wrapper: A program, with its first arguments, that starts it.
    """

    folder: Path
    settings: dict[str, Any]
    rooms: list[dict[str, Any]]
    mistakes: bool = False
    source: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    output: int | None = None
    wrapper: Sequence[str] = ()
    process: asyncio.subprocess.Process | None = None
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    _mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    _http: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def config(self) -> Path:
        return self.folder / "waitroom.toml"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        """All that it wrote, of every start."""
        path = self.folder / "gateway.log"
        return path.read_text() if path.exists() else ""

    @property
    def http(self) -> aiohttp.ClientSession:
        """A client that keeps neither cookies nor connections: each request may meet another worker."""
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS),
                auto_decompress=False,
            )
        return self._http

    def tokens(self, name: str, secret: str = SECRET) -> Tokens:
        """Signs as the gateway does."""
        return Tokens([secret], name)

    # Its life.

    def write(self) -> None:
        """Writes the settings file."""
        top = {
            "listen": f"127.0.0.1:{self.port}",
            "admin_listen": f"127.0.0.1:{self.admin_port}",
            "data_dir": str(self.data_dir),
            "workers": 2,
            "secrets": [SECRET, OLD_SECRET],
            **self.settings,
        }
        top = {key: value for key, value in top.items() if value is not None}
        self.config.write_text(toml(top, self.rooms))

    async def spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        """Starts the program without waiting for it. Its words go to the log."""
        self.write()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WAITROOM_")}
        version = () if self.source is None else (needs("env"), f"PYTHONPATH={self.source}")
        with (self.folder / "gateway.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                # Tied to this process, so that it ends even where a test run is killed.
                *(
                    sys.executable,
                    "-m",
                    "waitroom.process.pdeathsig",
                    str(os.getpid()),
                    *version,
                    *self.wrapper,
                    sys.executable,
                    "-m",
                    "waitroom",
                ),
                *(arguments or ("run", "--config", str(self.config))),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log if self.output is None else self.output,
                stderr=log if self.output is None else self.output,
                cwd=self.folder,
                env={**environment, **self.environment, MARK: self._mark},
                start_new_session=True,
            )
        return self.process

    async def start(self) -> None:
        """Starts it and waits until it is ready."""
        process = await self.spawn()

        async def ready() -> bool:
            if process.returncode is not None:
                pytest.fail(f"the gateway ended with {process.returncode}:\n{self.log}")
            return await self.is_ready()

        try:
            await eventually(ready, seconds=START_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from error

    async def ready(self) -> int:
        """The status of /readyz; 0 where nobody answers."""
        try:
            async with self.http.get(f"{self.admin}/readyz", timeout=aiohttp.ClientTimeout(total=5)) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def is_ready(self) -> bool:
        """Whether /readyz says so."""
        return await self.ready() == 200

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to end and waits for that; returns its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it and all that it started are gone."""
        process = self.process
        assert process is not None
        async with asyncio.timeout(START_SECONDS):
            code = await process.wait()
        try:
            await eventually(lambda: not self.processes())
        except AssertionError:
            raise AssertionError(f"left behind: {self.processes()}\n{self.log}") from None
        return code

    async def close(self) -> None:
        """Ends it, whatever state it is in, and sees to it that nothing is left."""
        try:
            if self.process is not None:
                await self.stop()
                self._assert_nothing_left()
        finally:
            for process in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            if self._http is not None:
                await self._http.close()
        if not self.mistakes:
            assert "Traceback" not in self.log, self.log

    def _assert_nothing_left(self) -> None:
        left = EmbeddedStore(self.data_dir).socket
        assert not left.exists(), f"{left} is left behind"
        assert left.parent == self.data_dir or not left.parent.exists(), f"{left.parent} is left behind"
        assert not (self.data_dir / "metrics").exists()
        assert port_is_free(self.port), "the public port is still taken"
        assert port_is_free(self.admin_port), "the admin port is still taken"
        if self.data_dir.exists():
            assert_unlocked(self.data_dir)

    # Its processes.

    def processes(self) -> list[Process]:
        """All that live and come from a start of this gateway."""
        return list(_marked(self._mark, self.data_dir))

    def children(self, part: str = "") -> list[Process]:
        """The supervisor's children whose command line has this part: edge.worker, control.worker, valkey."""
        assert self.process is not None
        return [one for one in self.processes() if one.parent == self.process.pid and part in one.command]

    async def replaced(self, part: str, count: int, old: Sequence[Process]) -> list[Process]:
        """So many children with this part in their command lines, none of them an old one."""

        def look() -> list[Process]:
            gone = {one.pid for one in old}
            found = self.children(part)
            return found if len(found) == count and not gone & {one.pid for one in found} else []

        return await eventually(look)

    # What it tells.

    async def metrics(self) -> dict[tuple[str, ...], float]:
        """Every sample by its name and its label values other than the room's, for the only or first room."""
        return await self.metrics_of(self.rooms[0]["name"])

    async def metrics_of(self, name: str) -> dict[tuple[str, ...], float]:
        """Every sample of a room by its name and its other labels' values."""
        async with self.http.get(f"{self.admin}/metrics") as answer:
            assert answer.status == 200
            text = await answer.text()
        return {
            (sample.name, *(value for label, value in sample.labels.items() if label != "room")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("room") == name
        }

    async def room(self, name: str) -> dict[str, Any]:
        """How a room stands, by the admin API."""
        async with self.http.get(f"{self.admin}/api/v1/rooms") as answer:
            assert answer.status == 200
            rooms = (await answer.json())["rooms"]
        return next(one for one in rooms if one["name"] == name)

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[Redis]:
        """A client of the store it uses."""
        url = self.settings.get("redis_url") or EmbeddedStore(self.data_dir).url
        async with connect(url, timeout_seconds=STORE_SECONDS) as redis:
            yield redis

    async def total(self, name: str, counter: str = "joined") -> int:
        """A counter of a room, from the store itself: ``joined``, ``admitted``, ``returned``, ``left:left`` …"""
        async with self.store() as redis:
            return int(await redis.hget(f"waitroom:{{{name}}}:room", f"total:{counter}") or 0)

    async def members(self, name: str, key: str) -> dict[int, int]:
        """Places and scores of ``waiting``, ``called``, ``away`` or ``active``, from the store itself."""
        async with self.store() as redis:
            pairs = await redis.zrange(f"waitroom:{{{name}}}:{key}", 0, -1, withscores=True)
        return {int(member): int(score) for member, score in pairs}


@contextlib.asynccontextmanager
async def running_gateway(
    folder: Path,
    rooms: Sequence[Mapping[str, Any]],
    *,
    mistakes: bool = False,
    source: Path | None = None,
    environment: Mapping[str, str] | None = None,
    output: int | None = None,
    wrapper: Sequence[str] = (),
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """A gateway that is ready; it is ended with the block, and nothing of it may be left then."""
    os.makedirs(folder, exist_ok=True)
    copied = [dict(one) for one in rooms]
    gateway = Gateway(folder, settings, copied, mistakes, source, dict(environment or {}), output, wrapper)
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.close()


def assert_unlocked(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise AssertionError(f"{folder} is still locked") from None
    finally:
        os.close(descriptor)


def toml(top: Mapping[str, Any], rooms: Sequence[Mapping[str, Any]]) -> str:
    """A settings file."""
    lines = [f"{key} = {_value(value)}" for key, value in top.items()]
    for one in rooms:
        lines += ["", "[[rooms]]", *(f"{key} = {_value(value)}" for key, value in one.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return json.dumps(value)


def _marked(mark: str, data_dir: Path) -> Iterator[Process]:
    """The processes of this environment, and the store, which writes its title over that but works in its folder."""
    sought = f"{MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = _stat(int(folder.name))
                if parent is None:
                    continue
                if sought in (folder / "environ").read_bytes().split(b"\0") or (folder / "cwd").readlink() == data_dir:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    yield Process(int(folder.name), parent, command)


def _stat(pid: int) -> int | None:
    """The parent of a process that lives."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state in "ZX" else int(parent)
