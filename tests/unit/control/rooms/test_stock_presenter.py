"""The stock of a room in the format of the API."""

from __future__ import annotations

from dataclasses import replace

from support.edge_world import BUSY
from waitroom.control.rooms.stock_presenter import stock_json
from waitroom.queue.schedule import Event, EventRecord, Phase
from waitroom.queue.stock import SellingPace

VIEW = replace(
    BUSY,
    active=50,
    remaining=4000,
    stock_began=(100, 10),
    totals={"sold": 1120, "units_returned": 20, "left:released": 960},
)
SALE = EventRecord(Event("sale", "", 0, units=5000), Phase.RUNNING, "file", False, None, 0, None, {}, {}, {})


def test_the_stock_of_a_running_event() -> None:
    selling = SellingPace()
    selling.observe(replace(VIEW, clock_ms=0, totals={**VIEW.totals, "sold": 1000}))
    view = replace(VIEW, clock_ms=7000, event=SALE)
    selling.observe(view)
    assert stock_json(view, selling) == {
        "remaining": 4000,
        "units": 5000,
        "sold": 1000,
        "sold_per_minute": 1028.6,
        "seconds_left": 233,
        "units_per_visitor": [0.949, 1.0],
    }


def test_a_stock_of_which_little_is_known() -> None:
    scheduled = replace(SALE, phase=Phase.SCHEDULED)
    assert stock_json(replace(VIEW, event=scheduled, totals={"sold": 100}), SellingPace()) == {
        "remaining": 4000,
        "units": None,
        "sold": 0,
        "sold_per_minute": None,
        "seconds_left": None,
        "units_per_visitor": None,
    }


def test_a_shop_that_reports_no_stock() -> None:
    assert stock_json(BUSY, SellingPace()) is None
