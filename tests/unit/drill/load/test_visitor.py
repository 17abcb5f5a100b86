import random

import pytest

from waitroom.drill.load.visitor import (
    LEAVES_AFTER_FAILURES,
    Failed,
    Leave,
    Navigate,
    Outcome,
    Page,
    PageSeen,
    Poll,
    StatusSeen,
    Submit,
    Visitor,
    VisitorProfile,
)


@pytest.fixture
def rng():
    return random.Random(7)


def arrived(**profile):
    visitor = Visitor(VisitorProfile(**profile))
    assert visitor.arrive(0.0) == Navigate("/")
    return visitor


def test_a_visitor_admitted_immediately_buys_step_by_step(rng):
    visitor = arrived(think_seconds=(1.0, 1.0))
    assert visitor.next(PageSeen(Page.PRODUCT), 1.0, rng) == Submit("/basket", after=1.0)
    assert visitor.next(PageSeen(Page.BASKET), 2.0, rng) == Navigate("/checkout", 1.0)
    order = visitor.next(PageSeen(Page.CHECKOUT), 3.0, rng)
    assert isinstance(order, Submit)
    assert order.path == "/checkout"
    assert {name for name, _ in order.form} == {"buyer", "email"}
    assert visitor.next(PageSeen(Page.ORDER), 4.0, rng) == Leave(Outcome.BOUGHT)
    assert visitor.admitted_at == 1.0
    assert visitor.wait_seconds is None


def test_a_waiting_visitor_polls_and_navigates_when_called(rng):
    visitor = arrived()
    assert visitor.next(PageSeen(Page.WAITING, poll_after=3.0), 1.0, rng) == Poll(3.0)
    assert visitor.next(StatusSeen("waiting", 11.0), 4.0, rng) == Poll(11.0)
    assert visitor.next(StatusSeen("paused", 5.0), 15.0, rng) == Poll(5.0)
    assert visitor.next(StatusSeen("called", 1.0), 20.0, rng) == Navigate("/", 0.0)
    visitor.next(PageSeen(Page.PRODUCT), 21.0, rng)
    assert visitor.wait_seconds == 20.0
    assert visitor.called_at == 20.0


@pytest.mark.parametrize("state", ["called", "admitted", "unknown"])
def test_the_page_is_reloaded_at_most_every_five_seconds(rng, state):
    visitor = arrived()
    visitor.next(PageSeen(Page.WAITING), 1.0, rng)
    assert visitor.next(StatusSeen(state, 1.0), 2.0, rng) == Navigate("/", 0.0)
    visitor.next(PageSeen(Page.WAITING), 3.0, rng)
    assert visitor.next(StatusSeen(state, 1.0), 4.0, rng) == Navigate("/", 3.0)
    visitor.next(PageSeen(Page.WAITING), 7.0, rng)
    assert visitor.next(StatusSeen(state, 1.0), 8.0, rng) == Navigate("/", 4.0)
    visitor.next(PageSeen(Page.WAITING), 12.0, rng)
    visitor.next(StatusSeen("waiting", 1.0), 12.5, rng)
    assert visitor.next(StatusSeen(state, 1.0), 13.0, rng) == Navigate("/", 0.0)


@pytest.mark.parametrize(
    ("state", "outcome"), [("sold_out", Outcome.SOLD_OUT), ("closed", Outcome.CLOSED)], ids=["sold out", "closed"]
)
def test_a_visitor_leaves_a_closed_or_sold_out_room(rng, state, outcome):
    visitor = arrived()
    visitor.next(PageSeen(Page.WAITING), 1.0, rng)
    assert visitor.next(StatusSeen(state, 5.0), 2.0, rng) == Leave(outcome)


def test_a_visitor_leaves_a_sold_out_shop(rng):
    visitor = arrived()
    assert visitor.next(PageSeen(Page.SOLD_OUT), 1.0, rng) == Leave(Outcome.SOLD_OUT)
    assert visitor.admitted_at == 1.0


def test_an_impatient_visitor_leaves_when_the_patience_ends_and_not_at_the_next_poll(rng):
    visitor = arrived(patience_seconds=10.0, sends_leave=True)
    assert visitor.next(PageSeen(Page.WAITING, poll_after=4.0), 1.0, rng) == Poll(4.0)
    assert visitor.next(StatusSeen("waiting", 30.0), 5.0, rng) == Leave(Outcome.GAVE_UP, 6.0, sends_leave=True)


def test_a_closed_tab_returns_once_with_a_navigation(rng):
    visitor = arrived(closes_tab_after=5.0, away_seconds=4.0)
    assert visitor.next(PageSeen(Page.WAITING, poll_after=2.0), 1.0, rng) == Poll(2.0)
    assert visitor.next(StatusSeen("waiting", 10.0), 3.0, rng) == Navigate("/", 7.0)
    assert visitor.next(PageSeen(Page.WAITING, poll_after=10.0), 10.0, rng) == Poll(10.0)
    assert visitor.joined_at == 1.0


def test_a_waiting_visitor_never_gives_up_on_failures_and_backs_off(rng):
    visitor = arrived()
    visitor.next(PageSeen(Page.WAITING), 1.0, rng)
    moves = [visitor.next(Failed(), 2.0, rng) for _ in range(9)]
    assert all(isinstance(move, Poll) for move in moves)
    pauses = [move.after for move in moves]
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[1]
    assert pauses[-1] <= 30.0
    assert visitor.errors == 9


def test_a_visitor_in_the_shop_retries_a_step_and_finally_leaves(rng):
    visitor = arrived(retry_seconds=(2.0, 2.0))
    step = visitor.next(PageSeen(Page.CHECKOUT), 1.0, rng)
    for _ in range(LEAVES_AFTER_FAILURES - 1):
        assert visitor.next(Failed(), 2.0, rng) == Submit("/checkout", step.form, 2.0)
    assert visitor.next(Failed(), 3.0, rng) == Leave(Outcome.FAILED)


def test_a_success_resets_the_failure_count(rng):
    visitor = arrived()
    for _ in range(LEAVES_AFTER_FAILURES - 1):
        visitor.next(Failed(), 1.0, rng)
    visitor.next(PageSeen(Page.PRODUCT), 2.0, rng)
    assert isinstance(visitor.next(Failed(), 3.0, rng), Submit)


def test_an_empty_basket_leads_back_to_the_product(rng):
    visitor = arrived(think_seconds=(0.5, 0.5))
    assert visitor.next(PageSeen(Page.EMPTY_BASKET), 1.0, rng) == Navigate("/", 0.5)


def test_the_end_of_the_drill_sets_the_outcomes(rng):
    absent, waiting, inside, gone = Visitor(VisitorProfile()), arrived(), arrived(), arrived()
    waiting.next(PageSeen(Page.WAITING), 1.0, rng)
    inside.next(PageSeen(Page.PRODUCT), 1.0, rng)
    gone.outcome = Outcome.BOUGHT
    for visitor in (absent, waiting, inside, gone):
        visitor.end()
    assert [visitor.outcome for visitor in (absent, waiting, inside, gone)] == [
        Outcome.NOT_ARRIVED,
        Outcome.STILL_WAITING,
        Outcome.STILL_SHOPPING,
        Outcome.BOUGHT,
    ]
