"""The supervisor's report on the edge workers, which the control process gets once a second over its channel."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

EXITS_SECONDS: Final = 30.0  # the time over which unexpected exits count


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The state of one edge worker.

    Attributes:
        name: Its name in the log.
        ready: Whether it is running and serves.
        silent_seconds: The time since its last sign of life, in the supervisor's own time.
        exits: How often it ended unexpectedly within `EXITS_SECONDS`.
    """

    name: str
    ready: bool
    silent_seconds: float
    exits: int


def encode_report(workers: Iterable[WorkerStatus]) -> bytes:
    """Returns a report as one line."""
    return json.dumps([asdict(worker) for worker in workers]).encode() + b"\n"


def decode_report(line: bytes) -> tuple[WorkerStatus, ...]:
    """Reads a report of the same version."""
    return tuple(WorkerStatus(**worker) for worker in json.loads(line))
