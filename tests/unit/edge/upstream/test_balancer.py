"""The choice of the next address, by load and health."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from waitroom.edge.upstream.balancer import (
    DISCONNECT_NEIGHBOURHOODS,
    DISCONNECT_SECONDS,
    INITIAL_DOWN_SECONDS,
    MAX_DOWN_SECONDS,
    TRIAL_SECONDS,
    Balancer,
)


def send(balancer: Balancer, now: float, *, answered: bool = True) -> int:
    """One request that ends immediately; returns its address."""
    index = balancer.pick(now)
    balancer.begin(index, now)
    balancer.end(index)
    if answered:
        balancer.record_success(index, now)
    else:
        balancer.record_failure(index, now, now)
    return index


def fail(balancer: Balancer, index: int, now: float) -> float:
    """A request that has just begun fails; returns for how many seconds the address is down."""
    return balancer.record_failure(index, now, now)


def test_single_address_is_always_picked() -> None:
    balancer = Balancer(1)
    for now in range(100):
        assert send(balancer, float(now), answered=False) == 0


def test_equal_addresses_take_turns() -> None:
    balancer = Balancer(3)
    assert [send(balancer, 0.0) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_pick_does_not_count_a_request() -> None:
    balancer = Balancer(2)
    assert {balancer.pick(0.0) for _ in range(5)} == {0}


def test_fewest_requests_in_flight_decide() -> None:
    balancer = Balancer(3)
    for index, count in enumerate((2, 1, 3)):
        for _ in range(count):
            balancer.begin(index, 0.0)
    assert balancer.pick(0.0) == 1
    for _ in range(3):
        balancer.end(2)
    assert balancer.pick(0.0) == 2


def test_tried_addresses_are_left_out() -> None:
    balancer = Balancer(3)
    fail(balancer, 1, 0.0)
    assert balancer.pick(0.0, {0}) == 2
    assert balancer.pick(0.0, {0, 2}) == 1


def test_down_time_grows_within_a_bound() -> None:
    balancer = Balancer(2)
    now, times = 1000.0, []
    for _ in range(9):
        seconds = fail(balancer, 0, now)
        times.append(seconds)
        assert {send(balancer, now + seconds - 0.001) for _ in range(4)} == {1}
        now += seconds
    assert times == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert (times[0], times[-1]) == (INITIAL_DOWN_SECONDS, MAX_DOWN_SECONDS)


def test_simultaneous_failures_count_once() -> None:
    balancer = Balancer(2)
    assert balancer.record_failure(0, 5.0, 6.0) == 1
    assert [balancer.record_failure(0, began, 6.5) for began in (4.0, 5.0, 6.0, 6.4)] == [0, 0, 0, 0]
    assert balancer.record_failure(0, 7.0, 7.5) == 2


def test_one_trial_per_second() -> None:
    balancer = Balancer(2)
    seconds = fail(balancer, 0, 0.0)
    balancer.begin(1, 0.0)  # so that the other is the one with less to do
    balancer.begin(0, seconds)
    assert {send(balancer, seconds + TRIAL_SECONDS - 0.001) for _ in range(4)} == {1}
    assert balancer.pick(seconds + TRIAL_SECONDS) in {0, 1}
    balancer.begin(1, 0.0)
    assert balancer.pick(seconds + TRIAL_SECONDS) == 0
    assert balancer.record_success(0, seconds)
    assert balancer.pick(seconds + 0.001) == 0


def test_success_resets_the_down_time() -> None:
    balancer = Balancer(2)
    assert [fail(balancer, 0, now) for now in (0.0, 1.0)] == [1, 2]
    assert balancer.record_success(0, 3.0)
    assert not balancer.record_success(0, 3.0)
    assert fail(balancer, 0, 3.0) == 1


def test_success_of_an_older_request_is_ignored() -> None:
    balancer = Balancer(2)
    balancer.record_failure(0, 9.0, 10.0)
    assert not balancer.record_success(0, 9.5)
    assert balancer.pick(10.5) == 1


def test_all_are_tried_when_all_are_down() -> None:
    balancer = Balancer(3)
    for index in range(3):
        fail(balancer, index, 0.0)
    assert {send(balancer, 0.5, answered=False) for _ in range(3)} == {0, 1, 2}
    assert fail(balancer, 0, 1.0) == 2, "failures while down don't extend the time"


def disconnect(balancer: Balancer, neighbourhood: str, now: float) -> float:
    """The first address closes the connection of a request that has just begun, without a response."""
    return balancer.record_disconnect(0, neighbourhood, now, now)


def test_disconnects_of_one_neighbourhood_mark_nothing_down() -> None:
    balancer = Balancer(2)
    for at in range(1000):
        assert disconnect(balancer, "192.0.2.1", at / 100) == 0
        assert disconnect(balancer, "192.0.2.2", at / 100) == 0
    assert {send(balancer, 10.0) for _ in range(4)} == {0, 1}


def test_disconnects_of_several_neighbourhoods_mark_an_address_down() -> None:
    balancer = Balancer(2)
    downs = [disconnect(balancer, f"192.0.2.{number}", number) for number in range(DISCONNECT_NEIGHBOURHOODS)]
    assert downs == [0] * (DISCONNECT_NEIGHBOURHOODS - 1) + [INITIAL_DOWN_SECONDS]
    assert {send(balancer, DISCONNECT_NEIGHBOURHOODS - 0.5) for _ in range(4)} == {1}
    # A trial needs as many disconnects.
    downs = [disconnect(balancer, f"192.0.2.{number}", 5.0 + number) for number in range(DISCONNECT_NEIGHBOURHOODS)]
    assert downs == [0] * (DISCONNECT_NEIGHBOURHOODS - 1) + [2 * INITIAL_DOWN_SECONDS]


def test_disconnects_far_apart_mark_nothing_down() -> None:
    balancer = Balancer(2)
    pause = DISCONNECT_SECONDS / (DISCONNECT_NEIGHBOURHOODS - 1)
    for number in range(100):
        assert disconnect(balancer, f"192.0.2.{number}", number * pause) == 0


def test_success_between_disconnects_resets_them() -> None:
    balancer = Balancer(2)
    for number in range(100):
        assert disconnect(balancer, f"192.0.2.{number}", float(number)) == 0
        balancer.record_success(0, float(number))


def test_memory_of_disconnects_is_bounded() -> None:
    balancer = Balancer(1)
    for number in range(1000):
        disconnect(balancer, f"192.0.2.{number}", 5.0)
        assert len(balancer._addresses[0].disconnects) < DISCONNECT_NEIGHBOURHOODS


def test_unhealthy_address_is_not_picked() -> None:
    balancer = Balancer(2)
    assert balancer.record_health_check(0, 0.0, healthy=False)
    assert not balancer.record_health_check(0, 1.0, healthy=False)
    assert {send(balancer, 1000.0) for _ in range(4)} == {1}
    assert balancer.record_health_check(0, 1001.0, healthy=True)
    assert not balancer.record_health_check(0, 1002.0, healthy=True)
    assert {send(balancer, 1001.0) for _ in range(4)} == {0, 1}


def test_successful_check_only_brings_the_trial_forward() -> None:
    balancer = Balancer(2)
    for now in (0.0, 1.0, 3.0, 7.0):
        fail(balancer, 0, now)
    balancer.begin(1, 8.0)
    assert balancer.pick(8.0) == 1
    balancer.record_health_check(0, 8.0, healthy=True)
    assert balancer.pick(8.0) == 0
    balancer.begin(0, 8.0)
    balancer.end(0)
    assert balancer.pick(8.5) == 1, "one on trial at a time"
    assert fail(balancer, 0, 8.0) == 16, "checks don't make up for failed requests"


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["answer", "fail", "unhealthy", "healthy"]), st.floats(0, 5))
    ),
)
def test_unhealthy_and_down_addresses_are_not_picked(
    steps: list[tuple[int, str, float]],
) -> None:
    balancer, now = Balancer(4), 0.0
    down, unhealthy = [0.0] * 4, [False] * 4
    for index, what, later in steps:
        now += later
        if what == "answer":
            balancer.record_success(index, now)
            down[index] = 0.0
        elif what == "fail":
            down[index] = max(down[index], now + fail(balancer, index, now))
        else:
            unhealthy[index] = what == "unhealthy"
            down[index] = down[index] if unhealthy[index] else 0.0
            balancer.record_health_check(index, now, healthy=not unhealthy[index])
        taken = balancer.pick(now)
        assert not unhealthy[taken]
        assert now >= down[taken]


def test_equal_addresses_get_equal_shares() -> None:
    balancer = Balancer(3)
    shares = Counter(send(balancer, 0.0) for _ in range(300))
    assert shares == {0: 100, 1: 100, 2: 100}
