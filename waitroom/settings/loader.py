"""Loads all settings, and passes them to the child processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from waitroom.errors import Problem, SettingsError
from waitroom.settings.files import resolve_files
from waitroom.settings.gateway import Settings
from waitroom.settings.room import RoomSettings
from waitroom.settings.sources import gather
from waitroom.settings.validation import find_conflicts, validate

_ADAPTER: TypeAdapter[Settings] = TypeAdapter(Settings)


def load_settings(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object]) -> Settings:
    """Load the settings. Precedence: flags, then the environment, then the file, then the defaults.

    Args:
        path: The settings file in TOML, or None for none.
        env: The environment; only names with the prefix ``WAITROOM_`` are used, and empty values are ignored.
        overrides: Values of flags, by key: keys of the top level, and of the only room; None is ignored.

    Returns:
        The settings, with secrets from ``secrets_file`` if configured, and ``template`` as an absolute path.

    Raises:
        SettingsError: Contains all problems.
    """
    source = gather(path, env, overrides, Settings, RoomSettings)
    validated = validate(_ADAPTER, source, Settings)
    problems = [*source.problems, *validated.problems]
    problems += find_conflicts(validated.settings, source, validated.rejected)
    settings, of_files = resolve_files(validated.settings, source)
    problems += of_files
    if problems:
        raise SettingsError(sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0)))
    return settings


def to_json(settings: Settings) -> bytes:
    """Serialize settings for `from_json`, secrets included: for a pipe to a child process, never for a log."""
    return _ADAPTER.dump_json(settings)


def from_json(data: bytes) -> Settings:
    """Parse the output of `to_json`.

    Raises:
        SettingsError: ``data`` is invalid.
    """
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError:
        pass  # the error would quote the secrets, so it must not become this one's context
    raise SettingsError([Problem("settings", "invalid settings JSON.")])
