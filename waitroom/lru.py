"""Caches results derived from recurring bytes, within bounds."""

# mypyc: compile

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

Made = TypeVar("Made")


def remember(most: int, *, longest: int) -> Callable[[Callable[[bytes], Made]], Callable[[bytes], Made]]:
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
