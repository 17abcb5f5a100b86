"""Bounded tables for entries that clients can create. Pure."""

# mypyc: compile

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def put(table: dict[Key, Value], key: Key, value: Value, most: int) -> None:
    """Puts an entry last; if the table would exceed ``most`` entries, the first one is removed.

    Tables whose readers put entries back on each use drop the least recently used one, the others the oldest.
    """
    table.pop(key, None)
    if len(table) >= most:
        del table[next(iter(table))]
    table[key] = value
