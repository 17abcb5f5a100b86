"""A pool of connections to a shop on a loop whose time is the test's, and the requests that acquire them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from support.asyncio_fakes import Shop, VirtualLoop, Wire
from waitroom.edge.upstream.connector import UpstreamAddress
from waitroom.edge.upstream.pool import UpstreamConnection, UpstreamPool


class UpstreamListener:
    """Records its events."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def upstream_data(self, data: bytes) -> None:
        self.events.append(data)

    def upstream_closed(self, error: Exception | None) -> None:
        self.events.append(error or "closed")

    def upstream_writable(self, writable: bool) -> None:
        self.events.append(writable)


class PoolHarness:
    """A pool, and requests that acquire connections from it."""

    def __init__(self, most: int = 2) -> None:
        self.loop = VirtualLoop()
        self.shop = self.loop.shop = Shop(self.loop)
        self.pool: UpstreamPool = self.loop.do(self._make, most)

    def _make(self, most: int) -> UpstreamPool:
        address = UpstreamAddress.parse("http://shop.internal:3000")
        return UpstreamPool(address, max_connections=most, connect_seconds=5.0, wait_seconds=2.0)

    def ask(self, neighbourhood: str = "", *, fresh: bool = False) -> asyncio.Task[UpstreamConnection]:
        """A request begins to wait for a connection: of a neighbourhood without a pass, or with one."""
        task = self.loop.create_task(self.pool.acquire(not neighbourhood, neighbourhood, fresh=fresh))
        self.loop.settle()
        return task

    def acquire(self, neighbourhood: str = "", *, fresh: bool = False) -> UpstreamConnection:
        """A request gets a connection, which must not need any wait."""
        return self.loop.wait(self.pool.acquire(not neighbourhood, neighbourhood, fresh=fresh))

    def acquire_idle(self, neighbourhood: str = "") -> UpstreamConnection | None:
        return self.loop.do(self.pool.acquire_idle, not neighbourhood, neighbourhood)

    def release(self, connection: UpstreamConnection, *, reusable: bool = True) -> None:
        self.loop.do(lambda: self.pool.release(connection, reusable=reusable))

    def cancel(self, task: asyncio.Task[UpstreamConnection]) -> None:
        task.cancel()
        self.loop.settle()
        assert task.cancelled()

    def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.loop.settle()

    def state(self) -> tuple[int, int, int, int]:
        """In use, idle, connecting and waiting."""
        shown = repr(self.pool).removeprefix("<UpstreamPool ").removesuffix(">")
        counts = dict(part.split("=") for part in shown.split())
        held = int(counts.pop("without_pass", 0))
        assert list(counts) == ["in_use", "idle", "connecting", "wait"]
        in_use, idle, connecting, waiting = (int(count) for count in counts.values())
        assert held <= min(in_use + connecting, max(1, self.pool._max // 2))
        assert in_use + idle + connecting <= self.pool._max
        return in_use, idle, connecting, waiting


@contextmanager
def running_pool(most: int = 2) -> Iterator[PoolHarness]:
    """Afterwards nothing may be in use, under way or waited for."""
    harness = PoolHarness(most)
    yield harness
    harness.shop.let_in()
    harness.loop.do(harness.pool.close)
    assert harness.state() == (0, 0, 0, 0)
    assert repr(harness.pool) == "<UpstreamPool in_use=0 idle=0 connecting=0 wait=0>"
    assert all(address.in_flight == 0 for address in harness.pool.balancer._addresses)
    assert not asyncio.all_tasks(harness.loop)
    assert harness.loop.errors == []
    harness.loop.close()


def wire(connection: UpstreamConnection) -> Wire:
    assert isinstance(connection.transport, Wire)
    return connection.transport
