"""The output of a drill: figures while it runs, and the summary at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from waitroom.drill.load.crowd import Crowd
from waitroom.drill.load.visitor import Outcome
from waitroom.drill.scraping import RoomStats, ShopStats

_BAR_WIDTH = 32
_LABEL_WIDTH = 22
_PLAIN_EVERY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The drill at one moment.

    Attributes:
        elapsed: Seconds since the first arrival.
        seconds: The maximum duration in seconds.
        arrived: Visitors who have arrived so far.
        waiting: Visitors in the queue.
        called: Visitors whose turn it is; None if the gateway didn't report it.
        active: Visitors in the shop.
        max_active: The maximum of visitors in the shop.
        admitted: Visitors admitted so far.
        per_minute: The recent admission rate.
        sold: Orders placed.
        errors: Requests that failed.
    """

    elapsed: float
    seconds: float
    arrived: int
    waiting: int
    called: int | None
    active: int
    max_active: int
    admitted: int
    per_minute: float
    sold: int
    errors: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """The effect of the same crowd on the same shop without a gateway.

    Attributes:
        seconds: The duration.
        requests: Completed requests.
        failures: Failed requests.
        sold: Orders placed.
    """

    seconds: float
    requests: int
    failures: int
    sold: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a drill.

    Attributes:
        seconds: The duration.
        visitors: Visitors planned.
        arrived: Visitors who arrived.
        joined: Visitors who had to wait in the queue.
        admitted: Visitors who reached the shop.
        outcomes: The number of visits by outcome.
        waits: The waits of admitted visitors in seconds, shortest first.
        requests: Completed requests.
        errors: Failed requests, by kind.
        slowest_seconds: The longest time a page took.
        shop: The shop's own figures; None if it no longer responded.
        room: The gateway's own figures; None if it no longer responded.
        baseline: The result without the gateway; None if that wasn't tried.
    """

    seconds: float
    visitors: int
    arrived: int
    joined: int
    admitted: int
    outcomes: Mapping[Outcome, int]
    waits: Sequence[float]
    requests: int
    errors: Mapping[str, int]
    slowest_seconds: float
    shop: ShopStats | None
    room: RoomStats | None
    baseline: Baseline | None

    @classmethod
    def of(
        cls,
        crowd: Crowd,
        seconds: float,
        shop: ShopStats | None,
        room: RoomStats | None,
        baseline: Baseline | None,
    ) -> Self:
        """Summarize the results of a crowd."""
        return cls(
            seconds=seconds,
            visitors=crowd.plan.visitors,
            arrived=crowd.arrived(),
            joined=crowd.joined(),
            admitted=crowd.admitted(),
            outcomes={outcome: crowd.count(outcome) for outcome in Outcome},
            waits=crowd.waits(),
            requests=crowd.tally.requests,
            errors=dict(crowd.tally.kinds),
            slowest_seconds=crowd.tally.slowest_seconds,
            shop=shop,
            room=room,
            baseline=baseline,
        )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value such that at least this share of the values doesn't exceed it.

    Args:
        ordered: The values, smallest first.
        share: 0 to 1; 0.5 is the median.

    Raises:
        ValueError: There are no values.
    """
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary_report(summary: Summary) -> RenderableType:
    """Render the summary for the end of a drill."""
    parts: list[RenderableType] = [_visitors(summary), _shop(summary)]
    if summary.baseline is not None:
        parts.append(_comparison(summary, summary.baseline))
    return Group(*parts)


def _visitors(summary: Summary) -> Table:
    table = _table("Visitors")
    table.add_row("arrived", f"{summary.arrived:,} of {summary.visitors:,} in {_duration(summary.seconds)}")
    table.add_row("joined the queue", f"{summary.joined:,}")
    table.add_row("admitted", f"{summary.admitted:,}")
    for outcome in Outcome:
        if outcome is not Outcome.NOT_ARRIVED and (count := summary.outcomes[outcome]):
            table.add_row(outcome.value, f"{count:,}")
    if summary.waits:
        shown = [quantile(summary.waits, share) for share in (0.5, 0.9, 1)]
        table.add_row("waited", "p50 {}, p90 {}, max {}".format(*map(_duration, shown)))
    else:
        table.add_row("waited", "no admissions from the queue")
    return table


def _shop(summary: Summary) -> Table:
    table = _table("Shop")
    if summary.shop is not None:
        table.add_row("sold", f"{summary.shop.orders:,} ({summary.shop.stock:,} left)")
        table.add_row("failed requests", f"{summary.shop.failures:,} of {summary.shop.requests:,}")
        table.add_row("peak in flight", f"{summary.shop.peak_in_flight:,} requests")
    errors = ", ".join(f"{count:,} by {kind}" for kind, count in sorted(summary.errors.items()))
    table.add_row("visitor errors", errors or "none")
    table.add_row("slowest page", _duration(summary.slowest_seconds))
    if summary.room is not None and summary.room.overshoots is not None:
        table.add_row("limits exceeded", f"{summary.room.overshoots:,} times")
    return table


def _comparison(summary: Summary, baseline: Baseline) -> Text:
    without = f"{baseline.failures:,} of {baseline.requests:,} requests failed"
    failures = sum(summary.errors.values())
    return Text.assemble(
        "\n",
        ("without Waitroom: ", "bold"),
        (without, "bold red" if baseline.failures else ""),
        f", {baseline.sold:,} sold in {_duration(baseline.seconds)}\n",
        ("with Waitroom:    ", "bold"),
        (f"{failures:,} of {summary.requests:,} requests failed", "bold green" if not failures else "bold"),
        f", {summary.outcomes[Outcome.BOUGHT]:,} sold in {_duration(summary.seconds)}\n",
    )


def _table(title: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True, min_width=_LABEL_WIDTH)
    table.add_column()
    return table


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


class Progress:
    """The figures while a drill runs: live in a terminal, otherwise one line every few seconds.

    Args:
        console: The console for the output.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        # Drawn only from the event loop: rich's own refresh thread would just draw the same figures again.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._next_line = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show a moment; without a terminal, only every few seconds."""
        if self._console.is_terminal:
            self._live.update(_panel(snapshot), refresh=True)
        elif snapshot.elapsed >= self._next_line:
            self._next_line = snapshot.elapsed + _PLAIN_EVERY_SECONDS
            self._console.print(_line(snapshot), highlight=False, soft_wrap=True)


def _panel(snapshot: Snapshot) -> Panel:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(justify="right", style="bold")
    rows.add_column(justify="right", min_width=7)
    rows.add_column(width=_BAR_WIDTH)
    rows.add_column(style="dim")
    rows.add_row(
        "waiting",
        f"{snapshot.waiting:,}",
        _bar(snapshot.waiting, snapshot.arrived, "yellow"),
        f"of {snapshot.arrived:,} arrived",
    )
    rows.add_row("called", "-" if snapshot.called is None else f"{snapshot.called:,}", "", "may enter now")
    rows.add_row(
        "active",
        f"{snapshot.active:,}",
        _bar(snapshot.active, snapshot.max_active, "cyan"),
        f"of {snapshot.max_active:,} allowed in the shop",
    )
    rows.add_row(
        "admitted",
        f"{snapshot.admitted:,}",
        _bar(snapshot.admitted, snapshot.arrived, "green"),
        f"{snapshot.per_minute:,.0f} per minute",
    )
    rows.add_row("sold", f"{snapshot.sold:,}", _bar(snapshot.sold, snapshot.arrived, "green"), "")
    rows.add_row("errors", Text(f"{snapshot.errors:,}", "bold red" if snapshot.errors else "green"), "", "")
    title = f"Waitroom demo · {snapshot.elapsed:.0f} of {snapshot.seconds:.0f} s · Ctrl-C to stop"
    return Panel(rows, title=title, expand=False, padding=(1, 2))


def _bar(done: float, of: float, style: str) -> ProgressBar:
    return ProgressBar(total=max(of, 1), completed=done, width=_BAR_WIDTH, complete_style=style, finished_style=style)


def _line(snapshot: Snapshot) -> str:
    called = "" if snapshot.called is None else f"called {snapshot.called:,}  "
    return (
        f"{snapshot.elapsed:3.0f} s  waiting {snapshot.waiting:,}  {called}"
        f"active {snapshot.active:,} of {snapshot.max_active:,}  "
        f"admitted {snapshot.admitted:,} ({snapshot.per_minute:,.0f}/min)  sold {snapshot.sold:,}  "
        f"errors {snapshot.errors:,}"
    )
