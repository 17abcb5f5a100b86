"""Webhooks: watches the rooms and sends signed events, with retries until they are accepted or the time is up.

The reported state of a room is kept in the store, so that it outlives this process. Each event is claimed there, so
that only one of several control processes sends it. While the store is lost all of them do, under the same id.
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
from waitroom.control.webhooks.conditions import CONDITIONS, Condition, EdgeDetector, Observation
from waitroom.errors import StoreUnavailable
from waitroom.metrics.collectors import Ticking
from waitroom.settings import Webhook
from waitroom.store.connection import store_errors

log = structlog.get_logger()

OBSERVE_SECONDS = 1.0
STATS_SECONDS = 60.0
CLAIM_SECONDS = 60
FAILING_SECONDS = 15  # how long a gateway's report on its shop is valid
SIGNATURE = "Waitroom-Signature"

_CONNECT_SECONDS = 5.0
_READ_BUFFER_BYTES = 1024  # of a response's body, which is ignored
_RETRYABLE_STATUSES = frozenset({408, 425, 429})  # besides all from 500 on: other errors would only repeat


class UpstreamStats(Protocol):
    """See `waitroom.metrics.upstream_window`."""

    @property
    def answers_per_minute(self) -> float:
        """Including failed ones."""

    @property
    def failures_per_minute(self) -> float:
        """Failed answers per minute."""


class UpstreamWindow(Protocol):
    """See `waitroom.metrics.upstream_window`."""

    def figures(self, room: str, seconds: float) -> UpstreamStats:
        """Returns the shop's figures over a number of seconds."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is sent, identical at each attempt.

    Attributes:
        id: The unique id of the event, the same from every sender.
        name: The event's name in the settings.
        room: The room's name.
        body: The JSON body.
    """

    id: str
    name: str
    room: str
    body: bytes

    @classmethod
    def make(cls, id_: str, name: str, room: str, at: datetime, data: Mapping[str, object]) -> Event:
        """Builds the event and its body."""
        payload = {"id": id_, "event": name, "room": room, "at": at.isoformat(timespec="milliseconds"), "data": data}
        return cls(id_, name, room, json.dumps(payload).encode())


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to retry an event, and how many may be queued meanwhile.

    Attributes:
        attempt_timeout_seconds: The timeout of one attempt.
        initial_delay_seconds, max_delay_seconds: Between two attempts; each pause is twice the one before, and up to
            half of it shorter at random.
        give_up_after_seconds: No further attempt begins after this time.
        max_queued: The maximum number of queued events; beyond it the oldest is dropped.
    """

    attempt_timeout_seconds: float = 10.0
    initial_delay_seconds: float = 1.0
    max_delay_seconds: float = 60.0
    give_up_after_seconds: float = 900.0
    max_queued: int = 100


def sign(secret: str, at: int, body: bytes) -> str:
    """Returns the signature header for a body sent at a Unix time."""
    signature = hmac.new(secret.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
    return f"t={at},v1={signature}"


class Sender:
    """Sends events to one webhook, one after the other.

    Args:
        webhook: The webhook's settings.
        http: A session from `http_session`.
        policy: The retry policy.
        jitter: Returns a number from 0 to 1, for the pauses.
        unix: Returns the Unix time in seconds.
    """

    def __init__(
        self,
        webhook: Webhook,
        http: aiohttp.ClientSession,
        policy: RetryPolicy,
        jitter: Callable[[], float] = random.random,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self._webhook = webhook
        self._http = http
        self._policy = policy
        self._jitter = jitter
        self._unix = unix
        self._queue: deque[Event] = deque()
        self._wake = asyncio.Event()
        # The path may be a secret.
        self._origin = str(URL(webhook.url).origin())

    def enqueue(self, event: Event) -> None:
        """Queues an event if this webhook subscribes to it. Never waits."""
        webhook = self._webhook
        if (webhook.events and event.name not in webhook.events) or (webhook.rooms and event.room not in webhook.rooms):
            return
        if len(self._queue) >= self._policy.max_queued:
            dropped = self._queue.popleft()
            log.warning("webhook queue full: oldest event dropped", to=self._origin, id=dropped.id)
        self._queue.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Sends until cancelled, then logs what is left."""
        event: Event | None = None
        try:
            while True:
                await self._wake.wait()
                while self._queue:
                    event = self._queue.popleft()
                    try:
                        await self._deliver(event)
                    except Exception:
                        log.exception("webhook delivery error", to=self._origin, id=event.id)
                    event = None
                self._wake.clear()
        finally:
            left = [one.id for one in (event, *self._queue) if one is not None]
            if left:
                log.warning("webhook events not sent before shutdown", to=self._origin, ids=left)

    async def _deliver(self, event: Event) -> None:
        loop, policy = asyncio.get_running_loop(), self._policy
        deadline = loop.time() + policy.give_up_after_seconds
        delay, attempts = policy.initial_delay_seconds, 0
        while True:
            attempts += 1
            try:
                await self._send(event)
            except _DeliveryError as refused:
                wait = delay * (1 - self._jitter() / 2)
                if not refused.retryable or loop.time() + wait >= deadline:
                    fields = {"to": self._origin, "id": event.id, "cause": refused.cause, "attempts": attempts}
                    log.error("webhook delivery failed", **fields)
                    return
                await asyncio.sleep(wait)
                delay = min(2 * delay, policy.max_delay_seconds)
            else:
                return

    async def _send(self, event: Event) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": f"Waitroom/{__version__}"}
        if self._webhook.secret is not None:
            headers[SIGNATURE] = sign(self._webhook.secret, int(self._unix()), event.body)
        try:
            async with (
                asyncio.timeout(self._policy.attempt_timeout_seconds),
                # Following a redirect would send a signed request to another party. The response's body is left unread.
                self._http.post(self._webhook.url, data=event.body, headers=headers, allow_redirects=False) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # Only the type: the messages of such errors may contain the address.
            raise _DeliveryError(type(error).__name__, retryable=True) from None
        if not 200 <= status < 300:
            raise _DeliveryError(f"status {status}", retryable=status in _RETRYABLE_STATUSES or status >= 500)


class _DeliveryError(Exception):
    def __init__(self, cause: str, *, retryable: bool) -> None:
        super().__init__(cause)
        self.cause = cause
        self.retryable = retryable


class ReportedState:
    """The reported state of a room: how often each condition began and ended, odd while it holds. Kept in the store.

    Attributes:
        failing: Whether any gateway has recently found the shop failing.
    """

    def __init__(self, redis: Redis, room: str) -> None:
        self._redis = redis
        self._key = f"waitroom:{{{room}}}:told"
        self._counts = dict.fromkeys((condition.name for condition in CONDITIONS), 0)
        self.failing = False

    @property
    def holding(self) -> dict[str, bool]:
        """Returns whether each condition holds, as far as reported."""
        return {name: count % 2 == 1 for name, count in self._counts.items()}

    async def read(self) -> None:
        """Reads the state reported by others, or by this process before a restart. Raises `StoreUnavailable`."""
        with store_errors():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hgetall(self._key)
            pipeline.exists(f"{self._key}:failing")
            stored, failing = await pipeline.execute()
        self.failing = bool(failing)
        for name, count in stored.items():
            condition = name.decode()
            if condition in self._counts:
                # The greater count wins: events sent while the store was lost are known only here.
                self._counts[condition] = max(self._counts[condition], int(count))

    async def report_failing(self) -> None:
        """Notifies the other gateways. Raises `StoreUnavailable`."""
        with store_errors():
            await self._redis.set(f"{self._key}:failing", "1", ex=FAILING_SECONDS)

    async def claim(self, condition: Condition) -> int | None:
        """Claims a condition's change; returns its number, or None if another control process reports it."""
        count = self._counts[condition.name] + 1
        self._counts[condition.name] = count
        try:
            with store_errors():
                won = await self._redis.set(f"{self._key}:{condition.name}:{count}", "1", nx=True, ex=CLAIM_SECONDS)
                if not won:
                    return None
                await self._redis.hset(self._key, condition.name, str(count))
        except StoreUnavailable:
            pass  # sending twice is better than not at all; the id is the same
        return count


class Webhooks:
    """Observes the rooms once a second, and sends events on changes to the webhooks.

    Args:
        webhooks: The webhooks' settings.
        rooms: The rooms as this process sees them.
        redis: The store.
        shop: The shops' figures; None if nothing collects them.
        clock: Returns the monotonic time in seconds.
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
        self._reported = {room.name: ReportedState(redis, room.name) for room in rooms}
        self._detectors = {room.name: EdgeDetector() for room in rooms}
        self._shop = shop
        self._clock = clock

    async def run(self) -> None:
        """Observes and sends until cancelled."""
        async with http_session() as http, asyncio.TaskGroup() as tasks:
            senders = [Sender(webhook, http, RetryPolicy()) for webhook in self._webhooks]
            for sender in senders:
                tasks.create_task(sender.run())
            while True:
                for room in self._rooms:
                    for event in await self._observe_safely(room):
                        log.info("webhook event", what=event.name, room=event.room, id=event.id)
                        for sender in senders:
                            sender.enqueue(event)
                await asyncio.sleep(OBSERVE_SECONDS)

    async def _observe_safely(self, room: Ticking) -> list[Event]:
        try:
            return await self.observe(room)
        except Exception:
            # An error here must not end admission, which runs beside it.
            log.exception("webhook check failed", room=room.name)
            return []

    async def observe(self, room: Ticking) -> list[Event]:
        """Returns the events for this process to send on a room. To be called about once a second."""
        reported = self._reported[room.name]
        seen = self._observation(room, failing_elsewhere=False)
        if room.store_up:
            try:
                await reported.read()
                if seen.shop_fails(held=reported.holding["shop"]):
                    await reported.report_failing()
            except StoreUnavailable:
                return []  # the ticks report it
            seen = self._observation(room, failing_elsewhere=reported.failing)
        events = []
        for condition in self._detectors[room.name].due(reported.holding, seen, self._clock()):
            count = await reported.claim(condition)
            name = condition.begins if reported.holding[condition.name] else condition.ends
            if count is not None and name:
                generation = 0 if room.view is None else room.view.generation
                id_ = f"{room.name}-{condition.name}-{generation}-{count}"
                events.append(Event.make(id_, name, room.name, datetime.now(UTC), _data(room, seen)))
        return events

    def _observation(self, room: Ticking, *, failing_elsewhere: bool) -> Observation:
        figures = None if self._shop is None else self._shop.figures(room.name, STATS_SECONDS)
        view = room.view
        return Observation(
            store_up=room.store_up,
            state=None if view is None else view.state,
            waiting=0 if view is None else view.waiting,
            requests_per_minute=0.0 if figures is None else figures.answers_per_minute,
            failures_per_minute=0.0 if figures is None else figures.failures_per_minute,
            failing_elsewhere=failing_elsewhere,
        )


def http_session() -> aiohttp.ClientSession:
    """Returns the HTTP session for events: no cookies, no connection reuse, and responses are hardly read."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=16),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
        read_bufsize=_READ_BUFFER_BYTES,
        auto_decompress=False,
    )


def _data(room: Ticking, seen: Observation) -> dict[str, object]:
    """Returns the state of the room, as last seen."""
    view = room.view
    state: dict[str, object] = {"store_up": seen.store_up}
    if view is not None:
        names = ("state", "waiting", "called", "active", "max_active", "rate_per_minute", "message", "remaining")
        state |= {name: getattr(view, name) for name in names}
    state["shop"] = {
        "requests_per_minute": round(seen.requests_per_minute, 1),
        "failures_per_minute": round(seen.failures_per_minute, 1),
    }
    return state
