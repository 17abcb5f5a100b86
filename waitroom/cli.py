"""The ``waitroom`` command."""

from __future__ import annotations

import asyncio
import json
import os
import secrets as random_secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.error import URLError
from urllib.request import urlopen

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from waitroom import __version__, logs
from waitroom.certificates import read_pair
from waitroom.drill.demo import DEFAULT_SECONDS, DEFAULT_VISITORS, run_demo
from waitroom.edge.pages import Pages
from waitroom.errors import SettingsError, StartError
from waitroom.settings import Settings, load_settings
from waitroom.supervisor import Supervisor

ADMIN_SECONDS = 5.0
BAD_SETTINGS = 2
CANT_START = 3

app = typer.Typer(
    name="waitroom",
    help="A virtual waiting room in front of a web shop: a fair line, and only as many inside as the shop can bear.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file (TOML); see config/waitroom.toml.", metavar="FILE")
]


@app.command()
def run(
    config: ConfigFile = None,
    upstream: Annotated[
        str | None, typer.Option(help="The shop, such as http://127.0.0.1:3000; alone, it makes a working gateway.")
    ] = None,
    listen: Annotated[str | None, typer.Option(help="Where visitors come in, HOST:PORT.")] = None,
    admin_listen: Annotated[str | None, typer.Option(help="Where operators come in, HOST:PORT.")] = None,
    workers: Annotated[int | None, typer.Option(help="Edge processes; one for each core unless told.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Where the embedded store and the secret are kept.")] = None,
    redis: Annotated[
        str | None, typer.Option(help="A Redis or Valkey that is already there: redis://, rediss:// or unix://.")
    ] = None,
    rate_per_minute: Annotated[float | None, typer.Option(help="New visitors admitted per minute.")] = None,
    max_active: Annotated[int | None, typer.Option(help="Admitted visitors in the shop at once.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C."""
    overrides = {
        "upstream": upstream,
        "listen": listen,
        "admin_listen": admin_listen,
        "workers": workers,
        "data_dir": data_dir,
        "redis_url": redis,
        "rate_per_minute": rate_per_minute,
        "max_active": max_active,
        "log_level": log_level,
    }
    settings = _load(config, overrides, pages=True)
    logs.configure(settings.log_level, "supervisor")

    scheme = "http" if settings.tls_certificate is None else "https"

    def announce(settings: Settings) -> None:
        for room in settings.rooms:
            where = ", ".join(room.hosts) or "any host"
            out.print(f"Room [bold]{room.name}[/bold] ({where}) is open before {escape(', '.join(room.upstreams))}")
        out.print(f"Visitors come in at [bold]{scheme}://{escape(_reachable(settings.listen))}[/bold]")
        out.print(f"Operators look in at http://{escape(_reachable(settings.admin_listen))}")

    try:
        asyncio.run(Supervisor(settings, announce).run())
    except* StartError as group:
        for error in group.exceptions:
            err.print(f"[bold red]waitroom can't start:[/bold red] {escape(str(error))}")
        raise typer.Exit(CANT_START) from None


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave shop and gateway up to play with, until Ctrl-C.")] = False,
    visitors: Annotated[int, typer.Option(help="How many come.")] = DEFAULT_VISITORS,
    seconds: Annotated[float, typer.Option(help="About how long it takes.")] = DEFAULT_SECONDS,
) -> None:
    """See it work: a real shop, a crowd that breaks it, and the same crowd with the gateway in front."""
    try:
        code = asyncio.run(run_demo(keep=keep, seconds=seconds, visitors=visitors, console=Console()))
    except ValueError as error:
        err.print(f"[bold red]waitroom demo:[/bold red] {escape(str(error))}")
        code = BAD_SETTINGS
    raise typer.Exit(code)


@app.command("check-config")
def check_config(file: Annotated[Path, typer.Argument(help="Settings file (TOML).", metavar="FILE")]) -> None:
    """Say all that is wrong with a settings file, or that nothing is."""
    settings = _load(file, {}, pages=True)
    if settings.tls_certificate is not None and settings.tls_key is not None:
        flaw = read_pair(Path(settings.tls_certificate), Path(settings.tls_key)).flaw()
        if flaw is not None:
            refused = f"[bold red]Browsers would refuse {escape(settings.tls_certificate)}:[/bold red] {escape(flaw)}"
            err.print(refused, soft_wrap=True)
            raise typer.Exit(BAD_SETTINGS)
    rooms = ", ".join(room.name for room in settings.rooms)
    out.print(f"{escape(str(file))} is good: {len(settings.rooms)} room{'s'[: len(settings.rooms) != 1]} ({rooms})")


@app.command()
def status(
    config: ConfigFile = None,
    admin: Annotated[
        str | None, typer.Option(help="The admin listener of a running gateway, such as http://127.0.0.1:8081.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show how the rooms of a running gateway stand."""
    url = admin or f"http://{_reachable(_load(config, {}).admin_listen if config else Settings(rooms=()).admin_listen)}"
    if not url.startswith(("http://", "https://")):
        err.print(f"[bold red]--admin:[/bold red] {escape(url)} isn't a URL; give one such as http://127.0.0.1:8081")
        raise typer.Exit(BAD_SETTINGS)
    try:
        with urlopen(f"{url.rstrip('/')}/api/v1/rooms", timeout=ADMIN_SECONDS) as answer:  # noqa: S310 - checked above
            rooms = json.load(answer)["rooms"]
    except (URLError, TimeoutError, ValueError) as error:
        err.print(f"[bold red]No gateway answers at {escape(url)}:[/bold red] {escape(str(error))}")
        raise typer.Exit(CANT_START) from None
    if as_json:
        out.print_json(data=rooms)
        return
    table = Table("room", "state", "waiting", "called", "active", "a minute", "joined", "admitted", box=None)
    for room in rooms:
        if "state" not in room:
            table.add_row(room["name"], "the store doesn't answer")
            continue
        pace = "-" if room["admitted_per_minute"] is None else f"{room['admitted_per_minute']:g}"
        cells = (
            *(
                room["name"],
                room["state"],
                room["waiting"],
                room["called"],
                f"{room['active']} of {room['max_active']}",
            ),
            *(
                f"{pace} of {room['rate_per_minute']:g}",
                room["totals"].get("joined", 0),
                room["totals"].get("admitted", 0),
            ),
        )
        table.add_row(*(str(cell) for cell in cells))
    out.print(table)


@app.command()
def secret() -> None:
    """Print a new secret, for the settings' ``secrets``."""
    typer.echo(random_secrets.token_urlsafe(32))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"waitroom {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself."""


def _load(config: Path | None, overrides: Mapping[str, object], *, pages: bool = False) -> Settings:
    """The settings, or an end with all that is wrong with them. ``pages``: operators' templates are tried out, too."""
    try:
        settings = load_settings(config, os.environ, overrides)
        if pages:
            Pages(settings.rooms)
    except SettingsError as error:
        err.print("[bold red]The settings can't be used:[/bold red]")
        for problem in error.problems:
            err.print(f"  {escape(str(problem))}", soft_wrap=True)
        raise typer.Exit(BAD_SETTINGS) from None
    return settings


def _reachable(address: str) -> str:
    """The address as one types it into a browser on this machine."""
    host, _, port = address.rpartition(":")
    anywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104 - compared, not bound
    return f"{anywhere.get(host, host)}:{port}"


def main() -> None:
    """Run the command."""
    app()
