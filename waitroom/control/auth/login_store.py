"""What the store keeps of logins, for all controllers alike: tries, codes that were used, sessions that were ended.

Everything runs out by itself, and names and addresses share a fixed number of counters: a stranger fills no memory.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from waitroom.store.connection import store_errors
from waitroom.store.scripts import load_script

# No room can be called so.
PREFIX = "waitroom:{:access}"
COUNTERS_DIGITS = 4  # hexadecimal: 65,536 counters of each kind
KEPT_SECONDS = 3600.0
CODE_KEPT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Pauses:
    """How fast tries may follow each other: ``free`` at once, then pauses that double. Seconds."""

    free: int
    first_seconds: float
    longest_seconds: float

    def arguments(self) -> list[str | int]:
        """As the script takes them."""
        return [self.free, round(self.first_seconds * 1000), round(self.longest_seconds * 1000)]


# Whoever knows a name can make its owner wait, so that this pause stays one that can be borne while the phone rings.
FOR_A_NAME = Pauses(free=3, first_seconds=1, longest_seconds=60)
# Many operators may share an address.
FOR_AN_ADDRESS = Pauses(free=10, first_seconds=1, longest_seconds=900)


class AccessStore:
    """Every method raises `StoreUnavailable` when Redis doesn't answer in time.

    Args:
        redis: A client that answers with bytes.
        clock: The wall clock in milliseconds since the epoch, for tests; None takes the server's.
    """

    def __init__(self, redis: Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._redis = redis
        self._clock = clock
        self._attempt = redis.register_script(load_script("waitroom.control.auth", "attempt"))
        self._succeeded = redis.register_script(load_script("waitroom.control.auth", "succeeded"))

    async def attempt(self, name: str, address: str) -> float:
        """Counts a try to log in; returns the seconds until one is allowed, 0 where this one is."""
        now = "" if self._clock is None else self._clock()
        arguments = [now, round(KEPT_SECONDS * 1000), *FOR_A_NAME.arguments(), *FOR_AN_ADDRESS.arguments()]
        with store_errors():
            return int(await self._attempt(keys=_counters(name, address), args=arguments)) / 1000

    async def succeeded(self, name: str, address: str) -> None:
        """Takes back what `attempt` counted for a try that succeeded."""
        with store_errors():
            await self._succeeded(keys=_counters(name, address))

    async def use_code(self, name: str, step: int) -> bool:
        """Uses up the code of an interval; False where it was used before."""
        with store_errors():
            key = f"{PREFIX}:code:{_digest(name)}:{step}"
            return bool(await self._redis.set(key, 1, nx=True, ex=CODE_KEPT_SECONDS))

    async def end_session(self, session: str, seconds: float) -> None:
        """Ends a session that would last for so many seconds more."""
        with store_errors():
            await self._redis.set(f"{PREFIX}:ended:{session}", 1, px=max(1, round(seconds * 1000)))

    async def ended(self, session: str) -> bool:
        """Whether a session was ended."""
        with store_errors():
            return bool(await self._redis.exists(f"{PREFIX}:ended:{session}"))


def _counters(name: str, address: str) -> list[str]:
    digits = slice(COUNTERS_DIGITS)
    return [
        f"{PREFIX}:tries:name:{_digest(name)[digits]}",
        f"{PREFIX}:tries:address:{_digest(_neighbourhood(address))[digits]}",
    ]


def _neighbourhood(address: str) -> str:
    """What one customer of a provider has: an IPv4 address, or 64 bits of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
