"""The figures of a sale page in words. Pure, as `presenter` is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from waitroom.control.dashboard.event_presenter import current_event_texts
from waitroom.control.dashboard.formatting import NOTHING, count, latency
from waitroom.control.dashboard.presenter import failures, room_texts, shop_is_failing
from waitroom.control.rooms.presenter import Sold
from waitroom.wait_range import short_wait, wait_range

WAIT_SHARE: Final = 0.9
_SOLD_BY: Final = {"stock": "units, as the shop reports", "release": "orders, as the shop reports"}


def sale_texts(room: Mapping[str, Any], sold: Sold | None, wait_seconds: float | None, clock: float) -> dict[str, Any]:
    """Returns everything that a sale page shows.

    Args:
        room: In the API's format; without ``state`` if the store was never reached.
        sold: The sales; None if they aren't known.
        wait_seconds: The wait that 90 % of the visitors admitted lately had at most; None if there were none.
        clock: The server's clock, Unix time in seconds.
    """
    texts = room_texts(room)
    shown = {
        "clock": clock,
        "room": room["name"],
        "state": texts["state"],
        "tone": texts["tone"],
        "problem": "" if room["store_up"] else "No admissions at the moment; all visitors keep their places.",
        **current_event_texts(room),
        **dict.fromkeys(("sold", "left", "waiting", "wait", "admitted"), NOTHING),
        **dict.fromkeys(("sold_by", "wait_of", "health_note"), ""),
        "health": "Unknown",
        "health_tone": "quiet",
    }
    if "state" not in room:
        return shown
    shown |= _health(room)
    shown |= _wait(room, wait_seconds)
    shown |= {"left": _left(room), "waiting": texts["waiting"], "admitted": texts["admitted"]}
    if sold is not None:
        shown |= {"sold": count(sold.number), "sold_by": _SOLD_BY[sold.by]}
    return shown


def _left(room: Mapping[str, Any]) -> str:
    """Returns the units left. Before the start, those of the event: the shop's stock still counts another sale."""
    event = room.get("event")
    left = room.get("remaining")
    if event is not None and event["phase"] in ("scheduled", "prequeue") and event["units"] is not None:
        left = event["units"]
    return NOTHING if left is None else count(left)


def _wait(room: Mapping[str, Any], seconds: float | None) -> dict[str, str]:
    if seconds is not None:
        return {"wait": _at_most(seconds), "wait_of": "or less, for 90 % of those admitted in the last minute"}
    announced = (room.get("wait_seconds") or {}).get("newcomer")
    if announced is None or not room["waiting"]:
        return {"wait": NOTHING, "wait_of": "nobody was admitted in the last minute"}
    return {"wait": short_wait(*announced), "wait_of": "announced to newcomers; nobody was admitted in the last minute"}


def _at_most(seconds: float) -> str:
    found = wait_range(seconds, seconds)
    return "1 min" if found is None else f"{found.high} {'h' if found.high_unit == 'hour' else 'min'}"


def _health(room: Mapping[str, Any]) -> dict[str, str]:
    shop = room.get("shop") or {}
    note = f"p95 {latency(shop.get('p95_seconds'))}, errors {failures(shop)}"
    if not shop.get("requests_per_minute"):
        return {"health": "No traffic", "health_tone": "quiet", "health_note": "no requests in the last ten seconds"}
    if shop_is_failing(shop):
        return {"health": "Failing", "health_tone": "bad", "health_note": note}
    return {"health": "Healthy", "health_tone": "good", "health_note": note}
