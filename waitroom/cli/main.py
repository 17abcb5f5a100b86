"""The ``waitroom`` command: runs a gateway, and looks up the commands that control a running one.

A command imports its dependencies when it runs: the gateway, the settings and the client of the admin API take most of
the start time, and no command needs all of them.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from waitroom import __version__
from waitroom.cli.console import CommandError, ConfigFile, ExitCode, browser_address, err, load, out, print_error
from waitroom.drill import DEFAULT_SECONDS, DEFAULT_VISITORS
from waitroom.errors import StartError, SupervisorError, WaitroomError

if TYPE_CHECKING:
    from waitroom.settings import Settings

# The commands that are defined in other modules, in the order of --help.
ELSEWHERE = {
    "doctor": "waitroom.cli.doctor:doctor",
    "status": "waitroom.cli.status:status",
    "set": "waitroom.cli.operations:set_",
    "pause": "waitroom.cli.operations:pause",
    "resume": "waitroom.cli.operations:resume",
    "close": "waitroom.cli.operations:close",
    "message": "waitroom.cli.operations:message_",
    "drain": "waitroom.cli.operations:drain",
    "admit": "waitroom.cli.operations:admit",
    "end-session": "waitroom.cli.operations:end_session",
    "events": "waitroom.cli.events:events",
    "event": "waitroom.cli.events:event_app",
    "undo": "waitroom.cli.operations:undo",
    "history": "waitroom.cli.queries:history",
    "decisions": "waitroom.cli.queries:decisions",
    "diff": "waitroom.cli.queries:diff",
    "sale-link": "waitroom.cli.sale_link:sale_link",
    "user": "waitroom.cli.accounts:user_app",
    "token": "waitroom.cli.accounts:token_app",
    "audit": "waitroom.cli.queries:audit_app",
}


class Commands(TyperGroup):
    """All commands. Those of other modules are imported on demand; errors are reported here, uniformly.

    The names are known from the start, for suggestions and for --help.
    """

    def __init__(self, *, commands: dict[str, Any], **rest: Any) -> None:
        super().__init__(commands=commands | dict.fromkeys(ELSEWHERE), **rest)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the command of this name, or None."""
        if self.commands.get(cmd_name) is None and cmd_name in ELSEWHERE:
            self.commands[cmd_name] = _load_command(cmd_name)
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except CommandError as end:
            print_error(end.what, end.why)
            raise typer.Exit(end.code) from None
        except WaitroomError as error:
            from waitroom.cli.api_client import AdminError
            from waitroom.cli.gateway import report_error

            if not isinstance(error, AdminError):
                raise
            raise typer.Exit(report_error(error)) from None


def _load_command(name: str) -> Any:
    module, _, attribute = ELSEWHERE[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
        found.command(name)(function)
    return typer.main.get_command(found)


app = typer.Typer(
    name="waitroom",
    cls=Commands,
    help="A virtual waiting room: a fair queue that protects a web shop when demand exceeds its capacity.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    config: ConfigFile = None,
    upstream: Annotated[
        str | None, typer.Option(help="The shop, such as http://127.0.0.1:3000; no other option is required.")
    ] = None,
    listen: Annotated[str | None, typer.Option(help="Address of the public listener, HOST:PORT.")] = None,
    admin_listen: Annotated[str | None, typer.Option(help="Address of the admin listener, HOST:PORT.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of edge processes; one for each core by default.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Directory of the embedded store and the secret.")] = None,
    redis: Annotated[
        str | None, typer.Option(help="A Redis or Valkey to use: redis://, rediss:// or unix://, without a password.")
    ] = None,
    rate_per_minute: Annotated[float | None, typer.Option(help="New visitors admitted per minute.")] = None,
    max_active: Annotated[int | None, typer.Option(help="Maximum number of admitted visitors in the shop.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C."""
    import asyncio
    import os

    from waitroom import logs
    from waitroom.process.supervisor import Supervisor
    from waitroom.settings.store_url import has_password

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
    if redis is not None and has_password(redis):
        why = (
            "it contains a password, which every user of this machine can read in the list of processes; set redis_url "
            "in the settings file, or WAITROOM_REDIS_URL"
        )
        raise CommandError(ExitCode.INVALID_INPUT, "--redis", why)
    settings = load(config, overrides, pages=True)
    logs.configure(settings.log_level, "supervisor")
    os.umask(0o077)  # whatever this process and its children create is for their user only

    scheme = "http" if settings.tls_certificate is None else "https"

    def on_ready(settings: Settings) -> None:
        lines = [
            f"Room [bold]{room.name}[/bold] ({', '.join(room.hosts) or 'any host'}) forwards to "
            f"{escape(', '.join(room.upstreams))}"
            for room in settings.rooms
        ]
        lines.append(f"Visitors: [bold]{scheme}://{escape(browser_address(settings.listen))}[/bold]")
        lines.append(f"Dashboard: http://{escape(browser_address(settings.admin_listen))}")
        out.print(
            "\n".join(lines), soft_wrap=True
        )  # in one piece, so that no other process's log comes between the lines

    try:
        asyncio.run(Supervisor(settings, on_ready).run())
    except StartError as error:
        err.print(f"[bold red]waitroom can't start:[/bold red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(ExitCode.UNAVAILABLE) from None
    except SupervisorError as error:
        err.print(f"[bold red]waitroom can't go on:[/bold red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(ExitCode.FAILURE) from None


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the shop and the gateway running until Ctrl-C.")] = False,
    visitors: Annotated[int, typer.Option(help="Number of visitors.")] = DEFAULT_VISITORS,
    seconds: Annotated[float, typer.Option(help="Approximate duration in seconds.")] = DEFAULT_SECONDS,
) -> None:
    """Run a demo: a real shop, a crowd that overloads it, and the same crowd with Waitroom in front."""
    import asyncio

    from rich.console import Console

    from waitroom.drill.demo import run_demo

    try:
        code = asyncio.run(run_demo(keep=keep, seconds=seconds, visitors=visitors, console=Console()))
    except ValueError as error:
        err.print(f"[bold red]waitroom demo:[/bold red] {escape(str(error))}")
        code = ExitCode.INVALID_INPUT
    raise typer.Exit(code)


@app.command("check-config")
def check_config(file: Annotated[Path, typer.Argument(help="Settings file (TOML).", metavar="FILE")]) -> None:
    """Check a settings file: list all its errors, or else unwise settings and the timeline of events."""
    from datetime import UTC, datetime

    from waitroom.cli.timeline import timeline_lines
    from waitroom.control.auth.accounts import has_accounts
    from waitroom.doctor.settings_checks import check_settings
    from waitroom.net.tls import read_pair

    settings = load(file, {}, pages=True)
    if settings.tls_certificate is not None and settings.tls_key is not None:
        flaw = read_pair(Path(settings.tls_certificate), Path(settings.tls_key)).browser_error()
        if flaw is not None:
            refused = f"[bold red]Browsers would reject {escape(settings.tls_certificate)}:[/bold red] {escape(flaw)}"
            err.print(refused, soft_wrap=True)
            raise typer.Exit(ExitCode.INVALID_INPUT)
    now = datetime.now(UTC)
    for finding in check_settings(settings, has_accounts=has_accounts(Path(settings.data_dir)), now=now):
        if finding.level != "note":
            warning = f"[yellow]Warning:[/yellow] {escape(finding.what)} {escape(finding.do)} ({finding.id})"
            err.print(warning, soft_wrap=True)
    rooms = ", ".join(room.name for room in settings.rooms)
    count = f"{len(settings.rooms)} room{'s'[: len(settings.rooms) != 1]}"
    out.print(f"{escape(str(file))} is valid: {count} ({rooms})", soft_wrap=True)
    for line in (line for room in settings.rooms for line in timeline_lines(room, now)):
        out.print(escape(line), soft_wrap=True, highlight=False)


@app.command()
def secret() -> None:
    """Generate a secret for the settings."""
    import secrets

    typer.echo(secrets.token_urlsafe(32))


def _print_version(wanted: bool) -> None:
    """Prints the version, and whether the installation has fallen back to portable code."""
    if wanted:
        from waitroom import gate

        built = "in pure Python" if str(gate.__file__).endswith(".py") else "compiled"
        typer.echo(f"waitroom {__version__} (request path {built})")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version, and whether the request path is compiled.",
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


def main() -> None:
    """Run the command."""
    app()
