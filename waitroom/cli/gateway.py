"""How commands find a running gateway, authenticate, and report the result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from waitroom.cli.api_client import SECONDS, AdminClient, AdminError, NoAnswer, Refused, checked_token, is_loopback
from waitroom.cli.api_models import Room
from waitroom.cli.console import TOKEN_VARIABLE, Code, End, complain, err, load, plain, reachable
from waitroom.cli.formatting import change_words
from waitroom.control.auth.accounts import LOCAL_TOKEN_FILE
from waitroom.settings.sources import closest_match

# In data_dir, created at each start, and valid only on this machine.
# Without a settings file, any upstream will do to read the other settings from the environment.
ANY_SHOP = "http://127.0.0.1"

AdminUrl = Annotated[
    str | None,
    typer.Option(
        "--admin", help="The admin listener of a running gateway, such as http://127.0.0.1:8081.", metavar="URL"
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help=f"A file with your token; without it, {TOKEN_VARIABLE} has it.", metavar="FILE"),
]
Note = Annotated[str, typer.Option("--note", help="Why, for the audit.", metavar="TEXT")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask first.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
RoomName = Annotated[str, typer.Argument(metavar="ROOM", help="The room's name.")]


def gateway(config: Path | None, admin: str | None, token_file: Path | None) -> AdminClient:
    """Returns the client of the gateway given by the settings or a URL. Ends if these are invalid."""
    settings = load(config, {} if config else {"upstream": ANY_SHOP})
    url = admin or f"http://{reachable(settings.admin_listen)}"
    try:
        is_local = is_loopback(urlsplit(url).hostname or "")
        token = _token_giver(token_file, Path(settings.data_dir) / LOCAL_TOKEN_FILE, is_local)
        client = AdminClient(url, token, SECONDS)
    except ValueError as error:
        raise End(Code.BAD_USE, "--admin", f"{_without_password(url)} {error}") from None
    if token_file is not None:
        _token_of(token_file)
    return client


@contextmanager
def room_known(client: AdminClient, name: str) -> Iterator[None]:
    """Ends with the names of the rooms if the gateway has no room of this name."""
    try:
        yield
    except Refused as error:
        names: list[str] = []
        with suppress(AdminError):
            names = [room.name for room in client.rooms().value.rooms]
        if error.status != 404 or not names or name in names:
            raise
        meant = closest_match(name, names)
        mend = f"did you mean {meant}?" if meant else f"there {'is' if len(names) == 1 else 'are'} {', '.join(names)}"
        raise End(Code.BAD_USE, f"No room is called {name}", mend) from None


def tell(error: AdminError) -> Code:
    """Reports a failed call; returns the exit code."""
    match error:
        case NoAnswer():
            unsure = "; it may have been done all the same, so look before you do it again"
            complain("No gateway answers", str(error) + (unsure if error.unsure else ""))
            return Code.NO_ANSWER
        case Refused():
            code, what, why = _refusal(error)
            complain(what, why)
            for field, text in error.errors.items():
                err.print(f"  {plain(field)}: {plain(text)}", markup=False, soft_wrap=True)
            return code
    complain("Not sent", str(error))
    return Code.BAD_USE


def _refusal(error: Refused) -> tuple[Code, str, str]:
    match error.status:
        case 401 if error.had_token:
            mend = (
                f"it is from --token-file, {TOKEN_VARIABLE} or {LOCAL_TOKEN_FILE} in data_dir, which --config leads to"
            )
            return Code.NOT_ALLOWED, "The gateway doesn't know your token", f"{error.detail} ({mend})"
        case 401:
            mend = f"give your token by --token-file or {TOKEN_VARIABLE}, or be the user whose gateway it is"
            return Code.NOT_ALLOWED, "The gateway wants to know who you are", f"{error.detail} ({mend})"
        case 403 | 429:
            return Code.NOT_ALLOWED, "The gateway doesn't let you", error.detail
        case 412:
            return Code.CHANGED_MEANWHILE, "Somebody else changed the room meanwhile; you changed nothing", _who(error)
        case 400 | 404 | 422:
            return Code.BAD_USE, "The gateway can't take that", error.detail
        case 503:
            return Code.NO_ANSWER, "The gateway answers, but can't do it now", error.detail
        case status if status >= 500:
            return Code.NOT_DONE, f"The gateway failed ({status}); its log says why", error.detail
    return Code.NOT_DONE, "The gateway won't", error.detail


def _who(error: Refused) -> str:
    room: Room | None = error.room
    if room is None or room.last_change is None:
        return error.detail
    return f"{change_words(room.last_change)}. Look at it, and do yours again if it still holds"


def _token_giver(token_file: Path | None, local: Path, is_local: bool) -> Callable[[], str | None]:
    """Returns a function that reads the token each time: the gateway's local token changes with each of its starts."""

    def token() -> str | None:
        if token_file is not None:
            return _token_of(token_file)
        given = os.environ.get(TOKEN_VARIABLE, "").strip()
        if given:
            return given
        if is_local:
            with suppress(OSError):  # missing, or owned by somebody else: the gateway decides whether it requires one
                return local.read_text(errors="replace").strip() or None
        return None

    return token


def _token_of(path: Path) -> str:
    try:
        return checked_token(path.read_text(errors="replace").strip())
    except OSError as error:
        raise End(Code.BAD_USE, "--token-file", f"{path} can't be read: {error.strerror}") from None
    except AdminError as error:
        raise End(Code.BAD_USE, "--token-file", f"{path}: {error}") from None


def _without_password(url: str) -> str:
    """Returns a URL that is safe to print."""
    scheme, found, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{found}{authority.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
