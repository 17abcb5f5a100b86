"""The limit of open files, and the errors that show that it is reached."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from waitroom.process.open_files import (
    OTHER_FILES,
    connection_limit,
    files_needed,
    is_out_of_files,
    raise_limit,
)


def in_another_process(check: Callable[[], bool]) -> bool:
    """The result of a check in a process of its own: its limits are its own, too."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = int(not check())
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def test_the_limit_of_open_files_bounds_connections() -> None:
    with capture_logs() as logs:
        assert connection_limit(None, 20_000, 256, warn=True) == 20_000
        assert connection_limit(files_needed(20_000, 256), 20_000, 256, warn=True) == 20_000
        assert logs == []
        assert connection_limit(1024, 20_000, 256, warn=True) == 1024 - 256 - OTHER_FILES
        assert connection_limit(256, 20_000, 256, warn=False) == 128
        assert connection_limit(1024, 100, 1000, warn=False) == 100
    (line,) = logs
    assert line == {
        "event": "open file limit too low",
        "log_level": "warning",
        "limit": 1024,
        "needed": 20_000 + 256 + OTHER_FILES,
        "client_connections": 640,
        "wanted": 20_000,
    }


@pytest.mark.parametrize(("needed", "raised"), [(200, 200), (64, 100), (1000, 500)])
def test_the_soft_limit_is_raised_to_what_is_needed_and_allowed(needed: int, raised: int) -> None:
    def check() -> bool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 500))
        return raise_limit(needed) == raised and resource.getrlimit(resource.RLIMIT_NOFILE) == (raised, 500)

    assert in_another_process(check)


def test_an_error_is_known_to_come_from_the_limit() -> None:
    def check() -> bool:
        refused, unknown = ConnectionRefusedError(errno.ECONNREFUSED, "refused"), socket.gaierror(-2, "unknown name")
        several = OSError("Multiple exceptions: one, two")
        before = [is_out_of_files(error) for error in (refused, unknown, several, OSError(errno.EMFILE, "many"))]
        files = os.dup(2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        during = [is_out_of_files(error) for error in (unknown, several)]
        return before == [False, False, False, True] and during == [True, True]

    assert in_another_process(check)
