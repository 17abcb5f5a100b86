"""The cost of a byte in slow attacks: a request's head sent one byte at a time, over many connections."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from statistics import median

from benchmarks.processes import cpu_seconds
from benchmarks.report import Row
from benchmarks.servers import Server

CONNECTIONS = 100
SIZES = (100, 55_000)
LINE = 4_000
# Between two bytes of one connection, so that each is read separately.
PAUSE_SECONDS = 0.02
SETTLE_SECONDS = 1.0


def drip_rows(servers: Sequence[Server], rounds: int, seconds: float) -> list[Row]:
    """Measures CPU time per dripped byte of nginx and Waitroom, early and late in a head."""
    count = round(seconds / PAUSE_SECONDS)
    idle = {server.name: _spent(server, [], count) for server in servers}
    rows = []
    for size in SIZES:
        costs: dict[str, list[float]] = {server.name: [] for server in servers}
        for _ in range(rounds):
            for server in servers:
                with contextlib.ExitStack() as stack:
                    clients = [_client(stack, server, size) for _ in range(CONNECTIONS)]
                    spent = _spent(server, clients, count) - idle[server.name]
                costs[server.name].append(spent * 1e6 / (CONNECTIONS * count))
        ratios = [ours / theirs for ours, theirs in zip(costs["Waitroom"], costs["nginx"], strict=True)]
        row = Row(f"drip-{size}", f"dripped byte of a head, {size:,} bytes in", "x nginx's", ratios, 2, 1.5, lower=True)
        row.costs = {name: (median(found), "µs") for name, found in costs.items()}
        rows.append(row)
    return rows


def _client(stack: contextlib.ExitStack, server: Server, size: int) -> socket.socket:
    """Opens a connection and sends this much of a head, in lines that any server accepts."""
    client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    begun = b"GET / HTTP/1.1\r\nHost: shop\r\n"
    while len(begun) + LINE < size:
        begun += b"A: %b\r\n" % (b"a" * LINE)
    client.sendall(begun + b"B: " + b"b" * (size - len(begun) - 3))
    return client


def _spent(server: Server, clients: Sequence[socket.socket], count: int) -> float:
    """Returns the server's CPU time in seconds while each client sends this many bytes."""
    time.sleep(SETTLE_SECONDS)
    before = cpu_seconds(server.pids)
    for _ in range(count):
        for client in clients:
            client.sendall(b"b")
        time.sleep(PAUSE_SECONDS)
    spent = cpu_seconds(server.pids) - before
    for client in clients:
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            raise SystemExit(f"{server.name} doesn't wait for the rest: {client.recv(200)!r}")
    return spent
