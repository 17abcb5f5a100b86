"""Token buckets, in all and by neighbourhood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitroom.budgets import MOST_NEIGHBOURHOODS, NeighbourhoodBudget, TokenBucket, neighbourhood


@given(
    rate=st.floats(0.01, 1000),
    burst=st.floats(1, 100),
    steps=st.lists(st.floats(0, 10), max_size=200),
)
def test_no_window_gets_more_than_the_rate_and_one_burst(rate: float, burst: float, steps: list[float]) -> None:
    bucket, now, taken = TokenBucket(rate, burst), 0.0, []
    for step in steps:
        now += step
        if bucket.take(now):
            taken.append(now)
    for i, first in enumerate(taken):
        for count, last in enumerate(taken[i:], 1):
            assert count <= burst + (last - first) * rate + 1e-6


def test_a_token_comes_back_after_the_time_that_is_told() -> None:
    bucket = TokenBucket(4.0)
    assert bucket.take(10.0)
    assert not bucket.take(10.0)
    assert bucket.wait_seconds(10.0) == pytest.approx(0.25)
    assert bucket.wait_seconds(10.15) == pytest.approx(0.1)
    assert not bucket.take(10.2)
    assert bucket.take(10.25)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.0)


def test_another_rate_holds_from_now_on() -> None:
    bucket = TokenBucket(1.0, 10.0)
    for _ in range(10):
        assert bucket.take(0.0)
    bucket.change_rate(100.0, 2.0, 1.0)
    assert bucket.left(1.0) == pytest.approx(1.0)
    assert bucket.left(5.0) == 2.0


def test_neighbourhoods_do_not_share_a_bucket() -> None:
    budget = NeighbourhoodBudget(1.0)
    assert budget.take("192.0.2.1", 0.0)
    assert not budget.take("192.0.2.1", 0.0)
    assert budget.take("192.0.2.2", 0.0)
    assert budget.wait_seconds("192.0.2.1", 0.0) == pytest.approx(1.0)


def test_as_many_neighbourhoods_as_one_likes_take_bounded_memory() -> None:
    budget = NeighbourhoodBudget(0.001)
    for number in range(2 * MOST_NEIGHBOURHOODS):
        budget.take(str(number), 0.0)
    assert len(budget) <= MOST_NEIGHBOURHOODS


def test_full_buckets_are_forgotten_as_others_come() -> None:
    budget = NeighbourhoodBudget(1.0)
    for number in range(100):
        budget.take(str(number), 0.0)
    for number in range(200, 250):
        budget.take(str(number), 10.0)
    assert len(budget) == 50, "two for each that comes"
    for number in range(250, 300):
        budget.take(str(number), 10.0)
    assert len(budget) == 100


def test_the_least_recently_used_goes_first() -> None:
    budget = NeighbourhoodBudget(0.001, 2.0)
    for number in range(MOST_NEIGHBOURHOODS):
        budget.take(str(number), 0.0)
    budget.take("0", 0.0)
    assert not budget.take("0", 0.0)
    budget.take("another", 0.0)
    assert not budget.take("0", 0.0)
    assert budget.take("1", 0.0)
    assert budget.take("1", 0.0)  # forgotten, and full again


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("a:b", "a:b"),
    ],
)
def test_neighbourhoods(address: str, expected: str) -> None:
    assert neighbourhood(address) == expected
