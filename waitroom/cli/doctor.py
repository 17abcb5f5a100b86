"""The ``doctor`` command: checks the store, the shops, this machine and the settings, and says what to do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from waitroom.cli.api_client import AdminError, NoResponseError
from waitroom.cli.console import ConfigFile, load, out, print_line
from waitroom.cli.gateway import AsJson, gateway
from waitroom.doctor.findings import Finding, exit_code, ordered
from waitroom.doctor.gather import gather_files, gather_gateway, gather_store, gather_upstreams
from waitroom.doctor.settings_checks import check_settings
from waitroom.doctor.store_checks import check_store
from waitroom.doctor.system_checks import check_files, check_gateway, check_upstreams
from waitroom.settings import Settings

UpstreamUrl = Annotated[str | None, typer.Option(help="The shop, if there is no settings file.")]


def doctor(config: ConfigFile = None, upstream: UpstreamUrl = None, as_json: AsJson = False) -> None:
    """Check the store, the shops, this machine and the settings, and say what to do."""
    settings = load(config, {"upstream": upstream}, pages=True)
    findings = ordered(asyncio.run(_examine(settings, config)))
    if as_json:
        out.print_json(data={"findings": [finding.json() for finding in findings]}, ensure_ascii=True)
    else:
        for finding in findings:
            print_line(f"{finding.level}: {finding.what} ({finding.id})")
            print_line(f"  {finding.do}")
        if not any(finding.level != "note" for finding in findings):
            print_line("Nothing to do.")
    raise typer.Exit(exit_code(findings))


async def _examine(settings: Settings, config: Path | None) -> list[Finding]:
    hints = await asyncio.to_thread(_hints, config, settings)
    store, running, upstreams = await asyncio.gather(
        gather_store(settings), gather_gateway(settings, hints), gather_upstreams(settings)
    )
    files = gather_files(settings, config)
    return [
        *check_gateway(running, settings),
        *check_store(store),
        *check_upstreams(upstreams),
        *check_files(files, settings),
        *check_settings(settings, has_accounts=files.has_accounts, now=datetime.now(UTC)),
    ]


def _hints(config: Path | None, settings: Settings) -> list[tuple[str, str]] | None:
    """The hints on the rooms of the running gateway; none if they may not be read, None if it doesn't respond."""
    try:
        rooms = gateway(config, None, None).rooms().value.rooms
    except NoResponseError:
        return None
    except AdminError:
        return []
    names = {room.name for room in settings.rooms}
    return [(room.name, hint) for room in rooms if room.name in names for hint in room.hints]
