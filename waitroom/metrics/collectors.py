"""The metrics of the contract: prefix ``waitroom_``, base units, label ``room``.

The edge's figures are sums over the files of its workers. The queue's figures come from the store, only through the
control process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from waitroom.logs import RateLimitedLog
from waitroom.metrics.recorder import DISTRIBUTIONS, Distribution, RoomMetrics, read_counts
from waitroom.queue.stock import SellingPace
from waitroom.queue.view import RoomState, RoomView
from waitroom.store.eviction import SAFE_POLICY

log = RateLimitedLog(structlog.get_logger())

# A live edge worker writes its file once a second; a machine may stall for a moment.
ALIVE_SECONDS = 5.0

# Exported from the start, as 0: Prometheus can't see the increase of a counter that begins at 1.
_OUTCOMES = ("admitted", "failed")
_LIMITS = ("rate", "max_active")
_REASONS = ("away", "ended", "expired", "left", "missed", "released")

# The counters of the edge.
_COUNTERS = {
    "requests": "Requests by outcome.",
    "store_errors": "Store calls that failed or timed out.",
    "upstream_failures": "Requests that failed at the shop: 5xx, no response, or a failure as the room defines it.",
}
_GAUGES = {
    "upstream_in_flight": "Requests in flight to the shop.",
    "upstream_awaiting_response": "Requests in flight whose response hasn't begun: neither streams nor tunnels.",
    "shared_sessions": "Sessions used from more than four networks within ten minutes.",
}
_DISTRIBUTIONS = {
    "upstream_request_seconds": (
        "Time from the start of a request to the end of the shop's response, or of a stream or tunnel."
    ),
    "upstream_response_seconds": ("Time from the start of a request to the head of the shop's response."),
    "wait_seconds": "Time from joining the queue to admission.",
    "eta_error_seconds": "Difference between the actual wait and the estimate on joining.",
}


class EdgeCollector(Collector):
    """The sums over all edge workers of one gateway.

    Args:
        folder: The directory of the workers' files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        sums = totals(read_workers(self._folder, time.time()))
        requests = CounterMetricFamily("waitroom_requests", _COUNTERS["requests"], labels=["room", "outcome"])
        errors = CounterMetricFamily("waitroom_store_errors", _COUNTERS["store_errors"], labels=["room"])
        failures = CounterMetricFamily("waitroom_upstream_failures", _COUNTERS["upstream_failures"], labels=["room"])
        in_flight, awaiting, shared = (
            GaugeMetricFamily(f"waitroom_{name}", about, labels=["room"]) for name, about in _GAUGES.items()
        )
        for room, total in sums.items():
            for outcome, count in {**dict.fromkeys(_OUTCOMES, 0), **total.requests}.items():
                requests.add_metric([room, outcome], count)
            errors.add_metric([room], total.store_errors)
            failures.add_metric([room], total.upstream_failures)
            in_flight.add_metric([room], total.in_flight)
            awaiting.add_metric([room], total.awaiting)
            shared.add_metric([room], len(set(total.shared_sessions)))
        yield from (requests, errors, failures, in_flight, awaiting, shared)
        for name, about in _DISTRIBUTIONS.items():
            family = HistogramMetricFamily(f"waitroom_{name}", about, labels=["room"])
            for room, total in sums.items():
                one: Distribution = getattr(total, name)
                family.add_metric([room], _cumulated(DISTRIBUTIONS[name], one.counts), sum_value=one.sum)
            yield family


class QueueCollector(Collector):
    """The queue's figures, from the latest view of each room.

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
        waiting = GaugeMetricFamily("waitroom_waiting_visitors", "Visitors waiting in the queue.", labels=["room"])
        active = GaugeMetricFamily("waitroom_active_sessions", "Admitted visitors in the shop.", labels=["room"])
        called = GaugeMetricFamily(
            "waitroom_called_visitors", "Called visitors, for whom a slot is reserved.", labels=["room"]
        )
        away = GaugeMetricFamily(
            "waitroom_away_visitors", "Visitors who were skipped and whose places are kept.", labels=["room"]
        )
        rate = GaugeMetricFamily("waitroom_rate_per_minute", "The current admission rate.", labels=["room"])
        most = GaugeMetricFamily("waitroom_max_active_sessions", "The limit on active sessions.", labels=["room"])
        recovering = GaugeMetricFamily(
            "waitroom_recovering", "Whether calls wait for visitors to report after a loss of data.", labels=["room"]
        )
        for room, view in self._views.items():
            recovering.add_metric([room], view.recovering)
            waiting.add_metric([room], view.waiting)
            active.add_metric([room], view.active)
            called.add_metric([room], view.called)
            away.add_metric([room], view.away)
            rate.add_metric([room], view.rate_per_minute)
            most.add_metric([room], view.max_active)
        return (waiting, active, called, away, rate, most, recovering)

    def _counters(self) -> Iterable[Metric]:
        joined = CounterMetricFamily("waitroom_joined", "Visitors who got a place.", labels=["room"])
        admitted = CounterMetricFamily("waitroom_admitted", "Visitors admitted.", labels=["room"])
        left = CounterMetricFamily(
            "waitroom_left", "Places and sessions that ended, by reason.", labels=["room", "reason"]
        )
        overshoot = CounterMetricFamily(
            "waitroom_limit_overshoot", "Sessions kept although max_active was reached.", labels=["room"]
        )
        over_limit = CounterMetricFamily(
            "waitroom_passthrough_over_limit",
            "Visitors whom a passthrough room admitted although a limit was reached.",
            labels=["room", "limit"],
        )
        recoveries = CounterMetricFamily(
            "waitroom_recoveries", "Recoveries after the store had lost data.", labels=["room"]
        )
        for room, view in self._views.items():
            recoveries.add_metric([room], view.totals.get("recoveries", 0))
            joined.add_metric([room], view.totals.get("joined", 0))
            admitted.add_metric([room], view.totals.get("admitted", 0))
            overshoot.add_metric([room], view.totals.get("overshoot", 0))
            for limit in _LIMITS:
                over_limit.add_metric([room, limit], view.totals.get(f"over:{limit}", 0))
            gone = {name.removeprefix("left:"): n for name, n in view.totals.items() if name.startswith("left:")}
            for reason, total in {**dict.fromkeys(_REASONS, 0), **gone}.items():
                left.add_metric([room, reason], total)
        return (joined, admitted, left, overshoot, over_limit, recoveries)


class StockStatus(Protocol):
    """The stock of a room, see `waitroom.control.rooms.admission_loop.Admission`."""

    name: str
    view: RoomView | None
    selling: SellingPace


class StockCollector(Collector):
    """The stock of the rooms whose shop reports it.

    Args:
        rooms: Read at every scrape.
    """

    def __init__(self, rooms: Iterable[StockStatus]) -> None:
        self._rooms = rooms

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        remaining = GaugeMetricFamily(
            "waitroom_units_remaining", "Units left, as reported by the shop.", labels=["room"]
        )
        left = GaugeMetricFamily(
            "waitroom_stock_left_seconds", "How long the units left last at the current pace.", labels=["room"]
        )
        sold = CounterMetricFamily("waitroom_units_sold", "Units sold, as reported by the shop.", labels=["room"])
        returned = CounterMetricFamily(
            "waitroom_units_returned", "Units that came back or were added to the stock.", labels=["room"]
        )
        for room in self._rooms:
            view = room.view
            if view is None:
                continue
            sold.add_metric([room.name], view.totals.get("sold", 0))
            returned.add_metric([room.name], view.totals.get("units_returned", 0))
            if view.remaining is not None:
                remaining.add_metric([room.name], view.remaining)
            seconds = room.selling.seconds_left(view.remaining)
            if seconds is not None:
                left.add_metric([room.name], seconds)
        yield from (family for family in (remaining, left, sold, returned) if family.samples)


class TickStatus(Protocol):
    """The state of a room's ticks, see `waitroom.control.rooms.admission_loop.Admission`."""

    name: str
    view: RoomView | None
    store_up: bool
    ticked_at: float | None


class ControlCollector(Collector):
    """The status of the gateway itself, as its control process sees it.

    Args:
        rooms: Read at every scrape.
        alive: Returns how many edge workers serve; called at every scrape.
        workers: The configured number of workers.
    """

    def __init__(self, rooms: Iterable[TickStatus], alive: Callable[[], int], workers: int) -> None:
        self._rooms = rooms
        self._alive = alive
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        up = GaugeMetricFamily(
            "waitroom_store_up", "Whether the store responds to the control process.", labels=["room"]
        )
        ticked = GaugeMetricFamily(
            "waitroom_last_tick_timestamp_seconds", "Unix time of the last successful tick.", labels=["room"]
        )
        state = GaugeMetricFamily(
            "waitroom_room_state", "1 for the current state of the room, 0 for all others.", labels=["room", "state"]
        )
        for room in self._rooms:
            up.add_metric([room.name], room.store_up)
            if room.ticked_at is not None:
                ticked.add_metric([room.name], room.ticked_at)
            if room.view is not None:
                for one in RoomState:
                    state.add_metric([room.name, one.value], one is room.view.state)
        wanted = GaugeMetricFamily("waitroom_workers_wanted", "Configured number of edge workers.")
        wanted.add_metric([], self._workers)
        alive = GaugeMetricFamily("waitroom_workers_alive", "Edge workers that are alive.")
        alive.add_metric([], self._alive())
        yield from (up, ticked, state, wanted, alive)


class Reading(Protocol):
    """A comparison of clocks, see `waitroom.control.monitoring.gateways.ClockReading`."""

    @property
    def ahead(self) -> float:
        """Seconds by which this machine's clock is ahead."""


class StoreStatus(Protocol):
    """The comparison of a gateway with its store, see `waitroom.control.monitoring.store_watch.StoreWatch`."""

    @property
    def reading(self) -> Reading | None:
        """The last comparison of the clocks."""

    @property
    def strangers(self) -> Sequence[str]:
        """The machines of gateways with other secrets."""


class ClockCollector(Collector):
    """This gateway compared with its store and with the other gateways over it.

    Args:
        status: Read at every scrape.
    """

    def __init__(self, status: StoreStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        clock = GaugeMetricFamily(
            "waitroom_clock_offset_seconds", "Seconds by which this machine's clock is ahead of the store's."
        )
        if self._status.reading is not None:
            clock.add_metric([], self._status.reading.ahead)
        strangers = GaugeMetricFamily(
            "waitroom_gateways_with_other_secrets", "Machines whose gateways use this store with other secrets."
        )
        strangers.add_metric([], len(self._status.strangers))
        yield from (clock, strangers)


class StoreCollector(Collector):
    """The store's configuration, as far as it endangers the queue.

    Args:
        policy: Returns the store's ``maxmemory-policy``, None if unknown; read at every scrape.
    """

    def __init__(self, policy: Callable[[], str | None]) -> None:
        self._policy = policy

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        evicts = GaugeMetricFamily(
            "waitroom_store_may_evict", "Whether the store may delete keys of the queue when its memory is full."
        )
        policy = self._policy()
        if policy is not None:
            evicts.add_metric([], policy != SAFE_POLICY)
        yield evicts


class ShopCommandCollector(Collector):
    """The commands of the shops by the API, at one gateway.

    Args:
        counts: Returns the numbers by room, command and outcome; read at every scrape.
    """

    def __init__(self, counts: Callable[[], Iterable[tuple[tuple[str, str, str], int]]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        commands = CounterMetricFamily(
            "waitroom_api_commands", "Commands of the shop by the API.", labels=["room", "command", "outcome"]
        )
        for labels, count in self._counts():
            commands.add_metric(labels, count)
        yield commands


@dataclass(frozen=True, slots=True)
class WorkerFile:
    """The content of one edge worker's file: whether it is recent, and the counts by room."""

    alive: bool
    rooms: Mapping[str, Mapping[str, Any]]


def read_workers(folder: Path, now: float) -> list[WorkerFile]:
    """Reads the files of one gateway's edge workers. Blocks: not for the event loop.

    Args:
        folder: The directory of the files.
        now: The Unix time in seconds.
    """
    found = []
    for path in sorted(folder.glob("edge-*.json")):
        with suppress(FileNotFoundError):  # the gateway is stopping
            alive = now - path.stat().st_mtime < ALIVE_SECONDS
            found.append(WorkerFile(alive, _readable_counts(path)))
    return found


def _readable_counts(path: Path) -> Mapping[str, Any]:
    """Returns a worker's counts; empty if its file can't be read, so that the other workers' still count."""
    try:
        return read_counts(path)
    except (OSError, ValueError) as error:
        log.warning("metrics file not read", str(path), file=str(path), cause=repr(error))
        return {}


def exposition(*collectors: Collector) -> bytes:
    """Returns all metrics in Prometheus' text format. Reads files: not for the event loop."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


def totals(workers: Iterable[WorkerFile]) -> dict[str, RoomMetrics]:
    """Returns the sums over all edge workers of one gateway, by room."""
    sums: dict[str, RoomMetrics] = {}
    for worker in workers:
        for room, dumped in worker.rooms.items():
            _add(sums.setdefault(room, RoomMetrics()), dumped, alive=worker.alive)
    return sums


def _add(total: RoomMetrics, dumped: Mapping[str, Any], *, alive: bool) -> None:
    for outcome, count in dumped["requests"].items():
        total.requests[outcome] += count
    total.store_errors += dumped["store_errors"]
    total.upstream_failures += dumped["upstream_failures"]
    if alive:  # a dead worker's gauges ended with it
        total.in_flight += dumped["upstream_in_flight"]
        total.awaiting += dumped.get("upstream_awaiting_response", dumped["upstream_in_flight"])
        # Several workers may report a session as shared. Files of the previous release lack these fields.
        total.shared_sessions = {*total.shared_sessions, *dumped.get("shared_sessions", ())}
    for name in DISTRIBUTIONS:
        if name not in dumped:  # by a worker of an earlier version
            continue
        one: Distribution = getattr(total, name)
        one.counts = [mine + other for mine, other in zip(one.counts, dumped[name]["counts"], strict=True)]
        one.sum += dumped[name]["sum"]


def _cumulated(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    running, buckets = 0, []
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        running += count
        buckets.append((floatToGoString(bound), float(running)))  # type: ignore[no-untyped-call]
    return buckets
