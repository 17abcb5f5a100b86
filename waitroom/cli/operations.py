"""The commands that change a running room. Each is based on the state shown, and rejected if that has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from waitroom.cli import assignments
from waitroom.cli.api_client import AdminClient, Answer, NoAnswer
from waitroom.cli.api_models import Effect, Room, Span
from waitroom.cli.console import Code, ConfigFile, End, at_a_terminal, say
from waitroom.cli.formatting import change_words, number, wait
from waitroom.cli.gateway import AdminUrl, Note, RoomName, TokenFile, Yes, gateway, room_known

EVERY_SECONDS = 1.0

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and change nothing.")]
Message = Annotated[
    str | None, typer.Option("--message", help='Tell this to those who wait; "" takes it away.', metavar="TEXT")
]


def set_(
    room: RoomName,
    values: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE", help="rate_per_minute (a number, or auto), max_active, autopilot."),
    ],
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Change a running room: rate_per_minute=600.

    Also max_active=800, rate_per_minute=auto and autopilot=on|off; several at once are changed together.
    """
    change = assignments.parse(values)
    carry_out(gateway(config, admin, token_file), room, change, note=note, dry_run=dry_run, yes=yes)


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
    """Let nobody new in until it is resumed.

    The line stays as it is, and who is inside goes on.
    """
    change = _with_message({"state": "paused"}, message)
    carry_out(gateway(config, admin, token_file), room, change, note=note, dry_run=dry_run, yes=yes)


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
    """Open a room again.

    Whether it was paused, draining, closed or sold out.
    """
    change = _with_message({"state": "open"}, message)
    after = carry_out(gateway(config, admin, token_file), room, change, note=note, dry_run=dry_run, yes=yes)
    if after is not None and after.message and message is None:
        say(f'The waiting are still told: {after.message} (waitroom message {room} "" takes it away)')


def close(
    room: RoomName,
    message: Message = None,
    sold_out: Annotated[bool, typer.Option("--sold-out", help="Say that everything is sold.")] = False,
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Close a room, or say that it is sold out.

    Those who wait are told so, and nobody new is let in; who is inside goes on.
    """
    change = _with_message({"state": "sold_out" if sold_out else "closed"}, message)

    def question(seen: Room) -> str:
        told = "everything is sold" if sold_out else "it is closed"
        return f"Tell {number(seen.waiting)} waiting in {room} that {told}, and let nobody new in?"

    client = gateway(config, admin, token_file)
    carry_out(client, room, change, note=note, dry_run=dry_run, yes=yes, question=question)


def message_(
    room: RoomName,
    text: Annotated[str, typer.Argument(metavar="TEXT", help='What to tell them; "" takes it away.')],
    note: Note = "",
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Tell something to those who wait."""
    client = gateway(config, admin, token_file)
    carry_out(client, room, {"message": text}, note=note, dry_run=False, yes=True)


def drain(
    room: RoomName,
    wait_: Annotated[bool, typer.Option("--wait", help="Wait until the last one inside has left.")] = False,
    dry_run: DryRun = False,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Let nobody new in, and those inside finish.

    `waitroom resume` takes it back.
    """
    client = gateway(config, admin, token_file)

    def question(seen: Room) -> str:
        return f"Let nobody new into {room}, and the {number(seen.active)} inside finish?"

    after = carry_out(client, room, {"draining": True}, note=note, dry_run=dry_run, yes=yes, question=question)
    if wait_ and after is not None:
        until_empty(client, after, time.sleep)


def undo(
    room: RoomName,
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Take an operator's last change back."""
    client = gateway(config, admin, token_file)
    seen = _seen(client, room)
    last, undone = seen.value.last_change, seen.value.undo
    if undone is None:
        why = "nothing was changed" if last is None else f"the last change can't be taken back: {change_words(last)}"
        raise End(Code.NOT_DONE, "Nothing to undo", why)
    say(f"Taking back: {change_words(undone)}")
    _ask(f"Take that back in {room}?", yes=yes)
    _tell_done(seen.value, client.undo(room, note, seen.tag).value)


def admit(
    room: RoomName,
    ticket: Annotated[str, typer.Argument(metavar="TICKET", help="The ticket as its holder has it, or its number.")],
    note: Note = "",
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Call one visitor ahead of the line.

    Refused while the room is full.
    """
    client = gateway(config, admin, token_file)
    with room_known(client, room):
        client.admit(room, ticket, note)
    say("Done: called; a slot is kept for them now.")


def end_session(
    room: RoomName,
    session: Annotated[str, typer.Argument(metavar="SESSION", help="As the shop has it: Waitroom-Session.")],
    note: Note = "",
    yes: Yes = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """End one visitor's session in the shop.

    The slot goes to the next in line.
    """
    client = gateway(config, admin, token_file)
    _ask(f"End session {session} in {room}, whatever its visitor is doing?", yes=yes)
    with room_known(client, room):
        client.end_session(room, session, note)
    say(f"Done: session {session} is over.")


def carry_out(
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
    seen = _seen(client, name)
    warned = False
    if change.keys() != {"message"}:  # which doesn't affect any wait
        effect = client.effect(name, change, seen.tag).value.effect
        _tell_effect(effect)
        warned = bool(effect.warnings)
    if dry_run:
        say("A dry run: nothing was changed.")
        return None
    if question is not None or warned:
        _ask(question(seen.value) if question is not None else f"Change {name} all the same?", yes=yes)
    after = client.change(name, {**change, **({"note": note} if note else {})}, seen.tag).value
    _tell_done(seen.value, after)
    return after


def until_empty(client: AdminClient, room: Room, pause: Callable[[float], None]) -> None:
    """Waits until no visitor is active; reports each decrease, and ends early if the room is reopened."""
    told = -1
    lost = False
    seen = room
    while seen.active + seen.called:
        if seen.active + seen.called != told:
            told = seen.active + seen.called
            say(f"{number(told)} inside or called")
        pause(EVERY_SECONDS)
        try:
            newest = client.room(room.name).value
        except NoAnswer as error:
            if not lost:
                say(f"No answer, still waiting: {error}")
            lost = True
            continue
        lost = False
        if (newest.version or 0) < (room.version or 0):
            continue  # a view from before the change
        seen = newest
        if not seen.draining:
            who = "" if seen.last_change is None else change_words(seen.last_change)
            raise End(Code.CHANGED_MEANWHILE, f"{room.name} is not draining any more", who or "somebody took it back")
    say(f"{room.name} is empty.")


def _seen(client: AdminClient, name: str) -> Answer[Room]:
    with room_known(client, name):
        seen = client.room(name)
    if seen.value.state is None or not seen.tag:
        raise End(Code.NO_ANSWER, "Not now", f"the gateway has not seen {name} in its store yet")
    return seen


def _ask(question: str, *, yes: bool) -> None:
    """Asks the user. Without a terminal, the command itself is the confirmation."""
    if not yes and at_a_terminal() and not typer.confirm(question):
        raise End(Code.NOT_DONE, "Not done", "nothing was changed")


def _tell_effect(effect: Effect) -> None:
    say(effect.summary)
    for who, label in (("newcomer", "newcomers"), ("middle", "the middle of the line")):
        now, after = effect.now.get(who), effect.after.get(who)
        if now != after:
            say(f"  the wait of {label}: {_wait(now)} now, {_wait(after)} then")
    for warning in effect.warnings:
        say(f"  Beware: {warning}")


def _wait(span: Span | None) -> str:
    return "not to be told" if span is None else wait(span)


def _tell_done(before: Room, after: Room) -> None:
    was, now = _shown(before), _shown(after)
    changed = [f"{name} {was[name]} -> {now[name]}" for name in now if was[name] != now[name]]
    say(f"Done: {', '.join(changed)}." if changed else "Done: it was so already.")


def _shown(room: Room) -> dict[str, str]:
    return {
        "state": room.state or "unknown",
        "draining": "yes" if room.draining else "no",
        "rate_per_minute": number(room.rate_per_minute),
        "max_active": number(room.max_active),
        "autopilot": "on" if room.autopilot is not None and room.autopilot.on else "off",
        "message": room.message or "(none)",
    }


def _with_message(change: dict[str, object], message: str | None) -> dict[str, object]:
    return change if message is None else {**change, "message": message}
