"""The fields of a room's hash: their names, their formats, and who changes them.

`FIELDS` is the only list of them. The store, the view, the scripts' prelude, the admin API, the commands and the
dashboard's form are built from it. Bounds and units are those of the setting of the same name. Only code with a rule
about a field names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:  # `waitroom --version` imports this module, and the settings take most of a command's start
    from waitroom.settings import RoomSettings
    from waitroom.settings.schema import Key

Method = Literal["fifo", "passthrough", "reject"]
Source = Literal["file", "operator", "shop"]


@dataclass(frozen=True, slots=True)
class Format:
    """How values are written in the store.

    Attributes:
        to_text, from_text: The conversions from a value to its text and back.
        number: Whether the text is a number.
    """

    to_text: Callable[[Any], str]
    from_text: Callable[[str], Any]
    number: bool = True


NUMBER: Final = Format(lambda value: repr(float(value)), float)
WHOLE: Final = Format(str, int)
SECONDS: Final = Format(lambda value: str(round(value * 1000)), lambda text: int(text) / 1000)
TEXT: Final = Format(str, str, number=False)
FLAG: Final = Format(lambda value: "1" if value else "", lambda text: text == "1", number=False)
# True, False or None: as the settings file says.
SWITCH: Final = Format({True: "on", False: "off", None: ""}.__getitem__, {"on": True, "off": False}.get, number=False)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a room's hash.

    Attributes:
        stored: Its name in the hash, and in the scripts.
        name: Its name everywhere else: in the settings, the API, the commands, the webhooks and the audit log.
        format: How its value is written.
        changed_by: The actor that changes it besides the scripts themselves.
        initial: Its text in a new room; None if the settings file or the clock provides it.
        in_scripts: Whether every script reads it.
        label: Its name on the dashboard's form.
    """

    stored: str
    name: str
    format: Format
    changed_by: tuple[Source, ...] = ()
    initial: str | None = None
    in_scripts: bool = True
    label: str = ""

    @property
    def setting(self) -> Key:
        """The setting of the same name: its bounds and unit. Raises `KeyError` if there is none."""
        from waitroom.settings import RoomSettings
        from waitroom.settings.schema import keys_of

        return keys_of(RoomSettings)[self.name]

    def problem(self, number: float) -> str:
        """Returns the problem with a number that an operator wants to set, or ""."""
        key = self.setting
        assert key.least is not None
        assert key.most is not None
        enough = number > key.least if key.least_excluded else number >= key.least
        if enough and number <= key.most:
            return ""
        bounds = f"above {key.least:,} and at most" if key.least_excluded else f"from {key.least:,} to"
        return f"Must be {bounds} {key.most:,} {key.about.unit}."


RATE: Final = Field("rate", "rate_per_minute", NUMBER, ("file", "operator"), label="Rate")
MAX_ACTIVE: Final = Field("max_active", "max_active", WHOLE, ("file", "operator"), label="Max active")
METHOD: Final = Field("method", "method", TEXT, ("file",))
STATE: Final = Field("state", "state", TEXT, ("operator", "shop"), "open")
MESSAGE: Final = Field("message", "message", TEXT, ("operator", "shop"), "", in_scripts=False)
REMAINING: Final = Field("remaining", "remaining", TEXT, ("shop",), "")
DRAINING: Final = Field("draining", "draining", FLAG, ("operator",), in_scripts=False)
AUTOPILOT: Final = Field("autopilot", "autopilot", SWITCH, ("operator",), in_scripts=False)

# The version of the data's format, see `waitroom.queue.constants.SCHEMA`.
SCHEMA_VERSION: Final = Field("schema", "schema", WHOLE)

FIELDS: Final[tuple[Field, ...]] = (
    RATE,
    MAX_ACTIVE,
    Field("session_ms", "session_seconds", SECONDS, ("file",)),
    Field("claim_ms", "claim_seconds", SECONDS, ("file",)),
    Field("away_ms", "away_after_seconds", SECONDS, ("file",)),
    Field("keep_ms", "keep_place_seconds", SECONDS, ("file",)),
    METHOD,
    Field("told_ms", "claim_after_told_seconds", SECONDS, ("file",)),
    Field("session_max_ms", "session_max_seconds", SECONDS, ("file",)),
    Field("recovery_ms", "recovery_seconds", SECONDS, ("file",)),
    STATE,
    MESSAGE,
    REMAINING,
    DRAINING,
    AUTOPILOT,
    Field("version", "version", WHOLE, (), "0", in_scripts=False),
    SCHEMA_VERSION,
    # The clocks: the room's, the wall clock when it was last read, and the time in which no turn could be claimed.
    Field("clock", "clock", WHOLE),
    Field("wall", "wall", WHOLE),
    Field("blocked_ms", "blocked_ms", WHOLE, (), "0"),
    # Places: the last one issued, the last one called or skipped, and the generation that issues them.
    Field("seq", "seq", WHOLE, (), "0"),
    Field("head", "head", WHOLE, (), "0"),
    Field("generation", "generation", WHOLE, (), "0"),
    Field("base", "base", WHOLE, (), "0"),
    Field("run_id", "run_id", TEXT, (), ""),
    # Events: the current one, what it does to the room, and when its next phase begins (the wall clock, 0 for never).
    Field("event", "event", TEXT, (), ""),
    Field("event_phase", "event_phase", TEXT, (), ""),
    Field("event_before", "event_before", TEXT, (), ""),
    Field("event_due", "event_due", WHOLE, (), "0"),
    Field("draws", "draws", TEXT, (), ""),
    # Places up to it aren't restored after a loss; the newest place when the last event ended.
    Field("void_place", "void_place", WHOLE, (), "0"),
    Field("ended_place", "ended_place", WHOLE, (), "0"),
    # The cause of the state, if no person or shop has set it: `stock` or `schedule`; the state before the stock did.
    Field("state_by", "state_by", TEXT, (), ""),
    Field("state_before", "state_before", TEXT, (), ""),
    # Stock: when the zero was read from the shop, by the wall clock, as for all reports; when units came back, by the
    # room's clock, and the units sold and visitors admitted by then. 0 for never.
    Field("stock_zero_at", "stock_zero_at", WHOLE, (), "0"),
    Field("reopened_at", "reopened_at", WHOLE, (), "0"),
    Field("reopened_sold", "reopened_sold", WHOLE, (), "0"),
    Field("reopened_admitted", "reopened_admitted", WHOLE, (), "0"),
    # When the stock began and when its newest report was read; the totals when it began: units sold, sessions ended.
    Field("stock_began_at", "stock_began_at", WHOLE, in_scripts=False),
    Field("stock_read_at", "stock_read_at", WHOLE, in_scripts=False),
    Field("stock_began_sold", "stock_began_sold", WHOLE, in_scripts=False),
    Field("stock_began_ended", "stock_began_ended", WHOLE, in_scripts=False),
    # Loss of data: how often visitors were moved, which keys exist, and when a recovery ends (0 for none).
    Field("changes", "changes", WHOLE, (), "0"),
    Field("key_stamp", "key_stamp", WHOLE),
    Field("resume_at", "resume_at", WHOLE, (), "0"),
    # Rate and throughput.
    Field("tokens", "tokens", NUMBER, (), "1"),
    Field("freed", "freed", WHOLE, (), "0"),
    Field("pace_clock", "pace_clock", WHOLE),
    Field("pace_freed", "pace_freed", NUMBER, (), "0"),
    Field("pace_slot_ms", "pace_slot_ms", NUMBER, (), "0"),
    Field("pace_since_ms", "pace_since_ms", NUMBER, (), "0"),
    Field("pace_told", "pace_told", NUMBER, (), "0"),
    Field("pace_called", "pace_called", NUMBER, (), "0"),
    Field("pace_met", "pace_met", NUMBER, (), "0"),
)

_BY_STORED = {field.stored: field for field in FIELDS}
LIMITS: Final = tuple(field for field in FIELDS if "file" in field.changed_by)
"""The fields that a settings file sets; see `Limits`."""
EVENT_LIMITS: Final = tuple(field for field in LIMITS if field.format.number)
"""The limits that an event may override, besides ``autopilot``."""
OPERATOR_FIELDS: Final = tuple(field for field in FIELDS if "operator" in field.changed_by)
"""The fields that operators change while the room is open."""
OPERATOR_NUMBERS: Final = tuple(field for field in OPERATOR_FIELDS if field.format.number)


def to_hash(values: Mapping[str, Any]) -> dict[str, str]:
    """Converts values by public name to fields of the hash."""
    return {field.stored: field.format.to_text(values[field.name]) for field in FIELDS if field.name in values}


def from_hash(fields: Mapping[str, str]) -> dict[str, Any]:
    """Converts fields of the hash to the names and types used everywhere else; those of a newer version stay texts."""
    known = {name: _BY_STORED.get(name) for name in fields}
    return {
        name if field is None else field.name: fields[name] if field is None else field.format.from_text(fields[name])
        for name, field in known.items()
    }


@dataclass(frozen=True, slots=True)
class Limits:
    """A room's limits as the scripts use them. Rates are per minute, times in seconds."""

    rate_per_minute: float
    max_active: int
    session_seconds: float
    claim_seconds: float
    away_after_seconds: float
    keep_place_seconds: float
    method: Method = "fifo"
    claim_after_told_seconds: float = 90
    session_max_seconds: float = 14_400
    recovery_seconds: float = 30

    def fields(self) -> dict[str, str]:
        """The limits under the names and in the units of the room's hash (milliseconds)."""
        return to_hash({field.name: getattr(self, field.name) for field in LIMITS})


def limits_of(settings: RoomSettings) -> Limits:
    """The limits in a room's settings."""
    return Limits(**{field.name: getattr(settings, field.name) for field in LIMITS})
