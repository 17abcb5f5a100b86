"""The data directory: its access rights, and files that survive a crash."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from waitroom.errors import StartError
from waitroom.process.data_dir import create_directory, load_or_create_secret, make_private, protect_files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_of_ours_is_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name in ("appendonlydir", "metrics", "lost+found"):
        (tmp_path / name).mkdir()
    for name in ("store.log", "secret", ".secret.x1", "operator.token", "people.json", "people.noted.json"):
        (tmp_path / name).touch()
    make_private(tmp_path)
    assert mode(tmp_path) == 0o700


def test_a_directory_with_files_of_others_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "index.html").touch()
    with capture_logs() as logs:
        make_private(tmp_path)
    assert mode(tmp_path) == 0o755
    assert [line["event"] for line in logs] == ["data_dir accessible to other users"]


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.touch()
    with pytest.raises(StartError, match="data' isn't a directory: remove it, or choose another data_dir"):
        create_directory(path)


def test_a_crash_leaves_no_empty_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        synced.append(name)
        if len(synced) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StartError, match="No space left on device"):
        load_or_create_secret(path)
    assert list(tmp_path.iterdir()) == []

    secret = load_or_create_secret(path)

    assert path.read_text().strip() == secret == load_or_create_secret(path)
    assert mode(path) == 0o600
    assert synced[1].startswith(".secret.")
    assert synced[2:] == [tmp_path.name]


def test_an_empty_or_unreadable_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(StartError, match="is empty"):
        load_or_create_secret(tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StartError, match="not a text file"):
        load_or_create_secret(tmp_path / "binary")


def test_files_that_others_could_read_are_made_private(tmp_path: Path) -> None:
    for name, bits in (("wide", 0o644), ("narrow", 0o400), ("unlisted", 0o644)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(bits)
    (tmp_path / "link").symlink_to(tmp_path / "unlisted")

    with capture_logs() as logs:
        protect_files(tmp_path, ["wide", "narrow", "link", "missing"])

    assert {name: mode(tmp_path / name) for name in ("wide", "narrow", "unlisted")} == {
        "wide": 0o600,
        "narrow": 0o400,
        "unlisted": 0o644,
    }
    assert [(line["file"], line["mode"]) for line in logs] == [(str(tmp_path / "wide"), "0644")]
