"""``waitroom events`` and ``waitroom event``: the scheduled events of a room, and changes to them.

Each change is based on the state shown, and rejected if that has changed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from waitroom.cli import event_assignments
from waitroom.cli.api_client import AdminClient, ApiResponse
from waitroom.cli.api_models import Event, Events, Segment
from waitroom.cli.console import CommandError, ConfigFile, ExitCode, out, print_line, print_renderable, sanitize
from waitroom.cli.event_report import report
from waitroom.cli.formatting import UNKNOWN, format_number, format_time, next_step
from waitroom.cli.gateway import AdminUrl, AsJson, Note, RoomName, TokenFile, Yes, explain_unknown_room, gateway
from waitroom.cli.operations import DryRun, confirm, print_preview
from waitroom.settings.sources import closest_match

TIME = "%Y-%m-%d %H:%M %Z"

EventName = Annotated[str, typer.Argument(metavar="EVENT", help="The event's name.")]

event_app = typer.Typer(
    name="event",
    help="Schedule, change, start, end, cancel or report an event.",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)
event_app.command("report")(report)


def events(
    room: RoomName,
    as_json: AsJson = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Show a room's scheduled events and its timeline."""
    found = _current_events(gateway(config, admin, token_file), room)
    if as_json:
        out.print_json(data=found.raw, ensure_ascii=True)
        return
    if not found.value.events:
        print_line(f"{room} has no events.")
        return
    print_renderable(_events_table(found.value, time.time()))
    if found.value.timeline:
        print_line("")
        print_renderable(_timeline_table(found.value))


@event_app.command("set")
def set_(
    room: RoomName,
    event: EventName,
    values: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE", help=f"{', '.join(event_assignments.SETTABLE)}.")
    ],
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Schedule an event, or change one, such as end=2026-12-12T14:00:00+07:00.

    Values that aren't given stay; none removes one.
    """
    change = event_assignments.parse(values)
    client = gateway(config, admin, token_file)
    seen = _current_events(client, room)
    before = seen.value.find(event)
    if _preview(client, room, event, "", change, seen.tag, dry_run=dry_run):
        confirm(f"{'Schedule' if before is None else 'Change'} {event} anyway?", yes=yes)
    if not dry_run:
        _print_result(before, client.set_event(room, event, change, note, seen.tag).value)


@event_app.command("start")
def start(
    room: RoomName,
    event: EventName,
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Start an event now."""
    client = gateway(config, admin, token_file)
    _move(client, room, event, "start", f"Start {event} in {room} now?", dry_run=dry_run, note=note, yes=yes)


@event_app.command("end")
def end(
    room: RoomName,
    event: EventName,
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """End the running event now.

    Visitors in the shop are not affected.
    """
    client = gateway(config, admin, token_file)
    _move(client, room, event, "end", f"End {event} in {room} now?", dry_run=dry_run, note=note, yes=yes)


@event_app.command("cancel")
def cancel(
    room: RoomName,
    event: EventName,
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Cancel an event that hasn't started.

    If the event keeps the room closed, the room stays closed until you resume it.
    """
    client = gateway(config, admin, token_file)
    _move(client, room, event, "cancel", f"Cancel {event} in {room}?", dry_run=dry_run, note=note, yes=yes)


def _move(
    client: AdminClient, room: str, name: str, move: str, question: str, *, dry_run: bool, note: str, yes: bool
) -> None:
    """Previews a start, an end or a cancellation, asks for confirmation, and applies it to the version shown."""
    seen = _current_events(client, room)
    before = seen.value.find(name)
    if before is None:
        raise CommandError(ExitCode.INVALID_INPUT, f"Unknown event {name}", _other_events(name, seen.value))
    _preview(client, room, name, move, {}, seen.tag, dry_run=dry_run)
    if not dry_run:
        confirm(question, yes=yes)
        _print_result(before, client.move_event(room, name, move, note, seen.tag).value)


def _preview(
    client: AdminClient, room: str, event: str, move: str, values: Mapping[str, object], tag: str, *, dry_run: bool
) -> bool:
    """Prints the effect of a change; returns whether to confirm its warnings."""
    effect = client.preview_event(room, event, move, values, tag).value.effect
    print_preview(effect)
    if dry_run:
        print_line("Dry run: nothing was changed.")
    return bool(effect.warnings) and not dry_run


def _current_events(client: AdminClient, room: str) -> ApiResponse[Events]:
    with explain_unknown_room(client, room):
        return client.events(room)


def _other_events(name: str, found: Events) -> str:
    names = [event.name for event in found.events]
    if not names:
        return "the room has no events"
    meant = closest_match(name, names)
    return f"did you mean {meant}?" if meant else f"choose from {', '.join(names)}"


# Tables.


def _events_table(found: Events, now: float) -> Table:
    table = Table(
        *("event", "title", "phase", "prequeue", "start", "end", "next", "units", "limits", "source"), box=None
    )
    for event in found.events:
        cells = (
            *(event.name, event.title or UNKNOWN, "cancelled" if event.cancelled else event.phase),
            *(format_time(at, TIME) for at in (event.prequeue_start, event.start, event.end)),
            *(_next_step(event, now), format_number(event.units), _limits(event.limits), event.source),
        )
        table.add_row(*(Text(sanitize(cell)) for cell in cells))
    return table


def _timeline_table(found: Events) -> Table:
    """The timeline; limits are those in force, inherited ones included."""
    table = Table("until", "event", "phase", "state", "rate/min", "max active", box=None)
    for segment in found.timeline:
        cells = (
            *(format_time(segment.to, TIME), segment.event or UNKNOWN, segment.phase),
            *(segment.state.replace("_", " "), _limit(segment, "rate_per_minute"), _limit(segment, "max_active")),
        )
        table.add_row(*(Text(sanitize(cell)) for cell in cells))
    return table


def _next_step(event: Event, now: float) -> str:
    step = next_step(event, now)
    return UNKNOWN if step is None else step[0]


def _limits(limits: Mapping[str, float | str]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in limits.items()) or UNKNOWN


def _limit(segment: Segment, name: str) -> str:
    return _value(segment.limits.get(name))


def _value(value: float | str | None) -> str:
    return value if isinstance(value, str) else format_number(value)


def _print_result(before: Event | None, after: Event) -> None:
    if before is None:
        print_line(f"Done: {after.name} is scheduled for {format_time(after.start, TIME)}.")
        return
    was, now = _described(before), _described(after)
    changed = [f"{name} {was[name]} -> {now[name]}" for name in now if was[name] != now[name]]
    print_line(f"Done: {', '.join(changed)}." if changed else "Done: no change was needed.")


def _described(event: Event) -> dict[str, str]:
    return {
        "phase": "cancelled" if event.cancelled else event.phase,
        "title": event.title or UNKNOWN,
        **{name: format_time(getattr(event, name), TIME) for name in ("prequeue_start", "start", "end")},
        **{name: getattr(event, name) for name in ("method", "before", "after")},
        "units": format_number(event.units),
        "limits": _limits(event.limits),
    }
