"""Microseconds of Python per request in one edge worker: ``python -m benchmarks.edge_python [--profile poll]``.

There are no sockets and no store: bytes go directly in and out of the protocols. The rest can be profiled.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import itertools
import logging
import pstats
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, cast

import structlog
import uvloop

from benchmarks.load import NAVIGATION, POLL, Workload
from waitroom.edge.app import Edge
from waitroom.edge.client.connection import ClientConnection
from waitroom.edge.client.interfaces import ClientLimits
from waitroom.edge.pages.renderer import Pages
from waitroom.edge.rooms.room import Room
from waitroom.edge.rooms.router import Router
from waitroom.edge.upstream.connector import AnyProtocol, Connector, UpstreamAddress
from waitroom.edge.upstream.pool import UpstreamPool
from waitroom.metrics.recorder import RoomMetrics
from waitroom.net.forwarded import TrustedProxies
from waitroom.queue.positions import RankIndex, Throughput
from waitroom.queue.store import Joined, QueueStore
from waitroom.queue.view import RoomState, RoomView
from waitroom.settings import RoomSettings
from waitroom.timing import Clock
from waitroom.tokens import Ticket, Tokens

WAITING = 60_542
FIRST_PLACE = 1_000
TURNS = 25
REQUESTS_A_TURN = 400
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 01:23:14 GMT\r\nContent-Type: text/html\r\n"
    b"Content-Length: 72\r\nConnection: keep-alive\r\n\r\n"
) + b"x" * 72


class FakeTransport(asyncio.Transport):
    """A connection without a network: records the last bytes written and the number of writes."""

    def __init__(self, on_write: Callable[[], None] | None = None) -> None:
        super().__init__({"peername": ("127.0.0.1", 5)})
        self._on_write = on_write
        self.last = b""
        self.writes = 0

    def write(self, data: Any) -> None:
        """Accepts bytes."""
        self.last = data
        self.writes += 1
        if self._on_write is not None:
            self._on_write()

    def is_closing(self) -> bool:
        """Returns False."""
        return False

    def is_reading(self) -> bool:
        """Returns True."""
        return True

    def can_write_eof(self) -> bool:
        """Returns True."""
        return True

    def get_write_buffer_size(self) -> int:
        """Returns 0: all bytes are sent immediately."""
        return 0

    def abort(self) -> None:
        """Does nothing."""


class ShopConnector(Connector):
    """Connects to a shop that responds within the write."""

    async def connect(self, address: UpstreamAddress, protocol: Callable[[], AnyProtocol]) -> AnyProtocol:
        """See `Connector.connect`."""
        made = protocol()
        shop = cast(asyncio.Protocol, made)
        shop.connection_made(FakeTransport(lambda: shop.data_received(ANSWER)))
        return made


class QueueStub:
    """A queue in memory, reduced to what the edge uses here."""

    def __init__(self, first_place: int) -> None:
        self._places = itertools.count(first_place)

    async def view(self, known: RoomView | None = None) -> RoomView:
        """See `QueueStore.view`."""
        ranks = (*range(64), *range(100, WAITING, 200), WAITING)
        return RoomView(
            generation=1,
            clock_ms=1,
            state=RoomState.OPEN,
            own_state=RoomState.OPEN,
            method="fifo",
            high_water_mark=FIRST_PLACE,
            waiting=WAITING,
            called=0,
            away=0,
            active=1000,
            rate_per_minute=6000,
            max_active=1000,
            session_ms=900_000,
            claim_ms=180_000,
            message="",
            remaining=None,
            version=0,
            draining=False,
            autopilot=None,
            last_change="",
            operator_change="",
            invited=frozenset(),
            totals={},
            rank_index=RankIndex("1", ranks, tuple(FIRST_PLACE + 1 + rank for rank in ranks)),
            throughput=Throughput(),
        )

    async def join(self, count: int) -> Joined:
        """See `QueueStore.join`."""
        first = next(self._places)
        return Joined(1, first, 0, WAITING, RoomState.OPEN, 1)


async def measure(profiled: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    settings = RoomSettings(
        name="shop", upstream="http://127.0.0.1:3000", session_requests_per_second=1e6, session_requests_in_flight=65536
    )
    tokens = Tokens(["the secret that signs in the benchmarks"], settings.name)
    pool = UpstreamPool(
        UpstreamAddress.parse("http://127.0.0.1:3000"),
        max_connections=4,
        connect_seconds=1,
        wait_seconds=1,
        connector=ShopConnector(1),
    )
    line = cast(QueueStore, QueueStub(FIRST_PLACE + WAITING))
    room = Room(settings, tokens, line, pool, RoomMetrics(), 1, Clock())
    await room.refresh()
    edge = Edge(
        {settings.name: room},
        Router([settings]),
        Pages([settings]),
        TrustedProxies([]),
        ClientLimits(65536, 10, 10, 10, 10, 131072, 10, 500),
        Clock(),
        most_buffered=1 << 20,
        most_connections=10,
        most_per_address=10,
    )
    peer = edge.acquire_slot("")
    assert peer is not None
    client, wire = ClientConnection(edge, peer), FakeTransport()
    client.connection_made(wire)
    pool.release(await pool.acquire(True, ""), reusable=True)
    now = time.time()
    _, pass_ = room.start_session(5, now, binding=0)
    tickets = [
        tokens.sign_ticket(Ticket(FIRST_PLACE + 1 + rank, 1, int(now), rank + 1, 3600))
        for rank in range(0, WAITING, WAITING // 500)
    ]
    status = "/.waitroom/status?room=shop"
    kinds = {
        "admitted": ([Workload("/concerts/autumn/", NAVIGATION, [f"waitroom_pass_shop={pass_}"])], b"x" * 72),
        "poll": (
            [Workload(status, POLL, [f"waitroom_ticket_shop={ticket}"]) for ticket in tickets],
            b'"state":"waiting"',
        ),
        "newcomer": ([Workload("/concerts/autumn/", NAVIGATION)], b"waitroom_ticket_shop="),
    }
    for name, (works, mark) in kinds.items():
        requests = itertools.cycle([work.request() for work in works])

        async def ask(requests: itertools.cycle[bytes] = requests) -> None:
            for _ in range(REQUESTS_A_TURN):
                writes = wire.writes
                client.data_received(next(requests))
                while wire.writes == writes:  # noqa: ASYNC110 - an event would be measured too
                    await asyncio.sleep(0)

        await ask()
        if mark not in wire.last:
            raise SystemExit(f"{name}: {wire.last[:300]!r}")
        took = [await _timed(ask) for _ in range(TURNS)]
        print(f"{name:10} {min(took):6.1f} µs minimum, {median(took):6.1f} µs median")
        if name == profiled:
            profile = cProfile.Profile()
            profile.enable()
            for _ in range(TURNS):
                await ask()
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(35)
    client.connection_lost(None)
    pool.close()


async def _timed(ask: Callable[[], Awaitable[None]]) -> float:
    since = time.process_time()
    await ask()
    return (time.process_time() - since) / REQUESTS_A_TURN * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--profile", default="", choices=("admitted", "poll", "newcomer"), help="profiles one of them")
    uvloop.run(measure(parser.parse_args().profile))


if __name__ == "__main__":
    main()
