"""The position a visitor has been shown: it rises only for a reason that the page names. Pure.

Two workers may have views of different age, and then the older one computes a larger position. The visitor therefore
brings the smallest position shown, in a cookie or header. It isn't signed: it changes only what its holder is shown.
"""

# mypyc: compile

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

# Why a position rose: the visitor has another place, or the store lost data and visitors ahead have come back. Or how a
# position came about: it was drawn at the start of an event.
PositionReason = Literal["", "new_place", "restored", "drawn"]

# After a loss of data the visitors report for a while; the first of them are shown too small a position.
SETTLING_MS: Final = 120_000
_VALUE: Final = re.compile(rb"([0-9]{1,16})\.([0-9]{1,16})\.([0-9]{1,9})(?:\.(new_place|restored))?")
_REASONS: Final[dict[bytes | None, PositionReason]] = {None: "", b"new_place": "new_place", b"restored": "restored"}


class Shown:
    """The position that a visitor was shown last. Not changed after it was made.

    Not a dataclass: the constructor of a dataclass isn't compiled, and every poll needs one of these.

    Attributes:
        place: The place it belongs to.
        generation: The newest generation of the store that a shown position came from.
        position: The position.
        reason: The reason of the last rise; kept for as long as the place.
    """

    __slots__ = ("generation", "place", "position", "reason")

    def __init__(self, place: int, generation: int, position: int, reason: PositionReason = "") -> None:
        self.place = place
        self.generation = generation
        self.position = position
        self.reason = reason

    def value(self) -> str:
        """The form for the visitor."""
        value = f"{self.place}.{self.generation}.{self.position}"
        return f"{value}.{self.reason}" if self.reason else value


def read_shown(values: Sequence[bytes], place: int) -> Shown | None:
    """Reads what a visitor brings: the smallest position of the place, else the last of another place."""
    best: Shown | None = None
    for value in values:
        found = _VALUE.fullmatch(value)
        if found is None:
            continue
        shown = Shown(int(found[1]), int(found[2]), max(1, int(found[3])), _REASONS[found[4]])
        if best is None or (shown.place == place, -shown.position) > (best.place == place, -best.position):
            best = shown
    return best


def next_shown(before: Shown | None, place: int, generation: int, position: int, *, settling: bool) -> Shown:
    """The position to show now: ``before`` itself if nothing has changed.

    Args:
        before: The position shown before, if known.
        place: The visitor's place.
        generation: The generation of the view.
        position: The position by the view.
        settling: Whether the generation began a short time ago, after a loss of data.
    """
    if before is None:
        return Shown(place, generation, position)
    if before.place != place:
        return Shown(place, generation, position, "new_place" if position > before.position else "")
    may_rise = generation > before.generation or (settling and generation == before.generation)
    if may_rise and position > before.position:
        return Shown(place, generation, position, "restored")
    if position >= before.position and generation <= before.generation:
        return before
    return Shown(place, max(generation, before.generation), min(position, before.position), before.reason)
