"""The requests of the API: models of its bodies and query parameters, and their readers.

The models check names and types. Limits of values are rules of the operations (`waitroom.control.rooms.operations`),
which apply to the dashboard, the command line and the autopilot as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from aiohttp import web
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)

from waitroom.control.autopilot.state import KEPT_DECISIONS
from waitroom.control.http import RequestError, read_body
from waitroom.control.monitoring.history import RETENTION_SECONDS
from waitroom.control.rooms.changes import InvalidChangeError
from waitroom.control.rooms.event_changes import EVENT_FIELDS, EventChange
from waitroom.control.rooms.event_presenter import AUTO
from waitroom.control.rooms.operations import SESSION, Change
from waitroom.queue.fields import EVENT_LIMITS, NUMBER, OPERATOR_FIELDS, RATE, STATE, TEXT, WHOLE
from waitroom.queue.fields import Field as RoomField
from waitroom.queue.view import RoomState
from waitroom.settings.event import event_time, milliseconds
from waitroom.shop_commands import MAX_DIGITS, MAX_NUMBER, SESSION_COMMANDS, ShopCommand, parse_command

MAX_BODY_BYTES = 16 << 10
MAX_ENTRIES = 1000

_ETAG = re.compile(r'"([0-9]{1,15})"')
_DECIMAL = re.compile(r"[0-9]{1,9}")
_MAX_EXACT = 1 << 53  # larger integers have no exact float


def _float(value: object) -> object:
    """Makes integers too large for a float infinite, so that they are refused for their size, not their type."""
    return float("inf") if isinstance(value, int) and abs(value) > _MAX_EXACT else value


def as_integer(value: object) -> object:
    """Accepts 3.0 as 3, as JSON makes no difference between them."""
    if not isinstance(value, float):
        return value
    if value > _MAX_EXACT:
        return _MAX_EXACT  # refused for its size
    return int(value) if value.is_integer() else value


def _decimal(value: object) -> int:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    raise ValueError


def _boolean(value: object) -> bool:
    if value in ("true", "false"):
        return value == "true"
    raise ValueError


class _Input(BaseModel):
    """A body or a query: strict types, no unknown names. Descriptions complete "Must be ...".

    ``nullable`` are the names of fields that may be null.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    kind: ClassVar[str] = "field"
    nullable: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*", mode="before")
    @classmethod
    def _no_null(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.field_name not in cls.nullable:
            raise ValueError
        return value


class Body(_Input):
    """A body. An ``optional`` one may be left out."""

    optional: ClassVar[bool] = False


class _NotedBody(Body):
    note: str = Field("", description="a string")


class UndoBody(_NotedBody):
    """The body of an undo."""

    optional: ClassVar[bool] = True


class _ChangeBody(_NotedBody):
    def change(self) -> Change:
        """Returns the change that the body describes."""
        return Change(**self.model_dump(exclude={"note"}))


def _value(field: RoomField) -> tuple[Any, str]:
    """Returns the type and the description of the values of a room's field."""
    if field is STATE:
        # Lax, because strict enums accept only their members, and JSON has none.
        return Annotated[RoomState, Field(strict=False)], "open, paused, closed or sold_out"
    if field.format is NUMBER:
        return Annotated[float, BeforeValidator(_float)], f"a number of {field.setting.about.unit}"
    if field.format is WHOLE:
        return Annotated[int, BeforeValidator(as_integer)], f"an integer number of {field.setting.about.unit}"
    return (str, "a string") if field.format is TEXT else (bool, "true or false")


def _optional(field: RoomField) -> Any:
    value, description = _value(field)
    return value | None, Field(None, description=description)


ChangeBody = create_model(
    "ChangeBody",
    __doc__="The body of a change of a room.",
    __base__=_ChangeBody,
    **{field.name: _optional(field) for field in OPERATOR_FIELDS},
)


def _session_field() -> Any:
    return Field(
        pattern=f"^(?:{SESSION.pattern})$", description="a session as in Waitroom-Session: 1 to 16 of 0-9 and a-f"
    )


def _time_ms(value: object) -> int | None:
    """Reads a time as in the settings file; returns a Unix time in milliseconds."""
    return None if value is None else milliseconds(event_time(value))


_Time = Annotated[int | None, BeforeValidator(_time_ms)]
_A_TIME = "a time with its zone, such as 2026-12-12T11:00:00+07:00"


class _EventBody(_NotedBody):
    """The body of a change of an event: keys as in the settings file, and null for none."""

    title: str | None = Field(None, description="a string")
    prequeue_start: _Time = Field(None, description=_A_TIME)
    start: _Time = Field(None, description=_A_TIME)
    end: _Time = Field(None, description=_A_TIME)
    method: Literal["fifo", "random"] | None = Field(None, description="fifo or random")
    before: Literal["closed", "open"] | None = Field(None, description="closed or open")
    after: Literal["open", "closed", "sold_out"] | None = Field(None, description="open, closed or sold_out")
    units: Annotated[int | None, BeforeValidator(as_integer)] = Field(None, description="an integer number of units")

    nullable: ClassVar[frozenset[str]] = frozenset(EVENT_FIELDS) - {"start"}

    def change(self) -> EventChange:
        """Returns the change that the body describes."""
        return EventChange(self.model_dump(exclude={"note"}, exclude_unset=True))


def _rate(value: object) -> object:
    return value if value == AUTO else _float(value)


def _limit(field: RoomField) -> Any:
    """Returns the type and the default of a limit of an event."""
    unit = field.setting.about.unit
    if field is RATE:
        rate = Annotated[float | Literal["auto"] | None, BeforeValidator(_rate)]
        return rate, Field(None, description=f"a number of {unit}, or auto")
    whole = Annotated[int | None, BeforeValidator(as_integer)]
    return whole, Field(None, description=f"an integer number of {unit}")


EventBody = create_model(
    "EventBody",
    __doc__=_EventBody.__doc__,
    __base__=_EventBody,
    **{field.name: _limit(field) for field in EVENT_LIMITS},
)


class MoveBody(_NotedBody):
    """The body of a start, an end or a cancellation of an event."""

    optional: ClassVar[bool] = True


class AdmitBody(_NotedBody):
    """The body of an admission."""

    ticket: str = Field(description="a string")


class EndSessionBody(_NotedBody):
    """The body of an end of a session."""

    session: str = _session_field()


def _command(value: object) -> ShopCommand:
    """Reads a session command as in the header ``Waitroom-Command``."""
    command = parse_command(value.encode("ascii", "replace")) if isinstance(value, str) else None
    if command is None or command.name not in SESSION_COMMANDS:
        raise ValueError
    return command


class CommandBody(Body):
    """The body of a session command."""

    command: Annotated[InstanceOf[ShopCommand], BeforeValidator(_command)] = Field(
        description=f"release, hold=SECONDS or extend=SECONDS, with 1 to {MAX_DIGITS} digits"
    )


class StockBody(Body):
    """The body of a report of the stock."""

    remaining: Annotated[int, BeforeValidator(as_integer)] = Field(
        ge=0, le=MAX_NUMBER, description=f"an integer from 0 to {MAX_NUMBER:,}"
    )


class SessionPath(_Input):
    """The session in a path."""

    kind: ClassVar[str] = "parameter"
    session: str = _session_field()


class Query(_Input):
    """The query of endpoints without parameters."""

    kind: ClassVar[str] = "parameter"


class ChangeQuery(Query):
    """The query of a change."""

    dry_run: Annotated[bool, BeforeValidator(_boolean)] = Field(False, description="true or false")


class HistoryQuery(Query):
    """The query of the history."""

    seconds: Annotated[int, BeforeValidator(_decimal)] = Field(
        3600, ge=1, le=RETENTION_SECONDS, description=f"an integer from 1 to {RETENTION_SECONDS}"
    )


class DecisionsQuery(Query):
    """The query of the autopilot's decisions."""

    count: Annotated[int, BeforeValidator(_decimal)] = Field(
        100, ge=1, le=KEPT_DECISIONS, description=f"an integer from 1 to {KEPT_DECISIONS}"
    )


class AuditQuery(Query):
    """The query of the audit log; ``before`` is "+" for the newest entries."""

    before: str = Field(
        "+", pattern=r"^(?:\+|[0-9]{1,15}-[0-9]{1,15})$", description="the id of an entry, such as 1764000000000-0"
    )
    count: Annotated[int, BeforeValidator(_decimal)] = Field(
        100, ge=1, le=MAX_ENTRIES, description=f"an integer from 1 to {MAX_ENTRIES}"
    )


Input = TypeVar("Input", bound=_Input)
AnyBody = TypeVar("AnyBody", bound=Body)
AnyQuery = TypeVar("AnyQuery", bound=Query)


def parse(model: type[Input], values: Mapping[str, Any]) -> Input:
    """Returns the input as a model. Raises `InvalidChangeError` with a message for each invalid or unknown name."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        fields = model.model_fields
        unknown = f"Unknown {model.kind}. " + (
            f"Known {model.kind}s: {', '.join(fields)}." if fields else f"There are no {model.kind}s here."
        )
        problems: dict[str, str] = {}
        for one in error.errors(include_url=False, include_context=False, include_input=False):
            if not one["loc"]:  # a name that isn't well-formed Unicode has no location
                problems |= dict.fromkeys((name for name in values if name not in fields), unknown)
                continue
            name = str(one["loc"][0])
            expected = f"Must be {fields[name].description}." if name in fields else unknown
            problems[name] = f"Required. {expected}" if one["type"] == "missing" else expected
    raise InvalidChangeError(problems)


def read_query(request: web.Request, model: type[AnyQuery]) -> AnyQuery:
    """Returns the query parameters. Raises `InvalidChangeError` for unknown, repeated and invalid ones."""
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise InvalidChangeError({name: "Given more than once."})
        values[name] = value
    return parse(model, values)


def read_version(request: web.Request) -> int:
    """Returns the version that a change is based on, from If-Match. Raises `RequestError`."""
    given = request.headers.getall("If-Match", [])
    if not given:
        raise RequestError(428, "If-Match is missing. Send the ETag of the room that the change is based on.")
    match = _ETAG.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        form = 'Must be one ETag of the room, such as "7", with the quotes.'
        raise RequestError(400, f"If-Match: {form}", {"If-Match": form})
    return int(match[1])


async def read_json(request: web.Request) -> dict[str, Any]:
    """Returns the JSON object in a request's body. Raises `RequestError`."""
    if request.content_type != "application/json":
        raise RequestError(415, "Send JSON, with Content-Type: application/json.")
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        # Not by pydantic, which accepts NaN and takes the last of several equal names.
        read = json.loads(body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"The body is not valid JSON: {error}.") from error
    if not isinstance(read, dict):
        raise RequestError(400, "The body must be a JSON object.")
    return read


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"duplicate name {json.dumps(name[:50])}")
        found[name] = value
    return found
