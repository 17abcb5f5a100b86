"""The edge without sockets: literal bytes in, literal bytes out, a clock that stands still, and a store that is told.

A `World` holds an `Edge` with all that belongs to it, on an event loop of its own. Visitors and the shop are objects:
they speak through transports that behave as asyncio's do, and see the very bytes that would go over the wire. Nothing
waits for real; when a `World` ends, it looks for what was left behind.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from structlog.testing import capture_logs

from support.asyncio_fakes import STARTED, Shop, VirtualLoop, Wire
from support.http_reader import Message, read_requests, read_responses
from waitroom.edge.app import Edge
from waitroom.edge.client.connection import ClientConnection
from waitroom.edge.client.interfaces import ClientLimits
from waitroom.edge.pages.renderer import Pages
from waitroom.edge.rooms.room import Room
from waitroom.edge.rooms.router import Router
from waitroom.edge.upstream.pool import UpstreamAddress, UpstreamPool
from waitroom.errors import StoreUnavailable
from waitroom.metrics.recorder import RoomMetrics
from waitroom.net.forwarded import TrustedProxies
from waitroom.queue.fields import Limits
from waitroom.queue.positions import RankIndex, Throughput
from waitroom.queue.schedule import file_events
from waitroom.queue.store import Joined, SessionChange, Visit, Visited
from waitroom.queue.view import RoomState, RoomView
from waitroom.settings import RoomSettings
from waitroom.timing import Clock
from waitroom.tokens import Pass, Ticket, Tokens

WALL = 1_800_000_000  # the Unix time at first
SECRET = "a secret of sixteen characters"

# One where nobody waits and newcomers go in, and one with a line.
QUIET = RoomView(
    generation=7,
    clock_ms=0,
    state=RoomState.OPEN,
    own_state=RoomState.OPEN,
    method="fifo",
    high_water_mark=100,
    waiting=0,
    called=0,
    away=0,
    active=5,
    rate_per_minute=60.0,
    max_active=10,
    session_ms=900_000,
    claim_ms=180_000,
    message="",
    remaining=None,
    version=0,
    draining=False,
    autopilot=None,
    last_change="",
    operator_change="",
    invited=frozenset(),
    totals={},
    rank_index=RankIndex("0", (0,), (101,)),
    throughput=Throughput(),
)
BUSY = replace(QUIET, waiting=50, active=10, rank_index=RankIndex("1", (0, 10, 50), (101, 111, 151)))


# The store.


@dataclass
class FakeStore:
    """A `QueueStore` that answers as it is told.

    Attributes:
        calls: The names and arguments of all calls.
        ages: The ages of the shop's reports of units, in milliseconds.
        view_: What `view` answers.
        fates: What `visit` answers, by place; ``waiting`` for others.
        admits: How many of the next newcomers go in at once.
        next_place: Of the next newcomer.
        takes: Whether newcomers get a place at all.
        over: Sessions that are.
        left: Milliseconds until the end of sessions, if `change_sessions` is to say; 1 for others.
        broken: The names of calls that fail, or all of them.
    """

    loop: VirtualLoop
    view_: RoomView = BUSY
    fates: dict[int, Visited] = field(default_factory=dict)
    admits: int = 0
    next_place: int = 151
    takes: bool = True
    over: set[int] = field(default_factory=set)
    left: dict[int, int] = field(default_factory=dict)
    broken: set[str] | Literal["all"] = field(default_factory=set)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    ages: list[int] = field(default_factory=list)
    _held: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    async def view(self, known: RoomView | None = None) -> RoomView:
        await self._called("view", None)
        return self.view_

    async def open(self, limits: Limits, events: Mapping[str, str] | None = None, run_id: str = "") -> int:
        await self._called("open", limits, events)
        return self.view_.generation

    async def join(self, count: int) -> Joined:
        await self._called("join", count)
        view = self.view_
        if not self.takes:
            return Joined(view.generation, 0, 0, view.waiting, view.state, 0)
        first, self.next_place = self.next_place, self.next_place + count
        admitted = min(self.admits, count)
        self.admits -= admitted
        return Joined(view.generation, first, admitted, view.waiting + count - admitted, view.state, 0)

    async def visit(self, visits: Sequence[Visit]) -> list[Visited]:
        await self._called("visit", list(visits))
        return [self.fates.get(visit.place, Visited("waiting", 0)) for visit in visits]

    async def seen(self, places: Iterable[int]) -> None:
        await self._called("seen", sorted(places))

    async def change_sessions(self, changes: Sequence[SessionChange]) -> list[int]:
        await self._called("change_sessions", list(changes))
        return [0 if change.session in self.over else self.left.get(change.session, 1) for change in changes]

    async def leave(self, place: int, pass_ms: int, *, has_pass: bool = False) -> bool:
        await self._called("leave", (place, pass_ms, has_pass))
        return True

    async def set_state(self, state: RoomState, message: str | None = None) -> None:
        await self._called("set_state", state)

    async def report_sold_out(self, *, age_ms: int = 0) -> None:
        await self._called("report_sold_out", age_ms)

    async def set_remaining(self, remaining: int, *, age_ms: int = 0) -> None:
        self.ages.append(age_ms)
        await self._called("set_remaining", remaining)

    def hold(self, name: str) -> None:
        """Keeps those waiting who call this from now on."""
        self._held[name] = self.loop.create_future()

    def let_go(self, name: str) -> None:
        """Answers those who wait."""
        self._held.pop(name).set_result(None)
        self.loop.settle()

    def named(self, name: str) -> list[Any]:
        """The arguments of all calls of a name."""
        return [argument for called, argument in self.calls if called == name]

    async def _called(self, name: str, argument: Any) -> None:
        self.calls.append((name, argument))
        if name in self._held:
            await self._held[name]
        if self.broken == "all" or name in self.broken:
            raise StoreUnavailable("told to fail")


# All of it.

LIMITS = ClientLimits(
    head_bytes=65536,
    head_seconds=10.0,
    body_seconds=30.0,
    idle_seconds=75.0,
    write_seconds=60.0,
    buffer_bytes=131072,
    buffer_seconds=10.0,
    min_bytes_per_second=500.0,
)


def room_settings(name: str = "shop", **settings: Any) -> RoomSettings:
    return RoomSettings(name=name, **{"upstream": "http://shop.internal:3000", **settings})


@cache
def pages_of(rooms: tuple[RoomSettings, ...]) -> Pages:
    return Pages(rooms)


class World:
    """A running edge.

    Args:
        rooms: Their settings; one named ``shop`` by default.
        view: Of all rooms; None for rooms that have not been looked at yet.
        settings: Of the only room.

    Attributes:
        edge, room, pool, store, shop: Of the first room, where there are several.
        logs: What was logged.
    """

    def __init__(
        self,
        *rooms: RoomSettings,
        view: RoomView | None = BUSY,
        store_up: bool = True,
        trusted: Sequence[str] = (),
        limits: ClientLimits = LIMITS,
        most_buffered: int = 1 << 20,
        most_connections: int = 1000,
        most_per_address: int = 1000,
        **settings: Any,
    ) -> None:
        self._exit = ExitStack()
        self._wires: list[Wire] = []
        self.logs: list[Any] = []
        self.loop = VirtualLoop()
        self._clock = Clock(self.unix_time, self.loop.time)
        self.shop = self.loop.shop = Shop(self.loop)
        given = rooms or (room_settings(**settings),)

        def build() -> Edge:
            built = {one.name: self._room(one) for one in given}
            return Edge(
                built,
                Router(given),
                pages_of(given),
                TrustedProxies(trusted),
                limits,
                self._clock,
                most_buffered=most_buffered,
                most_connections=most_connections,
                most_per_address=most_per_address,
            )

        self.edge = self.loop.do(build)
        self.edge._responder._spread = random.Random(1)
        self.rooms = self.edge.rooms
        self.room: Room = self.rooms[given[0].name]
        self.store: FakeStore = self.room._store  # type: ignore[assignment]
        self.pool = self.room.pool
        self.tokens = self.room.tokens
        self.view = view
        for one in self.rooms.values():
            one.store_up = store_up and view is not None

    def _room(self, settings: RoomSettings) -> Room:
        pool = UpstreamPool(
            *(UpstreamAddress.parse(url) for url in settings.upstreams),
            max_connections=settings.upstream_max_connections,
            connect_seconds=settings.upstream_connect_seconds,
            wait_seconds=settings.upstream_wait_seconds,
        )
        store: Any = FakeStore(self.loop)
        tokens, events = Tokens([SECRET], settings.name), file_events(settings, SECRET)
        return Room(settings, tokens, store, pool, RoomMetrics(), 1, self._clock, None, events)

    @property
    def view(self) -> RoomView | None:
        return self.room.view

    @view.setter
    def view(self, view: RoomView | None) -> None:
        """What all rooms look like, to edge and store."""
        for one in self.rooms.values():
            one.view = view
            if view is not None:
                one._store.view_ = view  # type: ignore[attr-defined]

    def __enter__(self) -> World:
        self.logs = self._exit.enter_context(capture_logs())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.end()
        finally:
            self._exit.close()
            self.loop.close()

    def end(self) -> None:
        """Sends all visitors away, and looks for what is left behind."""
        for wire in self._wires:
            if not wire.lost:
                wire.reset()
        assert self.loop.errors == []
        assert not self.edge.clients
        assert not self.edge._watched
        assert self.edge.bodies.held == 0
        assert not self.edge.connections.per_neighbourhood
        assert self.edge.connections._total == self.edge.connections.with_pass == 0
        assert not self.edge._in_flight.counts
        self.shop.let_in()
        for one in self.rooms.values():
            assert one.metrics.in_flight == 0
            assert not one.sessions._busy
            assert one.pool.in_flight == 0, repr(one.pool)
            self.loop.wait(one.close())
            assert repr(one.pool) == "<UpstreamPool in_use=0 idle=0 connecting=0 wait=0>"
        assert not asyncio.all_tasks(self.loop)
        assert self.loop.errors == []

    def unix_time(self) -> float:
        return WALL + self.loop.now - STARTED

    def client(self, address: str = "203.0.113.9") -> Wire:
        """A visitor's browser, connected."""
        peer = self.loop.do(self.edge.acquire_slot, address)
        protocol = asyncio.Protocol() if peer is None else ClientConnection(self.edge, peer)
        wire = Wire(self.loop, protocol, address)
        self._wires.append(wire)
        if peer is None:
            self.loop.do(wire.abort)
        else:
            self.loop.do(protocol.connection_made, wire)
        return wire

    def ask(self, request: bytes, *, wire: Wire | None = None) -> Message:
        """Sends one request over a new connection, and gives the answer, which must be there at once."""
        wire = wire or self.client()
        wire.clear()
        wire.send(request)
        (answer,) = read_responses(wire.got, [request.partition(b" ")[0]], closed=wire.lost or wire.got_eof)
        return answer

    def pass_time(self, seconds: float) -> None:
        """Moves the clock on, lets time-outs strike, and sweeps as a worker does."""
        self.loop.now += seconds
        self.loop.settle()
        self.loop.do(self.edge.sweep)

    def ticket(self, place: int = 120, *, generation: int = 7, age: int = 60, start: int = 30) -> bytes:
        """A ticket of ours."""
        ticket = Ticket(place, generation, int(self.unix_time()) - age, start, 100)
        return self.tokens.sign_ticket(ticket).encode()

    def pass_(self, session: int = 90, *, left: int = 900, ends: int = 14400) -> bytes:
        """A pass of ours with so many seconds left, of a session with so many left."""
        now = int(self.unix_time())
        return self.tokens.sign_pass(Pass(session, now + left, now + ends)).encode()

    def inside(self, session: int = 90) -> bytes:
        """The Cookie line of an admitted visitor."""
        return b"Cookie: waitroom_pass_shop=%b\r\n" % self.pass_(session)


def get(target: bytes = b"/", *lines: bytes, method: bytes = b"GET", body: bytes | None = None) -> bytes:
    """A request; lines may end in line ends or not."""
    more = [line.removesuffix(b"\r\n") for line in lines if line]
    if body is not None:
        more.append(b"Content-Length: %d" % len(body))
    head = b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), b"Host: shop.example", *more])
    return head + b"\r\n\r\n" + (body or b"")


PAGE = b"Accept: text/html"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# Visitors who are inside, and what the shop makes of them.


def sent(world: World, *lines: bytes, wire: Wire | None = None, **how: Any) -> Wire:
    """A visitor inside sends a request."""
    wire = wire or world.client()
    wire.send(get(b"/a", world.inside(), *lines, **how))
    return wire


def at_shop(world: World) -> Message:
    """The only request that the shop has received, whole."""
    (message,), rest = read_requests(world.shop.got)
    assert rest == b""
    return message


def answer(wire: Wire, method: bytes = b"GET") -> Message:
    """The only answer, whole."""
    (message,) = read_responses(wire.got, [method], closed=wire.lost or wire.got_eof)
    return message


def warm(world: World) -> Wire:
    """An idle connection to the shop that has been used before."""
    sent(world)
    shop = world.shop.wire
    shop.send(OK)
    shop.clear()
    assert repr(world.pool) == "<UpstreamPool in_use=0 idle=1 connecting=0 wait=0>"
    return shop
