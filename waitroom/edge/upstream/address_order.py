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

FIRST_LAST_SECONDS: Final = 30.0
LONGEST_LAST_SECONDS: Final = 300.0
MOST_SILENT: Final = 64


def interleaved(infos: Sequence[AddressInfo]) -> list[AddressInfo]:
    """The addresses in their order, but alternating between families (RFC 8305, section 4)."""
    families: dict[int, list[AddressInfo]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    return [info for info in chain.from_iterable(zip_longest(*families.values())) if info is not None]


class SilentAddresses:
    """Remembers the addresses that didn't accept a connection, so that they are tried last for a while.

    That is half a minute at first, then twice as long each time, up to five minutes. After that an address is tried in
    its usual position again.
    """

    def __init__(self) -> None:
        self._silent: dict[_Key, tuple[float, float]] = {}  # until when, and for how many seconds

    def __len__(self) -> int:
        return len(self._silent)

    def last(self, infos: Sequence[AddressInfo], now: float) -> list[AddressInfo]:
        """The same addresses in their order, but with the silent ones last."""
        return sorted(infos, key=lambda info: self._is_silent(_key(info[4]), now))

    def connected(self, tried: Sequence[AddressInfo], peer: Any, now: float) -> None:
        """Records that ``peer`` was the first to accept a connection, of the addresses tried in this order."""
        addresses = [_key(info[4]) for info in tried]
        if _key(peer) not in addresses:
            return
        self._silent.pop(_key(peer), None)
        for address in addresses[: addresses.index(_key(peer))]:
            if not self._is_silent(address, now):
                self._add(address, now)

    def _add(self, address: _Key, now: float) -> None:
        _, seconds = self._silent.get(address, (0.0, FIRST_LAST_SECONDS / 2))
        seconds = min(2 * seconds, LONGEST_LAST_SECONDS)
        put(self._silent, address, (now + seconds, seconds), MOST_SILENT)

    def _is_silent(self, address: _Key, now: float) -> bool:
        until, _ = self._silent.get(address, (now, 0.0))
        return now < until


def _key(address: Any) -> _Key:
    return address[0], address[1]
