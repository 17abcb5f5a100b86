"""``waitroom user`` and ``waitroom token``: accounts of the admin listener."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic_core import PydanticCustomError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from waitroom.control.auth.accounts import Accounts, AccountsError, AccountsFile, Role, User, users_from_settings
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

BAD_INPUT = 2
CODE_TRIES = 3
OVER = "all sessions from before are over"

user_app = typer.Typer(
    name="user",
    help="Who may log in on the admin listener.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
token_app = typer.Typer(
    name="token",
    help="Tokens by which programs use the admin API.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Config = Annotated[Path | None, typer.Option("--config", "-c", help="The gateway's settings file.", metavar="FILE")]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="The gateway's data_dir.", metavar="FOLDER")]
Name = Annotated[str, typer.Argument(help="The user's name.")]
TokenName = Annotated[str, typer.Argument(help="The token's name, such as the program's that it is for.")]
What = Annotated[Role, typer.Option("--role", help="A viewer looks, an operator also changes, an admin may do all.")]


@user_app.command("add")
def add_user(name: Name, role: What, config: Config = None, data_dir: DataDir = None) -> None:
    """Add a user. The password is asked for, or read from the standard input."""
    with _errors_reported():
        try:
            validators.user_name(name)
        except PydanticCustomError as error:
            context = error.context or {}
            _fail(f"{context['what']} {context['fix']}")
        file, named = _accounts(config, data_dir)
        if name in named:
            _fail(f'There is a user "{name}" in the settings file already.')
        file.add_user(User(name, role, hash_password(_new_password())))
        out.print(f"{name} may log in as {role}; kept in {escape(str(file.path.absolute()))}", soft_wrap=True)


@user_app.command("remove")
def remove_user(name: Name, config: Config = None, data_dir: DataDir = None) -> None:
    """Remove a user and end all their sessions."""
    with _errors_reported():
        file, named = _accounts(config, data_dir)
        _must_be_in_file(name, named)
        file.remove_user(name)
        out.print(f"{name} is removed, and all sessions of theirs are over")


@user_app.command("list")
def list_users(config: Config = None, data_dir: DataDir = None) -> None:
    """Show the users, and where each is kept."""
    with _errors_reported():
        file, named = _accounts(config, data_dir)
        everyone = {**file.read().users, **named}
        if not everyone:
            out.print("No user: only somebody on the gateway's own machine may come in")
            return
        table = Table("name", "role", "code", "kept in", box=None)
        for one in sorted(everyone.values(), key=lambda one: one.name):
            kept = "settings" if one.in_settings else file.path.name
            table.add_row(one.name, one.role, "yes" if one.totp_secret else "no", kept)
        out.print(table)


@user_app.command("password")
def change_password(name: Name, config: Config = None, data_dir: DataDir = None) -> None:
    """Give a user another password and end all their sessions."""
    with _errors_reported():
        file = _file_with(name, config, data_dir)
        hashed = hash_password(_new_password())
        file.change_user(name, lambda user: dataclasses.replace(user, password_hash=hashed))
        out.print(f"{name} has another password; {OVER}")


@user_app.command("role")
def change_role(
    name: Name,
    role: Annotated[Role, typer.Argument(help="viewer, operator or admin.")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Give a user another role and end all their sessions."""
    with _errors_reported():
        file = _file_with(name, config, data_dir)
        file.change_user(name, lambda user: dataclasses.replace(user, role=role))
        out.print(f"{name} is {role} now; {OVER}")


@user_app.command("totp")
def change_totp(
    name: Name,
    off: Annotated[bool, typer.Option("--off", help="Ask for no code any more.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Ask a user for a code of their authenticator app (TOTP) besides the password, and end all their sessions."""
    with _errors_reported():
        file = _file_with(name, config, data_dir)
        secret = None if off else _shared_secret(name)
        file.change_user(name, lambda user: dataclasses.replace(user, totp_secret=secret))
        out.print(f"{name} needs {'no code any more' if off else 'a code from now on'}; {OVER}")


@user_app.command("hash")
def print_hash() -> None:
    """Print the hash of a password, for a [[users]] table of the settings file."""
    with _errors_reported():
        typer.echo(hash_password(_new_password()))


@token_app.command("add")
def add_token(name: TokenName, role: What, config: Config = None, data_dir: DataDir = None) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    with _errors_reported():
        token = _accounts(config, data_dir)[0].add_token(name, role)
    err.print(f"The token {name}, {role}; it is shown only now:", soft_wrap=True)
    typer.echo(token)


@token_app.command("remove")
def remove_token(name: TokenName, config: Config = None, data_dir: DataDir = None) -> None:
    """Remove a token; from now on it opens nothing."""
    with _errors_reported():
        _accounts(config, data_dir)[0].remove_token(name)
        out.print(f"The token {escape(name)} is removed")


@token_app.command("list")
def list_tokens(config: Config = None, data_dir: DataDir = None) -> None:
    """Show the tokens' names. What they are is kept nowhere."""
    with _errors_reported():
        accounts: Accounts = _accounts(config, data_dir)[0].read()
        if not accounts.tokens:
            out.print("No token")
            return
        table = Table("name", "role", "made", box=None)
        for one in sorted(accounts.tokens.values(), key=lambda one: one.name):
            table.add_row(
                one.name, one.role, datetime.fromtimestamp(one.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
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
    typer.echo(f"Take this into the authenticator app; it is shown only now:\n{provisioning_uri(name, secret)}")
    for _ in range(CODE_TRIES):
        if matching_step(secret, typer.prompt("The code it shows"), time.time()) is not None:
            return secret
        err.print("That isn't the code. Is the clock right, here and there?")
    raise AccountsError("None of these was the code. Nothing was changed.")


def _accounts(config: Path | None, data_dir: str | None) -> tuple[AccountsFile, dict[str, User]]:
    """Returns the accounts file, and the users that the settings define."""
    if config is not None:
        settings = load_settings(config, os.environ, {"data_dir": data_dir})
    else:
        # Without a settings file no room is needed here; `waitroom run` would have been given an upstream.
        folder = data_dir or os.environ.get("WAITROOM_DATA_DIR", "").strip() or Settings(rooms=()).data_dir
        settings = Settings(rooms=(), data_dir=folder)
    return AccountsFile(Path(settings.data_dir)), {user.name: user for user in users_from_settings(settings.users)}


def _must_be_in_file(name: str, named: dict[str, User]) -> None:
    if name in named:
        _fail(f"{name} is named in the settings file: change that, and start the gateway again.")


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
        err.print("[bold red]The settings can't be used:[/bold red]")
        for problem in error.problems:
            err.print(f"  {escape(str(problem))}", soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from None
    except (AccountsError, StartError) as error:
        _fail(str(error))


def _fail(words: str) -> NoReturn:
    err.print(f"[bold red]Refused:[/bold red] {escape(words)}", soft_wrap=True)
    raise typer.Exit(BAD_INPUT)
