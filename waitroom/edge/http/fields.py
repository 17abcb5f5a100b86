"""Header lines, each parsed once: browsers send the same dozen of them repeatedly.

Of a head's lines only the cookies, and perhaps the referrer, differ from request to request and from visitor to
visitor. A line seen before is looked up as a whole, together with its parsed names, its value, and the line to forward.
"""

# mypyc: compile

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias, cast

# Whitespace around the value is left to `strip`: overlapping parts of a pattern make it quadratic.
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")

# Header lines as they are written to a connection, each with its line end.
HeaderBlock: TypeAlias = bytes

MAX_FIELDS = 8192
MAX_LINE_BYTES = 512


class Field:
    """One header line.

    Attributes:
        name, value: As sent, without whitespace around the value.
        lower: The name in lower case.
        line: The line as it is rewritten.
    """

    __slots__ = ("line", "lower", "name", "value")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.value = value
        self.lower = name.lower()
        self.line = b"%b: %b\r\n" % (name, value)


class FieldCache:
    """Parses header lines, and caches them with a bound.

    Args:
        personal: Lower-case names whose lines aren't cached: they differ for each visitor, and are private.
    """

    def __init__(self, personal: frozenset[bytes]) -> None:
        self._personal = personal
        self._known: dict[bytes, Field] = {}

    def parse(self, lines: list[bytes]) -> Sequence[Field] | None:
        """The fields of a head's lines, in their order; None if one of them is not a valid header line."""
        known = self._known
        fields = [known.get(line) or self._parse(line) for line in lines]
        return None if None in fields else cast(list[Field], fields)

    def _parse(self, line: bytes) -> Field | None:
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        field = Field(found[1], found[2].strip(b" \t"))
        if len(line) <= MAX_LINE_BYTES and field.lower not in self._personal:
            if len(self._known) >= MAX_FIELDS:
                self._known.clear()
            self._known[line] = field
        return field
