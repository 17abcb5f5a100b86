"""Repairs the end of the embedded store's append-only file.

After a power cut the file may end in zeros, in rubbish or in the middle of a command, and the server refuses to load
it. The bytes after the last whole command are cut off and set aside. A transaction counts as one command: half of a
script's writes must not be loaded.
"""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

FOLDER: Final = "appendonlydir"
MANIFEST: Final = "appendonly.aof.manifest"

_MAX_LINE: Final = 64  # of a length; longer ones are damage
_MAX_ANNOTATION: Final = 1024
_LENGTH: Final = re.compile(rb"[*$](0|[1-9][0-9]{0,9})")
_INCREMENT: Final = re.compile(r"^file (\S+) seq (\d+) type i\b", re.MULTILINE)


class Bytes(Protocol):
    """The content of a file, ``bytes`` or a memory map."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> bytes: ...
    def find(self, sub: bytes, start: int = ..., end: int = ..., /) -> int:
        """As `bytes.find`."""


def whole_commands(content: Bytes) -> int:
    """Returns how many bytes at the beginning of an append-only file are whole.

    Whole are commands, annotations, and transactions as one.
    """
    position = whole = 0
    in_transaction = False
    while True:
        if content[position : position + 1] == b"#":
            end = content.find(b"\r\n", position, position + _MAX_ANNOTATION)
            found = None if end < 0 else (end + 2, b"")
        else:
            found = _command(content, position)
        if found is None:
            return whole
        position, name = found
        if name == b"MULTI":
            in_transaction = True
        elif name == b"EXEC":
            in_transaction = False
        if not in_transaction:
            whole = position


def _command(content: Bytes, position: int) -> tuple[int, bytes] | None:
    """Returns where the command at a position ends, and its name; None if it isn't a whole one."""
    head = _length(content, position, b"*")
    if head is None or head[0] == 0:
        return None
    count, position = head
    name = b""
    for index in range(count):
        argument = _length(content, position, b"$")
        if argument is None:
            return None
        length, start = argument
        position = start + length + 2
        if content[position - 2 : position] != b"\r\n":
            return None
        if index == 0 and length <= _MAX_LINE:
            name = content[start : start + length].upper()
    return position, name


def _length(content: Bytes, position: int, kind: bytes) -> tuple[int, int] | None:
    """Returns the length at a position, and where the text after it begins; None if there is none."""
    end = content.find(b"\r\n", position, position + _MAX_LINE)
    if end < 0:
        return None
    line = content[position:end]
    if line[:1] != kind or not _LENGTH.fullmatch(line):
        return None
    return int(line[1:]), end + 2


def last_increment(manifest: str) -> str | None:
    """Returns the name of the file that the server appends to, from the text of the manifest; None if it names none."""
    found = [(int(number), name) for name, number in _INCREMENT.findall(manifest)]
    name = max(found)[1] if found else None
    return name if name is not None and "/" not in name else None


@dataclass(frozen=True, slots=True)
class CutTail:
    """A damaged end that was cut off: of which file, how many bytes, and where they are now."""

    file: Path
    bytes: int
    set_aside: Path


def cut_damaged_tail(data_dir: Path) -> CutTail | None:
    """Cuts off the bytes after the last whole command, and sets them aside in a new file next to it. Blocks.

    The server must not be running. Nothing else is touched: not the base file, and no earlier increment.

    Returns:
        The damage; None if the file ends with a whole command, or there is none.

    Raises:
        OSError: The file can't be read or written.
    """
    folder = data_dir / FOLDER
    try:
        name = last_increment((folder / MANIFEST).read_text(errors="replace"))
    except FileNotFoundError:
        return None
    if name is None or not (folder / name).is_file() or not (folder / name).stat().st_size:
        return None
    path = folder / name
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            size, whole = len(content), whole_commands(content)
        if whole == size:
            return None
        aside = _set_aside(path, whole)
        file.truncate(whole)
        os.fsync(file.fileno())
    return CutTail(path, size - whole, aside)


def _set_aside(path: Path, start: int) -> Path:
    """Copies the end of a file to a new file, which is on disk before anything is cut off. Returns its path."""
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    with path.open("rb") as source, aside.open("xb") as target:
        source.seek(start)
        while piece := source.read(1 << 20):
            target.write(piece)
        target.flush()
        os.fsync(target.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return aside
