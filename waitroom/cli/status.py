"""``waitroom status``: the status of a running gateway's rooms, once or live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
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

from waitroom.cli.api_client import AdminClient, Answer, NoAnswer, Refused
from waitroom.cli.api_models import Room, Rooms
from waitroom.cli.console import PIPE_COLUMNS, ConfigFile, out, plain, show
from waitroom.cli.formatting import UNKNOWN, change_words, milliseconds, moment, number, of, wait
from waitroom.cli.gateway import AdminUrl, AsJson, TokenFile, gateway

EVERY_SECONDS = 1.0

_STYLES = {"open": "green", "paused": "yellow", "closed": "red", "sold_out": "red"}


@dataclass(slots=True)
class Sight:
    """The last known state of the rooms.

    Attributes:
        answer: The newest response.
        failure: Why later attempts failed; empty if they didn't.
        since: When the failures began, a time of day.
    """

    answer: Answer[Rooms] | None = None
    failure: str = ""
    since: str = ""

    def look(self, client: AdminClient) -> None:
        """Refreshes once. On failure, the last state is kept. Raises `Refused`."""
        try:
            self.answer = client.rooms()
        except NoAnswer as error:
            self.missed(str(error))
        else:
            self.failure = self.since = ""

    def missed(self, why: str) -> None:
        """Records a failed attempt."""
        self.since = self.since or moment(time.time(), "%H:%M:%S")
        self.failure = why

    def picture(self, console: Console) -> RenderableType:
        """Renders the last state, and since when there is no newer one."""
        parts: list[RenderableType] = [] if self.answer is None else [picture(self.answer.value.rooms, console)]
        if self.failure:
            parts.append(Text(f"No answer since {self.since}: {plain(self.failure)}", "bold red"))
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
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again each second, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how the rooms stand."""
    client = gateway(config, admin, token_file)
    if watch:
        with suppress(KeyboardInterrupt):
            watching(client, as_json=as_json, pause=time.sleep)
        return
    answer = client.rooms()
    if as_json:
        out.print_json(data=answer.raw["rooms"], ensure_ascii=True)
    else:
        show(picture(answer.value.rooms, out))


def watching(client: AdminClient, *, as_json: bool, pause: Callable[[float], None]) -> None:
    """Refreshes until ``pause`` raises. If the first attempt is rejected, there is no second one."""
    sight = Sight()
    live = out.is_terminal and not as_json
    with Live(console=out, auto_refresh=False) if live else nullcontext() as screen:
        for look in count():
            try:
                sight.look(client)
            except Refused as error:
                if not look:
                    raise
                sight.missed(str(error))
            if screen is not None:
                screen.update(sight.picture(out), refresh=True)
            elif as_json:
                typer.echo(json.dumps(sight.as_json()))
            else:
                show(sight.picture(out))
            pause(EVERY_SECONDS)


def picture(rooms: Sequence[Room], console: Console) -> RenderableType:
    """Renders the rooms: a row each, or a column each if the terminal is too narrow."""
    if not rooms:
        return Text("There is no room.")
    columns = [(heading, [cell(room) for room in rooms]) for heading, cell in _COLUMNS]
    wide = Table(*(heading for heading, _ in columns), box=None)
    for row in zip(*(cells for _, cells in columns), strict=True):
        wide.add_row(*row)
    words = [_words(room) for room in rooms]
    wanted = Measurement.get(console, console.options.update(max_width=PIPE_COLUMNS), wide).maximum
    if not console.is_terminal or wanted <= console.width:
        return Group(wide, *(line for lines in words for line in lines))
    heading, names = columns[0]
    tall = Table(heading, *(name.plain for name in names), box=None)
    for heading, cells in columns[1:]:
        tall.add_row(heading, *cells)
    return Group(tall, *(line for lines in words for line in lines))


def _state(room: Room) -> Text:
    if room.state is None:
        return Text("not seen yet", "yellow")
    word = "draining" if room.draining else room.state.replace("_", " ")
    return Text(plain(word), _STYLES.get(room.state, ""))


def _store(room: Room) -> Text:
    return Text("up", "green") if room.store_up else Text("doesn't answer", "bold red")


def _errors(room: Room) -> Text:
    if room.shop is None:
        return Text(UNKNOWN)
    failures = room.shop.failures_per_minute
    return Text(f"{number(failures)} a min", "red" if failures else "")


def _workers(room: Room) -> Text:
    if room.workers is None:
        return Text(UNKNOWN)
    alive, wanted = room.workers.alive, room.workers.wanted
    return Text(of(alive, wanted), "bold red" if wanted is not None and alive < wanted else "")


def _known(cell: Callable[[Room], str]) -> Callable[[Room], Text]:
    """Wraps a cell to show a dash for a room that was never seen."""
    return lambda room: Text(UNKNOWN if room.state is None else cell(room))


_COLUMNS: tuple[tuple[str, Callable[[Room], Text]], ...] = (
    ("room", lambda room: Text(plain(room.name), "bold")),
    ("state", _state),
    ("waiting", _known(lambda room: number(room.waiting))),
    ("called", _known(lambda room: number(room.called))),
    ("active", _known(lambda room: of(room.active, room.max_active))),
    ("a minute", _known(lambda room: of(room.admitted_per_minute, room.rate_per_minute))),
    ("wait", _known(lambda room: wait(room.wait_seconds.newcomer))),
    ("shop p95", lambda room: Text(UNKNOWN if room.shop is None else milliseconds(room.shop.p95_seconds))),
    ("errors", _errors),
    ("store", _store),
    ("workers", _workers),
)


def _words(room: Room) -> Iterator[Text]:
    """Yields remarks on a room besides its figures."""
    name = plain(room.name)
    if room.message:
        yield Text(f"{name} tells the waiting: {plain(room.message)}")
    if room.remaining is not None:
        yield Text(f"{name} has {number(room.remaining)} left")
    if room.autopilot is not None and room.autopilot.on:
        between = f"between {number(room.autopilot.floor)} and {number(room.autopilot.ceiling)} a minute"
        yield Text(f"{name} has its autopilot on, {between}. {plain(room.autopilot.summary)}".rstrip())
    if room.last_change is not None:
        yield Text(f"{name} was changed by {plain(change_words(room.last_change))}", "dim")
