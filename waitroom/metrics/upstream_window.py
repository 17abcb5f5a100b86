"""The upstream's figures, from the files of this gateway's edge workers: one window for all users.

Each worker writes its counts to a file once a second (see `waitroom.metrics.recorder`). The difference of two
snapshots is the number in between; a replaced worker continues with the counts of its predecessor.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from waitroom.metrics.collectors import read_workers, totals
from waitroom.metrics.recorder import DISTRIBUTIONS, UPSTREAM_BOUNDS, RoomMetrics

MAX_WINDOW_SECONDS = 60.0
# Several callers may refresh: of two snapshots closer than this the later one counts, or one write would make a peak.
MIN_INTERVAL_SECONDS = 0.5
STATS_SECONDS = 10.0  # the window of API, dashboard and history


@dataclass(frozen=True, slots=True)
class Observations:
    """Recent observations of the edge workers, for hints on a room.

    Attributes:
        shared_sessions: Numbers of sessions in use from many networks.
        missing_proxies: Addresses of peers that look like proxies missing from ``trusted_proxies``.
        refused: Methods and first path segments of requests refused for lack of a pass, with the newest Unix time.
    """

    shared_sessions: frozenset[int] = frozenset()
    missing_proxies: frozenset[str] = frozenset()
    refused: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, dumped: Mapping[str, Any]) -> Observations:
        """Reads the observations in one worker's file, which may be of an earlier version."""
        missing = dumped.get("missing_proxy", "")
        return cls(
            frozenset(dumped.get("shared_sessions", ())),
            frozenset((missing,) if missing else ()),
            dumped.get("refused", {}),
        )

    def __or__(self, other: Observations) -> Observations:
        newest = {
            kind: max(self.refused.get(kind, 0.0), other.refused.get(kind, 0.0))
            for kind in (*self.refused, *other.refused)
        }
        return Observations(
            self.shared_sessions | other.shared_sessions, self.missing_proxies | other.missing_proxies, newest
        )


NO_OBSERVATIONS: Final = Observations()


@dataclass(frozen=True, slots=True)
class UpstreamStats:
    """The upstream's figures over a window, from the workers of this gateway. Rates are per minute.

    Attributes:
        seconds: The actual length of the window; 0 before there are two snapshots, and then all rates are 0.
        requests_per_minute: Completed requests, whatever their result.
        failures_per_minute: Those that failed: a 5xx, no response, or what the room defines as a failure.
        given_up_per_minute: Those whose visitor left before the response was complete.
        p50_seconds, p95_seconds: Latency, the time to a response's head; None if there were no responses.
        in_flight: Requests at the upstream now.
        awaiting: Those whose response hasn't begun: neither streams nor tunnels.
    """

    seconds: float = 0.0
    requests_per_minute: float = 0.0
    failures_per_minute: float = 0.0
    given_up_per_minute: float = 0.0
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    in_flight: int = 0
    awaiting: int = 0

    @property
    def answers_per_minute(self) -> float:
        """Requests that the upstream completed, failures included: the base of failure shares."""
        return self.requests_per_minute - self.given_up_per_minute


@dataclass(frozen=True, slots=True)
class _Snapshot:
    at: float
    rooms: dict[str, RoomMetrics] = field(default_factory=dict)
    observed: dict[str, Observations] = field(default_factory=dict)


class UpstreamWindow:
    """Reads the workers' files and keeps their content of the last minute.

    Args:
        folder: The directory of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        # Replaced, never modified: threads write while the event loop reads.
        self._snapshots: tuple[_Snapshot, ...] = ()

    def refresh(self, now: float, unix: float) -> None:
        """Reads the files, about once a second. Blocks: not for the event loop.

        Args:
            now: The monotonic time in seconds.
            unix: The Unix time in seconds, to recognize live workers.
        """
        with self._lock:
            workers = read_workers(self._folder, unix)
            observed: dict[str, Observations] = {}
            for worker in workers:
                for room, dumped in worker.rooms.items():
                    if worker.alive:
                        observed[room] = observed.get(room, NO_OBSERVATIONS) | Observations.of(dumped)
            seen = _Snapshot(now, totals(workers), observed)
            snapshots = [snapshot for snapshot in self._snapshots if snapshot.at <= now - MIN_INTERVAL_SECONDS]
            # One more than the longest window needs, so that it is complete if a refresh is late.
            while len(snapshots) > 1 and snapshots[1].at <= now - MAX_WINDOW_SECONDS:
                del snapshots[0]
            self._snapshots = (*snapshots, seen)

    def observed(self, room: str) -> Observations:
        """Returns the observations for hints on a room, as of the last refresh."""
        return self._snapshots[-1].observed.get(room, NO_OBSERVATIONS) if self._snapshots else NO_OBSERVATIONS

    def stats(self, room: str, seconds: float) -> UpstreamStats:
        """Returns the figures of the last ``seconds``, at most `MAX_WINDOW_SECONDS`; of less if less is known."""
        snapshots = [(snapshot.at, snapshot.rooms[room]) for snapshot in self._snapshots if room in snapshot.rooms]
        if not snapshots:
            return UpstreamStats()
        until, now = snapshots.pop()
        if not snapshots:
            return UpstreamStats(in_flight=now.in_flight, awaiting=now.awaiting)
        # Refreshes are not exactly a second apart.
        since, before = min(snapshots, key=lambda snapshot: abs(snapshot[0] - (until - seconds)))
        per_minute = 60 / (until - since)
        ended = sum(now.upstream_request_seconds.counts) - sum(before.upstream_request_seconds.counts)
        given_up = max(0, now.requests["gone"] - before.requests["gone"])
        latency, earlier = now.upstream_response_seconds.counts, before.upstream_response_seconds.counts
        # The counts of a worker whose file has vanished are lost.
        counts = [max(0, new - old) for new, old in zip(latency, earlier, strict=True)]
        return UpstreamStats(
            seconds=until - since,
            requests_per_minute=max(given_up, ended) * per_minute,
            failures_per_minute=max(0, now.upstream_failures - before.upstream_failures) * per_minute,
            given_up_per_minute=given_up * per_minute,
            p50_seconds=quantile(UPSTREAM_BOUNDS, counts, 0.5),
            p95_seconds=quantile(UPSTREAM_BOUNDS, counts, 0.95),
            in_flight=now.in_flight,
            awaiting=now.awaiting,
        )

    def wait_seconds(self, room: str, share: float) -> float | None:
        """Returns the quantile of the waits of visitors admitted within the window; None if there were none."""
        snapshots = [snapshot.rooms[room] for snapshot in self._snapshots if room in snapshot.rooms]
        if not snapshots:
            return None
        before, now = snapshots[0].wait_seconds.counts, snapshots[-1].wait_seconds.counts
        counts = [max(0, new - old) for new, old in zip(now, before, strict=True)]
        return quantile(DISTRIBUTIONS["wait_seconds"], counts, share)


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """Returns the quantile of a histogram at ``share``; None if it is empty.

    Within a bucket it interpolates on a logarithmic scale, as the buckets are spaced: latencies lie towards the lower
    end of a wide bucket, and a linear scale would overestimate them. Values beyond the last bound count as that bound.

    Args:
        bounds: The buckets' upper bounds, ascending.
        counts: The number in each bucket, and in one more beyond the last bound.
        share: Between 0 and 1.
    """
    total = sum(counts)
    if total <= 0:
        return None
    wanted, running = share * total, 0.0
    for index, count in enumerate(counts[:-1]):
        if count and running + count >= wanted:
            high = bounds[index]
            low = bounds[index - 1] if index else high / 2
            return float(low * (high / low) ** ((wanted - running) / count))
        running += count
    return float(bounds[-1])
