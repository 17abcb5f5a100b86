"""The counts of an edge worker, by room.

Workers count in plain numbers and write them to a file each once a second, which the control process sums up when it is
scraped. prometheus-client's own mode for several processes writes to a mapped file for every number at every request,
which was a fifth of an edge's time. Compiled: every request is counted, by several numbers.
"""

# mypyc: compile

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

FOLDER: Final = "metrics"
UPSTREAM_BOUNDS: Final[tuple[float, ...]] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MOST_SHARED_NAMED: Final = 100  # sessions named in a worker's file: as many as are counted
# The upper bounds of the distributions' buckets, in seconds.
DISTRIBUTIONS: Final[dict[str, tuple[float, ...]]] = {
    "upstream_request_seconds": UPSTREAM_BOUNDS,
    "upstream_response_seconds": UPSTREAM_BOUNDS,
    "wait_seconds": (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0),
    "eta_error_seconds": (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0),
}


class Distribution:
    """How values are spread over a histogram's buckets."""

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
    """What one edge worker counts of one room.

    Attributes:
        requests: By outcome.
        store_errors: Calls that the store didn't answer.
        upstream_failures: Requests that the shop failed.
        in_flight: Requests that are at the shop now.
        awaiting: Of these, the ones whose answer hasn't begun.
        shared_sessions: Numbers of sessions in use from many networks.
        missing_proxy: The address of a peer that looks like a proxy which ``trusted_proxies`` does not name, or empty.
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
        """All of it, for a file."""
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
        """Goes on from what the worker before this one had counted; what was in flight there is gone."""
        self.requests = Counter(dumped["requests"])
        self.store_errors = dumped["store_errors"]
        self.upstream_failures = dumped["upstream_failures"]
        for name in DISTRIBUTIONS:
            if name in dumped:  # not in what a former version wrote
                one = getattr(self, name)
                one.counts, one.sum = list(dumped[name]["counts"]), dumped[name]["sum"]


class EdgeMetrics:
    """What one edge worker counts, by room.

    Args:
        folder: Where it is written down.
        slot: The worker's number; one that takes another's place goes on with its counts.
        rooms: The rooms' names.
    """

    def __init__(self, folder: Path, slot: int, rooms: Iterable[str]) -> None:
        self._path = folder / f"edge-{slot}.json"
        self.rooms = {room: RoomMetrics() for room in rooms}
        for room, dumped in read_counts(self._path).items():
            if room in self.rooms:
                self.rooms[room].resume(dumped)

    def dump(self) -> bytes:
        """All of it, for `save`."""
        return json.dumps({room: metrics.dump() for room, metrics in self.rooms.items()}).encode()

    def save(self, dumped: bytes) -> None:
        """Writes down what `dump` gave. Writes a file: not for the event loop."""
        written = self._path.with_suffix(".new")
        written.write_bytes(dumped)
        written.replace(self._path)


def read_counts(path: Path) -> dict[str, Any]:
    """What a worker has written down, by room; empty where it is gone."""
    try:
        dumped: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return dumped
