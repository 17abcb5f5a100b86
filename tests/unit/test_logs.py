from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import structlog
from structlog.testing import capture_logs

from waitroom.logs import LOG_INTERVAL_SECONDS, MOST_LOG_KINDS, LogLimiter, RateLimitedLog


def test_the_first_line_of_each_kind_is_written_and_then_one_per_interval_with_the_number_suppressed() -> None:
    limiter = LogLimiter()
    assert limiter.permit("upstream failed", "reset", 100.0) == 0
    assert limiter.permit("upstream failed", "timeout", 100.0) == 0
    assert limiter.permit("upstream down", "reset", 100.0) == 0
    for at in range(50):
        assert limiter.permit("upstream failed", "reset", 100.0 + at / 10) is None
    assert limiter.permit("upstream failed", "reset", 100.0 + LOG_INTERVAL_SECONDS) == 50
    assert limiter.permit("upstream failed", "reset", 101.0 + LOG_INTERVAL_SECONDS) is None
    assert limiter.permit("upstream failed", "timeout", 101.0 + LOG_INTERVAL_SECONDS) == 0


def test_any_number_of_kinds_makes_a_bounded_number_of_lines_and_entries() -> None:
    limiter = LogLimiter()
    for interval in range(3):
        now = 1000.0 + interval * LOG_INTERVAL_SECONDS
        lines = sum(limiter.permit("event", f"{interval} {number}", now) is not None for number in range(5000))
        assert lines <= MOST_LOG_KINDS + 1
        assert len(limiter) <= MOST_LOG_KINDS + 1
    # A kind that is new once the others are old has a line of its own.
    assert limiter.permit("event", "another", 2000.0) == 0


def test_a_rate_limited_log_names_how_many_lines_it_suppressed() -> None:
    now = [100.0]
    with capture_logs() as lines:
        log = RateLimitedLog(structlog.get_logger(), lambda: now[0])
        for number in range(3):
            log.warning("upstream failed", "reset", status=502, number=number)
        now[0] += LOG_INTERVAL_SECONDS
        log.warning("upstream failed", "reset", status=502, number=3)
        log.warning("something else")
    shown = [(line["event"], line.get("number"), line.get("suppressed")) for line in lines]
    assert shown == [("upstream failed", 0, None), ("upstream failed", 3, 2), ("something else", None, None)]
    assert {line["log_level"] for line in lines} == {"warning"}


def in_another_process(code: str, stderr: int) -> int:
    """The exit code of a process that logs."""
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stderr=stderr, check=False).returncode


CONFIGURED = """
    import structlog
    from waitroom import logs
    logs.configure("info", "test")
    log = structlog.get_logger()
"""


def test_a_log_call_never_raises_whatever_it_is_given(tmp_path: Path) -> None:
    code = (
        CONFIGURED
        + """
    class Odd:
        def __repr__(self):
            raise RuntimeError("no text")
    log.info("first", value=Odd())
    log.info("second", value=b"\\xff", key={1: {2}}, surrogate="\\udce9")
    try:
        raise ValueError(Odd())
    except ValueError:
        log.exception("third")
    log.debug("not shown", value=Odd())
    """
    )
    with (tmp_path / "log").open("wb") as file:
        assert in_another_process(code, file.fileno()) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines][:2] == ["log line not rendered", "second"]
    assert (lines[0]["line"], lines[0]["cause"]) == ("first", "RuntimeError")
    assert "third" in (lines[2]["event"], lines[2].get("line"))
    assert len(lines) == 3


def test_lost_lines_are_counted_once_lines_can_be_written_again() -> None:
    code = (
        CONFIGURED
        + """
    import os, sys
    while not sys.stderr.lost:
        log.info("one of many")
    os.read(0, 1 << 20)
    log.info("after that")
    """
    )
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as read, os.fdopen(writer, "wb") as write:
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stdin=read, stderr=write, check=False)
        assert done.returncode == 0
        write.close()
        rest = [json.loads(line) for line in read.read().decode().splitlines() if line.startswith("{")]
    shown = [(line["event"], line.get("count")) for line in rest if line["event"] != "one of many"]
    assert shown == [("after that", None), ("log lines lost", 1)]


def test_a_traceback_shows_no_local_variables_on_a_terminal() -> None:
    code = (
        CONFIGURED
        + """
    def check(secret):
        raise ValueError("refused")
    try:
        check("hunter" + "2")
    except ValueError:
        log.exception("failed")
    """
    )
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(theirs, "wb") as stderr:
        assert in_another_process(code, stderr.fileno()) == 0
        shown = terminal.read(1 << 16)
    assert b"hunter2" not in shown
    assert b"ValueError: refused" in shown
