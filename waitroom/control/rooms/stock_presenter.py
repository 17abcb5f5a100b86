"""The stock of a room in the format of the API."""

from __future__ import annotations

from typing import Any

from waitroom.queue.schedule import Phase
from waitroom.queue.stock import SellingPace, share_of
from waitroom.queue.view import RoomView


def stock_json(view: RoomView, selling: SellingPace) -> dict[str, Any] | None:
    """Returns the stock in the API's format; None if the shop reports none."""
    if view.remaining is None or view.stock_began is None:
        return None
    event, share = view.event, share_of(view)
    pace, seconds_left = selling.per_minute, selling.seconds_left(view.remaining)
    return {
        "remaining": view.remaining,
        "units": event.event.units if event is not None and event.phase is Phase.RUNNING else None,
        "sold": view.sold - view.stock_began[0],
        "sold_per_minute": None if pace is None else round(pace, 1),
        "seconds_left": None if seconds_left is None else round(seconds_left),
        "units_per_visitor": None if share is None else [round(share.lower, 3), round(share.measured, 3)],
    }
