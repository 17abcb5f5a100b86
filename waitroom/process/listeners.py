"""The listening sockets, which the supervisor creates and its children serve."""

from __future__ import annotations

import socket

from waitroom.errors import StartError

BACKLOG = 4096


def listen(address: str, count: int) -> list[socket.socket]:
    """Returns sockets bound to one address, to be shared by ``count`` processes. Raises `StartError`."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    sockets: list[socket.socket] = []
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With only SO_REUSEPORT, a second gateway of the same user would silently get half of the visitors.
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
        for _ in range(count):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(target)
            target = one.getsockname()  # if the system chose the port, all others use that of the first
            one.listen(BACKLOG)
            one.setblocking(False)
    except OSError as error:
        for one in sockets:
            one.close()
        raise StartError(f"can't listen on {address}: {error.strerror or error}") from error
    return sockets


def with_port(address: str, bound: socket.socket) -> str:
    """Returns the address with the socket's actual port, which the settings may leave to the system."""
    return f"{address.rpartition(':')[0]}:{bound.getsockname()[1]}"
