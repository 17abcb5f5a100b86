"""How the shop does, from what this gateway's edge workers have written down.

Each worker writes its counts to a file once a second (see `waitroom.metrics.recorder`). Looked at once a second, the
differences tell what came between; a worker that is replaced goes on with the counts of the one before it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waitroom.control.monitoring.hints import NOTHING, Observed
from waitroom.metrics.recorder import UPSTREAM_BOUNDS

# Workers write once a second; one that hasn't for so long is gone or stuck.
ALIVE_SECONDS = 3.0
# The longest span that can be asked for.
MEMORY_SECONDS = 60.0
_NO_ANSWERS = (0,) * (len(UPSTREAM_BOUNDS) + 1)


@dataclass(frozen=True, slots=True)
class ShopFigures:
    """What was asked of the shop during some seconds, by the workers of this gateway.

    Attributes:
        requests_per_minute: Requests that ended, whatever became of them.
        failures_per_minute: Of those, the ones that the shop failed.
        p50_seconds, p95_seconds: Within how long half of the answers, and 95 of 100, had begun; None where there were
            none.
        in_flight: Requests that are at the shop now.
        workers_alive: Edge workers that have written of late.
    """

    requests_per_minute: float
    failures_per_minute: float
    p50_seconds: float | None
    p95_seconds: float | None
    in_flight: int
    workers_alive: int


@dataclass(frozen=True, slots=True)
class _Sums:
    """Over all workers: requests that ended, answers by bucket of their latency, failures; and what is so now."""

    requests: int
    buckets: tuple[int, ...]
    failures: int
    in_flight: int
    observed: Observed = NOTHING


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    alive: int
    rooms: Mapping[str, _Sums]


class ShopWatch:
    """Looks at the workers' files and remembers what they said during the last minute.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looks: deque[_Look] = deque()

    def look(self, now: float) -> None:
        """Reads the files at the Unix time ``now``, once a second or so. Reads files: not for the event loop."""
        rooms: dict[str, _Sums] = {}
        alive = 0
        for path in sorted(self._folder.glob("edge-*.json")):
            try:
                written = path.stat().st_mtime
                dumped: dict[str, Any] = json.loads(path.read_bytes())
            except FileNotFoundError:
                continue
            lives = now - written <= ALIVE_SECONDS
            alive += lives
            for room, one in dumped.items():
                rooms[room] = _sum(rooms.get(room), one, lives=lives)
        # A clock that was set back makes what was seen before it unfit for comparison.
        while self._looks and (self._looks[-1].at >= now or self._looks[0].at < now - MEMORY_SECONDS - 1):
            self._looks.pop() if self._looks[-1].at >= now else self._looks.popleft()
        self._looks.append(_Look(now, alive, rooms))

    @property
    def workers_alive(self) -> int:
        """Edge workers that had written of late when last looked at."""
        return self._looks[-1].alive if self._looks else 0

    def observed(self, room: str) -> Observed:
        """What hints on a room follow from, when last looked at."""
        sums = self._looks[-1].rooms.get(room) if self._looks else None
        return NOTHING if sums is None else sums.observed

    def figures(self, room: str, seconds: float) -> ShopFigures:
        """Of the last ``seconds``, at most 60; of less where less is known."""
        if not self._looks:
            return ShopFigures(0.0, 0.0, None, None, 0, 0)
        last = self._looks[-1]
        since = [look.at for look in self._looks]
        first = self._looks[min(bisect_left(since, last.at - seconds), len(since) - 1)]
        nothing = _Sums(0, _NO_ANSWERS, 0, 0)
        now, before = last.rooms.get(room, nothing), first.rooms.get(room, nothing)
        # A worker's file that has vanished takes its counts with it.
        between = [max(0, new - old) for new, old in zip(now.buckets, before.buckets, strict=True)]
        minutes = (last.at - first.at) / 60
        return ShopFigures(
            requests_per_minute=round(max(0, now.requests - before.requests) / minutes, 1) if minutes else 0.0,
            failures_per_minute=round(max(0, now.failures - before.failures) / minutes, 1) if minutes else 0.0,
            p50_seconds=quantile(UPSTREAM_BOUNDS, between, 0.5),
            p95_seconds=quantile(UPSTREAM_BOUNDS, between, 0.95),
            in_flight=now.in_flight,
            workers_alive=last.alive,
        )


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Below which value that share lies, interpolated within its bucket; None where there is nothing.

    Args:
        bounds: The buckets' upper bounds; there is one more bucket, without a bound, of which its lower bound is told.
        counts: How many are in each bucket.
        share: Between 0 and 1.
    """
    wanted = sum(counts) * share
    if not wanted:
        return None
    below, lower = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if below + count >= wanted:
            return round(lower + (bound - lower) * (wanted - below) / count, 4)
        below, lower = below + count, bound
    return lower


def _sum(total: _Sums | None, dumped: Mapping[str, Any], *, lives: bool) -> _Sums:
    requests = sum(dumped["upstream_request_seconds"]["counts"])
    latency = dumped.get("upstream_response_seconds")  # a worker of a former version writes none
    buckets: Sequence[int] = latency["counts"] if latency else _NO_ANSWERS
    failures: int = dumped["upstream_failures"]
    in_flight: int = dumped["upstream_in_flight"] if lives else 0  # those of a dead worker went with it
    observed = Observed.of(dumped) if lives else NOTHING
    if total is None:
        return _Sums(requests, tuple(buckets), failures, in_flight, observed)
    summed = tuple(mine + other for mine, other in zip(total.buckets, buckets, strict=True))
    return _Sums(
        total.requests + requests,
        summed,
        total.failures + failures,
        total.in_flight + in_flight,
        total.observed | observed,
    )
