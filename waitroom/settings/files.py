"""Reads the files named in the settings, and reports problems without quoting their content."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from waitroom.errors import Problem
from waitroom.net.tls import CertificateError, read_pair
from waitroom.settings.sources import KeyPath, Source
from waitroom.settings.store_url import files_of
from waitroom.settings.validators import SECRET_LENGTH

if TYPE_CHECKING:
    from waitroom.settings.gateway import Settings

_SECRETS_FILE: KeyPath = ("secrets_file",)


def resolve_files(settings: Settings, source: Source) -> tuple[Settings, list[Problem]]:
    """Read the secrets file, and make its path and those in rooms absolute.

    Args:
        settings: The settings, each value validated by itself.
        source: Where they came from, to resolve relative paths.

    Returns:
        The completed settings, and the problems of the files.
    """
    problems: list[Problem] = []
    rooms = list(settings.rooms)
    for index, room in enumerate(rooms):
        whole: dict[str, str | None] = {"template": None, "upstream_ca_file": None}
        for name in whole:
            if (given := getattr(room, name)) is None:
                continue
            key: KeyPath = ("rooms", index, name)
            file = source.folder_of(key) / given
            whole[name] = str(file)
            if not file.is_file():
                problems.append(source.problem(key, f'names "{file}": no such file.', "Check the path."))
            elif name == "upstream_ca_file" and (fault := _ca_file_error(file)):
                fix = "Name a PEM file with certificates that the gateway's user can read."
                problems.append(source.problem(key, f'names "{file}": {fault}', fix))
        rooms[index] = dataclasses.replace(room, template=whole["template"], upstream_ca_file=whole["upstream_ca_file"])
    settings = dataclasses.replace(settings, rooms=tuple(rooms))
    settings, of_pair = _resolve_certificate(settings, source)
    problems += of_pair
    problems += _store_file_problems(settings, source)
    if settings.secrets_file is None:
        return settings, problems
    file = source.folder_of(_SECRETS_FILE) / settings.secrets_file
    secrets, faults = _read_secrets(file)
    problems += [source.problem(_SECRETS_FILE, f'names "{file}": {what}', fix) for what, fix in faults]
    return dataclasses.replace(settings, secrets_file=str(file), secrets=secrets), problems


def _ca_file_error(file: Path) -> str:
    """Return the problem with a CA file, or an empty text."""
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        return "it contains no certificates."
    except OSError as error:
        return f"it can't be read: {error.strerror or type(error).__name__}."
    return ""


def _store_file_problems(settings: Settings, source: Source) -> list[Problem]:
    """Return a problem for each file in ``redis_url`` that can't be read."""
    key: KeyPath = ("redis_url",)
    return [
        source.problem(key, f'names "{path}" in {option}: {fault}', "Check the path and the file's permissions.")
        for option, path in files_of(settings.redis_url or "")
        if (fault := _read_error(Path(path)))
    ]


def _read_error(file: Path) -> str:
    """Return why a file can't be read, or an empty text."""
    try:
        file.open("rb").close()
    except OSError as error:
        return f"it can't be read: {error.strerror or type(error).__name__}."
    return ""


def _resolve_certificate(settings: Settings, source: Source) -> tuple[Settings, list[Problem]]:
    """Make the paths of certificate and key absolute; an unusable pair is a problem."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return settings, []
    certificate = source.folder_of(("tls_certificate",)) / settings.tls_certificate
    key = source.folder_of(("tls_key",)) / settings.tls_key
    settings = dataclasses.replace(settings, tls_certificate=str(certificate), tls_key=str(key))
    try:
        read_pair(certificate, key)
    except CertificateError as error:
        return settings, [source.problem((error.key,), error.what, error.hint)]
    return settings, []


def _read_secrets(file: Path) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return one secret per line, and each problem with its fix."""
    try:
        lines = file.read_bytes().decode().splitlines()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return (), [(f"it can't be read: {reason}.", "Check the path and the file's permissions.")]
    except UnicodeDecodeError:
        return (), [("it isn't UTF-8 text.", "Put one secret on each line.")]
    secrets = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    if not secrets:
        return (), [("it is empty.", "Put one secret on each line, newest first.")]
    faults = [
        (
            f"line {number} has fewer than {SECRET_LENGTH} characters.",
            "Put one secret on each line; `waitroom secret` generates one.",
        )
        for number, secret in secrets.items()
        if len(secret) < SECRET_LENGTH
    ]
    return tuple(secrets.values()), faults
