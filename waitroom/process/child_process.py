"""A child process of the supervisor, replaced whenever it ends by itself; `waitroom.process.child` is its other end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket

import structlog

from waitroom.net.tls import CertificatePair
from waitroom.process.bootstrap import python_command
from waitroom.process.child import NO_PAIR, READY
from waitroom.settings import Settings, to_json

log = structlog.get_logger()

START_SECONDS = 30.0
RESTART_SECONDS = 0.5  # between two starts of a child that keeps failing
STABLE_SECONDS = 2.0  # a child that ran this long before it died is replaced immediately


class ChildProcess:
    """One child process, replaced whenever it ends by itself.

    Args:
        name: The name in the log.
        module: The module to run.
        slot: The child's number.
        settings: The settings to pass on.
        listener: The socket to serve.
        pair: Certificate and key of the public listener, if the child needs them.
    """

    def __init__(
        self,
        name: str,
        module: str,
        slot: int,
        settings: Settings,
        listener: socket.socket,
        pair: CertificatePair | None = None,
    ) -> None:
        self._name = name
        self._module = module
        self._slot = slot
        self._settings = settings
        self._listener = listener
        self._pair = pair
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Starts the child, and restarts it whenever it ends, until `stop`. If cancelled, kills the child."""
        loop = asyncio.get_running_loop()
        try:
            while not self._stopping:
                started = loop.time()
                code = await self._run_once()
                if self._stop_requested():
                    return
                log.error("process exited unexpectedly, restarting", process=self._name, exit_code=code)
                if loop.time() - started < STABLE_SECONDS:
                    await asyncio.sleep(RESTART_SECONDS)
        finally:
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

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

    def _stop_requested(self) -> bool:
        return self._stopping

    async def _run_once(self) -> int:
        ours, theirs = socket.socketpair()
        arguments = (str(self._slot), str(theirs.fileno()), str(self._listener.fileno()))
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *python_command("waitroom.process.bootstrap", self._module, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._listener.fileno()),
                start_new_session=True,
            )
        if self._stopping:
            self._process.terminate()
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            writer.write(to_json(self._settings) + b"\n")
            writer.write(NO_PAIR if self._pair is None else self._pair.to_json() + b"\n")
            self._writer = writer
            try:
                async with asyncio.timeout(START_SECONDS):
                    await writer.drain()
                    if await reader.read(len(READY)) == READY:
                        self.ready.set()
            except ConnectionError:
                pass  # it has exited already; its exit code says more
            except TimeoutError:
                log.error("process not ready in time", process=self._name, seconds=START_SECONDS)
                self._process.kill()
            return await self._process.wait()
        finally:
            self._writer = None
            writer.close()
