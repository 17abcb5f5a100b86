"""Token buckets: rate limits, in total or for each neighbourhood. Pure, apart from the buckets' state.

Times are seconds of any clock that never goes back; the caller passes them in.
"""

# mypyc: compile

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

MOST_NEIGHBOURHOODS: Final = 16_384  # at most about 4 MB per budget


class TokenBucket:
    """Lets ``per_second`` through on average, and bursts of up to ``burst``.

    Args:
        per_second: Tokens added per second.
        burst: The capacity; at least 1, because otherwise nothing would ever pass.
    """

    __slots__ = ("_at", "_tokens", "burst", "per_second")

    def __init__(self, per_second: float, burst: float = 1.0) -> None:
        self.per_second = per_second
        self.burst = max(1.0, burst)
        self._tokens = self.burst
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Takes one token, if there is one."""
        if self.left(now) < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def left(self, now: float) -> float:
        """The number of tokens left."""
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self.per_second)
        self._at = max(now, self._at)
        return self._tokens

    def wait_seconds(self, now: float) -> float:
        """Seconds until a token is available; 0 if there is one now."""
        return max(0.0, 1.0 - self.left(now)) / self.per_second

    def change_rate(self, per_second: float, burst: float, now: float) -> None:
        """Changes the rate; tokens gathered until now were gathered at the old rate."""
        if (per_second, burst) != (self.per_second, self.burst):
            self.left(now)
            self.per_second, self.burst = per_second, max(1.0, burst)
            self._tokens = min(self._tokens, self.burst)


class NeighbourhoodBudget:
    """A token bucket for each neighbourhood, up to `MOST_NEIGHBOURHOODS` of them.

    The least recently used buckets are removed first, once they are full again or there are too many. A removed
    neighbourhood starts again with a full bucket, so wherever a client can have many addresses this budget must be
    backed by a budget for all neighbourhoods together.

    Args:
        per_second, burst: Of each neighbourhood's `TokenBucket`.
    """

    __slots__ = ("_buckets", "_burst", "_per_second")

    def __init__(self, per_second: float, burst: float = 1.0) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float) -> bool:
        """Takes one token of a neighbourhood (see `neighbourhood`), if it has one left."""
        return self._bucket(key, now).take(now)

    def left(self, key: str, now: float) -> float:
        """The number of tokens a neighbourhood has left."""
        return self._bucket(key, now).left(now)

    def wait_seconds(self, key: str, now: float) -> float:
        """Seconds until a neighbourhood has a token; 0 if it has one now."""
        return self._bucket(key, now).wait_seconds(now)

    def _bucket(self, key: str, now: float) -> TokenBucket:
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            self._forget(now)
            bucket = TokenBucket(self._per_second, self._burst)
        self._buckets[key] = bucket  # the most recently used come last
        return bucket

    def _forget(self, now: float) -> None:
        """Makes room for one more. Checks only two entries: the table shrinks, and no call takes long."""
        for _ in range(2):
            oldest = next(iter(self._buckets), None)
            if oldest is None:
                return
            bucket = self._buckets[oldest]
            if bucket.left(now) < bucket.burst and len(self._buckets) < MOST_NEIGHBOURHOODS:
                return
            del self._buckets[oldest]


@lru_cache(8192)
def neighbourhood(address: str) -> str:
    """The neighbourhood of an address in plain form: an IPv4 address itself, the /64 network of an IPv6 one.

    Any other value, such as the peer of a unix socket, is a neighbourhood of its own.
    """
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Network((address, 64), strict=False).network_address) + "/64"
    except ValueError:
        return address
