"""A crowd that goes through the line and the shop whatever breaks, and notes every wrong it meets."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import aiohttp
from redis.exceptions import RedisError

from support.gateway_process import Gateway
from support.upstreams.server import Shop
from support.visitor_client import Answer, Visitor

POLL_SECONDS = (0.2, 0.5)
PAGES = 4
# What breaks when a process is killed, a store stops or a port is closed; a visitor tries again.
BROKEN = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass
class Member(Visitor):
    """One of the crowd: a browser with cookies, or an app with the visitor endpoints.

    Attributes:
        gateways: Whichever of these answers a request, as behind a balancer.
        unanswered: How often nobody answered when they came: each may have taken a place nobody has.
        place: Of the ticket, once there is one.
        sessions: All that were theirs.
        wrongs: What must never be told to a visitor, and was.
    """

    gateways: Sequence[Gateway] = ()
    number: int = 0
    app: bool = False
    unanswered: int = 0
    place: int | None = None
    sessions: set[int] = field(default_factory=set)
    wrongs: list[str] = field(default_factory=list)
    admitted: bool = False
    pages: int = 0
    done: bool = False

    @property
    def origin(self) -> str:
        """A gateway that runs, or ran a moment ago."""
        return random.choice(self.gateways).url

    async def live(self) -> None:
        """Comes, waits, goes in, looks at some pages and leaves."""
        await asyncio.sleep(random.uniform(0, 1))
        while self.place is None and not self.sessions:
            await self._arrive()
        while not self.sessions:
            await self._pause()
            await self._look()
        self.admitted = True
        while self.pages < PAGES:
            await self._pause()
            await self._shop()
        while not self.done:
            with contextlib.suppress(*BROKEN):
                self.done = (await self.call("leave")).status == 200
            await self._pause()

    async def _arrive(self) -> None:
        try:
            answer = await (self.call("join") if self.app else self.navigate(self._page))
        except BROKEN:
            self.unanswered += 1
            await self._pause()
            return
        self._note(answer)
        if answer.status >= 500 and not self.cookies:
            await self._pause()  # the store was away: no place was taken

    async def _look(self) -> None:
        with contextlib.suppress(*BROKEN):
            status = await self.fetch(f"/.waitroom/status?room={self.room}")
            if status.status != 200:
                self.wrongs.append(f"status {status.status}")
                return
            state = status.json["state"]
            if state not in ("waiting", "called", "admitted"):
                self.wrongs.append(f"told {state} with a ticket")
            if self.cookies.get(self.ticket_cookie) and self.ticket.place != self.place:
                self.wrongs.append("another place")
            if state in ("called", "admitted"):
                self._note(await (self.call("claim") if self.app else self.navigate(self._page)))

    async def _shop(self) -> None:
        with contextlib.suppress(*BROKEN):
            answer = await self.navigate(self._page)
            self._note(answer)
            if answer.status == 200:
                self.pages += 1
            else:
                self.wrongs.append(f"thrown out: {answer.status} {answer.body[:80]!r}")

    def _note(self, answer: Answer) -> None:
        if self.cookies.get(self.pass_cookie):
            self.sessions.add(self.pass_.session)
        elif self.cookies.get(self.ticket_cookie):
            place = self.ticket.place
            if self.place not in (None, place):
                self.wrongs.append("another place")
            self.place = place

    @property
    def _page(self) -> str:
        return f"/visit/{self.number}"

    async def _pause(self) -> None:
        await asyncio.sleep(random.uniform(*POLL_SECONDS))


@dataclass
class Crowd:
    """Some members, each a task.

    Attributes:
        most: The most slots that the store was ever seen to have taken at once, active and called.
        most_told: The same as the metrics told it.
        looks: How often the store was looked at.
    """

    gateway: Gateway
    room: str
    members: list[Member]
    most: int = 0
    most_told: float = 0
    looks: int = 0

    @property
    def admitted(self) -> int:
        return sum(member.admitted for member in self.members)

    @property
    def done(self) -> int:
        return sum(member.done for member in self.members)

    async def watch_store(self) -> None:
        """Looks at the store directly, as often as it can."""
        keys = [f"waitroom:{{{self.room}}}:{name}" for name in ("active", "called")]
        script = "return redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[2])"
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with self.gateway.store() as redis:
                    while True:
                        self.most = max(self.most, int(await redis.eval(script, 2, *keys)))
                        self.looks += 1
                        await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)

    async def watch_metrics(self) -> None:
        """Reads the metrics as often as somebody impatient would."""
        names = ("waitroom_active_sessions", "waitroom_called_visitors")
        while True:
            with contextlib.suppress(*BROKEN, AssertionError, KeyError):
                samples = await self.gateway.metrics_of(self.room)
                self.most_told = max(self.most_told, sum(samples[(name,)] for name in names))
            await asyncio.sleep(0.3)

    def assert_right(self, slots: int, shop: Shop) -> None:
        """Nobody lost a place, was thrown out or came in twice, by their own account and the shop's."""
        assert self.looks > 100
        assert 0 < self.most <= slots
        assert 0 < self.most_told <= slots
        wrongs = {member.number: member.wrongs for member in self.members if member.wrongs}
        assert not wrongs
        for member in self.members:
            if member.place is not None:
                assert member.sessions == {member.place}, member
            else:
                assert 1 <= len(member.sessions) <= 1 + member.unanswered, member
        counts = Counter(session for member in self.members for session in member.sessions)
        assert max(counts.values()) == 1, "two visitors had one session"
        pages: dict[str | None, set[str]] = defaultdict(set)
        for seen in shop.seen:
            pages[seen.session].add(seen.path)
        assert {len(paths) for paths in pages.values()} == {1}
        assert len(set().union(*pages.values())) == len(self.members)
        assert len(pages) <= len(self.members) + self.unanswered

    @property
    def unanswered(self) -> int:
        """How many places were perhaps taken by somebody who never heard of it."""
        return sum(member.unanswered for member in self.members)


@contextlib.asynccontextmanager
async def coming(room: str, count: int, *gateways: Gateway) -> AsyncIterator[Crowd]:
    """A crowd that has begun to come; it is sent home with the block. The first gateway's store is watched."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=10)
    ) as http:
        members = [
            Member(gateways[0], room, gateways=gateways, number=number, app=bool(number % 2), http=http)
            for number in range(count)
        ]
        crowd = Crowd(gateways[0], room, members)
        tasks = [asyncio.create_task(member.live()) for member in members]
        tasks += [asyncio.create_task(watch) for watch in (crowd.watch_store(), crowd.watch_metrics())]
        try:
            yield crowd
        finally:
            pending = set(tasks)
            while pending:  # a time-out at the same moment may swallow a cancellation
                for task in pending:
                    task.cancel()
                _, pending = await asyncio.wait(pending, timeout=1)
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [end for end in ends if isinstance(end, Exception)]
