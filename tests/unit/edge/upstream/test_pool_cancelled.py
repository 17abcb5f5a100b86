"""Cancelled waits for a connection of the pool: its counts stay correct."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.pool_clients import PoolHarness, running_pool


@pytest.fixture
def harness() -> Iterator[PoolHarness]:
    with running_pool() as harness:
        yield harness


def test_cancelled_while_connecting(harness):
    harness.shop.hangs = True
    task = harness.ask()
    assert harness.state() == (0, 0, 1, 0)
    harness.cancel(task)
    assert harness.state() == (0, 0, 0, 0)


def test_cancelled_connect_frees_a_slot(harness):
    harness.shop.hangs = True
    connecting = [harness.ask(), harness.ask()]
    waiting = harness.ask()
    assert harness.state() == (0, 0, 2, 1)
    harness.cancel(connecting[0])
    assert harness.state() == (0, 0, 2, 0)
    harness.shop.let_in()
    for task in (connecting[1], waiting):
        harness.release(task.result())


def test_cancelled_while_waiting(harness):
    taken = [harness.acquire(), harness.acquire()]
    harness.cancel(harness.ask())
    assert harness.state() == (2, 0, 0, 0)
    for connection in taken:
        harness.release(connection)


def test_cancelled_with_a_granted_connection(harness):
    taken = [harness.acquire(), harness.acquire()]
    task, behind = harness.ask(), harness.ask()

    def both() -> None:
        harness.pool.release(taken[0], reusable=True)
        task.cancel()

    harness.loop.do(both)
    assert task.cancelled()
    assert behind.result() is taken[0], "the next waiter gets it"
    harness.release(taken[0])
    harness.release(taken[1])
    assert harness.state() == (0, 2, 0, 0)


def test_cancelled_with_a_granted_slot(harness):
    taken = [harness.acquire(), harness.acquire()]
    task, behind = harness.ask(), harness.ask()

    def both() -> None:
        harness.pool.release(taken[0], reusable=False)
        task.cancel()

    harness.loop.do(both)
    assert task.cancelled()
    assert behind.done()
    assert harness.state() == (2, 0, 0, 0)
    harness.release(behind.result())
    harness.release(taken[1])


def test_timed_out_with_a_granted_connection(harness):
    """Both happen in one turn of the loop: either may win, but nothing is lost."""
    taken = [harness.acquire(), harness.acquire()]
    task = harness.ask()
    harness.loop.now += 2.0
    harness.release(taken[0])
    if task.exception() is None:
        harness.release(task.result())
    harness.release(taken[1])
    assert harness.state() == (0, 2, 0, 0)


def test_cancelled_in_every_turn_of_the_loop():
    """Whatever it is waiting for."""
    for turns in range(12):
        for hangs in (False, True):
            harness = PoolHarness(1)
            harness.shop.hangs = hangs
            held = None if hangs else harness.acquire()
            tasks = [harness.loop.create_task(harness.pool.acquire(True, "")) for _ in range(3)]
            if held is not None:
                harness.loop.call_soon(lambda: None)
                harness.loop.call_soon(lambda held=held, pool=harness.pool: pool.release(held, reusable=False))
            for _ in range(turns):
                harness.loop.call_soon(harness.loop.stop)
                harness.loop.run_forever()
            tasks[0].cancel()
            harness.loop.settle()
            harness.shop.let_in()
            for task in tasks:
                if task.done() and not task.cancelled() and task.exception() is None:
                    harness.release(task.result())
            assert tasks[1].done(), turns
            harness.loop.settle()
            for task in tasks[1:]:
                if task.done() and task.result().in_use:
                    harness.release(task.result())
            assert harness.state() == (0, 1, 0, 0), (turns, hangs)
            harness.loop.do(harness.pool.close)
            assert harness.loop.errors == []
            harness.loop.close()
