"""Recognizes response headers that decide whether a cache may store a response."""

# mypyc: compile

from __future__ import annotations

import re
from typing import Final

_FOR_ALL_CACHES: Final = frozenset((b"cache-control", b"expires", b"pragma"))
_FOR_SURROGATES: Final = frozenset((b"surrogate-control", b"edge-control"))
# The header for nginx; its value is in seconds.
_ACCEL_EXPIRES: Final = b"x-accel-expires"
# RFC 9213: CDN-Cache-Control, and vendor-specific ones, such as Cloudflare-CDN-Cache-Control.
_TARGETED_SUFFIX: Final = b"-cache-control"
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def controls_caches(name: bytes) -> bool:
    """Whether some cache reads a header of this lower-case name to decide if it may store a response."""
    return name in _FOR_ALL_CACHES or is_targeted(name)


def is_targeted(name: bytes) -> bool:
    """Whether a header of this lower-case name overrides Cache-Control in the caches it targets."""
    return name.endswith(_TARGETED_SUFFIX) or name in _FOR_SURROGATES or name == _ACCEL_EXPIRES


def forbids_storing(name: bytes, value: bytes) -> bool:
    """Whether a Cache-Control header, or a targeted one, clearly forbids every shared cache to store the response.

    Args:
        name: The name in lower case.
        value: The value as sent. Text in a quoted string isn't a directive.
    """
    if name == _ACCEL_EXPIRES:
        return value == b"0"
    value = _QUOTED.sub(b"", value.lower()) if b'"' in value else value.lower()
    if b'"' in value:
        return False
    directives = [directive.strip(b" \t") for directive in value.split(b",")]
    return b"no-store" in directives or (b"private" in directives and name not in _FOR_SURROGATES)
