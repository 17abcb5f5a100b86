"""The pool of connections to the shop: bounded and fair, with correct counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.asyncio_fakes import Wire
from support.pool_clients import PoolHarness, UpstreamListener, running_pool, wire
from waitroom.edge.upstream.connector import UpstreamUnavailableError
from waitroom.edge.upstream.pool import IDLE_SECONDS, UpstreamConnection


@pytest.fixture
def harness() -> Iterator[PoolHarness]:
    with running_pool() as harness:
        yield harness


# Acquiring and releasing.


def test_connection_is_opened_on_demand_and_kept(harness):
    assert harness.state() == (0, 0, 0, 0)
    one = harness.acquire()
    assert harness.state() == (1, 0, 0, 0)
    assert not one.reused
    harness.release(one)
    assert harness.state() == (0, 1, 0, 0)
    assert harness.acquire() is one
    assert one.reused
    harness.release(one)


def test_newest_idle_connection_is_reused_first(harness):
    one, two = harness.acquire(), harness.acquire()
    harness.release(two)
    harness.release(one)
    assert harness.acquire() is one
    assert harness.acquire() is two
    harness.release(one)
    harness.release(two)


def test_idle_connection_is_acquired_without_waiting(harness):
    assert harness.acquire_idle() is None
    one = harness.acquire()
    harness.release(one)
    assert harness.acquire_idle() is one
    assert harness.state() == (1, 0, 0, 0)
    harness.release(one)


def test_connection_that_is_not_reusable_is_aborted(harness):
    one = harness.acquire()
    harness.release(one, reusable=False)
    assert harness.state() == (0, 0, 0, 0)
    assert wire(one).aborted


def test_paused_connection_resumes_reading(harness):
    one = harness.acquire()
    wire(one).pause_reading()
    harness.release(one)
    assert wire(one).is_reading()


def test_max_connections_is_never_exceeded(harness):
    taken = [harness.acquire(), harness.acquire()]
    waiting = [harness.ask() for _ in range(3)]
    assert harness.state() == (2, 0, 0, 3)
    assert not any(task.done() for task in waiting)
    harness.release(taken[0])
    harness.release(taken[1])
    assert [task.done() for task in waiting] == [True, True, False], "first come, first served"
    assert waiting[0].result() is taken[0]
    assert waiting[1].result() is taken[1]
    assert harness.state() == (2, 0, 0, 1)
    harness.release(taken[0])
    assert waiting[2].result() is taken[0]
    harness.release(taken[0])
    harness.release(taken[1])
    assert harness.state() == (0, 2, 0, 0)


def test_aborted_connection_frees_a_slot_for_a_waiter(harness):
    taken = [harness.acquire(), harness.acquire()]
    waiting = harness.ask()
    harness.release(taken[0], reusable=False)
    assert waiting.result() is not taken[0]
    assert harness.state() == (2, 0, 0, 0)
    harness.release(waiting.result())
    harness.release(taken[1])


def test_wait_times_out(harness):
    taken = [harness.acquire(), harness.acquire()]
    first, second = harness.ask(), harness.ask()
    harness.pass_time(1.0)
    third = harness.ask()
    harness.pass_time(1.0)
    for task in (first, second):
        with pytest.raises(UpstreamUnavailableError) as raised:
            task.result()
        assert raised.value.cause == "busy"
    assert harness.state() == (2, 0, 0, 1)
    harness.release(taken[0])
    assert third.result() is taken[0]
    harness.release(third.result())
    harness.release(taken[1])


def test_cancelled_waiter_is_skipped(harness):
    taken = [harness.acquire(), harness.acquire()]
    first, second = harness.ask(), harness.ask()
    harness.cancel(first)
    assert harness.state() == (2, 0, 0, 1)
    harness.release(taken[0])
    assert second.result() is taken[0]
    for connection in taken:
        harness.release(connection)


def test_hanging_shop_leaks_no_waiters(harness):
    """Thousands of requests wait two seconds each meanwhile."""
    taken = [harness.acquire(), harness.acquire()]
    for _ in range(50):
        task = harness.ask()
        harness.pass_time(2.0)
        assert task.exception() is not None
        assert harness.state() == (2, 0, 0, 0)
    for connection in taken:
        harness.release(connection)


# Connecting.


def test_refused_connection(harness):
    harness.shop.refuses = ConnectionRefusedError("refused")
    task = harness.ask()
    error = task.exception()
    assert isinstance(error, UpstreamUnavailableError)
    assert error.cause == "connect"
    assert harness.state() == (0, 0, 0, 0)


def test_connect_timeout(harness):
    harness.shop.hangs = True
    task = harness.ask()
    harness.pass_time(4.9)
    assert not task.done()
    harness.pass_time(0.2)
    error = task.exception()
    assert isinstance(error, UpstreamUnavailableError)
    assert error.cause == "connect"
    assert harness.state() == (0, 0, 0, 0)


def test_failed_connect_lets_the_next_waiter_try(harness):
    harness.shop.hangs = True
    connecting = [harness.ask(), harness.ask()]
    waiting = harness.ask()
    harness.shop.refuses = ConnectionRefusedError("refused")
    harness.shop.let_in()
    for task in (*connecting, waiting):
        assert isinstance(task.exception(), UpstreamUnavailableError)
    assert harness.shop.attempts == 3
    assert harness.state() == (0, 0, 0, 0)


def test_connection_closed_immediately(harness):
    """The listener would never be notified: the connection was gone before it was acquired."""

    class Slammed(Wire):
        def is_closing(self) -> bool:
            return True

    async def connect(factory, address):
        protocol = factory()
        slammed = Slammed(harness.loop, protocol)
        protocol.connection_made(slammed)
        slammed.close()
        return slammed, protocol

    harness.shop.connect = connect
    assert isinstance(harness.ask().exception(), UpstreamUnavailableError)
    assert harness.state() == (0, 0, 0, 0)


# Fresh connections.


def test_fresh_connection_is_never_reused(harness):
    one = harness.acquire()
    harness.release(one)
    two = harness.acquire(fresh=True)
    assert two is not one
    assert harness.state() == (1, 1, 0, 0)
    harness.release(two)


def test_fresh_connection_replaces_the_oldest_idle_one(harness):
    one, two = harness.acquire(), harness.acquire()
    harness.release(one)
    harness.release(two)
    three = harness.acquire(fresh=True)
    assert wire(one).aborted
    assert not wire(two).aborted
    assert harness.state() == (1, 1, 0, 0)
    harness.release(three)


def test_fresh_connection_after_a_wait_is_new(harness):
    taken = [harness.acquire(), harness.acquire()]
    task = harness.ask(fresh=True)
    harness.release(taken[0])
    assert task.result() not in taken
    assert not task.result().reused
    assert wire(taken[0]).aborted
    assert harness.state() == (2, 0, 0, 0)
    harness.release(task.result())
    harness.release(taken[1])


# Dead connections.


def test_idle_connection_closed_by_the_shop_is_discarded(harness):
    one = harness.acquire()
    harness.release(one)
    wire(one).send_eof()
    assert harness.state() == (0, 0, 0, 0)


def test_broken_idle_connection_is_discarded(harness):
    one = harness.acquire()
    harness.release(one)
    wire(one).reset()
    assert harness.state() == (0, 0, 0, 0)


def test_unsolicited_data_aborts_an_idle_connection(harness):
    one = harness.acquire()
    harness.release(one)
    wire(one).send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert wire(one).aborted
    assert harness.state() == (0, 0, 0, 0)


def test_closing_connection_is_not_acquired(harness):
    one = harness.acquire()
    harness.release(one)

    def both() -> UpstreamConnection | None:
        one.transport.close()
        return harness.pool.acquire_idle(True, "")

    assert harness.loop.do(both) is None
    assert harness.state() == (0, 0, 0, 0)


def test_closing_connection_is_not_granted(harness):
    """Released, and closed by the shop in the same turn of the loop."""
    taken = [harness.acquire(), harness.acquire()]
    task = harness.ask()

    def both() -> None:
        harness.pool.release(taken[0], reusable=True)
        assert not taken[0].eof_received()
        taken[0].transport.close()

    harness.loop.do(both)
    assert task.result() is not taken[0]
    assert not task.result().transport.is_closing()
    assert harness.state() == (2, 0, 0, 0)
    harness.release(task.result())
    harness.release(taken[1])


@pytest.mark.interpreted
def test_connection_lost_in_use_is_not_kept(harness):
    one = harness.acquire()
    listener = one.listener = UpstreamListener()
    wire(one).reset(OSError("broken"))
    assert [str(event) for event in listener.events] == ["broken"]
    assert harness.state() == (0, 0, 0, 0)
    harness.release(one)
    assert harness.state() == (0, 0, 0, 0)


def test_idle_connections_are_closed(harness):
    one, two = harness.acquire(), harness.acquire()
    harness.release(one)
    harness.pass_time(IDLE_SECONDS / 2)
    harness.release(two)
    harness.pass_time(IDLE_SECONDS / 2)
    harness.loop.do(harness.pool.close_idle, harness.loop.now)
    assert harness.state() == (0, 1, 0, 0)
    assert wire(one).lost
    assert not wire(two).lost
    harness.pass_time(IDLE_SECONDS / 2 - 0.1)
    harness.loop.do(harness.pool.close_idle, harness.loop.now)
    assert harness.state() == (0, 1, 0, 0)
    harness.pass_time(0.1)
    harness.loop.do(harness.pool.close_idle, harness.loop.now)
    assert harness.state() == (0, 0, 0, 0)


@pytest.mark.interpreted
def test_listener_gets_all_events(harness):
    one = harness.acquire()
    listener = one.listener = UpstreamListener()
    wire(one).send(b"a", b"b")
    wire(one).taking = False
    harness.loop.do(one.transport.write, b"x" * 70_000)
    wire(one).take()
    wire(one).send_eof()
    assert listener.events[:5] == [b"a", b"b", False, True, "closed"]
    harness.release(one, reusable=False)


def test_closed_pool_rejects_waiters():
    harness = PoolHarness()
    taken = [harness.acquire(), harness.acquire()]
    harness.release(taken[0])
    busy = harness.acquire()
    tasks = [harness.ask() for _ in range(3)]
    harness.loop.do(harness.pool.close)
    assert all(task.cancelled() for task in tasks)
    assert wire(busy).lost
    assert harness.state() == (0, 0, 0, 0)
    harness.loop.close()
