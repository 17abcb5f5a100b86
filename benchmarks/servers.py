"""The servers under test: the shop, nginx and HAProxy in front of it, and Waitroom as deployed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from redis.asyncio import Redis

from benchmarks.processes import (
    START_SECONDS,
    command_line,
    free_port,
    pin,
    process_tree,
    program,
    running,
    wait_until_answers,
)
from waitroom.process.bootstrap import python_command
from waitroom.queue.store import QueueStore
from waitroom.store.connection import connect
from waitroom.tokens import Ticket, Tokens

SECRET = "the secret that signs in the benchmarks"
ROOM = "shop"
# Newcomers per call: few enough for the gateway's own calls to get their turn.
JOIN_BATCH = 2000
STORE_SECONDS = 30.0
PAGE = "<!doctype html><title>Shop</title><p>In stock.</p>".ljust(72)
STATUS = '{"room":"shop","state":"waiting","position":30271,"eta":60}'.ljust(60)

_WARNING = re.compile(r'"level"|Traceback|Error|  File ')
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Server:
    """A server under test.

    Attributes:
        name: The name in tables.
        port: The port on 127.0.0.1.
        pids: The processes whose CPU time counts.
    """

    name: str
    port: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gateway(Server):
    """A Waitroom under test; ``pids`` are its edge workers."""

    control: tuple[int, ...]
    store: tuple[int, ...]
    socket: Path
    log: Path
    tokens: Tokens = field(default_factory=lambda: Tokens([SECRET], ROOM))

    def query_store(self, query: Callable[[QueueStore, Redis], Awaitable[Found]]) -> Found:
        """Queries the gateway's store directly."""

        async def run() -> Found:
            async with connect(f"unix://{self.socket}", timeout_seconds=STORE_SECONDS) as redis:
                return await query(QueueStore(redis, ROOM), redis)

        return asyncio.run(run())

    def fill_queue(self, waiting: int) -> tuple[int, int]:
        """Takes the room's only slot and fills its queue; returns the first visitor's place and the generation."""

        async def join(store: QueueStore, _: Redis) -> tuple[int, int]:
            taken = await store.join(1)
            if taken.admitted != 1:
                raise SystemExit("the room's slot wasn't free")
            for start in range(0, waiting, JOIN_BATCH):
                await store.join(min(JOIN_BATCH, waiting - start))
            return taken.first_place + 1, taken.generation

        return self.query_store(join)

    def waiting(self) -> int:
        """Returns the number of waiting visitors."""

        async def count(store: QueueStore, _: Redis) -> int:
            return (await store.view()).waiting

        return self.query_store(count)

    def tickets(self, first: int, generation: int, waiting: int, count: int) -> list[str]:
        """Returns the cookies of ``count`` visitors, spread evenly over the queue."""
        now = int(time.time())
        ranks = (index * waiting // count for index in range(count))
        signed = (
            self.tokens.sign_ticket(Ticket(first + rank, generation, now - 600, rank + 1, 3600)) for rank in ranks
        )
        return [f"waitroom_ticket_{ROOM}={value}" for value in signed]

    def store_calls(self) -> int:
        """Returns the number of commands that clients have sent to the store; all that matter are script calls."""

        async def count(_: QueueStore, redis: Redis) -> int:
            stats = await redis.info("commandstats")
            return sum(stats[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in stats)

        return self.query_store(count)

    def warnings(self) -> list[str]:
        """Returns warnings and errors of the log, including tracebacks."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if '"level": "info"' not in line and _WARNING.search(line)]


class Testbed:
    """Starts everything for the benchmarks, in one folder, on two sets of cores.

    Args:
        folder: The directory for configurations, logs and data.
        tested: The cores of the server under test.
        rest: The cores of everything else.
    """

    def __init__(self, folder: Path, tested: set[int], rest: set[int]) -> None:
        self.folder = folder
        self.tested = tested
        self.rest = rest

    @contextlib.contextmanager
    def shop(self) -> Iterator[Server]:
        """A shop: nginx with a small page and two large files."""
        files = self.folder / "files"
        files.mkdir()
        for name, size in (("1mb", 1 << 20), ("100mb", 100 << 20)):
            (files / name).write_bytes(os.urandom(1 << 20) * (size >> 20))
        port = free_port()
        location = f"""location / {{ default_type text/html; return 200 '{PAGE}'; }}
        location /files/ {{ root {self.folder}; sendfile on; }}"""
        with self._nginx("shop", port, location, self.rest) as server:
            yield server

    @contextlib.contextmanager
    def nginx(self, shop: Server) -> Iterator[Server]:
        """Debian's nginx in front of the shop, also with a static response."""
        port = free_port()
        location = f"""location / {{ proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $host; proxy_max_temp_file_size 0; proxy_pass http://shop; }}
        location = /.waitroom/status {{ default_type application/json; return 200 '{STATUS}'; }}"""
        upstream = f"upstream shop {{ server 127.0.0.1:{shop.port}; keepalive 128; keepalive_requests 1000000000; }}"
        with self._nginx("nginx", port, location, self.tested, upstream) as server:
            yield server

    @contextlib.contextmanager
    def nginx_asking(self, shop: Server, gateway: Gateway) -> Iterator[Server]:
        """Debian's nginx in front of the shop, which asks Waitroom about each request, as in deploy/nginx.

        The CPU time of all processes counts: nginx, the edge workers, the control process and the store.
        """
        location = f"""proxy_http_version 1.1; proxy_set_header Connection "";
        location / {{ auth_request /.waitroom/check; auth_request_set $session $upstream_http_waitroom_session;
            proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header Waitroom-Session $session;
            proxy_max_temp_file_size 0; proxy_pass http://shop; }}
        location /.waitroom/check {{ internal; proxy_pass http://waitroom; proxy_pass_request_body off;
            proxy_set_header Content-Length ""; proxy_set_header Connection ""; proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Method $request_method;
            proxy_set_header X-Forwarded-Uri $request_uri; }}
        location = /.waitroom/status {{ default_type application/json; return 200 '{STATUS}'; }}"""
        upstreams = "".join(
            f"upstream {name} {{ server 127.0.0.1:{port}; keepalive 128; keepalive_requests 1000000000; }}"
            for name, port in (("shop", shop.port), ("waitroom", gateway.port))
        )
        with self._nginx("nginx-asking", free_port(), location, self.tested, upstreams) as server:
            pids = (*server.pids, *gateway.pids, *gateway.control, *gateway.store)
            yield Server("nginx asking Waitroom", server.port, pids)

    @contextlib.contextmanager
    def haproxy(self, shop: Server) -> Iterator[Server]:
        """Debian's HAProxy in front of the shop, also with a static response."""
        port = free_port()
        config = self.folder / "haproxy.cfg"
        config.write_text(f"""global
    nbthread 1
    maxconn 2000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend edge
    bind 127.0.0.1:{port}
    http-request return status 200 content-type application/json string '{STATUS}' if {{ path /.waitroom/status }}
    default_backend shop
backend shop
    server shop 127.0.0.1:{shop.port}
""")
        with running([program("haproxy"), "-db", "-f", str(config)], self.folder / "haproxy.log") as one:
            wait_until_answers(port, one)
            pids = process_tree(one.pid)
            pin(pids, self.tested)
            yield Server("HAProxy", port, tuple(pids))

    @contextlib.contextmanager
    def waitroom(
        self,
        name: str,
        shop: Server,
        *,
        max_active: int = 1,
        workers: int = 1,
        pinned: bool = True,
        trusted_proxies: Sequence[str] = (),
    ) -> Iterator[Gateway]:
        """Waitroom with a room that nobody leaves and, once it is full, nobody enters.

        The load comes from one address with few passes, so the limits on these are raised.
        """
        port = free_port()
        home = self.folder / name
        home.mkdir()
        config = home / "waitroom.toml"
        config.write_text(f"""listen = "127.0.0.1:{port}"
admin_listen = "127.0.0.1:{free_port()}"
workers = {workers}
data_dir = "{home / "data"}"
secrets = ["{SECRET}"]
client_connections_per_address = 20000
grace_seconds = 2
trusted_proxies = {json.dumps(trusted_proxies)}

[[rooms]]
name = "{ROOM}"
upstream = "http://127.0.0.1:{shop.port}"
rate_per_minute = 600000
max_active = {max_active}
session_seconds = 14400
session_max_seconds = 14400
session_requests_per_second = 1000000
session_requests_in_flight = 65536
join_rate = 1000000
""")
        log = home / "log"
        command = python_command("waitroom", "run", "--config", str(config))
        with running(command, log) as one:
            wait_until_answers(port, one, "/.waitroom/status")
            kinds = self._children(one.pid, workers)
            pin(process_tree(one.pid), self.rest if pinned else self.rest | self.tested)
            if pinned:
                pin(kinds["edge"], self.tested)
            yield Gateway(
                name="Waitroom",
                port=port,
                pids=tuple(kinds["edge"]),
                control=tuple(kinds["control"]),
                store=tuple(kinds["store"]),
                socket=home / "data" / "store.sock",
                log=log,
            )

    @contextlib.contextmanager
    def _nginx(self, name: str, port: int, location: str, to: set[int], more: str = "") -> Iterator[Server]:
        home = self.folder / name
        home.mkdir()
        config = home / "nginx.conf"
        temporary = " ".join(
            f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(f"""{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1; worker_rlimit_nofile 20000; daemon off; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 16000; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; {temporary}
    large_client_header_buffers 8 64k;
    {more}
    server {{ listen 127.0.0.1:{port} backlog=4096; {location} }}
}}""")
        command = [program("nginx"), "-e", str(home / "error.log"), "-p", str(home), "-c", str(config)]
        with running(command, home / "log") as one:
            wait_until_answers(port, one)
            pids = process_tree(one.pid)
            pin(pids, to)
            yield Server(name, port, tuple(pids))

    def _children(self, supervisor: int, workers: int) -> dict[str, list[int]]:
        """Returns the gateway's processes by role."""
        marks = {"edge": "waitroom.edge.worker", "control": "waitroom.control.worker", "store": "valkey-server"}
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            lines = {pid: command_line(pid) for pid in process_tree(supervisor)[1:]}
            kinds = {kind: [pid for pid, line in lines.items() if mark in line] for kind, mark in marks.items()}
            if len(kinds["edge"]) == workers and kinds["control"] and kinds["store"]:
                return kinds
            time.sleep(0.05)
        raise SystemExit(f"the gateway's processes weren't found: {lines}")
