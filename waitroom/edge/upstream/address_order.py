"""The order in which the addresses of an upstream's host name are tried. Pure: times are arguments."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any, Final

from waitroom.bounded import put

# As returned by `socket.getaddrinfo`.
AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
_Key = tuple[str, int]

INITIAL_PENALTY_SECONDS: Final = 30.0
MAX_PENALTY_SECONDS: Final = 300.0
MAX_UNRESPONSIVE: Final = 64


def interleave(infos: Sequence[AddressInfo]) -> list[AddressInfo]:
    """The addresses in their order, but alternating between families (RFC 8305, section 4)."""
    families: dict[int, list[AddressInfo]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    return [info for info in chain.from_iterable(zip_longest(*families.values())) if info is not None]


class UnresponsiveAddresses:
    """Remembers the addresses that didn't accept a connection, so that they are tried last for a while.

    That is half a minute at first, then twice as long each time, up to five minutes. After that an address is tried in
    its usual position again.
    """

    def __init__(self) -> None:
        self._unresponsive: dict[_Key, tuple[float, float]] = {}  # until when, and for how many seconds

    def __len__(self) -> int:
        return len(self._unresponsive)

    def order(self, infos: Sequence[AddressInfo], now: float) -> list[AddressInfo]:
        """The same addresses in their order, but with the unresponsive ones last."""
        return sorted(infos, key=lambda info: self._is_unresponsive(_key(info[4]), now))

    def record_connected(self, tried: Sequence[AddressInfo], peer: Any, now: float) -> None:
        """Records that ``peer`` was the first to accept a connection, of the addresses tried in this order."""
        addresses = [_key(info[4]) for info in tried]
        if _key(peer) not in addresses:
            return
        self._unresponsive.pop(_key(peer), None)
        for address in addresses[: addresses.index(_key(peer))]:
            if not self._is_unresponsive(address, now):
                self._add(address, now)

    def _add(self, address: _Key, now: float) -> None:
        _, seconds = self._unresponsive.get(address, (0.0, INITIAL_PENALTY_SECONDS / 2))
        seconds = min(2 * seconds, MAX_PENALTY_SECONDS)
        put(self._unresponsive, address, (now + seconds, seconds), MAX_UNRESPONSIVE)

    def _is_unresponsive(self, address: _Key, now: float) -> bool:
        until, _ = self._unresponsive.get(address, (now, 0.0))
        return now < until


def _key(address: Any) -> _Key:
    return address[0], address[1]
