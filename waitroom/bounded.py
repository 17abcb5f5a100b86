"""Tables that clients can make grow, kept within a bound. Pure."""

# mypyc: compile

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def put(table: dict[Key, Value], key: Key, value: Value, most: int) -> None:
    """Puts an entry last; where there would be more than ``most``, the first one is forgotten.

    Tables whose readers put what they use again forget the least recently used, the others the oldest.
    """
    table.pop(key, None)
    if len(table) >= most:
        del table[next(iter(table))]
    table[key] = value
