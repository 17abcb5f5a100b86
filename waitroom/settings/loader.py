"""Loads a whole set of settings, and carries it to the child processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from waitroom.errors import Problem, SettingsError
from waitroom.settings.files import with_files
from waitroom.settings.gateway import Settings
from waitroom.settings.room import RoomSettings
from waitroom.settings.sources import gather
from waitroom.settings.validation import accept, contradictions

_ADAPTER: TypeAdapter[Settings] = TypeAdapter(Settings)


def load_settings(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object]) -> Settings:
    """Load the settings. Flags go before the environment, that before the file, that before the defaults.

    Args:
        path: The settings file in TOML, or None for none.
        env: The environment; names that don't begin with ``WAITROOM_`` are none of ours, and an empty value is
            as good as none.
        overrides: What flags gave, by key: keys of the top level, and of the only room; None is as good as none.

    Returns:
        The settings, their secrets read from ``secrets_file`` if there is one, ``template`` an absolute path.

    Raises:
        SettingsError: All that is wrong, at once.
    """
    source = gather(path, env, overrides, Settings, RoomSettings)
    accepted = accept(_ADAPTER, source, Settings)
    problems = [*source.problems, *accepted.problems]
    problems += contradictions(accepted.settings, source, accepted.doubtful)
    settings, of_files = with_files(accepted.settings, source)
    problems += of_files
    if problems:
        raise SettingsError(sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0)))
    return settings


def to_json(settings: Settings) -> bytes:
    """Write settings for `from_json`, secrets included: for a pipe to a child process, never for a log."""
    return _ADAPTER.dump_json(settings)


def from_json(data: bytes) -> Settings:
    """Read what `to_json` wrote.

    Raises:
        SettingsError: ``data`` isn't that.
    """
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError:
        pass  # the error would quote the secrets, so it must not become this one's context
    raise SettingsError([Problem("settings", "aren't what to_json wrote.")])
