"""Whether the gateway is ready: the state of each edge worker, and a probe of the public port in its own protocol."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Final

from waitroom.net.proxy_protocol import LOCAL
from waitroom.process.worker_status import EXITS_SECONDS, WorkerStatus, decode_report
from waitroom.settings import Settings

PROBE_SECONDS = 2.0
# A healthy worker shows life once a second. A busy machine may delay it, and visitors with it.
MAX_SILENT_SECONDS: Final = 5.0
# A worker that keeps exiting is ready in between. One that was killed once or twice is replaced, and that is all.
MIN_EXITS: Final = 3
MAX_REPORT_SECONDS: Final = 10.0  # the age of the newest report

_REQUEST = b"HEAD /.waitroom/status HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


class WorkerReports:
    """The supervisor's newest report on the edge workers.

    Args:
        clock: A clock in seconds that never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._workers: tuple[WorkerStatus, ...] = ()
        self._at = clock()

    def record(self, line: bytes) -> None:
        """Records a report as it was received."""
        self._workers = decode_report(line)
        self._at = self._clock()

    def alive(self) -> int:
        """Returns how many workers serve."""
        if self._clock() - self._at > MAX_REPORT_SECONDS:
            return 0
        return sum(worker.ready and worker.silent_seconds < MAX_SILENT_SECONDS for worker in self._workers)

    def problems(self) -> list[str]:
        """Returns what keeps the gateway from being ready, a sentence for each worker."""
        age = self._clock() - self._at
        if age > MAX_REPORT_SECONDS:
            return [f"no report on the workers for {age:.0f} s: the supervisor doesn't run"]
        return worker_problems(self._workers)


def worker_problems(workers: Sequence[WorkerStatus]) -> list[str]:
    """Returns what is wrong with the workers, a sentence for each."""
    found = []
    for worker in workers:
        if worker.exits >= MIN_EXITS:
            found.append(f"{worker.name}: exited {worker.exits} times in the last {EXITS_SECONDS:.0f} s")
        elif not worker.ready:
            found.append(f"{worker.name}: not running")
        elif worker.silent_seconds >= MAX_SILENT_SECONDS:
            found.append(f"{worker.name}: no sign of life for {worker.silent_seconds:.0f} s")
    return found


async def is_serving(settings: Settings) -> bool:
    """Whether a worker responds on the public port. Any response will do, even to a host that no room has."""
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(_ANYWHERE.get(host, host), int(port))
            if settings.proxy_protocol:
                writer.write(LOCAL)
            if settings.tls_certificate is not None:
                await writer.start_tls(_any_certificate())
            writer.write(_REQUEST % settings.listen.encode())
            return (await reader.readline()).startswith(b"HTTP/1.1 ")
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


def _any_certificate() -> ssl.SSLContext:
    """Returns a TLS context that accepts any certificate.

    The certificate is for the shop's name, perhaps from a CA that this machine doesn't trust, and the probe connects to
    an address of this machine. Nothing secret is sent and no content is used: the probe only shows that a worker
    completes a handshake and responds.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
