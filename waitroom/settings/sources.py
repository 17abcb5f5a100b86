"""Gathers the raw settings from file, environment and flags, and records the provenance of each value."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waitroom.errors import Problem, SettingsError
from waitroom.settings.schema import Key, Shape, keys_of

PREFIX = "WAITROOM_"
DEFAULT_ROOM = "shop"

KeyPath = tuple[str | int, ...]
"""A key's place in the settings, such as ``("rooms", 0, "bypass", 1, "paths")``."""

# A Kubernetes service named "waitroom" adds these to the environment of every pod in its namespace.
_SERVICE_LINK = re.compile(
    PREFIX + r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK_PORT = re.compile(PREFIX + r"(\w+_)?PORT")
_SERVICE_LINK_PORT_VALUE = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Provenance:
    """The provenance of a value.

    Attributes:
        where: The variable or flag; empty for the file.
        line: The line in the file, counted from 1.
    """

    where: str = ""
    line: int | None = None


@dataclass(slots=True)
class Source:
    """The raw settings, merged.

    Attributes:
        folder: The settings file's directory, absolute; the working directory if there is no file.
        data: The values, in the form of the TOML file.
        provenance: The provenance of values; a key without an entry has that of the nearest enclosing table.
        problems: Problems of merging.
    """

    folder: Path
    data: dict[str, Any] = field(default_factory=dict)
    provenance: dict[KeyPath, Provenance] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, key: KeyPath, what: str, fix: str) -> Problem:
        """Build the problem of a key, with the provenance of its value."""
        origin = self._provenance_of(key)
        return Problem(origin.where or self._label(key), what, fix, origin.line)

    def folder_of(self, key: KeyPath) -> Path:
        """Return the absolute directory that relative paths in a value are resolved against."""
        return Path.cwd() if self._provenance_of(key).where else self.folder

    def set_value(self, key: KeyPath, value: object, where: str) -> None:
        """Set a value of the variable or flag ``where``, which replaces that of the file."""
        table: Any = self.data
        for part in key[:-1]:
            table = table[part]
        table[key[-1]] = value
        for deeper in [path for path in self.provenance if path[: len(key)] == key]:
            del self.provenance[deeper]
        self.provenance[key] = Provenance(where)

    def rooms(self) -> list[dict[str, Any]]:
        """Return the raw rooms that can be modified: those that are tables."""
        rooms = self.data.get("rooms")
        return rooms if isinstance(rooms, list) and all(isinstance(room, dict) for room in rooms) else []

    def _provenance_of(self, key: KeyPath) -> Provenance:
        lengths = range(len(key), 0, -1)
        return next((self.provenance[key[:n]] for n in lengths if key[:n] in self.provenance), Provenance())

    def _label(self, key: KeyPath) -> str:
        label = ""
        table: Any = self.data
        for depth, part in enumerate(key):
            table = _member(table, part)
            if isinstance(part, str):
                label += f".{part}" if label else part
            else:
                label += f"[{part}]"
                if depth == 1 and isinstance(table, dict):
                    name = table.get("name")
                    label += f' "{name}"' if isinstance(name, str) else ""
        return label


def gather(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], top: type, room: type) -> Source:
    """Gather the settings from file, environment and flags; later ones take precedence.

    Args:
        path: The settings file, or None.
        env: The environment.
        overrides: Values of flags, by key.
        top: The dataclass of the top level.
        room: The dataclass of a room.

    Raises:
        SettingsError: The file is unreadable or invalid TOML, so that no further checks are possible.
    """
    source = _read_file(path) if path is not None else Source(Path.cwd())
    flags = {f"--{key.replace('_', '-')}": (key, value) for key, value in overrides.items() if value is not None}
    given = {name: value for name, value in env.items() if name.startswith(PREFIX) and value.strip()}
    if source.data.get("rooms", []) == [] and ("--upstream" in flags or f"{PREFIX}UPSTREAM" in given):
        source.data["rooms"] = [{"name": DEFAULT_ROOM}]
    top_keys = {name: key for name, key in keys_of(top).items() if name != "rooms"}
    room_keys = keys_of(room)
    _apply_environment(source, given, top_keys, room_keys)
    _apply_flags(source, flags, top_keys, room_keys)
    _expand_auto(source)
    return source


def closest_match(word: str, words: Iterable[str]) -> str | None:
    """Return the closest of ``words`` to a misspelled ``word``, or None."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1)), None)


def key_lines(text: str, data: Mapping[str, Any]) -> dict[KeyPath, int]:
    """Find the line of each key and table in a TOML document.

    Args:
        text: The document.
        data: The parsed document.

    Returns:
        Lines, counted from 1, by path. Values inside lists have none of their own.
    """
    lines: dict[KeyPath, int] = {}
    seen: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, statement in _statements(text):
        parsed = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _enter_table(parsed, data, seen)
            lines.setdefault(table, number)
        else:
            _record_lines(parsed, table, number, lines)
    return lines


def _statements(text: str) -> Iterable[tuple[int, str]]:
    """Yield a valid document's statements with their first lines.

    A statement ends at the first line with which it parses by itself: TOML continues one only inside brackets or
    a multi-line string, and either is an error until it is closed.
    """
    first, statement = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            first = number
        statement += line + "\n"
        try:
            is_blank = not tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if not is_blank:
            yield first, statement
        statement = ""


def _enter_table(parsed: dict[str, Any], data: Mapping[str, Any], seen: dict[KeyPath, int]) -> KeyPath:
    """Return the path of the table that a header opens, counting the tables of each list in ``seen``."""
    path: KeyPath = ()
    inner: Any = parsed
    outer: Any = data
    while isinstance(inner, dict) and inner:
        name, inner = next(iter(inner.items()))
        path, outer = (*path, name), _member(outer, name)
        if isinstance(inner, list):
            seen[path] = seen.get(path, -1) + 1
            inner = inner[0]
        if isinstance(outer, list):
            index = seen.get(path, 0)
            path, outer = (*path, index), _member(outer, index)
    return path


def _record_lines(parsed: Mapping[str, Any], table: KeyPath, number: int, lines: dict[KeyPath, int]) -> None:
    for name, value in parsed.items():
        lines.setdefault((*table, name), number)
        if isinstance(value, dict):
            _record_lines(value, (*table, name), number, lines)


def _member(table: Any, part: str | int) -> Any:
    """Return a member of a raw table or list, or None."""
    try:
        return table[part]
    except (KeyError, IndexError, TypeError):
        return None


def _read_file(path: Path) -> Source:
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        data = tomllib.loads(text)
    except OSError as error:
        problem = Problem(str(path), f"can't be read: {error.strerror or type(error).__name__}.", "Check the path.")
    except UnicodeDecodeError:
        problem = Problem(str(path), "isn't UTF-8 text.", "Save it as UTF-8.")
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        number = int(line[1]) if line else len(text.splitlines())
        problem = Problem(str(path), f"isn't valid TOML: {error}.", "Put text in quotes and lists in [ ].", number)
    else:
        provenance = {key: Provenance(line=line) for key, line in key_lines(text, data).items()}
        return Source(path.absolute().parent, data, provenance)
    raise SettingsError([problem])


def _apply_environment(
    source: Source, given: Mapping[str, str], top_keys: Mapping[str, Key], room_keys: Mapping[str, Key]
) -> None:
    """Apply the environment; names with a room's name are applied after those without."""
    targets: dict[str, list[tuple[KeyPath, Key]]] = {}
    for name, key in top_keys.items():
        targets[PREFIX + name.upper()] = [((name,), key)]
    rooms = source.rooms()
    for name, key in room_keys.items():
        targets[PREFIX + name.upper()] = [(("rooms", index, name), key) for index in range(len(rooms))]
        for index, room in enumerate(rooms):
            room_name = str(room.get("name", "")).upper().replace("-", "_")
            variable = f"{PREFIX}ROOMS_{room_name}_{name.upper()}"
            targets.setdefault(variable, []).append((("rooms", index, name), key))
    for variable in sorted(given, key=lambda name: (name.startswith(f"{PREFIX}ROOMS_"), name)):
        match targets.get(variable):
            case [(path, key)]:
                source.set_value(path, _parse_text(key, given[variable]), variable)
            case None if not _is_service_link(variable, given[variable]):
                source.problems.append(_unknown_variable(variable, targets))
            case [_, _, *_]:
                source.problems.append(_ambiguous_variable(variable, room_keys))


def _is_service_link(variable: str, value: str) -> bool:
    return bool(
        _SERVICE_LINK.fullmatch(variable)
        or (_SERVICE_LINK_PORT.fullmatch(variable) and _SERVICE_LINK_PORT_VALUE.match(value))
    )


def _unknown_variable(variable: str, known: Iterable[str]) -> Problem:
    # without the prefix, which would make any two names look similar
    meant = closest_match(variable.removeprefix(PREFIX), (name.removeprefix(PREFIX) for name in known))
    if meant:
        fix = f"Did you mean {PREFIX}{meant}?"
    elif variable.startswith(f"{PREFIX}ROOMS_"):
        fix = f"Write {PREFIX}ROOMS_<NAME>_<KEY> with the name of an existing room and one of its keys."
    else:
        fix = "Remove it from the environment; docs/settings.md lists all settings."
    return Problem(variable, "unknown setting.", fix)


def _ambiguous_variable(variable: str, room_keys: Mapping[str, Key]) -> Problem:
    short = variable.removeprefix(PREFIX)
    if short.lower() in room_keys:
        fix = f"Write {PREFIX}ROOMS_<NAME>_{short} with the room's name in capitals."
    else:
        fix = "Rename a room, or set the key in the file."
    return Problem(variable, "is ambiguous: several rooms match.", fix)


def _apply_flags(
    source: Source,
    flags: Mapping[str, tuple[str, object]],
    top_keys: Mapping[str, Key],
    room_keys: Mapping[str, Key],
) -> None:
    rooms = source.rooms()
    for flag, (name, value) in flags.items():
        key = top_keys.get(name) or room_keys.get(name)
        if key is None:
            meant = closest_match(name, [*top_keys, *room_keys])
            fix = f"Did you mean --{meant.replace('_', '-')}?" if meant else "Remove it."
            source.problems.append(Problem(flag, "unknown setting.", fix))
            continue
        converted = _parse_text(key, value) if isinstance(value, str) else value
        if name in top_keys:
            source.set_value((name,), converted, flag)
        elif len(rooms) == 1:
            source.set_value(("rooms", 0, name), converted, flag)
        elif rooms:
            what = f"requires a single room, but there are {len(rooms)}."
            source.problems.append(Problem(flag, what, "Set the key of the intended room in the file."))


def _expand_auto(source: Source) -> None:
    """Expand ``rate_per_minute = "auto"`` to the switch that it stands for, in rooms and in their events."""
    for index, room in enumerate(source.rooms()):
        _expand_auto_of(source, room, ("rooms", index))
        events = room.get("events")
        for number, event in enumerate(events if isinstance(events, list) else []):
            if isinstance(event, dict):
                _expand_auto_of(source, event, ("rooms", index, "events", number))


def _expand_auto_of(source: Source, table: dict[str, Any], path: KeyPath) -> None:
    if table.get("rate_per_minute") != "auto":
        return
    rate, switch = ((*path, name) for name in ("rate_per_minute", "autopilot"))
    if table.get("autopilot") is False:
        what, fix = 'is "auto", but autopilot is false.', "Remove one of them."
        source.problems.append(source.problem(rate, what, fix))
    elif rate in source.provenance:
        source.provenance.setdefault(switch, source.provenance[rate])
    del table["rate_per_minute"]
    table.setdefault("autopilot", True)


def _parse_text(key: Key, text: str) -> object:
    """Convert the text of a variable or flag to the file's type; unchanged if that fails."""
    text = text.strip()
    match key.shape:
        case Shape.LIST:
            return [part for part in (piece.strip() for piece in text.split(",")) if part]
        case Shape.ONE_OR_MORE:
            return [part for part in (piece.strip() for piece in text.split(",")) if part] if "," in text else text
        case Shape.TABLES:
            try:
                return tomllib.loads(f"value = {text}")["value"]
            except tomllib.TOMLDecodeError:
                return text
        case Shape.CHOICE:
            return next((choice for choice in key.choices if str(choice) == text), text)
        case Shape.INTEGER | Shape.NUMBER:
            try:
                return int(text) if key.shape is Shape.INTEGER else float(text)
            except ValueError:
                return text
        case Shape.BOOLEAN:
            return {"true": True, "false": False}.get(text, text)
        case Shape.TEXT | Shape.TIME:
            return text
