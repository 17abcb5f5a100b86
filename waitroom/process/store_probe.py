"""Whether the embedded store shows a sign of life.

A busy store is not a stuck one: it may load a long file, run a long script or wait for the disk. So any answer is a
sign of life, errors included, and so is a change of its CPU time or its append-only file. Without a free file
descriptor none of these can be seen, and a store that only this process can't reach must not be replaced.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from waitroom.process.append_only_file import FOLDER
from waitroom.process.open_files import is_out_of_files

ANSWER_SECONDS = 1.0


class StoreProbe:
    """Probes one store.

    Args:
        socket: The store's Unix socket.
        data_dir: The directory with its append-only file.
    """

    def __init__(self, socket: Path, data_dir: Path) -> None:
        self._socket = socket
        self._files = data_dir / FOLDER
        self._progress: tuple[str, frozenset[tuple[str, int, int]]] | None = None

    async def is_alive(self, pid: int) -> bool:
        """Whether the process answers, has done anything since the last call, or can't be asked for lack of files."""
        if await self._answers():
            return True
        before, self._progress = self._progress, (_cpu_time(pid), self._file_state())
        return self._progress != before

    async def _answers(self) -> bool:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                writer.write(b"PING\r\n")
                return await reader.read(1) != b""
        except OSError as error:
            return is_out_of_files(error)
        finally:
            if writer is not None:
                writer.transport.abort()

    def _file_state(self) -> frozenset[tuple[str, int, int]]:
        try:
            with os.scandir(self._files) as entries:
                states = [(entry.name, entry.stat()) for entry in entries]
        except OSError:
            return frozenset()
        return frozenset((name, state.st_size, state.st_mtime_ns) for name, state in states)


def _cpu_time(pid: int) -> str:
    """Returns the process's CPU time in user and system mode, in ticks; empty where there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return " ".join(stat.rpartition(")")[2].split()[11:13])
