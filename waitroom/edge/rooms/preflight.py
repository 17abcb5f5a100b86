"""CORS preflights: answered from the cache if possible, otherwise by asking the shop within a budget.

A preflight carries no cookie by design, so its sender is unknown. The shop gets no body, no query and few of its
headers, and only one request for all identical preflights (Fetch standard, section 3.2).
"""

# mypyc: compile

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from waitroom.bounded import put
from waitroom.budgets import NeighbourhoodBudget, TokenBucket, neighbourhood
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.headers import Peer, forwarding_headers
from waitroom.edge.http.message import MalformedError, Request, Response
from waitroom.edge.rooms.neighbours import Neighbours
from waitroom.edge.upstream.pool import UpstreamConnection, UpstreamListener, UpstreamPool
from waitroom.errors import WaitroomError
from waitroom.settings import RoomSettings

MAX_CACHED: Final = 4096
MAX_KEY_BYTES: Final = 2048  # bytes of origin, path and headers together
MIN_CACHED_SECONDS: Final = 5.0
MAX_CACHED_SECONDS: Final = 86_400.0
CONFIGURED_MAX_AGE: Final = 600  # for the responses to ``cors_origins``
MAX_RESPONSE_SECONDS: Final = 10.0
MAX_HEAD_BYTES: Final = 16_384
MAX_WAITING: Final = 256
RETRY_SECONDS: Final = 0.25
BURST_SECONDS: Final = 2.0

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_HEADERS: Final = ("Accept", "Authorization", "Content-Type", "X-Requested-With")
_REQUEST_FIELDS: Final = (b"origin", b"access-control-request-method", b"access-control-request-headers")
_REQUEST_NAMES: Final = (b"Origin", b"Access-Control-Request-Method", b"Access-Control-Request-Headers")
_MAX_AGE: Final = re.compile(rb"[0-9]{1,9}\Z")

Key = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PreflightResponse:
    """The response to a preflight.

    Attributes:
        status_line: The status line, such as ``204 No Content``.
        headers: Header lines.
        until: The steady time until which it may be reused.
    """

    status_line: bytes
    headers: bytes
    until: float


class NoResponseError(WaitroomError):
    """The shop gave no usable response to a preflight."""


class Preflights:
    """The preflights of one room in one worker.

    Args:
        settings: The room's settings.
        pool: The connections to the shop.
        neighbours: The neighbourhoods with active sessions.
        proof: Makes the header of `Proofs` for a preflight.
        workers: How many workers share the budgets.
        time: The steady time.
    """

    def __init__(
        self,
        settings: RoomSettings,
        pool: UpstreamPool,
        neighbours: Neighbours,
        proof: Callable[[], HeaderBlock],
        workers: int,
        time: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._room_header = b"Waitroom-Room: %b\r\n" % settings.name.encode()
        self._neighbours = neighbours
        self._proof = proof
        self._time = time
        self._wait_seconds = settings.upstream_wait_seconds
        self._response_seconds = min(settings.upstream_first_byte_seconds, MAX_RESPONSE_SECONDS)
        share = settings.preflights_per_second / workers
        self._budget = TokenBucket(share, BURST_SECONDS * share)
        self._by_neighbourhood = NeighbourhoodBudget(share / 2, share)
        per_session = settings.session_requests_per_second / workers
        self._session_budget = NeighbourhoodBudget(per_session, BURST_SECONDS * per_session)
        self._configured = _configured_responses(settings)
        self._cached: dict[Key, PreflightResponse] = {}
        self._fetching: dict[Key, asyncio.Task[PreflightResponse]] = {}
        self._waiting = 0

    def find(self, request: Request) -> PreflightResponse | None:
        """The cached response, if there is one."""
        if self._configured:
            origin = request.fields.get(b"origin", b"").lower()
            return self._configured.get(origin) or self._configured[b""]
        response = self._cached.get(_key(request))
        return response if response is not None and self._time() < response.until else None

    async def fetch(
        self, request: Request, peer: Peer, address: str, *, open_: bool, now: float
    ) -> PreflightResponse | None:
        """Asks the shop as soon as a budget allows it, once for all identical preflights.

        Args:
            request: A preflight without a cached response.
            peer: The client's peer.
            address: The visitor's address.
            open_: Whether the room admits newcomers or lets them wait; otherwise only preflights of sessions are
                forwarded.
            now: The Unix time.

        Returns:
            The response; None if no budget allowed it in time.

        Raises:
            NoResponseError: The shop gave no usable response.
            UpstreamUnavailableError: No connection to the shop was available.
        """
        key = _key(request)
        task = self._fetching.get(key)
        where = neighbourhood(address)
        if task is None:
            if not await self._allowed(request, key, where, open_=open_, now=now):
                return None
            response = self.find(request)
            if response is not None:
                return response
            task = self._fetching.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(request, peer, where, key))
            self._fetching[key] = task
            task.add_done_callback(lambda done: self._fetched(key, done))
        return await asyncio.shield(task)

    def take(self, where: str, *, open_: bool, now: float) -> bool:
        """Whether a budget allows one request to the shop.

        Args:
            where: The visitor's neighbourhood.
            open_: See `fetch`.
            now: The Unix time.
        """
        steady = self._time()
        if self._neighbours.active(where, now):
            return self._session_budget.take(where, steady)
        if not open_ or self._budget.left(steady) < 1.0 or not self._by_neighbourhood.take(where, steady):
            return False
        return self._budget.take(steady)

    async def close(self) -> None:
        """Cancels the pending requests to the shop."""
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _allowed(self, request: Request, key: Key, where: str, *, open_: bool, now: float) -> bool:
        """Waits, for a short time, until a budget allows a request to the shop, or until it is no longer needed."""
        if self.take(where, open_=open_, now=now):
            return True
        if self._waiting >= MAX_WAITING:
            return False
        self._waiting += 1
        try:
            ends = self._time() + self._wait_seconds
            while self._time() < ends:
                await asyncio.sleep(RETRY_SECONDS)
                if key in self._fetching or self.find(request) is not None or self.take(where, open_=open_, now=now):
                    return True
        finally:
            self._waiting -= 1
        return False

    async def _fetch(self, request: Request, peer: Peer, where: str, key: Key) -> PreflightResponse:
        try:
            async with asyncio.timeout(self._response_seconds + self._wait_seconds):
                connection = await self._pool.acquire(False, where)
                headers = self._room_header + self._proof()
                exchange = _PreflightExchange(connection, self._pool, headers)
                try:
                    exchange.send(request, peer)
                    received = await exchange.response
                finally:
                    exchange.end()
        except TimeoutError as error:
            raise NoResponseError("response timed out") from error
        response = _cacheable(received, self._time())
        if sum(map(len, key)) <= MAX_KEY_BYTES:
            put(self._cached, key, response, MAX_CACHED)
        return response

    def _fetched(self, key: Key, done: asyncio.Task[PreflightResponse]) -> None:
        self._fetching.pop(key, None)
        if not done.cancelled():
            done.exception()  # the requests that asked may have gone


class _PreflightExchange(UpstreamListener):
    """One preflight on a connection to the shop."""

    def __init__(self, connection: UpstreamConnection, pool: UpstreamPool, headers: HeaderBlock) -> None:
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._connection = connection
        self._pool = pool
        self._headers = headers
        self._buffer = b""
        self._reusable = False
        connection.listener = self

    def send(self, request: Request, peer: Peer) -> None:
        fields = request.fields
        host = fields.get(b"host", self._connection.address.authority)
        lines = b"OPTIONS %b HTTP/1.1\r\nHost: %b\r\n" % (request.path, host)
        for name, lower in zip(_REQUEST_NAMES, _REQUEST_FIELDS, strict=True):
            if lower in fields:
                lines += b"%b: %b\r\n" % (name, fields[lower])
        self._connection.transport.write(lines + self._headers + forwarding_headers(request, peer) + b"\r\n")

    def end(self) -> None:
        """Returns the connection to the pool."""
        self._pool.release(self._connection, reusable=self._reusable)
        if not self.response.done():
            self.response.cancel()

    def upstream_data(self, data: bytes) -> None:
        """See `UpstreamListener`."""
        self._buffer += data
        try:
            self._read()
        except MalformedError as error:
            self._fail(error.reason)

    def _read(self) -> None:
        while not self.response.done():
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise MalformedError(502, "response head too long")
                return
            head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            response, _ = self._pool.response_heads.parse(head)
            if response.status < 200:
                continue
            self._pool.record_success(self._connection)
            whole = response.bodiless or response.content_length == 0
            self._reusable = whole and response.keep_alive and not self._buffer
            self.response.set_result(response)

    def upstream_closed(self, error: Exception | None) -> None:
        """See `UpstreamListener`."""
        self._fail("connection closed by the shop" if error is None else str(error))

    def upstream_writable(self, writable: bool) -> None:
        """See `UpstreamListener`. A preflight is too short to wait for this."""

    def _fail(self, cause: str) -> None:
        if not self.response.done():
            self.response.set_exception(NoResponseError(cause))


def _key(request: Request) -> Key:
    fields = request.fields
    return (request.path, fields.get(b"host", b""), *[fields.get(name, b"") for name in _REQUEST_FIELDS])


def _cacheable(response: Response, now: float) -> PreflightResponse:
    """The shop's response without its body and without headers meant for only one client."""
    seconds = MIN_CACHED_SECONDS
    lines = b""
    for field in response.headers:
        name = field.lower
        if name.startswith(b"access-control-") or name in (b"vary", b"allow"):
            lines += field.line
            if name == b"access-control-max-age" and _MAX_AGE.match(field.value):
                seconds = min(MAX_CACHED_SECONDS, max(seconds, float(field.value)))
    status = b"204 No Content" if response.status < 300 else b"%d %b" % (response.status, response.reason)
    return PreflightResponse(status, lines, now + seconds)


def _configured_responses(settings: RoomSettings) -> dict[bytes, PreflightResponse]:
    """The responses for ``cors_origins`` by origin, and the one for all others under "". Empty if there are none."""
    if not settings.cors_origins:
        return {}
    methods = ", ".join(settings.cors_methods or _METHODS)
    headers = ", ".join(settings.cors_headers or _HEADERS)
    found = {b"": PreflightResponse(b"204 No Content", b"Vary: Origin\r\n", 0.0)}
    for origin in settings.cors_origins:
        lines = (
            f"Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n"
            f"Access-Control-Allow-Methods: {methods}\r\nAccess-Control-Allow-Headers: {headers}\r\n"
            f"Access-Control-Max-Age: {CONFIGURED_MAX_AGE}\r\nVary: Origin\r\n"
        )
        found[origin.encode()] = PreflightResponse(b"204 No Content", lines.encode(), 0.0)
    return found
