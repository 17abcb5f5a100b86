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


class ExitCode(IntEnum):
    """Exit codes.

    Attributes:
        SUCCESS: The command succeeded.
        FAILURE: The command failed or was declined, and changed nothing; or a check found a problem.
        INVALID_INPUT: Invalid input: settings, names, values.
        UNAVAILABLE: The gateway can't start or doesn't answer, or its store doesn't.
        FORBIDDEN: Authentication is required, or permission is missing.
        CONFLICT: Somebody else changed the room in between; this command changed nothing.
    """

    SUCCESS = 0
    FAILURE = 1
    INVALID_INPUT = 2
    UNAVAILABLE = 3
    FORBIDDEN = 4
    CONFLICT = 5


class CommandError(Exception):
    """Ends a command with a message for the user: what failed, and the reason in a sentence."""

    def __init__(self, code: ExitCode, what: str, why: str) -> None:
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
        err.print("[bold red]Invalid settings:[/bold red]")
        for problem in error.problems:
            err.print(f"  {escape(str(problem))}", soft_wrap=True)
        raise typer.Exit(ExitCode.INVALID_INPUT) from None
    return settings


def browser_address(address: str) -> str:
    """Returns the address to open in a browser on this machine."""
    host, _, port = address.rpartition(":")
    anywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104 - compared, not bound
    return f"{anywhere.get(host, host)}:{port}"


def sanitize(text: object) -> str:
    """Returns foreign text as one line without terminal control sequences: names in the audit log may be anybody's."""
    letters = (" " if letter.isspace() else letter for letter in str(text))
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in letters)


def print_renderable(what: RenderableType) -> None:
    """Prints a table or text, with unlimited width if the output is a pipe."""
    console = out if out.is_terminal else Console(file=out.file, highlight=False, width=PIPE_COLUMNS)
    console.print(what)


def print_line(text: str) -> None:
    """Prints a sentence without interpreting markup."""
    out.print(escape(sanitize(text)), soft_wrap=True)


def print_error(what: str, why: str) -> None:
    """Prints an error to standard error."""
    err.print(f"[bold red]{escape(sanitize(what))}:[/bold red] {escape(sanitize(why))}", soft_wrap=True)


def is_interactive() -> bool:
    """Whether a user can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()
