"""Connections that have been accepted, but not set up yet."""

# mypyc: compile

from __future__ import annotations

import asyncio
import socket

from waitroom.edge.client.interfaces import Client
from waitroom.edge.client.limiter import Evictable
from waitroom.edge.http.headers import Peer


class PendingConnection(Evictable):
    """A connection that has been accepted and counted, and has not completed its handshake yet.

    Attributes:
        client: The client connection it becomes, once that has been created.
        connection: The socket.
        has_pass: Whether it has shown a pass; always False.
        peer: The client as counted.
        task: The task that completes the handshake.
    """

    __slots__ = ("_since", "client", "connection", "has_pass", "peer", "task")

    def __init__(self, connection: socket.socket, peer: Peer, since: float) -> None:
        self._since = since
        self.client: Client | None = None
        self.connection = connection
        self.has_pass = False
        self.peer: Peer | None = peer
        self.task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """See `Evictable`."""
        return "" if self.peer is None else self.peer.address

    def idle_since(self) -> float:
        """The time it was accepted."""
        return self._since

    def evict(self) -> None:
        """See `Evictable`."""
        self._since = float("inf")  # not twice
        if self.task is not None:
            self.task.cancel()
