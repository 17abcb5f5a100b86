"""Login state in the store, shared by all controllers: attempts, used codes, ended sessions.

Attempts from a known device, one in which the user has logged in before, have a counter of their own, which strangers
can't use up (OWASP calls this device cookies). All others are counted by name and neighbourhood, by neighbourhood and,
with much more room, by name. Every key expires, and these share a fixed number of counters, so that strangers can't
exhaust memory.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from waitroom.budgets import neighbourhood
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


# Attempts with one name from one neighbourhood.
NAME_BACKOFF = Backoff(free=3, initial_seconds=1, max_seconds=60)
# Many operators may share a neighbourhood.
ADDRESS_BACKOFF = Backoff(free=10, initial_seconds=1, max_seconds=900)
# Attempts with one name from all neighbourhoods, unless from a known device. A client in many of them can make the
# owner of a name wait elsewhere, so the pause must stay short enough for someone on call.
EVERYWHERE_BACKOFF = Backoff(free=100, initial_seconds=1, max_seconds=60)
# Attempts from a browser in which this user has logged in before. Nobody else can use these up.
DEVICE_BACKOFF = Backoff(free=5, initial_seconds=1, max_seconds=60)


class LoginStore:
    """Login state. Every method raises `StoreUnavailable` when Redis doesn't answer in time.

    Args:
        redis: A client that returns bytes.
        key: A secret. Without it nobody can find names that share a counter with another one.
        clock: The wall clock in milliseconds since the epoch, for tests; None uses the server's.
    """

    def __init__(self, redis: Redis, *, key: str = "", clock: Callable[[], int] | None = None) -> None:
        self._redis = redis
        self._key = key.encode()
        self._clock = clock
        self._attempt = redis.register_script(load_script("waitroom.control.auth", "attempt"))
        self._succeeded = redis.register_script(load_script("waitroom.control.auth", "succeeded"))

    async def attempt(self, name: str, address: str, device: str | None = None) -> float:
        """Counts a login attempt; returns the seconds until one is allowed, 0 if this one is.

        Args:
            name: The name, whether or not there is such a user.
            address: The client's address.
            device: The id of the device, if this user has logged in from it before.
        """
        counters = self._counters(name, address, device)
        now = "" if self._clock is None else self._clock()
        arguments: list[str | int] = [now, round(COUNTER_SECONDS * 1000)]
        for backoff in counters.values():
            arguments += backoff.arguments()
        with store_errors():
            return int(await self._attempt(keys=list(counters), args=arguments)) / 1000

    async def succeeded(self, name: str, address: str, device: str | None = None) -> None:
        """Reverts what `attempt` counted for a successful login."""
        with store_errors():
            await self._succeeded(keys=list(self._counters(name, address, device)))

    def _counters(self, name: str, address: str, device: str | None) -> dict[str, Backoff]:
        """Returns the keys of the counters, the most specific first, and how each limits attempts."""
        if device is not None:
            # There are as many as logins, so they need no bound.
            return {f"{PREFIX}:tries:device:{self._digest('device', name, device)}": DEVICE_BACKOFF}
        here = neighbourhood(address)
        limits = {
            "name": (NAME_BACKOFF, (name, here)),
            "address": (ADDRESS_BACKOFF, (here,)),
            "everywhere": (EVERYWHERE_BACKOFF, (name,)),
        }
        return {
            f"{PREFIX}:tries:{kind}:{self._digest(kind, *parts)[:COUNTER_DIGITS]}": backoff
            for kind, (backoff, parts) in limits.items()
        }

    def _digest(self, *parts: str) -> str:
        text = "\n".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()

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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
