"""What all commands share: where they print, how they end, and the settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.markup import escape

from waitroom.errors import SettingsError

if TYPE_CHECKING:
    from waitroom.settings import Settings

TOKEN_VARIABLE = "WAITROOM_TOKEN"  # noqa: S105 - a name
# No terminal, no lines to break: whoever reads a pipe wants each row in one.
PIPE_COLUMNS = 1000

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file (TOML); see config/waitroom.toml.", metavar="FILE")
]


class Code(IntEnum):
    """How a command ends.

    Attributes:
        DONE: It did what it was asked to.
        NOT_DONE: It could not, or should not, and changed nothing; or what it looked at isn't as it should be.
        BAD_USE: Something that was given can't be used: settings, names, values.
        NO_ANSWER: It can't start, or no gateway answers, or its store doesn't.
        NOT_ALLOWED: The gateway asks who is there, or doesn't let this one do it.
        CHANGED_MEANWHILE: Somebody else changed the room in between; nothing was changed by this one.
    """

    DONE = 0
    NOT_DONE = 1
    BAD_USE = 2
    NO_ANSWER = 3
    NOT_ALLOWED = 4
    CHANGED_MEANWHILE = 5


class End(Exception):  # noqa: N818 - how a command ends, not a mistake of ours
    """Ends a command with a reason for whoever typed it: what didn't work, and in a sentence why."""

    def __init__(self, code: Code, what: str, why: str) -> None:
        self.code = code
        self.what = what
        self.why = why
        super().__init__(f"{what}: {why}")


def load(config: Path | None, overrides: Mapping[str, object], *, pages: bool = False) -> Settings:
    """The settings, or an end with all that is wrong with them. ``pages``: operators' templates are tried out, too."""
    from waitroom.settings import load_settings

    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    try:
        settings = load_settings(config, environment, overrides)
        if pages:
            from waitroom.edge.pages.renderer import Pages

            Pages(settings.rooms)
    except SettingsError as error:
        err.print("[bold red]The settings can't be used:[/bold red]")
        for problem in error.problems:
            err.print(f"  {escape(str(problem))}", soft_wrap=True)
        raise typer.Exit(Code.BAD_USE) from None
    return settings


def reachable(address: str) -> str:
    """The address as one types it into a browser on this machine."""
    host, _, port = address.rpartition(":")
    anywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104 - compared, not bound
    return f"{anywhere.get(host, host)}:{port}"


def plain(text: object) -> str:
    """Text from elsewhere as one line, without what a terminal would obey: a name in the audit may be anybody's."""
    letters = (" " if letter.isspace() else letter for letter in str(text))
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in letters)


def show(what: RenderableType) -> None:
    """Prints a table or text; as wide as it likes where it goes to a pipe."""
    console = out if out.is_terminal else Console(file=out.file, highlight=False, width=PIPE_COLUMNS)
    console.print(what)


def say(text: str) -> None:
    """Prints a sentence with no markup in it, whoever wrote it."""
    out.print(escape(plain(text)), soft_wrap=True)


def complain(what: str, why: str) -> None:
    """Says on standard error what went wrong."""
    err.print(f"[bold red]{escape(plain(what))}:[/bold red] {escape(plain(why))}", soft_wrap=True)


def at_a_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stdout.isatty()
