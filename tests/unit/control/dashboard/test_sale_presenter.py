"""The figures of a sale page, in every phase of an event."""

from __future__ import annotations

from typing import Any

import pytest

from support.room_views import EVENT, OPEN
from waitroom.control.dashboard.formatting import NOTHING
from waitroom.control.dashboard.sale_presenter import sale_texts
from waitroom.control.rooms.presenter import Sold

SOLD = Sold(1880, "stock")


def texts(*, wait: float | None = None, sold: Sold | None = SOLD, **values: Any) -> dict[str, Any]:
    return sale_texts({**OPEN, **values}, sold, wait, 1000.0)


def test_the_figures_of_a_sale():
    now = texts(wait=700.0, event=EVENT, remaining=3120)
    assert (now["event"], now["event_phase"], now["step"]) == ("Redmi 1s", "Running", "Ends")
    assert (now["sold"], now["left"], now["waiting"], now["admitted"]) == ("1,880", "3,120", "1,200", "58")
    assert (now["wait"], now["wait_of"]) == ("12 min", "or less, for 90 % of those admitted in the last minute")
    assert (now["health"], now["health_tone"], now["health_note"]) == (
        *("Healthy", "good"),
        "p95 1.4 s, errors 0.2 % (2/min)",
    )
    assert now["clock"] == 1000.0


@pytest.mark.parametrize(
    ("seconds", "wait"), [(0.4, "1 min"), (59, "1 min"), (61, "2 min"), (1300, "25 min"), (9000, "3 h")]
)
def test_the_p90_is_rounded_up(seconds, wait):
    assert texts(wait=seconds)["wait"] == wait


def test_without_admissions_the_announced_wait_is_shown_and_named():
    assert texts()["wait"] == "15 to 25 min"
    assert texts()["wait_of"].startswith("announced to newcomers")
    for values in ({"waiting": 0}, {"wait_seconds": {"newcomer": None}}):
        assert (texts(**values)["wait"], texts(**values)["wait_of"]) == (
            NOTHING,
            "nobody was admitted in the last minute",
        )


@pytest.mark.parametrize(
    ("phase", "remaining", "left"),
    [
        ("scheduled", 0, "5,000"),
        ("prequeue", None, "5,000"),
        ("running", 12, "12"),
        ("running", None, NOTHING),
        ("ended", 3, "3"),
    ],
)
def test_before_the_start_the_units_of_the_event_are_left(phase, remaining, left):
    assert texts(event={**EVENT, "phase": phase}, remaining=remaining)["left"] == left


def test_what_was_sold_says_how_it_is_known():
    assert texts()["sold_by"] == "units, as the shop reports"
    assert texts(sold=Sold(7, "release"))["sold_by"] == "orders, as the shop reports"
    assert (texts(sold=None)["sold"], texts(sold=None)["sold_by"]) == (NOTHING, "")


@pytest.mark.parametrize(
    ("shop", "health", "tone"),
    [
        ({"failures_per_minute": 100.0}, "Failing", "bad"),
        ({"requests_per_minute": 0.0, "failures_per_minute": 0.0}, "No traffic", "quiet"),
    ],
)
def test_the_health_of_the_shop(shop, health, tone):
    now = texts(shop={**OPEN["shop"], **shop})
    assert (now["health"], now["health_tone"]) == (health, tone)


def test_a_store_that_is_gone_is_said():
    assert texts()["problem"] == ""
    assert "No admissions" in texts(store_up=False)["problem"]
    never = sale_texts({"name": "shop", "upstream": "http://a", "store_up": False}, None, None, 1.0)
    assert (never["state"], never["waiting"], never["health"]) == ("Unknown", NOTHING, "Unknown")
    assert set(never) == set(texts())
