"""The errors that Waitroom raises on purpose. Each is raised where its cause is known and handled once."""

# mypyc: compile

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class WaitroomError(Exception):
    """The base of all errors below."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the settings.

    Attributes:
        where: The key and its place, such as ``rooms[0] "shop".rate_per_minute`` or ``WAITROOM_LISTEN``.
        what: What is wrong, in a sentence.
        mend: What to do about it, in a sentence; may be empty where ``what`` says it all.
        line: The line in the settings file, counted from 1, or None where it isn't known.
    """

    where: str
    what: str
    mend: str = ""
    line: int | None = None

    def __str__(self) -> str:
        at = f"line {self.line}, {self.where}" if self.line is not None else self.where
        return f"{at}: {self.what}" + (f" {self.mend}" if self.mend else "")


class SettingsError(WaitroomError):
    """The settings can't be used. Raised at start and at reload, with all that is wrong at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StoreUnavailable(WaitroomError):  # noqa: N818 - a state of the world, not a mistake
    """Redis didn't answer in time, or answered that it can't serve now."""


class BadToken(WaitroomError):  # noqa: N818 - the field's word
    """A ticket or pass that isn't ours: altered, of another room, expired, or no token at all."""


class StartError(WaitroomError):
    """The program can't start: an address is taken, a folder can't be written, the embedded store won't run."""
