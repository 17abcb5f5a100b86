"""No file descriptor is left for a connection to the shop: that isn't the shop's failure."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from support.edge_world import QUIET, World, get
from support.pool_clients import PoolHarness, running_pool
from waitroom.edge.upstream.connector import UpstreamUnavailableError
from waitroom.edge.upstream.pool import OUT_OF_FILES_RETRY_SECONDS

WAIT_SECONDS = 2.0  # of the harness


@pytest.fixture
def harness() -> Iterator[PoolHarness]:
    with running_pool() as harness:
        yield harness


@pytest.fixture(params=[errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def lacking(request: pytest.FixtureRequest) -> OSError:
    return OSError(request.param, "none left")


def test_it_waits_for_a_descriptor_as_for_a_connection(harness: PoolHarness, lacking: OSError) -> None:
    freed: list[float] = []
    harness.pool.on_out_of_files = lambda: freed.append(harness.loop.now)
    harness.shop.refuses = lacking
    with capture_logs() as logs:
        waiting = harness.ask()
        for _ in range(3):
            harness.pass_time(OUT_OF_FILES_RETRY_SECONDS)
        assert not waiting.done()
        harness.shop.refuses = None
        harness.pass_time(OUT_OF_FILES_RETRY_SECONDS)
    assert len(freed) == harness.shop.attempts - 1 == 4
    assert [line["event"] for line in logs] == ["out of file descriptors"], "no line for each attempt"
    assert harness.pool.balancer._addresses[0].failures == 0
    harness.release(waiting.result())


def test_it_takes_a_connection_that_another_request_gives_back(harness: PoolHarness, lacking: OSError) -> None:
    one = harness.acquire()
    harness.shop.refuses = lacking
    waiting = harness.ask("192.0.2.1")
    harness.release(one)
    harness.pass_time(OUT_OF_FILES_RETRY_SECONDS)
    assert waiting.result() is one
    assert harness.state() == (1, 0, 0, 0)
    harness.release(one)


def test_it_gives_up_in_time_and_blames_no_address(harness: PoolHarness, lacking: OSError) -> None:
    harness.shop.refuses = lacking
    waiting = harness.ask()
    for _ in range(round(WAIT_SECONDS / OUT_OF_FILES_RETRY_SECONDS) + 1):
        harness.pass_time(OUT_OF_FILES_RETRY_SECONDS)
    with pytest.raises(UpstreamUnavailableError) as raised:
        waiting.result()
    assert raised.value.cause == "files"
    assert harness.pool.balancer._addresses[0].failures == 0
    assert harness.state() == (0, 0, 0, 0)


def test_the_visitor_gets_a_503_and_the_shop_no_failure(lacking: OSError) -> None:
    with World(view=QUIET) as world:
        world.shop.refuses = lacking
        wire = world.client()
        wire.send(get(b"/", world.inside()))
        for _ in range(round(world.room.settings.upstream_wait_seconds / OUT_OF_FILES_RETRY_SECONDS) + 1):
            world.loop.now += OUT_OF_FILES_RETRY_SECONDS
            world.loop.settle()
        assert wire.got.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: " in wire.got
        assert world.room.metrics.upstream_failures == 0
        assert world.room.metrics.requests["busy"] == 1
        world.shop.refuses = None
        again = world.client()
        again.send(get(b"/", world.inside()))
        assert world.shop.got.count(b"GET / HTTP/1.1") == 1
