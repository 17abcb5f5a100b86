"""The demo shop's data: stock, baskets and orders in SQLite, and the connection pool that limits its load."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_PRODUCT = 1
_LOCK_SECONDS = 5.0
_AGAIN_SECONDS = 0.01


class PoolExhaustedError(Exception):
    """No database connection is available: the queue is full, or this request waited too long."""


@dataclass(frozen=True, slots=True)
class Order:
    """A placed order of one unit.

    Attributes:
        number: The order's number, counted from 1.
        session: The shop session that placed it.
        buyer: The name given at the checkout.
        email: The email address given at the checkout.
    """

    number: int
    session: str
    buyer: str
    email: str


class Pool:
    """A bounded pool of database connections with a bounded queue in front of it.

    A connection is a share of one database, so the busier the pool, the longer each query takes. The pool, the queue
    and its limits are the shop's whole capacity: at most ``size / (2 * query_seconds)`` queries per second.

    Args:
        size: The number of connections, at least 1.
        backlog: The maximum number of waiting requests; further ones are rejected immediately.
        wait_seconds: How long a request waits for a connection before it is rejected.
        query_seconds: The duration of a query in an idle database; twice as long in a full one.
    """

    def __init__(self, size: int, *, backlog: int, wait_seconds: float, query_seconds: float) -> None:
        self.size = size
        self.busy = 0
        self.waiting = 0
        self._backlog = backlog
        self._wait_seconds = wait_seconds
        self._query_seconds = query_seconds
        self._free = asyncio.Semaphore(size)
        self._too_many = 0

    def resize(self, size: int) -> None:
        """Change the number of connections, and the queue with it. Connections in use finish their query first.

        Raises:
            ValueError: The number is below 1.
        """
        if size < 1:
            raise ValueError("a pool needs at least one connection")
        self._backlog = self._backlog * size // self.size
        more, self.size = size - self.size, size
        paid = min(max(more, 0), self._too_many)
        self._too_many += max(-more, 0) - paid
        for _ in range(more - paid):
            self._free.release()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        """Hold a connection for the duration of a query.

        Raises:
            PoolExhaustedError: The queue is full, or no connection became free in time.
        """
        await self._acquire()
        try:
            await asyncio.sleep(self._query_seconds * (1 + self.busy / self.size))
            yield
        finally:
            self.busy -= 1
            self._free.release()

    async def _acquire(self) -> None:
        if self._free.locked() and self.waiting >= self._backlog:
            raise PoolExhaustedError(f"{self.waiting} requests already wait for a database connection")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
                while self._too_many:  # the connection belonged to a larger pool, and is gone
                    self._too_many -= 1
                    await self._free.acquire()
        except TimeoutError as error:
            raise PoolExhaustedError(f"no database connection within {self._wait_seconds:g} s") from error
        finally:
            self.waiting -= 1
        self.busy += 1


class Database:
    """The shop's tables. Every method runs in the thread that owns the SQLite connection.

    Args:
        path: The database file; created if missing.
        stock: Units for sale, used only when the file is new.

    Raises:
        sqlite3.Error: The file can't be opened or isn't a database of this shop.
    """

    def __init__(self, path: Path, stock: int) -> None:
        self._db = sqlite3.connect(
            path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        try:
            self._write_ahead()
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(files(__package__).joinpath("schema.sql").read_text("utf-8"))
            self._db.execute("INSERT OR IGNORE INTO products (id, stock) VALUES (?, ?)", (_PRODUCT, stock))
        except sqlite3.Error:
            self._db.close()
            raise

    def _write_ahead(self) -> None:
        # SQLite doesn't wait for a lock here: if two shops opened a new file at the same time, one would fail.
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
            time.sleep(_AGAIN_SECONDS)

    def stock(self) -> int:
        """Units left."""
        row = self._db.execute("SELECT stock FROM products WHERE id = ?", (_PRODUCT,)).fetchone()
        return int(row[0])

    def orders(self) -> int:
        """Orders placed so far."""
        return int(self._db.execute("SELECT count(*) FROM orders").fetchone()[0])

    def fill_basket(self, session: str) -> None:
        """Put one unit into the session's basket; a second one changes nothing: one per customer."""
        self._db.execute("INSERT OR IGNORE INTO baskets (session) VALUES (?)", (session,))

    def empty_basket(self, session: str) -> None:
        """Remove the unit from the basket."""
        self._db.execute("DELETE FROM baskets WHERE session = ?", (session,))

    def basket(self, session: str) -> bool:
        """Whether the session's basket holds a unit."""
        found = self._db.execute("SELECT 1 FROM baskets WHERE session = ?", (session,)).fetchone()
        return found is not None

    def place_order(self, session: str, buyer: str, email: str) -> Order | None:
        """Turn the basket into an order, atomically.

        Repeated, such as by a double click or a resent form, it returns the first order.

        Returns:
            The order; None if the stock is gone or the basket is empty.
        """
        with self._transaction():
            if self._db.execute("DELETE FROM baskets WHERE session = ?", (session,)).rowcount == 0:
                return self._last_order(session)
            taken = self._db.execute("UPDATE products SET stock = stock - 1 WHERE id = ? AND stock > 0", (_PRODUCT,))
            if taken.rowcount == 0:
                return None
            added = self._db.execute(
                "INSERT INTO orders (session, buyer, email) VALUES (?, ?, ?)", (session, buyer, email)
            )
            return Order(int(added.lastrowid or 0), session, buyer, email)

    def order(self, number: int, session: str) -> Order | None:
        """Return the session's order of that number; None if it doesn't exist or is somebody else's."""
        row = self._db.execute(
            "SELECT number, session, buyer, email FROM orders WHERE number = ? AND session = ?",
            (number, session),
        ).fetchone()
        return None if row is None else Order(*row)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _last_order(self, session: str) -> Order | None:
        row = self._db.execute(
            "SELECT number, session, buyer, email FROM orders WHERE session = ? ORDER BY number DESC LIMIT 1",
            (session,),
        ).fetchone()
        return None if row is None else Order(*row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # Immediate: two shops on one file then queue for the write lock instead of failing halfway.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


class DatabaseThread:
    """The database in its own thread, so that no query ever blocks the event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        self._database: Database | None = None

    async def open(self, path: Path, stock: int) -> None:
        """Open the database; see `Database` for the arguments and errors."""
        loop = asyncio.get_running_loop()
        self._database = await loop.run_in_executor(self._thread, Database, path, stock)

    async def run(self, query: Callable[[Database], T]) -> T:
        """Run a query in the thread and return what it returns."""
        if self._database is None:
            raise RuntimeError("the database isn't open")
        return await asyncio.get_running_loop().run_in_executor(self._thread, query, self._database)

    async def close(self) -> None:
        """Close the database and end the thread."""
        if self._database is not None:
            await self.run(Database.close)
        self._thread.shutdown()
