"""Hints: a plain sentence on each setting that an operator may want to change, and how.

Hints are not alarms: the room works. The API and the dashboard show them verbatim.
"""

from __future__ import annotations

from typing import Final

from waitroom.metrics.upstream_window import Observations
from waitroom.settings import RoomSettings

MAX_NAMED: Final = 3  # per kind, in one sentence
REFUSED_SECONDS: Final = 3600.0  # how long a refused request is worth a hint
_SAFE: Final = ("GET ", "HEAD ")


def hints(settings: RoomSettings, observed: Observations, now: float) -> list[str]:
    """Returns the hints on a room at the Unix time ``now``, most urgent first."""
    found = [
        _missing_proxies(observed),
        _refused(observed, now),
        _shared_sessions(settings, observed),
    ]
    return [hint for hint in found if hint]


def _missing_proxies(observed: Observations) -> str:
    if not observed.missing_proxies:
        return ""
    named = _named(sorted(observed.missing_proxies))
    return (
        f"Most visitors come from {named}. If that is your proxy, add it to trusted_proxies: until then all "
        "visitors behind it share one address."
    )


def _refused(observed: Observations, now: float) -> str:
    """Hints at refused unsafe requests. Images and scripts of waiting visitors are refused too, but need no rule."""
    kinds = [
        kind
        for kind, at in sorted(observed.refused.items(), key=lambda item: -item[1])
        if now - at < REFUSED_SECONDS and not kind.startswith(_SAFE)
    ]
    if not kinds:
        return ""
    return (
        f"Requests without a pass were refused: {_named(kinds)}. If they are webhooks or your own client, add a "
        "bypass rule; the log has one to copy."
    )


def _shared_sessions(settings: RoomSettings, observed: Observations) -> str:
    sessions = sorted(observed.shared_sessions)
    if not sessions:
        return ""
    one = len(sessions) == 1
    count = "1 session is" if one else f"{len(sessions)} sessions are"
    bound = ", and bind_pass ties new passes to one browser or network"
    if settings.bind_pass != "none":  # noqa: S105 - a setting's value, not a password
        bound = ""
    return (
        f"{count} in use from many networks ({_named([f'{session:x}' for session in sessions])}): "
        f"{'its pass' if one else 'their passes'} may be shared or sold. "
        f"End {'it' if one else 'them'} by number{bound}."
    )


def _named(names: list[str]) -> str:
    named = ", ".join(names[:MAX_NAMED])
    return named if len(names) <= MAX_NAMED else f"{named}, \N{HORIZONTAL ELLIPSIS}"
