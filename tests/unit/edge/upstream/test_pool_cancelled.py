"""Cancelled waits for a connection of the pool: its counts stay correct."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.pool_clients import Lending, running_lending


@pytest.fixture
def lending() -> Iterator[Lending]:
    with running_lending() as lending:
        yield lending


def test_cancelled_while_connecting(lending):
    lending.shop.hangs = True
    task = lending.ask()
    assert lending.state() == (0, 0, 1, 0)
    lending.cancel(task)
    assert lending.state() == (0, 0, 0, 0)


def test_cancelled_connect_frees_a_slot(lending):
    lending.shop.hangs = True
    connecting = [lending.ask(), lending.ask()]
    waiting = lending.ask()
    assert lending.state() == (0, 0, 2, 1)
    lending.cancel(connecting[0])
    assert lending.state() == (0, 0, 2, 0)
    lending.shop.let_in()
    for task in (connecting[1], waiting):
        lending.release(task.result())


def test_cancelled_while_waiting(lending):
    taken = [lending.acquire(), lending.acquire()]
    lending.cancel(lending.ask())
    assert lending.state() == (2, 0, 0, 0)
    for connection in taken:
        lending.release(connection)


def test_cancelled_with_a_granted_connection(lending):
    taken = [lending.acquire(), lending.acquire()]
    task, behind = lending.ask(), lending.ask()

    def both() -> None:
        lending.pool.release(taken[0], reusable=True)
        task.cancel()

    lending.loop.do(both)
    assert task.cancelled()
    assert behind.result() is taken[0], "the next waiter gets it"
    lending.release(taken[0])
    lending.release(taken[1])
    assert lending.state() == (0, 2, 0, 0)


def test_cancelled_with_a_granted_slot(lending):
    taken = [lending.acquire(), lending.acquire()]
    task, behind = lending.ask(), lending.ask()

    def both() -> None:
        lending.pool.release(taken[0], reusable=False)
        task.cancel()

    lending.loop.do(both)
    assert task.cancelled()
    assert behind.done()
    assert lending.state() == (2, 0, 0, 0)
    lending.release(behind.result())
    lending.release(taken[1])


def test_timed_out_with_a_granted_connection(lending):
    """Both happen in one turn of the loop: either may win, but nothing is lost."""
    taken = [lending.acquire(), lending.acquire()]
    task = lending.ask()
    lending.loop.now += 2.0
    lending.release(taken[0])
    if task.exception() is None:
        lending.release(task.result())
    lending.release(taken[1])
    assert lending.state() == (0, 2, 0, 0)


def test_cancelled_in_every_turn_of_the_loop():
    """Whatever it is waiting for."""
    for turns in range(12):
        for hangs in (False, True):
            lending = Lending(1)
            lending.shop.hangs = hangs
            held = None if hangs else lending.acquire()
            tasks = [lending.loop.create_task(lending.pool.acquire(True, "")) for _ in range(3)]
            if held is not None:
                lending.loop.call_soon(lambda: None)
                lending.loop.call_soon(lambda held=held, pool=lending.pool: pool.release(held, reusable=False))
            for _ in range(turns):
                lending.loop.call_soon(lending.loop.stop)
                lending.loop.run_forever()
            tasks[0].cancel()
            lending.loop.settle()
            lending.shop.let_in()
            for task in tasks:
                if task.done() and not task.cancelled() and task.exception() is None:
                    lending.release(task.result())
            assert tasks[1].done(), turns
            lending.loop.settle()
            for task in tasks[1:]:
                if task.done() and task.result().in_use:
                    lending.release(task.result())
            assert lending.state() == (0, 1, 0, 0), (turns, hangs)
            lending.loop.do(lending.pool.close)
            assert lending.loop.errors == []
            lending.loop.close()
