"""The metrics of the contract: prefix ``waitroom_``, base units, label ``room``.

Edge workers count into files that the control process reads (prometheus-client's multiprocess mode, by the folder in
``PROMETHEUS_MULTIPROC_DIR``, which the supervisor sets); the queue's own figures come from the store, by the control
process alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from waitroom.queue.view import RoomView

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"

_WAITS = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ERRORS = (1, 5, 15, 30, 60, 120, 300, 600, 1800)


class EdgeMetrics:
    """What an edge worker counts.

    Args:
        slot: The worker's number; one that takes another's place goes on with its counts.
    """

    def __init__(self, slot: int) -> None:
        if MULTIPROCESS_DIR in os.environ:
            values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        self.requests = Counter(
            "waitroom_requests", "Requests by what became of them.", ("room", "outcome"), registry=registry
        )
        self.upstream_seconds = Histogram(
            "waitroom_upstream_request_seconds",
            "From the request's start to the answer's end, at the shop.",
            ("room",),
            buckets=_LATENCIES,
            registry=registry,
        )
        self.in_flight = Gauge(
            "waitroom_upstream_in_flight",
            "Requests the shop is working on.",
            ("room",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.wait_seconds = Histogram(
            "waitroom_wait_seconds", "From joining to going in.", ("room",), buckets=_WAITS, registry=registry
        )
        self.eta_error_seconds = Histogram(
            "waitroom_eta_error_seconds",
            "How far the wait was from what was told on joining.",
            ("room",),
            buckets=_ERRORS,
            registry=registry,
        )
        self.store_errors = Counter(
            "waitroom_store_errors", "Calls that the store didn't answer.", ("room",), registry=registry
        )


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


def exposition(queue: QueueCollector) -> bytes:
    """All metrics in Prometheus' text format. Reads files: not for the event loop."""
    registry = CollectorRegistry()
    registry.register(queue)
    if MULTIPROCESS_DIR in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
