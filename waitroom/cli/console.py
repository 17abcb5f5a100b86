"""Shared by all commands: output, exit codes and the settings."""

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
# Without a terminal there is no line width: readers of a pipe expect each row on one line.
PIPE_COLUMNS = 1000

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file (TOML); see config/waitroom.toml.", metavar="FILE")
]


class Code(IntEnum):
    """Exit codes.

    Attributes:
        DONE: The command succeeded.
        NOT_DONE: The command failed or was declined, and changed nothing; or a check found a problem.
        BAD_USE: Invalid input: settings, names, values.
        NO_ANSWER: The gateway can't start or doesn't answer, or its store doesn't.
        NOT_ALLOWED: Authentication is required, or permission is missing.
        CHANGED_MEANWHILE: Somebody else changed the room in between; this command changed nothing.
    """

    DONE = 0
    NOT_DONE = 1
    BAD_USE = 2
    NO_ANSWER = 3
    NOT_ALLOWED = 4
    CHANGED_MEANWHILE = 5


class End(Exception):  # noqa: N818 - how a command ends, not a mistake of ours
    """Ends a command with a message for the user: what failed, and the reason in a sentence."""

    def __init__(self, code: Code, what: str, why: str) -> None:
        self.code = code
        self.what = what
        self.why = why
        super().__init__(f"{what}: {why}")


def load(config: Path | None, overrides: Mapping[str, object], *, pages: bool = False) -> Settings:
    """Loads the settings, or ends with all problems. ``pages``: also compiles operators' templates."""
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
    """Returns the address to open in a browser on this machine."""
    host, _, port = address.rpartition(":")
    anywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104 - compared, not bound
    return f"{anywhere.get(host, host)}:{port}"


def plain(text: object) -> str:
    """Returns foreign text as one line without terminal control sequences: names in the audit log may be anybody's."""
    letters = (" " if letter.isspace() else letter for letter in str(text))
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in letters)


def show(what: RenderableType) -> None:
    """Prints a table or text, with unlimited width if the output is a pipe."""
    console = out if out.is_terminal else Console(file=out.file, highlight=False, width=PIPE_COLUMNS)
    console.print(what)


def say(text: str) -> None:
    """Prints a sentence without interpreting markup."""
    out.print(escape(plain(text)), soft_wrap=True)


def complain(what: str, why: str) -> None:
    """Prints an error to standard error."""
    err.print(f"[bold red]{escape(plain(what))}:[/bold red] {escape(plain(why))}", soft_wrap=True)


def at_a_terminal() -> bool:
    """Whether a user can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()
