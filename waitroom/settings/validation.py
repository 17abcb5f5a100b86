"""Validates gathered settings: single values by pydantic, contradictions between them by hand.

Nothing here quotes a confidential value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from waitroom import event_times
from waitroom.errors import Problem
from waitroom.net.authority import is_loopback
from waitroom.settings.event import MAX_EVENTS
from waitroom.settings.schema import Key, Shape, keys_of, plain_number, tables_of
from waitroom.settings.sources import KeyPath, Source, closest_match
from waitroom.settings.validators import WILDCARD_HOSTS, Address, split_address, upstream_address

if TYPE_CHECKING:
    from waitroom.settings.gateway import Settings
    from waitroom.settings.room import RoomSettings

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_FACTORS: dict[str, dict[str, float]] = {
    "seconds": {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400},
    "bytes": {"b": 1, "k": 1024, "kb": 1024, "kib": 1024, "m": 1_048_576, "mb": 1_048_576, "mib": 1_048_576},
}
_SHOWN_LENGTH = 40
_PLACEHOLDER_UPSTREAM = "http://missing.invalid:80"
# The first of each two must be at least the second.
LONG_AND_SHORT = (
    ("session_max_seconds", "session_seconds"),
    ("keep_place_seconds", "away_after_seconds"),
    ("claim_seconds", "claim_after_told_seconds"),
)


@dataclass(frozen=True, slots=True)
class Validated:
    """The result of validating each value by itself.

    Attributes:
        settings: The settings, with a placeholder for each refused value: only for further checks.
        problems: Why values were refused.
        rejected: The keys with a placeholder. Problems caused by one are not worth reporting.
    """

    settings: Settings
    problems: list[Problem]
    rejected: frozenset[KeyPath]


@dataclass(frozen=True, slots=True)
class _Conflict:
    key: KeyPath
    what: str
    fix: str
    involved: tuple[KeyPath, ...]


def validate(adapter: TypeAdapter[Settings], source: Source, top: type) -> Validated:
    """Validate each value by itself.

    Args:
        adapter: The validator of the whole.
        source: The gathered settings.
        top: The dataclass of the top level.
    """
    data = {"rooms": [], **source.data}
    try:
        return Validated(adapter.validate_python(data), [], frozenset())
    except ValidationError as error:
        details = error.errors(include_url=False)
    # pydantic also reports a list as too short when an item of it was refused
    around = {detail["loc"][:-1] for detail in details}
    details = [detail for detail in details if detail["loc"] not in around]
    problems = [_to_problem(detail, source, top) for detail in details]
    rejected = frozenset(detail["loc"][: 3 if detail["loc"][0] == "rooms" else 1] for detail in details)
    return Validated(adapter.validate_python(_with_placeholders(data, rejected)), problems, rejected)


def find_conflicts(settings: Settings, source: Source, rejected: frozenset[KeyPath]) -> list[Problem]:
    """Find values that are valid by themselves but not together.

    Args:
        settings: The settings.
        source: Where they came from, to report the places.
        rejected: Keys with placeholders.
    """
    found = [*_room_conflicts(settings), *_address_conflicts(settings)]
    if settings.secrets and settings.secrets_file is not None:
        found.append(
            _Conflict(
                ("secrets_file",),
                "can't be combined with secrets.",
                "Remove one of them.",
                (("secrets",), ("secrets_file",)),
            )
        )
    found.extend(_listener_conflicts(settings))
    found.extend(_user_conflicts(settings))
    found.extend(_webhook_conflicts(settings))
    for index, room in enumerate(settings.rooms):
        found.extend(_time_conflicts(index, room, source))
        found.extend(_upstream_tls_conflicts(index, room))
        found.extend(_bypass_conflicts(index, room, source))
        found.extend(_autopilot_conflicts(index, room, source))
        found.extend(_event_conflicts(index, room))
    return [
        source.problem(one.key, one.what, one.fix)
        for one in found
        if not any(key[: len(start)] == start for key in one.involved for start in rejected)
    ]


def _room_conflicts(settings: Settings) -> Iterator[_Conflict]:
    if not settings.rooms:
        yield _Conflict(
            ("rooms",),
            "no room is defined.",
            "Add a [[rooms]] table with name and upstream, or use only --upstream http://127.0.0.1:3000.",
            (("rooms",),),
        )
    for (i, one), (j, other) in combinations(enumerate(settings.rooms), 2):
        if one.name == other.name:
            names: tuple[KeyPath, ...] = (("rooms", j, "name"), ("rooms", i, "name"))
            what = f"rooms[{i}] has the same name."
            yield _Conflict(names[0], what, "Rename one of them.", names)
        shared = next(
            ((h, p) for h, p in product(other.hosts or ("",), other.paths or ("/",)) if _covers(one, h, p)), None
        )
        if shared:
            host, path = shared
            yield _Conflict(
                ("rooms", j),
                f'covers {host or "any host"} with path {path}, like rooms[{i}] "{one.name}".',
                "Give one of them other hosts or paths.",
                tuple(("rooms", index, key) for index in (i, j) for key in ("hosts", "paths")),
            )


def _covers(room: RoomSettings, host: str, path: str) -> bool:
    return host in (room.hosts or ("",)) and path in (room.paths or ("/",))


def _time_conflicts(index: int, room: RoomSettings, source: Source) -> Iterator[_Conflict]:
    for long, short in LONG_AND_SHORT:
        longest, shortest = getattr(room, long), getattr(room, short)
        if longest < shortest:
            keys: tuple[KeyPath, ...] = (("rooms", index, long), ("rooms", index, short))
            yield _Conflict(
                # one of the two may be a default, which has no place to point at
                next((key for key in keys if key in source.provenance), keys[0]),
                f"{long} ({longest}) is less than {short} ({shortest}).",
                f"Raise {long} to at least {shortest}, or lower {short}.",
                keys,
            )


def _autopilot_conflicts(index: int, room: RoomSettings, source: Source) -> Iterator[_Conflict]:
    floor, ceiling = (("rooms", index, f"autopilot_{end}") for end in ("floor", "ceiling"))
    if room.autopilot_floor > room.autopilot_ceiling:
        low, high = plain_number(room.autopilot_floor), plain_number(room.autopilot_ceiling)
        yield _Conflict(
            next((key for key in (floor, ceiling) if key in source.provenance), floor),
            f"autopilot_floor ({low}) is more than autopilot_ceiling ({high}).",
            f"Raise autopilot_ceiling to at least {low}, or lower autopilot_floor.",
            (floor, ceiling),
        )
    if room.autopilot and room.method != "fifo":
        switch: KeyPath = ("rooms", index, "autopilot")
        yield _Conflict(
            switch,
            f'is on, but method is "{room.method}", which has no rate.',
            'Turn it off, or set method = "fifo".',
            (switch, ("rooms", index, "method")),
        )


def _event_conflicts(index: int, room: RoomSettings) -> Iterator[_Conflict]:
    events: KeyPath = ("rooms", index, "events")
    if room.events and room.method != "fifo":
        yield _Conflict(
            (*events, 0),
            f'needs a queue, but the method of the room is "{room.method}".',
            'Set method = "fifo" in the room, or remove its events.',
            (events, ("rooms", index, "method")),
        )
    if len(room.events) > MAX_EVENTS:
        fix = "Remove those that have ended; reports don't depend on the file."
        yield _Conflict((*events, MAX_EVENTS), f"is one more than {MAX_EVENTS} events.", fix, (events,))
    numbers: dict[str, int] = {}
    for number, event in enumerate(room.events):
        if event.name in numbers:
            what = f"events[{numbers[event.name]}] of the room has the same name."
            yield _Conflict((*events, number, "name"), what, "Rename one of them.", (events,))
        numbers.setdefault(event.name, number)
    for conflict in event_times.find_conflicts(room.events):
        yield _Conflict((*events, numbers[conflict.name], conflict.field), conflict.what, conflict.fix, (events,))
    for number in range(len(room.events)):
        yield from _event_time_conflicts(index, room, number)


def _event_time_conflicts(index: int, room: RoomSettings, number: int) -> Iterator[_Conflict]:
    """Find limits of an event that contradict each other, or those that it inherits."""
    event = room.events[number]
    here: KeyPath = ("rooms", index, "events", number)
    for long, short in LONG_AND_SHORT:
        own = [name for name in (long, short) if getattr(event, name) is not None]
        longest, shortest = (getattr(event if name in own else room, name) for name in (long, short))
        if own and longest < shortest:
            yield _Conflict(
                (*here, own[0]),
                f"{long} ({longest}) is less than {short} ({shortest}) while the event runs.",
                f"Set {long} of the event to at least {shortest}, or {short} to at most {longest}.",
                (here[:3], *(("rooms", index, name) for name in (long, short) if name not in own)),
            )


def _upstream_tls_conflicts(index: int, room: RoomSettings) -> Iterator[_Conflict]:
    if room.upstreams[0].startswith("https:"):
        return
    for name in ("upstream_ca_file", "upstream_server_name"):
        if getattr(room, name) is not None:
            key = ("rooms", index, name)
            what = f"applies only to an https:// upstream, but upstream is {room.upstreams[0]}."
            yield _Conflict(key, what, "Remove it, or change upstream.", (key, ("rooms", index, "upstream")))


def _bypass_conflicts(index: int, room: RoomSettings, source: Source) -> Iterator[_Conflict]:
    for number, rule in enumerate(room.bypass):
        here: KeyPath = ("rooms", index, "bypass", number)
        keys = tuple((*here, name) for name in ("paths", "exact_paths"))
        if rule.paths and rule.exact_paths:
            what = "is combined with paths, and a request would have to match both."
            yield _Conflict(keys[1], what, "Remove one of them, or write two rules.", keys)
        elif not (rule.paths or rule.exact_paths or rule.path_regex is not None or rule.preset is not None):
            given = next((key for key in keys if key in source.provenance), here)
            yield _Conflict(
                given,
                "must not be empty." if given is not here else "needs a condition on the path.",
                'Set paths = ["/webhooks/"], or exact_paths, path_regex or preset.',
                keys,
            )


def _webhook_conflicts(settings: Settings) -> Iterator[_Conflict]:
    names = [room.name for room in settings.rooms]
    for index, webhook in enumerate(settings.webhooks):
        for number, name in enumerate(webhook.rooms):
            if name not in names:
                key: KeyPath = ("webhooks", index, "rooms", number)
                meant = closest_match(name, names)
                fix = f"Did you mean {meant}?" if meant else f"The rooms are {', '.join(names)}."
                yield _Conflict(key, f'unknown room "{name}".', fix, (key, ("rooms",)))


def _address_conflicts(settings: Settings) -> Iterator[_Conflict]:
    own = {key: split_address(getattr(settings, key)) for key in ("listen", "admin_listen")}
    public, admin = own["listen"], own["admin_listen"]
    if public and admin and _same_address(public, admin):
        yield _Conflict(
            ("admin_listen",),
            f"is the same address as listen, {settings.listen}.",
            "Give it another port: the admin and the public listener must be separate.",
            (("listen",), ("admin_listen",)),
        )
    for index, room in enumerate(settings.rooms):
        upstreams = [address for address in map(upstream_address, room.upstreams) if address]
        for key, address in own.items():
            if address and any(_reaches(upstream, address) for upstream in upstreams):
                yield _Conflict(
                    ("rooms", index, "upstream"),
                    f"is the gateway's own {key}, so requests would loop.",
                    "Use the address of the shop, or move the gateway to another port.",
                    (("rooms", index, "upstream"), (key,)),
                )


def _listener_conflicts(settings: Settings) -> Iterator[_Conflict]:
    pair: tuple[KeyPath, ...] = (("tls_certificate",), ("tls_key",))
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        given, missing = pair if settings.tls_key is None else pair[::-1]
        what = f"is set without {missing[0]}."
        yield _Conflict(given, what, "Set both for HTTPS, or neither for plain HTTP.", pair)
    if settings.proxy_protocol and not settings.trusted_proxies:
        yield _Conflict(
            ("proxy_protocol",),
            "is on, but trusted_proxies is empty: every connection would be refused.",
            "List the load balancers that send the header in trusted_proxies.",
            (("proxy_protocol",), ("trusted_proxies",)),
        )


def _user_conflicts(settings: Settings) -> Iterator[_Conflict]:
    for (i, one), (j, other) in combinations(enumerate(settings.users), 2):
        if one.name == other.name:
            what = f"users[{i}] has the same name."
            yield _Conflict(("users", j, "name"), what, "Rename one of them.", (("users",),))


def _same_address(one: Address, other: Address) -> bool:
    """Whether two listeners conflict. Port 0 is a different one each time."""
    wildcard = bool({one.host, other.host} & WILDCARD_HOSTS)
    return one.port == other.port != 0 and (wildcard or _same_host(one.host, other.host))


def _reaches(upstream: Address, listener: Address) -> bool:
    """Whether connecting to an upstream reaches our own listener, as far as the addresses show."""
    # a wildcard listener is reached by this machine's own name, and so is a connection to a wildcard address
    here = ("localhost" if address.host in WILDCARD_HOSTS else address.host for address in (upstream, listener))
    return upstream.port == listener.port and _same_host(*here)


def _same_host(one: str, other: str) -> bool:
    return one == other or ("localhost" in {one, other} and is_loopback(one) and is_loopback(other))


def _with_placeholders(data: dict[str, Any], rejected: frozenset[KeyPath]) -> dict[str, Any]:
    """Return the data without the rejected values, so that their defaults apply."""
    kept = {key: value for key, value in data.items() if (key,) not in rejected}
    rooms = [{} if ("rooms", index) in rejected else room for index, room in enumerate(kept.get("rooms", []))]
    kept["rooms"] = [
        {
            "name": f"room-{index}",
            "upstream": _PLACEHOLDER_UPSTREAM,
            **{key: value for key, value in room.items() if ("rooms", index, key) not in rejected},
        }
        for index, room in enumerate(rooms)
    ]
    return kept


def _to_problem(detail: ErrorDetails, source: Source, top: type) -> Problem:
    """Convert a pydantic error to our words."""
    path = detail["loc"]
    if detail["type"] == "unexpected_keyword_argument":
        return source.problem(path, *_unknown_key(path, top))
    what, fix = _describe(detail, _key_at(path, top))
    return source.problem(path, what, fix)


def _key_at(path: KeyPath, top: type) -> Key:
    """Return the key at a path; for an item of a list, that of the list."""
    while isinstance(path[-1], int):
        path = path[:-1]
    return keys_of(tables_of(top)[_header(path[:-1])])[path[-1]]


def _header(path: KeyPath) -> str:
    return ".".join(part for part in path if isinstance(part, str))


def _unknown_key(path: KeyPath, top: type) -> tuple[str, str]:
    tables = tables_of(top)
    name, here = str(path[-1]), _header(path[:-1])
    for header, table in tables.items():
        if name in keys_of(table):
            if not header:
                return "belongs to the top level.", "Move it above the first [[rooms]]."
            return f"belongs to [[{header}]].", "Move it below that header."
    meant = closest_match(name.lower().replace("-", "_"), keys_of(tables[here]))
    return "unknown setting.", f"Did you mean {meant}?" if meant else "docs/settings.md lists all settings."


def _describe(detail: ErrorDetails, key: Key) -> tuple[str, str]:
    """Return the problem with a value, and its fix."""
    value, context = detail["input"], detail.get("ctx", {})
    header = f"[[{_header(detail['loc'])}]]"
    match detail["type"]:
        case "invalid_value":
            return context["what"], context["fix"]
        case "missing":
            return "is missing.", f"Write {key.name} = {key.about.example}"
        case "int_type" | "float_type" | "finite_number":
            return f"must be {key.shape}, not {_format_value(value, key)}.", _suggest_number(value, key)
        case "bool_type":
            return f"must be {key.shape}, not {_format_value(value, key)}.", "Write true or false, without quotes."
        case "string_type":
            example = key.about.example or json.dumps(key.default)
            return f"must be text, not {_format_value(value, key)}.", f"Put it in quotes, such as {example}."
        case "literal_error":
            choices = ", ".join(json.dumps(choice) for choice in key.choices)
            meant = closest_match(str(value), map(str, key.choices))
            return (
                f"invalid value {_format_value(value, key)}.",
                f"Did you mean {meant}?" if meant else f"Choose one of {choices}.",
            )
        case "greater_than" | "greater_than_equal":
            what = f"is {_format_value(value, key)}, but must be {key.bounds}."
            bound = plain_number(context["gt" if "gt" in context else "ge"])
            wanted = f"more than {bound}" if "gt" in context else f"{bound} or more"
            return what, f"{key.about.reason} Write {wanted} ({key.about.unit}).".lstrip()
        case "less_than_equal":
            what = f"is {_format_value(value, key)}, but must be {key.bounds}."
            return what, f"Write {plain_number(context['le'])} or less ({key.about.unit})."
        case "too_short":
            return "must not be empty.", f"Write {key.name} = {key.about.example}"
        case "dataclass_type":
            return f"must be a table, not {_format_value(value, key)}.", f"Begin it with {header}."
        case "tuple_type" if key.shape is Shape.TABLES:
            return f"must be a list of tables, not {_format_value(value, key)}.", f"Write its header as {header}."
        case "tuple_type":
            return f"must be a list, not {_format_value(value, key)}.", "Put it in [ ], even a single item."
    raise TypeError(f"no words for the error {detail['type']}")


def _format_value(value: object, key: Key) -> str:
    """Describe a value for an error message; of a confidential one only its type."""
    match value:
        case list():
            return "a list"
        case dict():
            return "a table"
        case str() if key.about.confidential:
            return "text"
        case str():
            return json.dumps(value if len(value) <= _SHOWN_LENGTH else value[:_SHOWN_LENGTH] + "...")
        case bool():
            return str(value).lower()
        case int() | float():
            return "a number" if key.about.confidential else str(value)
    return "a date or time"


def _suggest_number(value: object, key: Key) -> str:
    """Suggest how to write a text as the number that was meant."""
    unit = key.about.unit
    noun = "a whole number" if key.shape is Shape.INTEGER else "a number"
    meant: float | None = None
    if isinstance(value, str):
        if found := _QUANTITY.fullmatch(value.strip().lower()):
            factor = _FACTORS.get(unit, {}).get(found[2])
            meant = float(found[1]) * factor if factor else None
        elif re.fullmatch(r"\d+(\.\d+)?", value.strip()):
            meant = float(value)
    elif isinstance(value, float) and math.isfinite(value):
        meant = value
    if meant is None:
        return f"Give {unit} as {noun}."
    if key.shape is Shape.INTEGER:
        meant = float(round(meant))
    return f"Give {unit} as {noun}: {plain_number(meant)}."
