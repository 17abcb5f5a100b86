"""What clients' connections need of others: of the worker they belong to, and of what carries a request to the shop."""

# mypyc: compile

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from waitroom.edge.client.body_buffer import BufferBudget
from waitroom.edge.client.limiter import Connections
from waitroom.edge.http.headers import Peer
from waitroom.edge.http.message import Request
from waitroom.edge.upstream.pool import Borrower

if TYPE_CHECKING:
    from waitroom.edge.client.connection import ClientConnection


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What a client may stretch, and how far. Times in seconds.

    Attributes:
        head_bytes, head_seconds: Of a request's head.
        body_seconds: How long nothing may come of a body.
        idle_seconds: Between two requests.
        write_seconds: How long the client may take nothing.
        buffer_bytes, buffer_seconds: What is read of a body before the shop is asked, and for how long at most.
        min_bytes_per_second: What it must send or take while it is waited for; 0 for anything.
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
    connections: Connections

    @abstractmethod
    def opened(self, client: ClientConnection, address: str) -> Peer | None:
        """A client has connected; None turns it away."""

    @abstractmethod
    def entered(self, client: ClientConnection) -> None:
        """A client has connected whose peer was known and counted before."""

    @abstractmethod
    def closed(self, client: ClientConnection) -> None:
        """A client has gone."""

    @abstractmethod
    def watch(self, client: ClientConnection) -> None:
        """Has `ClientConnection.keeps_pace` called with each sweep, as long as it returns True."""

    @abstractmethod
    def find_request(self, received: bytes) -> tuple[Request, Sequence[bytes]] | None:
        """What `parse_request` returns, where what was received is one head, no more, that has come before."""

    @abstractmethod
    def parse_request(self, head: bytes) -> tuple[Request, Sequence[bytes]]:
        """See `http1.parse_request`."""

    @abstractmethod
    def handle(self, client: ClientConnection, request: Request) -> None:
        """A request's head is here. Answers it by `ClientConnection.respond` or `ClientConnection.forward`."""

    @abstractmethod
    def error_answer(
        self, client: ClientConnection, status: int, head: bytes = b"", cause: str = ""
    ) -> tuple[bytes, bytes]:
        """The header lines and body of an error's answer. ``head`` is what has come of one that is no request."""

    @abstractmethod
    def count_request(self) -> int:
        """The number of one more request."""

    @abstractmethod
    def request_id(self, number: int) -> str:
        """An id that no other worker's requests have."""

    @abstractmethod
    def now(self) -> float:
        """The loop's time."""

    @abstractmethod
    def date_line(self) -> bytes:
        """The Date header, now."""

    @abstractmethod
    def enter(self, address: str, *, tls: bool = False, vouched: bool = True) -> Peer | None:
        """Counts a connection; None turns it away. ``vouched``: whether the address is surely the other end's."""

    @abstractmethod
    def leave(self, peer: Peer) -> None:
        """Undoes `enter`."""

    @abstractmethod
    def shed(self, count: int) -> None:
        """Closes so many of the longest idle connections, as far as there are any."""

    @abstractmethod
    def trusts(self, address: str) -> bool:
        """Whether it is a trusted proxy's."""


class ExchangeHandle(Borrower):
    """The exchange of one request and its response, as the connection sees it that the request came by.

    Attributes:
        ready: Whether the request's body may flow.
        tunnel: Whether the protocol has changed, and bytes go through as they are.
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
    def cookies(self) -> bytes:
        """Header lines that the visitor needs whatever becomes of the request."""

    @property
    @abstractmethod
    def may_stream(self) -> bool:
        """Whether a connection may be taken for a body of which nobody knows how long it takes to come."""

    @abstractmethod
    def held(self, held: bool) -> None:
        """Whether the request waits for its body, and is not the shop's yet. Called only where it has to wait."""

    @abstractmethod
    def refuse(self, outcome: str) -> None:
        """The request goes to no shop; ``outcome`` says why."""

    @abstractmethod
    def start(self) -> None:
        """Sends the request."""

    @abstractmethod
    def start_late(self) -> None:
        """Sends the request after a wait for its body, unless its session has ended meanwhile."""

    @abstractmethod
    def send_body(self, pieces: list[bytes]) -> None:
        """Sends pieces of the request's body."""

    @abstractmethod
    def end_body(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The request's body is complete."""

    @abstractmethod
    def tunnel_data(self, data: bytes) -> None:
        """Bytes of the client's, after a change of protocols."""

    @abstractmethod
    def client_writable(self, writable: bool) -> None:
        """The client takes more bytes, or no more for now."""

    @abstractmethod
    def timed_out(self) -> None:
        """The side that was waited for has taken too long."""

    @abstractmethod
    def abort(self) -> None:
        """The client has gone."""
