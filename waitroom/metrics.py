"""The metrics of the contract: prefix ``waitroom_``, base units, label ``room``.

Edge workers count in plain integers and write them down once a second, a file each, which the control process sums up
when it is scraped. prometheus-client's own mode for several processes writes to a mapped file for every number at every
request, which was a fifth of an edge's time. The queue's figures come from the store, by the control process alone.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from waitroom.queue.view import RoomView

FOLDER = "metrics"

# What edges count: the name, what it is, and for distributions their bounds in seconds.
_COUNTERS = {
    "requests": "Requests by what became of them.",
    "store_errors": "Calls that the store didn't answer.",
}
_GAUGES = {"upstream_in_flight": "Requests the shop is working on."}
_DISTRIBUTIONS = {
    "upstream_request_seconds": (
        "From the request's start to the answer's end, at the shop.",
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    ),
    "wait_seconds": (
        "From joining to going in.",
        (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0),
    ),
    "eta_error_seconds": (
        "How far the wait was from what was told on joining.",
        (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0),
    ),
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
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class RoomMetrics:
    """What one edge worker counts of one room.

    Attributes:
        requests: By outcome.
        store_errors: Calls that the store didn't answer.
        in_flight: Requests that are at the shop now.
        upstream_request_seconds, wait_seconds, eta_error_seconds: Distributions.
    """

    __slots__ = (
        "eta_error_seconds",
        "in_flight",
        "requests",
        "store_errors",
        "upstream_request_seconds",
        "wait_seconds",
    )

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}
        self.store_errors = 0
        self.in_flight = 0
        self.upstream_request_seconds, self.wait_seconds, self.eta_error_seconds = (
            Distribution(bounds) for _, bounds in _DISTRIBUTIONS.values()
        )

    def dump(self) -> dict[str, Any]:
        """All of it, for a file."""
        spread = {name: getattr(self, name) for name in _DISTRIBUTIONS}
        return {
            "requests": self.requests,
            "store_errors": self.store_errors,
            "upstream_in_flight": self.in_flight,
            **{name: {"counts": one.counts, "sum": one.sum} for name, one in spread.items()},
        }

    def resume(self, dumped: Mapping[str, Any]) -> None:
        """Goes on from what the worker before this one had counted; what was in flight there is gone."""
        self.requests = dict(dumped["requests"])
        self.store_errors = dumped["store_errors"]
        for name in _DISTRIBUTIONS:
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
        for room, dumped in _read(self._path).items():
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


class EdgeCollector(Collector):
    """The sums over all edge workers of one gateway.

    Args:
        folder: Where they write down what they count.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        sums: dict[str, RoomMetrics] = {}
        for path in sorted(self._folder.glob("edge-*.json")):
            for room, dumped in _read(path).items():
                _add(sums.setdefault(room, RoomMetrics()), dumped)
        requests = CounterMetricFamily("waitroom_requests", _COUNTERS["requests"], labels=["room", "outcome"])
        errors = CounterMetricFamily("waitroom_store_errors", _COUNTERS["store_errors"], labels=["room"])
        name = "upstream_in_flight"
        in_flight = GaugeMetricFamily(f"waitroom_{name}", _GAUGES[name], labels=["room"])
        for room, total in sums.items():
            for outcome, count in total.requests.items():
                requests.add_metric([room, outcome], count)
            errors.add_metric([room], total.store_errors)
            in_flight.add_metric([room], total.in_flight)
        yield from (requests, errors, in_flight)
        for name, (about, bounds) in _DISTRIBUTIONS.items():
            family = HistogramMetricFamily(f"waitroom_{name}", about, labels=["room"])
            for room, total in sums.items():
                one: Distribution = getattr(total, name)
                family.add_metric([room], _cumulated(bounds, one.counts), sum_value=one.sum)
            yield family


class QueueCollector(Collector):
    """The queue's figures, from the newest view of each room.

    Args:
        views: The control process's views by room; read at every scrape.
    """

    def __init__(self, views: Mapping[str, RoomView]) -> None:
        self._views = views

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        yield from self._gauges()
        yield from self._counters()

    def _gauges(self) -> Iterable[Metric]:
        waiting = GaugeMetricFamily("waitroom_waiting_visitors", "Visitors in the line.", labels=["room"])
        active = GaugeMetricFamily("waitroom_active_sessions", "Admitted visitors in the shop.", labels=["room"])
        called = GaugeMetricFamily("waitroom_called_visitors", "Visitors whose turn it is.", labels=["room"])
        away = GaugeMetricFamily("waitroom_away_visitors", "Visitors stepped over, places kept.", labels=["room"])
        rate = GaugeMetricFamily("waitroom_rate_per_minute", "The rate in force.", labels=["room"])
        most = GaugeMetricFamily("waitroom_max_active_sessions", "The bound on active sessions.", labels=["room"])
        for room, view in self._views.items():
            waiting.add_metric([room], view.waiting)
            active.add_metric([room], view.active)
            called.add_metric([room], view.called)
            away.add_metric([room], view.away)
            rate.add_metric([room], view.rate_per_minute)
            most.add_metric([room], view.max_active)
        return (waiting, active, called, away, rate, most)

    def _counters(self) -> Iterable[Metric]:
        joined = CounterMetricFamily("waitroom_joined", "Visitors who took a place.", labels=["room"])
        admitted = CounterMetricFamily("waitroom_admitted", "Visitors let in.", labels=["room"])
        left = CounterMetricFamily("waitroom_left", "Places and sessions that ended.", labels=["room", "reason"])
        overshoot = CounterMetricFamily(
            "waitroom_limit_overshoot", "Sessions kept although max_active was reached.", labels=["room"]
        )
        for room, view in self._views.items():
            joined.add_metric([room], view.totals.get("joined", 0))
            admitted.add_metric([room], view.totals.get("admitted", 0))
            overshoot.add_metric([room], view.totals.get("overshoot", 0))
            for name, total in view.totals.items():
                if name.startswith("left:"):
                    left.add_metric([room, name.removeprefix("left:")], total)
        return (joined, admitted, left, overshoot)


def exposition(*collectors: Collector) -> bytes:
    """All metrics in Prometheus' text format. Reads files: not for the event loop."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


def _read(path: Path) -> dict[str, Any]:
    try:
        dumped: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return dumped


def _add(total: RoomMetrics, dumped: Mapping[str, Any]) -> None:
    for outcome, count in dumped["requests"].items():
        total.requests[outcome] = total.requests.get(outcome, 0) + count
    total.store_errors += dumped["store_errors"]
    total.in_flight += dumped["upstream_in_flight"]
    for name in _DISTRIBUTIONS:
        one: Distribution = getattr(total, name)
        one.counts = [mine + other for mine, other in zip(one.counts, dumped[name]["counts"], strict=True)]
        one.sum += dumped[name]["sum"]


def _cumulated(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    running, buckets = 0, []
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        running += count
        buckets.append((floatToGoString(bound), float(running)))  # type: ignore[no-untyped-call]
    return buckets
