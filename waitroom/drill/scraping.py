"""What the gateway's metrics say of its room, and what the shop says of itself."""

from __future__ import annotations

from dataclasses import dataclass, fields

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_READ_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


@dataclass(frozen=True, slots=True)
class RoomFigures:
    """One room's numbers at one moment; None where the gateway doesn't tell.

    Attributes:
        waiting: Visitors in line.
        called: Visitors whose turn it is.
        active: Visitors in the shop.
        joined: Visitors who have taken a place so far.
        admitted: Visitors let in so far.
        overshoots: Times that a limit was exceeded.
    """

    waiting: int | None = None
    called: int | None = None
    active: int | None = None
    joined: int | None = None
    admitted: int | None = None
    overshoots: int | None = None


@dataclass(frozen=True, slots=True)
class ShopFigures:
    """The demo shop's own count.

    Attributes:
        orders: Orders placed.
        stock: Units left.
        requests: Requests taken.
        failures: Requests answered 500 or above.
        peak_in_flight: The most requests there ever were at once.
    """

    orders: int
    stock: int
    requests: int
    failures: int
    peak_in_flight: int


def parse_figures(text: str, room: str) -> RoomFigures:
    """Read a room's figures out of Prometheus text.

    Raises:
        ValueError: The text isn't in Prometheus' format.
    """
    found: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("room") == room:
                found[sample.name] = found.get(sample.name, 0) + int(sample.value)
    return RoomFigures(
        waiting=found.get("waitroom_waiting_visitors"),
        called=found.get("waitroom_called_visitors"),
        active=found.get("waitroom_active_sessions"),
        joined=found.get("waitroom_joined_total"),
        admitted=found.get("waitroom_admitted_total"),
        overshoots=found.get("waitroom_limit_overshoot_total"),
    )


async def read_figures(session: aiohttp.ClientSession, admin: str, room: str) -> RoomFigures | None:
    """Ask the admin listener for a room's figures.

    Args:
        session: The session to ask with.
        admin: The admin listener's origin, such as ``http://127.0.0.1:8081``.
        room: The room's name.

    Returns:
        The figures; None where no usable answer came within two seconds.
    """
    try:
        async with session.get(f"{admin}/metrics", timeout=_READ_TIMEOUT) as answer:
            if answer.status != 200:
                return None
            return parse_figures(await answer.text(), room)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return None


async def read_shop(session: aiohttp.ClientSession, shop: str) -> ShopFigures | None:
    """Ask the demo shop how it is.

    Args:
        session: The session to ask with.
        shop: The shop's origin, such as ``http://127.0.0.1:3000``.

    Returns:
        Its figures; None where no usable answer came within two seconds.
    """
    try:
        async with session.get(f"{shop}/stats", timeout=_READ_TIMEOUT) as answer:
            told = await answer.json()
            return ShopFigures(**{key.name: int(told[key.name]) for key in fields(ShopFigures)})
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, LookupError, TypeError):
        return None
