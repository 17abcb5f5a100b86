"""Opens connections to the shop: to a host and port, with or without TLS, or to a unix socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

from waitroom.edge.upstream.address_order import AddressInfo, UnresponsiveAddresses, interleave
from waitroom.errors import WaitroomError
from waitroom.process.open_files import is_out_of_files
from waitroom.settings import RoomSettings

AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.BaseProtocol)

TLS_SHUTDOWN_SECONDS = 2.0
CONNECTION_ATTEMPT_DELAY_SECONDS = 0.25  # RFC 8305, section 5: the recommended Connection Attempt Delay
MAX_ADDRESSES = 16  # how many of a name's addresses are used
_PORTS = {"http": 80, "https": 443}


class UpstreamUnavailableError(WaitroomError):
    """No connection to the shop is available.

    Args:
        cause: ``connect``: it doesn't accept one; ``busy``: all are in use and none became free in time; ``share``:
            those available to requests without a pass are in use; ``files``: this machine has no file descriptor or
            memory left for one. The last two say nothing about the shop.
    """

    def __init__(self, cause: Literal["connect", "busy", "share", "files"], detail: str) -> None:
        self.cause = cause
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """An address of the shop: a host and port, or a unix socket.

    Attributes:
        url: The URL as written in the settings.
        authority: The Host header for requests without one.
        tls: Whether it speaks HTTPS.
    """

    url: str
    host: str
    port: int
    path: str | None
    authority: bytes
    tls: bool

    @classmethod
    def parse(cls, url: str) -> UpstreamAddress:
        """Reads ``http://host:port``, ``https://host:port`` or ``unix:///path``, already checked by the settings."""
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return cls(url, "", 0, parts.path, b"localhost", False)
        port = parts.port or _PORTS[parts.scheme]
        return cls(url, parts.hostname or "", port, None, parts.netloc.encode("idna"), parts.scheme == "https")


class Connector:
    """Opens connections to a shop's addresses.

    A host name is resolved for each connection, so that a change of its addresses takes effect with the next one. If it
    has several, the next address is tried as soon as one fails or hasn't responded for
    `CONNECTION_ATTEMPT_DELAY_SECONDS`, and the first to connect is used (RFC 8305).

    Args:
        connect_seconds: The timeout for connecting, including the TLS handshake.
        tls: Verifies the certificates of addresses that speak HTTPS.
        server_name: The name the certificates must be valid for; None for the address's own host.
    """

    def __init__(
        self, connect_seconds: float, tls: ssl.SSLContext | None = None, server_name: str | None = None
    ) -> None:
        self._connect_seconds = connect_seconds
        self._tls = tls
        self._server_name = server_name
        self._unresponsive = UnresponsiveAddresses()

    @classmethod
    def from_settings(cls, room: RoomSettings) -> Connector:
        """The connector for a room's settings."""
        tls = None
        if room.upstreams[0].startswith("https:"):
            tls = ssl.create_default_context(cafile=room.upstream_ca_file)
            tls.set_alpn_protocols(["http/1.1"])
        return cls(room.upstream_connect_seconds, tls, room.upstream_server_name)

    async def connect(self, address: UpstreamAddress, protocol: Callable[[], AnyProtocol]) -> AnyProtocol:
        """Connects a new ``protocol`` to an address.

        Raises:
            UpstreamUnavailableError: The address doesn't accept connections, or its certificate is invalid, or no more
                connections can be opened here.
        """
        loop = asyncio.get_running_loop()
        seconds = self._connect_seconds
        try:
            async with asyncio.timeout(seconds):
                if address.path is not None:
                    _, made = await loop.create_unix_connection(protocol, address.path)
                else:
                    made = await self._connect_to_host(address, protocol)
        except TimeoutError as error:
            raise UpstreamUnavailableError("connect", f"{address.url}: connect timeout after {seconds:g} s") from error
        except ssl.SSLCertVerificationError as error:
            detail = f"{address.url}: certificate verification failed: {error.verify_message}"
            raise UpstreamUnavailableError("connect", detail) from error
        except OSError as error:
            cause: Literal["connect", "files"] = "files" if is_out_of_files(error) else "connect"
            raise UpstreamUnavailableError(cause, f"{address.url}: {error}") from error
        return made

    async def _connect_to_host(self, address: UpstreamAddress, protocol: Callable[[], AnyProtocol]) -> AnyProtocol:
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        if address.tls:
            tls = {
                "ssl": self._tls,
                "server_hostname": self._server_name or address.host,
                "ssl_handshake_timeout": self._connect_seconds,
                "ssl_shutdown_timeout": TLS_SHUTDOWN_SECONDS,
            }
        infos: Sequence[AddressInfo]
        infos = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        if len(infos) == 1:
            _, made = await loop.create_connection(protocol, str(infos[0][4][0]), address.port, **tls)
            return made
        connected = await self._connect_to_first(infos[:MAX_ADDRESSES])
        try:
            _, made = await loop.create_connection(protocol, sock=connected, **tls)
        except BaseException:
            connected.close()
            raise
        return made

    async def _connect_to_first(self, infos: Sequence[AddressInfo]) -> socket.socket:
        """A socket connected to the first address that accepts a connection."""
        loop = asyncio.get_running_loop()
        # uvloop's create_connection doesn't implement RFC 8305, so it gets a connected socket.
        ordered = self._unresponsive.order(interleave(infos), loop.time())
        connected = await start_connection(ordered, happy_eyeballs_delay=CONNECTION_ATTEMPT_DELAY_SECONDS, interleave=0)
        self._unresponsive.record_connected(ordered, connected.getpeername(), loop.time())
        return connected
