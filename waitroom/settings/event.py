"""The settings of one event, a scheduled sale: every key, its type, default, bounds and description; see `settings`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from waitroom.settings import bounds, validators
from waitroom.settings.schema import CONFIG, About, StrictBool, StrictFloat, StrictInt, StrictStr

MAX_EVENTS: Final = 64
MAX_TITLE_LENGTH: Final = 100
MAX_UNITS: Final = 1_000_000_000

# RFC 3339, as in TOML.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?")
_TIME_EXAMPLE = "2026-12-12T11:00:00+07:00"
_FIRST_YEAR, _LAST_YEAR = 2000, 2999


def event_name(value: str) -> str:
    """Refuse a name that can't be part of a URL or a command as it is."""
    if not validators.NAME.fullmatch(value):
        raise validators.invalid_value(
            f'invalid name "{value}": it becomes part of URLs and commands.',
            "Use 1 to 32 of a-z, 0-9, _ and -, beginning with a letter or digit.",
        )
    return value


def event_title(value: str) -> str:
    """Return a title without blanks around it; refuse one that pages have no room for."""
    title = value.strip()
    if len(title) > MAX_TITLE_LENGTH:
        raise validators.invalid_value(
            f"has {len(title)} characters.", f"Use at most {MAX_TITLE_LENGTH}: waiting pages show it in one line."
        )
    if not title.isprintable():
        raise validators.invalid_value("contains a control character.", "Write it in one line.")
    return title


def event_time(value: object) -> datetime:
    """Return a time with its zone; a text must be in the form of RFC 3339. Refuse a time without a zone."""
    if isinstance(value, str):
        if not _TIME.fullmatch(value):
            raise validators.invalid_value(f'invalid time "{value}".', f"Write it as {_TIME_EXAMPLE}.")
        try:
            value = datetime.fromisoformat(value.upper())
        except ValueError as error:
            raise validators.invalid_value(
                f'invalid time "{value}": {error}.', f"For example: {_TIME_EXAMPLE}."
            ) from None
    if not isinstance(value, datetime):
        raise validators.invalid_value("must be a date and a time.", f"For example: {_TIME_EXAMPLE}, without quotes.")
    if value.tzinfo is None:
        raise validators.invalid_value(
            "has no time zone, so it would begin at another time on another machine.",
            f"Add the offset from UTC: {value.isoformat()}+07:00 for Jakarta, {value.isoformat()}Z for UTC.",
        )
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise validators.invalid_value(
            f"is in the year {value.year}.", f"Write a year from {_FIRST_YEAR} to {_LAST_YEAR}."
        )
    return value


def milliseconds(time: datetime) -> int:
    """Return a time as milliseconds of Unix time."""
    return round(time.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class EventSettings:
    """A scheduled sale of a room: its times, what its queue does before, and the limits that it overrides."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    name: Annotated[
        StrictStr,
        AfterValidator(event_name),
        About(
            "The event's name in commands, URLs and reports: 1 to 32 characters of a-z, 0-9, _ and -, starting with a "
            "letter or digit. Unique within the room.",
            "Use a new name for each sale; reports are kept by name for 90 days.",
            example='"redmi-1s"',
        ),
    ]
    start: Annotated[
        datetime,
        BeforeValidator(event_time),
        About(
            "When the sale starts, with its time zone. Visitors are called from then on.",
            "Write the zone of your customers: check-config and the dashboard show it next to UTC.",
            example=_TIME_EXAMPLE,
        ),
    ]
    title: Annotated[
        StrictStr,
        AfterValidator(event_title),
        About(
            f"The title shown to visitors, at most {MAX_TITLE_LENGTH} characters.",
            "Set it to the words that the campaign uses.",
            example='"Redmi 1s"',
            unset="visitors see no title",
        ),
    ] = ""
    prequeue_start: Annotated[
        datetime | None,
        BeforeValidator(lambda value: None if value is None else event_time(value)),
        About(
            "When the prequeue opens, with its time zone: visitors may join from then on, and nobody is called before "
            "the start. Before start.",
            "Open it 15 to 60 minutes before the start, so that visitors need not arrive in the same second.",
            example="2026-12-12T10:30:00+07:00",
            unset="no prequeue",
        ),
    ] = None
    end: Annotated[
        datetime | None,
        BeforeValidator(lambda value: None if value is None else event_time(value)),
        About(
            "When the sale ends, with its time zone. After start; only the last event of a room may have none.",
            "Set it a little later than the sale is expected to last: limits return to those of the room.",
            example="2026-12-12T13:00:00+07:00",
            unset="an operator ends it",
        ),
    ] = None
    method: Annotated[
        Literal["fifo", "random"],
        About(
            "The order of the prequeue: the order of arrival (fifo), or shuffled at the start (random). Visitors who "
            "come after the start are behind the prequeue.",
            "Use random for sales with many more visitors than units: arriving first gives no advantage.",
        ),
    ] = "fifo"
    before: Annotated[
        Literal["closed", "open"],
        About(
            "The room until the prequeue opens or, without one, until the start: closed with a countdown, or open as "
            "without an event.",
            "Use open if the room covers the whole shop, which sells something else until then.",
        ),
    ] = "closed"
    after: Annotated[
        Literal["open", "closed", "sold_out"],
        About(
            "The room after the end. After closed and sold_out the places of the event are void.",
            "Use closed or sold_out if the room exists only for the sale.",
        ),
    ] = "open"
    units: Annotated[
        StrictInt | None,
        Field(ge=1, le=MAX_UNITS),
        About(
            "The units for sale.",
            "Set it if you know it, so that reports and pages can tell how much is sold and left.",
            "units",
            example="5000",
            unset="unknown",
        ),
    ] = None
    rate_per_minute: Annotated[
        StrictFloat | None,
        bounds.RATE,
        About(
            'The rate while the event runs. It switches the autopilot off for that time; "auto" switches it on.',
            "Set it to the rate that the shop sustained in a load test of the sale.",
            "visitors per minute",
            example="1200",
            unset="the room's",
        ),
    ] = None
    autopilot: Annotated[
        StrictBool | None,
        About(
            "Whether the gateway finds the rate by itself while the event runs, starting with rate_per_minute.",
            'Leave it out and set rate_per_minute, to a number or to "auto".',
            example="true",
            unset="off if the event has a rate_per_minute, else as in the room",
        ),
    ] = None
    max_active: Annotated[
        StrictInt | None,
        bounds.MAX_ACTIVE,
        About(
            "The maximum number of admitted visitors while the event runs.",
            "Set it if the sale loads the shop more or less than usual visits.",
            "visitors",
            example="500",
            unset="the room's",
        ),
    ] = None
    session_seconds: Annotated[
        StrictInt | None,
        bounds.SESSION,
        About(
            "How long an admitted visitor may be idle while the event runs.",
            "Lower it for sales of single products, to free slots sooner.",
            "seconds",
            example="300",
            unset="the room's",
            reason=bounds.SESSION_REASON,
        ),
    ] = None
    session_max_seconds: Annotated[
        StrictInt | None,
        bounds.SESSION_MAX,
        About(
            "The maximum length of a session that starts while the event runs. At least session_seconds.",
            "Lower it to give everybody the same short time.",
            "seconds",
            example="900",
            unset="the room's",
        ),
    ] = None
    claim_seconds: Annotated[
        StrictInt | None,
        bounds.HIDDEN_TAB,
        About(
            "How long a slot is reserved for a called visitor while the event runs.",
            "Lower it for short sales; a reserved slot is empty until then.",
            "seconds",
            example="120",
            unset="the room's",
            reason=bounds.HIDDEN_TAB_REASON,
        ),
    ] = None
    claim_after_told_seconds: Annotated[
        StrictInt | None,
        bounds.HIDDEN_TAB,
        About(
            "How long a slot is reserved for a visitor whose browser or app has been notified of the turn, while the "
            "event runs. At most claim_seconds.",
            "Raise it if visitors need longer to return to the page.",
            "seconds",
            example="90",
            unset="the room's",
            reason=bounds.HIDDEN_TAB_REASON,
        ),
    ] = None
    away_after_seconds: Annotated[
        StrictInt | None,
        bounds.HIDDEN_TAB,
        About(
            "How long a waiting visitor may be silent while the event runs before counting as away.",
            "Raise it if many visitors use phones that sleep.",
            "seconds",
            example="180",
            unset="the room's",
            reason=bounds.HIDDEN_TAB_REASON,
        ),
    ] = None
    keep_place_seconds: Annotated[
        StrictInt | None,
        bounds.KEEP_PLACE,
        About(
            "How long the place of an away visitor is kept while the event runs. At least away_after_seconds.",
            "Raise it for sales that last for hours.",
            "seconds",
            example="1800",
            unset="the room's",
        ),
    ] = None
    recovery_seconds: Annotated[
        StrictInt | None,
        bounds.RECOVERY,
        About(
            "How long nobody is called after the store has lost data while the event runs.",
            "Keep at least 30, the longest interval between two polls of the waiting page.",
            "seconds",
            example="30",
            unset="the room's",
        ),
    ] = None

    @property
    def start_ms(self) -> int:
        """The start, in milliseconds of Unix time."""
        return milliseconds(self.start)

    @property
    def prequeue_ms(self) -> int | None:
        """When the prequeue opens; None without one."""
        return None if self.prequeue_start is None else milliseconds(self.prequeue_start)

    @property
    def end_ms(self) -> int | None:
        """The end; None if an operator ends it."""
        return None if self.end is None else milliseconds(self.end)

    @property
    def opens_ms(self) -> int:
        """When the event first lets visitors join."""
        return self.start_ms if self.prequeue_start is None else milliseconds(self.prequeue_start)
