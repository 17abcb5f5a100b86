"""The child processes of a drill, and their reliable termination."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from waitroom.errors import WaitroomError
from waitroom.process.bootstrap import child_environment, python_command

_STOP_SECONDS = 10.0
_KILL_SECONDS = 5.0
_LOG_TAIL_BYTES = 2000


class ProcessFailedError(WaitroomError):
    """A process of the drill failed to start, or ended early."""


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A child process.

    Attributes:
        name: The name for messages.
        process: The process; it leads its own process group.
        log: The file for its standard error, and for its output unless that is piped.
    """

    name: str
    process: asyncio.subprocess.Process
    log: Path

    async def first_line(self, seconds: float) -> str:
        """Return the first line of the piped output, without the line end.

        Raises:
            ProcessFailedError: The process ended, or printed nothing within ``seconds``.
        """
        if self.process.stdout is None:
            raise ValueError(f"the output of {self.name} isn't piped")
        try:
            async with asyncio.timeout(seconds):
                line = await self.process.stdout.readline()
        except TimeoutError as error:
            raise self.failed(f"printed nothing within {seconds:g} s") from error
        if not line:
            raise self.failed("exited during startup")
        return line.decode("utf-8", "replace").rstrip()

    def failed(self, what: str) -> ProcessFailedError:
        """Return an error with this message and the end of the log."""
        try:
            tail = self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
        except OSError:
            tail = ""
        return ProcessFailedError(f"the {self.name} {what}" + (f"\n{tail}" if tail else ""))

    async def stop(self) -> None:
        """Stop the process: SIGTERM and time to finish, then SIGKILL. All processes it started are killed too."""
        try:
            if self.process.returncode is None:
                with suppress(ProcessLookupError):
                    self.process.terminate()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_SECONDS):
                        await self.process.wait()
        finally:
            # No other process is in the group, since the child was started as its leader.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(_KILL_SECONDS):
                await self.process.wait()


class ChildProcesses:
    """Child processes that are stopped together when the block is left, the last started first."""

    def __init__(self) -> None:
        self._processes: list[ChildProcess] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            while self._processes:
                await self._processes[-1].stop()
                self._processes.pop()
        except BaseException:
            for child in self._processes:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.process.pid, signal.SIGKILL)
            raise

    async def start(self, name: str, command: Sequence[str], folder: Path, *, pipe: bool = False) -> ChildProcess:
        """Start a process in its own session, so that Ctrl-C reaches it only through this process.

        Where the system supports it, the process ends even if this one is killed.

        Args:
            name: The name for messages and for the log file.
            command: The program's path and its arguments.
            folder: The directory of the log.
            pipe: Whether its output is piped to this process instead of the log.

        Raises:
            ProcessFailedError: The program can't be run.
        """
        log = folder / f"{name}.log"
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        wrapper = python_command("waitroom.process.pdeathsig", str(os.getpid()))
        try:
            process = await asyncio.create_subprocess_exec(
                *wrapper,
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if pipe else descriptor,
                stderr=descriptor,
                env=child_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise ProcessFailedError(f"can't run {command[0]}: {error}") from error
        finally:
            os.close(descriptor)
        child = ChildProcess(name, process, log)
        self._processes.append(child)
        return child

    async def wait_any(self) -> ChildProcess:
        """Wait until one of the processes ends by itself, and return it. At least one must have been started."""
        ends = {asyncio.create_task(child.process.wait()): child for child in self._processes}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        return ends[done.pop()]
