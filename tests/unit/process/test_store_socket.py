"""The embedded store's socket is never in a directory that others can write to, or could have made."""

from __future__ import annotations

import socket
import stat
import tempfile
from pathlib import Path

import pytest

from waitroom.errors import StartError
from waitroom.process.store_socket import find_socket, place_socket, remove_socket


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files, as public as /tmp, with a short path."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def long_folder(tmp_path: Path) -> Path:
    folder = tmp_path / ("x" * 100)
    folder.mkdir(mode=0o700)
    return folder


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def test_the_socket_is_in_a_private_data_dir(tmp_path: Path, temporary: Path) -> None:
    folder = temporary / "data"
    folder.mkdir(mode=0o700)
    path = place_socket(folder, None)
    assert path == find_socket(folder, None) == folder / "store.sock"
    bind(path)
    assert place_socket(folder, None) == path  # what was left is gone
    assert not path.exists()


@pytest.mark.parametrize("long", [True, False])
def test_another_directory_is_unpredictable_and_private(tmp_path: Path, temporary: Path, long: bool) -> None:
    """The path is too long, or others can write to data_dir."""
    folder = long_folder(tmp_path) if long else temporary / "data"
    if not long:
        folder.mkdir()
        folder.chmod(0o777)
    first = place_socket(folder, None)
    bind(first)
    assert first.parent.parent == temporary
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
    assert find_socket(folder, None) == first

    second = place_socket(folder, None)  # after a crash

    assert second.parent != first.parent
    assert not first.parent.exists()
    remove_socket(second, folder)
    assert list(temporary.iterdir()) == ([] if long else [folder])
    assert list(folder.iterdir()) == []


def test_a_directory_of_the_settings(tmp_path: Path, temporary: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    chosen = temporary / "sockets"
    paths = {place_socket(folder, chosen) for folder in (one, other)}
    assert {path.parent for path in paths} == {chosen}
    assert len(paths) == 2  # two gateways may share it
    assert stat.S_IMODE(chosen.stat().st_mode) == 0o700

    chosen.chmod(0o777)
    with pytest.raises(StartError, match="other users can write to store_socket_dir"):
        place_socket(one, chosen)


def test_a_directory_without_sockets(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = temporary / "data"
    folder.mkdir(mode=0o700)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("socket.socket.bind", refuse)
    with pytest.raises(StartError, match="Operation not permitted: set store_socket_dir"):
        place_socket(folder, None)


def test_a_link_that_others_have_made_costs_no_file(tmp_path: Path, temporary: Path) -> None:
    folder, file = temporary / "data", tmp_path / "file"
    file.write_text("kept")
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "store.sock").symlink_to(file)

    remove_socket(place_socket(folder, None), folder)

    assert file.read_text() == "kept"


def test_a_directory_in_place_of_the_socket(tmp_path: Path) -> None:
    (tmp_path / "store.sock").mkdir()
    with pytest.raises(StartError, match="Is a directory: set store_socket_dir"):
        place_socket(tmp_path, None)


def test_no_temporary_directory(tmp_path: Path, temporary: Path) -> None:
    temporary.rmdir()
    with pytest.raises(StartError, match="No such file or directory: set store_socket_dir"):
        place_socket(long_folder(tmp_path), None)
