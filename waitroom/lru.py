"""Remembering what was made of bytes that come again and again, within bounds."""

# mypyc: compile

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

Made = TypeVar("Made")


def remember(most: int, *, longest: int) -> Callable[[Callable[[bytes], Made]], Callable[[bytes], Made]]:
    """Remembers what a function makes of its argument.

    Args:
        most: So many arguments at the most.
        longest: None longer than this, in bytes: clients choose them, and thousands of long ones would fill the memory.
    """

    def decorate(make: Callable[[bytes], Made]) -> Callable[[bytes], Made]:
        known = lru_cache(most)(make)

        @wraps(make)
        def remembering(value: bytes) -> Made:
            return known(value) if len(value) <= longest else make(value)

        return remembering

    return decorate
