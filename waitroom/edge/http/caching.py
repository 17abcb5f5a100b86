"""Which response headers decide whether a cache may keep a response."""

# mypyc: compile

from __future__ import annotations

import re
from typing import Final

_FOR_ALL_CACHES: Final = frozenset((b"cache-control", b"expires", b"pragma"))
_FOR_SURROGATES: Final = frozenset((b"surrogate-control", b"edge-control"))
# nginx's own, in seconds.
_ACCEL_EXPIRES: Final = b"x-accel-expires"
# RFC 9213: CDN-Cache-Control, and those of single vendors, such as Cloudflare-CDN-Cache-Control.
_TARGETED_SUFFIX: Final = b"-cache-control"
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def directs_caches(name: bytes) -> bool:
    """Whether some cache takes from a header of this lower-case name if it may keep a response."""
    return name in _FOR_ALL_CACHES or is_targeted(name)


def is_targeted(name: bytes) -> bool:
    """Whether a header of this lower-case name overrides Cache-Control in the caches it is meant for."""
    return name.endswith(_TARGETED_SUFFIX) or name in _FOR_SURROGATES or name == _ACCEL_EXPIRES


def forbids_keeping(name: bytes, value: bytes) -> bool:
    """Whether a Cache-Control header, or a targeted one, says for certain that no shared cache may keep the response.

    Args:
        name: In lower case.
        value: As sent. What stands in a quoted string is no directive.
    """
    if name == _ACCEL_EXPIRES:
        return value == b"0"
    value = _QUOTED.sub(b"", value.lower()) if b'"' in value else value.lower()
    if b'"' in value:
        return False
    directives = [directive.strip(b" \t") for directive in value.split(b",")]
    return b"no-store" in directives or (b"private" in directives and name not in _FOR_SURROGATES)
