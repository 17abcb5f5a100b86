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
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import structlog

from waitroom.errors import StartError, SupervisorError
from waitroom.metrics.recorder import METRICS_DIR
from waitroom.net.tls import CertificateError, CertificatePair, read_pair
from waitroom.process.child_process import ChildProcess, report
from waitroom.process.data_dir import (
    AUDIT_KEY_FILE,
    SECRET_FILE,
    derived_audit_key,
    load_or_create_secret,
    lock_directory,
)
from waitroom.process.embedded_store import EmbeddedStore
from waitroom.process.listeners import listen, with_port
from waitroom.process.liveness import LOOK_SECONDS, Liveness
from waitroom.process.spawner import Spawner
from waitroom.process.status import describe, has_stuck_role
from waitroom.process.store_process import StoreProcess
from waitroom.process.systemd import from_environment
from waitroom.process.worker_status import encode_report
from waitroom.settings import Settings

log = structlog.get_logger()

STOP_MARGIN_SECONDS = 5.0
PINGS_PER_TIMEOUT = 4  # of the service manager's watchdog


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
        self._store: StoreProcess | None = None
        self._spawner = Spawner()
        self._manager = from_environment()
        self._is_ready = False
        self._status = ""
        self._next_ping = 0.0
        self._pair: CertificatePair | None = None

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT. Raises `StartError`, or `SupervisorError` if the gateway can't go on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload_signal)
        self._pair = self._load_certificate()
        data_dir = Path(self._settings.data_dir)
        async with contextlib.AsyncExitStack() as stack:
            listeners = [stack.enter_context(one) for one in listen(self._settings.listen, self._settings.workers)]
            (admin,) = [stack.enter_context(one) for one in listen(self._settings.admin_listen, 1)]
            if self._settings.redis_url is None:
                store = EmbeddedStore.from_settings(self._settings, self._spawner)
                if not await self._until_stop(store.start()):
                    return
                stack.push_async_callback(store.stop)
                self._store = StoreProcess(store)
                url = store.url
            else:
                stack.callback(os.close, await lock_directory(data_dir))
                url = self._settings.redis_url
            self._create_metrics_directory(data_dir, stack)
            settings = self._resolve_settings(data_dir, url, listeners[0], admin)
            await self._run_children(settings, listeners, admin)

    async def _until_stop(self, start: Coroutine[Any, Any, None]) -> bool:
        """Completes a start, or cancels it when told to stop. Returns whether it was completed."""
        starting = asyncio.create_task(start)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
            return starting.done()
        finally:
            await _cancel([starting, stopping])

    async def _run_children(self, settings: Settings, listeners: list[socket.socket], admin: socket.socket) -> None:
        self._edges = [
            ChildProcess(f"edge {slot}", "waitroom.edge.worker", slot, settings, listener, self._spawner, self._pair)
            for slot, listener in enumerate(listeners)
        ]
        self._control = ChildProcess(
            "control", "waitroom.control.worker", len(listeners), settings, admin, self._spawner
        )
        loop = asyncio.get_running_loop()
        edges = [loop.create_task(edge.run(), name=edge.name) for edge in self._edges]
        control = loop.create_task(self._control.run(), name=self._control.name)
        watching = loop.create_task(self._watch(settings.stuck_after_seconds), name="watch")
        store = [] if self._store is None else [loop.create_task(self._store.run(), name=self._store.name)]
        reporting = loop.create_task(self._report_ready(settings))
        stopping = loop.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait(
                [stopping, *edges, control, *store, watching], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {stopping}:
                raise task.exception() or SupervisorError(f"the supervision of {task.get_name()!r} has ended")
            reporting.cancel()
            for edge in self._edges:
                edge.stop()
            for listener in listeners:
                listener.close()  # the system refuses new connections now, instead of leaving them in a backlog
            await asyncio.wait(edges, timeout=settings.grace_seconds + STOP_MARGIN_SECONDS)
            self._control.stop()
            await asyncio.wait([control], timeout=STOP_MARGIN_SECONDS)
        finally:
            await _cancel([*edges, control, *store, watching, reporting, stopping])

    async def _watch(self, limit: float) -> None:
        """Looks after the children until cancelled. Raises `SupervisorError` if none can be started."""
        liveness = Liveness(limit)
        failing = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._look(liveness, asyncio.get_running_loop().time())
                failing = False
            except SupervisorError:
                raise
            except Exception as error:  # visitors are served all the same
                if not failing:
                    report("looking after the processes failed", cause=repr(error))
                failing = True

    def _look(self, liveness: Liveness, now: float) -> None:
        self._spawner.reap_orphans()
        children = {child.name: child for child in self._children()}
        signs = {name: sign for name, child in children.items() if (sign := child.take_sign()) is not None}
        decision = liveness.look(now, signs, sum(child.exists for child in children.values()))
        for name in decision.warn:
            report("process stuck, not replaced: too many replacements", process=name)
        if decision.replace is not None:
            report("process stuck, replacing it", process=decision.replace)
            children[decision.replace].kill()
        if decision.childless and not self._stop.is_set():
            raise SupervisorError("no child process could be started; the log has the causes")
        self._report_workers(liveness, now)
        self._report_status(describe(children, signs, decision.stuck))
        if self._manager.watchdog_seconds is not None and now >= self._next_ping:
            if not has_stuck_role(children, decision.stuck):
                self._manager.notify(WATCHDOG="1")
            self._next_ping = now + self._manager.watchdog_seconds / PINGS_PER_TIMEOUT

    def _report_status(self, status: str) -> None:
        """Reports a status to the service manager if it has changed."""
        if status != self._status and not self._stop.is_set():
            self._status = status
            self._manager.notify(STATUS=status)

    def _report_workers(self, liveness: Liveness, now: float) -> None:
        """Reports the state of the edge workers to the control process, for `/readyz`."""
        workers = [edge.status(liveness.silence(edge.name), now) for edge in self._edges]
        if self._control is not None:
            self._control.send(encode_report(workers))

    def _children(self) -> list[ChildProcess | StoreProcess]:
        return [*self._edges, *(child for child in (self._control, self._store) if child is not None)]

    async def _report_ready(self, settings: Settings) -> None:
        assert self._control is not None
        for process in (*self._edges, self._control):
            await process.ready.wait()
        self._is_ready = True
        self._manager.notify(READY="1")
        with contextlib.suppress(Exception, SystemExit):  # nobody may read what it prints
            self._on_ready(settings)

    def _on_stop_signal(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._manager.notify(STOPPING="1", STATUS="Stopping: requests in progress may finish")
            log.info("stopping gracefully, repeat the signal to stop immediately")
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
        if self._is_ready:
            self._manager.notify(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))
        self._reload()
        if self._is_ready:
            self._manager.notify(READY="1")

    def _reload(self) -> None:
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

    def _resolve_settings(self, data_dir: Path, url: str, public: socket.socket, admin: socket.socket) -> Settings:
        given = self._settings
        audit_key, accepted = given.audit_key, given.accepted_audit_keys
        if (
            audit_key is None
            and given.redis_url is not None
            and given.secrets
            and not (data_dir / AUDIT_KEY_FILE).exists()
        ):
            # Gateways that share a store have the same secrets, and each would make a key of its own.
            audit_key, *older = map(derived_audit_key, given.secrets)
            accepted = (*older, *accepted)
        elif audit_key is None:  # the control process reads it, but an error should end the start
            load_or_create_secret(data_dir / AUDIT_KEY_FILE)
        return dataclasses.replace(
            given,
            audit_key=audit_key,
            accepted_audit_keys=accepted,
            listen=with_port(given.listen, public),
            admin_listen=with_port(given.admin_listen, admin),
            redis_url=url,
            secrets=given.secrets or (load_or_create_secret(data_dir / SECRET_FILE),),
            secrets_file=None,
        )

    def _create_metrics_directory(self, data_dir: Path, stack: contextlib.AsyncExitStack) -> None:
        folder = data_dir / METRICS_DIR
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.unlink(missing_ok=True)  # a file in its place
            folder.mkdir(mode=0o700)
        except OSError as error:
            report("metrics directory not created", directory=str(folder), cause=error.strerror)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
