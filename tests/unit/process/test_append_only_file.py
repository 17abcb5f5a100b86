"""The end of the append-only file: where the last whole command is, whatever follows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitroom.process.append_only_file import FOLDER, MANIFEST, cut_damaged_tail, last_increment, whole_commands

ARGUMENTS = st.lists(st.binary(max_size=40), min_size=1, max_size=5).filter(
    lambda one: one[0].upper() not in (b"MULTI", b"EXEC")
)


def command(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in arguments)


def transaction(commands: list[list[bytes]]) -> bytes:
    return command(b"MULTI") + b"".join(command(*one) for one in commands) + command(b"EXEC")


# What the server writes as a whole: a command, all that a script wrote, or a timestamp.
UNITS = st.one_of(
    ARGUMENTS.map(lambda one: command(*one)),
    st.lists(ARGUMENTS, max_size=3).map(transaction),
    st.integers(0, 2**40).map(lambda seconds: b"#TS:%d\r\n" % seconds),
)
DAMAGE = st.one_of(
    st.integers(1, 200).map(bytes),
    st.binary(min_size=1, max_size=60).filter(lambda one: one[:1] not in (b"*", b"#")),
    st.sampled_from(
        [b"*0\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$99999999999\r\n", b"*x\r\n", b"*2\r\n$1\r\na\r\n:5\r\n", b"*"]
    ),
)


@given(st.lists(UNITS, max_size=6))
def test_all_of_an_undamaged_file_is_whole(units: list[bytes]) -> None:
    content = b"".join(units)
    assert whole_commands(content) == len(content)


@given(st.lists(UNITS, min_size=1, max_size=6), st.data())
def test_a_file_cut_anywhere_is_whole_up_to_the_last_unit(units: list[bytes], data: st.DataObject) -> None:
    content = b"".join(units)
    cut = data.draw(st.integers(0, len(content)))
    ends = [len(b"".join(units[:count])) for count in range(len(units) + 1)]
    assert whole_commands(content[:cut]) == max(end for end in ends if end <= cut)


@given(st.lists(UNITS, max_size=6), DAMAGE, st.lists(UNITS, max_size=2))
def test_damage_ends_what_is_whole_whatever_follows(units: list[bytes], damage: bytes, after: list[bytes]) -> None:
    content = b"".join(units)
    assert whole_commands(content + damage + b"".join(after)) == len(content)


@given(st.binary(max_size=300))
def test_any_bytes_have_an_end_that_stays_where_it_is(content: bytes) -> None:
    whole = whole_commands(content)
    assert 0 <= whole <= len(content)
    assert whole_commands(content[:whole]) == whole


def test_half_of_a_transaction_is_not_whole() -> None:
    before = command(b"SET", b"a", b"1")
    assert whole_commands(before + command(b"multi") + before) == len(before)


def test_the_newest_increment_is_the_one_that_is_written_to() -> None:
    manifest = (
        "file appendonly.aof.9.base.rdb seq 9 type b\n"
        "file appendonly.aof.8.incr.aof seq 8 type h\n"
        "file appendonly.aof.10.incr.aof seq 10 type i\n"
        "file appendonly.aof.9.incr.aof seq 9 type i startoffset 5\n"
    )
    assert last_increment(manifest) == "appendonly.aof.10.incr.aof"
    assert last_increment("file ../elsewhere seq 1 type i\n") is None
    assert last_increment("\0\0\0") is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / MANIFEST).write_text("file a.base.rdb seq 1 type b\nfile a.incr.aof seq 1 type i\n")
    (folder / "a.base.rdb").write_bytes(b"REDIS0011 anything")
    return folder


def test_the_damaged_end_is_set_aside_and_nothing_else_changes(tmp_path: Path, folder: Path) -> None:
    whole = command(b"SET", b"a", b"1")
    for damage in (bytes(70), b"rubbish"):
        (folder / "a.incr.aof").write_bytes(whole + damage)
        cut = cut_damaged_tail(tmp_path)
        assert cut is not None
        assert (cut.bytes, cut.set_aside.read_bytes()) == (len(damage), damage)
        assert cut.file.read_bytes() == whole
    assert (folder / "a.base.rdb").read_bytes() == b"REDIS0011 anything"
    assert len(list(folder.glob("a.incr.aof.damaged-*"))) == 2, "the first one was overwritten"


@pytest.mark.parametrize("content", [b"", command(b"SET", b"a", b"1"), None])
def test_nothing_is_cut_off_a_file_that_is_whole_or_missing(
    tmp_path: Path, folder: Path, content: bytes | None
) -> None:
    if content is not None:
        (folder / "a.incr.aof").write_bytes(content)
    before = sorted(folder.iterdir())
    assert cut_damaged_tail(tmp_path) is None
    assert sorted(folder.iterdir()) == before


def test_without_a_folder_there_is_nothing_to_repair(tmp_path: Path) -> None:
    assert cut_damaged_tail(tmp_path) is None
