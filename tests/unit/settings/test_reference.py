"""The reference and the example file match the definitions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from waitroom.errors import StartError
from waitroom.resources import resource_path
from waitroom.settings import RoomSettings, Settings, load_settings
from waitroom.settings.reference import EXAMPLE, REFERENCE, example_toml, reference_markdown, toml_value
from waitroom.settings.schema import Key, keys_of, tables_of

ROOT = Path(__file__).parents[3]
KEYS = [
    pytest.param(header, key, id=f"{header}.{key.name}" if header else key.name)
    for header, table in tables_of(Settings).items()
    for key in keys_of(table).values()
    if key.table is None
]


def test_reference_and_example_are_up_to_date() -> None:
    """If not, run ``python -m waitroom.settings.reference`` in the repository's root."""
    assert (ROOT / REFERENCE).read_text(encoding="utf-8") == reference_markdown()
    assert (ROOT / EXAMPLE).read_text(encoding="utf-8") == example_toml()


def test_the_example_is_valid_and_sets_only_the_room() -> None:
    settings = load_settings(ROOT / EXAMPLE, {}, {})
    assert settings == Settings(rooms=(RoomSettings("shop", "http://127.0.0.1:3000"),))


def example_part(header: str) -> str:
    """Return the part of the example file that belongs to one table."""
    text = (ROOT / EXAMPLE).read_text(encoding="utf-8")
    before, *parts = re.split(r"^#?\[\[(.*)\]\]$", text, flags=re.MULTILINE)
    return {"": before, **dict(zip(parts[::2], parts[1::2], strict=True))}[header]


@pytest.mark.parametrize(("header", "key"), KEYS)
def test_the_example_explains_every_key_and_its_default(header: str, key: Key) -> None:
    comment, line = re.findall(rf"((?:^# .*\n)+)(^#?{key.name} = .*)$", example_part(header), re.MULTILINE)[0]
    words = " ".join(comment.replace("# ", "").split())
    assert key.about.what in words
    if key.default is None:
        assert "Default: none (" in words or key.required
    else:
        assert f"Default: {toml_value(key.default)}" in words
    if key.about.unit:
        assert f"Unit: {key.about.unit}." in words
    value = tomllib.loads(line.removeprefix("#"))[key.name]
    if not key.about.example:
        assert value == key.default


def test_every_line_of_the_example_can_be_enabled() -> None:
    enabled = re.sub(r"^#(?! |$)", "", (ROOT / EXAMPLE).read_text(encoding="utf-8"), flags=re.MULTILINE)
    data = tomllib.loads(enabled)
    assert data.keys() == keys_of(Settings).keys()
    assert data["rooms"][0].keys() == keys_of(RoomSettings).keys()


@pytest.mark.parametrize(("header", "key"), KEYS)
def test_every_key_has_a_description_and_a_unit(header: str, key: Key) -> None:
    assert key.about.what.endswith(".")
    assert key.about.change.endswith(".") or key.name == "upstream"
    if key.shape.name in {"INTEGER", "NUMBER"}:
        assert key.about.unit
        assert key.bounds
    if key.required or key.shape.name == "LIST":
        assert key.about.example
    if key.name.endswith("_seconds"):
        assert key.about.unit == "seconds"


@pytest.mark.interpreted
def test_resources_are_found_in_the_repository() -> None:
    assert resource_path("config").samefile(ROOT / "config")


def test_resources_of_the_wheel_take_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = tmp_path / "waitroom" / "_data" / "config"
    packaged.mkdir(parents=True)
    (tmp_path / "config").mkdir()
    monkeypatch.setattr("waitroom.resources._PACKAGE", tmp_path / "waitroom")
    assert resource_path("config") == packaged


def test_missing_resources_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waitroom.resources._PACKAGE", tmp_path / "waitroom")
    with pytest.raises(StartError, match="templates"):
        resource_path("templates")
