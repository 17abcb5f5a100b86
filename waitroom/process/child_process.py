"""A child process of the supervisor, replaced whenever it ends by itself; `waitroom.process.child` is its other end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections import deque

import structlog

from waitroom.net.tls import CertificatePair
from waitroom.process.bootstrap import child_environment, python_command
from waitroom.process.child import NO_PAIR, READY
from waitroom.process.spawner import Spawner
from waitroom.process.worker_status import EXITS_SECONDS, WorkerStatus
from waitroom.settings import Settings, to_json

log = structlog.get_logger()

START_SECONDS = 30.0
RESTART_SECONDS = 0.5  # between two starts of a child that keeps failing
STABLE_SECONDS = 2.0  # a child that ran this long before it died is replaced immediately
EXIT_SECONDS = 10.0  # for a child that has closed its channel


def report(event: str, **values: object) -> None:
    """Logs an error. If the line can't be written it is lost: no log may keep a process from being restarted."""
    with contextlib.suppress(Exception):
        log.error(event, **values)


class ChildProcess:
    """One child process, replaced whenever it ends by itself.

    Args:
        name: The child's name, in the log and elsewhere.
        module: The module to run.
        slot: The child's number.
        settings: The settings to pass on.
        listener: The socket to serve.
        spawner: Starts the processes.
        pair: Certificate and key of the public listener, if the child needs them.
    """

    def __init__(
        self,
        name: str,
        module: str,
        slot: int,
        settings: Settings,
        listener: socket.socket,
        spawner: Spawner,
        pair: CertificatePair | None = None,
    ) -> None:
        self.name = name
        self._module = module
        self._slot = slot
        self._settings = settings
        self._listener = listener
        self._spawner = spawner
        self._pair = pair
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._alive = False
        self._exits: deque[float] = deque()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Starts the child, and restarts it whenever it ends, until `stop`. If cancelled, kills the child.

        No failure ends it: a system without free processes or files may have some later.
        """
        loop = asyncio.get_running_loop()
        try:
            while not self._stopping:
                started = loop.time()
                try:
                    code = await self._run_once()
                except Exception as error:
                    report("process not started or not supervised, restarting", process=self.name, cause=repr(error))
                    await self._end()
                    self._exits.append(loop.time())
                else:
                    if self._stop_requested():
                        return
                    self._exits.append(loop.time())
                    report("process exited unexpectedly, restarting", process=self.name, exit_code=code)
                if loop.time() - started < STABLE_SECONDS:
                    await asyncio.sleep(RESTART_SECONDS)
        finally:
            await self._end()

    def take_sign(self) -> bool | None:
        """Whether the child has shown a sign of life since the last call; None while it isn't ready."""
        alive, self._alive = self._alive, False
        return alive if self.ready.is_set() else None

    def status(self, silent_seconds: float, now: float) -> WorkerStatus:
        """Returns the child's state for the supervisor's report.

        Args:
            silent_seconds: The time since its last sign of life.
            now: The loop's time.
        """
        while self._exits and self._exits[0] <= now - EXITS_SECONDS:
            self._exits.popleft()
        return WorkerStatus(self.name, self.ready.is_set(), silent_seconds, len(self._exits))

    @property
    def exists(self) -> bool:
        """Whether there is a process, ready or not."""
        return self._process is not None and self._process.returncode is None

    def kill(self) -> None:
        """Kills the child, even if it is stopped and takes no other signal; `run` starts another."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def stop(self) -> None:
        """Asks the child to finish its work and exit; a second call, to exit immediately."""
        number = signal.SIGINT if self._stopping else signal.SIGTERM  # see process/child.py
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def send_certificate(self, pair: CertificatePair) -> None:
        """Passes another certificate and key to the child and its successors."""
        self._pair = pair
        if self._writer is not None:
            self._writer.write(pair.to_json() + b"\n")

    def send(self, line: bytes) -> None:
        """Sends a line to the child, unless it hasn't read the ones before."""
        writer = self._writer
        if writer is not None and self.ready.is_set() and not writer.transport.get_write_buffer_size():
            writer.write(line)

    def _stop_requested(self) -> bool:
        return self._stopping

    async def _run_once(self) -> int:
        ours, theirs = socket.socketpair()
        arguments = (str(self._slot), str(theirs.fileno()), str(self._listener.fileno()))
        with contextlib.ExitStack() as on_failure, theirs:
            on_failure.callback(ours.close)
            self._process = await self._spawner.start(
                *python_command("waitroom.process.bootstrap", self._module, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                env=child_environment(),
                pass_fds=(theirs.fileno(), self._listener.fileno()),
                start_new_session=True,
            )
            on_failure.pop_all()
        if self._stopping:
            self._process.terminate()
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            writer.write(to_json(self._settings) + b"\n")
            writer.write(NO_PAIR if self._pair is None else self._pair.to_json() + b"\n")
            self._writer = writer
            await self._attend(reader, writer)
            return await self._exited()
        finally:
            self.ready.clear()
            self._writer = None
            writer.close()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes note of what the child reports, until it closes its channel or isn't ready in time."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await writer.drain()
                while (line := await reader.readline()) != READY:
                    if not line:
                        return
            self.ready.set()
            self._alive = True
            while await reader.readline():
                self._alive = True
        except ConnectionError:
            pass  # it has exited already; its exit code says more
        except TimeoutError:
            report("process not ready in time", process=self.name, seconds=START_SECONDS)
            self.kill()

    async def _exited(self) -> int:
        """Waits until the process has ended, and makes sure that it does. Returns its exit code."""
        assert self._process is not None
        try:
            async with asyncio.timeout(EXIT_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            report("process doesn't exit, killing it", process=self.name, seconds=EXIT_SECONDS)
            self.kill()
            return await self._process.wait()

    async def _end(self) -> None:
        self.kill()
        if self._process is not None:
            await self._process.wait()
