"""Determines the room of a request, and the bypass rules that fit it.

No other spelling of a path escapes its room: a shop may well serve ``/Sale``, ``//sale/`` or ``/%73ale`` as ``/sale``.
Whether the shop resolves dot segments, cuts parameters off segments or runs ``/index.php/sale`` is unknown here, so
such a path is taken in all its possible interpretations: any of them leads into a room, and only all of them past its
queue. A path that leads into several rooms belongs to none of them. The shop itself gets the target as it was sent.
"""

# mypyc: compile

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from waitroom.edge.rooms.bypass import BypassPaths, is_within
from waitroom.settings import RoomSettings
from waitroom.settings.presets import PresetEntry

CACHE_SIZE = 8192
MAX_CACHED_BYTES = 512
# Computing all interpretations takes a few milliseconds for a path this long; no shop has longer ones with odd parts.
MAX_ODD_PATH_BYTES = 4096
RESERVED = b"/.waitroom"

_SEPARATOR = re.compile(rb"[/\\]")
_ODD = re.compile(rb"[;%\\]|/[./]|[. ]/")
_SLASHES = (b"/", b"\\")
_PARAMETERS = re.compile(rb";[^/]*")
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
# An escape sequence of old Windows servers.
_WIDE_ESCAPE = re.compile(rb"%u([0-9a-f]{4})")
# Scripts that real servers run with the rest of the path after them (PATH_INFO).
_SCRIPT = re.compile(rb".+\.(?:php\d?|phtml|phar|aspx?|ashx|cgi|fcgi|pl|py|rb|wsgi|cfm|jspx?)")
# Characters besides a slash that end a covered prefix: shops serve /sale.json, /sale;v=1, /sale%20 and the like as
# /sale.
_ENDS = frozenset(b"/.;%~:?# \x7f") | frozenset(range(0x20))


@dataclass(frozen=True, slots=True)
class Route:
    """The route of a request.

    Attributes:
        room: The name of the room whose upstream serves it.
        gated: Whether the room's paths cover it; an uncovered path of a room's host is forwarded without the gate.
        reserved: Whether it is one of our own addresses, which are never forwarded.
        bypass: The index of every bypass rule whose paths fit, with the matching entries of its preset; their other
            conditions are checked later.
        refused: Why it isn't forwarded but answered with 400; empty if it isn't refused.
        rooms: The names of all rooms it may be a path of, if that is the reason.
    """

    room: str
    gated: bool
    reserved: bool
    bypass: tuple[tuple[int, tuple[PresetEntry, ...]], ...]
    refused: str = ""
    rooms: tuple[str, ...] = ()


class Router:
    """Finds rooms; the most specific host wins, then the longest path. Memoised with a bound.

    Args:
        rooms: The rooms' settings.
        strict: Whether a path with interpretations in several rooms is refused. Otherwise the longest path wins.
    """

    def __init__(self, rooms: Sequence[RoomSettings], *, strict: bool = True) -> None:
        self._rooms = rooms
        self._strict = strict
        self._prefixes = {room.name: {form for path in room.paths for form in _forms(path)} or {b""} for room in rooms}
        self._bypass = {room.name: [BypassPaths(rule, _forms) for rule in room.bypass] for room in rooms}
        self._cache: dict[tuple[bytes, bytes], Route | None] = {}

    def route(self, host: bytes, path: bytes) -> Route | None:
        """The route of a request by its Host header and path as sent; None if no room has the host."""
        key = (host, path)
        try:
            return self._cache[key]
        except KeyError:
            pass
        route = self._find(host_name(host), path)
        if len(host) + len(path) <= MAX_CACHED_BYTES:
            if len(self._cache) >= CACHE_SIZE:
                self._cache.clear()
            self._cache[key] = route
        return route

    def serves(self, room: str, host: bytes) -> bool:
        """Whether a room is one of those at this Host header, so that a request may name it."""
        name = host_name(host)
        return any(one.name == room and _host_rank(one.hosts, name) is not None for one in self._rooms)

    def _find(self, host: str, path: bytes) -> Route | None:
        ranked = [(rank, room) for room in self._rooms if (rank := _host_rank(room.hosts, host)) is not None]
        if not ranked:
            return None
        default = max(ranked, key=lambda entry: entry[0])[1].name
        if len(path) > MAX_ODD_PATH_BYTES and _ODD.search(path):
            return Route(default, False, False, (), "long path with escapes or dots")
        interpretations = path_interpretations(path)
        if any(_CONTROLS.search(one) for one in interpretations):
            return Route(default, False, False, (), "control characters in the path")
        reserved = any(is_within(RESERVED, one) for one in interpretations)
        owners: dict[str, tuple[tuple[int, int], int]] = {}
        for interpretation in interpretations:
            for rank, length, name in self._owners(ranked, interpretation):
                owners[name] = max(owners.get(name, (rank, length)), (rank, length))
        if not owners:
            return Route(default, False, reserved, ())
        if len(owners) > 1 and self._strict:
            return Route(default, False, reserved, (), "path in several rooms", tuple(sorted(owners)))
        name = max(owners, key=lambda one: owners[one])
        fitting = [(index, paths.match(path, interpretations)) for index, paths in enumerate(self._bypass[name])]
        bypass = tuple([(index, entries) for index, entries in fitting if entries is not None])
        return Route(name, True, reserved, bypass)

    def _owners(
        self, ranked: Sequence[tuple[tuple[int, int], RoomSettings]], interpretation: bytes
    ) -> list[tuple[tuple[int, int], int, str]]:
        """The rooms that one interpretation of a path may belong to.

        They are the one with the longest prefix contained in whole segments, and the one with a longer prefix that ends
        where a shop may consider the path to end.
        """
        found = [
            (rank, len(prefix), room.name, is_within(prefix, interpretation))
            for rank, room in ranked
            for prefix in self._prefixes[room.name]
            if _covers(prefix, interpretation)
        ]
        if not found:
            return []
        best = [max(found)[:3]]
        whole = [entry for entry in found if entry[3]]
        if whole:
            best.append(max(whole)[:3])
        return best


def host_name(host: bytes) -> str:
    """The lower-case name or address in a Host header, without its port and trailing dot."""
    name = host.decode("latin-1").lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0].rstrip(".")


def path_interpretations(path: bytes) -> frozenset[bytes]:
    """All possible interpretations of a path by a shop, in lower case and without empty segments and a trailing slash.

    They result from undoing escapes once or twice, cutting parameters (``;v=1``) off or not, resolving dot segments or
    not, dropping dots and blanks at the end of segments or not, and leaving out a script in front of the rest or not.
    """
    found: set[bytes] = set()
    sent = [path]
    if b";" in path and (b"%" in path or b"\\" in path):
        sent.append(_PARAMETERS.sub(b"", path))  # some cut parameters off before they undo escapes
    decoded: set[bytes] = set()
    for one in sent:
        if b"%" not in one:
            decoded.add(one.lower())
            continue
        once = unquote_to_bytes(one)
        twice = unquote_to_bytes(once).lower()
        decoded |= {once.lower(), twice}
        if b"%u" in twice:
            decoded.add(_WIDE_ESCAPE.sub(_wide, twice).lower())
    for one in decoded:
        _add_interpretations(one, found)
    return frozenset(found)


def _add_interpretations(path: bytes, found: set[bytes]) -> None:
    segments = _SEPARATOR.split(path)[1:] if path[:1] in _SLASHES else _SEPARATOR.split(path)
    ways = [segments]
    if b";" in path:
        ways.append([segment.partition(b";")[0] for segment in segments])
    if b"." in path or b" " in path:
        ways += [trimmed for way in ways if (trimmed := _trimmed(way)) != way]
    if b"." in path:
        followed = {tuple(_without_dots(way)) for way in ways}
        if b".." in path:
            # In some servers a dot segment removes the empty one before it, in others the last non-empty one.
            followed |= {tuple(_without_dots(way, merge=False)) for way in ways if b"" in way}
        if b" " in path:
            followed |= {tuple([segment.rstrip(b" .") for segment in way]) for way in followed}
        for way in followed:
            ways.append(list(way))
            ways += _behind_scripts(way)
    found.update([_joined(way) for way in ways])


def _behind_scripts(segments: Sequence[bytes]) -> list[list[bytes]]:
    """The interpretations of a path that has a script before the rest: without the script, or from after it on."""
    scripts = [index for index, segment in enumerate(segments[:-1]) if _SCRIPT.fullmatch(segment)]
    if not scripts:
        return []
    first, last = scripts[0], scripts[-1]
    ways = [[*segments[:first], *segments[first + 1 :]], [*segments[first + 1 :]]]
    if last != first:
        named = set(scripts)
        ways.append([segment for index, segment in enumerate(segments) if index not in named])
        ways.append([*segments[last + 1 :]])
    return ways


def _wide(found: re.Match[bytes]) -> bytes:
    return chr(int(found[1], 16)).encode("utf-8", "replace")


def _trimmed(segments: Sequence[bytes]) -> list[bytes]:
    """Segments as file names in Windows: without trailing dots and blanks."""
    return [bare if (bare := segment.rstrip(b" ")) in (b".", b"..") else segment.rstrip(b" .") for segment in segments]


def _forms(path: str) -> frozenset[bytes]:
    """A path of the settings, which is unambiguous, in the form of interpretations: with and without scripts."""
    segments = [segment for segment in _SEPARATOR.split(unquote_to_bytes(path).lower()) if segment]
    return frozenset([_joined(way) for way in (segments, *_behind_scripts(segments))])


def _without_dots(segments: Sequence[bytes], *, merge: bool = True) -> list[bytes]:
    left: list[bytes] = []
    for segment in segments:
        if segment == b"..":
            if left:
                left.pop()
        elif segment != b"." and (segment or not merge):
            left.append(segment)
    return left if merge else [segment for segment in left if segment]


def _joined(segments: Sequence[bytes]) -> bytes:
    return b"".join([b"/" + segment for segment in segments if segment])


def _covers(prefix: bytes, path: bytes) -> bool:
    return path.startswith(prefix) and (not prefix or len(path) == len(prefix) or path[len(prefix)] in _ENDS)


def _host_rank(hosts: Sequence[str], host: str) -> tuple[int, int] | None:
    """How well a room's hosts match: exactly, by the longest wildcard, or because it has none. None: not at all."""
    if not hosts:
        return (0, 0)
    ranks = [
        (2, 0) if pattern == host else (1, len(pattern))
        for pattern in hosts
        if pattern == host or (pattern.startswith("*.") and host.endswith(pattern[1:]))
    ]
    return max(ranks, default=None)
