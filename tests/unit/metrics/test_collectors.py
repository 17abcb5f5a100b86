"""The queue's metrics, from the control process's views."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.edge_world import BUSY
from waitroom.metrics.collectors import QueueCollector, StockCollector, exposition
from waitroom.queue.stock import SellingPace
from waitroom.queue.view import RoomView

VIEW = replace(
    BUSY,
    waiting=1200,
    called=4,
    away=7,
    active=90,
    rate_per_minute=58.5,
    totals={"joined": 5000, "admitted": 3800, "overshoot": 2, "over:rate": 99, "left:expired": 12, "left:released": 3},
)


def samples(views: dict[str, RoomView]) -> dict[tuple[str, str, str], float]:
    """The scraped values by metric, room and reason."""
    families = text_string_to_metric_families(exposition(QueueCollector(views)).decode())
    return {
        (sample.name, sample.labels["room"], sample.labels.get("reason", "")): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("waitroom_waiting_visitors", 1200),
        ("waitroom_called_visitors", 4),
        ("waitroom_away_visitors", 7),
        ("waitroom_active_sessions", 90),
        ("waitroom_max_active_sessions", VIEW.max_active),
        ("waitroom_rate_per_minute", 58.5),
        ("waitroom_joined_total", 5000),
        ("waitroom_admitted_total", 3800),
        ("waitroom_limit_overshoot_total", 2),
    ],
)
def test_a_metric_has_the_value_of_its_view(name: str, value: float) -> None:
    assert samples({"shop": VIEW})[name, "shop", ""] == value


def test_every_reason_to_leave_is_exported_from_the_start() -> None:
    left = {reason: value for (name, _, reason), value in samples({"shop": VIEW}).items() if reason}
    assert left == {"away": 0, "ended": 0, "expired": 12, "left": 0, "missed": 0, "released": 3}


def test_both_limits_of_a_passthrough_room_are_exported_from_the_start() -> None:
    families = text_string_to_metric_families(exposition(QueueCollector({"shop": VIEW})).decode())
    (family,) = (one for one in families if one.name == "waitroom_passthrough_over_limit")
    totals = {one.labels["limit"]: one.value for one in family.samples if one.name.endswith("_total")}
    assert totals == {"rate": 99, "max_active": 0}


def test_rooms_have_metrics_of_their_own() -> None:
    found = samples({"shop": VIEW, "tickets": replace(VIEW, waiting=5)})
    assert found["waitroom_waiting_visitors", "shop", ""] == 1200
    assert found["waitroom_waiting_visitors", "tickets", ""] == 5


def test_a_room_that_nobody_has_seen_yet_exports_nothing() -> None:
    assert samples({}) == {}


@dataclass
class Room:
    name: str
    view: RoomView | None
    selling: SellingPace = field(default_factory=SellingPace)


def stock_samples(*rooms: Room) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(exposition(StockCollector(rooms)).decode())
    samples = (sample for family in families for sample in family.samples)
    return {(one.name, one.labels["room"]): one.value for one in samples if not one.name.endswith("_created")}


def test_the_stock_of_a_room_and_how_long_it_lasts() -> None:
    room = Room("shop", None)
    for second in range(11):
        totals = {"sold": 500 + 2 * second, "units_returned": 5}
        room.view = replace(VIEW, clock_ms=1000 * second, remaining=120 - 2 * second, totals=totals)
        room.selling.observe(room.view)
    assert stock_samples(room, Room("new", None)) == {
        ("waitroom_units_remaining", "shop"): 100,
        ("waitroom_stock_left_seconds", "shop"): 50,
        ("waitroom_units_sold_total", "shop"): 520,
        ("waitroom_units_returned_total", "shop"): 5,
    }


def test_a_shop_that_reports_no_stock_has_only_the_totals() -> None:
    assert stock_samples(Room("shop", VIEW)) == {
        ("waitroom_units_sold_total", "shop"): 0,
        ("waitroom_units_returned_total", "shop"): 0,
    }
