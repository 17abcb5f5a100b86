"""Hints: one plain sentence each on what an operator may want to change, and how.

A hint is no alarm: the room works. The API and the dashboard show them as they are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from waitroom.settings import RoomSettings

MOST_NAMED: Final = 3  # of a kind, in one sentence
REFUSED_SECONDS: Final = 3600.0  # for how long a refused request is worth a hint
_SAFE: Final = ("GET ", "HEAD ")


@dataclass(frozen=True, slots=True)
class Observed:
    """Recent observations of the edge workers that hints on a room may follow from.

    Attributes:
        shared_sessions: Numbers of sessions in use from many networks.
        missing_proxies: Addresses of peers that look like proxies which ``trusted_proxies`` does not name.
        refused: Methods and first path segments of requests refused for lack of a pass, with the newest Unix time.
    """

    shared_sessions: frozenset[int] = frozenset()
    missing_proxies: frozenset[str] = frozenset()
    refused: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, dumped: Mapping[str, Any]) -> Observed:
        """The observations in one worker's file, which may be of a former version."""
        missing = dumped.get("missing_proxy", "")
        return cls(
            frozenset(dumped.get("shared_sessions", ())),
            frozenset((missing,) if missing else ()),
            dumped.get("refused", {}),
        )

    def __or__(self, other: Observed) -> Observed:
        newest = {
            kind: max(self.refused.get(kind, 0.0), other.refused.get(kind, 0.0))
            for kind in (*self.refused, *other.refused)
        }
        return Observed(
            self.shared_sessions | other.shared_sessions, self.missing_proxies | other.missing_proxies, newest
        )


NOTHING: Final = Observed()


def hints(settings: RoomSettings, observed: Observed, now: float) -> list[str]:
    """The hints on a room at the Unix time ``now``, the most urgent first."""
    found = [
        _missing_proxies(observed),
        _refused(observed, now),
        _shared_sessions(settings, observed),
    ]
    return [hint for hint in found if hint]


def _missing_proxies(observed: Observed) -> str:
    if not observed.missing_proxies:
        return ""
    named = _named(sorted(observed.missing_proxies))
    return (
        f"Most visitors come from {named}. If that is a proxy of yours, name it in trusted_proxies: until then all "
        "visitors behind it share one address."
    )


def _refused(observed: Observed, now: float) -> str:
    """Of requests that change something: images and scripts of waiting visitors are refused too, and need no rule."""
    kinds = [
        kind
        for kind, at in sorted(observed.refused.items(), key=lambda item: -item[1])
        if now - at < REFUSED_SECONDS and not kind.startswith(_SAFE)
    ]
    if not kinds:
        return ""
    return (
        f"Requests without a pass were refused: {_named(kinds)}. If they are webhooks or a client of yours, add a "
        "bypass rule; the log has it."
    )


def _shared_sessions(settings: RoomSettings, observed: Observed) -> str:
    sessions = sorted(observed.shared_sessions)
    if not sessions:
        return ""
    one = len(sessions) == 1
    count = "1 session is" if one else f"{len(sessions)} sessions are"
    bound = ", and bind_pass ties new passes to one browser or network"
    if settings.bind_pass != "none":  # noqa: S105 - a choice, no password
        bound = ""
    return (
        f"{count} in use from many networks ({_named([f'{session:x}' for session in sessions])}): "
        f"{'its pass' if one else 'their passes'} may be shared or sold. "
        f"End {'it' if one else 'them'} by number{bound}."
    )


def _named(names: list[str]) -> str:
    named = ", ".join(names[:MOST_NAMED])
    return named if len(names) <= MOST_NAMED else f"{named}, \N{HORIZONTAL ELLIPSIS}"
