"""How commands find a running gateway, authenticate, and report the result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from waitroom.cli.api_client import (
    TIMEOUT_SECONDS,
    AdminClient,
    AdminError,
    NoResponseError,
    RejectedError,
    checked_token,
)
from waitroom.cli.api_models import Room
from waitroom.cli.console import (
    TOKEN_VARIABLE,
    CommandError,
    ExitCode,
    browser_address,
    err,
    load,
    print_error,
    sanitize,
)
from waitroom.cli.formatting import describe_change
from waitroom.control.auth.accounts import LOCAL_TOKEN_FILE
from waitroom.net.authority import is_loopback
from waitroom.settings.sources import closest_match

# Without a settings file, any upstream will do to read the other settings from the environment.
PLACEHOLDER_UPSTREAM = "http://127.0.0.1"

AdminUrl = Annotated[
    str | None,
    typer.Option(
        "--admin", help="The admin listener of a running gateway, such as http://127.0.0.1:8081.", metavar="URL"
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help=f"File with your token; default: {TOKEN_VARIABLE}.", metavar="FILE"),
]
Note = Annotated[str, typer.Option("--note", help="Reason, for the audit log.", metavar="TEXT")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RoomName = Annotated[str, typer.Argument(metavar="ROOM", help="The room's name.")]


def gateway(config: Path | None, admin: str | None, token_file: Path | None) -> AdminClient:
    """Returns the client of the gateway given by the settings or a URL. Ends if these are invalid."""
    settings = load(config, {} if config else {"upstream": PLACEHOLDER_UPSTREAM})
    url = admin or f"http://{browser_address(settings.admin_listen)}"
    try:
        is_local = is_loopback(urlsplit(url).hostname or "")
        token = _token_provider(token_file, Path(settings.data_dir) / LOCAL_TOKEN_FILE, is_local)
        client = AdminClient(url, token, TIMEOUT_SECONDS)
    except ValueError as error:
        raise CommandError(ExitCode.INVALID_INPUT, "--admin", f"{_redacted(url)} {error}") from None
    if token_file is not None:
        _read_token(token_file)
    return client


@contextmanager
def explain_unknown_room(client: AdminClient, name: str) -> Iterator[None]:
    """Ends with the names of the rooms if the gateway has no room of this name."""
    try:
        yield
    except RejectedError as error:
        names: list[str] = []
        with suppress(AdminError):
            names = [room.name for room in client.rooms().value.rooms]
        if error.status != 404 or not names or name in names:
            raise
        meant = closest_match(name, names)
        fix = f"did you mean {meant}?" if meant else f"choose from {', '.join(names)}"
        raise CommandError(ExitCode.INVALID_INPUT, f"Unknown room {name}", fix) from None


def report_error(error: AdminError) -> ExitCode:
    """Reports a failed call; returns the exit code."""
    match error:
        case NoResponseError():
            hint = "; the change may have been made, so check before you retry" if error.maybe_done else ""
            print_error("Gateway unavailable", f"{error}{hint}")
            return ExitCode.UNAVAILABLE
        case RejectedError():
            code, what, why = _describe_rejection(error)
            print_error(what, why)
            for field, text in error.errors.items():
                err.print(f"  {sanitize(field)}: {sanitize(text)}", markup=False, soft_wrap=True)
            return code
    print_error("Request not sent", str(error))
    return ExitCode.INVALID_INPUT


def _describe_rejection(error: RejectedError) -> tuple[ExitCode, str, str]:
    match error.status:
        case 401 if error.had_token:
            fix = f"it is from --token-file, {TOKEN_VARIABLE}, or {LOCAL_TOKEN_FILE} in the data_dir of --config"
            return ExitCode.FORBIDDEN, "Token rejected", f"{error.detail} ({fix})"
        case 401:
            fix = f"pass your token by --token-file or {TOKEN_VARIABLE}, or run the command as the gateway's user"
            return ExitCode.FORBIDDEN, "Authentication required", f"{error.detail} ({fix})"
        case 403:
            return ExitCode.FORBIDDEN, "Permission denied", error.detail
        case 429:
            return ExitCode.FORBIDDEN, "Too many attempts", error.detail
        case 412:
            return (
                ExitCode.CONFLICT,
                "Somebody else changed the room meanwhile; your change was not made",
                _conflicting_change(error),
            )
        case 400 | 404 | 422:
            return ExitCode.INVALID_INPUT, "Invalid request", error.detail
        case 503:
            return ExitCode.UNAVAILABLE, "Gateway temporarily unavailable", error.detail
        case status if status >= 500:
            return ExitCode.FAILURE, f"Internal error of the gateway ({status}); see its log", error.detail
    return ExitCode.FAILURE, "Request rejected", error.detail


def _conflicting_change(error: RejectedError) -> str:
    room: Room | None = error.room
    if room is None or room.last_change is None:
        return error.detail
    return f"{describe_change(room.last_change)}. Check the room, and retry if your change still applies"


def _token_provider(token_file: Path | None, local: Path, is_local: bool) -> Callable[[], str | None]:
    """Returns a function that reads the token each time: the gateway's local token changes with each of its starts."""

    def token() -> str | None:
        if token_file is not None:
            return _read_token(token_file)
        given = os.environ.get(TOKEN_VARIABLE, "").strip()
        if given:
            return given
        if is_local:
            with suppress(OSError):  # missing, or owned by somebody else: the gateway decides whether it requires one
                return local.read_text(errors="replace").strip() or None
        return None

    return token


def _read_token(path: Path) -> str:
    try:
        return checked_token(path.read_text(errors="replace").strip())
    except OSError as error:
        raise CommandError(ExitCode.INVALID_INPUT, "--token-file", f"can't read {path}: {error.strerror}") from None
    except AdminError as error:
        raise CommandError(ExitCode.INVALID_INPUT, "--token-file", f"{path}: {error}") from None


def _redacted(url: str) -> str:
    """Returns a URL that is safe to print."""
    scheme, found, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{found}{authority.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
