"""The autopilot before the demo shop, many times: what real processes show once in test_autopilot_live."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from support.models.discrete_shop import DemoFlight, share_of_the_best
from waitroom.control.autopilot.model import Bounds

CHANCES = 12
CHANGES_AT, ENDS_AT = 55.0, 95.0


def flown(
    seed: int,
    *,
    connections: tuple[int, int],
    query_seconds: float = 0.05,
    rate: float = 360,
    stalls: Sequence[tuple[float, float]] = (),
) -> DemoFlight:
    """A flight before a shop whose connections change midway."""
    bounds = Bounds(60, 5000)
    flight = DemoFlight(random.Random(seed), connections[0], query_seconds, rate, bounds, stalls)
    flight.comes(round(ENDS_AT * 8 * rate / 360), at_once=80, seconds=ENDS_AT)
    flight.run(CHANGES_AT)
    flight.resize(connections[1])
    flight.run(ENDS_AT)
    return flight


def shares(flights: Sequence[DemoFlight], since: float, until: float) -> list[float]:
    found = [share_of_the_best(flight.full, since, until) for flight in flights]
    mean = sum(found) / len(found)
    print(f"{since:.0f} to {until:.0f} s: {mean:.1%}, the worst {min(found):.1%}; {max(failed(flights)):.2%} failed")
    return found


def failed(flights: Sequence[DemoFlight]) -> list[float]:
    return [flight.failures / flight.requests for flight in flights]


@pytest.mark.parametrize(
    ("connections", "query_seconds", "rate"),
    [((6, 4), 0.05, 360.0), ((12, 8), 0.1, 360.0), ((6, 6), 0.05, 360.0)],
    ids=["a third lost", "a third lost of twice as many", "nothing lost"],
)
def test_it_sells_nearly_what_the_best_fixed_rate_sells_before_and_after_a_change(
    connections: tuple[int, int], query_seconds: float, rate: float
) -> None:
    flights = [flown(seed, connections=connections, query_seconds=query_seconds, rate=rate) for seed in range(CHANCES)]
    assert min(shares(flights, 30, CHANGES_AT)) >= 0.9
    assert min(shares(flights, CHANGES_AT + 5, ENDS_AT)) >= 0.9
    assert max(failed(flights)) < 0.01


def test_a_short_failure_of_the_shop_costs_little() -> None:
    flights = [flown(seed, connections=(6, 6), stalls=((25, 26), (40, 42))) for seed in range(CHANCES)]
    found = shares(flights, 20, CHANGES_AT)
    assert sum(found) / len(found) >= 0.9
    assert min(found) >= 0.8
    assert max(failed(flights)) < 0.01


def test_the_capacity_is_found_again_after_it_halves() -> None:
    """Those who were inside can't all be borne, whatever is done; what fails is theirs."""
    flights = [flown(seed, connections=(6, 3)) for seed in range(CHANCES)]
    found = shares(flights, CHANGES_AT + 5, ENDS_AT)
    assert sum(found) / len(found) >= 0.9
    of_them = failed(flights)
    assert sum(of_them) / len(of_them) < 0.01


def test_an_overloaded_shop_recovers() -> None:
    """A pool that is overrun is full as well: what tells is that nothing fails any more, and pages come in time."""
    flights = [flown(seed, connections=(6, 6), rate=1000) for seed in range(CHANCES)]
    found = shares(flights, 60, ENDS_AT)
    assert sum(found) / len(found) >= 0.85
    assert max(failed(flights)) < 0.01
    for flight in flights:
        failures, half_came_within = flight.since(60)
        assert failures == 0
        assert half_came_within is not None
        assert half_came_within < 0.5
