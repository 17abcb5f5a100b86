"""Neighbourhoods with active sessions, known to all workers of a gateway.

A CORS preflight carries no cookie, so only the address can show whether it belongs to a session. Each worker keeps the
neighbourhoods of the sessions it serves, and writes them to its own file, which the others read. A neighbourhood is
stored as a keyed digest: the files contain no addresses.
"""

# mypyc: compile

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from waitroom.bounded import put

MAX_NEIGHBOURHOODS: Final = 16_384
REFRESH_SECONDS: Final = 15  # the minimum interval between two records of a neighbourhood
_DIGEST_BYTES: Final = 8


class Neighbours:
    """The neighbourhoods of one room's sessions, as known to one worker.

    Args:
        key: Keys the digests; the same for all workers, at most 64 bytes.
        lasts: How long a session counts as active after its last request, in seconds.
    """

    def __init__(self, key: bytes, lasts: int) -> None:
        self._key = key
        self._lasts = lasts
        self._own: dict[int, int] = {}
        self._others: Mapping[int, int] = {}
        self.changed = False

    def record(self, neighbourhood: str, now: int) -> None:
        """Records a session that is active there at the Unix time ``now``."""
        digest = self._digest(neighbourhood)
        until = self._own.get(digest, 0)
        if until - self._lasts > now - REFRESH_SECONDS:
            return
        put(self._own, digest, now + self._lasts, MAX_NEIGHBOURHOODS)
        self.changed = True

    def active(self, neighbourhood: str, now: float) -> bool:
        """Whether a session was active there recently, as far as this worker knows."""
        digest = self._digest(neighbourhood)
        return max(self._own.get(digest, 0), self._others.get(digest, 0)) > now

    def dump(self, now: float) -> bytes:
        """The contents of this worker's file: the neighbourhoods for the other workers."""
        self._own = {digest: until for digest, until in self._own.items() if until > now}
        self.changed = False
        return array("Q", [part for pair in self._own.items() for part in pair]).tobytes()

    def load(self, dumped: list[bytes]) -> None:
        """Takes the other workers' dumps; replaces their previous ones."""
        others: dict[int, int] = {}
        for data in dumped:
            parts = array("Q", data[: len(data) - len(data) % (2 * _DIGEST_BYTES)])
            for index in range(0, min(len(parts), 2 * MAX_NEIGHBOURHOODS), 2):
                others[parts[index]] = max(others.get(parts[index], 0), parts[index + 1])
        self._others = others

    def _digest(self, neighbourhood: str) -> int:
        found = hashlib.blake2b(neighbourhood.encode(), key=self._key, digest_size=_DIGEST_BYTES).digest()
        return int.from_bytes(found, "little")


class NeighbourFiles:
    """One worker's file of a room's neighbourhoods, and those of the other workers.

    Args:
        folder: The folder of the files.
        room: The room's name.
        slot: The worker's number.

    Attributes:
        written: Whether this worker's file is there. If not, the next call of `exchange` needs a dump.
    """

    def __init__(self, folder: Path, room: str, slot: int) -> None:
        self.written = True  # there is nothing to write before the first session
        self._folder = folder
        self._pattern = f"neighbours-{room}.*"
        self._own = folder / f"neighbours-{room}.{slot}"
        self._exists = False
        self._known: dict[Path, tuple[tuple[int, int], bytes]] = {}

    def exchange(self, dumped: bytes | None) -> list[bytes] | None:
        """Writes this worker's file, if it changed, and reads the others'. Blocks: not for the event loop.

        Returns:
            The other workers' dumps, or None if nothing has changed.

        Raises:
            OSError: The file can't be written, or another worker's can't be read.
        """
        if dumped is not None:
            self.written = False
            written = self._own.with_name(self._own.name + "~")
            written.write_bytes(dumped)
            written.replace(self._own)
            self.written = self._exists = True
        elif self._exists and not self._own.exists():
            self.written = False
        before = self._known
        found: dict[Path, tuple[tuple[int, int], bytes]] = {}
        for path in self._folder.glob(self._pattern):
            if path == self._own or path.name.endswith("~"):
                continue
            with suppress(FileNotFoundError):
                stat = path.stat()
                version = (stat.st_mtime_ns, stat.st_ino)
                known = before.get(path)
                found[path] = known if known and known[0] == version else (version, path.read_bytes())
        self._known = found
        return None if found == before else [data for _, data in found.values()]
