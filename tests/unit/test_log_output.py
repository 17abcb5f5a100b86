"""Log lines on every kind of descriptor: written whole, or lost; never an error, and never a wait."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import sys
import termios
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from waitroom import log_output
from waitroom.log_output import LogOutput, replace_standard_streams

LINE = "a line of the log\n"


@contextlib.contextmanager
def output_on(descriptor: int) -> Iterator[LogOutput]:
    output = LogOutput(descriptor)
    try:
        yield output
    finally:
        output.close()
        os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A reading and a writing end; the test closes the writing one."""
    reader, writer = os.pipe()
    yield reader, writer
    with contextlib.suppress(OSError):
        os.close(reader)


@pytest.fixture(params=["reopened", "shared"])
def no_reopening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as with /proc, and once as without it, or where another user opened the pipe."""
    if request.param == "shared":
        monkeypatch.setattr(LogOutput, "_reopen", lambda *_: None)


def test_lines_are_written_whole(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    with output_on(descriptor) as output:
        assert output.write("one ") == 4
        assert (tmp_path / "log").read_text() == ""
        output.write("line\ntwo\nthr")
        assert (tmp_path / "log").read_text() == "one line\ntwo\n"
        output.flush()
        assert (tmp_path / "log").read_text() == "one line\ntwo\nthr"
        output.write("ée \udce9\n")
        assert (output.fileno(), output.isatty(), output.lost) == (descriptor, False, 0)
    assert (tmp_path / "log").read_bytes() == b"one line\ntwo\nthr\xc3\xa9e \\udce9\n"


@pytest.mark.usefixtures("no_reopening")
def test_a_pipe_that_nobody_reads(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with output_on(writer) as output:
        while not output.lost:
            output.write(LINE)
        lost = output.lost
        for _ in range(3):
            output.write(LINE)
        assert os.get_blocking(writer), "the flag is shared with other processes"
        written = os.read(reader, 1 << 20).decode()
        output.write("the next one\n")
        assert output.lost >= lost
        more = os.read(reader, 1 << 20).decode()
    assert set(written.splitlines(keepends=True)) - {LINE} <= {LINE[: len(written) % len(LINE)]}
    assert more.endswith("\nthe next one\n") or more == "the next one\n"


@pytest.mark.usefixtures("no_reopening")
def test_a_line_that_was_cut_is_not_joined_with_the_next(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with output_on(writer) as output:
        output.write("x" * (1 << 20) + "\n")
        assert output.lost == 1
        while len(os.read(reader, 1 << 20)) == 1 << 20:
            pass
        output.write(LINE)
        assert os.read(reader, 1 << 20).decode() == "\n" + LINE


@pytest.mark.usefixtures("no_reopening")
def test_a_pipe_whose_reader_is_gone(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with output_on(writer) as output:
        output.write(LINE)
        os.close(reader)
        output.write(LINE)
        output.write(LINE)
        assert output.lost == 2


def test_a_pipe_without_a_reader_from_the_start(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    with output_on(writer) as output:
        output.write(LINE)
        assert output.lost == 1


def test_a_full_disk() -> None:
    with output_on(os.open("/dev/full", os.O_WRONLY)) as output:
        output.write(LINE)
        output.write("unfinished")
        output.flush()
        assert output.lost == 2


def test_a_socket_that_nobody_reads() -> None:
    """As the journal's is."""
    near, far = socket.socketpair()
    with far, output_on(near.detach()) as output:
        while not output.lost:
            output.write(LINE * 100)
        assert far.recv(1 << 20).decode().startswith(LINE)
        lost = output.lost
        far.close()
        output.write(LINE)
        assert output.lost == lost + 1


@pytest.mark.usefixtures("no_reopening")
def test_a_terminal_that_is_stopped() -> None:
    far, near = pty.openpty()
    try:
        with output_on(near) as output:
            assert output.isatty()
            output.write(LINE)
            assert os.read(far, 100).decode().splitlines() == LINE.splitlines()
            termios.tcflow(near, termios.TCOOFF)  # as by Ctrl-S
            output.write(LINE)
            assert output.lost == 1
    finally:
        os.close(far)


def test_a_descriptor_that_is_closed(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    output = LogOutput(descriptor)
    os.close(descriptor)
    output.write(LINE)
    assert output.lost == 1
    output.close()
    output.write(LINE)
    for none in (LogOutput(None), LogOutput(descriptor)):
        none.write(LINE)
        none.flush()
        assert not none.isatty()


def test_standard_streams_are_replaced_once(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "stdout", None)
        replace_standard_streams()
        replaced: tuple[object, object] = (sys.stdout, sys.stderr)
        replace_standard_streams()
        assert (sys.stdout, sys.stderr) == replaced
        try:
            raise ValueError("odd")
        except ValueError:
            traceback.print_exc()
        print("lost", flush=True)
        assert os.read(reader, 1 << 20).decode().endswith("\nValueError: odd\n")
        os.close(reader)
        traceback.print_stack()
        sys.stderr.close()


def test_pieces_never_wait() -> None:
    """POSIX promises that as much as this can be written to a pipe that poll() calls writable."""
    assert log_output.PIECE_BYTES == 4096
