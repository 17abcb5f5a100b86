"""What is read out of the edge workers' files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from waitroom.control.autopilot.controller import decide
from waitroom.control.autopilot.model import Bounds, Figures, Memory
from waitroom.metrics.recorder import EdgeMetrics
from waitroom.metrics.upstream_window import UpstreamStats, UpstreamWindow, quantile


def served(edge: EdgeMetrics, seconds: float, count: int, *, failed: int = 0, gone: int = 0) -> None:
    metrics = edge.rooms["shop"]
    for _ in range(count):
        metrics.upstream_request_seconds.observe(2 * seconds)
        metrics.upstream_response_seconds.observe(seconds)
    metrics.upstream_failures += failed
    metrics.requests["gone"] += gone
    metrics.requests["admitted"] += count - gone
    edge.save(edge.dump())


def test_two_workers_are_summed_up_over_the_window(tmp_path: Path) -> None:
    edges = [EdgeMetrics(tmp_path, slot, ["shop"]) for slot in range(2)]
    watch = UpstreamWindow(tmp_path)
    watch.refresh(99, time.time())
    assert watch.stats("shop", 4).seconds == 0
    for edge in edges:
        served(edge, 3.0, 1000)
    watch.refresh(100, time.time())
    for edge in edges:
        edge.rooms["shop"].in_flight = 30
        edge.rooms["shop"].awaiting = 3
        served(edge, 0.03, 40, failed=2, gone=4)
    watch.refresh(104, time.time())
    figures = watch.stats("shop", 4)
    assert figures.answers_per_minute == pytest.approx((80 - 8) * 15)
    assert figures.failures_per_minute == pytest.approx(4 * 15)
    assert figures.given_up_per_minute == pytest.approx(8 * 15)
    assert figures.p50_seconds is not None
    assert 0.025 < figures.p50_seconds < 0.05
    assert (figures.in_flight, figures.awaiting) == (60, 6)
    assert watch.stats("another", 4) == UpstreamStats()


def test_a_longer_window_reaches_further_back_and_old_looks_are_forgotten(tmp_path: Path) -> None:
    edge = EdgeMetrics(tmp_path, 0, ["shop"])
    watch = UpstreamWindow(tmp_path)
    for at in range(0, 200, 2):
        served(edge, 0.03, 10 if at < 190 else 1)
        watch.refresh(at, time.time())
    short, long = watch.stats("shop", 4), watch.stats("shop", 60)
    assert short.requests_per_minute < 60
    assert long.requests_per_minute > 200
    assert len(watch._snapshots) < 40


def test_websockets_that_live_for_seconds_do_not_lower_the_rate(tmp_path: Path) -> None:
    """They are answered as quickly as pages are; how long they then stay open says nothing about the shop."""
    edge = EdgeMetrics(tmp_path, 0, ["shop"])
    metrics = edge.rooms["shop"]
    watch = UpstreamWindow(tmp_path)
    memory, rates = Memory(), []
    bounds = Bounds(60.0, 600.0)
    rate, opened_at = 600.0, None
    for now in range(0, 300, 2):
        if now % 20 == 0 and now >= 100:
            # Sixty sockets are opened: each has its 101 at once, and is a request in flight from then on.
            opened_at = now
            for _ in range(60):
                metrics.upstream_response_seconds.observe(0.02)
            metrics.in_flight += 60
        if opened_at is not None and now == opened_at + 8:
            for _ in range(60):
                metrics.upstream_request_seconds.observe(8.0)
            metrics.requests["admitted"] += 60
            metrics.in_flight -= 60
        served(edge, 0.02, 40)
        watch.refresh(now, time.time())
        seen = watch.stats("shop", 4)
        if not seen.seconds:
            continue
        figures = Figures(
            seconds=4,
            running=True,
            rate=rate,
            waiting=1000,
            inside=300,
            full=False,
            admitted=rate,
            left=rate,
            requests=seen.answers_per_minute,
            failures=seen.failures_per_minute,
            given_up=seen.given_up_per_minute,
            p50_seconds=seen.p50_seconds,
            p95_seconds=seen.p95_seconds,
            in_flight=seen.awaiting,
        )
        memory, decision = decide(memory, bounds, figures, 1000.0 + now)
        rate = decision.rate
        rates.append(rate)
    assert set(rates) == {600.0}


@pytest.mark.parametrize(
    ("counts", "share", "between"),
    [
        ([0, 10, 0, 0], 0.5, (0.1, 0.2)),
        ([10, 10, 0, 0], 0.5, (0.1, 0.1)),
        ([10, 0, 10, 0], 0.75, (0.2, 0.4)),
        ([0, 0, 0, 5], 0.5, (0.4, 0.4)),
    ],
)
def test_a_quantile_is_found_in_its_bucket(counts: list[float], share: float, between: tuple[float, float]) -> None:
    found = quantile((0.1, 0.2, 0.4), counts, share)
    assert found is not None
    assert between[0] <= found <= between[1]


def test_nothing_observed_has_no_quantile() -> None:
    assert quantile((0.1, 0.2), [0, 0, 0], 0.5) is None
