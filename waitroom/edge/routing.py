"""Which room a request belongs to, and which rules let it by.

No other spelling of a path escapes its room: a shop may well serve ``/Sale``, ``//sale/`` or ``/%73ale`` as ``/sale``.
Whether it follows dots, or cuts parameters off segments, nobody here knows, so that such a path is taken in all the
ways it may be read: any of them leads into a room, and only all of them past its line. The shop itself gets the target
as it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from waitroom.settings import BypassRule, RoomSettings

MEMO_SIZE = 8192
LONGEST_KEPT = 512
RESERVED = b"/.waitroom"

_SEPARATORS = re.compile(rb"[/\\]+")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes.

    Attributes:
        room: The name of the room whose upstream serves it.
        gated: Whether the room's paths cover it; an uncovered path of a room's host is forwarded as it is.
        reserved: Whether it is one of our own addresses, which no shop ever sees.
        bypass: The index and rule of every bypass whose paths fit; their methods are still to be looked at.
    """

    room: str
    gated: bool
    reserved: bool
    bypass: tuple[tuple[int, BypassRule], ...]


class Router:
    """Finds rooms; the most specific host wins, then the longest path. Memoised with a bound."""

    def __init__(self, rooms: Sequence[RoomSettings]) -> None:
        self._rooms = rooms
        self._prefixes = {room.name: [_prefix(path) for path in room.paths] or [b""] for room in rooms}
        self._bypass = {
            room.name: [(rule, [(path.encode(), _prefix(path)) for path in rule.paths]) for rule in room.bypass]
            for room in rooms
        }
        self._memo: dict[tuple[bytes, bytes], Route | None] = {}

    def route(self, host: bytes, path: bytes) -> Route | None:
        """The route of a request by its Host header and path as sent; None where no room has the host."""
        key = (host, path)
        try:
            return self._memo[key]
        except KeyError:
            pass
        route = self._find(host_name(host), path)
        if len(host) + len(path) <= LONGEST_KEPT:
            if len(self._memo) >= MEMO_SIZE:
                self._memo.clear()
            self._memo[key] = route
        return route

    def _find(self, host: str, path: bytes) -> Route | None:
        ranked = [(rank, room) for room in self._rooms if (rank := _host_rank(room.hosts, host)) is not None]
        if not ranked:
            return None
        read_as = readings(path)
        reserved = any(_covers(RESERVED, reading) for reading in read_as)
        covering = [
            (rank, len(prefix), room)
            for rank, room in ranked
            for prefix in self._prefixes[room.name]
            if any(_covers(prefix, reading) for reading in read_as)
        ]
        if not covering:
            return Route(max(ranked, key=lambda entry: entry[0])[1].name, False, reserved, ())
        room = max(covering, key=lambda entry: entry[:2])[2]
        bypass = tuple(
            (index, rule)
            for index, (rule, prefixes) in enumerate(self._bypass[room.name])
            if any(
                path.startswith(raw) and all(_covers(prefix, reading) for reading in read_as)
                for raw, prefix in prefixes
            )
        )
        return Route(room.name, True, reserved, bypass)


def host_name(host: bytes) -> str:
    """The lower-case name or address in a Host header, without its port and a last dot."""
    name = host.decode("latin-1").lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0].rstrip(".")


def readings(path: bytes) -> frozenset[bytes]:
    """All that a shop may take a path for, in lower case and without empty segments and a last slash.

    Escapes are undone once or twice, parameters (``;v=1``) cut off or not, dot segments followed or not.
    """
    found = set()
    for _ in range(2 if b"%" in path else 1):
        path = unquote_to_bytes(path).lower()
        segments = _SEPARATORS.split(path)
        found.add(_joined(segments))
        if b";" in path:
            bare = [segment.partition(b";")[0] for segment in segments]
            found |= {_joined(bare), _joined(_without_dots(bare))}
        if b"." in path:
            found.add(_joined(_without_dots(segments)))
    return frozenset(found)


def _prefix(path: str) -> bytes:
    """A path of the settings, which says what it means, as readings are compared with it."""
    return _joined(_SEPARATORS.split(unquote_to_bytes(path).lower()))


def _without_dots(segments: Sequence[bytes]) -> list[bytes]:
    left: list[bytes] = []
    for segment in segments:
        if segment == b"..":
            if left:
                left.pop()
        elif segment and segment != b".":
            left.append(segment)
    return left


def _joined(segments: Sequence[bytes]) -> bytes:
    return b"".join([b"/" + segment for segment in segments if segment])


def _covers(prefix: bytes, normal: bytes) -> bool:
    return normal.startswith(prefix) and (len(normal) == len(prefix) or normal[len(prefix) : len(prefix) + 1] == b"/")


def _host_rank(hosts: Sequence[str], host: str) -> tuple[int, int] | None:
    """How well a room's hosts fit: exactly, by the longest wildcard, or because it has none. None: not at all."""
    if not hosts:
        return (0, 0)
    ranks = [
        (2, 0) if pattern == host else (1, len(pattern))
        for pattern in hosts
        if pattern == host or (pattern.startswith("*.") and host.endswith(pattern[1:]))
    ]
    return max(ranks, default=None)
