"""How the upstream does, from what this gateway's edge workers have written down: one window for all who ask.

Each worker writes its counts to a file once a second (see `waitroom.metrics.recorder`). The differences between two
looks tell what came between; a worker that is replaced goes on with the counts of the one before it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from waitroom.metrics.collectors import read_workers, totals
from waitroom.metrics.recorder import UPSTREAM_BOUNDS, RoomMetrics

LONGEST_WINDOW_SECONDS = 60.0
# Several may look; of two looks closer than this the later one counts, or one write of a worker would make a peak.
CLOSEST_LOOKS_SECONDS = 0.5
SHOP_SECONDS = 10.0  # of the figures that API, dashboard and history show


@dataclass(frozen=True, slots=True)
class Observed:
    """Recent observations of the edge workers that hints on a room may follow from.

    Attributes:
        shared_sessions: Numbers of sessions in use from many networks.
        missing_proxies: Addresses of peers that look like proxies which ``trusted_proxies`` does not name.
        refused: Methods and first path segments of requests refused for lack of a pass, with the newest Unix time.
    """

    shared_sessions: frozenset[int] = frozenset()
    missing_proxies: frozenset[str] = frozenset()
    refused: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, dumped: Mapping[str, Any]) -> Observed:
        """The observations in one worker's file, which may be of a former version."""
        missing = dumped.get("missing_proxy", "")
        return cls(
            frozenset(dumped.get("shared_sessions", ())),
            frozenset((missing,) if missing else ()),
            dumped.get("refused", {}),
        )

    def __or__(self, other: Observed) -> Observed:
        newest = {
            kind: max(self.refused.get(kind, 0.0), other.refused.get(kind, 0.0))
            for kind in (*self.refused, *other.refused)
        }
        return Observed(
            self.shared_sessions | other.shared_sessions, self.missing_proxies | other.missing_proxies, newest
        )


NOTHING: Final = Observed()


@dataclass(frozen=True, slots=True)
class UpstreamStats:
    """What was asked of the upstream during some seconds, by the workers of this gateway. Rates are per minute.

    Attributes:
        seconds: How long the window really is; 0 while there are no two looks, and then all rates are 0.
        requests_per_minute: Requests that ended, whatever became of them.
        failures_per_minute: Of those, the ones that failed: 5xx, no answer, or what the room names a failure.
        given_up_per_minute: Of those, the ones whose visitor went away before the answer was complete.
        p50_seconds, p95_seconds: Latency, the time to the head of an answer; None where there were no answers.
        in_flight: Requests that are at the upstream now.
        awaiting: Of these, the ones whose answer hasn't begun: neither streams nor tunnels.
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
        """Requests that the upstream is done with, failures included: what shares of failures are of."""
        return self.requests_per_minute - self.given_up_per_minute


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    alive: int = 0
    rooms: dict[str, RoomMetrics] = field(default_factory=dict)
    observed: dict[str, Observed] = field(default_factory=dict)


class UpstreamWindow:
    """Looks at the workers' files and remembers what they said during the last minute.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        # Replaced, never changed: threads look while the event loop reads.
        self._looks: tuple[_Look, ...] = ()

    def look(self, now: float, unix: float) -> None:
        """Reads the files, once a second or so. Reads files: not for the event loop.

        Args:
            now: The monotonic time in seconds.
            unix: The Unix time in seconds, which tells the workers that are alive.
        """
        with self._lock:
            workers = read_workers(self._folder, unix)
            observed: dict[str, Observed] = {}
            for worker in workers:
                for room, dumped in worker.rooms.items():
                    if worker.alive:
                        observed[room] = observed.get(room, NOTHING) | Observed.of(dumped)
            seen = _Look(now, sum(worker.alive for worker in workers), totals(workers), observed)
            looks = [look for look in self._looks if look.at <= now - CLOSEST_LOOKS_SECONDS]
            # One look more than the longest window holds, so that it is whole when a look comes late.
            while len(looks) > 1 and looks[1].at <= now - LONGEST_WINDOW_SECONDS:
                del looks[0]
            self._looks = (*looks, seen)

    @property
    def workers_alive(self) -> int:
        """Edge workers that had written of late when last looked at."""
        return self._looks[-1].alive if self._looks else 0

    def observed(self, room: str) -> Observed:
        """What hints on a room follow from, when last looked at."""
        return self._looks[-1].observed.get(room, NOTHING) if self._looks else NOTHING

    def figures(self, room: str, seconds: float) -> UpstreamStats:
        """Of the last ``seconds``, at most `LONGEST_WINDOW_SECONDS`; of less where less is known."""
        looks = [(look.at, look.rooms[room]) for look in self._looks if room in look.rooms]
        if not looks:
            return UpstreamStats()
        until, now = looks.pop()
        if not looks:
            return UpstreamStats(in_flight=now.in_flight, awaiting=now.awaiting)
        # Looks aren't made to the second.
        since, before = min(looks, key=lambda look: abs(look[0] - (until - seconds)))
        per_minute = 60 / (until - since)
        ended = sum(now.upstream_request_seconds.counts) - sum(before.upstream_request_seconds.counts)
        given_up = max(0, now.requests["gone"] - before.requests["gone"])
        latency, earlier = now.upstream_response_seconds.counts, before.upstream_response_seconds.counts
        # A worker's file that has vanished takes its counts with it.
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


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """The value below which a share of a histogram's observations lies; None where there are none.

    Within a bucket it is interpolated on a logarithmic scale, as the buckets are spaced: latencies lie towards the
    lower end of a wide bucket, and a linear scale would tell too much. What is beyond the last bound counts as that
    bound.

    Args:
        bounds: The buckets' upper bounds, ascending.
        counts: How many are in each, and in one more beyond the last bound.
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
