import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from waitroom.drill.shop.database import Database, DatabaseThread, Pool, PoolExhaustedError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shop.sqlite"


@pytest.fixture
def database(path):
    database = Database(path, stock=2)
    yield database
    database.close()


def buy(database, session):
    database.fill_basket(session)
    return database.place_order(session, "Ada", "ada@example.com")


def test_an_order_takes_a_unit_and_the_basket(database):
    order = buy(database, "s1")
    assert database.order(order.number, "s1") == order
    assert (database.stock(), database.orders(), database.basket("s1")) == (1, 1, False)


def test_the_same_form_sent_twice_is_one_order(database):
    first = buy(database, "s1")
    assert database.place_order("s1", "Ada", "ada@example.com") == first
    assert (database.stock(), database.orders()) == (1, 1)


def test_a_basket_holds_one_unit_and_can_be_emptied(database):
    database.fill_basket("s1")
    database.fill_basket("s1")
    assert database.basket("s1")
    database.empty_basket("s1")
    assert not database.basket("s1")
    assert database.place_order("s1", "Ada", "ada@example.com") is None
    assert database.stock() == 2


def test_nobody_else_sees_an_order(database):
    order = buy(database, "s1")
    assert database.order(order.number, "s2") is None
    assert database.order(order.number + 1, "s1") is None


def test_a_failed_order_changes_nothing(database):
    database.fill_basket("s1")
    with pytest.raises(Exception, match="NOT NULL"):
        database.place_order("s1", None, "ada@example.com")
    assert (database.stock(), database.orders(), database.basket("s1")) == (2, 0, True)


def test_the_stock_survives_a_restart(path, database):
    buy(database, "s1")
    again = Database(path, stock=500)
    assert again.stock() == 1
    again.close()


def test_several_shops_on_one_file_never_oversell(path):
    stock, shops, tries = 25, 4, 20

    def sell(shop):
        database = Database(path, stock)
        sold = [buy(database, f"{shop}-{number}") for number in range(tries)]
        left = database.stock()
        database.close()
        return sum(order is not None for order in sold), left

    with ThreadPoolExecutor(shops) as threads:
        results = list(threads.map(sell, range(shops)))
    assert sum(sold for sold, _ in results) == stock
    assert min(left for _, left in results) == 0


def test_opening_waits_for_another_process(path, monkeypatch):
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("waitroom.drill.shop.database.time.sleep", lambda seconds: other.rollback())
        database = Database(path, 7)
        assert database.stock() == 7
        database.close()


async def test_the_database_thread_refuses_work_before_it_is_open():
    database = DatabaseThread()
    with pytest.raises(RuntimeError, match="isn't open"):
        await database.run(Database.stock)
    await database.close()


class Holder:
    """Holds connections until it is released."""

    def __init__(self, pool):
        self.pool = pool
        self.held = 0
        self.changed = asyncio.Condition()
        self.let_go = asyncio.Event()

    async def hold(self):
        async with self.pool.connection():
            async with self.changed:
                self.held += 1
                self.changed.notify_all()
            await self.let_go.wait()

    async def until_held(self, count):
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: self.held == count)


async def test_the_pool_has_limits_for_connections_and_queue():
    pool = Pool(2, backlog=1, wait_seconds=5, query_seconds=0)
    holder = Holder(pool)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(holder.hold())
        await holder.until_held(2)
        assert (pool.busy, pool.waiting) == (2, 1)
        with pytest.raises(PoolExhaustedError, match="wait for a database connection"):
            async with pool.connection():
                pass
        holder.let_go.set()
    assert (holder.held, pool.busy, pool.waiting) == (3, 0, 0)


async def test_a_request_waits_for_a_connection_for_a_limited_time():
    pool = Pool(1, backlog=10, wait_seconds=0.01, query_seconds=0)
    holder = Holder(pool)
    async with asyncio.TaskGroup() as group:
        group.create_task(holder.hold())
        await holder.until_held(1)
        with pytest.raises(PoolExhaustedError, match="within"):
            async with pool.connection():
                pass
        holder.let_go.set()
    assert (pool.busy, pool.waiting) == (0, 0)


async def test_a_cancelled_request_leaves_the_queue():
    pool = Pool(1, backlog=10, wait_seconds=5, query_seconds=0)
    holder = Holder(pool)
    async with asyncio.TaskGroup() as group:
        group.create_task(holder.hold())
        await holder.until_held(1)
        gone = group.create_task(holder.hold())
        await asyncio.sleep(0)
        assert pool.waiting == 1
        gone.cancel()
        holder.let_go.set()
    assert (pool.busy, pool.waiting) == (0, 0)
    async with pool.connection():
        assert pool.busy == 1


@pytest.mark.parametrize(("sizes", "expected"), [([4], 4), ([1], 1), ([1, 3], 3), ([4, 1, 2], 2)])
async def test_a_resized_pool_has_the_new_number_of_connections(sizes, expected):
    pool = Pool(2, backlog=100, wait_seconds=5, query_seconds=0)
    for size in sizes:
        pool.resize(size)
    holder = Holder(pool)
    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(holder.hold())
        await holder.until_held(expected)
        assert (pool.busy, pool.size) == (expected, expected)
        holder.let_go.set()
    assert (holder.held, pool.busy, pool.waiting) == (6, 0, 0)


async def test_a_shrinking_pool_finishes_queries_in_progress():
    pool = Pool(2, backlog=10, wait_seconds=5, query_seconds=0)
    holder = Holder(pool)
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(holder.hold())
        await holder.until_held(2)
        pool.resize(1)
        holder.let_go.set()
    again = Holder(pool)
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(again.hold())
        await again.until_held(1)
        assert (pool.busy, pool.waiting) == (1, 1)
        again.let_go.set()


def test_a_pool_without_connections_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Pool(2, backlog=10, wait_seconds=5, query_seconds=0).resize(0)
