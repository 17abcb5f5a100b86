"""``waitroom status``: the status of a running gateway's rooms, once or live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from waitroom.cli.api_client import AdminClient, ApiResponse, NoResponseError, RejectedError
from waitroom.cli.api_models import OverLimit, Room, Rooms
from waitroom.cli.console import PIPE_COLUMNS, ConfigFile, out, print_renderable, sanitize
from waitroom.cli.formatting import (
    UNKNOWN,
    describe_change,
    describe_event,
    format_latency,
    format_number,
    format_time,
    format_wait,
    out_of,
)
from waitroom.cli.gateway import AdminUrl, AsJson, TokenFile, gateway

REFRESH_SECONDS = 1.0

_STYLES = {"open": "green", "prequeue": "yellow", "paused": "yellow", "closed": "red", "sold_out": "red"}


@dataclass(slots=True)
class StatusView:
    """The last known state of the rooms.

    Attributes:
        answer: The newest response.
        failure: Why later attempts failed; empty if they didn't.
        since: When the failures began, a time of day.
    """

    answer: ApiResponse[Rooms] | None = None
    failure: str = ""
    since: str = ""

    def refresh(self, client: AdminClient) -> None:
        """Refreshes once. On failure, the last state is kept. Raises `RejectedError`."""
        try:
            self.answer = client.rooms()
        except NoResponseError as error:
            self.record_failure(str(error))
        else:
            self.failure = self.since = ""

    def record_failure(self, why: str) -> None:
        """Records a failed attempt."""
        self.since = self.since or format_time(time.time(), "%H:%M:%S")
        self.failure = why

    def render(self, console: Console) -> RenderableType:
        """Renders the last state, and since when there is no newer one."""
        parts: list[RenderableType] = [] if self.answer is None else [render(self.answer.value.rooms, console)]
        if self.failure:
            parts.append(Text(f"No response since {self.since}: {sanitize(self.failure)}", "bold red"))
        return Group(*parts)

    def as_json(self) -> dict[str, object]:
        """Returns the same, for programs."""
        if self.failure or self.answer is None:
            return {"no_answer_since": self.since, "why": self.failure}
        return {"rooms": self.answer.raw["rooms"]}


def status(
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every second until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the status of the rooms."""
    client = gateway(config, admin, token_file)
    if watch:
        with suppress(KeyboardInterrupt):
            watch_rooms(client, as_json=as_json, pause=time.sleep)
        return
    answer = client.rooms()
    if as_json:
        out.print_json(data=answer.raw["rooms"], ensure_ascii=True)
    else:
        print_renderable(render(answer.value.rooms, out))


def watch_rooms(client: AdminClient, *, as_json: bool, pause: Callable[[float], None]) -> None:
    """Refreshes until ``pause`` raises. If the first attempt is rejected, there is no second one."""
    view = StatusView()
    live = out.is_terminal and not as_json
    with Live(console=out, auto_refresh=False) if live else nullcontext() as screen:
        for attempt in count():
            try:
                view.refresh(client)
            except RejectedError as error:
                if not attempt:
                    raise
                view.record_failure(str(error))
            if screen is not None:
                screen.update(view.render(out), refresh=True)
            elif as_json:
                typer.echo(json.dumps(view.as_json()))
            else:
                print_renderable(view.render(out))
            pause(REFRESH_SECONDS)


def render(rooms: Sequence[Room], console: Console) -> RenderableType:
    """Renders the rooms: a row each, or a column each if the terminal is too narrow."""
    if not rooms:
        return Text("No rooms.")
    columns = [(heading, [cell(room) for room in rooms]) for heading, cell in _COLUMNS]
    wide = Table(*(heading for heading, _ in columns), box=None)
    for row in zip(*(cells for _, cells in columns), strict=True):
        wide.add_row(*row)
    remarks = [_remarks(room) for room in rooms]
    wanted = Measurement.get(console, console.options.update(max_width=PIPE_COLUMNS), wide).maximum
    if not console.is_terminal or wanted <= console.width:
        return Group(wide, *(line for lines in remarks for line in lines))
    heading, names = columns[0]
    tall = Table(heading, *(name.plain for name in names), box=None)
    for heading, cells in columns[1:]:
        tall.add_row(heading, *cells)
    return Group(tall, *(line for lines in remarks for line in lines))


def _state(room: Room) -> Text:
    if room.state is None:
        return Text("unknown", "yellow")
    word = "draining" if room.draining else room.state.replace("_", " ")
    return Text(sanitize(word), _STYLES.get(room.state, ""))


def _store(room: Room) -> Text:
    return Text("up", "green") if room.store_up else Text("unavailable", "bold red")


def _errors(room: Room) -> Text:
    if room.shop is None:
        return Text(UNKNOWN)
    failures = room.shop.failures_per_minute
    return Text(f"{format_number(failures)}/min", "red" if failures else "")


def _workers(room: Room) -> Text:
    if room.workers is None:
        return Text(UNKNOWN)
    alive, wanted = room.workers.alive, room.workers.wanted
    return Text(out_of(alive, wanted), "bold red" if wanted is not None and alive < wanted else "")


def _known(cell: Callable[[Room], str]) -> Callable[[Room], Text]:
    """Wraps a cell to show a dash for a room that was never seen."""
    return lambda room: Text(UNKNOWN if room.state is None else cell(room))


_COLUMNS: tuple[tuple[str, Callable[[Room], Text]], ...] = (
    ("room", lambda room: Text(sanitize(room.name), "bold")),
    ("state", _state),
    ("waiting", _known(lambda room: format_number(room.waiting))),
    ("called", _known(lambda room: format_number(room.called))),
    ("active", _known(lambda room: out_of(room.active, room.max_active))),
    ("admitted/min", _known(lambda room: out_of(room.admitted_per_minute, room.rate_per_minute))),
    ("wait", _known(lambda room: format_wait(room.wait_seconds.newcomer))),
    ("shop p95", lambda room: Text(UNKNOWN if room.shop is None else format_latency(room.shop.p95_seconds))),
    ("errors", _errors),
    ("store", _store),
    ("workers", _workers),
)


def _remarks(room: Room) -> Iterator[Text]:
    """Yields remarks on a room besides its figures."""
    name = sanitize(room.name)
    if room.store_problem:
        yield Text(f"{name}: {sanitize(room.store_problem)}", "red")
    if room.message:
        yield Text(f"{name}: message to waiting visitors: {sanitize(room.message)}")
    if room.event is not None:
        yield Text(f"{name}: {sanitize(describe_event(room.event, time.time()))}")
    if room.remaining is not None:
        yield Text(f"{name}: {format_number(room.remaining)} left in stock")
    if room.over_limit is not None:
        yield Text(f"{name}: passthrough. {_over_limits(room.over_limit)}")
    if room.autopilot is not None and room.autopilot.on:
        between = (
            f"between {format_number(room.autopilot.floor)} and {format_number(room.autopilot.ceiling)} per minute"
        )
        yield Text(f"{name}: autopilot on, {between}. {sanitize(room.autopilot.summary)}".rstrip())
    if room.last_change is not None:
        yield Text(f"{name}: last change by {sanitize(describe_change(room.last_change))}", "dim")


def _over_limits(over: Mapping[str, OverLimit]) -> str:
    figures = []
    for limit in ("rate", "max_active"):
        one = over.get(limit, OverLimit())
        figures.append(f"{limit}: {format_number(one.total)} ({format_number(one.per_minute)}/min)")
    return f"Visitors that each limit would have held: {', '.join(figures)}"
