"""Ports of the loopback address that tests give to servers."""

from __future__ import annotations

import atexit
import random
import socket

# Below what the system gives to outgoing connections, so that none of these takes a port between choice and use.
PORTS = range(20000, 32000)


def free_port() -> int:
    """A port of the loopback address that nobody listens on, and nobody else is given until this process ends."""
    for port in random.sample(PORTS, 100):
        one = socket.socket()
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            one.close()
            continue
        # It stays bound, and shared from now on with whoever asks for that, as servers do and another's choice doesn't.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        atexit.register(one.close)
        return port
    raise AssertionError("no port is free")


def port_is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
