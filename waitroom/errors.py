"""The errors that Waitroom raises on purpose. Each is raised where its cause is known and handled once."""

# mypyc: compile

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class WaitroomError(Exception):
    """The base of all errors below."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with the settings.

    Attributes:
        where: The key and its place, such as ``rooms[0] "shop".rate_per_minute`` or ``WAITROOM_LISTEN``.
        what: The problem, in a sentence.
        fix: How to fix it, in a sentence; may be empty where ``what`` is enough.
        line: The line in the settings file, counted from 1, or None if unknown.
    """

    where: str
    what: str
    fix: str = ""
    line: int | None = None

    def __str__(self) -> str:
        at = f"line {self.line}, {self.where}" if self.line is not None else self.where
        return f"{at}: {self.what}" + (f" {self.fix}" if self.fix else "")


class SettingsError(WaitroomError):
    """The settings are invalid. Contains all problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StoreUnavailable(WaitroomError):  # noqa: N818 - a state of the world, not a mistake
    """Redis didn't answer in time, or answered that it is unavailable.

    Attributes:
        kind: The kind of failure, from `waitroom.store.errors`; "" if the store wasn't called.
        detail: The words of the server or of the client library.
        retry: Whether a call that may run twice should be made again immediately.
    """

    def __init__(self, cause: str, kind: str = "", detail: str = "", *, retry: bool = False) -> None:
        self.kind = kind
        self.detail = detail
        self.retry = retry
        super().__init__(cause)


class RoomNotOpen(StoreUnavailable):
    """The store answers, but the room must be opened first: it never was, or not since the server started."""


class UnreadableRoomError(StoreUnavailable):
    """The store answers, but the room's data there can't be read: another program or version has written to it."""


class InvalidTokenError(WaitroomError):
    """An invalid ticket or pass: altered, of another room, expired, or not a token."""


class StartError(WaitroomError):
    """The program can't start: an address is in use, a folder isn't writable, the embedded store fails to start."""


class SupervisorError(WaitroomError):
    """The gateway can't go on: it has no child processes, or nobody watches over them."""
