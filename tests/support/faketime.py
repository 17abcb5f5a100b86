"""Another clock for a gateway's processes, by libfaketime. The monotonic clock stays, as when a clock is set."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class FakeClock:
    """A wall clock that can be set while the processes run.

    Attributes:
        file: Holds the difference to this machine's clock.
        library: The library to preload.
    """

    file: Path
    library: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the processes that have this clock."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def unix(self) -> float:
        """Unix time by it."""
        return time.time() + float(self.file.read_text())

    def set(self, hours: float) -> None:
        """Sets it so many hours ahead of this machine's clock."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{hours * 3600:+.0f}\n")
        new.replace(self.file)


def fake_clock(folder: Path, hours: float = 0) -> FakeClock:
    """A clock so many hours ahead. Without libfaketime the test is skipped, or fails where CI is set."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        assert not os.environ.get("CI"), "libfaketime is missing: install it"
        pytest.skip("libfaketime is missing")
    clock = FakeClock(folder / "clock", found[0])
    clock.set(hours)
    return clock
