"""The autopilot's decisions for given figures; tests/property/test_autopilot_shops.py simulates whole shops."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from waitroom.control.autopilot.controller import decide
from waitroom.control.autopilot.model import Bounds, Decision, Figures, Memory, Move

BOUNDS = Bounds(60, 1200)
HEALTHY = Figures(
    seconds=4,
    running=True,
    rate=600,
    waiting=500,
    inside=100,
    full=False,
    admitted=600,
    left=600,
    requests=4200,
    failures=0,
    given_up=0,
    p50_seconds=0.03,
    p95_seconds=0.08,
    in_flight=3,
)


def decisions_over(
    figures: Figures, seconds: float, memory: Memory | None = None, bounds: Bounds = BOUNDS
) -> list[Decision]:
    """Returns the decisions over a number of seconds in which only the rate changes."""
    return simulate(figures, seconds, memory, bounds)[1]


def simulate(
    figures: Figures, seconds: float, memory: Memory | None = None, bounds: Bounds = BOUNDS
) -> tuple[Memory, list[Decision], float]:
    memory = memory or Memory()
    now = memory.at or 1000.0
    until, decisions = now + seconds, []
    while now < until:
        now += 2
        memory, decision = decide(memory, bounds, figures, now)
        if not (figures.rate == 0 and decision.rate > 0):
            figures = replace(figures, rate=decision.rate, admitted=decision.rate, left=decision.rate)
        else:
            figures = replace(figures, rate=decision.rate)
        decisions.append(decision)
    return memory, decisions, now


def learned(seconds: float = 60) -> tuple[Memory, Figures, float]:
    """Returns the memory of a healthy shop; nobody waited, so the rate is unchanged."""
    memory, decisions, now = simulate(replace(HEALTHY, waiting=0), seconds)
    return memory, replace(HEALTHY, rate=decisions[-1].rate), now


def with_backlog(figures: Figures, latency: float) -> Figures:
    """Returns a shop with this median latency, and requests in flight by Little's law."""
    return replace(figures, p50_seconds=latency, in_flight=round(figures.requests / 60 * latency))


SILENT = replace(HEALTHY, requests=0, p50_seconds=None, p95_seconds=None)


def test_the_rate_of_a_shop_without_visible_responses_is_not_lowered() -> None:
    """Another proxy or another machine admits its visitors."""
    assert {one.move for one in decisions_over(replace(SILENT, in_flight=0), 120)} <= {Move.KEEP, Move.RAISE}


def test_a_shop_that_never_responds_gets_no_visitors() -> None:
    assert Move.HOLD in {one.move for one in decisions_over(SILENT, 30)}


def test_the_rate_of_a_healthy_shop_rises_to_the_ceiling_and_not_above() -> None:
    rates = [decision.rate for decision in decisions_over(HEALTHY, 120)]
    assert rates[-1] == 1200
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"waiting": 0}, "nobody is waiting"),
        ({"full": True}, "the room is full"),
        ({"requests": 60.0}, "too few requests"),
    ],
)
def test_the_rate_rises_only_while_it_is_the_limit(change: dict[str, float], words: str) -> None:
    decisions = decisions_over(replace(HEALTHY, **change), 60)  # type: ignore[arg-type]
    assert {decision.rate for decision in decisions} == {600}
    assert words in decisions[-1].summary


def test_the_rate_does_not_rise_while_fewer_enter_than_it_allows() -> None:
    memory, decision = Memory(), None
    for at in range(1000, 1060, 2):
        memory, decision = decide(memory, BOUNDS, replace(HEALTHY, admitted=300), at)
    assert decision is not None
    assert decision.rate == 600
    assert "only 300 per minute enter" in decision.summary


def test_the_rate_of_a_slow_shop_is_lowered_before_requests_fail() -> None:
    memory, figures, now = learned()
    _, decision = decide(memory, BOUNDS, replace(figures, p50_seconds=0.3, p95_seconds=0.9), now + 2)
    assert decision.move is Move.BACK_OFF
    assert 60 <= decision.rate < 600
    assert "900 ms" in decision.summary or "300 ms" in decision.summary


def test_a_longer_backlog_lowers_the_rate_more() -> None:
    memory, figures, now = learned()
    rates = [decide(memory, BOUNDS, with_backlog(figures, latency), now + 2)[1].rate for latency in (0.2, 0.3, 0.4)]
    assert rates[0] > rates[1] > rates[2]


def test_the_rate_recovers_as_soon_as_the_backlog_is_gone() -> None:
    memory, figures, now = learned()
    memory, decision = decide(memory, BOUNDS, with_backlog(figures, 0.5), now + 2)
    assert decision.move is Move.BACK_OFF
    # Latency is still that of the window before.
    relieved = replace(with_backlog(figures, 0.5), rate=decision.rate, in_flight=2)
    for at in (4, 6):
        memory, decision = decide(memory, BOUNDS, relieved, now + at)
        assert decision.rate == pytest.approx(0.8 * 600, rel=0.05)
        relieved = replace(relieved, rate=decision.rate)
    healthy = replace(figures, rate=decision.rate)
    for at in range(8, 20, 2):
        memory, decision = decide(memory, BOUNDS, healthy, now + at)
        healthy = replace(healthy, rate=decision.rate, admitted=decision.rate)
    assert decision.rate >= 600
    assert memory.knee == 0, "it was slow too briefly to measure the capacity"


def test_the_summary_explains_a_raise_despite_high_latency() -> None:
    memory, figures, now = learned()
    memory, decision = decide(memory, BOUNDS, with_backlog(figures, 0.5), now + 2)
    less = replace(with_backlog(figures, 0.5), rate=decision.rate, in_flight=12)
    memory, decision = decide(memory, BOUNDS, less, now + 4)
    assert decision.move is Move.RAISE
    assert "backlog is shrinking" in decision.summary


def test_slow_pages_among_many_fast_ones_count_although_few_requests_are_in_flight() -> None:
    memory, figures, now = learned()
    slow = replace(figures, p95_seconds=2.5, in_flight=3)
    _, decisions, _ = simulate(slow, 40, replace(memory, at=now))
    assert decisions[-1].rate < 0.5 * 600


def test_the_baseline_is_not_the_latency_of_the_fastest_page() -> None:
    first = replace(HEALTHY, p50_seconds=0.01, p95_seconds=0.02)
    memory, decision = decide(Memory(), BOUNDS, first, 1000)
    for at in range(1002, 1120, 2):
        memory, decision = decide(memory, BOUNDS, replace(HEALTHY, rate=decision.rate, admitted=decision.rate), at)
    assert memory.best_p50 == pytest.approx(0.03, rel=0.2)


def test_one_fast_window_with_few_requests_has_little_weight() -> None:
    memory, figures, now = learned()
    memory, _ = decide(memory, BOUNDS, replace(figures, requests=600, p50_seconds=0.01, waiting=0), now + 2)
    assert memory.best_p50 > 0.02


def test_the_rate_is_never_raised_while_requests_fail() -> None:
    memory, figures, now = learned()
    memory, decision = decide(memory, BOUNDS, replace(figures, failures=400), now + 2)
    low = decision.rate
    memory, decision = decide(memory, BOUNDS, replace(figures, failures=50, rate=low), now + 4)
    assert decision.rate <= low


def test_the_configured_slow_threshold_applies() -> None:
    memory, figures, now = learned()
    strict = replace(BOUNDS, latency_seconds=0.1)
    slow = replace(figures, p95_seconds=0.15)
    assert decide(memory, strict, slow, now + 2)[1].move is Move.BACK_OFF
    assert decide(memory, BOUNDS, replace(slow, waiting=0), now + 2)[1].move is Move.KEEP


def test_visitors_who_give_up_lower_the_rate() -> None:
    memory, figures, now = learned()
    memory, decision = decide(memory, BOUNDS, replace(figures, given_up=1500), now + 2)
    assert decision.move is Move.BACK_OFF
    assert "gave up" in decision.summary


def test_visitors_who_keep_giving_up_lower_the_rate_further() -> None:
    memory, figures, now = learned()
    _, decisions, _ = simulate(replace(figures, given_up=1500), 40, replace(memory, at=now))
    assert decisions[-1].rate < 0.5 * 600


def test_a_few_failures_lower_the_rate_and_limit_it_for_a_while() -> None:
    memory, figures, now = learned()
    memory, decision = decide(memory, BOUNDS, replace(figures, failures=80), now + 2)
    assert decision.move is Move.BACK_OFF
    assert decision.rate == pytest.approx(0.65 * 600, rel=0.05)
    _, decisions, _ = simulate(replace(figures, rate=decision.rate), 20, memory)
    assert max(decision.rate for decision in decisions) < 0.95 * 600
    assert "because requests failed above it" in decisions[-1].summary


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"failures": 1500.0}, "36% of the shop's responses failed"),
        ({"requests": 0.0, "p50_seconds": None, "p95_seconds": None, "in_flight": 40}, "isn't responding"),
    ],
)
def test_a_failing_shop_stops_admission_immediately(change: dict[str, float | None], words: str) -> None:
    memory, figures, now = learned()
    _, decision = decide(memory, BOUNDS, replace(figures, **change), now + 2)  # type: ignore[arg-type]
    assert (decision.move, decision.rate) == (Move.HOLD, 0)
    assert words in decision.summary


def test_a_hold_lasts_while_the_shop_fails_and_ends_gradually() -> None:
    memory, figures, now = learned()
    failing = replace(figures, failures=3000)
    memory, _decision = decide(memory, BOUNDS, failing, now + 2)
    memory, decisions, now = simulate(replace(failing, rate=0), 60, memory)
    assert {decision.rate for decision in decisions} == {0}
    memory, decisions, now = simulate(replace(figures, rate=0), 20, memory)
    resumed = [decision for decision in decisions if decision.rate > 0]
    assert decisions[0].rate == 0, "it must be healthy for a while"
    assert resumed[0].move is Move.RESUME
    assert resumed[0].rate <= 0.3 * 600
    assert "admission resumes" in resumed[0].summary


def test_a_hold_ends_when_no_visitor_is_left_in_the_shop() -> None:
    memory, figures, now = learned()
    memory, _ = decide(memory, BOUNDS, replace(figures, failures=3000), now + 2)
    quiet = replace(figures, rate=0, requests=0, p50_seconds=None, p95_seconds=None, in_flight=0)
    _, decisions, _ = simulate(quiet, 20, memory)
    assert decisions[-1].rate >= BOUNDS.floor


def test_a_second_hold_soon_after_the_first_lasts_longer() -> None:
    memory, figures, now = learned()
    lengths = []
    for _ in range(2):
        memory, _ = decide(memory, BOUNDS, replace(figures, rate=memory.rate, failures=3000), now + 2)
        lengths.append(memory.hold_seconds)
        memory, _, now = simulate(replace(figures, rate=0), 30, memory)
        assert memory.held_at is None
    assert lengths[1] > lengths[0]


def test_an_operators_pause_is_not_changed() -> None:
    decisions = decisions_over(replace(HEALTHY, running=False, failures=4000), 20)
    assert {(decision.move, decision.rate) for decision in decisions} == {(Move.KEEP, 600)}
    assert "operator" in decisions[-1].summary


def test_it_continues_from_a_rate_set_by_somebody_else() -> None:
    memory, _, now = learned()
    memory, decision = decide(memory, BOUNDS, replace(HEALTHY, rate=200, waiting=0), now + 2)
    assert decision.rate == 200
    assert "set by somebody else" in decision.summary


@pytest.mark.parametrize(("rate", "within"), [(5, 60), (5000, 1200), (0, 60)])
def test_a_rate_out_of_bounds_is_corrected(rate: float, within: float) -> None:
    decisions = decisions_over(replace(HEALTHY, rate=rate, waiting=0), 10)
    assert decisions[-1].rate == within


def test_the_baseline_adapts_to_slowness_that_load_does_not_cause() -> None:
    memory, figures, _ = learned()
    slow = replace(figures, p50_seconds=0.2, p95_seconds=0.5)
    _, decisions, _ = simulate(slow, 900, memory)
    assert decisions[-1].rate > BOUNDS.floor


def test_a_memory_survives_serialization() -> None:
    memory, figures, now = learned()
    memory, _ = decide(memory, BOUNDS, replace(figures, failures=3000), now + 2)
    assert Memory.load(json.loads(json.dumps(memory.dump()))) == memory
    assert Memory.load({"of_a_later_version": 1}) == Memory()
