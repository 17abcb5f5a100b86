"""Limits joins per neighbourhood, and detects proxies missing from ``trusted_proxies``. Pure.

Times are seconds of one steady clock, except times of arrival, which are Unix times.
"""

# mypyc: compile

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from waitroom.bounded import put
from waitroom.budgets import NeighbourhoodBudget

ARRIVAL_SECONDS: Final = 120  # how long a signed time of first arrival counts
BURST_SECONDS: Final = 10.0
MAX_RETRY_SECONDS: Final = 30.0
MAX_DEFERRED: Final = 4096

WINDOW_SECONDS: Final = 60.0
MIN_SUSPICIOUS_JOINS: Final = 100
MAX_PEERS: Final = 1024

# Not `is_private`, which also includes documentation networks. 100.64.0.0/10 is used by providers (RFC 6598).
_PRIVATE: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)


class JoinLimiter:
    """One worker's share of ``join_rate`` for each neighbourhood.

    A visitor who must retry gets a signed time of first arrival. Tokens are reserved for as many returning visitors as
    were recently asked to retry, so that newcomers don't overtake them.

    Args:
        per_second: Places per second and neighbourhood, for all workers together.
        workers: The number of workers that share it.
    """

    def __init__(self, per_second: float, workers: int) -> None:
        self._per_second = per_second / workers
        self._budget = NeighbourhoodBudget(self._per_second, BURST_SECONDS * self._per_second)
        self._deferred: dict[str, tuple[int, float]] = {}

    def acquire_unless_deferred(self, key: str, now: float) -> bool:
        """Takes a token of a neighbourhood in which nobody has to retry, if it has one left."""
        return key not in self._deferred and self._budget.take(key, now)

    def acquire(self, key: str, *, returning: bool, now: float) -> float:
        """Takes a token of a neighbourhood for a place.

        Args:
            key: The neighbourhood.
            returning: Whether the visitor has a valid time of first arrival.
            now: The steady time.

        Returns:
            0 if the visitor may join now, else the seconds after which to retry.
        """
        count, at = self._deferred.get(key, (0, now))
        if now - at >= ARRIVAL_SECONDS:
            count = 0
        in_turn = returning or count == 0 or self._budget.left(key, now) >= count + 1
        if in_turn and self._budget.take(key, now):
            if returning and count:
                self._note(key, count - 1, at)
            return 0.0
        if not returning:
            count = min(count + 1, MAX_DEFERRED)
            self._note(key, count, now)
        wait = max(self._budget.wait_seconds(key, now), count / self._per_second / 2)
        return min(MAX_RETRY_SECONDS, max(1.0, wait))

    def _note(self, key: str, count: int, at: float) -> None:
        if count:
            put(self._deferred, key, (count, at), MAX_DEFERRED)
        else:
            self._deferred.pop(key, None)


class ProxyDetector:
    """Finds peers that look like a proxy missing from ``trusted_proxies``.

    Such a peer sends most of a minute's joins and has a private or loopback address, or adds forwarding headers.

    Args:
        workers: The number of workers that share the traffic, and with it the minimum number of joins that counts.

    Attributes:
        found: The address found last, or empty. It is kept as long as windows continue to find one.
    """

    def __init__(self, workers: int) -> None:
        self._least = max(10, MIN_SUSPICIOUS_JOINS // workers)
        self._since = float("-inf")
        self._joins = 0
        self._by_peer: dict[str, int] = {}
        self._exempt = ""
        self.found = ""

    def observe(self, address: str, *, forwards: bool, now: float) -> bool:
        """Records a join by a peer that isn't a trusted proxy.

        Args:
            address: The peer's.
            forwards: Whether the request carries forwarding headers.
            now: The steady time.

        Returns:
            Whether ``join_rate`` does not apply to the peer: it is on a private network and sends most joins.
        """
        if now - self._since >= WINDOW_SECONDS:
            self._begin_window(now)
        self._joins += 1
        private = is_private(address)
        if private or forwards:
            count = self._by_peer.get(address, 0) + 1
            if count > 1 or len(self._by_peer) < MAX_PEERS:
                self._by_peer[address] = count
            if count >= self._least and 2 * count > self._joins:
                self.found = address
                if private:
                    self._exempt = address
        return address == self._exempt

    def observe_trusted(self, now: float) -> None:
        """Records a join through a trusted proxy."""
        if now - self._since >= WINDOW_SECONDS:
            self._begin_window(now)
        self._joins += 1

    def _begin_window(self, now: float) -> None:
        still = self._by_peer.get(self.found, 0)
        if not (still >= self._least and 2 * still > self._joins):
            self.found = self._exempt = ""
        self._since = now
        self._joins = 0
        self._by_peer = {}


@lru_cache(1024)
def is_private(address: str) -> bool:
    """Whether an address is loopback or of a private network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return True  # the peer of a unix socket
    return any(parsed in network for network in _PRIVATE)
