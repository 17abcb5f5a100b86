"""``waitroom user`` and ``waitroom token``: accounts of the admin listener."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic_core import PydanticCustomError
from rich.markup import escape
from rich.table import Table

from waitroom.cli.console import ExitCode, err, out
from waitroom.control.auth.accounts import (
    Accounts,
    AccountsError,
    AccountsFile,
    Role,
    User,
    UserRole,
    users_from_settings,
)
from waitroom.control.auth.passwords import (
    MAX_LENGTH,
    hash_password,
    matching_step,
    new_totp_secret,
    password_flaw,
    provisioning_uri,
)
from waitroom.errors import SettingsError, StartError
from waitroom.settings import Settings, load_settings, validators

CODE_TRIES = 3
OVER = "all existing sessions have ended"

user_app = typer.Typer(
    name="user",
    help="Manage the users of the admin listener.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
token_app = typer.Typer(
    name="token",
    help="Manage API tokens for programs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The gateway's settings file.", metavar="FILE")]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="The gateway's data_dir.", metavar="FOLDER")]
Name = Annotated[str, typer.Argument(help="The user's name.")]
TokenName = Annotated[str, typer.Argument(help="The token's name, such as that of the program that uses it.")]
RoleOption = Annotated[UserRole, typer.Option("--role", help="viewer (read only), operator (also changes) or admin.")]
TokenRole = Annotated[
    Role,
    typer.Option("--role", help="viewer (read only), operator (also changes), admin, or shop (commands by --room)."),
]
Rooms = Annotated[
    list[str] | None,
    typer.Option("--room", help="A room of the role shop; repeat it for several.", metavar="ROOM"),
]


@user_app.command("add")
def add_user(name: Name, role: RoleOption, config: Config = None, data_dir: DataDir = None) -> None:
    """Add a user, with a password from a prompt or from standard input."""
    with _errors_reported():
        try:
            validators.user_name(name)
        except PydanticCustomError as error:
            _fail_invalid(error)
        file, named = _accounts(config, data_dir)
        if name in named:
            _fail(f'User "{name}" already exists in the settings file.')
        file.add_user(User(name, Role(role), hash_password(_new_password())))
        out.print(f"Added {name} ({role}) to {escape(str(file.path.absolute()))}", soft_wrap=True)


@user_app.command("remove")
def remove_user(name: Name, config: Config = None, data_dir: DataDir = None) -> None:
    """Remove a user and end all their sessions."""
    with _errors_reported():
        file, named = _accounts(config, data_dir)
        _must_be_in_file(name, named)
        file.remove_user(name)
        out.print(f"Removed {name}; {OVER}")


@user_app.command("list")
def list_users(config: Config = None, data_dir: DataDir = None) -> None:
    """List the users, and where each is stored."""
    with _errors_reported():
        file, named = _accounts(config, data_dir)
        everyone = {**file.read().users, **named}
        if not everyone:
            out.print("No users: only this machine has access")
            return
        table = Table("name", "role", "code", "stored in", box=None)
        for one in sorted(everyone.values(), key=lambda one: one.name):
            kept = "settings" if one.in_settings else file.path.name
            table.add_row(one.name, one.role, "yes" if one.totp_secret else "no", kept)
        out.print(table)


@user_app.command("password")
def change_password(name: Name, config: Config = None, data_dir: DataDir = None) -> None:
    """Change a user's password and end all their sessions."""
    with _errors_reported():
        file = _file_with(name, config, data_dir)
        hashed = hash_password(_new_password())
        file.change_user(name, lambda user: dataclasses.replace(user, password_hash=hashed))
        out.print(f"Changed the password of {name}; {OVER}")


@user_app.command("role")
def change_role(
    name: Name,
    role: Annotated[UserRole, typer.Argument(help="viewer, operator or admin.")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Change a user's role and end all their sessions."""
    with _errors_reported():
        file = _file_with(name, config, data_dir)
        file.change_user(name, lambda user: dataclasses.replace(user, role=Role(role)))
        out.print(f"{name} is now {role}; {OVER}")


@user_app.command("totp")
def change_totp(
    name: Name,
    off: Annotated[bool, typer.Option("--off", help="No longer require a code.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Require a code from an authenticator app (TOTP) of a user, and end all their sessions."""
    with _errors_reported():
        file = _file_with(name, config, data_dir)
        secret = None if off else _shared_secret(name)
        file.change_user(name, lambda user: dataclasses.replace(user, totp_secret=secret))
        out.print(f"{name} {'no longer needs' if off else 'now needs'} a code; {OVER}")


@user_app.command("hash")
def print_hash() -> None:
    """Print the hash of a password, for a [[users]] table of the settings file."""
    with _errors_reported():
        typer.echo(hash_password(_new_password()))


@token_app.command("add")
def add_token(
    name: TokenName, role: TokenRole, room: Rooms = None, config: Config = None, data_dir: DataDir = None
) -> None:
    """Create a token and print it once; only its hash is stored.

    A token of the role shop may only send session commands and the stock of its rooms, for shops behind forward-auth.
    """
    rooms = room or []
    with _errors_reported():
        settings = _settings(config, data_dir)
        _check_rooms(rooms, settings)
        token = AccountsFile(Path(settings.data_dir)).add_token(name, role, rooms)
    limit = f" for {', '.join(rooms)}" if rooms else ""
    err.print(f"Token {name} ({role}{limit}), shown only once:", soft_wrap=True)
    typer.echo(token)


@token_app.command("remove")
def remove_token(name: TokenName, config: Config = None, data_dir: DataDir = None) -> None:
    """Remove a token."""
    with _errors_reported():
        _accounts(config, data_dir)[0].remove_token(name)
        out.print(f"Removed the token {escape(name)}")


@token_app.command("list")
def list_tokens(config: Config = None, data_dir: DataDir = None) -> None:
    """List the tokens by name; the tokens themselves are not stored."""
    with _errors_reported():
        accounts: Accounts = _accounts(config, data_dir)[0].read()
        if not accounts.tokens:
            out.print("No tokens")
            return
        table = Table("name", "role", "rooms", "created", box=None)
        for one in sorted(accounts.tokens.values(), key=lambda one: one.name):
            table.add_row(
                one.name,
                one.role,
                ", ".join(one.rooms) or "all",
                datetime.fromtimestamp(one.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            )
        out.print(table)


def _file_with(name: str, config: Path | None, data_dir: str | None) -> AccountsFile:
    """Returns the accounts file, which must contain this user."""
    file, named = _accounts(config, data_dir)
    _must_be_in_file(name, named)
    if name not in file.read().users:
        _fail(f'Unknown user "{name}" in {file.path.absolute()}.')
    return file


def _shared_secret(name: str) -> str:
    """Returns a new secret, after it was added to an authenticator app; otherwise the user would be locked out."""
    secret = new_totp_secret()
    typer.echo(f"Add this to the authenticator app; it is shown only once:\n{provisioning_uri(name, secret)}")
    for _ in range(CODE_TRIES):
        if matching_step(secret, typer.prompt("Code from the app"), time.time()) is not None:
            return secret
        err.print("Wrong code. Check the clocks of this machine and of the device.")
    raise AccountsError("No valid code. Nothing was changed.")


def _accounts(config: Path | None, data_dir: str | None) -> tuple[AccountsFile, dict[str, User]]:
    """Returns the accounts file, and the users that the settings define."""
    settings = _settings(config, data_dir)
    return AccountsFile(Path(settings.data_dir)), {user.name: user for user in users_from_settings(settings.users)}


def _settings(config: Path | None, data_dir: str | None) -> Settings:
    """Returns the settings; without a settings file they have no rooms."""
    if config is not None:
        return load_settings(config, os.environ, {"data_dir": data_dir})
    # Without a settings file no room is needed here; `waitroom run` would have been given an upstream.
    folder = data_dir or os.environ.get("WAITROOM_DATA_DIR", "").strip() or Settings(rooms=()).data_dir
    return Settings(rooms=(), data_dir=folder)


def _check_rooms(rooms: Sequence[str], settings: Settings) -> None:
    """Refuses invalid names, and rooms that the settings file doesn't have, if there is one."""
    known = [room.name for room in settings.rooms]
    for one in rooms:
        try:
            validators.room_name(one)
        except PydanticCustomError as error:
            _fail_invalid(error)
        if known and one not in known:
            _fail(f'Unknown room "{one}". The settings file has: {", ".join(known)}.')


def _fail_invalid(error: PydanticCustomError) -> NoReturn:
    context = error.context or {}
    _fail(f"{context['what']} {context['fix']}")


def _must_be_in_file(name: str, named: dict[str, User]) -> None:
    if name in named:
        _fail(f"{name} is defined in the settings file: change it there and restart the gateway.")


def _new_password() -> str:
    """Prompts twice on a terminal; otherwise reads the first line of standard input."""
    if _on_a_terminal():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline(MAX_LENGTH + 2).rstrip("\r\n")
    if flaw := password_flaw(password):
        _fail(f"The password {flaw}")
    return password


def _on_a_terminal() -> bool:
    return sys.stdin.isatty()


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Reports an error in one line, and exits."""
    try:
        yield
    except SettingsError as error:
        err.print("[bold red]Invalid settings:[/bold red]")
        for problem in error.problems:
            err.print(f"  {escape(str(problem))}", soft_wrap=True)
        raise typer.Exit(ExitCode.INVALID_INPUT) from None
    except (AccountsError, StartError) as error:
        _fail(str(error))


def _fail(words: str) -> NoReturn:
    err.print(f"[bold red]Error:[/bold red] {escape(words)}", soft_wrap=True)
    raise typer.Exit(ExitCode.INVALID_INPUT)
