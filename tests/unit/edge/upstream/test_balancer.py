"""Which address is next: by load and by health, with times passed in."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from waitroom.edge.upstream.balancer import (
    FIRST_DOWN_SECONDS,
    HANG_UP_NEIGHBOURHOODS,
    HANG_UP_SECONDS,
    LONGEST_DOWN_SECONDS,
    TRIAL_SECONDS,
    Balance,
)


def send(balance: Balance, now: float, *, answered: bool = True) -> int:
    """One request that is over at once; returns where it went."""
    index = balance.pick(now)
    balance.begin(index, now)
    balance.end(index)
    if answered:
        balance.worked(index, now)
    else:
        balance.failed(index, now, now)
    return index


def fail(balance: Balance, index: int, now: float) -> float:
    """A request that began just now fails; returns for how long the address is down."""
    return balance.failed(index, now, now)


def test_a_single_address_is_taken_whatever_became_of_it() -> None:
    balance = Balance(1)
    for now in range(100):
        assert send(balance, float(now), answered=False) == 0


def test_ties_go_round() -> None:
    balance = Balance(3)
    assert [send(balance, 0.0) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_to_ask_is_not_to_go() -> None:
    balance = Balance(2)
    assert {balance.pick(0.0) for _ in range(5)} == {0}


def test_the_fewest_requests_in_flight_decide() -> None:
    balance = Balance(3)
    for index, count in enumerate((2, 1, 3)):
        for _ in range(count):
            balance.begin(index, 0.0)
    assert balance.pick(0.0) == 1
    for _ in range(3):
        balance.end(2)
    assert balance.pick(0.0) == 2


def test_what_was_tried_is_left_out_though_it_is_well() -> None:
    balance = Balance(3)
    fail(balance, 1, 0.0)
    assert balance.pick(0.0, {0}) == 2
    assert balance.pick(0.0, {0, 2}) == 1


def test_who_fails_is_passed_over_for_a_growing_bounded_time() -> None:
    balance = Balance(2)
    now, times = 1000.0, []
    for _ in range(9):
        seconds = fail(balance, 0, now)
        times.append(seconds)
        assert {send(balance, now + seconds - 0.001) for _ in range(4)} == {1}
        now += seconds
    assert times == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert (times[0], times[-1]) == (FIRST_DOWN_SECONDS, LONGEST_DOWN_SECONDS)


def test_many_that_fail_at_once_count_once() -> None:
    balance = Balance(2)
    assert balance.failed(0, 5.0, 6.0) == 1
    assert [balance.failed(0, began, 6.5) for began in (4.0, 5.0, 6.0, 6.4)] == [0, 0, 0, 0]
    assert balance.failed(0, 7.0, 7.5) == 2


def test_one_request_a_second_tries_an_address_that_was_down() -> None:
    balance = Balance(2)
    seconds = fail(balance, 0, 0.0)
    balance.begin(1, 0.0)  # so that the other is the one with less to do
    balance.begin(0, seconds)
    assert {send(balance, seconds + TRIAL_SECONDS - 0.001) for _ in range(4)} == {1}
    assert balance.pick(seconds + TRIAL_SECONDS) in {0, 1}
    balance.begin(1, 0.0)
    assert balance.pick(seconds + TRIAL_SECONDS) == 0
    assert balance.worked(0, seconds)
    assert balance.pick(seconds + 0.001) == 0


def test_after_an_answer_the_next_failure_is_a_first_one() -> None:
    balance = Balance(2)
    assert [fail(balance, 0, now) for now in (0.0, 1.0)] == [1, 2]
    assert balance.worked(0, 3.0)
    assert not balance.worked(0, 3.0)
    assert fail(balance, 0, 3.0) == 1


def test_an_answer_to_an_older_request_proves_nothing() -> None:
    balance = Balance(2)
    balance.failed(0, 9.0, 10.0)
    assert not balance.worked(0, 9.5)
    assert balance.pick(10.5) == 1


def test_where_all_are_down_all_are_tried() -> None:
    balance = Balance(3)
    for index in range(3):
        fail(balance, index, 0.0)
    assert {send(balance, 0.5, answered=False) for _ in range(3)} == {0, 1, 2}
    assert fail(balance, 0, 1.0) == 2, "to fail while down makes no longer time of it"


def hang_up(balance: Balance, neighbourhood: str, now: float) -> float:
    """A connection to the first address closes without an answer to a request that began just now."""
    return balance.hung_up(0, neighbourhood, now, now)


def test_one_neighbourhood_cannot_take_an_address_out_of_rotation() -> None:
    balance = Balance(2)
    for at in range(1000):
        assert hang_up(balance, "192.0.2.1", at / 100) == 0
        assert hang_up(balance, "192.0.2.2", at / 100) == 0
    assert {send(balance, 10.0) for _ in range(4)} == {0, 1}


def test_an_address_that_hangs_up_on_several_neighbourhoods_is_down() -> None:
    balance = Balance(2)
    downs = [hang_up(balance, f"192.0.2.{number}", number) for number in range(HANG_UP_NEIGHBOURHOODS)]
    assert downs == [0] * (HANG_UP_NEIGHBOURHOODS - 1) + [FIRST_DOWN_SECONDS]
    assert {send(balance, HANG_UP_NEIGHBOURHOODS - 0.5) for _ in range(4)} == {1}
    # On trial it takes as many again.
    downs = [hang_up(balance, f"192.0.2.{number}", 5.0 + number) for number in range(HANG_UP_NEIGHBOURHOODS)]
    assert downs == [0] * (HANG_UP_NEIGHBOURHOODS - 1) + [2 * FIRST_DOWN_SECONDS]


def test_hang_ups_long_after_each_other_say_nothing_about_the_address() -> None:
    balance = Balance(2)
    for number in range(100):
        assert hang_up(balance, f"192.0.2.{number}", number * HANG_UP_SECONDS / (HANG_UP_NEIGHBOURHOODS - 1)) == 0


def test_an_address_that_answers_in_between_is_not_down() -> None:
    balance = Balance(2)
    for number in range(100):
        assert hang_up(balance, f"192.0.2.{number}", float(number)) == 0
        balance.worked(0, float(number))


def test_what_is_remembered_of_hang_ups_is_bounded() -> None:
    balance = Balance(1)
    for number in range(1000):
        hang_up(balance, f"192.0.2.{number}", 5.0)
        assert len(balance._addresses[0].hung_up) < HANG_UP_NEIGHBOURHOODS


def test_an_ill_address_is_passed_over_until_a_check_says_otherwise() -> None:
    balance = Balance(2)
    assert balance.checked(0, 0.0, well=False)
    assert not balance.checked(0, 1.0, well=False)
    assert {send(balance, 1000.0) for _ in range(4)} == {1}
    assert balance.checked(0, 1001.0, well=True)
    assert not balance.checked(0, 1002.0, well=True)
    assert {send(balance, 1001.0) for _ in range(4)} == {0, 1}


def test_a_check_that_goes_well_brings_the_trial_forward_and_no_more() -> None:
    balance = Balance(2)
    for now in (0.0, 1.0, 3.0, 7.0):
        fail(balance, 0, now)
    balance.begin(1, 8.0)
    assert balance.pick(8.0) == 1
    balance.checked(0, 8.0, well=True)
    assert balance.pick(8.0) == 0
    balance.begin(0, 8.0)
    balance.end(0)
    assert balance.pick(8.5) == 1, "one on trial at a time"
    assert fail(balance, 0, 8.0) == 16, "checks don't make up for failed requests"


@given(
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["answer", "fail", "ill", "well"]), st.floats(0, 5))),
)
def test_nothing_goes_to_an_address_that_is_ill_or_down_while_one_never_failed(
    steps: list[tuple[int, str, float]],
) -> None:
    balance, now = Balance(4), 0.0
    down, ill = [0.0] * 4, [False] * 4
    for index, what, later in steps:
        now += later
        if what == "answer":
            balance.worked(index, now)
            down[index] = 0.0
        elif what == "fail":
            down[index] = max(down[index], now + fail(balance, index, now))
        else:
            ill[index] = what == "ill"
            down[index] = down[index] if ill[index] else 0.0
            balance.checked(index, now, well=not ill[index])
        taken = balance.pick(now)
        assert not ill[taken]
        assert now >= down[taken]


def test_equal_addresses_get_equal_shares() -> None:
    balance = Balance(3)
    shares = Counter(send(balance, 0.0) for _ in range(300))
    assert shares == {0: 100, 1: 100, 2: 100}
