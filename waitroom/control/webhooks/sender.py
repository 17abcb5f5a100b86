"""Delivers events to one webhook each: signed, with retries until they are accepted or the time is up."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import aiohttp
import structlog
from yarl import URL

from waitroom import __version__
from waitroom.settings import Webhook

log = structlog.get_logger()

SIGNATURE = "Waitroom-Signature"

_CONNECT_SECONDS = 5.0
_READ_BUFFER_BYTES = 1024  # of a response's body, which is ignored
_RETRYABLE_STATUSES = frozenset({408, 425, 429})  # besides all from 500 on: other errors would only repeat


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


def http_session(*, proxy_from_environment: bool = False) -> aiohttp.ClientSession:
    """Returns the HTTP session for events: no cookies, no connection reuse, and responses are hardly read.

    Args:
        proxy_from_environment: Whether to use the proxy that the environment names.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=16),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
        read_bufsize=_READ_BUFFER_BYTES,
        auto_decompress=False,
        trust_env=proxy_from_environment,
    )
