"""What the supervisor reports of the workers, and what keeps the gateway from being ready."""

from __future__ import annotations

from waitroom.control.monitoring.readiness import (
    MAX_REPORT_SECONDS,
    MAX_SILENT_SECONDS,
    MIN_EXITS,
    WorkerReports,
    worker_problems,
)
from waitroom.process.worker_status import WorkerStatus, decode_report, encode_report

HEALTHY = WorkerStatus("edge 0", True, 1.0, 0)


def test_healthy_workers_are_no_problem() -> None:
    killed = WorkerStatus("edge 1", True, MAX_SILENT_SECONDS - 0.1, MIN_EXITS - 1)
    assert worker_problems([]) == worker_problems([HEALTHY, killed]) == []


def test_each_worker_that_does_not_serve_is_named() -> None:
    workers = [
        WorkerStatus("edge 0", False, 0.0, 1),
        WorkerStatus("edge 1", True, 7.4, 0),
        HEALTHY,
        WorkerStatus("edge 3", True, 0.2, 4),
        WorkerStatus("edge 4", False, 9.0, 5),
    ]
    assert worker_problems(workers) == [
        "edge 0: not running",
        "edge 1: no sign of life for 7 s",
        "edge 3: exited 4 times in the last 30 s",
        "edge 4: exited 5 times in the last 30 s",
    ]


def test_workers_that_serve_are_counted() -> None:
    now = [100.0]
    reports = WorkerReports(lambda: now[0])
    assert reports.alive() == 0
    silent = WorkerStatus("edge 1", True, MAX_SILENT_SECONDS, 0)
    ended = WorkerStatus("edge 2", False, 0.0, 1)
    restarted = WorkerStatus("edge 3", True, 0.5, MIN_EXITS)
    reports.record(encode_report([HEALTHY, silent, ended, restarted]))
    assert reports.alive() == 2
    now[0] += MAX_REPORT_SECONDS + 1
    assert reports.alive() == 0


def test_a_report_is_one_line() -> None:
    workers = (HEALTHY, WorkerStatus("edge 1", False, 2.5, 3))
    line = encode_report(workers)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_report(line) == workers


def test_the_newest_report_counts_while_it_is_recent() -> None:
    now = [100.0]
    reports = WorkerReports(lambda: now[0])
    assert reports.problems() == []
    reports.record(encode_report([WorkerStatus("edge 0", False, 0.0, 1)]))
    assert reports.problems() == ["edge 0: not running"]
    reports.record(encode_report([HEALTHY]))
    now[0] += MAX_REPORT_SECONDS
    assert reports.problems() == []
    now[0] += 1
    assert reports.problems() == ["no report on the workers for 11 s: the supervisor doesn't run"]
