"""Decides which processes are stuck and have to be replaced. Pure: time and signs of life are passed in.

A replacement resets the connections of the process it replaces, and a busy machine can keep a healthy process waiting
for many seconds. So silence is measured in the supervisor's own time, replacements happen one at a time, and there are
few of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LOOK_SECONDS: Final = 1.0
# A later look means that the supervisor itself didn't run. The others probably didn't either.
STALL_SECONDS: Final = 2.0
MOST_REPLACEMENTS: Final = 3
REPLACEMENT_WINDOW_SECONDS: Final = 600.0
# Another process may be replaced although the last replacement hasn't shown a sign of life.
REPLACING_SECONDS: Final = 60.0
CHILDLESS_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of a look.

    Attributes:
        replace: The process to kill now, so that another takes its place.
        warn: Processes that are stuck and stay so, since the limit of replacements is reached; each is named once.
        stuck: All processes that have been silent for too long.
        childless: Whether no process has existed for `CHILDLESS_SECONDS`, although starts are attempted.
    """

    replace: str | None = None
    warn: tuple[str, ...] = ()
    stuck: frozenset[str] = frozenset()
    childless: bool = False


class Liveness:
    """Signs of life of all processes.

    Args:
        limit: The silence after which a process is stuck, in seconds.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._looked: float | None = None
        self._time = 0.0  # the supervisor's own: without its stalls
        self._last_signs: dict[str, float] = {}
        self._replacements: list[float] = []
        self._replacing: tuple[str, float] | None = None
        self._warned: set[str] = set()
        self._last_child = 0.0

    def look(self, now: float, signs: Mapping[str, bool], processes: int) -> Decision:
        """Takes note of the signs of life since the previous look, and decides.

        Args:
            now: Seconds of a clock that never goes back.
            signs: For each process that is ready, whether it has shown a sign of life since the previous look.
                Processes that are starting are missing.
            processes: The number of processes that exist, ready or not.
        """
        self._advance(now)
        self._last_signs = {
            name: self._time if sign else self._last_signs.get(name, self._time) for name, sign in signs.items()
        }
        if processes:
            self._last_child = self._time
        if self._replacing is not None:
            name, since = self._replacing
            if signs.get(name) or self._time - since >= REPLACING_SECONDS:
                self._replacing = None
        silence = {name: self._time - last for name, last in self._last_signs.items()}
        stuck = sorted((name for name in silence if silence[name] >= self._limit), key=lambda name: -silence[name])
        self._warned.intersection_update(stuck)
        replace, warn = self._choose(now, stuck)
        return Decision(replace, warn, frozenset(stuck), self._time - self._last_child >= CHILDLESS_SECONDS)

    def silence(self, name: str) -> float:
        """Returns the seconds since a process's last sign of life; 0 for one that isn't ready."""
        return self._time - self._last_signs.get(name, self._time)

    def _advance(self, now: float) -> None:
        if self._looked is not None:
            elapsed = now - self._looked
            self._time += elapsed if elapsed <= STALL_SECONDS else LOOK_SECONDS
        self._looked = now

    def _choose(self, now: float, stuck: list[str]) -> tuple[str | None, tuple[str, ...]]:
        """Returns the process to replace, and those to warn of."""
        if not stuck or self._replacing is not None:
            return None, ()
        self._replacements = [at for at in self._replacements if now - at < REPLACEMENT_WINDOW_SECONDS]
        if len(self._replacements) >= MOST_REPLACEMENTS:
            warn = tuple(name for name in stuck if name not in self._warned)
            self._warned.update(warn)
            return None, warn
        self._replacements.append(now)
        self._replacing = (stuck[0], self._time)
        self._last_signs[stuck[0]] = self._time
        return stuck[0], ()
