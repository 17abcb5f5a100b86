"""Clocks."""

# mypyc: compile

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# A correction below this would only follow the jitter of the replies. Tokens have whole seconds.
MIN_CORRECTION_SECONDS: Final = 0.1


class StoreTime:
    """Unix time by the store's clock, so that all gateways over one store agree when a pass or ticket ends.

    It runs on the steady clock between two readings: a jump of this machine's wall clock changes nothing. Before the
    first reading it is this machine's time.
    """

    __slots__ = ("_offset", "_steady")

    def __init__(self, unix: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._offset = unix() - steady()

    def unix(self) -> float:
        """Unix time in seconds."""
        return self._steady() + self._offset

    def observe(self, store_unix: float, sent: float, received: float) -> None:
        """Corrects the time by a reading of the store's clock.

        Args:
            store_unix: The reading, Unix time in seconds.
            sent: The steady time of the call.
            received: The steady time of the reply; the reading was taken in between.
        """
        measured = store_unix - (sent + received) / 2
        if abs(measured - self._offset) > (received - sent) / 2 + MIN_CORRECTION_SECONDS:
            self._offset = measured


def _ignore(_store_unix: float, _sent: float, _received: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks of a worker; tests replace them.

    Attributes:
        unix: Unix time in seconds.
        steady: Seconds that only go forward, from an arbitrary start.
        observe: Receives a reading of the store's clock; see `StoreTime.observe`.
    """

    unix: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    observe: Callable[[float, float, float], None] = _ignore
