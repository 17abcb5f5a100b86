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
_SLOT: Final = re.compile(f"{OPEN}([a-z_]+){CLOSE}")


@dataclass(slots=True)
class CompiledPage:
    """A rendered page, cut at its values.

    Attributes:
        parts: The page in order; an empty string in each slot.
        slots: The index of each slot in ``parts``, and the slot's number in the names given to ``compile_slots``.
    """

    parts: list[bytes]
    slots: tuple[tuple[int, int], ...]

    def render(self, values: Sequence[bytes]) -> bytes:
        """Return the page with ``values[slot]``, already escaped, in every slot."""
        parts = self.parts.copy()
        for at, slot in self.slots:
            parts[at] = values[slot]
        return b"".join(parts)


def compile_slots(text: str, names: Sequence[str]) -> CompiledPage:
    """Cut a rendered page at its slots.

    Args:
        text: The page.
        names: All slots' names; a slot's number is its index here.
    """
    parts: list[bytes] = []
    slots: list[tuple[int, int]] = []
    for index, piece in enumerate(_SLOT.split(text)):
        if index % 2:
            slots.append((index, names.index(piece)))
            parts.append(b"")
        else:
            parts.append(piece.encode())
    return CompiledPage(parts, tuple(slots))
