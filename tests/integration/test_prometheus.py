"""What operators are shown: the contract's metrics on a live gateway, and each expression in a real Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from support.gateway_process import Gateway, eventually, needs, room
from support.ports import free_port
from support.visitor_client import Visitor, filled

pytestmark = [pytest.mark.slow, pytest.mark.interpreted, pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "alerts.yml"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
ROOMS = [room("sale", max_active=1)]
SETTINGS = {"workers": 2}
SCRAPES = 3  # of which rates can be made

# Outside the project people rely on these, types included; and alerts and dashboard on the second part.
CONTRACT = {
    "waitroom_waiting_visitors": "gauge",
    "waitroom_active_sessions": "gauge",
    "waitroom_called_visitors": "gauge",
    "waitroom_joined": "counter",
    "waitroom_admitted": "counter",
    "waitroom_left": "counter",
    "waitroom_wait_seconds": "histogram",
    "waitroom_requests": "counter",
    "waitroom_upstream_request_seconds": "histogram",
    "waitroom_upstream_in_flight": "gauge",
    "waitroom_eta_error_seconds": "histogram",
    "waitroom_limit_overshoot": "counter",
    "waitroom_store_errors": "counter",
}
BESIDES = {
    "waitroom_away_visitors": "gauge",
    "waitroom_rate_per_minute": "gauge",
    "waitroom_max_active_sessions": "gauge",
    "waitroom_upstream_failures": "counter",
    "waitroom_upstream_response_seconds": "histogram",
    "waitroom_upstream_awaiting_response": "gauge",
    "waitroom_store_up": "gauge",
    "waitroom_last_tick_timestamp_seconds": "gauge",
    "waitroom_room_state": "gauge",
    "waitroom_workers_wanted": "gauge",
    "waitroom_workers_alive": "gauge",
    "waitroom_clock_offset_seconds": "gauge",
    "waitroom_gateways_with_other_secrets": "gauge",
    "waitroom_recovering": "gauge",
    "waitroom_recoveries": "counter",
    "waitroom_passthrough_over_limit": "counter",
    "waitroom_store_may_evict": "gauge",
    "waitroom_api_commands": "counter",
    "waitroom_units_remaining": "gauge",
    "waitroom_units_sold": "counter",
    "waitroom_units_returned": "counter",
}
OF_THE_GATEWAY = {
    *("waitroom_workers_wanted", "waitroom_workers_alive"),
    *("waitroom_clock_offset_seconds", "waitroom_gateways_with_other_secrets", "waitroom_store_may_evict"),
}


async def exposed(gateway: Gateway) -> str:
    async with gateway.http.get(f"{gateway.admin}/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def busy(gateway: Gateway) -> Gateway:
    """The gateway with one visitor inside, one in the line and some stock, all of which is in its metrics."""
    await filled(gateway, "sale")
    async with gateway.http.post(f"{gateway.admin}/api/v1/rooms/sale/stock", json={"remaining": 500}) as answer:
        assert answer.status == 204
    assert (await Visitor(gateway, "sale").navigate()).status == 503

    async def told() -> bool:
        metrics = await gateway.metrics()
        return (
            metrics["waitroom_waiting_visitors",] == 1
            and metrics.get(("waitroom_units_remaining",)) == 500
            and metrics["waitroom_upstream_request_seconds_count",] >= 1
            and ("waitroom_requests_total", "queued") in metrics
        )

    await eventually(told)
    return gateway


async def test_every_metric_of_the_contract_exists(busy: Gateway) -> None:
    families = {one.name: one for one in text_string_to_metric_families(await exposed(busy))}

    assert {name: families[name].type for name in CONTRACT} == CONTRACT
    assert {name: families[name].type for name in BESIDES} == BESIDES
    for family in families.values():
        labels = {label for sample in family.samples for label in sample.labels}
        assert ("room" in labels) is (family.name not in OF_THE_GATEWAY), family.name
        assert family.samples, family.name
        assert family.documentation, family.name


async def test_counters_exist_before_they_count(busy: Gateway) -> None:
    metrics = await busy.metrics()

    for reason in ("away", "ended", "expired", "left", "missed", "released"):
        assert metrics["waitroom_left_total", reason] == 0
    assert metrics["waitroom_requests_total", "failed"] == 0
    assert metrics["waitroom_store_errors_total",] == 0


async def test_a_room_is_in_one_state(busy: Gateway) -> None:
    metrics = await busy.metrics()

    states = {name[1]: value for name, value in metrics.items() if name[0] == "waitroom_room_state"}
    assert states == {"open": 1, "prequeue": 0, "paused": 0, "closed": 0, "sold_out": 0}


async def test_promtool_accepts_the_metrics(busy: Gateway) -> None:
    promtool = await asyncio.create_subprocess_exec(
        *(needs("promtool"), "check", "metrics"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        said, _ = await promtool.communicate((await exposed(busy)).encode())
    assert promtool.returncode == 0, said.decode()


async def test_a_hanging_worker_is_noticed(gateway: Gateway) -> None:
    async def alive() -> float:
        found = {one.name: one for one in text_string_to_metric_families(await exposed(gateway))}
        assert found["waitroom_workers_wanted"].samples[0].value == 2
        return found["waitroom_workers_alive"].samples[0].value

    async def alive_are(count: int) -> bool:
        return await alive() == count

    await eventually(lambda: alive_are(2))
    worker = gateway.children("edge.worker")[0]
    await worker.suspend()
    try:
        await eventually(lambda: alive_are(1))
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    await eventually(lambda: alive_are(2))


# A real Prometheus.


class Prometheus:
    """Debian's, on the loopback address, over a gateway."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http

    async def ask(self, path: str, **parameters: str) -> Any:
        """What its API answers. Raises `AssertionError` with its words where that is an error."""
        async with self._http.get(f"{self.url}/api/v1/{path}", params=parameters) as answer:
            told = await answer.json()
        assert told["status"] == "success", told
        return told["data"]

    async def query(self, expression: str) -> list[Any]:
        """The result of an expression, now."""
        data = await self.ask("query", query=expression)
        return data["result"] if data["resultType"] == "vector" else [data["result"]]

    async def without_result(self, expressions: Iterable[str]) -> set[str]:
        """Those that never have one. After a scrape that failed there is none of any until the next."""
        left = set(expressions)

        async def all_seen() -> bool:
            for one in sorted(left):
                if await self.query(one):
                    left.discard(one)
            return not left

        with contextlib.suppress(AssertionError):
            await eventually(all_seen)
        return left


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prometheus(busy: Gateway, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    (folder / "prometheus.json").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES)],
                "scrape_configs": [
                    {"job_name": "waitroom", "static_configs": [{"targets": [f"127.0.0.1:{busy.admin_port}"]}]}
                ],
            }
        )
    )
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "waitroom.process.pdeathsig", str(os.getpid()), needs("prometheus")),
            f"--config.file={folder}/prometheus.json",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
            server = Prometheus(f"http://127.0.0.1:{port}", http)

            async def scraped() -> bool:
                assert process.returncode is None, (folder / "log").read_text()
                return bool(await server.query(f"count_over_time(waitroom_wait_seconds_count[5m]) >= {SCRAPES}"))

            await eventually(scraped)
            yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']}: {target['legendFormat']}", target["expr"]


def filled_in(expression: str) -> str:
    """As Grafana would send it."""
    return expression.replace("$room", "sale").replace("$__rate_interval", "1m")


async def rules(prometheus: Prometheus) -> list[Any]:
    groups = (await prometheus.ask("rules"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


async def test_every_panel_of_the_dashboard_has_data(prometheus: Prometheus) -> None:
    shown = {filled_in(expression): what for what, expression in dashboard_expressions()}
    assert {what for expression, what in shown.items() if "$" in expression} == set()
    assert {shown[one] for one in await prometheus.without_result(shown)} == set()


async def test_the_rules_are_evaluated_without_an_error_and_none_fires(prometheus: Prometheus) -> None:
    async def evaluated() -> list[Any]:
        found = await rules(prometheus)
        return found if all(rule["health"] != "unknown" for rule in found) else []

    found = await eventually(evaluated)
    assert len(found) == RULES.read_text().count("- alert:")
    assert {rule["name"]: rule["health"] for rule in found if rule["health"] != "ok"} == {}
    assert {rule["name"] for rule in found if rule["state"] == "firing"} == set()


async def test_rules_and_dashboard_use_only_existing_metrics(prometheus: Prometheus) -> None:
    """A slip in a name or a label would be an alert that never comes, and nobody would see it."""
    expressions = [filled_in(expression) for _, expression in dashboard_expressions()]
    expressions += [rule["query"] for rule in await rules(prometheus)]
    selectors = {one for text in expressions for one in re.findall(r"\bwaitroom_\w+(?:\{[^}]*\})?", text)}

    assert len(selectors) > 20
    assert await prometheus.without_result(selectors) == set()


async def test_every_metric_is_on_the_dashboard(prometheus: Prometheus) -> None:
    shown = " ".join(expression for _, expression in list(dashboard_expressions()))
    for name in CONTRACT | BESIDES:
        assert re.search(rf"\b{name}(_total|_bucket)?\b", shown), name


async def test_grafana_accepts_the_dashboard() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    variables = {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "room": "query"}
    taken = {(x, y) for panel in DASHBOARD["panels"] for x, y in cells(panel["gridPos"])}
    assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in DASHBOARD["panels"]), "overlap"


def cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y
