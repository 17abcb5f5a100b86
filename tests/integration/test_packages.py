"""The contents of a release, built from this checkout without compiling."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from waitroom import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PARTS = {"waitroom/queue/scripts/join.lua", "waitroom/control/api/openapi.yaml", "waitroom/py.typed"}


def build(target: str, folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)],
        cwd=ROOT,
        env={**os.environ, "WAITROOM_PURE": "1"},
        check=True,
        timeout=60,
    )
    (built,) = folder.iterdir()
    return built


def test_the_source_archive_has_everything_but_earlier_releases(tmp_path: Path) -> None:
    built = build("sdist", tmp_path)
    assert built.name == f"waitroom-{__version__}.tar.gz"
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= PARTS | {"hatch_build.py", "templates/waiting.html", "config/waitroom.toml", "LICENSE", "Makefile"}
    assert names >= {"requirements/default.txt", "tests/integration/test_packages.py"}
    assert not [name for name in names if name.startswith("tests/upgrade")]


def test_the_wheel_has_the_package_and_its_data_and_nothing_else(tmp_path: Path) -> None:
    built = build("wheel", tmp_path)
    assert built.name == f"waitroom-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
    assert names >= PARTS | {"waitroom/_data/templates/waiting.html", "waitroom/_data/config/waitroom.toml"}
    assert {name.partition("/")[0] for name in names} == {"waitroom", f"waitroom-{__version__}.dist-info"}
