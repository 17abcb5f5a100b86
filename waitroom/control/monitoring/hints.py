"""Hints: one plain sentence each on what an operator may want to change, and how.

A hint is no alarm: the room works. The API and the dashboard show them as they are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from waitroom.settings import RoomSettings

MOST_NAMED: Final = 3  # sessions in one sentence


@dataclass(frozen=True, slots=True)
class Observed:
    """What the edge workers have seen of a room lately, as far as a hint may follow from it.

    Attributes:
        shared_sessions: Numbers of sessions in use from many networks.
    """

    shared_sessions: Sequence[int] = ()


def hints(settings: RoomSettings, observed: Observed) -> list[str]:
    """The hints on a room, the most urgent first."""
    found = [_shared_sessions(settings, observed.shared_sessions)]
    return [hint for hint in found if hint]


def _shared_sessions(settings: RoomSettings, sessions: Sequence[int]) -> str:
    if not sessions:
        return ""
    one = len(sessions) == 1
    named = ", ".join(f"{session:x}" for session in sessions[:MOST_NAMED])
    if len(sessions) > MOST_NAMED:
        named += ", \N{HORIZONTAL ELLIPSIS}"
    count = "1 session is" if one else f"{len(sessions)} sessions are"
    bound = ", and bind_pass ties new passes to one browser or network"
    if settings.bind_pass != "none":  # noqa: S105 - a choice, no password
        bound = ""
    return (
        f"{count} in use from many networks ({named}): {'its pass' if one else 'their passes'} may be shared or sold. "
        f"End {'it' if one else 'them'} by number{bound}."
    )
