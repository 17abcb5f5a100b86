"""Tells systemd, or another service manager with its protocol, how the gateway is: sd_notify(3).

The protocol is a datagram of lines to a Unix socket. The packages for it are unmaintained or need the headers of
libsystemd, so these few lines are our own.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping

SEND_SECONDS = 0.2


class ServiceManager:
    """The service manager that has started us; without one, nothing happens.

    Args:
        environment: The environment. The manager's variables are removed from it: they are not for our children.
        pid: Our process id.

    Attributes:
        watchdog_seconds: How long the manager waits for `notify` with ``WATCHDOG="1"`` before it restarts us, or None.
    """

    def __init__(self, environment: MutableMapping[str, str], pid: int) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        timeout, watched = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_seconds: float | None = None
        if address and timeout.isdecimal() and int(timeout) and watched in ("", str(pid)):
            self.watchdog_seconds = int(timeout) / 1e6

    def notify(self, **values: str) -> None:
        """Sends values, such as ``READY="1"``. A message that can't be sent is lost: it must delay no visitor."""
        if not self._address.startswith(("/", "\0")):
            return
        message = "\n".join(f"{name}={value}" for name, value in values.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.settimeout(SEND_SECONDS)
            one.sendto(message.encode(), self._address)


def from_environment() -> ServiceManager:
    """Returns the service manager that this process's environment names."""
    return ServiceManager(os.environ, os.getpid())
