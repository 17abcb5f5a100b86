"""Settings from a text, an environment and flags, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from waitroom.errors import SettingsError
from waitroom.settings import Settings, load_settings

UPSTREAM = "http://127.0.0.1:3000"
ROOM = f'[[rooms]]\nname = "shop"\nupstream = "{UPSTREAM}"\n'
TWO_ROOMS = f'{ROOM}[[rooms]]\nname = "pre-sale"\nupstream = "{UPSTREAM}"\npaths = ["/pre"]\n'


def load(folder: Path, text: str | None, env: Mapping[str, str] | None = None, **flags: object) -> Settings:
    """Load settings from a text as the file, an environment and flags."""
    path = None
    if text is not None:
        path = folder / "waitroom.toml"
        path.write_text(text, encoding="utf-8")
    return load_settings(path, env or {}, flags)


def refused(folder: Path, text: str | None, env: Mapping[str, str] | None = None, **flags: object) -> list[str]:
    """Return the problems of invalid settings."""
    with pytest.raises(SettingsError) as caught:
        load(folder, text, env, **flags)
    return [str(problem) for problem in caught.value.problems]
