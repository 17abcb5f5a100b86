"""The pool of connections to the shop: bounded, fair, and right in its counts whatever is cancelled or closed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from wires import Shop, VirtualLoop, Wire

from waitroom.edge.connector import UpstreamAddress, UpstreamUnavailable
from waitroom.edge.upstream import IDLE_SECONDS, UpstreamConnection, UpstreamPool


class Borrower:
    """Notes what comes."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def upstream_data(self, data: bytes) -> None:
        self.events.append(data)

    def upstream_closed(self, error: Exception | None) -> None:
        self.events.append(error or "closed")

    def upstream_writable(self, writable: bool) -> None:
        self.events.append(writable)


class Lending:
    """A pool, and those who borrow from it."""

    def __init__(self, most: int = 2) -> None:
        self.loop = VirtualLoop()
        self.shop = self.loop.shop = Shop(self.loop)
        self.pool: UpstreamPool = self.loop.do(self._make, most)

    def _make(self, most: int) -> UpstreamPool:
        address = UpstreamAddress.parse("http://shop.internal:3000")
        return UpstreamPool(address, max_connections=most, connect_seconds=5.0, wait_seconds=2.0)

    def ask(self, *, fresh: bool = False) -> asyncio.Task[UpstreamConnection]:
        task = self.loop.create_task(self.pool.take(fresh=fresh))
        self.loop.settle()
        return task

    def take(self, *, fresh: bool = False) -> UpstreamConnection:
        return self.loop.wait(self.pool.take(fresh=fresh))

    def give_back(self, connection: UpstreamConnection, *, reusable: bool = True) -> None:
        self.loop.do(lambda: self.pool.give_back(connection, reusable=reusable))

    def cancel(self, task: asyncio.Task[UpstreamConnection]) -> None:
        task.cancel()
        self.loop.settle()
        assert task.cancelled()

    def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.loop.settle()

    def state(self) -> tuple[int, int, int, int]:
        """Lent, idle, connecting and waiting."""
        shown = repr(self.pool).removeprefix("<UpstreamPool ").removesuffix(">")
        counts = dict(part.split("=") for part in shown.split())
        assert list(counts) == ["lent", "idle", "connecting", "wait"]
        lent, idle, connecting, waiting = (int(count) for count in counts.values())
        assert lent + idle + connecting <= self.pool._max
        return lent, idle, connecting, waiting


@pytest.fixture
def lending() -> Iterator[Lending]:
    lending = Lending()
    yield lending
    lending.shop.let_in()
    lending.loop.do(lending.pool.close)
    assert lending.state() == (0, 0, 0, 0)
    assert all(address.in_flight == 0 for address in lending.pool.balance._addresses)
    assert not asyncio.all_tasks(lending.loop)
    assert lending.loop.errors == []
    lending.loop.close()


def wire(connection: UpstreamConnection) -> Wire:
    assert isinstance(connection.transport, Wire)
    return connection.transport


# Lending.


def test_a_connection_is_made_when_one_is_needed_and_kept(lending):
    assert lending.state() == (0, 0, 0, 0)
    one = lending.take()
    assert lending.state() == (1, 0, 0, 0)
    assert not one.used
    lending.give_back(one)
    assert lending.state() == (0, 1, 0, 0)
    assert lending.take() is one
    assert one.used
    lending.give_back(one)


def test_the_one_given_back_last_is_lent_first(lending):
    one, two = lending.take(), lending.take()
    lending.give_back(two)
    lending.give_back(one)
    assert lending.take() is one
    assert lending.take() is two
    lending.give_back(one)
    lending.give_back(two)


def test_idle_ones_cost_no_wait(lending):
    assert lending.loop.do(lending.pool.take_idle) is None
    one = lending.take()
    lending.give_back(one)
    assert lending.loop.do(lending.pool.take_idle) is one
    assert lending.state() == (1, 0, 0, 0)
    lending.give_back(one)


def test_one_that_is_not_reusable_is_cut(lending):
    one = lending.take()
    lending.give_back(one, reusable=False)
    assert lending.state() == (0, 0, 0, 0)
    assert wire(one).aborted


def test_one_that_was_paused_reads_again(lending):
    one = lending.take()
    wire(one).pause_reading()
    lending.give_back(one)
    assert wire(one).is_reading()


def test_never_more_than_the_most(lending):
    taken = [lending.take(), lending.take()]
    waiting = [lending.ask() for _ in range(3)]
    assert lending.state() == (2, 0, 0, 3)
    assert not any(task.done() for task in waiting)
    lending.give_back(taken[0])
    lending.give_back(taken[1])
    assert [task.done() for task in waiting] == [True, True, False], "who came first is served first"
    assert waiting[0].result() is taken[0]
    assert waiting[1].result() is taken[1]
    assert lending.state() == (2, 0, 0, 1)
    lending.give_back(taken[0])
    assert waiting[2].result() is taken[0]
    lending.give_back(taken[0])
    lending.give_back(taken[1])
    assert lending.state() == (0, 2, 0, 0)


def test_where_one_was_cut_a_new_one_is_made_for_who_waits(lending):
    taken = [lending.take(), lending.take()]
    waiting = lending.ask()
    lending.give_back(taken[0], reusable=False)
    assert waiting.result() is not taken[0]
    assert lending.state() == (2, 0, 0, 0)
    lending.give_back(waiting.result())
    lending.give_back(taken[1])


def test_who_waits_too_long_is_told_so_and_forgotten(lending):
    taken = [lending.take(), lending.take()]
    first, second = lending.ask(), lending.ask()
    lending.pass_time(1.0)
    third = lending.ask()
    lending.pass_time(1.0)
    for task in (first, second):
        with pytest.raises(UpstreamUnavailable) as raised:
            task.result()
        assert raised.value.cause == "busy"
    assert lending.state() == (2, 0, 0, 1)
    lending.give_back(taken[0])
    assert third.result() is taken[0]
    lending.give_back(third.result())
    lending.give_back(taken[1])


def test_who_has_given_up_is_passed_over(lending):
    taken = [lending.take(), lending.take()]
    first, second = lending.ask(), lending.ask()
    lending.cancel(first)
    assert lending.state() == (2, 0, 0, 1)
    lending.give_back(taken[0])
    assert second.result() is taken[0]
    for connection in taken:
        lending.give_back(connection)


def test_a_shop_that_hangs_keeps_nobody_in_memory(lending):
    """Thousands wait two seconds each while it does."""
    taken = [lending.take(), lending.take()]
    for _ in range(50):
        task = lending.ask()
        lending.pass_time(2.0)
        assert task.exception() is not None
        assert lending.state() == (2, 0, 0, 0)
    for connection in taken:
        lending.give_back(connection)


# Cancelled in the middle.


def test_cancelled_while_it_connects(lending):
    lending.shop.hangs = True
    task = lending.ask()
    assert lending.state() == (0, 0, 1, 0)
    lending.cancel(task)
    assert lending.state() == (0, 0, 0, 0)


def test_cancelled_while_it_connects_another_s_turn_comes(lending):
    lending.shop.hangs = True
    connecting = [lending.ask(), lending.ask()]
    waiting = lending.ask()
    assert lending.state() == (0, 0, 2, 1)
    lending.cancel(connecting[0])
    assert lending.state() == (0, 0, 2, 0)
    lending.shop.let_in()
    for task in (connecting[1], waiting):
        lending.give_back(task.result())


def test_cancelled_while_it_waits(lending):
    taken = [lending.take(), lending.take()]
    lending.cancel(lending.ask())
    assert lending.state() == (2, 0, 0, 0)
    for connection in taken:
        lending.give_back(connection)


def test_cancelled_with_a_connection_already_meant_for_it(lending):
    taken = [lending.take(), lending.take()]
    task, behind = lending.ask(), lending.ask()

    def both() -> None:
        lending.pool.give_back(taken[0], reusable=True)
        task.cancel()

    lending.loop.do(both)
    assert task.cancelled()
    assert behind.result() is taken[0], "it is the next one's then"
    lending.give_back(taken[0])
    lending.give_back(taken[1])
    assert lending.state() == (0, 2, 0, 0)


def test_cancelled_with_a_slot_already_meant_for_it(lending):
    taken = [lending.take(), lending.take()]
    task, behind = lending.ask(), lending.ask()

    def both() -> None:
        lending.pool.give_back(taken[0], reusable=False)
        task.cancel()

    lending.loop.do(both)
    assert task.cancelled()
    assert behind.done()
    assert lending.state() == (2, 0, 0, 0)
    lending.give_back(behind.result())
    lending.give_back(taken[1])


def test_timed_out_with_a_connection_already_meant_for_it(lending):
    """Both strike in one turn of the loop: it may have the one or the other, but nothing is lost."""
    taken = [lending.take(), lending.take()]
    task = lending.ask()
    lending.loop.now += 2.0
    lending.give_back(taken[0])
    if task.exception() is None:
        lending.give_back(task.result())
    lending.give_back(taken[1])
    assert lending.state() == (0, 2, 0, 0)


def test_cancelled_in_every_turn_of_the_loop():
    """Wherever it stands just then."""
    for turns in range(12):
        for hangs in (False, True):
            lending = Lending(1)
            lending.shop.hangs = hangs
            held = None if hangs else lending.take()
            tasks = [lending.loop.create_task(lending.pool.take()) for _ in range(3)]
            if held is not None:
                lending.loop.call_soon(lambda: None)
                lending.loop.call_soon(lambda held=held, pool=lending.pool: pool.give_back(held, reusable=False))
            for _ in range(turns):
                lending.loop.call_soon(lending.loop.stop)
                lending.loop.run_forever()
            tasks[0].cancel()
            lending.loop.settle()
            lending.shop.let_in()
            for task in tasks:
                if task.done() and not task.cancelled() and task.exception() is None:
                    lending.give_back(task.result())
            assert tasks[1].done(), turns
            lending.loop.settle()
            for task in tasks[1:]:
                if task.done() and task.result().lent:
                    lending.give_back(task.result())
            assert lending.state() == (0, 1, 0, 0), (turns, hangs)
            lending.loop.do(lending.pool.close)
            assert lending.loop.errors == []
            lending.loop.close()


# Connecting.


def test_a_shop_that_takes_no_connections(lending):
    lending.shop.refuses = ConnectionRefusedError("refused")
    task = lending.ask()
    error = task.exception()
    assert isinstance(error, UpstreamUnavailable)
    assert error.cause == "connect"
    assert lending.state() == (0, 0, 0, 0)


def test_a_shop_that_takes_too_long(lending):
    lending.shop.hangs = True
    task = lending.ask()
    lending.pass_time(4.9)
    assert not task.done()
    lending.pass_time(0.2)
    error = task.exception()
    assert isinstance(error, UpstreamUnavailable)
    assert error.cause == "connect"
    assert lending.state() == (0, 0, 0, 0)


def test_when_connecting_fails_the_next_one_tries(lending):
    lending.shop.hangs = True
    connecting = [lending.ask(), lending.ask()]
    waiting = lending.ask()
    lending.shop.refuses = ConnectionRefusedError("refused")
    lending.shop.let_in()
    for task in (*connecting, waiting):
        assert isinstance(task.exception(), UpstreamUnavailable)
    assert lending.shop.attempts == 3
    assert lending.state() == (0, 0, 0, 0)


def test_a_shop_that_closes_at_once(lending):
    """Nobody would ever hear of it: the connection was gone before it was lent."""

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
    assert isinstance(lending.ask().exception(), UpstreamUnavailable)
    assert lending.state() == (0, 0, 0, 0)


# A new one in any case.


def test_a_fresh_one_is_none_that_was_used_before(lending):
    one = lending.take()
    lending.give_back(one)
    two = lending.take(fresh=True)
    assert two is not one
    assert lending.state() == (1, 1, 0, 0)
    lending.give_back(two)


def test_a_fresh_one_takes_the_place_of_the_oldest_idle_one(lending):
    one, two = lending.take(), lending.take()
    lending.give_back(one)
    lending.give_back(two)
    three = lending.take(fresh=True)
    assert wire(one).aborted
    assert not wire(two).aborted
    assert lending.state() == (1, 1, 0, 0)
    lending.give_back(three)


def test_a_fresh_one_that_had_to_wait_is_fresh_all_the_same(lending):
    taken = [lending.take(), lending.take()]
    task = lending.ask(fresh=True)
    lending.give_back(taken[0])
    assert task.result() not in taken
    assert not task.result().used
    assert wire(taken[0]).aborted
    assert lending.state() == (2, 0, 0, 0)
    lending.give_back(task.result())
    lending.give_back(taken[1])


# Dead ones.


def test_one_that_the_shop_closes_while_idle_is_gone(lending):
    one = lending.take()
    lending.give_back(one)
    wire(one).send_eof()
    assert lending.state() == (0, 0, 0, 0)


def test_one_that_breaks_while_idle_is_gone(lending):
    one = lending.take()
    lending.give_back(one)
    wire(one).reset()
    assert lending.state() == (0, 0, 0, 0)


def test_one_that_speaks_unasked_is_cut(lending):
    one = lending.take()
    lending.give_back(one)
    wire(one).send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert wire(one).aborted
    assert lending.state() == (0, 0, 0, 0)


def test_a_dying_one_is_not_lent(lending):
    one = lending.take()
    lending.give_back(one)

    def both() -> UpstreamConnection | None:
        one.transport.close()
        return lending.pool.take_idle()

    assert lending.loop.do(both) is None
    assert lending.state() == (0, 0, 0, 0)


def test_a_dying_one_is_not_handed_to_who_waits(lending):
    """Given back, and closed by the shop in the same look at the socket."""
    taken = [lending.take(), lending.take()]
    task = lending.ask()

    def both() -> None:
        lending.pool.give_back(taken[0], reusable=True)
        assert not taken[0].eof_received()
        taken[0].transport.close()

    lending.loop.do(both)
    assert task.result() is not taken[0]
    assert not task.result().transport.is_closing()
    assert lending.state() == (2, 0, 0, 0)
    lending.give_back(task.result())
    lending.give_back(taken[1])


def test_one_that_died_while_lent_is_not_kept(lending):
    one = lending.take()
    borrower = one.borrower = Borrower()
    wire(one).reset(OSError("broken"))
    assert [str(event) for event in borrower.events] == ["broken"]
    assert lending.state() == (0, 0, 0, 0)
    lending.give_back(one)
    assert lending.state() == (0, 0, 0, 0)


def test_idle_ones_are_closed_after_a_while(lending):
    one, two = lending.take(), lending.take()
    lending.give_back(one)
    lending.pass_time(IDLE_SECONDS / 2)
    lending.give_back(two)
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


def test_who_borrows_hears_everything(lending):
    one = lending.take()
    borrower = one.borrower = Borrower()
    wire(one).send(b"a", b"b")
    wire(one).taking = False
    lending.loop.do(one.transport.write, b"x" * 70_000)
    wire(one).take()
    wire(one).send_eof()
    assert borrower.events[:5] == [b"a", b"b", False, True, "closed"]
    lending.give_back(one, reusable=False)


def test_closed_it_turns_everybody_away():
    lending = Lending()
    taken = [lending.take(), lending.take()]
    lending.give_back(taken[0])
    busy = lending.take()
    tasks = [lending.ask() for _ in range(3)]
    lending.loop.do(lending.pool.close)
    assert all(task.cancelled() for task in tasks)
    assert wire(busy).lost
    assert lending.state() == (0, 0, 0, 0)
    lending.loop.close()
