"""The commands that query a room's history, its autopilot, its differences from the settings file and the audit log."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from waitroom.cli.api_models import Entry, Sample
from waitroom.cli.console import CommandError, ConfigFile, ExitCode, err, out, print_line, print_renderable, sanitize
from waitroom.cli.formatting import format_latency, format_number, format_time, format_wait, out_of, sparkline
from waitroom.cli.gateway import AdminUrl, AsJson, RoomName, TokenFile, explain_unknown_room, gateway

ROWS = 20
LINE_WIDTH = 60
PAGE = 1000
MAX_HISTORY_SECONDS = 21_600
MAX_DECISIONS = 500

audit_app = typer.Typer(
    name="audit",
    help="Show, export and verify the audit log.",
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
)


def history(
    room: RoomName,
    seconds: Annotated[
        int,
        typer.Option(
            "--seconds", "-s", help="Length of the history in seconds.", min=1, max=MAX_HISTORY_SECONDS, metavar="N"
        ),
    ] = 3600,
    as_json: AsJson = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Show the history of a room."""
    client = gateway(config, admin, token_file)
    with explain_unknown_room(client, room):
        answer = client.history(room, seconds)
    if as_json:
        out.print_json(data=answer.raw["samples"], ensure_ascii=True)
        return
    samples = answer.value.samples
    if not samples:
        print_line(f"There is no history of {room} from the last {format_number(seconds)} seconds.")
        return
    lines = Table("", "", "min", "max", "now", box=None, show_header=True)
    for label, values in _series(samples):
        known = [value for value in values if value is not None]
        ends = (format_number(min(known)), format_number(max(known))) if known else ("-", "-")
        lines.add_row(label, Text(sparkline(values, LINE_WIDTH), "cyan"), *ends, format_number(values[-1]))
    print_renderable(lines)
    print_renderable(_history_table(samples))


def decisions(
    room: RoomName,
    count: Annotated[
        int,
        typer.Option("--count", "-n", help="Number of decisions, newest first.", min=1, max=MAX_DECISIONS, metavar="N"),
    ] = ROWS,
    as_json: AsJson = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Show the decisions of a room's autopilot."""
    client = gateway(config, admin, token_file)
    with explain_unknown_room(client, room):
        answer = client.decisions(room, count)
    if as_json:
        out.print_json(data=answer.raw["decisions"], ensure_ascii=True)
        return
    table = Table("time", "action", "rate/min", "reason", box=None)
    for one in answer.value.decisions:
        did = one.move.replace("_", " ")
        cells = (format_time(one.at, "%Y-%m-%d %H:%M:%S"), did, format_number(one.rate_per_minute), one.summary)
        table.add_row(*(Text(sanitize(cell)) for cell in cells))
    if table.row_count:
        print_renderable(table)
    else:
        print_line(f"No decisions of the autopilot of {room} yet.")


def diff(
    room: Annotated[str | None, typer.Argument(metavar="[ROOM]", help="The room's name; default: all rooms.")] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Show where rooms differ from the settings file."""
    client = gateway(config, admin, token_file)
    names = [room] if room is not None else [one.name for one in client.rooms().value.rooms]
    with contextlib.ExitStack() as stack:
        if room is not None:
            stack.enter_context(explain_unknown_room(client, room))
        answers = {name: client.diff(name) for name in names}
    if as_json:
        out.print_json(data={name: answer.raw for name, answer in answers.items()}, ensure_ascii=True)
        return
    table = Table("room", "setting", "file", "running", box=None)
    for name, answer in answers.items():
        for key in answer.value.differs:
            file, running = answer.value.file.get(key), answer.value.running.get(key)
            table.add_row(*(Text(sanitize(cell)) for cell in (name, key, _cell(file), _cell(running))))
    if table.row_count:
        print_renderable(table)
    else:
        print_line(f"{', '.join(names)}: no differences from the settings file.")


@audit_app.callback()
def audit(
    context: typer.Context, config: ConfigFile = None, admin: AdminUrl = None, token_file: TokenFile = None
) -> None:
    """Show the audit log, export it, or verify its integrity."""
    if context.invoked_subcommand is None:
        audit_show(config=config, admin=admin, token_file=token_file)
    elif config or admin or token_file:
        raise CommandError(
            ExitCode.INVALID_INPUT,
            "waitroom audit",
            f"put options after {context.invoked_subcommand}, not before it",
        )


@audit_app.command("show")
def audit_show(
    count: Annotated[
        int, typer.Option("--count", "-n", help="Number of entries, newest first.", min=1, max=PAGE, metavar="N")
    ] = ROWS,
    room: Annotated[str | None, typer.Option("--room", help="Only this room.", metavar="ROOM")] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Show the newest entries."""
    client = gateway(config, admin, token_file)
    found: list[tuple[Entry, object]] = []
    before: str | None = None
    while len(found) < count:
        answer = client.audit(PAGE if room else count, before)
        pairs = list(zip(answer.value.entries, answer.raw["entries"], strict=True))
        found += [pair for pair in pairs if room is None or pair[0].room == room]
        if room is None or len(pairs) < PAGE:
            break
        before = pairs[-1][0].id
    found = found[:count]
    if as_json:
        out.print_json(data=[raw for _, raw in found], ensure_ascii=True)
        return
    table = Table("time", "actor", "source", "action", "room", "change", "note", box=None)
    for entry, _ in found:
        did = entry.action if entry.outcome != "refused" else f"{entry.action} (refused)"
        when = format_time(entry.at, "%Y-%m-%d %H:%M:%S")
        origin = f"{entry.address} {entry.via}".strip()
        cells = (when, entry.who, origin, did, entry.room, _difference(entry.old, entry.new), entry.note)
        table.add_row(*(Text(sanitize(cell)) for cell in cells), style="red" if entry.outcome == "refused" else "")
    if found:
        print_renderable(table)
    else:
        print_line("No audit entries.")


@audit_app.command("export")
def audit_export(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write to this file, completely or not at all.", metavar="FILE"),
    ] = None,
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Export all entries as JSON Lines.

    Oldest first.
    """
    lines = gateway(config, admin, token_file).export()
    if output is None:
        for line in lines:
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return
    try:
        written = write_whole(output, lines)
    except OSError as error:
        raise CommandError(ExitCode.INVALID_INPUT, "--output", f"can't write {output}: {error.strerror}") from None
    err.print(f"{format_number(written)} entries in {output}", markup=False, soft_wrap=True)


@audit_app.command("verify")
def audit_verify(
    as_json: AsJson = False, config: ConfigFile = None, admin: AdminUrl = None, token_file: TokenFile = None
) -> None:
    """Verify the integrity of the audit log.

    Exits with 1 if an entry was altered or is missing.
    """
    answer = gateway(config, admin, token_file).verify()
    verdict = answer.value
    if as_json:
        out.print_json(data=answer.raw, ensure_ascii=True)
    elif verdict.intact:
        print_line(verdict.summary)
    if not verdict.intact:
        raise CommandError(ExitCode.FAILURE, "Audit log not intact", verdict.summary)


def _series(samples: Sequence[Sample]) -> Iterator[tuple[str, list[float | None]]]:
    yield "waiting", [float(sample.waiting) for sample in samples]
    yield "active", [float(sample.active) for sample in samples]
    yield "admitted/min", _rates(samples)
    yield "shop p95, ms", [_shop_ms(sample) for sample in samples]


def _rates(samples: Sequence[Sample]) -> list[float | None]:
    """Returns admissions per minute between consecutive samples; None for the first, and after a counter restarted."""
    paces: list[float | None] = [None]
    for before, after in itertools.pairwise(samples):
        seconds, admitted = after.at - before.at, after.admitted - before.admitted
        paces.append(admitted * 60 / seconds if seconds > 0 and admitted >= 0 else None)
    return paces


def _shop_ms(sample: Sample) -> float | None:
    if sample.shop is None or sample.shop.p95_seconds is None:
        return None
    return sample.shop.p95_seconds * 1000


def _history_table(samples: Sequence[Sample]) -> Table:
    """Shows at most `ROWS` samples, evenly chosen, the newest last; the rate covers the time between two rows."""
    count = min(ROWS, len(samples))
    chosen = [samples[(index + 1) * len(samples) // count - 1] for index in range(count)]
    table = Table(
        "time", "state", "waiting", "called", "active", "admitted/min", "wait", "shop p95", "errors", box=None
    )
    for sample, pace in zip(chosen, _rates([samples[0], *chosen])[1:], strict=True):
        shop = sample.shop
        cells = (
            *(format_time(sample.at, "%d %b %H:%M:%S"), sample.state.replace("_", " "), format_number(sample.waiting)),
            *(
                format_number(sample.called),
                out_of(sample.active, sample.max_active),
                out_of(pace, sample.rate_per_minute),
            ),
            *(format_wait(sample.wait_seconds), "-" if shop is None else format_latency(shop.p95_seconds)),
            "-" if shop is None else f"{format_number(shop.failures_per_minute)}/min",
        )
        table.add_row(*(Text(sanitize(cell)) for cell in cells))
    return table


def _cell(value: float | str | None) -> str:
    return value if isinstance(value, str) else format_number(value)


def _difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """Describes the difference in an entry, such as ``rate_per_minute 300 -> 600``."""
    parts = [f"{name} {old[name]} -> {new.get(name)}" if name in old else f"{name} {new[name]}" for name in new]
    return ", ".join(parts + [f"{name} {value}" for name, value in old.items() if name not in new])


def write_whole(path: Path, lines: Iterator[bytes]) -> int:
    """Writes the lines to a file atomically; returns their number."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    count = 0
    try:
        with os.fdopen(descriptor, "wb") as file:
            for line in lines:
                file.write(line)
                count += 1
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return count
