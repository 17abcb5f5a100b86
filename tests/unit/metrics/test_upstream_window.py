"""The stats of the upstream, from the workers' files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from support.room_views import OPEN
from waitroom.control.dashboard.presenter import room_texts
from waitroom.control.monitoring.history import shop_json
from waitroom.metrics.collectors import EdgeCollector, exposition, read_workers, totals
from waitroom.metrics.recorder import MOST_SHARED_NAMED, EdgeMetrics
from waitroom.metrics.upstream_window import NO_OBSERVATIONS, UpstreamStats, UpstreamWindow

NOW = 1_800_000_000.0


class Workers:
    """Two workers' files, written on request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.each = [EdgeMetrics(folder, slot, ["shop"]) for slot in range(2)]
        self.watch = UpstreamWindow(folder)

    def serve(self, worker: int, count: int, seconds: float, outcome: str = "forwarded") -> None:
        room = self.each[worker].rooms["shop"]
        for _ in range(count):
            room.upstream_request_seconds.observe(2 * seconds)
            room.upstream_response_seconds.observe(seconds)
            room.requests[outcome] += 1
            room.upstream_failures += outcome == "failed"

    def refresh(self, now: float, *, writing: tuple[int, ...] = (0, 1)) -> None:
        for slot in writing:
            self.each[slot].save(self.each[slot].dump())
            os.utime(self.folder / f"edge-{slot}.json", (now, now))
        self.watch.refresh(now, now)


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path)


def test_stats_are_empty_before_the_first_refresh(workers: Workers) -> None:
    assert workers.watch.stats("shop", 10) == UpstreamStats()
    workers.refresh(NOW)
    assert workers.watch.stats("shop", 10) == UpstreamStats()
    assert workers.watch.stats("another", 10).p50_seconds is None


def test_stats_sum_all_workers_between_two_refreshes(workers: Workers) -> None:
    workers.serve(0, 1000, 20)  # before the first refresh
    workers.refresh(NOW)
    workers.serve(0, 30, 0.004)
    workers.serve(1, 20, 0.2)
    workers.serve(1, 3, 0.2, "failed")
    workers.serve(0, 2, 0.2, "failed")
    workers.each[0].rooms["shop"].in_flight = 4
    workers.each[1].rooms["shop"].in_flight = 3
    workers.refresh(NOW + 10)

    figures = workers.watch.stats("shop", 10)

    assert (figures.requests_per_minute, figures.failures_per_minute) == (330.0, 30.0)
    assert figures.in_flight == 7
    assert figures.p50_seconds is not None
    assert figures.p95_seconds is not None
    assert figures.p50_seconds <= 0.005
    assert 0.1 < figures.p95_seconds <= 0.25


def test_only_the_requested_window_counts(workers: Workers) -> None:
    for second in range(100):
        workers.refresh(NOW + second)
        workers.serve(0, 10 if second < 89 else 1, 0.1)
    assert workers.watch.stats("shop", 10).requests_per_minute == 60.0
    assert workers.watch.stats("shop", 60).requests_per_minute == pytest.approx(60 * 510 / 60)


def test_requests_of_a_worker_that_stops_writing_are_not_in_flight(workers: Workers) -> None:
    workers.each[1].rooms["shop"].in_flight = 5
    workers.refresh(NOW)
    workers.refresh(NOW + 4.9, writing=(0,))
    assert workers.watch.stats("shop", 10).in_flight == 5
    workers.refresh(NOW + 5.5, writing=(0,))
    figures = workers.watch.stats("shop", 10)
    assert (figures.in_flight, figures.awaiting) == (0, 0)


@pytest.mark.parametrize("age", [0.0, 2.5, 3.5, 4.5, 6.0, 60.0])
def test_dashboard_and_metrics_agree_on_requests_in_flight(workers: Workers, age: float) -> None:
    now = time.time()
    workers.each[1].rooms["shop"].in_flight = 5
    workers.refresh(now)
    os.utime(workers.folder / "edge-1.json", (now - age, now - age))
    workers.watch.refresh(now, now)
    metrics = exposition(EdgeCollector(workers.folder)).decode()
    in_flight = workers.watch.stats("shop", 10).in_flight
    assert f'waitroom_upstream_in_flight{{room="shop"}} {in_flight:.1f}\n' in metrics


def test_a_vanished_file_causes_no_wrong_stats(workers: Workers) -> None:
    workers.serve(0, 100, 0.1)
    workers.refresh(NOW)
    (workers.folder / "edge-0.json").unlink()
    workers.refresh(NOW + 5, writing=(1,))
    assert workers.watch.stats("shop", 10).requests_per_minute == 0


def test_api_and_autopilot_read_the_same_latency(workers: Workers) -> None:
    workers.refresh(NOW)
    workers.serve(0, 30, 0.15)
    workers.refresh(NOW + 4)
    stats = workers.watch.stats("shop", 4)
    assert stats.p50_seconds == pytest.approx((0.1 * 0.25) ** 0.5), "in the middle of its bucket, as that is spaced"
    assert shop_json(stats)["p50_seconds"] == round(stats.p50_seconds, 4)


def test_failure_shares_exclude_abandoned_requests(workers: Workers) -> None:
    workers.refresh(NOW)
    workers.serve(0, 30, 0.1)
    workers.serve(0, 10, 0.1, "failed")
    workers.serve(0, 60, 0.1, "gone")
    workers.refresh(NOW + 60)
    stats = workers.watch.stats("shop", 60)
    told = (stats.requests_per_minute, stats.failures_per_minute, stats.given_up_per_minute, stats.answers_per_minute)
    assert told == (100, 10, 60, 40)
    assert room_texts({**OPEN, "shop": shop_json(stats)})["failures"] == "25 % (10/min)"


def test_the_lifetime_of_streams_is_not_latency(workers: Workers) -> None:
    room = workers.each[0].rooms["shop"]
    workers.refresh(NOW)
    for _ in range(60):
        room.upstream_response_seconds.observe(0.02)
        room.upstream_request_seconds.observe(8.0)
    workers.refresh(NOW + 10)

    figures = workers.watch.stats("shop", 10)

    assert figures.requests_per_minute == 360
    assert figures.p95_seconds is not None
    assert figures.p95_seconds <= 0.025


def test_a_file_of_an_earlier_version_counts(workers: Workers, tmp_path: Path) -> None:
    workers.serve(0, 10, 0.2)
    dumped = workers.each[0].dump()
    former = json.loads(dumped)
    for name in ("upstream_response_seconds", "upstream_awaiting_response"):
        del former["shop"][name]
    workers.each[0].save(json.dumps(former).encode())
    workers.watch.refresh(NOW, NOW)

    assert workers.watch.stats("shop", 10).p50_seconds is None
    assert (
        totals(read_workers(tmp_path, NOW))["shop"].upstream_request_seconds.counts
        == json.loads(dumped)["shop"]["upstream_request_seconds"]["counts"]
    )

    # The replacement continues with the earlier counts, and counts the latency from then on.
    workers.each[0] = EdgeMetrics(tmp_path, 0, ["shop"])
    workers.serve(0, 5, 0.2)
    workers.refresh(NOW + 10)
    figures = workers.watch.stats("shop", 10)
    assert figures.requests_per_minute == 30
    assert figures.p50_seconds is not None
    assert sum(totals(read_workers(tmp_path, NOW))["shop"].upstream_request_seconds.counts) == 15
    assert sum(totals(read_workers(tmp_path, NOW))["shop"].upstream_response_seconds.counts) == 5


def test_shared_sessions_are_counted_once_over_all_live_workers(workers: Workers) -> None:
    assert workers.watch.observed("shop") == NO_OBSERVATIONS
    workers.each[0].rooms["shop"].shared_sessions = [90, 91]
    workers.each[1].rooms["shop"].shared_sessions = [91, 92]
    workers.refresh(NOW)
    assert workers.watch.observed("shop").shared_sessions == {90, 91, 92}
    assert workers.watch.observed("another") == NO_OBSERVATIONS
    workers.refresh(NOW + 60, writing=(1,))
    assert workers.watch.observed("shop").shared_sessions == {91, 92}


def test_observations_of_proxies_and_refused_requests_are_merged(workers: Workers) -> None:
    first, second = (one.rooms["shop"] for one in workers.each)
    first.missing_proxy = "10.0.0.1"
    first.refused = {"POST /hooks": NOW - 5, "PUT /api": NOW - 50}
    second.refused = {"POST /hooks": NOW}
    workers.refresh(NOW)
    observed = workers.watch.observed("shop")
    assert observed.missing_proxies == {"10.0.0.1"}
    assert observed.refused == {"POST /hooks": NOW, "PUT /api": NOW - 50}


def test_files_of_the_previous_release_are_read(workers: Workers) -> None:
    workers.refresh(NOW)
    path = workers.folder / "edge-0.json"
    dumped = json.loads(path.read_bytes())
    for name in ("shared_sessions", "missing_proxy", "refused"):
        del dumped["shop"][name]
    path.write_text(json.dumps(dumped))
    workers.refresh(NOW + 1, writing=(1,))
    assert workers.watch.observed("shop") == NO_OBSERVATIONS
    assert b'waitroom_shared_sessions{room="shop"} 0.0' in exposition(EdgeCollector(workers.folder))
    assert EdgeMetrics(workers.folder, 0, ["shop"]).rooms["shop"].shared_sessions == ()


def test_the_gauge_counts_shared_sessions(workers: Workers) -> None:
    workers.each[0].rooms["shop"].shared_sessions = range(MOST_SHARED_NAMED + 50)
    workers.each[1].rooms["shop"].shared_sessions = [5, 7000]
    workers.refresh(NOW)
    assert b'waitroom_shared_sessions{room="shop"} 101.0' in exposition(EdgeCollector(workers.folder))


def test_two_refreshes_close_together_cause_no_peak(workers: Workers) -> None:
    """The loops of the dashboard and the autopilot refresh independently."""
    workers.refresh(NOW)
    for second in range(1, 5):
        workers.serve(0, 10, 0.1)
        workers.refresh(NOW + second)
        workers.watch.refresh(NOW + second + 0.01, NOW + second)
        workers.watch.refresh(NOW + second, NOW + second)  # had to wait for the other
        assert workers.watch.stats("shop", 1).requests_per_minute == pytest.approx(600, rel=0.05)


def test_waits_are_those_of_visitors_admitted_within_the_window(workers: Workers) -> None:
    assert workers.watch.wait_seconds("shop", 0.9) is None
    waits = [worker.rooms["shop"].wait_seconds for worker in workers.each]
    waits[0].observe(9000)
    workers.refresh(NOW)
    assert workers.watch.wait_seconds("shop", 0.9) is None, "admitted before the first refresh"
    for _ in range(9):
        waits[0].observe(3)
    waits[1].observe(700)
    workers.refresh(NOW + 1)
    p90 = workers.watch.wait_seconds("shop", 0.9)
    assert p90 == pytest.approx(5.0)
    largest = workers.watch.wait_seconds("shop", 1.0)
    assert largest is not None
    assert 600 < largest <= 1200
    for second in range(2, 65):
        workers.refresh(NOW + second)
    assert workers.watch.wait_seconds("shop", 0.9) is None, "nobody was admitted in the last minute"
    assert workers.watch.wait_seconds("another", 0.9) is None
