"""The share of a pool for requests without a pass, and the order in which waiting requests are served."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.pool_clients import PoolHarness, running_pool, wire
from waitroom.edge.upstream.connector import UpstreamUnavailableError
from waitroom.edge.upstream.pool import UpstreamConnection
from waitroom.edge.upstream.share import WAITERS_PER_CONNECTION, PoolShare

MOST = 16
SHARE, EACH = 8, 4


@pytest.fixture
def harness() -> Iterator[PoolHarness]:
    with running_pool(MOST) as harness:
        yield harness


def give_all(harness: PoolHarness, *connections: UpstreamConnection) -> None:
    for connection in connections:
        harness.release(connection)


def fill_share(harness: PoolHarness) -> list[UpstreamConnection]:
    """Two neighbourhoods take the whole share of requests without a pass."""
    return [harness.acquire(name) for name in ("192.0.2.1", "192.0.2.2") for _ in range(EACH)]


@pytest.mark.parametrize(("most", "share", "each"), [(256, 128, 64), (16, 8, 4), (3, 1, 1), (2, 1, 1), (1, 1, 1)])
def test_share_without_a_pass_and_per_neighbourhood(most, share, each):
    counted = PoolShare(most)
    assert (counted.most, counted.most_each) == (share, each)


def test_requests_with_a_pass_always_find_a_connection():
    with running_pool(256) as harness:
        asking = [harness.ask(f"192.0.2.{number % 50}") for number in range(256)]
        taken = [task.result() for task in asking if task.done()]
        assert len(taken) == 128
        assert "without_pass=128" in repr(harness.pool)
        inside = [harness.acquire() for _ in range(128)]
        assert harness.state() == (256, 0, 0, 128)
        harness.pass_time(2.0)
        refused = [task.exception() for task in asking if task not in taken and task.exception() is not None]
        assert {error.cause for error in refused if isinstance(error, UpstreamUnavailableError)} == {"share"}
        assert len(refused) == 128
        give_all(harness, *taken, *inside)


def test_one_neighbourhood_takes_half_of_the_share(harness):
    taken = [harness.acquire("192.0.2.1") for _ in range(EACH)]
    waiting = harness.ask("192.0.2.1")
    assert not waiting.done()
    others = [harness.acquire("192.0.2.2") for _ in range(EACH)]
    harness.release(others.pop())
    assert not waiting.done(), "another neighbourhood gets the free place"
    harness.release(taken[0])
    assert waiting.done()
    give_all(harness, *taken, *others)


def test_idle_connections_count_towards_the_share_when_acquired(harness):
    taken = fill_share(harness)
    harness.release(harness.acquire())
    assert harness.acquire_idle("192.0.2.3") is None
    waiting = harness.ask("192.0.2.3")
    assert harness.state() == (SHARE, 1, 0, 1)
    found = harness.acquire_idle()
    assert found is not None
    harness.release(found)
    harness.release(taken[0])
    assert waiting.result() is taken[0]
    give_all(harness, *taken)


def test_waiters_with_a_pass_are_served_first(harness):
    taken = [harness.acquire() for _ in range(MOST)]
    without = [harness.ask("192.0.2.1"), harness.ask("192.0.2.2")]
    with_pass = [harness.ask(), harness.ask()]
    harness.release(taken[0])
    harness.release(taken[1], reusable=False)
    assert [task.done() for task in (*with_pass, *without)] == [True, True, False, False]
    harness.release(taken[2])
    harness.release(taken[3])
    assert all(task.done() for task in without)
    give_all(harness, *taken[4:], *(task.result() for task in (*with_pass, *without)))


def test_waiting_neighbourhoods_take_turns(harness):
    taken = [harness.acquire() for _ in range(MOST)]
    many = [harness.ask("192.0.2.1") for _ in range(6)]
    one = harness.ask("192.0.2.2")
    harness.release(taken[0])
    harness.release(taken[1])
    assert one.done()
    assert [task.done() for task in many] == [True] + [False] * 5
    give_all(harness, *taken[2:])
    for task in (one, *many):
        harness.release(task.result())


def test_connections_being_opened_count(harness):
    harness.shop.hangs = True
    asking = [harness.ask("192.0.2.1") for _ in range(EACH + 1)]
    assert harness.state() == (0, 0, EACH, 1)
    harness.cancel(asking[0])
    assert harness.state() == (0, 0, EACH, 0), "the next waiter gets the slot"
    harness.shop.refuses = ConnectionRefusedError("refused")
    harness.shop.let_in()
    assert all(isinstance(task.exception(), UpstreamUnavailableError) for task in asking[1:])
    assert repr(harness.pool) == "<UpstreamPool in_use=0 idle=0 connecting=0 wait=0>"


@pytest.mark.parametrize("way", ["cut", "closed by the shop", "given back"])
def test_share_is_released_exactly_once(harness, way):
    taken = fill_share(harness)
    if way == "closed by the shop":
        wire(taken[0]).reset()
    harness.release(taken[0], reusable=way == "given back")
    assert f"without_pass={SHARE - 1}" in repr(harness.pool)
    harness.release(taken[0], reusable=False)
    assert f"without_pass={SHARE - 1}" in repr(harness.pool)
    give_all(harness, *taken[1:])
    assert "without_pass" not in repr(harness.pool)


def test_fresh_connection_after_a_wait_keeps_its_share(harness):
    taken = fill_share(harness)
    waiting = harness.ask("192.0.2.3", fresh=True)
    harness.release(taken[0])
    assert waiting.result() not in taken
    assert f"without_pass={SHARE}" in repr(harness.pool)
    give_all(harness, waiting.result(), *taken[1:])


@pytest.mark.parametrize("reusable", [True, False])
@pytest.mark.parametrize("end", ["cancelled", "timed out"])
def test_grant_of_a_cancelled_waiter_goes_to_the_next(harness, reusable, end):
    taken = fill_share(harness)
    first, second = harness.ask("192.0.2.3"), harness.ask("192.0.2.3")

    def both() -> None:
        harness.pool.release(taken[0], reusable=reusable)
        first.cancel()

    if end == "cancelled":
        harness.loop.do(both)
        assert first.cancelled()
    else:
        harness.loop.now += 2.0
        harness.release(taken[0], reusable=reusable)
    for task in (first, second):
        if task.done() and not task.cancelled() and task.exception() is None:
            harness.release(task.result())
    assert f"without_pass={SHARE - 1}" in repr(harness.pool)
    give_all(harness, *taken[1:])
    assert "without_pass" not in repr(harness.pool)
    assert end == "timed out" or second.exception() is None


def test_waiters_are_bounded(harness):
    taken = [harness.acquire() for _ in range(MOST)]
    asking = [harness.ask("192.0.2.1") for _ in range(WAITERS_PER_CONNECTION * EACH + 1)]
    refused = [task.exception() for task in asking if task.done()]
    assert [error.cause for error in refused if isinstance(error, UpstreamUnavailableError)] == ["share"]
    asking += [harness.ask(f"198.51.100.{number}") for number in range(WAITERS_PER_CONNECTION * MOST)]
    assert harness.state()[3] == WAITERS_PER_CONNECTION * MOST
    inside = [harness.ask() for _ in range(WAITERS_PER_CONNECTION * MOST + 1)]
    refused = [task.exception() for task in inside if task.done()]
    assert [error.cause for error in refused if isinstance(error, UpstreamUnavailableError)] == ["busy"]
    assert harness.state()[3] == 2 * WAITERS_PER_CONNECTION * MOST
    harness.pass_time(2.0)
    assert harness.state() == (MOST, 0, 0, 0)
    assert all(task.exception() is not None for task in (*asking, *inside))
    give_all(harness, *taken)


NAMES = ["", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(NAMES), st.booleans()),
        st.tuples(st.just("end"), st.integers(0, 40), st.sampled_from(["keep", "cut", "reset", "eof"])),
        st.tuples(st.just("cancel"), st.integers(0, 40), st.none()),
        st.tuples(st.just("time"), st.sampled_from([0.5, 2.0, 5.0]), st.none()),
        st.tuples(st.just("shop"), st.sampled_from(["hangs", "refuses", "well"]), st.none()),
    ),
    max_size=60,
)


class Play:
    """A pool, its waiting requests, and the connections in use."""

    def __init__(self, most: int) -> None:
        self.harness = PoolHarness(most)
        self.asked: list[tuple[str, asyncio.Task[UpstreamConnection]]] = []
        self.held: list[tuple[str, UpstreamConnection]] = []

    def step(self, what: str, which: Any, how: Any) -> None:
        harness = self.harness
        if what == "ask":
            self.asked.append((which, harness.ask(which, fresh=how)))
        elif what == "end" and self.held:
            self.end(self.held.pop(which % len(self.held))[1], how)
        elif what == "cancel" and self.asked:
            self.asked[which % len(self.asked)][1].cancel()
            harness.loop.settle()
        elif what == "time":
            harness.pass_time(which)
        elif what == "shop":
            harness.shop.hangs = which == "hangs"
            harness.shop.refuses = ConnectionRefusedError("refused") if which == "refuses" else None
            if which != "hangs":
                harness.shop.let_in()
        self.settle()

    def end(self, connection: UpstreamConnection, how: str) -> None:
        if how in ("reset", "eof") and not wire(connection).is_closing():
            wire(connection).reset() if how == "reset" else wire(connection).send_eof()
        self.harness.release(connection, reusable=how == "keep")

    def settle(self) -> None:
        for name, task in list(self.asked):
            if task.done():
                self.asked.remove((name, task))
                if not task.cancelled() and task.exception() is None:
                    self.held.append((name, task.result()))

    def check(self) -> None:
        pool = self.harness.pool
        share, waiters = pool._share, pool._waiters
        in_use, _, connecting, waiting = self.harness.state()
        counts = Counter(name for name, _ in self.held if name)
        assert in_use == len(self.held)
        assert sum(counts.values()) <= share.held <= sum(counts.values()) + connecting
        assert share.held <= share.most
        assert max(counts.values(), default=0) <= share.most_each
        if waiting and in_use + connecting < pool._max:
            # Connections could be had: only those wait that are at their share.
            assert not waiters._with_pass
            assert not any(share.has_room(name) for name in waiters._without_pass)

    def end_all(self) -> None:
        for _, connection in self.held:
            self.harness.release(connection)
        self.held.clear()
        self.harness.shop.refuses = None
        self.harness.shop.let_in()
        self.harness.pass_time(5.0)
        self.settle()
        for _, connection in self.held:
            self.harness.release(connection, reusable=False)


@given(st.integers(1, 9), STEPS)
def test_counts_stay_right_and_no_waiter_starves(most, steps):
    play = Play(most)
    for step in steps:
        play.step(*step)
        play.check()
    play.end_all()
    harness = play.harness
    harness.loop.do(harness.pool.close)
    assert repr(harness.pool) == "<UpstreamPool in_use=0 idle=0 connecting=0 wait=0>"
    assert not asyncio.all_tasks(harness.loop)
    assert harness.loop.errors == []
    harness.loop.close()
