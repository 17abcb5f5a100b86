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
from waitroom.process.child_process import RESTART_SECONDS, ChildProcess
from waitroom.process.data_dir import load_or_create_secret, lock_directory
from waitroom.process.embedded_store import EmbeddedStore
from waitroom.process.listeners import listen, with_port
from waitroom.settings import Settings

log = structlog.get_logger()

LONGEST_RESTART_SECONDS = 10.0  # between two starts of a store that keeps failing
STOP_MARGIN_SECONDS = 5.0


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
            listen=with_port(given.listen, public),
            admin_listen=with_port(given.admin_listen, admin),
            redis_url=url,
            secrets=given.secrets or (load_or_create_secret(data_dir / "secret"),),
            secrets_file=None,
        )

    def _create_metrics_directory(self, data_dir: Path, stack: contextlib.AsyncExitStack) -> None:
        folder = data_dir / METRICS_DIR
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
