"""The ``data_dir``: its lock, and the secret stored there if the settings have none."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from waitroom.errors import StartError

LOCK_SECONDS = 15.0
POLL_SECONDS = 0.02


def create_directory(path: Path) -> None:
    """Creates a directory accessible only to its owner, if it is missing. Raises `StartError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"can't create {str(path)!r}: {error.strerror}") from error


async def lock_directory(path: Path, while_locked: Callable[[], Awaitable[None]] | None = None) -> int:
    """Creates and locks the directory, without a lock file; the lock holds while any process has the descriptor open.

    Args:
        path: The folder.
        while_locked: Called repeatedly while another process has the lock.

    Returns:
        The descriptor.

    Raises:
        StartError: The directory can't be used, or another gateway uses it.
    """
    create_directory(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"can't use data_dir {str(path)!r}: {error.strerror}") from error
    try:
        async with asyncio.timeout(LOCK_SECONDS):
            while not _locked(descriptor):
                if while_locked is not None:
                    await while_locked()
                await asyncio.sleep(POLL_SECONDS)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, TimeoutError):
            raise StartError(
                f"data_dir {str(path)!r} is in use by another gateway: stop that one, or use another data_dir"
            ) from error
        raise
    return descriptor


def load_or_create_secret(path: Path) -> str:
    """Returns the secret in the file, created on first use with mode 0600. Raises `StartError`."""
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            secret = path.read_text().strip()
        else:
            secret = secrets.token_urlsafe(32)
            with os.fdopen(descriptor, "w") as file:
                file.write(secret + "\n")
    except OSError as error:
        raise StartError(f"can't read or create the secret file {str(path)!r}: {error.strerror}") from error
    if not secret:
        raise StartError(
            f"the secret file {str(path)!r} is empty: remove it to generate a new secret, which invalidates all "
            "tickets and passes"
        )
    return secret


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
