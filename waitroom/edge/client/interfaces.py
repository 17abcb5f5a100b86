"""The interfaces between client connections, the worker's server, and exchanges with the shop."""

# mypyc: compile

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from waitroom.edge.client.body_buffer import BufferBudget
from waitroom.edge.client.limiter import ConnectionLimiter, Evictable
from waitroom.edge.http.fields import HeaderBlock
from waitroom.edge.http.headers import Peer
from waitroom.edge.http.message import Request, Trailers
from waitroom.edge.outcomes import ExchangeOutcome
from waitroom.edge.upstream.pool import UpstreamListener

Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Limits on clients. Times in seconds.

    Attributes:
        head_bytes, head_seconds: The size of a request's head, and the time for it to arrive.
        body_seconds: The longest pause within a body.
        idle_seconds: The longest pause between two requests.
        write_seconds: How long the client may stop reading.
        buffer_bytes, buffer_seconds: How much of a body is read before the request goes to the shop, and for how long
            at most.
        min_bytes_per_second: The minimum rate at which a client must send or read while it is waited for; 0 for none.
        hsts_headers: The Strict-Transport-Security header for browsers that use HTTPS; empty for none.
    """

    head_bytes: int
    head_seconds: float
    body_seconds: float
    idle_seconds: float
    write_seconds: float
    buffer_bytes: int
    buffer_seconds: float
    min_bytes_per_second: float
    hsts_headers: HeaderBlock = b""


class ConnectionState(Enum):
    """The states of a client connection, in the order in which it passes through them.

    Attributes:
        OPEN: It serves requests.
        LAST_REQUEST: It closes after the response in progress, or to come.
        LINGERING: Nothing more is written; input is discarded until the client closes its side too.
        CLOSED: It is gone, or no longer counts.
    """

    OPEN = "open"
    LAST_REQUEST = "last request"
    LINGERING = "lingering"
    CLOSED = "closed"


class Client(Evictable):
    """A client connection, as the server, handlers and exchanges see it.

    Attributes:
        peer: The other end.
        transport: Its transport, once it is connected.
        deadline: When to call `expire`, by the loop's time.
        request: The request in progress.
        cookies: The values of its Cookie headers.
        response_started: Whether a part of its response has been written.
    """

    __slots__ = ("cookies", "deadline", "has_pass", "peer", "request", "response_started", "transport")

    peer: Peer
    transport: asyncio.Transport
    deadline: float
    request: Request | None
    cookies: Sequence[bytes]
    response_started: bool

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether it is set up, and registered with the server."""

    @property
    @abstractmethod
    def visitor(self) -> str:
        """The visitor's address, for the log."""

    @property
    @abstractmethod
    def request_id(self) -> str:
        """The request's unique id. Most requests are answered without it."""

    @property
    @abstractmethod
    def write_paused(self) -> bool:
        """Whether the client has to read before more is written."""

    # For handlers of requests.

    @abstractmethod
    def respond(self, status_line: bytes, headers: HeaderBlock, body: bytes) -> None:
        """Responds to the request. ``status_line`` is for example ``200 OK``; each of ``headers`` has its line end."""

    @abstractmethod
    def forward(self, exchange: ExchangeHandle) -> None:
        """Hands the request to an exchange with the shop, which begins once enough of the body has arrived."""

    @abstractmethod
    def fail(self, status: int, headers: HeaderBlock = b"") -> None:
        """Responds with an error, or aborts a response that has already begun. ``headers`` are more headers."""

    @abstractmethod
    def hsts_headers(self, request: Request) -> HeaderBlock:
        """The Strict-Transport-Security header for a response, if it is configured and the browser uses HTTPS."""

    @abstractmethod
    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine that a request waits for; it is cancelled when the client disconnects."""

    @abstractmethod
    def on_done(self, awaited: asyncio.Future[Done], then: Callable[[asyncio.Future[Done]], object]) -> None:
        """Calls ``then`` on a result or an error, unless the client disconnects. Costs half as much as `spawn`."""

    @abstractmethod
    def close_after_response(self) -> None:
        """Closes the connection after the response in progress, or to come."""

    @abstractmethod
    def close_tunnel(self) -> None:
        """Closes the request's tunnel on both sides."""

    # For exchanges.

    @abstractmethod
    def set_deadline(self, seconds: float) -> None:
        """Sets the deadline for the side being waited for. A client that isn't reading keeps its write timeout."""

    @abstractmethod
    def set_read_interest(self, wanted: bool) -> None:
        """Resumes or pauses reading the request's body, as the shop can take it."""

    @abstractmethod
    def forward_body(self) -> None:
        """Forwards the received part of the request's body to the shop."""

    @abstractmethod
    def date_header(self) -> HeaderBlock:
        """The current Date header."""

    @abstractmethod
    def connection_header(self) -> HeaderBlock:
        """The Connection header of the response, if it needs one."""

    @abstractmethod
    def finish(self) -> None:
        """Ends the request: continues with the next one, or closes the connection."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connection once all is written; data still arriving must not cost the client the response."""

    # For the server.

    @abstractmethod
    def expire(self) -> None:
        """The deadline has passed: the side being waited for was silent for too long."""

    @abstractmethod
    def check_rate(self, seconds: float) -> bool:
        """Aborts the connection if the client is too slow. ``seconds`` have passed since the last check.

        Returns:
            Whether another check is needed.
        """

    @abstractmethod
    def close_idle(self) -> None:
        """Closes the connection if no request is in flight; a request that may just be arriving gets a moment."""


class Server(ABC):
    """The worker."""

    limits: ClientLimits
    draining: bool
    bodies: BufferBudget
    connections: ConnectionLimiter

    @abstractmethod
    def acquire_slot(self, address: str, *, tls: bool = False, vouched: bool = True) -> Peer | None:
        """Counts a connection; None rejects it. ``vouched``: whether the address is certain to be the other end's."""

    @abstractmethod
    def release_slot(self, peer: Peer) -> None:
        """Reverts `acquire_slot`."""

    @abstractmethod
    def register(self, client: Client) -> None:
        """Adds a client that has connected, and has a slot."""

    @abstractmethod
    def unregister(self, client: Client) -> None:
        """Removes a client, and releases its slot."""

    @abstractmethod
    def evict_idle(self, count: int) -> None:
        """Closes up to this many of the longest idle connections."""

    @abstractmethod
    def is_trusted_proxy(self, address: str) -> bool:
        """Whether the address belongs to a trusted proxy."""

    @abstractmethod
    def watch_rate(self, client: Client) -> None:
        """Calls `Client.check_rate` with each sweep, as long as it returns True."""

    @abstractmethod
    def find_request(self, received: bytes) -> tuple[Request, Sequence[bytes]] | None:
        """The result of `parse_request`, if the received bytes are exactly one head that has been seen before."""

    @abstractmethod
    def parse_request(self, head: bytes) -> tuple[Request, Sequence[bytes]]:
        """See `message.parse_request`."""

    @abstractmethod
    def handle(self, client: Client, request: Request) -> None:
        """Handles a request whose head has arrived, by `Client.respond` or `Client.forward`."""

    @abstractmethod
    def error_response(
        self, client: Client, status: int, head: bytes = b"", cause: str = ""
    ) -> tuple[HeaderBlock, bytes]:
        """The headers and body of an error response. ``head`` is the received part of a malformed request."""

    @abstractmethod
    def count_request(self) -> int:
        """Counts one more request; returns its number."""

    @abstractmethod
    def request_id(self, number: int) -> str:
        """An id that is unique across workers."""

    @abstractmethod
    def now(self) -> float:
        """The loop's time."""

    @abstractmethod
    def date_header(self) -> HeaderBlock:
        """The current Date header."""


class ExchangeHandle(UpstreamListener):
    """The exchange of one request and its response, as its client connection sees it.

    Attributes:
        ready: Whether the request's body may be sent.
        tunnel: Whether the protocol has changed, and bytes pass through unchanged.
    """

    __slots__ = ()

    ready: bool
    tunnel: bool

    @property
    @abstractmethod
    def has_pass(self) -> bool:
        """Whether the visitor has a pass."""

    @property
    @abstractmethod
    def cookie_headers(self) -> HeaderBlock:
        """Headers for the visitor, whatever the outcome of the request."""

    @property
    @abstractmethod
    def may_stream(self) -> bool:
        """Whether a connection may be acquired for a body that takes an unknown time to arrive."""

    @abstractmethod
    def set_buffering(self, buffering: bool) -> None:
        """Whether the request waits for its body, and isn't with the shop yet. Called only if it has to wait."""

    @abstractmethod
    def refuse(self, outcome: ExchangeOutcome) -> None:
        """The request isn't forwarded; ``outcome`` says why."""

    @abstractmethod
    def start(self) -> None:
        """Sends the request."""

    @abstractmethod
    def start_after_buffering(self) -> None:
        """Sends the request after a wait for its body, unless its session has ended in the meantime."""

    @abstractmethod
    def send_body(self, pieces: list[bytes]) -> None:
        """Sends pieces of the request's body."""

    @abstractmethod
    def end_body(self, trailers: Trailers) -> None:
        """The request's body is complete."""

    @abstractmethod
    def tunnel_data(self, data: bytes) -> None:
        """Bytes from the client after a protocol change."""

    @abstractmethod
    def client_writable(self, writable: bool) -> None:
        """The client takes more bytes, or can't for now."""

    @abstractmethod
    def on_timeout(self) -> None:
        """The side being waited for has taken too long."""

    @abstractmethod
    def abort(self) -> None:
        """The client has gone."""
