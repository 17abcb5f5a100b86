"""Login state in the store, shared by all controllers: attempts, used codes, ended sessions.

Every key expires, and names and addresses share a fixed number of counters, so that strangers can't exhaust memory.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from waitroom.store.connection import call_twice, store_errors
from waitroom.store.scripts import load_script

# No room can have this name.
PREFIX = "waitroom:{:access}"
COUNTER_DIGITS = 4  # hexadecimal: 65,536 counters of each kind
COUNTER_SECONDS = 3600.0
USED_CODE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Backoff:
    """The rate of attempts: ``free`` ones without a pause, then pauses that double. Seconds."""

    free: int
    initial_seconds: float
    max_seconds: float

    def arguments(self) -> list[str | int]:
        """Returns the script's arguments."""
        return [self.free, round(self.initial_seconds * 1000), round(self.max_seconds * 1000)]


# Anybody who knows a name can make its owner wait, so this pause must stay short enough for someone on call.
NAME_BACKOFF = Backoff(free=3, initial_seconds=1, max_seconds=60)
# Many operators may share an address.
ADDRESS_BACKOFF = Backoff(free=10, initial_seconds=1, max_seconds=900)


class LoginStore:
    """Login state. Every method raises `StoreUnavailable` when Redis doesn't answer in time.

    Args:
        redis: A client that returns bytes.
        clock: The wall clock in milliseconds since the epoch, for tests; None uses the server's.
    """

    def __init__(self, redis: Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._redis = redis
        self._clock = clock
        self._attempt = redis.register_script(load_script("waitroom.control.auth", "attempt"))
        self._succeeded = redis.register_script(load_script("waitroom.control.auth", "succeeded"))

    async def attempt(self, name: str, address: str) -> float:
        """Counts a login attempt; returns the seconds until one is allowed, 0 if this one is."""
        now = "" if self._clock is None else self._clock()
        arguments = [now, round(COUNTER_SECONDS * 1000), *NAME_BACKOFF.arguments(), *ADDRESS_BACKOFF.arguments()]
        with store_errors():
            return int(await self._attempt(keys=_counters(name, address), args=arguments)) / 1000

    async def succeeded(self, name: str, address: str) -> None:
        """Reverts what `attempt` counted for a successful login."""
        with store_errors():
            await self._succeeded(keys=_counters(name, address))

    async def use_code(self, name: str, step: int) -> bool:
        """Marks the code of an interval as used; False if it already was."""
        with store_errors():
            key = f"{PREFIX}:code:{_digest(name)}:{step}"
            return bool(await self._redis.set(key, 1, nx=True, ex=USED_CODE_SECONDS))

    async def end_session(self, session: str, seconds: float) -> None:
        """Ends a session that would last this many seconds more."""
        lasts = max(1, round(seconds * 1000))
        await call_twice(lambda: self._redis.set(f"{PREFIX}:ended:{session}", 1, px=lasts))

    async def ended(self, session: str) -> bool:
        """Whether a session was ended."""
        return bool(await call_twice(lambda: self._redis.exists(f"{PREFIX}:ended:{session}")))


def _counters(name: str, address: str) -> list[str]:
    digits = slice(COUNTER_DIGITS)
    return [
        f"{PREFIX}:tries:name:{_digest(name)[digits]}",
        f"{PREFIX}:tries:address:{_digest(_network(address))[digits]}",
    ]


def _network(address: str) -> str:
    """Returns the network of one customer of a provider: an IPv4 address, or an IPv6 /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
