"""The demonstration: a real shop, a crowd that breaks it, then the gateway in front and the same crowd again."""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from rich.console import Console

from waitroom.drill.load.crowd import Crowd, Plan
from waitroom.drill.processes import ChildProcesses, ProcessFailedError
from waitroom.drill.report.terminal import Baseline, Progress, Snapshot, Summary, summary_report
from waitroom.drill.scraping import fetch_shop_stats, scrape_room
from waitroom.drill.shop.app import QUERY_SECONDS
from waitroom.process.bootstrap import python_command

T = TypeVar("T")

LEAST_SECONDS = 5.0

ROOM = "shop"

_SEED = 5000
_BASELINE_SECONDS = 6.0
_START_SECONDS = 30.0
_TICK_SECONDS = 1.0
_LAST_VISITORS_SECONDS = 8.0
_QUERIES_PER_VISIT = 7
_SHOP_SHARE = 0.5
_STAY_SECONDS = 10.0
_HOST = "127.0.0.1"


class _StoppedError(Exception):
    """Ctrl-C, or the signal to end."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes of shop and crowd, chosen so that the crowd is served in time and the shop stays healthy.

    Attributes:
        visitors: Visitors in the crowd.
        seconds: The time limit for the crowd.
        baseline_seconds: How long the crowd visits the shop without the gateway.
        rate_per_minute: The room's rate.
        max_active: The room's maximum of active visitors.
        capacity: The shop's database connections.
        stock: Units for sale: enough for all, and for users who join in with a browser.
    """

    visitors: int
    seconds: float
    baseline_seconds: float
    rate_per_minute: int
    max_active: int
    capacity: int
    stock: int

    @classmethod
    def of(cls, visitors: int, seconds: float) -> Scale:
        """Choose the scale for a number of visitors and an overall duration.

        Raises:
            ValueError: There are no visitors, or less than five seconds.
        """
        if visitors < 1 or seconds < LEAST_SECONDS:
            raise ValueError(f"a demo needs at least 1 visitor and {LEAST_SECONDS:g} seconds")
        baseline = min(_BASELINE_SECONDS, seconds / 5)
        crowd = seconds - baseline
        # The last visitors admitted need time to shop, too.
        per_second = visitors / max(crowd - _LAST_VISITORS_SECONDS, crowd / 2)
        return cls(
            visitors=visitors,
            seconds=crowd,
            baseline_seconds=baseline,
            rate_per_minute=math.ceil(per_second * 60),
            max_active=max(10, math.ceil(per_second * _STAY_SECONDS)),
            capacity=math.ceil(per_second * _QUERIES_PER_VISIT * 2 * QUERY_SECONDS / _SHOP_SHARE),
            stock=visitors + 100,
        )

    def plan(self) -> Plan:
        """Return the arrival plan of the visitors."""
        return Plan(self.visitors, burst_seconds=min(2.0, self.seconds / 10), trickle_seconds=self.seconds * 0.4)


def gateway_command(config: Path) -> Sequence[str]:
    """Return the command that runs the gateway on a settings file."""
    return python_command("waitroom", "run", "--config", str(config))


def shop_command(scale: Scale, data: Path) -> Sequence[str]:
    """Return the command that runs the shop on a free port."""
    options = {"--port": 0, "--stock": scale.stock, "--capacity": scale.capacity, "--data": data}
    return python_command("waitroom.drill.shop.app", *(str(word) for pair in options.items() for word in pair))


def settings_text(scale: Scale, *, listen: str, admin: str, upstream: str, data_dir: Path) -> str:
    """Return the gateway's settings file, as TOML."""
    return f"""\
listen = {json.dumps(listen)}
admin_listen = {json.dumps(admin)}
workers = 2
trusted_proxies = ["127.0.0.1"]
data_dir = {json.dumps(str(data_dir))}
grace_seconds = 3.0
log_level = "warning"

[[rooms]]
name = {json.dumps(ROOM)}
upstream = {json.dumps(upstream)}
rate_per_minute = {scale.rate_per_minute}
max_active = {scale.max_active}
session_seconds = 300
"""


def free_port(preferred: int, *, taken: Sequence[int] = ()) -> int:
    """Return the preferred port of the loopback address if it is free, otherwise another free one."""
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As servers do: a port with only old connections in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
                probe.listen(1)
            except OSError:
                continue
            found = int(probe.getsockname()[1])
            if found not in taken:
                return found
    raise ProcessFailedError("no port of the loopback address is free")


async def run_demo(*, keep: bool, seconds: float, visitors: int, console: Console) -> int:
    """Run the demonstration, and clean up however it ends.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP end it early, with a summary so far.

    Args:
        keep: Keep the shop and the gateway running afterwards, until Ctrl-C.
        seconds: The duration, at least 5; it ends sooner when all visitors have left.
        visitors: The number of visitors, at least 1.
        console: The console for the output.

    Returns:
        The exit code: 0, or 1 if the shop or the gateway failed to start or ended too early.

    Raises:
        ValueError: Too few visitors or seconds.
    """
    scale = Scale.of(visitors, seconds)
    stop = asyncio.Event()
    with _signals(stop):
        async with _temporary_folder() as folder:
            try:
                await _Demo(scale, folder, stop, console).run(keep)
            except _StoppedError:
                console.print("Stopped.")
            except ProcessFailedError as error:
                console.print(f"The demo failed: {error}", style="red", markup=False, highlight=False)
                return 1
    return 0


class _Demo:
    """One demonstration in one temporary directory."""

    def __init__(self, scale: Scale, folder: Path, stop: asyncio.Event, console: Console) -> None:
        self._scale = scale
        self._folder = folder
        self._stop = stop
        self._console = console

    async def run(self, keep: bool) -> None:
        """Run all steps; raise `_StoppedError` if there is nothing to summarize yet."""
        baseline = await self._run_without_gateway()
        async with ChildProcesses() as processes:
            shop = await self._start_shop(processes, "shop")
            origin, admin = await self._start_gateway(processes, shop)
            self._print_addresses(origin, admin)
            async with aiohttp.ClientSession() as session:
                await self._run_with_gateway(processes, session, baseline, origin=origin, admin=admin, shop=shop)
            if keep and not self._stop.is_set():
                self._print_kept_running(origin, admin)
                with suppress(_StoppedError):
                    await self._unless_stopped(self._stop.wait(), processes)

    async def _run_without_gateway(self) -> Baseline:
        """Send the crowd to the shop directly, for a short time."""
        seconds = self._scale.baseline_seconds
        async with ChildProcesses() as processes, aiohttp.ClientSession() as session:
            shop = await self._start_shop(processes, "bare-shop")
            self._print(
                f"{self._scale.visitors:,} visitors arrive at a small shop. First {seconds:.0f} s without Waitroom …"
            )
            crowd = self._crowd(shop)
            await self._unless_stopped(crowd.run(seconds), processes)
            figures = await fetch_shop_stats(session, shop)
            tally = crowd.tally
            sold = 0 if figures is None else figures.orders
        self._print(f"… {tally.failures:,} of {tally.requests:,} requests failed, {sold:,} sold.\n")
        return Baseline(seconds, tally.requests, tally.failures, sold)

    async def _run_with_gateway(
        self,
        processes: ChildProcesses,
        session: aiohttp.ClientSession,
        baseline: Baseline,
        *,
        origin: str,
        admin: str,
        shop: str,
    ) -> None:
        """Send the crowd to the gateway, show the figures, and summarize."""
        crowd, loop = self._crowd(origin), asyncio.get_running_loop()
        started = loop.time()

        async def watch() -> None:
            with Progress(self._console) as progress:
                while True:
                    progress.show(await self._snapshot(session, crowd, loop.time() - started, admin, shop))
                    await asyncio.sleep(_TICK_SECONDS)

        async def watched_crowd() -> None:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(watch())
                await crowd.run(self._scale.seconds)
                watcher.cancel()

        with suppress(_StoppedError):
            await self._unless_stopped(watched_crowd(), processes)
        took = loop.time() - started
        figures, room = await fetch_shop_stats(session, shop), await scrape_room(session, admin, ROOM)
        self._console.print(summary_report(Summary.of(crowd, took, figures, room, baseline)))

    async def _snapshot(
        self, session: aiohttp.ClientSession, crowd: Crowd, elapsed: float, admin: str, shop: str
    ) -> Snapshot:
        room, figures = await asyncio.gather(scrape_room(session, admin, ROOM), fetch_shop_stats(session, shop))
        return Snapshot(
            elapsed=elapsed,
            seconds=self._scale.seconds,
            arrived=crowd.arrived(),
            waiting=crowd.waiting() if room is None or room.waiting is None else room.waiting,
            called=None if room is None else room.called,
            active=crowd.shopping() if room is None or room.active is None else room.active,
            max_active=self._scale.max_active,
            admitted=crowd.admitted(),
            per_minute=crowd.admitted_per_minute(),
            sold=0 if figures is None else figures.orders,
            errors=crowd.tally.failures,
        )

    def _crowd(self, origin: str) -> Crowd:
        # The same seed each time: the same crowd visits the shop with and without the gateway.
        return Crowd(origin, ROOM, self._scale.plan(), random.Random(_SEED))  # noqa: S311 - not for secrets

    async def _start_shop(self, processes: ChildProcesses, name: str) -> str:
        command = shop_command(self._scale, self._folder / f"{name}.sqlite")
        child = await processes.start(name, command, self._folder, pipe=True)
        line = await self._unless_stopped(child.first_line(_START_SECONDS), processes)
        return line.rsplit(" ", 1)[-1]

    async def _start_gateway(self, processes: ChildProcesses, shop: str) -> tuple[str, str]:
        """Start the gateway and wait until it is ready; return its public and its admin origin."""
        port = free_port(8080)
        listen, admin = f"{_HOST}:{port}", f"{_HOST}:{free_port(8081, taken=[port])}"
        config = self._folder / "waitroom.toml"
        text = settings_text(self._scale, listen=listen, admin=admin, upstream=shop, data_dir=self._folder / "data")
        await asyncio.to_thread(config.write_text, text, "utf-8")
        child = await processes.start("gateway", gateway_command(config), self._folder)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._unless_stopped(_until_ready(f"http://{admin}"), processes)
        except TimeoutError as error:
            raise child.failed(f"wasn't ready within {_START_SECONDS:g} s") from error
        return f"http://{listen}", f"http://{admin}"

    async def _unless_stopped(self, work: Coroutine[Any, Any, T], processes: ChildProcesses) -> T:
        """Run the work and return its result, unless a signal arrives or a child process ends."""
        task, stopped = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        ended = asyncio.create_task(processes.wait_any())
        try:
            await asyncio.wait({task, stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                raise _StoppedError
            if task.done():
                return task.result()
            raise ended.result().failed("exited unexpectedly")
        finally:
            for each in (task, stopped, ended):
                each.cancel()
            await asyncio.gather(task, stopped, ended, return_exceptions=True)

    def _print_addresses(self, origin: str, admin: str) -> None:
        scale = self._scale
        self._print(
            f"Now with Waitroom in front: {scale.rate_per_minute:,} visitors per minute, "
            f"at most {scale.max_active:,} in the shop.\n"
            f"  shop, through the gateway: {origin}/\n"
            f"  dashboard:                 {admin}/\n"
            "Open the shop in a browser to join the queue behind the crowd.\n"
        )

    def _print_kept_running(self, origin: str, admin: str) -> None:
        self._print(
            f"The shop ({origin}/) and the gateway keep running until Ctrl-C.\nTry: waitroom status --admin {admin}"
        )

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


async def _until_ready(admin: str) -> None:
    """Ask ``/readyz`` until it answers 200."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
        while True:
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with session.get(f"{admin}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _temporary_folder() -> AsyncIterator[Path]:
    # A short name: the path of a Unix socket is limited to about a hundred bytes.
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="waitroom-"))
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
