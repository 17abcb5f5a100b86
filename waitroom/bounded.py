"""Tables and caches of what clients send, within bounds. Pure."""

# mypyc: compile

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")
Made = TypeVar("Made")


def put(table: dict[Key, Value], key: Key, value: Value, most: int) -> None:
    """Puts an entry last; if the table would exceed ``most`` entries, the first one is removed.

    Tables whose readers put entries back on each use drop the least recently used one, the others the oldest.
    """
    table.pop(key, None)
    if len(table) >= most:
        del table[next(iter(table))]
    table[key] = value


def bounded_lru_cache(most: int, *, longest: int) -> Callable[[Callable[[bytes], Made]], Callable[[bytes], Made]]:
    """Caches the results of a function of bytes.

    Args:
        most: The maximum number of cached arguments.
        longest: The longest cached argument in bytes: clients choose them, and thousands of long ones would fill the
            memory.
    """

    def decorate(make: Callable[[bytes], Made]) -> Callable[[bytes], Made]:
        known = lru_cache(most)(make)

        @wraps(make)
        def remembering(value: bytes) -> Made:
            return known(value) if len(value) <= longest else make(value)

        return remembering

    return decorate
