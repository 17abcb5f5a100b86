"""The counts of an edge worker, by room.

Workers count in plain numbers and write them to a file each once a second. The control process sums these up when it
is scraped. prometheus-client's own multiprocess mode writes every number to a mapped file at every request, which took
a fifth of an edge's time. Compiled: every request is counted, in several numbers.
"""

# mypyc: compile

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

log = structlog.get_logger()

METRICS_DIR: Final = "metrics"
UPSTREAM_BOUNDS: Final[tuple[float, ...]] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MOST_SHARED_NAMED: Final = 100  # sessions named in a worker's file: as many as are counted
# The upper bounds of the histograms' buckets, in seconds.
DISTRIBUTIONS: Final[dict[str, tuple[float, ...]]] = {
    "upstream_request_seconds": UPSTREAM_BOUNDS,
    "upstream_response_seconds": UPSTREAM_BOUNDS,
    "wait_seconds": (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0),
    "eta_error_seconds": (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0),
}


class Distribution:
    """A distribution of values over a histogram's buckets."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Counts one value."""
        index = 0
        for bound in self._bounds:  # a few comparisons: compiled, they take a tenth of a call of `bisect_left`
            if value <= bound:
                break
            index += 1
        self.counts[index] += 1
        self.sum += value


class RoomMetrics:
    """One edge worker's counts for one room.

    Attributes:
        requests: Requests by outcome.
        store_errors: Calls that the store didn't answer.
        upstream_failures: Requests that failed at the shop.
        in_flight: Requests at the shop now.
        awaiting: Those whose response hasn't begun.
        shared_sessions: Numbers of sessions in use from many networks.
        missing_proxy: The address of a peer that looks like a proxy missing from ``trusted_proxies``, or empty.
        refused: Methods and first path segments of requests refused for lack of a pass, with the Unix time of the log
            line about each.
        upstream_request_seconds, upstream_response_seconds, wait_seconds, eta_error_seconds: Distributions.
    """

    __slots__ = (
        "awaiting",
        "eta_error_seconds",
        "in_flight",
        "missing_proxy",
        "refused",
        "requests",
        "shared_sessions",
        "store_errors",
        "upstream_failures",
        "upstream_request_seconds",
        "upstream_response_seconds",
        "wait_seconds",
    )

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.store_errors = 0
        self.upstream_failures = 0
        self.in_flight = 0
        self.awaiting = 0
        self.shared_sessions: Iterable[int] = ()
        self.missing_proxy = ""
        self.refused: dict[str, float] = {}
        self.upstream_request_seconds = Distribution(DISTRIBUTIONS["upstream_request_seconds"])
        self.upstream_response_seconds = Distribution(DISTRIBUTIONS["upstream_response_seconds"])
        self.wait_seconds = Distribution(DISTRIBUTIONS["wait_seconds"])
        self.eta_error_seconds = Distribution(DISTRIBUTIONS["eta_error_seconds"])

    def dump(self) -> dict[str, Any]:
        """Returns all counts, for a file."""
        spread = {name: getattr(self, name) for name in DISTRIBUTIONS}
        return {
            "requests": self.requests,
            "store_errors": self.store_errors,
            "upstream_failures": self.upstream_failures,
            "upstream_in_flight": self.in_flight,
            "upstream_awaiting_response": self.awaiting,
            "shared_sessions": sorted(self.shared_sessions)[:MOST_SHARED_NAMED],
            "missing_proxy": self.missing_proxy,
            "refused": self.refused,
            **{name: {"counts": one.counts, "sum": one.sum} for name, one in spread.items()},
        }

    def resume(self, dumped: Mapping[str, Any]) -> None:
        """Continues from the counts of the worker's predecessor, except for its requests in flight."""
        self.requests = Counter(dumped["requests"])
        self.store_errors = dumped["store_errors"]
        self.upstream_failures = dumped["upstream_failures"]
        for name in DISTRIBUTIONS:
            if name in dumped:  # missing in files of an earlier version
                one = getattr(self, name)
                one.counts, one.sum = list(dumped[name]["counts"]), dumped[name]["sum"]


class EdgeMetrics:
    """One edge worker's counts, by room.

    Args:
        folder: The directory of the worker's file.
        slot: The worker's number; a replacement continues with the counts of its predecessor.
        rooms: The rooms' names.
    """

    def __init__(self, folder: Path, slot: int, rooms: Iterable[str]) -> None:
        self._path = folder / f"edge-{slot}.json"
        self.rooms = {room: RoomMetrics() for room in rooms}
        try:
            for room, dumped in read_counts(self._path).items():
                if room in self.rooms:
                    self.rooms[room].resume(dumped)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("metrics of the previous worker not read", cause=repr(error), file=str(self._path))

    def dump(self) -> bytes:
        """Returns all counts, for `save`."""
        return json.dumps({room: metrics.dump() for room, metrics in self.rooms.items()}).encode()

    def save(self, dumped: bytes) -> None:
        """Writes the output of `dump` to the file, in a new folder if it was removed. Blocks: not for the event loop.

        Raises:
            OSError: The counts weren't written. The file still shows, by its time, that the worker is alive, unless
                the system refuses that as well.
        """
        written = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            written.write_bytes(dumped)
            written.replace(self._path)
        except OSError:
            self._path.touch()  # takes no space on the disk if the file exists
            raise


def read_counts(path: Path) -> dict[str, Any]:
    """Reads a worker's file, by room; empty if it is gone, or was created on a full disk.

    Raises:
        OSError, ValueError: It can't be read, or is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    dumped: dict[str, Any] = json.loads(content) if content else {}
    return dumped
