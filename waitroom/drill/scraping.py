"""Scrapes the gateway's metrics of its room, and the shop's own figures."""

from __future__ import annotations

from dataclasses import dataclass, fields

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_READ_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


@dataclass(frozen=True, slots=True)
class RoomStats:
    """One room's figures at one moment; None if the gateway doesn't report them.

    Attributes:
        waiting: Visitors in the queue.
        called: Visitors whose turn it is.
        active: Visitors in the shop.
        joined: Visitors who have joined so far.
        admitted: Visitors admitted so far.
        overshoots: The number of times that a limit was exceeded.
    """

    waiting: int | None = None
    called: int | None = None
    active: int | None = None
    joined: int | None = None
    admitted: int | None = None
    overshoots: int | None = None


@dataclass(frozen=True, slots=True)
class ShopStats:
    """The demo shop's own figures.

    Attributes:
        orders: Orders placed.
        stock: Units left.
        requests: Requests received.
        failures: Requests answered 500 or above.
        peak_in_flight: The highest number of concurrent requests so far.
    """

    orders: int
    stock: int
    requests: int
    failures: int
    peak_in_flight: int


def parse_room_stats(text: str, room: str) -> RoomStats:
    """Parse a room's figures from Prometheus text.

    Raises:
        ValueError: The text isn't in Prometheus' format.
    """
    found: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("room") == room:
                found[sample.name] = found.get(sample.name, 0) + int(sample.value)
    return RoomStats(
        waiting=found.get("waitroom_waiting_visitors"),
        called=found.get("waitroom_called_visitors"),
        active=found.get("waitroom_active_sessions"),
        joined=found.get("waitroom_joined_total"),
        admitted=found.get("waitroom_admitted_total"),
        overshoots=found.get("waitroom_limit_overshoot_total"),
    )


async def scrape_room(session: aiohttp.ClientSession, admin: str, room: str) -> RoomStats | None:
    """Request a room's figures from the admin listener.

    Args:
        session: The HTTP session.
        admin: The admin listener's origin, such as ``http://127.0.0.1:8081``.
        room: The room's name.

    Returns:
        The figures; None if there was no usable response within two seconds.
    """
    try:
        async with session.get(f"{admin}/metrics", timeout=_READ_TIMEOUT) as answer:
            if answer.status != 200:
                return None
            return parse_room_stats(await answer.text(), room)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return None


async def fetch_shop_stats(session: aiohttp.ClientSession, shop: str) -> ShopStats | None:
    """Request the demo shop's figures.

    Args:
        session: The HTTP session.
        shop: The shop's origin, such as ``http://127.0.0.1:3000``.

    Returns:
        The figures; None if there was no usable response within two seconds.
    """
    try:
        async with session.get(f"{shop}/stats", timeout=_READ_TIMEOUT) as answer:
            data = await answer.json()
            return ShopStats(**{key.name: int(data[key.name]) for key in fields(ShopStats)})
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, LookupError, TypeError):
        return None
