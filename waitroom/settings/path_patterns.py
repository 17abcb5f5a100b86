"""Regular expressions over paths, by RE2: linear time without backtracking."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MOST_CHARACTERS = 500
LONGEST_PATH = 2048
_MOST_MEMORY = 1 << 20  # bytes, per expression


class InvalidPatternError(ValueError):
    """An expression that RE2 rejects, and the reason."""


class Re2MissingError(Exception):
    """RE2 isn't installed."""


class PathPattern:
    """Matches whole paths.

    Args:
        text: In the syntax of RE2.

    Raises:
        InvalidPatternError: It is too long, too large, or invalid.
        Re2MissingError: RE2 isn't installed.
    """

    __slots__ = ("_any_case", "_as_sent")

    def __init__(self, text: str) -> None:
        self._as_sent = _compiled(text, case_sensitive=True)
        self._any_case = _compiled(text, case_sensitive=False)

    def matches(self, path: bytes, read_as: Iterable[bytes]) -> bool:
        """Whether it matches a path as sent, and in every interpretation of it (see `router.path_interpretations`)."""
        if len(path) > LONGEST_PATH or self._as_sent.fullmatch(path) is None:
            return False
        end = b"/" if path.endswith(b"/") else b""
        whole = self._any_case.fullmatch
        return all(whole(reading) is not None or (end and whole(reading + end) is not None) for reading in read_as)


def _compiled(text: str, *, case_sensitive: bool) -> Any:
    try:
        import re2  # most gateways have no expressions, and need neither load nor install it
    except ImportError:
        raise Re2MissingError from None
    if len(text) > MOST_CHARACTERS:
        raise InvalidPatternError(f"it has {len(text)} characters, more than {MOST_CHARACTERS}")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MOST_MEMORY
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = case_sensitive
    options.never_capture = True
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        reason = error.args[0] if error.args else "invalid"
        raise InvalidPatternError(
            reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        ) from None
