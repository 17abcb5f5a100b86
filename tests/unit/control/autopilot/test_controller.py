"""What the autopilot decides, figure by figure. Whole shops are in tests/property/test_autopilot_shops.py."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from waitroom.control.autopilot.controller import decide
from waitroom.control.autopilot.model import Bounds, Decision, Figures, Memory, Move

BOUNDS = Bounds(60, 1200)
WELL = Figures(
    seconds=4,
    running=True,
    rate=600,
    waiting=500,
    inside=100,
    max_active=1000,
    admitted=600,
    left=600,
    requests=4200,
    failures=0,
    given_up=0,
    p50_seconds=0.03,
    p95_seconds=0.08,
    in_flight=3,
)


def flown(figures: Figures, seconds: float, memory: Memory | None = None, bounds: Bounds = BOUNDS) -> list[Decision]:
    """The decisions in so many seconds in which nothing changes but the rate."""
    return fly(figures, seconds, memory, bounds)[1]


def fly(
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


def learnt(seconds: float = 60) -> tuple[Memory, Figures, float]:
    """A memory of a shop that was well at its rate, with nobody waiting so that the rate stayed."""
    memory, decisions, now = fly(replace(WELL, waiting=0), seconds)
    return memory, replace(WELL, rate=decisions[-1].rate), now


def crowded(figures: Figures, latency: float) -> Figures:
    """A shop in which half the answers take so many seconds; so many are in it, by Little's law."""
    return replace(figures, p50_seconds=latency, in_flight=round(figures.requests / 60 * latency))


SILENT = replace(WELL, requests=0, p50_seconds=None, p95_seconds=None)


def test_a_shop_whose_answers_nobody_here_sees_is_left_alone() -> None:
    """Its visitors are let in by another proxy that asks, or by another machine."""
    assert {one.move for one in flown(replace(SILENT, in_flight=0), 120)} <= {Move.KEEP, Move.RAISE}


def test_a_shop_that_never_answered_gets_nobody() -> None:
    assert Move.HOLD in {one.move for one in flown(SILENT, 30)}


def test_a_well_shop_gets_more_up_to_the_ceiling_and_never_more() -> None:
    rates = [decision.rate for decision in flown(WELL, 120)]
    assert rates[-1] == 1200
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"waiting": 0}, "nobody waits"),
        ({"inside": 1000}, "max_active"),
        ({"requests": 60.0}, "too little is seen"),
    ],
)
def test_the_rate_rises_only_where_it_is_what_limits(change: dict[str, float], words: str) -> None:
    decisions = flown(replace(WELL, **change), 60)  # type: ignore[arg-type]
    assert {decision.rate for decision in decisions} == {600}
    assert words in decisions[-1].said


def test_the_rate_does_not_rise_while_fewer_come_in_than_it_allows() -> None:
    memory, decision = Memory(), None
    for at in range(1000, 1060, 2):
        memory, decision = decide(memory, BOUNDS, replace(WELL, admitted=300), at)
    assert decision is not None
    assert decision.rate == 600
    assert "only 300 a minute come in" in decision.said


def test_a_slow_shop_gets_less_before_anything_fails() -> None:
    memory, figures, now = learnt()
    _, decision = decide(memory, BOUNDS, replace(figures, p50_seconds=0.3, p95_seconds=0.9), now + 2)
    assert decision.move is Move.BACK_OFF
    assert 60 <= decision.rate < 600
    assert "900 ms" in decision.said or "300 ms" in decision.said


def test_more_is_taken_away_the_more_wait_in_the_shop() -> None:
    memory, figures, now = learnt()
    rates = [decide(memory, BOUNDS, crowded(figures, latency), now + 2)[1].rate for latency in (0.2, 0.3, 0.4)]
    assert rates[0] > rates[1] > rates[2]


def test_the_rate_is_back_as_soon_as_nobody_queues_in_the_shop_any_more() -> None:
    memory, figures, now = learnt()
    memory, decision = decide(memory, BOUNDS, crowded(figures, 0.5), now + 2)
    assert decision.move is Move.BACK_OFF
    # Latency is still that of the window before.
    relieved = replace(crowded(figures, 0.5), rate=decision.rate, in_flight=2)
    for at in (4, 6):
        memory, decision = decide(memory, BOUNDS, relieved, now + at)
        assert decision.rate == pytest.approx(0.8 * 600, rel=0.05)
        relieved = replace(relieved, rate=decision.rate)
    well = replace(figures, rate=decision.rate)
    for at in range(8, 20, 2):
        memory, decision = decide(memory, BOUNDS, well, now + at)
        well = replace(well, rate=decision.rate, admitted=decision.rate)
    assert decision.rate >= 600
    assert memory.knee == 0, "it was slow too shortly to tell what the shop bears"


def test_it_says_so_where_it_lets_in_more_although_answers_still_take_long() -> None:
    memory, figures, now = learnt()
    memory, decision = decide(memory, BOUNDS, crowded(figures, 0.5), now + 2)
    less = replace(crowded(figures, 0.5), rate=decision.rate, in_flight=12)
    memory, decision = decide(memory, BOUNDS, less, now + 4)
    assert decision.move is Move.RAISE
    assert "the queue in the shop goes down" in decision.said


def test_slow_pages_among_many_quick_ones_count_although_few_requests_are_there() -> None:
    memory, figures, now = learnt()
    slow = replace(figures, p95_seconds=2.5, in_flight=3)
    _, decisions, _ = fly(slow, 40, replace(memory, at=now))
    assert decisions[-1].rate < 0.5 * 600


def test_the_latency_of_the_well_shop_is_not_that_of_its_quickest_page() -> None:
    first = replace(WELL, p50_seconds=0.01, p95_seconds=0.02)
    memory, decision = decide(Memory(), BOUNDS, first, 1000)
    for at in range(1002, 1120, 2):
        memory, decision = decide(memory, BOUNDS, replace(WELL, rate=decision.rate, admitted=decision.rate), at)
    assert memory.best_p50 == pytest.approx(0.03, rel=0.2)


def test_one_quick_window_of_few_requests_says_little() -> None:
    memory, figures, now = learnt()
    memory, _ = decide(memory, BOUNDS, replace(figures, requests=600, p50_seconds=0.01, waiting=0), now + 2)
    assert memory.best_p50 > 0.02


def test_it_never_raises_while_requests_fail() -> None:
    memory, figures, now = learnt()
    memory, decision = decide(memory, BOUNDS, replace(figures, failures=400), now + 2)
    low = decision.rate
    memory, decision = decide(memory, BOUNDS, replace(figures, failures=50, rate=low), now + 4)
    assert decision.rate <= low


def test_what_the_operator_calls_slow_counts() -> None:
    memory, figures, now = learnt()
    strict = replace(BOUNDS, latency_seconds=0.1)
    slow = replace(figures, p95_seconds=0.15)
    assert decide(memory, strict, slow, now + 2)[1].move is Move.BACK_OFF
    assert decide(memory, BOUNDS, replace(slow, waiting=0), now + 2)[1].move is Move.KEEP


def test_visitors_who_give_up_count() -> None:
    memory, figures, now = learnt()
    memory, decision = decide(memory, BOUNDS, replace(figures, given_up=1500), now + 2)
    assert decision.move is Move.BACK_OFF
    assert "gave up" in decision.said


def test_visitors_who_go_on_giving_up_lower_it_further() -> None:
    memory, figures, now = learnt()
    _, decisions, _ = fly(replace(figures, given_up=1500), 40, replace(memory, at=now))
    assert decisions[-1].rate < 0.5 * 600


def test_a_few_failures_lower_the_rate_and_keep_it_below_for_a_while() -> None:
    memory, figures, now = learnt()
    memory, decision = decide(memory, BOUNDS, replace(figures, failures=80), now + 2)
    assert decision.move is Move.BACK_OFF
    assert decision.rate == pytest.approx(0.65 * 600, rel=0.05)
    _, decisions, _ = fly(replace(figures, rate=decision.rate), 20, memory)
    assert max(decision.rate for decision in decisions) < 0.95 * 600
    assert "since above it requests failed" in decisions[-1].said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"failures": 1500.0}, "36% of the shop's answers failed"),
        ({"requests": 0.0, "p50_seconds": None, "p95_seconds": None, "in_flight": 40}, "answers nothing"),
    ],
)
def test_a_failing_shop_gets_nobody_at_once(change: dict[str, float | None], words: str) -> None:
    memory, figures, now = learnt()
    _, decision = decide(memory, BOUNDS, replace(figures, **change), now + 2)  # type: ignore[arg-type]
    assert (decision.move, decision.rate) == (Move.HOLD, 0)
    assert words in decision.said


def test_a_hold_lasts_while_the_shop_fails_and_ends_slowly() -> None:
    memory, figures, now = learnt()
    failing = replace(figures, failures=3000)
    memory, _decision = decide(memory, BOUNDS, failing, now + 2)
    memory, decisions, now = fly(replace(failing, rate=0), 60, memory)
    assert {decision.rate for decision in decisions} == {0}
    memory, decisions, now = fly(replace(figures, rate=0), 20, memory)
    resumed = [decision for decision in decisions if decision.rate > 0]
    assert decisions[0].rate == 0, "it must be well for a while"
    assert resumed[0].move is Move.RESUME
    assert resumed[0].rate <= 0.3 * 600
    assert "let in again" in resumed[0].said


def test_it_ends_where_nobody_is_left_inside_to_ask_the_shop() -> None:
    memory, figures, now = learnt()
    memory, _ = decide(memory, BOUNDS, replace(figures, failures=3000), now + 2)
    quiet = replace(figures, rate=0, requests=0, p50_seconds=None, p95_seconds=None, in_flight=0)
    _, decisions, _ = fly(quiet, 20, memory)
    assert decisions[-1].rate >= BOUNDS.floor


def test_a_second_hold_soon_after_lasts_longer() -> None:
    memory, figures, now = learnt()
    lengths = []
    for _ in range(2):
        memory, _ = decide(memory, BOUNDS, replace(figures, rate=memory.rate, failures=3000), now + 2)
        lengths.append(memory.hold_seconds)
        memory, _, now = fly(replace(figures, rate=0), 30, memory)
        assert memory.held_at is None
    assert lengths[1] > lengths[0]


def test_an_operators_pause_is_left_alone() -> None:
    decisions = flown(replace(WELL, running=False, failures=4000), 20)
    assert {(decision.move, decision.rate) for decision in decisions} == {(Move.KEEP, 600)}
    assert "operator" in decisions[-1].said


def test_it_goes_on_from_a_rate_that_somebody_else_set() -> None:
    memory, _, now = learnt()
    memory, decision = decide(memory, BOUNDS, replace(WELL, rate=200, waiting=0), now + 2)
    assert decision.rate == 200
    assert "somebody else set" in decision.said


@pytest.mark.parametrize(("rate", "within"), [(5, 60), (5000, 1200), (0, 60)])
def test_a_rate_out_of_bounds_is_brought_back(rate: float, within: float) -> None:
    decisions = flown(replace(WELL, rate=rate, waiting=0), 10)
    assert decisions[-1].rate == within


def test_what_is_slow_for_no_load_of_ours_is_got_used_to() -> None:
    memory, figures, _ = learnt()
    slow = replace(figures, p50_seconds=0.2, p95_seconds=0.5)
    _, decisions, _ = fly(slow, 900, memory)
    assert decisions[-1].rate > BOUNDS.floor


def test_a_memory_survives_its_way_through_the_store() -> None:
    memory, figures, now = learnt()
    memory, _ = decide(memory, BOUNDS, replace(figures, failures=3000), now + 2)
    assert Memory.load(json.loads(json.dumps(memory.dump()))) == memory
    assert Memory.load({"of_a_later_version": 1}) == Memory()
