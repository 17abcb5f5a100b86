"""``waitroom run``: runs N edge workers, one control process and, unless another is configured, its own store.

The supervisor creates the listening sockets and keeps them open, one for each worker: connections that arrive while
a worker is replaced wait in the socket's backlog for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import structlog

from waitroom.errors import StartError
from waitroom.metrics.recorder import METRICS_DIR
from waitroom.net.tls import CertificateError, CertificatePair, read_pair
from waitroom.process.bootstrap import python_command
from waitroom.process.child import NO_PAIR, READY
from waitroom.process.data_dir import load_or_create_secret, lock_directory
from waitroom.process.embedded_store import EmbeddedStore
from waitroom.settings import Settings, to_json

log = structlog.get_logger()

BACKLOG = 4096
START_SECONDS = 30.0
RESTART_SECONDS = 0.5  # between two starts of a child that keeps failing
LONGEST_RESTART_SECONDS = 10.0  # between two starts of a store that keeps failing
STABLE_SECONDS = 2.0  # a child that ran this long before it died is replaced immediately
STOP_MARGIN_SECONDS = 5.0


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


class Supervisor:
    """Runs a whole gateway.

    Args:
        settings: As loaded.
        on_ready: Called once, when everything serves, with the settings including the ports that the system chose.
    """

    def __init__(self, settings: Settings, on_ready: Callable[[Settings], None]) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._stop = asyncio.Event()
        self._edges: list[ChildProcess] = []
        self._control: ChildProcess | None = None
        self._pair: CertificatePair | None = None

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT. Raises `StartError`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload_signal)
        self._pair = self._load_certificate()
        data_dir = Path(self._settings.data_dir)
        async with contextlib.AsyncExitStack() as stack:
            listeners = [stack.enter_context(one) for one in listen(self._settings.listen, self._settings.workers)]
            (admin,) = [stack.enter_context(one) for one in listen(self._settings.admin_listen, 1)]
            async with asyncio.TaskGroup() as tasks:
                store_task: asyncio.Task[None] | None = None
                if self._settings.redis_url is None:
                    store = EmbeddedStore(data_dir)
                    await store.start()
                    stack.push_async_callback(store.stop)
                    store_task = tasks.create_task(self._supervise_store(store))
                    url = store.url
                else:
                    stack.callback(os.close, await lock_directory(data_dir))
                    url = self._settings.redis_url
                self._create_metrics_directory(data_dir, stack)
                settings = self._resolve_settings(data_dir, url, listeners[0], admin)
                try:
                    await self._run_children(settings, listeners, admin)
                finally:
                    if store_task is not None:
                        store_task.cancel()

    async def _run_children(self, settings: Settings, listeners: list[socket.socket], admin: socket.socket) -> None:
        self._edges = [
            ChildProcess(f"edge {slot}", "waitroom.edge.worker", slot, settings, listener, self._pair)
            for slot, listener in enumerate(listeners)
        ]
        self._control = ChildProcess("control", "waitroom.control.worker", len(listeners), settings, admin)
        loop = asyncio.get_running_loop()
        edges = [loop.create_task(edge.run()) for edge in self._edges]
        control = loop.create_task(self._control.run())
        watching = loop.create_task(self._report_ready(settings))
        try:
            await self._stop.wait()
            watching.cancel()
            for edge in self._edges:
                edge.stop()
            for listener in listeners:
                listener.close()  # the system refuses new connections now, instead of leaving them in a backlog
            await asyncio.wait(edges, timeout=settings.grace_seconds + STOP_MARGIN_SECONDS)
            self._control.stop()
            await asyncio.wait([control], timeout=STOP_MARGIN_SECONDS)
        finally:
            for task in (*edges, control, watching):
                task.cancel()
            await asyncio.gather(*edges, control, watching, return_exceptions=True)

    async def _report_ready(self, settings: Settings) -> None:
        assert self._control is not None
        for process in (*self._edges, self._control):
            await process.ready.wait()
        self._on_ready(settings)

    def _on_stop_signal(self) -> None:
        if not self._stop.is_set():
            log.info("stopping gracefully, repeat the signal to stop immediately")
            self._stop.set()
            return
        for process in (*self._edges, self._control):
            if process is not None:
                process.stop()

    def _load_certificate(self) -> CertificatePair | None:
        """Loads the configured certificate and key. An expired one is accepted: a start is no time to be strict."""
        try:
            pair = self._read_pair()
        except CertificateError as error:
            raise StartError(f"{error.key} {error}") from error
        if pair is not None and (flaw := pair.browser_error()):
            log.warning("browsers will reject the certificate", cause=flaw, file=self._settings.tls_certificate)
        return pair

    def _read_pair(self) -> CertificatePair | None:
        certificate, key = self._settings.tls_certificate, self._settings.tls_key
        return read_pair(Path(certificate), Path(key)) if certificate is not None and key is not None else None

    def _on_reload_signal(self) -> None:
        """Reloads certificate and key, and nothing else: other settings require a restart."""
        try:
            pair = self._read_pair()
            flaw = None if pair is None else pair.browser_error()
        except CertificateError as error:
            log.error("invalid certificate, keeping the current one", cause=f"{error.key} {error}")
            return
        if pair is None:
            log.info("nothing to reload: TLS is not configured")
        elif flaw is not None:
            log.error("browsers would reject the new certificate, keeping the current one", cause=flaw)
        else:
            self._pair = pair
            for edge in self._edges:
                edge.send_certificate(pair)

    async def _supervise_store(self, store: EmbeddedStore) -> None:
        while True:
            code = await store.wait()
            log.error("embedded store exited unexpectedly, restarting", exit_code=code)
            await store.stop()
            await self._restart_store(store)

    async def _restart_store(self, store: EmbeddedStore) -> None:
        pause = RESTART_SECONDS
        while True:
            try:
                await store.start()
            except StartError as error:
                log.error("embedded store failed to start, retrying", cause=str(error), seconds=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_RESTART_SECONDS)
            else:
                return

    def _resolve_settings(self, data_dir: Path, url: str, public: socket.socket, admin: socket.socket) -> Settings:
        given = self._settings
        return dataclasses.replace(
            given,
            listen=_with_port(given.listen, public),
            admin_listen=_with_port(given.admin_listen, admin),
            redis_url=url,
            secrets=given.secrets or (load_or_create_secret(data_dir / "secret"),),
            secrets_file=None,
        )

    def _create_metrics_directory(self, data_dir: Path, stack: contextlib.AsyncExitStack) -> None:
        folder = data_dir / METRICS_DIR
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)


def listen(address: str, count: int) -> list[socket.socket]:
    """Returns sockets bound to one address, to be shared by ``count`` processes. Raises `StartError`."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    sockets: list[socket.socket] = []
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With only SO_REUSEPORT, a second gateway of the same user would silently get half of the visitors.
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
        for _ in range(count):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(target)
            target = one.getsockname()  # if the system chose the port, all others use that of the first
            one.listen(BACKLOG)
            one.setblocking(False)
    except OSError as error:
        for one in sockets:
            one.close()
        raise StartError(f"can't listen on {address}: {error.strerror or error}") from error
    return sockets


def _with_port(address: str, bound: socket.socket) -> str:
    """Returns the address with the socket's actual port, which the settings may leave to the system."""
    return f"{address.rpartition(':')[0]}:{bound.getsockname()[1]}"
