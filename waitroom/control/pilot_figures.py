"""What the edge workers' metrics files tell of a shop over the last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waitroom.control.flight import WINDOWS
from waitroom.metrics.collectors import totals
from waitroom.metrics.recorder import DISTRIBUTIONS, RoomMetrics

LOOK_SLACK_SECONDS = 1.0  # looks aren't made to the second


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """The value below which a share of a histogram's observations lies; None where there are none.

    Within a bucket it is interpolated on a logarithmic scale, as the buckets are spaced; what is beyond the last bound
    counts as that bound.

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


@dataclass(frozen=True, slots=True)
class ShopFigures:
    """How a shop stands, as this gateway's edge workers see it. Rates are per minute.

    Attributes:
        requests_per_minute: Requests that the shop is done with, failures included.
        failures_per_minute: Of these, those that failed: 5xx, no answer, or what the room names a failure.
        given_up_per_minute: Requests whose visitors went away before the answer was complete.
        p50_seconds, p95_seconds: Latency, the time to an answer's head; None where nothing was answered.
        in_flight: Requests that wait for the shop's answer now; streams and tunnels don't.
    """

    requests_per_minute: float
    failures_per_minute: float
    given_up_per_minute: float
    p50_seconds: float | None
    p95_seconds: float | None
    in_flight: int


class EdgeWatch:
    """Keeps what the edge workers counted for a while, to tell what it was lately.

    Args:
        folder: Where they write it down.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looks: deque[tuple[float, dict[str, RoomMetrics]]] = deque()

    def look(self, now: float) -> None:
        """Reads what they counted up to the monotonic time ``now``. Reads files: not for the event loop."""
        self._looks.append((now, totals(self._folder)))
        while len(self._looks) > 2 and self._looks[1][0] < now - WINDOWS[-1]:
            self._looks.popleft()

    def figures(self, room: str, seconds: float) -> ShopFigures | None:
        """How the room's shop stood over the last seconds; None while there are no two looks at it."""
        looks = [(at, seen[room]) for at, seen in self._looks if room in seen]
        if len(looks) < 2:
            return None
        until, now = looks[-1]
        since, before = next(look for look in looks[:-1] if look[0] >= until - seconds - LOOK_SLACK_SECONDS)
        per_minute = 60 / (until - since)
        ended = sum(now.upstream_request_seconds.counts) - sum(before.upstream_request_seconds.counts)
        latency, earlier = now.upstream_response_seconds, before.upstream_response_seconds
        counts = [new - old for new, old in zip(latency.counts, earlier.counts, strict=True)]
        bounds = DISTRIBUTIONS["upstream_response_seconds"]
        given_up = now.requests["gone"] - before.requests["gone"]
        return ShopFigures(
            requests_per_minute=max(0, ended - given_up) * per_minute,
            failures_per_minute=max(0, now.upstream_failures - before.upstream_failures) * per_minute,
            given_up_per_minute=max(0, given_up) * per_minute,
            p50_seconds=quantile(bounds, counts, 0.5),
            p95_seconds=quantile(bounds, counts, 0.95),
            in_flight=now.awaiting,
        )
