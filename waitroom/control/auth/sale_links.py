"""Links to the sale page of a room: signed like login sessions, valid until they expire or are revoked.

A link carries the series of its room, a random id in the store that all gateways share. Revoking begins a new series,
which ends all links made before. A store that has lost the series ends them too: it can't know which were revoked.
"""

from __future__ import annotations

import hmac
import secrets as random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from waitroom.control.auth.login_store import PREFIX
from waitroom.control.auth.session_cookie import read_signed, signed_serializer
from waitroom.errors import InvalidTokenError, StoreUnavailable
from waitroom.store.connection import call_twice

SALE_PATH: Final = "/sale/{room}/{token}"
SALE_FIGURES_PATH: Final = f"{SALE_PATH}/figures"
SALE_PATHS: Final = frozenset({SALE_PATH, SALE_FIGURES_PATH})
DEFAULT_HOURS: Final = 7 * 24
MAX_HOURS: Final = 90 * 24
# How long a revoked link may still work. Many screens ask, and one look at the store serves all of them.
SERIES_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class SaleLink:
    """The content of a link's token.

    Attributes:
        room: The room's name.
        series: The room's series when the link was made.
        ends_at: Unix time in seconds.
    """

    room: str
    series: str
    ends_at: int


class SaleLinks:
    """Makes, checks and revokes links.

    Args:
        redis: A client that returns bytes.
        secrets: Newest first; the first one signs, all verify.
        now: The wall clock, Unix time in seconds.
        monotonic: Seconds of any clock that never goes back.
    """

    def __init__(
        self,
        redis: Redis,
        secrets: Sequence[str],
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._serializer = signed_serializer(secrets, "waitroom.sale-link.1")
        self._now = now
        self._monotonic = monotonic
        self._series: dict[str, tuple[float, str]] = {}

    async def create(self, room: str, hours: float) -> tuple[str, int]:
        """Returns the path of a new link, and when it expires, in Unix seconds. Raises `StoreUnavailable`."""
        series = await self._read_series(room)
        if not series:
            await call_twice(lambda: self._redis.set(_key(room), random.token_hex(8), nx=True))
            series = await self._read_series(room)
        ends_at = int(self._now() + hours * 3600)
        token = str(self._serializer.dumps([room, series, ends_at]))
        return SALE_PATH.format(room=room, token=token), ends_at

    async def revoke(self, room: str) -> None:
        """Ends all links of a room, elsewhere within `SERIES_SECONDS`. Raises `StoreUnavailable`."""
        series = random.token_hex(8)
        await call_twice(lambda: self._redis.set(_key(room), series))
        self._series.pop(room, None)

    async def check(self, room: str, token: str) -> None:
        """Checks a link's token. While the store is unavailable, the series known last counts.

        Raises:
            InvalidTokenError: It isn't valid for this room, has expired or was revoked.
            StoreUnavailable: The series isn't known.
        """
        link = read_signed(self._serializer, SaleLink, token, self._now())
        if not hmac.compare_digest(_bytes(link.room), _bytes(room)):
            raise InvalidTokenError("of another room")
        series = await self._current_series(room)
        if not series or not hmac.compare_digest(_bytes(link.series), _bytes(series)):
            raise InvalidTokenError("revoked")

    async def _current_series(self, room: str) -> str:
        read_at, series = self._series.get(room, (float("-inf"), ""))
        if self._monotonic() - read_at < SERIES_SECONDS:
            return series
        try:
            return await self._read_series(room)
        except StoreUnavailable:
            if not series:
                raise
            self._series[room] = (self._monotonic(), series)
            return series

    async def _read_series(self, room: str) -> str:
        read_at = self._monotonic()
        found: Any = await call_twice(lambda: self._redis.get(_key(room)))
        series: str = "" if found is None else found.decode()
        self._series[room] = (read_at, series)
        return series


def _key(room: str) -> str:
    return f"{PREFIX}:sale:{room}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
