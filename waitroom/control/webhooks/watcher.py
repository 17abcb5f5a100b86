"""Webhooks: watches the rooms and tells of events, signed, again and again until they are taken, and never without end.

What was told of a room is kept in the store, so that it outlives this process, and each event is claimed there, so that
one of several control processes sends it. While the store is lost each sends, under the same id.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import aiohttp
import structlog
from redis.asyncio import Redis
from yarl import URL

from waitroom import __version__
from waitroom.control.webhooks.conditions import CONDITIONS, Changes, Condition, Look
from waitroom.errors import StoreUnavailable
from waitroom.metrics.collectors import Ticking
from waitroom.settings import Webhook
from waitroom.store.connection import store_errors

log = structlog.get_logger()

LOOK_SECONDS = 1.0
FIGURES_SECONDS = 60.0
CLAIM_SECONDS = 60
FAILING_SECONDS = 15  # that a gateway's word on its shop is good for
SIGNATURE = "Waitroom-Signature"

_CONNECT_SECONDS = 5.0
_MOST_BYTES_AHEAD = 1024  # of an answer's body, which nobody reads
_TRY_AGAIN = frozenset({408, 425, 429})  # besides all from 500 on: what else is refused will be refused again


class UpstreamStats(Protocol):
    """See `waitroom.metrics.upstream_window`."""

    @property
    def answers_per_minute(self) -> float:
        """Those that failed included."""

    @property
    def failures_per_minute(self) -> float:
        """Of these."""


class UpstreamWindow(Protocol):
    """See `waitroom.metrics.upstream_window`."""

    def figures(self, room: str, seconds: float) -> UpstreamStats:
        """How the shop did over so many seconds."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, as it is sent: the same at each try.

    Attributes:
        id: Of this event and no other, whoever sends it.
        name: As the settings name it.
        room: The room's name.
        body: The JSON.
    """

    id: str
    name: str
    room: str
    body: bytes

    @classmethod
    def make(cls, id_: str, name: str, room: str, at: datetime, data: Mapping[str, object]) -> Event:
        """Writes down what is sent."""
        told = {"id": id_, "event": name, "room": room, "at": at.isoformat(timespec="milliseconds"), "data": data}
        return cls(id_, name, room, json.dumps(told).encode())


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one event is tried, and how many may wait for that.

    Attributes:
        attempt_seconds: For one try.
        first_pause_seconds, longest_pause_seconds: Between two tries; each pause is twice the one before, and up to a
            half shorter by chance.
        give_up_seconds: After which no further try is begun.
        most: Events that wait; then the oldest is dropped.
    """

    attempt_seconds: float = 10.0
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 60.0
    give_up_seconds: float = 900.0
    most: int = 100


def sign(secret: str, at: int, body: bytes) -> str:
    """The signature's header for a body sent at a Unix time."""
    signature = hmac.new(secret.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
    return f"t={at},v1={signature}"


class Sender:
    """Sends events to one webhook, one after the other.

    Args:
        webhook: Its settings.
        http: Made by `client`.
        patience: How long it tries.
        chance: Gives a number from 0 to 1, for the pauses.
        unix: The Unix time in seconds.
    """

    def __init__(
        self,
        webhook: Webhook,
        http: aiohttp.ClientSession,
        patience: Patience,
        chance: Callable[[], float] = random.random,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self._webhook = webhook
        self._http = http
        self._patience = patience
        self._chance = chance
        self._unix = unix
        self._waiting: deque[Event] = deque()
        self._came = asyncio.Event()
        # The path may be a secret.
        self._shown = str(URL(webhook.url).origin())

    def put(self, event: Event) -> None:
        """Takes an event to be sent, if this webhook wants it. Never waits."""
        webhook = self._webhook
        if (webhook.events and event.name not in webhook.events) or (webhook.rooms and event.room not in webhook.rooms):
            return
        if len(self._waiting) >= self._patience.most:
            dropped = self._waiting.popleft()
            log.warning("too many events wait for a webhook; dropped the oldest", to=self._shown, id=dropped.id)
        self._waiting.append(event)
        self._came.set()

    async def run(self) -> None:
        """Sends until cancelled; says what is left then."""
        event: Event | None = None
        try:
            while True:
                await self._came.wait()
                while self._waiting:
                    event = self._waiting.popleft()
                    try:
                        await self._deliver(event)
                    except Exception:
                        log.exception("an event couldn't be sent", to=self._shown, id=event.id)
                    event = None
                self._came.clear()
        finally:
            left = [one.id for one in (event, *self._waiting) if one is not None]
            if left:
                log.warning("events weren't sent: the gateway stops", to=self._shown, ids=left)

    async def _deliver(self, event: Event) -> None:
        loop, patience = asyncio.get_running_loop(), self._patience
        give_up_at = loop.time() + patience.give_up_seconds
        pause, tries = patience.first_pause_seconds, 0
        while True:
            tries += 1
            try:
                await self._try(event)
            except _NotTaken as refused:
                wait = pause * (1 - self._chance() / 2)
                if not refused.again or loop.time() + wait >= give_up_at:
                    said = {"to": self._shown, "id": event.id, "cause": refused.cause, "tries": tries}
                    log.error("a webhook didn't take an event; given up", **said)
                    return
                await asyncio.sleep(wait)
                pause = min(2 * pause, patience.longest_pause_seconds)
            else:
                return

    async def _try(self, event: Event) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": f"Waitroom/{__version__}"}
        if self._webhook.secret is not None:
            headers[SIGNATURE] = sign(self._webhook.secret, int(self._unix()), event.body)
        try:
            async with (
                asyncio.timeout(self._patience.attempt_seconds),
                # Who is redirected would sign for somebody else. The answer's body is left unread.
                self._http.post(self._webhook.url, data=event.body, headers=headers, allow_redirects=False) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # Only its kind: what such errors say may hold the address.
            raise _NotTaken(type(error).__name__, again=True) from None
        if not 200 <= status < 300:
            raise _NotTaken(f"status {status}", again=status in _TRY_AGAIN or status >= 500)


class _NotTaken(Exception):  # noqa: N818 - what became of a try
    def __init__(self, cause: str, *, again: bool) -> None:
        super().__init__(cause)
        self.cause = cause
        self.again = again


class Told:
    """What was told of a room: how often each condition began and ended, odd while it holds. Kept in the store.

    Attributes:
        failing: Whether any gateway has lately found that the shop fails.
    """

    def __init__(self, redis: Redis, room: str) -> None:
        self._redis = redis
        self._key = f"waitroom:{{{room}}}:told"
        self._counts = dict.fromkeys((condition.name for condition in CONDITIONS), 0)
        self.failing = False

    @property
    def holding(self) -> dict[str, bool]:
        """Whether each condition holds, as far as was told."""
        return {name: count % 2 == 1 for name, count in self._counts.items()}

    async def read(self) -> None:
        """Takes in what others told, or this one before it was started. Raises `StoreUnavailable`."""
        with store_errors():
            asked = self._redis.pipeline(transaction=False)
            asked.hgetall(self._key)
            asked.exists(f"{self._key}:failing")
            kept, failing = await asked.execute()
        self.failing = bool(failing)
        for name, count in kept.items():
            known = name.decode()
            if known in self._counts:
                # The greater one: what was told while the store was lost is known here alone.
                self._counts[known] = max(self._counts[known], int(count))

    async def shop_fails(self) -> None:
        """Lets the other gateways know. Raises `StoreUnavailable`."""
        with store_errors():
            await self._redis.set(f"{self._key}:failing", "1", ex=FAILING_SECONDS)

    async def claim(self, condition: Condition) -> int | None:
        """The number of a condition's change, to be told by the caller; None where another control process does."""
        count = self._counts[condition.name] + 1
        self._counts[condition.name] = count
        try:
            with store_errors():
                won = await self._redis.set(f"{self._key}:{condition.name}:{count}", "1", nx=True, ex=CLAIM_SECONDS)
                if not won:
                    return None
                await self._redis.hset(self._key, condition.name, str(count))
        except StoreUnavailable:
            pass  # then better twice than not at all; the id is the same
        return count


class Webhooks:
    """Looks at the rooms once a second, and tells the webhooks of what has changed.

    Args:
        webhooks: Their settings.
        rooms: The rooms as this process sees them.
        redis: The store.
        shop: How the shops do; None where nobody watches them.
        clock: The monotonic time in seconds.
    """

    def __init__(
        self,
        webhooks: Sequence[Webhook],
        rooms: Sequence[Ticking],
        redis: Redis,
        shop: UpstreamWindow | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._webhooks = webhooks
        self._rooms = rooms
        self._told = {room.name: Told(redis, room.name) for room in rooms}
        self._changes = {room.name: Changes() for room in rooms}
        self._shop = shop
        self._clock = clock

    async def run(self) -> None:
        """Watches and sends until cancelled."""
        async with client() as http, asyncio.TaskGroup() as tasks:
            senders = [Sender(webhook, http, Patience()) for webhook in self._webhooks]
            for sender in senders:
                tasks.create_task(sender.run())
            while True:
                for room in self._rooms:
                    for event in await self._looked(room):
                        log.info("told the webhooks of a room", what=event.name, room=event.room, id=event.id)
                        for sender in senders:
                            sender.put(event)
                await asyncio.sleep(LOOK_SECONDS)

    async def _looked(self, room: Ticking) -> list[Event]:
        try:
            return await self.look(room)
        except Exception:
            # A mistake here must not end admission, which runs beside it.
            log.exception("the webhooks can't look at a room", room=room.name)
            return []

    async def look(self, room: Ticking) -> list[Event]:
        """What has changed in a room, for this process to tell. To be asked about once a second."""
        told = self._told[room.name]
        look = self._seen(room, failing_elsewhere=False)
        if room.store_up:
            try:
                await told.read()
                if look.shop_fails(held=told.holding["shop"]):
                    await told.shop_fails()
            except StoreUnavailable:
                return []  # the ticks will notice
            look = self._seen(room, failing_elsewhere=told.failing)
        events = []
        for condition in self._changes[room.name].find(told.holding, look, self._clock()):
            count = await told.claim(condition)
            name = condition.begins if told.holding[condition.name] else condition.ends
            if count is not None and name:
                generation = 0 if room.view is None else room.view.generation
                id_ = f"{room.name}-{condition.name}-{generation}-{count}"
                events.append(Event.make(id_, name, room.name, datetime.now(UTC), _data(room, look)))
        return events

    def _seen(self, room: Ticking, *, failing_elsewhere: bool) -> Look:
        figures = None if self._shop is None else self._shop.figures(room.name, FIGURES_SECONDS)
        view = room.view
        return Look(
            store_up=room.store_up,
            state=None if view is None else view.state,
            waiting=0 if view is None else view.waiting,
            requests_per_minute=0.0 if figures is None else figures.answers_per_minute,
            failures_per_minute=0.0 if figures is None else figures.failures_per_minute,
            failing_elsewhere=failing_elsewhere,
        )


def client() -> aiohttp.ClientSession:
    """The client that events are sent with: no cookies, nothing kept open, nothing taken in that isn't needed."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=16),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
        read_bufsize=_MOST_BYTES_AHEAD,
        auto_decompress=False,
    )


def _data(room: Ticking, look: Look) -> dict[str, object]:
    """How the room stands, as last seen."""
    view = room.view
    shown: dict[str, object] = {"store_up": look.store_up}
    if view is not None:
        names = ("state", "waiting", "called", "active", "max_active", "rate_per_minute", "message", "remaining")
        shown |= {name: getattr(view, name) for name in names}
    shown["shop"] = {
        "requests_per_minute": round(look.requests_per_minute, 1),
        "failures_per_minute": round(look.failures_per_minute, 1),
    }
    return shown
