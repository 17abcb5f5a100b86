"""The figures of the benchmarks as a table, as JSON and as a chart."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from html import escape
from math import isnan
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.processes import program

_SHADES = {"target": "green", "minimum": "yellow", "missed": "red", "unclear": "dim"}
SERVERS = ("nginx", "HAProxy", "Waitroom")


@dataclass(slots=True)
class Row:
    """A figure with a target.

    Attributes:
        key: The key in the JSON.
        what: A description of the figure.
        unit: The unit of the figure.
        rounds: The figure in each round.
        minimum, target: The result to reach at least, and the one to aim for.
        lower: Whether less is better.
        nginx: nginx's figure in each round, if it is a separate figure and not part of a ratio.
        costs: The cost on each server, with the unit.
        note: A remark.
    """

    key: str
    what: str
    unit: str
    rounds: list[float]
    minimum: float
    target: float
    lower: bool = False
    nginx: list[float] = field(default_factory=list)
    costs: dict[str, tuple[float, str]] = field(default_factory=dict)
    note: str = ""

    @property
    def figure(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def reached(self) -> str:
        """``target``, ``minimum``, ``missed``, or ``unclear`` if noise exceeds the difference to be detected."""
        if isnan(self.figure):
            return "unclear"
        for name, bound in (("target", self.target), ("minimum", self.minimum)):
            if self.figure <= bound if self.lower else self.figure >= bound:
                return name
        return "missed"

    @property
    def share_of_target(self) -> float:
        """The share of the target that is reached; 1 is all of it."""
        return self.target / self.figure if self.lower else self.figure / self.target

    @property
    def minimum_share(self) -> float:
        """The position of the minimum on that scale."""
        return self.target / self.minimum if self.lower else self.minimum / self.target


@dataclass(frozen=True, slots=True)
class Rate:
    """One server under full load. Times in microseconds; CPU times are per request."""

    what: str
    server: str
    per_second: float
    p50_us: float
    p99_us: float
    cpu_us: float
    store_us: float
    control_us: float


def machine(rounds: int, seconds: float, load_before: float) -> dict[str, str]:
    """Describes the machine and the time of the measurement."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{model}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "load before": f"{load_before:.2f}",
        "python": platform.python_version(),
        "waitroom": _output_of(sys.executable, "-P", "-m", "waitroom", "--version").partition(" ")[2],
        "commit": _output_of("git", "rev-parse", "--short", "HEAD"),
        "nginx": _output_of(program("nginx"), "-v").rpartition("/")[2],
        "haproxy": _output_of(program("haproxy"), "-v").partition("version ")[2].partition(" ")[0],
        "rounds": f"{rounds} of {seconds:g} s",
    }


def _output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    said = next(iter((done.stdout + done.stderr).splitlines()), "").strip()
    return said if done.returncode == 0 else "unknown"


def number(value: float) -> str:
    """Formats a figure with its significant digits."""
    if value == 0:
        return "0"
    digits = (
        0
        if abs(value) >= 100
        else 1
        if abs(value) >= 10
        else 2
        if abs(value) >= 0.1
        else 3
        if abs(value) >= 0.02
        else 5
    )
    return f"{value:,.{digits}f}"


def print_results(
    console: Console,
    rows: Sequence[Row],
    rates: Sequence[Rate],
    warnings: Sequence[str],
    environment: Mapping[str, str],
) -> None:
    """Prints all results."""
    console.print(", ".join(f"{name} {value}" for name, value in environment.items()))
    table = Table(title="Results")
    for name in ("what", *SERVERS, "figure", "rounds", "minimum", "target", "reached"):
        table.add_column(name, justify="left" if name in ("what", "reached", "rounds") else "right")
    for row in rows:
        result = {name: f"{number(value)} {unit}" for name, (value, unit) in row.costs.items()}
        if row.nginx:
            result["nginx"] = f"{number(median(row.nginx))} {row.unit}"
        table.add_row(
            row.what + (f"\n[dim]{row.note}[/dim]" if row.note else ""),
            *(result.get(name, "") for name in SERVERS),
            f"{number(row.figure)} {row.unit}",
            f"{number(min(row.rounds))} to {number(max(row.rounds))}",
            number(row.minimum),
            number(row.target),
            f"[{_SHADES[row.reached]}]{row.reached}",
        )
    console.print(table)
    table = Table(title="Under full load")
    for name in ("what", "server", "per second", "p50 ms", "p99 ms", "CPU µs", "store CPU µs", "control CPU µs"):
        table.add_column(name, justify="left" if name in ("what", "server") else "right")
    for rate in rates:
        times = (rate.p50_us / 1000, rate.p99_us / 1000, rate.cpu_us, rate.store_us, rate.control_us)
        table.add_row(rate.what, rate.server, f"{rate.per_second:,.0f}", *(number(value) for value in times))
    console.print(table)
    for line in warnings:
        console.print(f"[red]{line}", markup=True, highlight=False)


def write_json(
    path: Path, rows: Sequence[Row], rates: Sequence[Rate], warnings: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Writes all results, including every round's figure."""
    path.parent.mkdir(exist_ok=True)
    result = {
        "about": environment,
        "rows": [{**asdict(row), **_figure_json(row)} for row in rows],
        "rates": [asdict(rate) for rate in rates],
        "complaints": warnings,
    }
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _figure_json(row: Row) -> dict[str, object]:
    if isnan(row.figure):
        return {"figure": None, "rounds": [], "reached": row.reached}
    return {"figure": row.figure, "reached": row.reached}


def write_chart(path: Path, rows: Sequence[Row], environment: Mapping[str, str]) -> None:
    """Draws the reached share of each target, as SVG."""
    drawn = [row for row in rows if not isnan(row.figure)]
    left, width, line, top, longest = 470, 1120, 30, 86, 1.5
    scale = (width - left - 200) / longest
    colors = {"target": "#2e7d4f", "minimum": "#c28a1a", "missed": "#b3402e"}
    height = top + line * len(drawn) + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        ' font-family="system-ui, sans-serif" font-size="14">',
        "<title>Waitroom's speed against its targets</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#fcfcfa"/>',
        '<text x="24" y="34" font-size="18" font-weight="600" fill="#1c1c1a">Speed against the targets</text>',
        '<text x="24" y="56" fill="#5c5c58">Bars: share of the target (longer is better, cut at 1.5). '
        "Short marks: the minimum.</text>",
    ]
    for index, row in enumerate(drawn):
        y = top + index * line
        reach = min(longest, row.share_of_target) * scale
        mark = left + row.minimum_share * scale
        parts += [
            f'<text x="{left - 12}" y="{y + 15}" text-anchor="end" fill="#1c1c1a">{escape(_short(row.what))}</text>',
            f'<rect x="{left}" y="{y}" width="{reach:.1f}" height="20" rx="3" fill="{colors[row.reached]}"/>',
            f'<line x1="{mark:.1f}" y1="{y - 3}" x2="{mark:.1f}" y2="{y + 23}" stroke="#1c1c1a" stroke-width="2"/>',
            f'<text x="{left + max(reach, scale) + 8:.1f}" y="{y + 15}" fill="#1c1c1a">'
            f"{escape(f'{number(row.figure)} {row.unit}')}</text>",
        ]
    target = left + scale
    bottom = top + line * len(drawn)
    parts += [
        f'<line x1="{target:.1f}" y1="{top - 8}" x2="{target:.1f}" y2="{bottom}" stroke="#1c1c1a"'
        ' stroke-dasharray="4 4"/>',
        f'<text x="{target:.1f}" y="{top - 12}" text-anchor="middle" fill="#1c1c1a">target</text>',
        f'<text x="24" y="{bottom + 28}" fill="#5c5c58" font-size="12">'
        f"{escape(', '.join(environment[name] for name in ('taken', 'processor', 'system', 'rounds')))}</text>",
        "</svg>",
    ]
    path.write_text("\n".join(parts) + "\n")


def _short(what: str) -> str:
    return what if len(what) <= 60 else what[:59] + "…"
