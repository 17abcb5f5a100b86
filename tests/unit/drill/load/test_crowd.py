import random

import pytest

from waitroom.drill.load.crowd import Plan


def test_arrivals_are_a_burst_and_a_trickle_and_reproducible():
    plan = Plan(200, burst_share=0.6, burst_seconds=2.0, trickle_seconds=30.0)
    times = plan.arrivals(random.Random(1))
    assert times == plan.arrivals(random.Random(1))
    assert times != plan.arrivals(random.Random(2))
    assert len(times) == 200
    assert times == sorted(times)
    assert sum(time <= 2.0 for time in times) == 120
    assert 15 < times[-1] - 2.0 < 60


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_none_may_arrive_in_the_burst(share):
    times = Plan(10, burst_share=share).arrivals(random.Random(1))
    assert len(times) == 10
    assert sum(time <= 2.0 for time in times) == 10 * share


def test_profiles_are_drawn_in_the_shares_of_the_plan():
    rng = random.Random(3)
    plan = Plan(1, impatient_share=0.25, patience_seconds=(5.0, 6.0), returning_share=0.5, away_seconds=(1.0, 2.0))
    profiles = [plan.profile(rng) for _ in range(2000)]
    impatient = [one.patience_seconds for one in profiles if one.patience_seconds is not None]
    assert 400 < len(impatient) < 600
    assert all(5.0 <= seconds <= 6.0 for seconds in impatient)
    assert 900 < sum(one.closes_tab_after is not None for one in profiles) < 1100
    assert all(1.0 <= one.away_seconds <= 2.0 for one in profiles)
