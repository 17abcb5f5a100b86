"""Reads the definitions of the settings: their keys, shapes and descriptions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import annotated_types
from pydantic import ConfigDict, Strict
from pydantic.fields import FieldInfo

CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)

# Without Strict, pydantic would accept "900" as 900 and true as 1: a wrong unit or a typo would go unnoticed.
StrictStr = Annotated[str, Strict()]
StrictBool = Annotated[bool, Strict()]
StrictInt = Annotated[int, Strict()]
StrictFloat = Annotated[float, Strict()]


@dataclass(frozen=True, slots=True)
class About:
    """The description of a key in the reference, the example file and the error messages. Written only at the key.

    Attributes:
        what: The purpose of the key, in full sentences.
        change: When to change it, in full sentences; may be empty.
        unit: The unit of its number, such as ``seconds``; empty if it has none.
        example: A value in TOML for keys whose default doesn't show their form.
        unset: The behavior without a value, for optional keys.
        reason: The reason for its bounds; shown with the error.
        confidential: Whether the value must never be shown.
    """

    what: str
    change: str = ""
    unit: str = ""
    example: str = ""
    unset: str = ""
    reason: str = ""
    confidential: bool = False


class Shape(StrEnum):
    """The shapes a value may have."""

    INTEGER = "a whole number"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    TEXT = "text"
    TIME = "a date and time with a zone"
    CHOICE = "one of a few words"
    LIST = "a list"
    TABLES = "a list of tables"
    ONE_OR_MORE = "text, or a list of it"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table.

    Attributes:
        name: The key's name.
        shape: The shape of its value.
        about: The key's description.
        required: Whether it has no default.
        default: The default; None if there is none, or if it is determined at start.
        choices: The allowed values, for `Shape.CHOICE`.
        bounds: Its bounds in words, such as ``at least 90``; empty if it has none.
        least, most: The same as numbers; None if it has none.
        least_excluded: Whether the minimum itself is out of bounds.
        table: The dataclass of one of its tables, for `Shape.TABLES`.
    """

    name: str
    shape: Shape
    about: About
    required: bool
    default: object
    choices: tuple[object, ...]
    bounds: str
    least: float | None
    most: float | None
    least_excluded: bool
    table: type | None


def plain_number(number: float) -> float:
    """Return a number that is formatted without a fraction if it has none: ``600`` for 600.0."""
    return int(number) if float(number).is_integer() else number


@cache
def keys_of(table: type) -> dict[str, Key]:
    """Return the keys of a settings dataclass by name, in the order they are defined.

    Args:
        table: A dataclass whose fields are all ``Annotated[..., About(...)]``.
    """
    annotated = get_type_hints(table, include_extras=True)
    plain = get_type_hints(table)
    return {
        field.name: _key(field, plain[field.name], annotated[field.name].__metadata__)
        for field in dataclasses.fields(table)
    }


@cache
def tables_of(table: type, header: str = "") -> dict[str, type]:
    """Return a settings dataclass and all nested ones by their TOML headers, the outermost by ``""``."""
    tables = {header: table}
    for key in keys_of(table).values():
        if key.table is not None:
            tables |= tables_of(key.table, f"{header}.{key.name}" if header else key.name)
    return tables


def _key(field: dataclasses.Field[Any], kind: Any, metadata: tuple[object, ...]) -> Key:
    about = next(item for item in metadata if isinstance(item, About))
    has_default = field.default is not dataclasses.MISSING
    shape = _shape(kind)
    return Key(
        name=field.name,
        shape=shape,
        about=about,
        required=not has_default and field.default_factory is dataclasses.MISSING,
        default=field.default if has_default else None,
        choices=get_args(kind) if shape is Shape.CHOICE else (),
        bounds=_bounds(metadata),
        least=_bound(metadata, "gt", "ge"),
        most=_bound(metadata, "le"),
        least_excluded=_bound(metadata, "gt") is not None,
        table=get_args(kind)[0] if shape is Shape.TABLES else None,
    )


def _shape(kind: Any) -> Shape:
    if get_origin(kind) is Literal:
        return Shape.CHOICE
    if get_origin(kind) is tuple:
        return Shape.TABLES if dataclasses.is_dataclass(get_args(kind)[0]) else Shape.LIST
    if tuple[str, ...] in get_args(kind):
        return Shape.ONE_OR_MORE
    bare = next((part for part in get_args(kind) if part is not NoneType), kind)
    return {bool: Shape.BOOLEAN, int: Shape.INTEGER, float: Shape.NUMBER, str: Shape.TEXT, datetime: Shape.TIME}[bare]


def _bound(metadata: tuple[object, ...], *names: str) -> float | None:
    found = (getattr(constraint, name, None) for constraint in _constraints(metadata) for name in names)
    return next((bound for bound in found if bound is not None), None)


def _constraints(metadata: tuple[object, ...]) -> list[object]:
    return [part for item in metadata if isinstance(item, FieldInfo) for part in item.metadata]


def _bounds(metadata: tuple[object, ...]) -> str:
    words = []
    for constraint in _constraints(metadata):
        match constraint:
            case annotated_types.Gt(gt=bound):
                words.append(f"more than {bound}")
            case annotated_types.Ge(ge=bound):
                words.append(f"at least {bound}")
            case annotated_types.Le(le=bound):
                words.append(f"at most {bound}")
            case annotated_types.MinLen():
                words.append("not empty")
            case _:
                raise TypeError(f"no words for the bound {constraint!r}")
    return ", ".join(words)
