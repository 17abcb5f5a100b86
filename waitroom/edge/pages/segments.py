"""Compiles pages into bytes with slots: rendered once with marks for a visitor's values, filled by joining bytes."""

# mypyc: compile

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Two code points that Unicode reserves for uses like this: no text contains them.
OPEN: Final = "\ufdd0"
CLOSE: Final = "\ufdd1"
_HOLE: Final = re.compile(f"{OPEN}([a-z_]+){CLOSE}")


@dataclass(slots=True)
class Segments:
    """A rendered page, cut at its values.

    Attributes:
        parts: The page in order; an empty string in each hole.
        holes: The indexes of the holes in ``parts``, and the slot of each, by its number in the names given to ``cut``.
    """

    parts: list[bytes]
    holes: tuple[tuple[int, int], ...]

    def fill(self, values: Sequence[bytes]) -> bytes:
        """Return the page with ``values[slot]``, already escaped, in every hole."""
        parts = self.parts.copy()
        for at, slot in self.holes:
            parts[at] = values[slot]
        return b"".join(parts)


def cut(text: str, names: Sequence[str]) -> Segments:
    """Cut a rendered page at its slots.

    Args:
        text: The page.
        names: All slots' names; a slot's number is its index here.
    """
    parts: list[bytes] = []
    holes: list[tuple[int, int]] = []
    for index, piece in enumerate(_HOLE.split(text)):
        if index % 2:
            holes.append((index, names.index(piece)))
            parts.append(b"")
        else:
            parts.append(piece.encode())
    return Segments(parts, tuple(holes))
