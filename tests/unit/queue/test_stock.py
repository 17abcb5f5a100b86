"""Whether the stock lasts for those who wait: never said too early, and never taken back for those behind."""

from __future__ import annotations

from dataclasses import replace
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.edge_world import BUSY
from waitroom.queue.stock import (
    MIN_ENDED_SESSIONS,
    SellingPace,
    Share,
    first_sold_out_position,
    likely_sold_out,
    lowest_mean,
    measured_share,
    near_end_poll_seconds,
    share_of,
    sold_out_from,
)
from waitroom.queue.view import RoomState

POSITIONS = st.integers(1, 2_000_000)
CALLED = st.integers(0, 10_000)
REMAINING = st.integers(0, 1_000_000)
SHARES = st.builds(
    lambda sold, ended, active: measured_share(sold, ended, active) or Share(0, 0),
    st.integers(0, 100_000),
    st.integers(MIN_ENDED_SESSIONS, 100_000),
    st.integers(0, 10_000),
)
PRESENT = st.floats(0, 1)


@given(POSITIONS, POSITIONS, CALLED, REMAINING, SHARES, PRESENT)
def test_it_holds_for_everybody_behind(
    one: int, other: int, called: int, remaining: int, share: Share, present: float
) -> None:
    ahead, behind = sorted((one, other))
    if likely_sold_out(ahead, called, remaining, share, present):
        assert likely_sold_out(behind, called, remaining, share, present)


@given(POSITIONS, CALLED, REMAINING, SHARES, PRESENT)
def test_it_is_never_true_with_more_units_than_those_ahead_are_measured_to_take(
    position: int, called: int, remaining: int, share: Share, present: float
) -> None:
    ahead = position - 1 + called
    if likely_sold_out(position, called, remaining, share, present):
        assert remaining <= ahead * present * share.measured * (1 + 1e-9)


@given(POSITIONS, CALLED, REMAINING, st.integers(0, 100_000), SHARES, PRESENT)
def test_more_units_never_make_it_true(
    position: int, called: int, remaining: int, more: int, share: Share, present: float
) -> None:
    if likely_sold_out(position, called, remaining + more, share, present):
        assert likely_sold_out(position, called, remaining, share, present)


@given(POSITIONS, CALLED, REMAINING, SHARES, PRESENT)
def test_the_first_position_is_the_threshold(
    position: int, called: int, remaining: int, share: Share, present: float
) -> None:
    first = sold_out_from(called, remaining, share, present)
    assert likely_sold_out(position, called, remaining, share, present) == (first is not None and position >= first)
    assert first is None or first >= 1


@pytest.mark.parametrize(("position", "likely"), [(118, False), (119, True), (5000, True)])
def test_everybody_buys_one(position: int, likely: bool) -> None:
    """Of 118 ahead at least 100 buy, by the distribution's lower end."""
    assert likely_sold_out(position, 0, 100, Share(1, 1), 1) is likely


def test_called_visitors_are_ahead_and_the_absent_take_nothing() -> None:
    share = Share(1, 1)
    assert sold_out_from(0, 100, share, 1) == 119
    assert sold_out_from(18, 100, share, 1) == 101
    assert sold_out_from(200, 100, share, 1) == 1
    assert sold_out_from(0, 100, share, 0.5) == 237
    assert sold_out_from(0, 100, share, 0) is None
    assert sold_out_from(0, 100, Share(0, 0), 1) is None
    assert sold_out_from(0, 0, Share(0, 0), 0) == 1


# The measured share.


def test_the_share_is_unknown_until_enough_sessions_have_ended() -> None:
    assert measured_share(29, 29, 500) is None
    assert measured_share(0, 30, 0) == Share(0, 0)


def test_visitors_inside_count_as_if_they_bought_nothing_more() -> None:
    """200 units in the first minutes, and only those who left without buying have left."""
    share = measured_share(200, 30, 470)
    assert share is not None
    assert share.measured == 0.4
    assert 0.35 < share.lower < 0.4


def test_units_that_came_back_make_no_negative_share() -> None:
    assert measured_share(-5, 100, 0) == Share(0, 0)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 30, 100, 300])
def test_a_count_is_that_large_under_its_lowest_mean_in_one_case_of_twenty(count: int) -> None:
    mean, below, term = lowest_mean(count), 0.0, 1.0
    for k in range(count):
        below += term
        term *= mean / (k + 1)
    above = 1 - exp(-mean) * below
    assert 0.03 < above < 0.055


@given(st.integers(0, 1_000_000))
def test_the_lowest_mean_is_below_the_count_and_grows_with_it(count: int) -> None:
    assert 0 <= lowest_mean(count) <= count
    assert lowest_mean(count) <= lowest_mean(count + 1)


SALE = replace(
    BUSY,
    called=3,
    active=100,
    remaining=50,
    stock_began=(1000, 200),
    totals={
        "sold": 1500,
        "units_returned": 100,
        "left:released": 500,
        "left:expired": 80,
        "left:ended": 20,
        "left:left": 99,
    },
)


def test_only_the_units_and_sessions_since_the_stock_began_count() -> None:
    share = share_of(SALE)
    assert share is not None
    assert share.measured == (1500 - 100 - 1000) / (500 + 80 + 20 - 200 + 100)
    assert first_sold_out_position(SALE) == sold_out_from(3, 50, share, 1)
    assert share_of(replace(SALE, stock_began=(1400, 571))) is None


@pytest.mark.parametrize("state", [RoomState.PREQUEUE, RoomState.CLOSED])
def test_nothing_is_said_before_a_sale(state: RoomState) -> None:
    assert first_sold_out_position(replace(SALE, state=state)) is None


def test_it_is_known_that_the_stock_lasts_for_all() -> None:
    assert first_sold_out_position(replace(SALE, totals={"left:released": 500})) == 0


# The pace.


def observed(*sales: tuple[float, int], **changes: object) -> SellingPace:
    """The pace after views, each with its second and the units sold by then."""
    pace = SellingPace()
    for second, sold in sales:
        view = replace(SALE, clock_ms=round(second * 1000), totals={"sold": sold}, **changes)  # type: ignore[arg-type]
        pace.observe(view)
    return pace


def test_the_pace_is_that_of_the_last_minute() -> None:
    steady = [(second, 2 * second) for second in range(200)]
    assert observed(*steady).per_minute == 120
    stopped = [*steady, *((second, 398) for second in range(200, 230))]
    assert observed(*stopped).per_minute == pytest.approx(60, abs=4)
    assert observed(*stopped, *((second, 398) for second in range(230, 261))).per_minute == 0


def test_the_pace_of_a_sale_is_known_after_two_seconds() -> None:
    assert observed((0, 0), (1.5, 30)).per_minute is None
    assert observed((0, 0), (1.0, 20), (2.0, 40)).per_minute == 1200


def test_the_pace_says_how_long_the_rest_lasts() -> None:
    pace = observed((0, 0), (10, 100))
    assert pace.seconds_left(50) == 5
    assert pace.seconds_left(0) == 0
    assert pace.seconds_left(None) is None
    assert observed((0, 7), (10, 7)).seconds_left(50) is None
    assert observed((0, 7), (10, 3)).seconds_left(50) is None, "more came back than was sold"
    assert observed((0, 7)).seconds_left(50) is None


@pytest.mark.parametrize("changes", [{"remaining": None}, {"state": RoomState.PREQUEUE}, {"state": RoomState.SOLD_OUT}])
def test_the_pace_starts_with_the_sale(changes: dict[str, object]) -> None:
    assert observed((0, 0), (10, 100), **changes).per_minute is None


def test_a_store_that_has_lost_data_is_measured_by_itself() -> None:
    pace = observed((0, 0), (10, 100))
    pace.observe(replace(SALE, generation=SALE.generation + 1, clock_ms=11_000, totals={"sold": 5}))
    assert pace.per_minute is None


@pytest.mark.parametrize(
    ("seconds_left", "waiting", "seconds"),
    [(None, 100, None), (60, 100, None), (59, 100, 10), (0, 50_000, 10), (59, 60_542, 60_542 / 5000)],
)
def test_polls_shorten_as_the_stock_nears_its_end(
    seconds_left: float | None, waiting: int, seconds: float | None
) -> None:
    assert near_end_poll_seconds(seconds_left, waiting, 5000) == seconds
