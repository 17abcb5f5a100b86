"""A full room at work: visitors inside shop and leave, waiting visitors poll and enter, and all note what they meet."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError

from support.gateway_process import Gateway, eventually
from support.visitor_client import Answer, Visitor
from waitroom.process.embedded_store import EmbeddedStore
from waitroom.store.connection import connect

NAME = "sale"
SLOTS, WAITING = 40, 200
# At least so many stay inside, however long nobody is called.
STAYING = 20
# How long visitors think between two requests, and how often one of them leaves.
PAGE_SECONDS, POLL_SECONDS, LEAVE_SECONDS = (0.4, 0.6), (1.8, 2.2), (0.5, 1.0)
# One in so many waiting visitors has no JavaScript: the page reloads instead of polling.
RELOADS = 5
TIMEOUT_SECONDS = 15
BROKEN = (aiohttp.ClientError, OSError, TimeoutError)
IN_QUEUE = ("waiting", "called", "admitted")


@dataclass
class Answers:
    """What some visitors met.

    Attributes:
        requests: How many requests they sent.
        others: What they met instead of what they wanted, and how often: a status, ``held``, or ``no response``.
        slowest: The longest time until a response, in seconds.
        gap: The longest time of one visitor without a response, in seconds, think time included.
    """

    requests: int = 0
    others: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    gap: float = 0.0


@dataclass
class BusyVisitor(Visitor):
    """A browser with a connection of its own, which repeats a GET whose kept connection was cut, as browsers do.

    Attributes:
        place: Of the first ticket; None for visitors who never waited.
        wrongs: What no visitor may ever be told, and this one was.
    """

    busy: BusyRoom | None = None
    number: int = 0
    step: Literal["waiting", "inside", "leaving", "gone"] = "waiting"
    place: int = 0
    answered_at: float = 0.0
    wrongs: list[str] = field(default_factory=list)

    @property
    def _room(self) -> BusyRoom:
        assert self.busy is not None
        return self.busy

    async def live(self) -> None:
        """Polls until called, enters, and shops until it is time to leave."""
        await asyncio.sleep(random.uniform(0, POLL_SECONDS[1]))
        while self.step == "waiting":
            await self._poll()
            await asyncio.sleep(random.uniform(*(POLL_SECONDS if self.step == "waiting" else PAGE_SECONDS)))
        while self.step == "inside":
            await self._shop()
            await asyncio.sleep(random.uniform(*PAGE_SECONDS))
        while self.step == "leaving":
            answer = await self._ask(self.call("leave"), self._room.leaving)
            if answer is not None and answer.status == 200:
                self.step = "gone"
            elif answer is not None:
                self._room.leaving.others[str(answer.status)] += 1
            await asyncio.sleep(random.uniform(*PAGE_SECONDS))

    async def _poll(self) -> None:
        answers = self._room.waiting
        if self.number % RELOADS:
            answer = await self._ask(self.fetch(f"/.waitroom/status?room={self.room}"), answers)
            if answer is None or self._waits(answer) not in ("called", "admitted"):
                return
        answer = await self._ask(self.navigate("/page"), answers)
        if answer is not None and answer.status != 200:
            self._waits(answer)
        if self.pass_cookie in self.cookies:
            if self.pass_.session != self.place:
                self.wrongs.append(f"entered as {self.pass_.session}")
            self.step = "inside"
            self._room.entered(self)

    def _waits(self, answer: Answer) -> str | None:
        """The state that a waiting visitor is told, if any."""
        state = state_of(answer)
        if state not in IN_QUEUE:
            self._room.waiting.others[state or str(answer.status)] += 1
        if state not in (None, "held", *IN_QUEUE):
            self.wrongs.append(f"told {state}")
        if self.ticket_cookie in self.cookies and self.ticket.place != self.place:
            self.wrongs.append(f"place {self.ticket.place}")
        return state

    async def _shop(self) -> None:
        answer = await self._ask(self.navigate("/page"), self._room.inside)
        if answer is None or answer.status == 200:
            return
        self._room.inside.others[str(answer.status)] += 1
        if answer.status < 400 or state_of(answer):
            self.wrongs.append(f"thrown out: {answer.status} {answer.body[:80]!r}")

    async def _ask(self, request: Awaitable[Answer], answers: Answers) -> Answer | None:
        answers.requests += 1
        began = time.monotonic()
        try:
            answer = await request
        except BROKEN:
            answers.others["no response"] += 1
            return None
        now = time.monotonic()
        answers.slowest = max(answers.slowest, now - began)
        answers.gap = max(answers.gap, now - self.answered_at)
        self.answered_at = now
        return answer


def state_of(answer: Answer) -> str | None:
    """The state that a visitor is told; None for an error, as a page or as JSON."""
    try:
        return None if answer.state == "error" else answer.state
    except (AssertionError, KeyError):
        return None


@dataclass
class BusyRoom:
    """The room, its visitors, and what they and the store show since `begin`.

    Attributes:
        entries: When each waiting visitor entered, and the place.
        called_at: When the store was first seen to have called each place, or admitted it.
        most: The most visitors who were seen inside or called at one moment.
        overtaken: Places that waited while a later one was called.
        samples: How often the store was read.
    """

    gateway: Gateway
    visitors: list[BusyVisitor] = field(default_factory=list)
    inside: Answers = field(default_factory=Answers)
    waiting: Answers = field(default_factory=Answers)
    leaving: Answers = field(default_factory=Answers)
    entries: list[tuple[float, int]] = field(default_factory=list)
    called_at: dict[int, float] = field(default_factory=dict)
    most: int = 0
    overtaken: set[int] = field(default_factory=set)
    samples: int = 0
    ended: bool = False

    def begin(self) -> None:
        """Forgets what visitors have met so far."""
        self.inside, self.waiting, self.leaving = Answers(), Answers(), Answers()
        self.entries.clear()

    async def fill(self) -> None:
        """Lets visitors in and the others join."""
        for visitor in self.visitors[:SLOTS]:
            await visitor.goes_in()
            visitor.step, visitor.place = "inside", visitor.pass_.session
        for visitor in self.visitors[SLOTS:]:
            assert (await visitor.call("join")).json["state"] == "waiting"
            visitor.place = visitor.ticket.place
        now = time.monotonic()
        for visitor in self.visitors:
            visitor.answered_at = now

    def entered(self, visitor: BusyVisitor) -> None:
        """Notes that a waiting visitor has a pass."""
        self.entries.append((time.monotonic(), visitor.place))

    async def next_entry(self) -> float:
        """When the first visitor entered of those who are called from now on."""
        before = self.samples
        await eventually(lambda: self.samples >= before + 2)  # one of them has begun since
        known = set(self.called_at)

        def find() -> float | None:
            return next((at for at, place in self.entries if place not in known), None)

        found = await eventually(find, seconds=180)
        assert found is not None
        return found

    async def lost(self) -> set[int]:
        """The places of waiting visitors that the store doesn't hold although their visitors poll."""
        missing: set[int] = set()

        async def none_missing() -> bool:
            async with self._client() as redis:
                held = set().union(*await self._groups(redis))
            missing.clear()
            missing.update(one.place for one in self.visitors if one.step == "waiting" and one.place not in held)
            return not missing

        with contextlib.suppress(AssertionError):
            await eventually(none_missing, seconds=30)
        return missing

    async def let_leave(self) -> None:
        """Now and then one visitor leaves, the longest inside first."""
        while True:
            await asyncio.sleep(random.uniform(*LEAVE_SECONDS))
            inside = [visitor for visitor in self.visitors if visitor.step == "inside"]
            if len(inside) > STAYING:
                min(inside, key=lambda visitor: visitor.place).step = "leaving"

    async def watch_store(self) -> None:
        """Reads the store until `ended`: a cancellation may be swallowed by its client before Python 3.12."""
        while not self.ended:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with self._client() as redis:
                    while not self.ended:
                        self._look(*await self._groups(redis))
                        await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)

    def _client(self) -> contextlib.AbstractAsyncContextManager[Redis]:
        url = self.gateway.settings.get("redis_url") or EmbeddedStore(self.gateway.data_dir).url
        return connect(url, timeout_seconds=1)

    @staticmethod
    async def _groups(redis: Redis) -> list[set[int]]:
        """The places in ``active``, ``called``, ``waiting`` and ``away`` at one moment."""
        async with redis.pipeline(transaction=True) as together:
            for name in ("active", "called", "waiting", "away"):
                together.zrange(f"waitroom:{{{NAME}}}:{name}", 0, -1)
            return [{int(place) for place in found} for found in await together.execute()]

    def _look(self, active: set[int], called: set[int], *_: set[int]) -> None:
        self.samples += 1
        taken = active | called
        # Visitors inside count although the store has lost them, and those who left don't though it has them again.
        waiting, inside, gone = (
            {one.place for one in self.visitors if one.step == step} for step in ("waiting", "inside", "gone")
        )
        self.most = max(self.most, len((taken | inside) - gone))
        now = time.monotonic()
        for place in taken - self.called_at.keys():
            self.called_at[place] = now
        last = max(taken, default=0)
        queue = waiting - self.called_at.keys()
        self.overtaken.update(place for place in queue if place < last)


@contextlib.asynccontextmanager
async def busy_room(gateway: Gateway) -> AsyncIterator[BusyRoom]:
    """A full room whose visitors are at work until the block ends."""
    async with contextlib.AsyncExitStack() as stack:
        room = BusyRoom(gateway)
        for number in range(SLOTS + WAITING):
            http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            )
            await stack.enter_async_context(http)
            room.visitors.append(BusyVisitor(gateway, NAME, http=http, busy=room, number=number))
        await room.fill()
        tasks = [asyncio.create_task(visitor.live()) for visitor in room.visitors]
        tasks.append(asyncio.create_task(room.let_leave()))
        watching = asyncio.create_task(room.watch_store())
        try:
            yield room
        finally:
            room.ended = True
            await watching
            pending = set(tasks)
            while pending:  # a time-out at the same moment may swallow a cancellation
                for task in pending:
                    task.cancel()
                _, pending = await asyncio.wait(pending, timeout=1)
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [end for end in ends if isinstance(end, Exception)]
