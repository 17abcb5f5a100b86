"""What time it is, for all who have to know."""

# mypyc: compile

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks of a worker; tests have others.

    Attributes:
        unix: Unix time in seconds.
        steady: Seconds that only go forward, from any start.
    """

    unix: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
