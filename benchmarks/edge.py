"""How fast the edge is, measured against nginx and HAProxy in one run: ``python -m benchmarks.edge``.

The server under test has its own core; the load, the shop, the control process and the store share the others.
Servers take turns within a round, and a figure is the median of the rounds. The figure to trust is CPU time per
request, as a ratio to nginx's in the same round: it is least affected by other load on the machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks.drip import drip_rows
from benchmarks.load import CONNECTIONS, NAVIGATION, POLL, Figures, Workload, Wrk, at_rate, crowd, fetch, open_idle
from benchmarks.processes import cores, cpu_seconds, memory_bytes, raise_file_limit
from benchmarks.report import Rate, Row, machine, print_results, write_chart, write_json
from benchmarks.servers import ROOM, Gateway, Server, Testbed

VISITORS = 60_542
ADMITTED = 200
SUBSET = 2_000
FEW, MANY = 1_000, 1_000_000
IDLE_CONNECTIONS = 10_000
CROWD_CONNECTIONS = 512
LOAD_SHARE = 0.2
VIEW_SECONDS = 10.0
HERE = Path(__file__).parent
STATUS_PATH = f"/.waitroom/status?room={ROOM}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One run, with its costs outside the server under test; zeros if there are none.

    Attributes:
        store_us: CPU time of the store per request, in microseconds.
        control_us: CPU time of the control process per request, in microseconds.
        calls: Store commands per request, including the gateway's own regular ones.
    """

    figures: Figures
    store_us: float
    control_us: float
    calls: float


class Bench:
    """The benchmarks and their results.

    Args:
        field: Starts the servers.
        rounds: The number of rounds.
        seconds: The length of one run.
    """

    def __init__(self, field: Testbed, rounds: int, seconds: float) -> None:
        self.rows: list[Row] = []
        self.rates: list[Rate] = []
        self.warnings: list[str] = []
        self._field = field
        self._rounds = rounds
        self._seconds = seconds
        self._wrk = Wrk(field.folder)

    def run(self, wanted: str) -> None:
        """Measures everything, or the parts whose names contain ``wanted``."""
        with self._field.shop() as shop, self._field.nginx(shop) as nginx, self._field.haproxy(shop) as haproxy:
            parts: Mapping[str, Callable[[], None]] = {
                "memory": lambda: self._memory(shop, nginx),
                "admitted": lambda: self._admitted(shop, nginx, haproxy),
                "forward-auth": lambda: self._forward_auth(shop, nginx),
                "waiting": lambda: self._waiting(shop, nginx, haproxy),
                "length": lambda: self._length(shop),
                "drip": lambda: self._drip(shop, nginx),
                "crowd": lambda: self._crowd(shop),
            }
            for name, part in parts.items():
                if wanted in name:
                    print(f"{name} …", flush=True)
                    part()

    @contextmanager
    def _waitroom(
        self,
        name: str,
        shop: Server,
        *,
        max_active: int = 1,
        workers: int = 1,
        pinned: bool = True,
        trusted_proxies: Sequence[str] = (),
    ) -> Iterator[Gateway]:
        with self._field.waitroom(
            name, shop, max_active=max_active, workers=workers, pinned=pinned, trusted_proxies=trusted_proxies
        ) as gateway:
            yield gateway
            self.warnings += [f"{name}: {line}" for line in gateway.warnings()]

    # The benchmarks.

    def _memory(self, shop: Server, nginx: Server) -> None:
        """Memory of an idle connection on which a waiting visitor has sent one request."""

        def per_connection(server: Server, work: Workload) -> float:
            for one in open_idle(server, work, 500):
                one.close()
            time.sleep(1)
            before = memory_bytes(server.pids)
            made = open_idle(server, work, IDLE_CONNECTIONS)
            time.sleep(1)
            grown = memory_bytes(server.pids) - before
            for one in made:
                one.close()
            return grown / IDLE_CONNECTIONS / 1024

        ours, theirs = [], []
        for number in range(min(self._rounds, 3)):
            with self._waitroom(f"memory-{number}", shop) as gateway:
                first, generation = gateway.fill_queue(FEW)
                work = Workload(STATUS_PATH, POLL, gateway.tickets(first, generation, FEW, 1))
                ours.append(per_connection(gateway, work))
                theirs.append(per_connection(nginx, Workload("/.waitroom/status", POLL)))
        what = f"memory per idle keep-alive connection, {IDLE_CONNECTIONS:,} open"
        self.rows.append(Row("memory", what, "KB", ours, 12, 6, lower=True, nginx=theirs))

    def _admitted(self, shop: Server, nginx: Server, haproxy: Server) -> None:
        """Admitted requests, downloads, and the latency that the edge adds."""
        with self._waitroom("admitted", shop, max_active=ADMITTED + 10) as gateway:
            passes = [self._admit(gateway) for _ in range(ADMITTED)]
            work = Workload("/concerts/autumn/", NAVIGATION, passes)
            idle = self._idle_calls(gateway)
            samples = self._interleave(
                {"nginx": (nginx, work), "HAProxy": (haproxy, work), "Waitroom": (gateway, work)}
            )
            self._compare_with_nginx("admitted", "admitted request, small answer", samples, 0.33, 0.5)
            self._calls("admitted", "admitted request", samples["Waitroom"], idle)
            for size, connections, targets in (("1mb", 8, (0.5, 0.8)), ("100mb", 2, (0.5, 0.8))):
                self._download(
                    size, connections, targets, passes, {"nginx": nginx, "HAProxy": haproxy, "Waitroom": gateway}
                )
            per_second = LOAD_SHARE * median(sample.figures.per_second for sample in samples["Waitroom"])
            self._added_latency(per_second, Workload(work.path, NAVIGATION, passes[:1]), shop, nginx, haproxy, gateway)

    def _forward_auth(self, shop: Server, nginx: Server) -> None:
        """Admitted requests through nginx that asks Waitroom, against nginx alone; CPU time of all processes."""
        with (
            self._waitroom("asked", shop, max_active=ADMITTED + 10, trusted_proxies=("127.0.0.1",)) as gateway,
            self._field.nginx_asking(shop, gateway) as asking,
        ):
            work = Workload("/concerts/autumn/", NAVIGATION, [self._admit(gateway) for _ in range(ADMITTED)])
            samples = self._interleave({"nginx": (nginx, work), "Waitroom": (asking, work)})
            what = "admitted request, nginx with auth_request, CPU of all processes"
            self._compare_with_nginx("forward-auth", what, samples, 0.2, 0.3)

    def _admit(self, gateway: Gateway) -> str:
        """Sends a newcomer's navigation to a room with free slots; returns the pass."""
        status, _, cookies = fetch(gateway, Workload("/", NAVIGATION))
        found = next((line.partition(";")[0] for line in cookies if line.startswith("waitroom_pass_")), None)
        if status != 200 or found is None:
            raise SystemExit(f"a newcomer wasn't admitted: {status} {cookies}")
        return found

    def _download(
        self,
        size: str,
        connections: int,
        targets: tuple[float, float],
        passes: list[str],
        servers: Mapping[str, Server],
    ) -> None:
        work = Workload(f"/files/{size}", NAVIGATION, passes)
        found = self._interleave({name: (server, work) for name, server in servers.items()}, connections)
        costs = {name: [sample.figures.cpu_ns_per_byte for sample in samples] for name, samples in found.items()}
        ratios = [theirs / ours for theirs, ours in zip(costs["nginx"], costs["Waitroom"], strict=True)]
        what = f"{size.upper().replace('M', ' M')} download, CPU per byte"
        row = Row(f"download-{size}", what, "nginx ÷ Waitroom", ratios, *targets)
        row.costs = {name: (median(values), "ns/B") for name, values in costs.items()}
        self.rows.append(row)

    def _added_latency(
        self, per_second: float, work: Workload, shop: Server, nginx: Server, haproxy: Server, gateway: Gateway
    ) -> None:
        servers = {"direct": shop, "nginx": nginx, "HAProxy": haproxy, "Waitroom": gateway}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
        for _ in range(self._rounds):
            for name, server in servers.items():
                found[name].append(at_rate(server, work, per_second, self._seconds))
        for index, name in enumerate(("p50", "p99")):
            times = {server: median(both[index] for both in pairs) for server, pairs in found.items()}
            direct = times.pop("direct")
            added = {server: time - direct for server, time in times.items()}
            ratio = added["Waitroom"] / added["nginx"] if added["nginx"] > 0 else nan
            what = f"added latency at {LOAD_SHARE:.0%} load ({per_second:,.0f}/s), {name}"
            row = Row(f"latency-{name}", what, "x nginx's", [ratio], 3, 1.5, lower=True)
            row.costs = {server: (value, "µs") for server, value in added.items()}
            row.note = f"direct: {direct:,.0f} µs"
            self.rows.append(row)

    def _waiting(self, shop: Server, nginx: Server, haproxy: Server) -> None:
        """Polls and newcomers while 60,542 visitors wait."""
        static = Workload("/.waitroom/status", POLL)
        with self._waitroom("waiting", shop) as gateway:
            first, generation = gateway.fill_queue(VISITORS)
            everyone = Workload(STATUS_PATH, POLL, gateway.tickets(first, generation, VISITORS, VISITORS))
            some = Workload(STATUS_PATH, POLL, gateway.tickets(first, generation, VISITORS, SUBSET))
            self._assert_waiting(gateway, everyone, VISITORS)
            idle = self._idle_calls(gateway)
            samples = self._interleave(
                {
                    "nginx": (nginx, static),
                    "HAProxy": (haproxy, static),
                    "Waitroom": (gateway, everyone),
                    "some": (gateway, some),
                }
            )
            self._assert_waiting(gateway, everyone, VISITORS)
            few = samples.pop("some")
            what = f"waiting visitor's poll, {VISITORS:,} waiting"
            self._compare_with_nginx("poll", f"{what}, all poll in turn", samples, 0.35, 0.6)
            self._compare_with_nginx(
                "poll-some", f"{what}, {SUBSET:,} of them poll", {**samples, "Waitroom": few}, 0.35, 0.6
            )
            self._calls("poll", "waiting poll", samples["Waitroom"], idle)
            self._newcomers(gateway, nginx, static)

    def _newcomers(self, gateway: Gateway, nginx: Server, static: Workload) -> None:
        before = gateway.waiting()
        work = Workload("/concerts/autumn/", NAVIGATION, refused=True)
        samples = self._interleave({"nginx": (nginx, static), "Waitroom": (gateway, work)})
        came = gateway.waiting() - before
        answered = sum(sample.figures.requests for sample in samples["Waitroom"])
        if came < answered:
            self.warnings.append(f"{answered:,} newcomers were answered, but only {came:,} are in the queue")
        ours = samples["Waitroom"]
        costs = {"nginx": (median(sample.figures.cpu_us for sample in samples["nginx"]), "µs (static)")}
        for key, what, values in (
            ("newcomer-edge", "new visitor to waiting page, edge", [sample.figures.cpu_us for sample in ours]),
            ("newcomer-store", "new visitor to waiting page, store", [sample.store_us for sample in ours]),
        ):
            row = Row(key, what, "µs CPU", values, 160, 80, lower=True)
            row.costs = {**costs, "Waitroom": (median(values), "µs")}
            self.rows.append(row)
        self._rate("new visitor", "Waitroom", ours)

    def _assert_waiting(self, gateway: Gateway, work: Workload, waiting: int) -> None:
        """Verifies the response of the poll under test, once the worker has seen the room's state."""
        deadline = time.monotonic() + VIEW_SECONDS
        expected = b'"state":"waiting","position":1,"waiting":%d,' % waiting
        while True:
            status, body, _ = fetch(gateway, work)
            if status == 200 and expected in body:
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"unexpected status of the first visitor: {status} {body!r}")
            time.sleep(0.2)

    def _length(self, shop: Server) -> None:
        """Whether a long queue makes polls more expensive."""
        with self._waitroom("few", shop) as short, self._waitroom("many", shop) as long:
            works = {}
            for name, gateway, waiting in (("few", short, FEW), ("many", long, MANY)):
                first, generation = gateway.fill_queue(waiting)
                works[name] = gateway, Workload(STATUS_PATH, POLL, gateway.tickets(first, generation, waiting, FEW))
                self._assert_waiting(*works[name], waiting)
            samples = self._interleave(works)
            self._assert_waiting(*works["few"], FEW)
            self._assert_waiting(*works["many"], MANY)
        few, many = ([sample.figures.cpu_us for sample in samples[name]] for name in ("few", "many"))
        ratios = [one / other for one, other in zip(few, many, strict=True)]
        what = f"poll with {MANY:,} waiting against {FEW:,}"
        row = Row("length", what, f"{FEW:,} ÷ {MANY:,}", ratios, 0.9, 1.0)
        row.costs = {"Waitroom": (median(many), "µs")}
        row.note = f"with {FEW:,} waiting: {median(few):.1f} µs"
        self.rows.append(row)

    def _drip(self, shop: Server, nginx: Server) -> None:
        """The cost of a byte for the target of a slow attack."""
        with self._waitroom("drip", shop) as gateway:
            self.rows += drip_rows([nginx, gateway], self._rounds, self._seconds)

    def _crowd(self, shop: Server) -> None:
        """All visitors arrive at the same time."""
        took = []
        work = Workload("/concerts/autumn/", NAVIGATION, refused=True)
        for number in range(min(self._rounds, 5)):
            # On all cores: the load takes its share of them, as it can't elsewhere.
            with self._waitroom(f"crowd-{number}", shop, workers=2, pinned=False) as gateway:
                gateway.fill_queue(1)
                took.append(crowd(gateway, work, VISITORS, CROWD_CONNECTIONS))
                if gateway.waiting() != VISITORS + 1:
                    self.warnings.append(f"crowd: {gateway.waiting():,} in the queue, not {VISITORS + 1:,}")
        what = f"{VISITORS:,} newcomers at the same time, 2 workers, over {CROWD_CONNECTIONS} connections"
        self.rows.append(Row("crowd", what, "s", took, 10, 5, lower=True))

    # Helpers.

    def _interleave(
        self, runs: Mapping[str, tuple[Server, Workload]], connections: int = CONNECTIONS
    ) -> dict[str, list[Sample]]:
        """Measures each server once per round, after a short warm-up."""
        for server, work in runs.values():
            self._wrk.run(server, work, 1, connections)
        found: dict[str, list[Sample]] = {name: [] for name in runs}
        for _ in range(self._rounds):
            for name, (server, work) in runs.items():
                found[name].append(self._sample(server, work, connections))
        return found

    def _sample(self, server: Server, work: Workload, connections: int) -> Sample:
        if not isinstance(server, Gateway):
            return Sample(self._wrk.run(server, work, self._seconds, connections), 0, 0, 0)
        calls, store, control = server.store_calls(), cpu_seconds(server.store), cpu_seconds(server.control)
        figures = self._wrk.run(server, work, self._seconds, connections)
        store, control = cpu_seconds(server.store) - store, cpu_seconds(server.control) - control
        requests = max(1, figures.requests)
        calls = server.store_calls() - calls
        return Sample(figures, store * 1e6 / requests, control * 1e6 / requests, calls / requests)

    def _idle_calls(self, gateway: Gateway) -> float:
        """Returns store commands per second of a gateway without visitors."""
        before, since = gateway.store_calls(), time.monotonic()
        time.sleep(max(2.0, self._seconds))
        return (gateway.store_calls() - before) / (time.monotonic() - since)

    def _compare_with_nginx(
        self, key: str, what: str, samples: Mapping[str, list[Sample]], minimum: float, target: float
    ) -> None:
        """Compares CPU time per request with nginx's."""
        costs = {name: [sample.figures.cpu_us for sample in found] for name, found in samples.items()}
        ratios = [theirs / ours for theirs, ours in zip(costs["nginx"], costs["Waitroom"], strict=True)]
        row = Row(key, what, "nginx ÷ Waitroom", ratios, minimum, target)
        row.costs = {name: (median(values), "µs") for name, values in costs.items()}
        self.rows.append(row)
        for name, found in samples.items():
            self._rate(what, name, found)

    def _calls(self, key: str, what: str, samples: list[Sample], idle: float) -> None:
        calls = [sample.calls for sample in samples]
        row = Row(f"commands-{key}", f"store commands per {what}", "commands", calls, 0.01, 0.001, lower=True)
        beyond = median(
            (sample.calls * sample.figures.requests - idle * sample.figures.seconds) / sample.figures.requests
            for sample in samples
        )
        row.note = f"of them beyond an idle gateway's {idle:.0f}/s: {max(0.0, beyond):.5f}"
        self.rows.append(row)

    def _rate(self, what: str, name: str, samples: list[Sample]) -> None:
        self.rates.append(
            Rate(
                what=what,
                server=name,
                per_second=median(sample.figures.per_second for sample in samples),
                p50_us=median(sample.figures.p50_us for sample in samples),
                p99_us=median(sample.figures.p99_us for sample in samples),
                cpu_us=median(sample.figures.cpu_us for sample in samples),
                store_us=median(sample.store_us for sample in samples),
                control_us=median(sample.control_us for sample in samples),
            )
        )


def main() -> None:
    """Measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (5)")
    parser.add_argument("--seconds", type=float, default=3, help="length of one run in seconds (3)")
    parser.add_argument(
        "--quick", action="store_true", help="two rounds of one second, to try the benchmarks themselves"
    )
    parser.add_argument("--only", default="", help="run only parts whose names contain this, and write no files")
    options = parser.parse_args()
    rounds, seconds = (2, 1.0) if options.quick else (options.rounds, options.seconds)
    tested, rest = cores()
    raise_file_limit()
    load_before = os.getloadavg()[0]
    os.sched_setaffinity(0, rest)
    with tempfile.TemporaryDirectory(prefix="waitroom-bench-") as folder:
        bench = Bench(Testbed(Path(folder), tested, rest), rounds, seconds)
        bench.run(options.only)
    environment = machine(rounds, seconds, load_before)
    print_results(Console(width=160), bench.rows, bench.rates, bench.warnings, environment)
    if not options.only and not options.quick:
        write_json(HERE / "results" / "edge.json", bench.rows, bench.rates, bench.warnings, environment)
        write_chart(HERE.parent / "docs" / "images" / "performance.svg", bench.rows, environment)


if __name__ == "__main__":
    main()
