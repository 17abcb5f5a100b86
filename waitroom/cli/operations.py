"""The commands that change a running room. Each is based on the state shown, and rejected if that has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from waitroom.cli import assignments
from waitroom.cli.api_client import AdminClient, ApiResponse, NoResponseError
from waitroom.cli.api_models import Effect, Room, Span
from waitroom.cli.console import CommandError, ConfigFile, ExitCode, is_interactive, print_line
from waitroom.cli.formatting import describe_change, format_number, format_wait
from waitroom.cli.gateway import AdminUrl, Note, RoomName, TokenFile, Yes, explain_unknown_room, gateway
from waitroom.queue.fields import OPERATOR_NUMBERS

REFRESH_SECONDS = 1.0

DryRun = Annotated[bool, typer.Option("--dry-run", help="Preview the change without making it.")]
Message = Annotated[
    str | None, typer.Option("--message", help='Message for waiting visitors; "" clears it.', metavar="TEXT")
]


def set_(
    room: RoomName,
    values: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE", help=f"{', '.join(assignments.SETTABLE)}."),
    ],
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Change a running room, such as rate_per_minute=600.

    Also rate_per_minute=auto and autopilot=on|off. All values are changed in one step.
    """
    change = assignments.parse(values)
    apply_change(gateway(config, admin, token_file), room, change, note=note, dry_run=dry_run, yes=yes)


def pause(
    room: RoomName,
    message: Message = None,
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Stop admission until the room is resumed.

    The queue stays as it is, and visitors in the shop are not affected.
    """
    change = _with_message({"state": "paused"}, message)
    apply_change(gateway(config, admin, token_file), room, change, note=note, dry_run=dry_run, yes=yes)


def resume(
    room: RoomName,
    message: Message = None,
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Open a room that is paused, draining, closed or sold out.

    A message for waiting visitors stays unless --message replaces it.
    """
    change = _with_message({"state": "open"}, message)
    after = apply_change(gateway(config, admin, token_file), room, change, note=note, dry_run=dry_run, yes=yes)
    if after is not None and after.message and message is None:
        print_line(
            f'Message still shown to waiting visitors: {after.message} (to clear it: waitroom message {room} "")'
        )


def close(
    room: RoomName,
    message: Message = None,
    sold_out: Annotated[bool, typer.Option("--sold-out", help="Mark the room as sold out.")] = False,
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Close a room, or mark it as sold out.

    Waiting visitors see it, and nobody is admitted. Visitors in the shop are not affected.
    """
    change = _with_message({"state": "sold_out" if sold_out else "closed"}, message)

    def question(seen: Room) -> str:
        state = "sold out" if sold_out else "closed"
        return (
            f"Stop admission to {room}, and show its {format_number(seen.waiting)} waiting visitors that it is {state}?"
        )

    client = gateway(config, admin, token_file)
    apply_change(client, room, change, note=note, dry_run=dry_run, yes=yes, question=question)


def message_(
    room: RoomName,
    text: Annotated[str, typer.Argument(metavar="TEXT", help='The message; "" clears it.')],
    note: Note = "",
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Show a message to waiting visitors."""
    client = gateway(config, admin, token_file)
    apply_change(client, room, {"message": text}, note=note, dry_run=False, yes=True)


def drain(
    room: RoomName,
    wait_: Annotated[bool, typer.Option("--wait", help="Wait until the last visitor has left the shop.")] = False,
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Stop admission and let visitors in the shop finish.

    `waitroom resume` cancels it.
    """
    client = gateway(config, admin, token_file)

    def question(seen: Room) -> str:
        return f"Stop admission to {room}, and let its {format_number(seen.active)} active visitors finish?"

    after = apply_change(client, room, {"draining": True}, note=note, dry_run=dry_run, yes=yes, question=question)
    if wait_ and after is not None:
        wait_until_empty(client, after, time.sleep)


def undo(
    room: RoomName,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Undo an operator's last change."""
    client = gateway(config, admin, token_file)
    seen = _current_room(client, room)
    last, undone = seen.value.last_change, seen.value.undo
    if undone is None:
        why = "nothing was changed" if last is None else f"the last change can't be undone: {describe_change(last)}"
        raise CommandError(ExitCode.FAILURE, "Nothing to undo", why)
    print_line(f"Undoing: {describe_change(undone)}")
    confirm(f"Undo this change of {room}?", yes=yes)
    _print_result(seen.value, client.undo(room, note, seen.tag).value)


def admit(
    room: RoomName,
    ticket: Annotated[str, typer.Argument(metavar="TICKET", help="The ticket, or its number.")],
    note: Note = "",
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Call one visitor ahead of the queue.

    Rejected while the room is full.
    """
    client = gateway(config, admin, token_file)
    with explain_unknown_room(client, room):
        client.admit(room, ticket, note)
    print_line("Done: the visitor is called, and a slot is reserved.")


def end_session(
    room: RoomName,
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help="The session as the shop receives it, in Waitroom-Session.")
    ],
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """End one visitor's session in the shop.

    The slot goes to the next visitor.
    """
    client = gateway(config, admin, token_file)
    confirm(f"End session {session} in {room}, even if its visitor is active?", yes=yes)
    with explain_unknown_room(client, room):
        client.end_session(room, session, note)
    print_line(f"Done: session {session} has ended.")


def apply_change(
    client: AdminClient,
    name: str,
    change: Mapping[str, object],
    *,
    note: str,
    dry_run: bool,
    yes: bool,
    question: Callable[[Room], str] | None = None,
) -> Room | None:
    """Previews a change, asks for confirmation if required, and applies it to the version that was shown.

    Args:
        client: The gateway's client.
        name: The room's name.
        change: The change, in the API's format.
        note: The reason.
        dry_run: Only preview the change.
        yes: Don't ask.
        question: The confirmation to ask in any case. Without it, only the gateway's warnings are confirmed.

    Returns:
        The room after the change; None after a dry run.
    """
    seen = _current_room(client, name)
    warned = False
    if change.keys() != {"message"}:  # which doesn't affect any wait
        preview = client.preview(name, change, seen.tag).value.effect
        print_preview(preview)
        warned = bool(preview.warnings)
    if dry_run:
        print_line("Dry run: nothing was changed.")
        return None
    if question is not None or warned:
        confirm(question(seen.value) if question is not None else f"Change {name} anyway?", yes=yes)
    after = client.change(name, {**change, **({"note": note} if note else {})}, seen.tag).value
    _print_result(seen.value, after)
    return after


def wait_until_empty(client: AdminClient, room: Room, pause: Callable[[float], None]) -> None:
    """Waits until no visitor is active; reports each decrease, and ends early if the room is reopened."""
    reported = -1
    lost = False
    seen = room
    while seen.active + seen.called:
        if seen.active + seen.called != reported:
            reported = seen.active + seen.called
            print_line(f"{format_number(reported)} active or called")
        pause(REFRESH_SECONDS)
        try:
            newest = client.room(room.name).value
        except NoResponseError as error:
            if not lost:
                print_line(f"No response, still waiting: {error}")
            lost = True
            continue
        lost = False
        if (newest.version or 0) < (room.version or 0):
            continue  # a view from before the change
        seen = newest
        if not seen.draining:
            who = "" if seen.last_change is None else describe_change(seen.last_change)
            raise CommandError(
                ExitCode.CONFLICT, f"{room.name} is no longer draining", who or "somebody cancelled the drain"
            )
    print_line(f"{room.name} is empty.")


def _current_room(client: AdminClient, name: str) -> ApiResponse[Room]:
    with explain_unknown_room(client, name):
        seen = client.room(name)
    if seen.value.state is None or not seen.tag:
        raise CommandError(
            ExitCode.UNAVAILABLE, "Room not available", f"the gateway has not read {name} from its store yet"
        )
    return seen


def confirm(question: str, *, yes: bool) -> None:
    """Asks the user. Without a terminal, the command itself is the confirmation."""
    if not yes and is_interactive() and not typer.confirm(question):
        raise CommandError(ExitCode.FAILURE, "Cancelled", "nothing was changed")


def print_preview(preview: Effect) -> None:
    """Prints the effect of a change."""
    print_line(preview.summary)
    for who, label in (("newcomer", "newcomers"), ("middle", "the middle of the queue")):
        now, after = preview.now.get(who), preview.after.get(who)
        if now != after:
            print_line(f"  wait of {label}: {_wait(now)} -> {_wait(after)}")
    for warning in preview.warnings:
        print_line(f"  Warning: {warning}")


def _wait(span: Span | None) -> str:
    return "unknown" if span is None else format_wait(span)


def _print_result(before: Room, after: Room) -> None:
    was, now = _settings_of(before), _settings_of(after)
    changed = [f"{name} {was[name]} -> {now[name]}" for name in now if was[name] != now[name]]
    print_line(f"Done: {', '.join(changed)}." if changed else "Done: no change was needed.")


def _settings_of(room: Room) -> dict[str, str]:
    return {
        "state": room.state or "unknown",
        "draining": "yes" if room.draining else "no",
        **{field.name: format_number(getattr(room, field.name)) for field in OPERATOR_NUMBERS},
        "autopilot": "on" if room.autopilot is not None and room.autopilot.on else "off",
        "message": room.message or "(none)",
    }


def _with_message(change: dict[str, object], message: str | None) -> dict[str, object]:
    return change if message is None else {**change, "message": message}
