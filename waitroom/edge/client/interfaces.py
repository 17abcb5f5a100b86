"""The interfaces that client connections depend on: the worker's server, and exchanges with the shop."""

# mypyc: compile

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from waitroom.edge.client.body_buffer import BufferBudget
from waitroom.edge.client.limiter import ConnectionLimiter
from waitroom.edge.http.headers import Peer
from waitroom.edge.http.message import Request
from waitroom.edge.outcomes import ExchangeOutcome
from waitroom.edge.upstream.pool import UpstreamListener

if TYPE_CHECKING:
    from waitroom.edge.client.connection import ClientConnection


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
    """

    head_bytes: int
    head_seconds: float
    body_seconds: float
    idle_seconds: float
    write_seconds: float
    buffer_bytes: int
    buffer_seconds: float
    min_bytes_per_second: float


class Server(ABC):
    """The worker."""

    limits: ClientLimits
    draining: bool
    bodies: BufferBudget
    connections: ConnectionLimiter

    @abstractmethod
    def opened(self, client: ClientConnection, address: str) -> Peer | None:
        """Registers a client that has connected; None rejects it."""

    @abstractmethod
    def register(self, client: ClientConnection) -> None:
        """Registers a client whose peer was already counted."""

    @abstractmethod
    def unregister(self, client: ClientConnection) -> None:
        """Unregisters a client."""

    @abstractmethod
    def watch_rate(self, client: ClientConnection) -> None:
        """Calls `ClientConnection.check_rate` with each sweep, as long as it returns True."""

    @abstractmethod
    def find_request(self, received: bytes) -> tuple[Request, Sequence[bytes]] | None:
        """The result of `parse_request`, if the received bytes are exactly one head that has been seen before."""

    @abstractmethod
    def parse_request(self, head: bytes) -> tuple[Request, Sequence[bytes]]:
        """See `http1.parse_request`."""

    @abstractmethod
    def handle(self, client: ClientConnection, request: Request) -> None:
        """Handles a request whose head has arrived, by `ClientConnection.respond` or `ClientConnection.forward`."""

    @abstractmethod
    def error_response(
        self, client: ClientConnection, status: int, head: bytes = b"", cause: str = ""
    ) -> tuple[bytes, bytes]:
        """The header lines and body of an error response. ``head`` is the received part of a malformed request."""

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
    def date_header(self) -> bytes:
        """The current Date header."""

    @abstractmethod
    def acquire_slot(self, address: str, *, tls: bool = False, vouched: bool = True) -> Peer | None:
        """Counts a connection; None rejects it. ``vouched``: whether the address is certain to be the other end's."""

    @abstractmethod
    def release_slot(self, peer: Peer) -> None:
        """Reverts `acquire_slot`."""

    @abstractmethod
    def evict_idle(self, count: int) -> None:
        """Closes up to this many of the longest idle connections."""

    @abstractmethod
    def is_trusted_proxy(self, address: str) -> bool:
        """Whether the address belongs to a trusted proxy."""


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
    def cookie_headers(self) -> bytes:
        """Header lines for the visitor, whatever the outcome of the request."""

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
    def end_body(self, trailers: list[tuple[bytes, bytes]]) -> None:
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
