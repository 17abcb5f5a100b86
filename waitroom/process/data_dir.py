"""The ``data_dir``: whether it can be used, its lock, and the secret stored there if the settings have none."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import hmac
import os
import pwd
import secrets
import shlex
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import structlog

from waitroom.errors import StartError
from waitroom.process.append_only_file import FOLDER

log = structlog.get_logger()

SECRET_FILE = "secret"  # noqa: S105 - a file's name
AUDIT_KEY_FILE = "audit_key"
LOCK_SECONDS = 15.0
POLL_SECONDS = 0.02
STORE_LOG = "store.log"
# All our files begin with one of these, those that are being written after a dot.
OUR_FILES = (FOLDER, "audit", "lost+found", "metrics", "operator.token", "people.", "secret", "store.")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


def create_directory(path: Path) -> None:
    """Creates a directory accessible only to its owner, if it is missing. Raises `StartError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise StartError(f"{str(path)!r} isn't a directory: remove it, or choose another data_dir") from None
    except OSError as error:
        raise StartError(
            f"can't create {str(path)!r}: {error.strerror}: create it as a directory of {_user(os.geteuid())}, or "
            "choose another data_dir"
        ) from error


def check_writable(path: Path) -> None:
    """Checks that the directory, and what a previous start has left in it, can be written. Raises `StartError`."""
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        if error.errno in _NO_SPACE:  # may pass, and costs visitors nothing if the store is elsewhere
            return
        raise StartError(_unwritable(path, path, error.strerror)) from error
    for entry in (path / STORE_LOG, path / FOLDER, *(path / FOLDER).glob("*")):
        mode = os.R_OK | os.W_OK | (os.X_OK if entry.is_dir() else 0)
        if entry.exists() and not os.access(entry, mode, effective_ids=os.access in os.supports_effective_ids):
            raise StartError(_unwritable(path, entry, "Permission denied"))


def make_private(path: Path) -> None:
    """Removes the access of other users to the directory if it contains only our files; else logs a warning."""
    try:
        state = path.stat()
        mode = stat.S_IMODE(state.st_mode)
        if not mode & 0o077:
            return
        foreign = [name for name in os.listdir(path) if not name.lstrip(".").startswith(OUR_FILES)]
        if state.st_uid == os.geteuid() and not foreign:
            path.chmod(0o700)
            log.info("data_dir made private", data_dir=str(path), mode_before=f"{mode:04o}")
            return
    except OSError:
        return
    fix = "use a separate directory with mode 0700"
    log.warning("data_dir accessible to other users", data_dir=str(path), mode=f"{mode:04o}", fix=fix)


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
    check_writable(path)
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
    make_private(path)
    return descriptor


def load_or_create_secret(path: Path) -> str:
    """Returns the secret in the file, created on first use with mode 0600. Raises `StartError`."""
    try:
        try:
            secret = path.read_text().strip()
        except FileNotFoundError:
            secret = secrets.token_urlsafe(32)
            write_durably(path, secret + "\n")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not a text file"
        raise StartError(
            f"can't read or create the secret file {str(path)!r}: {cause}: make it readable and its directory "
            f"writable for {_user(os.geteuid())}"
        ) from error
    if not secret:
        raise StartError(
            f"the secret file {str(path)!r} is empty: remove it to generate a new secret, which invalidates all "
            "tickets and passes"
        )
    return secret


def derived_audit_key(secret: str) -> str:
    """Returns the audit log's key for gateways that share a secret and have no audit key of their own."""
    return hmac.new(secret.encode(), b"waitroom.audit-key.1", hashlib.sha256).hexdigest()


def protect_files(folder: Path, names: Iterable[str]) -> None:
    """Makes files readable only by their owner, if they are there and somebody else may use them, and logs which."""
    for name in names:
        path = folder / name
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(path.lstat().st_mode)
            if mode & _OTHERS and not path.is_symlink():
                path.chmod(mode & ~_OTHERS)
                log.warning("file was accessible to other users, made private", file=str(path), mode=f"{mode:04o}")


def write_durably(path: Path, text: str) -> None:
    """Writes a file atomically and durably, readable only by its owner. Raises `OSError`.

    After a crash or a power failure the file is the old one or the new one, never an empty one.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            if os.geteuid() == 0:  # the directory belongs to the gateway's user, who must be able to read the file
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # else the new name may be lost
    finally:
        os.close(folder)


def _unwritable(data_dir: Path, path: Path, cause: str | None) -> str:
    """Returns a sentence with the reason and the fix."""
    owner, user = path.stat().st_uid, os.geteuid()
    if owner == user or (user == 0 and cause != "Permission denied"):
        return f"can't write to {str(path)!r}: {cause}: make it writable, or choose another data_dir"
    return (
        f"can't write to {str(path)!r}: {cause}: it belongs to {_user(owner)}, and the gateway runs as "
        f"{_user(user)}: run `chown -R {_user(user)} {shlex.quote(str(data_dir))}`, or choose another data_dir"
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
