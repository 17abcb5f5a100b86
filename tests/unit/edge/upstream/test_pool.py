"""The pool of connections to the shop: bounded and fair, with correct counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.asyncio_fakes import Wire
from support.pool_clients import Lending, UpstreamListener, running_lending, wire
from waitroom.edge.upstream.connector import UpstreamUnavailableError
from waitroom.edge.upstream.pool import IDLE_SECONDS, UpstreamConnection


@pytest.fixture
def lending() -> Iterator[Lending]:
    with running_lending() as lending:
        yield lending


# Acquiring and releasing.


def test_connection_is_opened_on_demand_and_kept(lending):
    assert lending.state() == (0, 0, 0, 0)
    one = lending.acquire()
    assert lending.state() == (1, 0, 0, 0)
    assert not one.reused
    lending.release(one)
    assert lending.state() == (0, 1, 0, 0)
    assert lending.acquire() is one
    assert one.reused
    lending.release(one)


def test_newest_idle_connection_is_reused_first(lending):
    one, two = lending.acquire(), lending.acquire()
    lending.release(two)
    lending.release(one)
    assert lending.acquire() is one
    assert lending.acquire() is two
    lending.release(one)
    lending.release(two)


def test_idle_connection_is_acquired_without_waiting(lending):
    assert lending.acquire_idle() is None
    one = lending.acquire()
    lending.release(one)
    assert lending.acquire_idle() is one
    assert lending.state() == (1, 0, 0, 0)
    lending.release(one)


def test_connection_that_is_not_reusable_is_aborted(lending):
    one = lending.acquire()
    lending.release(one, reusable=False)
    assert lending.state() == (0, 0, 0, 0)
    assert wire(one).aborted


def test_paused_connection_resumes_reading(lending):
    one = lending.acquire()
    wire(one).pause_reading()
    lending.release(one)
    assert wire(one).is_reading()


def test_max_connections_is_never_exceeded(lending):
    taken = [lending.acquire(), lending.acquire()]
    waiting = [lending.ask() for _ in range(3)]
    assert lending.state() == (2, 0, 0, 3)
    assert not any(task.done() for task in waiting)
    lending.release(taken[0])
    lending.release(taken[1])
    assert [task.done() for task in waiting] == [True, True, False], "first come, first served"
    assert waiting[0].result() is taken[0]
    assert waiting[1].result() is taken[1]
    assert lending.state() == (2, 0, 0, 1)
    lending.release(taken[0])
    assert waiting[2].result() is taken[0]
    lending.release(taken[0])
    lending.release(taken[1])
    assert lending.state() == (0, 2, 0, 0)


def test_aborted_connection_frees_a_slot_for_a_waiter(lending):
    taken = [lending.acquire(), lending.acquire()]
    waiting = lending.ask()
    lending.release(taken[0], reusable=False)
    assert waiting.result() is not taken[0]
    assert lending.state() == (2, 0, 0, 0)
    lending.release(waiting.result())
    lending.release(taken[1])


def test_wait_times_out(lending):
    taken = [lending.acquire(), lending.acquire()]
    first, second = lending.ask(), lending.ask()
    lending.pass_time(1.0)
    third = lending.ask()
    lending.pass_time(1.0)
    for task in (first, second):
        with pytest.raises(UpstreamUnavailableError) as raised:
            task.result()
        assert raised.value.cause == "busy"
    assert lending.state() == (2, 0, 0, 1)
    lending.release(taken[0])
    assert third.result() is taken[0]
    lending.release(third.result())
    lending.release(taken[1])


def test_cancelled_waiter_is_skipped(lending):
    taken = [lending.acquire(), lending.acquire()]
    first, second = lending.ask(), lending.ask()
    lending.cancel(first)
    assert lending.state() == (2, 0, 0, 1)
    lending.release(taken[0])
    assert second.result() is taken[0]
    for connection in taken:
        lending.release(connection)


def test_hanging_shop_leaks_no_waiters(lending):
    """Thousands of requests wait two seconds each meanwhile."""
    taken = [lending.acquire(), lending.acquire()]
    for _ in range(50):
        task = lending.ask()
        lending.pass_time(2.0)
        assert task.exception() is not None
        assert lending.state() == (2, 0, 0, 0)
    for connection in taken:
        lending.release(connection)


# Connecting.


def test_refused_connection(lending):
    lending.shop.refuses = ConnectionRefusedError("refused")
    task = lending.ask()
    error = task.exception()
    assert isinstance(error, UpstreamUnavailableError)
    assert error.cause == "connect"
    assert lending.state() == (0, 0, 0, 0)


def test_connect_timeout(lending):
    lending.shop.hangs = True
    task = lending.ask()
    lending.pass_time(4.9)
    assert not task.done()
    lending.pass_time(0.2)
    error = task.exception()
    assert isinstance(error, UpstreamUnavailableError)
    assert error.cause == "connect"
    assert lending.state() == (0, 0, 0, 0)


def test_failed_connect_lets_the_next_waiter_try(lending):
    lending.shop.hangs = True
    connecting = [lending.ask(), lending.ask()]
    waiting = lending.ask()
    lending.shop.refuses = ConnectionRefusedError("refused")
    lending.shop.let_in()
    for task in (*connecting, waiting):
        assert isinstance(task.exception(), UpstreamUnavailableError)
    assert lending.shop.attempts == 3
    assert lending.state() == (0, 0, 0, 0)


def test_connection_closed_immediately(lending):
    """The listener would never be notified: the connection was gone before it was acquired."""

    class Slammed(Wire):
        def is_closing(self) -> bool:
            return True

    async def connect(factory, address):
        protocol = factory()
        slammed = Slammed(lending.loop, protocol)
        protocol.connection_made(slammed)
        slammed.close()
        return slammed, protocol

    lending.shop.connect = connect
    assert isinstance(lending.ask().exception(), UpstreamUnavailableError)
    assert lending.state() == (0, 0, 0, 0)


# Fresh connections.


def test_fresh_connection_is_never_reused(lending):
    one = lending.acquire()
    lending.release(one)
    two = lending.acquire(fresh=True)
    assert two is not one
    assert lending.state() == (1, 1, 0, 0)
    lending.release(two)


def test_fresh_connection_replaces_the_oldest_idle_one(lending):
    one, two = lending.acquire(), lending.acquire()
    lending.release(one)
    lending.release(two)
    three = lending.acquire(fresh=True)
    assert wire(one).aborted
    assert not wire(two).aborted
    assert lending.state() == (1, 1, 0, 0)
    lending.release(three)


def test_fresh_connection_after_a_wait_is_new(lending):
    taken = [lending.acquire(), lending.acquire()]
    task = lending.ask(fresh=True)
    lending.release(taken[0])
    assert task.result() not in taken
    assert not task.result().reused
    assert wire(taken[0]).aborted
    assert lending.state() == (2, 0, 0, 0)
    lending.release(task.result())
    lending.release(taken[1])


# Dead connections.


def test_idle_connection_closed_by_the_shop_is_discarded(lending):
    one = lending.acquire()
    lending.release(one)
    wire(one).send_eof()
    assert lending.state() == (0, 0, 0, 0)


def test_broken_idle_connection_is_discarded(lending):
    one = lending.acquire()
    lending.release(one)
    wire(one).reset()
    assert lending.state() == (0, 0, 0, 0)


def test_unsolicited_data_aborts_an_idle_connection(lending):
    one = lending.acquire()
    lending.release(one)
    wire(one).send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert wire(one).aborted
    assert lending.state() == (0, 0, 0, 0)


def test_closing_connection_is_not_acquired(lending):
    one = lending.acquire()
    lending.release(one)

    def both() -> UpstreamConnection | None:
        one.transport.close()
        return lending.pool.acquire_idle(True, "")

    assert lending.loop.do(both) is None
    assert lending.state() == (0, 0, 0, 0)


def test_closing_connection_is_not_granted(lending):
    """Released, and closed by the shop in the same turn of the loop."""
    taken = [lending.acquire(), lending.acquire()]
    task = lending.ask()

    def both() -> None:
        lending.pool.release(taken[0], reusable=True)
        assert not taken[0].eof_received()
        taken[0].transport.close()

    lending.loop.do(both)
    assert task.result() is not taken[0]
    assert not task.result().transport.is_closing()
    assert lending.state() == (2, 0, 0, 0)
    lending.release(task.result())
    lending.release(taken[1])


@pytest.mark.interpreted
def test_connection_lost_in_use_is_not_kept(lending):
    one = lending.acquire()
    listener = one.listener = UpstreamListener()
    wire(one).reset(OSError("broken"))
    assert [str(event) for event in listener.events] == ["broken"]
    assert lending.state() == (0, 0, 0, 0)
    lending.release(one)
    assert lending.state() == (0, 0, 0, 0)


def test_idle_connections_are_closed(lending):
    one, two = lending.acquire(), lending.acquire()
    lending.release(one)
    lending.pass_time(IDLE_SECONDS / 2)
    lending.release(two)
    lending.pass_time(IDLE_SECONDS / 2)
    lending.loop.do(lending.pool.close_idle, lending.loop.now)
    assert lending.state() == (0, 1, 0, 0)
    assert wire(one).lost
    assert not wire(two).lost
    lending.pass_time(IDLE_SECONDS / 2 - 0.1)
    lending.loop.do(lending.pool.close_idle, lending.loop.now)
    assert lending.state() == (0, 1, 0, 0)
    lending.pass_time(0.1)
    lending.loop.do(lending.pool.close_idle, lending.loop.now)
    assert lending.state() == (0, 0, 0, 0)


@pytest.mark.interpreted
def test_listener_gets_all_events(lending):
    one = lending.acquire()
    listener = one.listener = UpstreamListener()
    wire(one).send(b"a", b"b")
    wire(one).taking = False
    lending.loop.do(one.transport.write, b"x" * 70_000)
    wire(one).take()
    wire(one).send_eof()
    assert listener.events[:5] == [b"a", b"b", False, True, "closed"]
    lending.release(one, reusable=False)


def test_closed_pool_rejects_waiters():
    lending = Lending()
    taken = [lending.acquire(), lending.acquire()]
    lending.release(taken[0])
    busy = lending.acquire()
    tasks = [lending.ask() for _ in range(3)]
    lending.loop.do(lending.pool.close)
    assert all(task.cancelled() for task in tasks)
    assert wire(busy).lost
    assert lending.state() == (0, 0, 0, 0)
    lending.loop.close()
