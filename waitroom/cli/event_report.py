"""``waitroom event report``: the report of an event, as a table, JSON or CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from waitroom.cli.api_models import EventReport
from waitroom.cli.console import CommandError, ConfigFile, ExitCode, err, out, print_line, print_renderable, sanitize
from waitroom.cli.formatting import UNKNOWN, format_number, format_time
from waitroom.cli.gateway import AdminUrl, AsJson, RoomName, TokenFile, explain_unknown_room, gateway
from waitroom.cli.queries import write_whole
from waitroom.wait_range import short_duration

TIME = "%Y-%m-%d %H:%M %Z"

_SOLD_BY = {"stock": "by stock", "release": "by release"}


def report(
    room: RoomName,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name.")],
    as_json: AsJson = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write the report to this file as CSV.", metavar="FILE")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", help="Write the samples to this file as CSV.", metavar="FILE")
    ] = None,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Show the report of an event, of a running one up to now.

    Files are written completely or not at all.
    """
    client = gateway(config, admin, token_file)
    with explain_unknown_room(client, room):
        answer = client.event_report(room, event)
    for option, path, name in (("--csv", csv, "report.csv"), ("--samples", samples, "samples.csv")):
        if path is not None:
            _write(option, path, client.event_csv(room, event, name))
    if as_json:
        out.print_json(data=answer.raw, ensure_ascii=True)
    elif csv is None and samples is None:
        print_line(_heading(answer.value))
        print_renderable(_table(answer.value))


def _write(option: str, path: Path, text: bytes) -> None:
    try:
        write_whole(path, iter([text]))
    except OSError as error:
        raise CommandError(ExitCode.INVALID_INPUT, option, f"can't write {path}: {error.strerror}") from None
    err.print(f"{format_number(len(text))} bytes in {path}", markup=False, soft_wrap=True)


def _heading(report: EventReport) -> str:
    title = f"{report.title} ({report.event})" if report.title else report.event
    if report.ended_at is not None:
        return f"{title}: {format_time(report.started_at, TIME)} to {format_time(report.ended_at, TIME)}"
    return f"{title}: {report.phase}, up to now"


def _table(report: EventReport) -> Table:
    gave_up, waits, errors, over = report.gave_up, report.wait_seconds, report.eta_error_seconds, report.over_limit
    reasons = ", ".join(f"{name} {format_number(gave_up.get(name, 0))}" for name in ("left", "away", "missed"))
    rows = [
        ("joined", format_number(report.joined)),
        ("admitted", format_number(report.admitted)),
        ("sold", _sold(report)),
        ("gave up", f"{format_number(gave_up.get('total', 0))} ({reasons})"),
        ("missed turns", format_number(report.no_shows)),
        ("waiting at the end", format_number(report.voided)),
        ("peak waiting", format_number(report.peak_waiting)),
        ("peak active", format_number(report.peak_active)),
        ("wait p50 / p90 / max", _times(waits, "p50", "p90", "max")),
        ("ETA error p50 / p90", _times(errors, "p50", "p90")),
        ("overshoot", format_number(report.overshoot)),
    ]
    rows += [(f"over {limit}", format_number(count)) for limit, count in over.items() if count]
    table = Table("", "", box=None, show_header=False)
    for label, figure in rows:
        table.add_row(label, Text(sanitize(figure)))
    return table


def _sold(report: EventReport) -> str:
    units = "" if report.units is None else f" of {format_number(report.units)}"
    return f"{format_number(report.sold)}{units} ({_SOLD_BY.get(report.sold_by or '', 'no sales reported')})"


def _times(seconds: dict[str, float | None], *names: str) -> str:
    found = [seconds.get(name) for name in names]
    return " / ".join(UNKNOWN if one is None else short_duration(one) for one in found)
