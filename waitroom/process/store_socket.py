"""The Unix socket of the embedded store.

A user who can write to the directory of the socket can put another server in its place. So the socket is in
``data_dir`` or in another directory that only the gateway's user can write to. A Unix socket was chosen over a TCP port
on loopback because file permissions protect it: any user of the machine can connect to a port.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import tempfile
from pathlib import Path

from waitroom.errors import StartError

LONGEST_PATH = 100  # the system's limit is 104 or 108 bytes
NAME = "store.sock"
TEMPORARY_PREFIX = "waitroom-"


def find_socket(data_dir: Path, folder: Path | None) -> Path:
    """Returns the socket's path as of the last start: a link in ``data_dir`` leads to a temporary directory."""
    if folder is not None:
        name = hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:16]
        return folder / f"{name}.sock"
    path = data_dir.absolute() / NAME
    try:
        return Path(os.readlink(path))
    except OSError:
        return path


def place_socket(data_dir: Path, folder: Path | None) -> Path:
    """Returns the path for a new socket, and removes what the last start has left there. To be called under the lock.

    Args:
        data_dir: The store's data directory, which exists.
        folder: Another directory for the socket, from the settings.

    Raises:
        StartError: The directory can be written by others, or holds no sockets.
    """
    path = find_socket(data_dir, folder)
    if folder is not None:
        _create_private(folder)
    else:
        remove_socket(path, data_dir)
        path = data_dir.absolute() / NAME
        if len(os.fsencode(path)) > LONGEST_PATH or not _is_private(data_dir):
            link, path = path, _create_temporary() / NAME
            with contextlib.suppress(OSError):  # only the next start misses it
                link.symlink_to(path)
    _check(path)
    return path


def remove_socket(path: Path, data_dir: Path) -> None:
    """Removes a socket, and the temporary directory that was made for it.

    Nothing else is removed: where others can write to ``data_dir`` they choose the path.
    """
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    if path.parent.name.startswith(TEMPORARY_PREFIX) and path.parent != data_dir.absolute():
        with contextlib.suppress(OSError):
            path.parent.rmdir()
        link = data_dir / NAME
        if link.is_symlink():
            with contextlib.suppress(OSError):
                link.unlink()


def _create_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"can't create store_socket_dir {str(folder)!r}: {error.strerror}") from error
    if not _is_private(folder):
        raise StartError(f"other users can write to store_socket_dir {str(folder)!r}: choose a separate directory")


def _create_temporary() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
    except OSError as error:
        raise StartError(
            f"can't create a temporary directory for the store's socket: {error.strerror}: set store_socket_dir to a "
            "directory that only the gateway's user can write to, such as /run/waitroom"
        ) from error


def _is_private(folder: Path) -> bool:
    """Whether only we and root can write to the directory."""
    state = folder.stat()
    return state.st_uid in (os.geteuid(), 0) and not stat.S_IMODE(state.st_mode) & 0o022


def _check(path: Path) -> None:
    """Creates a socket as a test: the store would only exit. Raises `StartError`."""
    try:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError as error:
        raise StartError(
            f"can't create a Unix socket in {str(path.parent)!r}: {error.strerror or error}: set store_socket_dir to "
            "a directory on another file system, such as /run/waitroom"
        ) from error
