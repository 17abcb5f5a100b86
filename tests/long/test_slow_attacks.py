"""Slow attacks of every kind, for as long as time limits take: Waitroom beside Debian's nginx and HAProxy.

Each attack is three hundred connections, of one address or of many, against each of the three at the same time; each
has a shop of its own behind it. Visitors inside shop on meanwhile. Their times are printed as a table for
docs/reliability.md, and every request of Waitroom's visitors must succeed.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from support.attackers import Shopper, besieged, slow_clients
from support.gateway_process import Gateway, needs, room, running_gateway
from support.nginx import nginx_command
from support.ports import free_port
from support.third_party import running, uvicorn
from support.upstreams.real_shops import nginx_shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTIONS = 300
SECONDS = float(os.environ.get("LONG_SECONDS", "40"))  # beyond the 10 s of a buffer and the 30 s of a rate
SHOPPERS = 3
WAYS = {"bypass": "/hooks", "uncovered": "/free", "pass": "/sale"}
KINDS = [
    ("none", "head"),
    ("none", "preflight"),
    *((way, kind) for way in WAYS for kind in ("body", "chunks", "reader", "tunnel")),
]
NGINX = """
    map $http_upgrade $upgrading {{ default upgrade; "" ""; }}
    upstream shop {{ server 127.0.0.1:{shop}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        client_max_body_size 0;
        location / {{
            proxy_pass http://shop;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $upgrading;
        }}
    }}
"""
HAPROXY = """
global
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    option http-buffer-request
frontend edge
    bind 127.0.0.1:{port}
    default_backend shop
backend shop
    server shop 127.0.0.1:{shop} maxconn 256
"""


@dataclass
class Row:
    """What visitors inside met: how many requests, how many of them failed, and the median and worst time."""

    attack: str
    server: str
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


@dataclass
class Field:
    """Three servers before one shop."""

    gateway: Gateway
    ports: dict[str, int]
    rows: list[Row]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def field(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    folder = tmp_path_factory.mktemp("field")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    sockets, nginx, haproxy = free_port(), free_port(), free_port()
    async with AsyncExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        await stack.enter_async_context(uvicorn(sockets, folder))
        shop, *others = [
            await stack.enter_async_context(nginx_shop(folder / name, sockets=sockets))
            for name in ("behind-waitroom", "behind-nginx", "behind-haproxy")
        ]
        command = nginx_command(folder / "nginx", NGINX.format(port=nginx, shop=others[0].port))
        config = folder / "nginx" / "nginx.conf"
        config.write_text(config.read_text().replace("worker_connections 512", "worker_connections 4096"))
        await stack.enter_async_context(running(command, nginx, folder / "nginx"))
        (folder / "haproxy.cfg").write_text(HAPROXY.format(port=haproxy, shop=others[1].port))
        command = [needs("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]
        await stack.enter_async_context(running(command, haproxy, folder / "haproxy"))
        rule = {"paths": ["/hooks"], "max_per_second": 100_000}
        rooms = [room("sale", upstream=shop.address, paths=["/sale", "/hooks"], bypass=[rule])]
        settings = {"workers": 1, "grace_seconds": 1, "trusted_proxies": ["127.0.0.1"]}
        gateway = await stack.enter_async_context(running_gateway(folder / "gateway", rooms, **settings))
        rows: list[Row] = []
        yield Field(gateway, {"Waitroom": gateway.port, "nginx": nginx, "HAProxy": haproxy}, rows)
        show(rows)


def show(rows: list[Row]) -> None:
    """As docs/reliability.md has it."""
    print("\n\n| attack | server | requests | failed | p50 | p99 | worst |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        times = f"{row.p50_ms:.1f} ms | {row.p99_ms:.1f} ms | {row.worst_ms:.0f} ms"
        print(f"| {row.attack} | {row.server} | {row.requests} | {row.failed} | {times} |")


async def shop_on(shoppers: list[Shopper], seconds: float) -> None:
    """Each of them asks for a page, then another, until the time is over."""
    ends = asyncio.get_running_loop().time() + seconds

    async def one(shopper: Shopper) -> None:
        while asyncio.get_running_loop().time() < ends:
            await shopper.shops(5, pause_seconds=0.05)

    await asyncio.gather(*(one(shopper) for shopper in shoppers))


def row(attack: str, server: str, shoppers: list[Shopper]) -> Row:
    times = sorted(1000 * each for shopper in shoppers for each in shopper.seconds)
    statuses = sum((shopper.statuses for shopper in shoppers), Counter[int]())
    p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else times[0]
    failed = statuses.total() - statuses[200]
    return Row(attack, server, statuses.total(), failed, statistics.median(times), p99, times[-1])


def elsewhere(folder: Path, port: int) -> Gateway:
    """Another server's port, as visitors see it."""
    return Gateway(folder, {}, [], port=port)


@pytest.mark.parametrize("one", [True, False], ids=["one address", "many addresses"])
@pytest.mark.parametrize(("way", "kind"), KINDS)
async def test_admitted_visitors_are_served(field: Field, tmp_path: Path, way: str, kind: str, one: bool) -> None:
    attack = f"{kind}, {way if way != 'none' else 'no pass'}, {'one address' if one else 'many'}"
    found = await asyncio.gather(*(attacked(field, server, tmp_path, attack, way, kind, one) for server in field.ports))
    field.rows.extend(found)
    assert [each.failed for each in found if each.server == "Waitroom"] == [0]


async def attacked(field: Field, server: str, folder: Path, attack: str, way: str, kind: str, one: bool) -> Row:
    """The attack on one server, and what its visitors met."""
    gateway = field.gateway if server == "Waitroom" else elsewhere(folder, field.ports[server])
    shoppers = [
        Shopper(Visitor(gateway, "sale", headers={"X-Forwarded-For": f"203.0.113.{number}"}))
        for number in range(SHOPPERS)
    ]
    headers = {}
    if server == "Waitroom":
        for shopper in shoppers:
            await shopper.visitor.is_let_in("/sale")
        if way == "pass":
            answer = await Visitor(gateway, "sale").call("join", X_Forwarded_For="203.0.113.200")
            headers["Waitroom_Pass"] = answer.json["pass"]
    clients = slow_clients(kind, CONNECTIONS, "sale.test", WAYS.get(way, "/sale"), one, **headers)
    try:
        async with besieged(gateway.port, clients):
            await shop_on(shoppers, SECONDS)
    finally:
        if server != "Waitroom":
            await gateway.http.close()
    if faults := [shopper.faults[0] for shopper in shoppers if shopper.faults]:
        print(server, attack, faults)
    return row(attack, server, shoppers)
