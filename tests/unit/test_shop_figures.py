"""The shop's figures, from the workers' files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from waitroom.control.monitoring.hints import NOTHING
from waitroom.control.shop_figures import ShopFigures, ShopWatch, quantile
from waitroom.metrics.collectors import EdgeCollector, exposition, totals
from waitroom.metrics.recorder import MOST_SHARED_NAMED, EdgeMetrics

NOW = 1_800_000_000.0


class Workers:
    """Two workers' files, written when a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.each = [EdgeMetrics(folder, slot, ["shop"]) for slot in range(2)]
        self.watch = ShopWatch(folder)

    def serve(self, worker: int, count: int, seconds: float, outcome: str = "forwarded") -> None:
        room = self.each[worker].rooms["shop"]
        for _ in range(count):
            room.upstream_request_seconds.observe(2 * seconds)
            room.upstream_response_seconds.observe(seconds)
            room.requests[outcome] += 1
            room.upstream_failures += outcome == "failed"

    def look(self, now: float, *, writing: tuple[int, ...] = (0, 1)) -> None:
        for slot in writing:
            self.each[slot].save(self.each[slot].dump())
            os.utime(self.folder / f"edge-{slot}.json", (now, now))
        self.watch.look(now)


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path)


def test_nothing_is_known_before_the_first_look(workers: Workers) -> None:
    assert workers.watch.figures("shop", 10) == ShopFigures(0.0, 0.0, None, None, 0, 0)
    workers.look(NOW)
    assert workers.watch.figures("shop", 10) == ShopFigures(0.0, 0.0, None, None, 0, 2)
    assert workers.watch.figures("another", 10).p50_seconds is None


def test_what_came_between_two_looks_over_all_workers(workers: Workers) -> None:
    workers.serve(0, 1000, 20)  # before anybody looked
    workers.look(NOW)
    workers.serve(0, 30, 0.004)
    workers.serve(1, 20, 0.2)
    workers.serve(1, 3, 0.2, "failed")
    workers.serve(0, 2, 0.2, "failed")
    workers.each[0].rooms["shop"].in_flight = 4
    workers.each[1].rooms["shop"].in_flight = 3
    workers.look(NOW + 10)

    figures = workers.watch.figures("shop", 10)

    assert (figures.requests_per_minute, figures.failures_per_minute) == (330.0, 30.0)
    assert figures.in_flight == 7
    assert figures.p50_seconds is not None
    assert figures.p95_seconds is not None
    assert figures.p50_seconds <= 0.005
    assert 0.1 < figures.p95_seconds <= 0.25


def test_only_the_seconds_that_are_asked_for_count(workers: Workers) -> None:
    for second in range(100):
        workers.look(NOW + second)
        workers.serve(0, 10 if second < 89 else 1, 0.1)
    assert workers.watch.figures("shop", 10).requests_per_minute == 60.0
    assert workers.watch.figures("shop", 60).requests_per_minute == pytest.approx(60 * 510 / 60)


def test_a_worker_that_writes_no_more_is_not_alive(workers: Workers) -> None:
    workers.each[1].rooms["shop"].in_flight = 5
    workers.look(NOW)
    assert workers.watch.workers_alive == 2
    workers.look(NOW + 3, writing=(0,))
    assert workers.watch.workers_alive == 2
    workers.look(NOW + 3.5, writing=(0,))
    figures = workers.watch.figures("shop", 10)
    assert (figures.workers_alive, figures.in_flight) == (1, 0)


def test_a_clock_that_is_set_back_and_a_file_that_vanishes_make_no_figures_up(workers: Workers) -> None:
    workers.serve(0, 100, 0.1)
    workers.look(NOW + 3600)
    workers.look(NOW)
    assert workers.watch.figures("shop", 10).requests_per_minute == 0
    (workers.folder / "edge-0.json").unlink()
    workers.look(NOW + 5, writing=(1,))
    figures = workers.watch.figures("shop", 10)
    assert (figures.requests_per_minute, figures.workers_alive) == (0, 1)


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 0, 0], 0.5, 0.5),
        ([0, 10, 0], 0.5, 1.5),
        ([5, 5, 0], 0.95, 1.9),
        ([0, 0, 3], 0.5, 2.0),
    ],
)
def test_quantiles(counts: list[int], share: float, value: float | None) -> None:
    assert quantile((1.0, 2.0), counts, share) == value


def test_streams_are_requests_and_answers_but_their_lifetime_is_no_latency(workers: Workers) -> None:
    room = workers.each[0].rooms["shop"]
    workers.look(NOW)
    for _ in range(60):
        room.upstream_response_seconds.observe(0.02)
        room.upstream_request_seconds.observe(8.0)
    workers.look(NOW + 10)

    figures = workers.watch.figures("shop", 10)

    assert figures.requests_per_minute == 360
    assert figures.p95_seconds is not None
    assert figures.p95_seconds <= 0.025


def test_a_file_that_a_former_version_wrote_still_counts(workers: Workers, tmp_path: Path) -> None:
    workers.serve(0, 10, 0.2)
    dumped = workers.each[0].dump()
    former = json.loads(dumped)
    for name in ("upstream_response_seconds", "upstream_awaiting_response"):
        del former["shop"][name]
    workers.each[0].save(json.dumps(former).encode())
    workers.watch.look(NOW)

    assert workers.watch.figures("shop", 10).p50_seconds is None
    assert (
        totals(tmp_path)["shop"].upstream_request_seconds.counts
        == json.loads(dumped)["shop"]["upstream_request_seconds"]["counts"]
    )

    # The worker that takes its place goes on with the counts of old, and counts the latency from then on.
    workers.each[0] = EdgeMetrics(tmp_path, 0, ["shop"])
    workers.serve(0, 5, 0.2)
    workers.look(NOW + 10)
    figures = workers.watch.figures("shop", 10)
    assert figures.requests_per_minute == 30
    assert figures.p50_seconds is not None
    assert sum(totals(tmp_path)["shop"].upstream_request_seconds.counts) == 15
    assert sum(totals(tmp_path)["shop"].upstream_response_seconds.counts) == 5


def test_sessions_that_are_shared_are_counted_once_over_all_workers_that_live(workers: Workers) -> None:
    assert workers.watch.observed("shop") == NOTHING
    workers.each[0].rooms["shop"].shared_sessions = [90, 91]
    workers.each[1].rooms["shop"].shared_sessions = [91, 92]
    workers.look(NOW)
    assert workers.watch.observed("shop").shared_sessions == {90, 91, 92}
    assert workers.watch.observed("another") == NOTHING
    workers.look(NOW + 60, writing=(1,))
    assert workers.watch.observed("shop").shared_sessions == {91, 92}


def test_what_workers_saw_of_proxies_and_refused_requests_is_gathered(workers: Workers) -> None:
    first, second = (one.rooms["shop"] for one in workers.each)
    first.missing_proxy = "10.0.0.1"
    first.refused = {"POST /hooks": NOW - 5, "PUT /api": NOW - 50}
    second.refused = {"POST /hooks": NOW}
    workers.look(NOW)
    observed = workers.watch.observed("shop")
    assert observed.missing_proxies == {"10.0.0.1"}
    assert observed.refused == {"POST /hooks": NOW, "PUT /api": NOW - 50}


def test_files_of_the_release_before_are_read(workers: Workers) -> None:
    workers.look(NOW)
    path = workers.folder / "edge-0.json"
    dumped = json.loads(path.read_bytes())
    for name in ("shared_sessions", "missing_proxy", "refused"):
        del dumped["shop"][name]
    path.write_text(json.dumps(dumped))
    workers.look(NOW + 1, writing=(1,))
    assert workers.watch.observed("shop") == NOTHING
    assert b'waitroom_shared_sessions{room="shop"} 0.0' in exposition(EdgeCollector(workers.folder))
    assert EdgeMetrics(workers.folder, 0, ["shop"]).rooms["shop"].shared_sessions == ()


def test_the_gauge_counts_shared_sessions(workers: Workers) -> None:
    workers.each[0].rooms["shop"].shared_sessions = range(MOST_SHARED_NAMED + 50)
    workers.each[1].rooms["shop"].shared_sessions = [5, 7000]
    workers.look(NOW)
    assert b'waitroom_shared_sessions{room="shop"} 101.0' in exposition(EdgeCollector(workers.folder))
