"""A small shop that really sells and really fails under load: the upstream of the drills.

Its database pool is its capacity. Within it, a page takes about ten milliseconds. Beyond it requests queue and pages
take seconds, and past the queue's limits requests fail, as in any shop on a busy day.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from jinja2 import Environment, PackageLoader

from waitroom.drill.shop.database import Database, DatabaseThread, Pool, PoolExhaustedError
from waitroom.shop.proof import HEADER as PROOF_HEADER
from waitroom.shop.proof import InvalidProofError, ProofVerifier, refusal

COMMAND_HEADER = "Waitroom-Command"
ROOM_HEADER = "Waitroom-Room"
SESSION_COOKIE = "northlight_session"

QUERY_SECONDS = 0.015
BACKLOG_PER_CONNECTION = 20
CONNECTION_WAIT_SECONDS = 2.0

_STOP_SECONDS = 2.0
_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_MOST_CONNECTIONS = 10_000
_FORM_BYTES = 16 * 1024
_NO_STORE = {"Cache-Control": "no-store"}
# For operators of drills, who ask the shop directly.
_OPERATORS_PATHS = ("/stats", "/capacity")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Load:
    """The load on the shop, counted since its start.

    Attributes:
        requests: Requests received, except for `/stats`, `/capacity` and the icon.
        failures: Requests answered 500 or above.
        in_flight: Requests in progress.
        peak_in_flight: The highest number of requests in progress so far.
    """

    requests: int = 0
    failures: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0


@dataclass(slots=True)
class Shop:
    """The shop's pages over its database and its pool.

    Attributes:
        verifier: Refuses requests that bypass the gateway; None to accept all.
    """

    database: DatabaseThread
    pool: Pool
    verifier: ProofVerifier | None = None
    load: Load = field(default_factory=Load)
    pages: Environment = field(
        default_factory=lambda: Environment(
            loader=PackageLoader("waitroom.drill.shop", "pages"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
    )

    def application(self) -> web.Application:
        """Build the shop as an aiohttp application."""
        app = web.Application(middlewares=[self._require_proof, self._count], client_max_size=_FORM_BYTES)
        app.add_routes(
            [
                web.get("/", self.product),
                web.get("/basket", self.basket),
                web.post("/basket", self.fill_basket),
                web.post("/basket/empty", self.empty_basket),
                web.get("/checkout", self.checkout),
                web.post("/checkout", self.place_order),
                web.get(r"/orders/{number:\d{1,18}}", self.order),
                web.get("/favicon.svg", self.icon),
                web.get("/stats", self.stats),
                web.post("/capacity", self.resize),
            ]
        )
        return app

    async def product(self, request: web.Request) -> web.StreamResponse:
        """Show the product and the remaining stock."""
        async with self.pool.connection():
            stock = await self.database.run(Database.stock)
        return self._stock_page(stock)

    async def fill_basket(self, request: web.Request) -> web.StreamResponse:
        """Put the product into the basket, and show the basket."""
        session = _session(request) or secrets.token_urlsafe(16)
        async with self.pool.connection():
            await self.database.run(lambda database: database.fill_basket(session))
        answer = _see_other("/basket")
        answer.set_cookie(SESSION_COOKIE, session, httponly=True, samesite="Lax")
        return answer

    async def empty_basket(self, request: web.Request) -> web.StreamResponse:
        """Take the product out of the basket."""
        if session := _session(request):
            async with self.pool.connection():
                await self.database.run(lambda database: database.empty_basket(session))
        return _see_other("/basket")

    async def basket(self, request: web.Request) -> web.StreamResponse:
        """Show the contents of the basket."""
        filled = await self._has_basket(request)
        return self._page("basket", label="basket" if filled else "empty_basket", filled=filled)

    async def checkout(self, request: web.Request) -> web.StreamResponse:
        """Ask for a name and an address."""
        if not await self._has_basket(request):
            return _see_other("/basket")
        return self._page("checkout", buyer="", email="", wrong={})

    async def place_order(self, request: web.Request) -> web.StreamResponse:
        """Turn the basket into an order and show its confirmation."""
        form = await request.post()
        buyer, email = str(form.get("buyer", "")).strip(), str(form.get("email", "")).strip()
        if wrong := _wrong_fields(buyer, email):
            return self._page("checkout", status=422, buyer=buyer, email=email, wrong=wrong)
        session = _session(request)
        if session is None:
            return _see_other("/basket")
        # Two queries to the database, as a checkout has: read first, then write.
        async with self.pool.connection():
            stock = await self.database.run(Database.stock)
        async with self.pool.connection():
            order = await self.database.run(lambda database: database.place_order(session, buyer, email))
        if order is not None:
            return _see_other(f"/orders/{order.number}")
        return _see_other("/basket") if stock else self._stock_page(0)

    async def order(self, request: web.Request) -> web.StreamResponse:
        """Show the confirmation, only to the visitor who ordered. The visit is over, so the slot is free."""
        number, session = int(request.match_info["number"]), _session(request) or ""
        async with self.pool.connection():
            order, stock = await self.database.run(lambda database: (database.order(number, session), database.stock()))
        if order is None:
            raise web.HTTPNotFound
        answer = self._page("order", order=order)
        answer.headers[COMMAND_HEADER] = f"release, remaining={stock}"
        return answer

    async def icon(self, request: web.Request) -> web.StreamResponse:
        """Serve the icon: no database, and caches may keep it."""
        drawing = (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><circle cx="12" cy="12" r="6" fill="#c2410c"/>'
            '<path d="M12 1v4M12 19v4M1 12h4M19 12h4" stroke="#c2410c" stroke-width="2"/></svg>'
        )
        return web.Response(
            text=drawing, content_type="image/svg+xml", headers={"Cache-Control": "public, max-age=86400"}
        )

    async def stats(self, request: web.Request) -> web.StreamResponse:
        """Return the shop's figures as JSON, without a database connection, so that it responds even under overload."""
        orders, stock = await self.database.run(lambda database: (database.orders(), database.stock()))
        return web.json_response(
            {
                "orders": orders,
                "stock": stock,
                "requests": self.load.requests,
                "failures": self.load.failures,
                "in_flight": self.load.in_flight,
                "peak_in_flight": self.load.peak_in_flight,
                "database_busy": self.pool.busy,
                "database_waiting": self.pool.waiting,
                "capacity": self.pool.size,
            },
            headers=_NO_STORE,
        )

    async def resize(self, request: web.Request) -> web.StreamResponse:
        """Change the number of database connections, as when a shop's machine fails or another one is added.

        For drill operators, directly at the shop and on its own machine; not for visitors.
        """
        straight = request.remote in _LOOPBACK and ROOM_HEADER not in request.headers
        connections = request.query.get("connections", "")
        if not straight:
            raise web.HTTPForbidden(text="Available only directly at the shop, from its own machine.\n")
        if not connections.isdecimal() or not 1 <= int(connections) <= _MOST_CONNECTIONS:
            raise web.HTTPBadRequest(text=f"Use /capacity?connections=N with N from 1 to {_MOST_CONNECTIONS}.\n")
        self.pool.resize(int(connections))
        return web.Response(text=f"{self.pool.size}\n")

    async def _has_basket(self, request: web.Request) -> bool:
        session = _session(request)
        if session is None:
            return False
        async with self.pool.connection():
            return await self.database.run(lambda database: database.basket(session))

    def _stock_page(self, stock: int) -> web.Response:
        answer = self._page("product", label="product" if stock else "sold_out", stock=stock)
        answer.headers[COMMAND_HEADER] = f"remaining={stock}"
        return answer

    def _page(self, name: str, *, status: int = 200, label: str | None = None, **values: object) -> web.Response:
        text = self.pages.get_template(f"{name}.html").render(page=label or name, **values)
        return web.Response(text=text, status=status, content_type="text/html", headers=_NO_STORE)

    @web.middleware
    async def _require_proof(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        verifier = self.verifier
        if verifier is not None and not verifier.leaves_alone(request.path):
            try:
                verifier.verify(request.headers.getall(PROOF_HEADER, []))
            except InvalidProofError as error:
                return web.Response(status=403, body=refusal(error), content_type="text/plain", headers=_NO_STORE)
        return await handler(request)

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in {"/stats", "/favicon.svg", "/capacity"}:
            return await handler(request)
        load = self.load
        load.requests += 1
        load.in_flight += 1
        load.peak_in_flight = max(load.peak_in_flight, load.in_flight)
        try:
            answer = await self._answer(request, handler)
        finally:
            load.in_flight -= 1
        if answer.status >= 500:
            load.failures += 1
        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except PoolExhaustedError:
            heading, sentence = "We're too busy right now.", "Please try again in a moment."
            return self._page("failed", status=503, heading=heading, sentence=sentence)
        except sqlite3.Error as error:
            print(f"the shop's database failed: {error}", file=sys.stderr)  # noqa: T201 - it has no logger
            heading, sentence = "Something went wrong.", "This is our fault. Please try again in a moment."
            return self._page("failed", status=500, heading=heading, sentence=sentence)
        except web.HTTPNotFound:
            heading, sentence = "Page not found.", "Please check the address."
            return self._page("failed", status=404, heading=heading, sentence=sentence)


def _session(request: web.Request) -> str | None:
    return request.cookies.get(SESSION_COOKIE) or None


def _see_other(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path, **_NO_STORE})


def _wrong_fields(buyer: str, email: str) -> dict[str, str]:
    wrong = {}
    if not 0 < len(buyer) <= 100:
        wrong["buyer"] = "Please enter a name of at most 100 characters."
    if not 2 < len(email) <= 200 or "@" not in email[1:-1]:
        wrong["email"] = "Please enter an address such as ada@example.com."
    return wrong


async def serve(
    host: str,
    port: int,
    *,
    stock: int,
    capacity: int,
    query_seconds: float,
    data: Path,
    verifier: ProofVerifier | None = None,
) -> None:
    """Run the shop until SIGTERM or SIGINT, and print a line to standard output when it is ready.

    Args:
        host: The address to listen on.
        port: The port; 0 chooses a free one, which the ready line contains.
        stock: Units for sale when the database is new.
        capacity: Connections in the database pool.
        query_seconds: The duration of a query in an idle database.
        data: The database file.
        verifier: Refuses requests that bypass the gateway; None to accept all.

    Raises:
        OSError: The port is taken.
        sqlite3.Error: The database can't be opened.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    database = DatabaseThread()
    pool = Pool(
        capacity,
        backlog=BACKLOG_PER_CONNECTION * capacity,
        wait_seconds=CONNECTION_WAIT_SECONDS,
        query_seconds=query_seconds,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await database.open(data, stock)
        shop = Shop(database, pool, verifier)
        runner = web.AppRunner(shop.application(), access_log=None, shutdown_timeout=_STOP_SECONDS)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.TCPSite(runner, host, port, backlog=1024).start()
        bound = runner.addresses[0][1]
        print(f"shop ready on http://{host}:{bound}", flush=True)  # noqa: T201 - the one line it prints
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run the shop.

    Returns:
        The exit code: 0 after SIGTERM, 1 if it failed to start.
    """
    parser = argparse.ArgumentParser(prog="python -m waitroom.drill.shop.app", description="A demo shop.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=3000, help="port to listen on; 0 chooses a free one")
    parser.add_argument("--stock", type=int, default=500, help="units for sale when the database is new")
    parser.add_argument("--capacity", type=int, default=40, help="database connections")
    parser.add_argument(
        "--query-seconds", type=float, default=QUERY_SECONDS, help="duration of a query in an idle database"
    )
    parser.add_argument("--data", type=Path, required=True, help="the database file")
    parser.add_argument("--room", help="the gateway's room; the shop then accepts only the gateway's requests")
    parser.add_argument("--secrets-file", type=Path, help="the room's shop_secret, one on each line during a rotation")
    given = parser.parse_args(arguments)
    if given.stock < 0 or given.capacity < 1:
        parser.error("--stock must be at least 0 and --capacity at least 1")
    if not 0 <= given.query_seconds <= CONNECTION_WAIT_SECONDS:
        parser.error(f"--query-seconds must be between 0 and {CONNECTION_WAIT_SECONDS:g}")
    if (given.room is None) != (given.secrets_file is None):
        parser.error("--room and --secrets-file must be given together")
    try:
        verifier = None
        if given.room is not None:
            secrets_ = given.secrets_file.read_text("ascii").split()
            verifier = ProofVerifier(room=given.room, secrets=secrets_, leave_alone=_OPERATORS_PATHS)
        asyncio.run(
            serve(
                given.host,
                given.port,
                stock=given.stock,
                capacity=given.capacity,
                query_seconds=given.query_seconds,
                data=given.data,
                verifier=verifier,
            )
        )
    except (OSError, ValueError, sqlite3.Error) as error:
        print(f"the shop can't start: {error}", file=sys.stderr)  # noqa: T201 - it has no logger
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
