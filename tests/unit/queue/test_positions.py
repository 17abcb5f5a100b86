"""Positions and wait estimates from memory: within range, and as precise as promised."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitroom.queue.positions import (
    LONGEST_POLL_SECONDS,
    Forecast,
    RankIndex,
    Throughput,
    poll_after,
)

EXACT = 64


def expected_wait(
    position: int, rate_per_minute: float, throughput: Throughput, free_slots: int
) -> tuple[int, int] | None:
    return Forecast(rate_per_minute, throughput, free_slots).wait(position)


# A slot becomes free every 3 s.
FULL_TURNOVER = Throughput(released=1000, per_slot_ms=1 / 300_000, slots=100, turns=300, present=300)


def rank_index_of(queue: list[int], next_place: int, points: int) -> RankIndex:
    """As built by ``scripts/view.lua``: exact at the head, then at growing distances, and the next newcomer's pair."""
    ranks = list(range(min(EXACT, len(queue))))
    for i in range(1, points + 1):
        rank = EXACT - 1 - int(-((len(queue) - EXACT) * (i / points) ** 2) // 1)
        if ranks and ranks[-1] < rank < len(queue):
            ranks.append(rank)
    body = b" ".join(b"%d %d" % (rank, queue[rank]) for rank in ranks)
    return RankIndex.parse("1", body + b" %d %d" % (len(queue), next_place))


QUEUES = st.lists(st.integers(1, 5_000), min_size=1, max_size=600, unique=True).map(sorted)


@given(QUEUES, st.integers(1, 40))
def test_a_position_is_exact_at_the_head_and_near_behind(queue: list[int], points: int) -> None:
    index = rank_index_of(queue, queue[-1] + 1, points)
    for rank, place in enumerate(queue):
        position = index.position(place)
        if rank < EXACT or rank in index.ranks:
            assert position == rank + 1
            continue
        after = bisect_left(index.ranks, rank)
        assert index.ranks[after - 1] + 1 <= position <= index.ranks[after] + 1


@given(QUEUES, st.integers(1, 40), st.integers(0, 10_000), st.integers(0, 3_000))
def test_a_position_is_never_out_of_range(queue: list[int], points: int, place: int, joined: int) -> None:
    next_place = queue[-1] + 1 + joined
    position = rank_index_of(queue, next_place, points).position(place)
    assert position >= 1
    if place <= next_place:
        assert position <= len(queue) + 1
    else:
        assert position == len(queue) + 1 + place - next_place


@given(QUEUES, st.integers(1, 40))
def test_positions_ascend_with_places(queue: list[int], points: int) -> None:
    index = rank_index_of(queue, queue[-1] + 1, points)
    positions = [index.position(place) for place in range(5_100)]
    assert positions == sorted(positions)


def test_visitors_who_joined_after_the_index_was_built_are_behind_it() -> None:
    index = rank_index_of([5, 6, 9], next_place=12, points=10)
    assert [index.position(place) for place in (12, 13, 20)] == [4, 5, 12]


def test_a_place_of_a_later_generation_is_at_the_end() -> None:
    index = rank_index_of([5, 6, 9], next_place=12, points=10)
    assert index.position(2_800_000_000_001) == 4


def test_two_generations_in_one_queue() -> None:
    queue = [*range(1, 301), *range(2_800_000_000_001, 2_800_000_000_301)]
    index = rank_index_of(queue, queue[-1] + 1, 320)
    positions = [index.position(place) for place in queue]
    assert positions == sorted(positions)
    widest = max(after - before for before, after in pairwise(index.ranks))
    assert all(abs(position - rank - 1) < widest for rank, position in enumerate(positions))


@pytest.mark.parametrize("body", [b"", b"0 7"])
def test_the_first_position_of_an_empty_queue(body: bytes) -> None:
    index = RankIndex.parse("1", body)
    assert index.position(7) == 1


PACES = st.builds(
    lambda released, per_slot_ms, slots, share: Throughput(released, per_slot_ms, slots, 300, 300 * share),
    st.floats(0, 5_000),
    st.floats(0, 0.01),
    st.integers(1, 10_000),
    st.floats(0, 1),
)
RATES = st.floats(0.01, 1e6)
FREE = st.integers(-1_000, 10_000)


@given(st.integers(1, 100_000), st.integers(0, 100_000), RATES, PACES, FREE)
def test_the_wait_grows_with_the_position(
    position: int, further: int, rate: float, throughput: Throughput, free: int
) -> None:
    near = expected_wait(position, rate, throughput, free)
    far = expected_wait(position + further, rate, throughput, free)
    if near is None:
        assert far is None
    elif far is not None:
        assert near[0] <= far[0]
        assert near[1] <= far[1]


@given(st.integers(1, 100_000), RATES, PACES, FREE)
def test_the_minimum_is_below_the_maximum(position: int, rate: float, throughput: Throughput, free: int) -> None:
    wait = expected_wait(position, rate, throughput, free)
    if wait is not None:
        low, high = wait
        assert 0 <= low < high


@given(st.integers(1, 5_000), st.floats(1, 100_000), st.integers(0, 5_000))
def test_while_slots_are_free_the_wait_depends_on_the_rate(position: int, rate: float, free: int) -> None:
    """Nobody has gone in yet, and nothing is known of the shop but its free slots."""
    wait = expected_wait(position, rate, Throughput(slots=5_000), free)
    if position > free:
        assert wait is None
    else:
        assert wait is not None
        assert wait[0] <= position / rate * 60 <= wait[1]


def test_the_queue_of_a_full_room_moves_as_slots_become_free() -> None:
    wait = expected_wait(100, rate_per_minute=6_000, throughput=FULL_TURNOVER, free_slots=0)
    assert wait is not None
    assert wait[0] <= 300 <= wait[1] <= 600


def test_a_raised_limit_counts_immediately() -> None:
    """More slots than before: the free ones are filled at the rate, and more get free."""
    narrow = expected_wait(100, 600, FULL_TURNOVER, 0)
    wide = expected_wait(100, 600, replace(FULL_TURNOVER, slots=200), 100)
    assert narrow is not None
    assert wide is not None
    assert wide[0] <= 10 <= wide[1] < narrow[0]


def test_a_lowered_limit_lengthens_the_wait() -> None:
    """Nobody is called before those who are too many have gone."""
    before = expected_wait(10, 600, FULL_TURNOVER, 0)
    lowered = expected_wait(10, 600, FULL_TURNOVER, -50)
    assert before is not None
    assert lowered is not None
    assert lowered[0] > before[0]
    assert lowered[0] <= 180 <= lowered[1]


def test_a_changed_rate_counts_immediately() -> None:
    slow, fast = (expected_wait(60, rate, Throughput(slots=1_000), 1_000) for rate in (60, 600))
    assert slow == (44, 80)
    assert fast == (4, 10)


def test_the_wait_is_unknown_until_enough_slots_became_free() -> None:
    throughput = Throughput(released=30, per_slot_ms=1 / 300_000, slots=1_000)
    assert expected_wait(5, 600, throughput, 5) is not None
    assert expected_wait(6, 600, throughput, 5) is None


def test_a_small_turnover_widens_the_range() -> None:
    """After half a turn-over those who stay long have not been seen to leave yet."""
    half = expected_wait(100, 6_000, replace(FULL_TURNOVER, released=50), 0)
    whole = expected_wait(100, 6_000, FULL_TURNOVER, 0)
    assert half is not None
    assert whole is not None
    assert half[0] < whole[0] / 5
    assert half[1] == whole[1]


def test_many_absent_visitors_ahead_widen_the_range() -> None:
    wait = expected_wait(100, 60, Throughput(slots=1_000, turns=300, present=150), 1_000)
    assert wait is not None
    assert wait[0] <= 40
    assert wait[1] >= 100


@given(st.floats(1, 5_000), st.integers(1, 500))
def test_the_wait_only_falls_while_the_queue_moves(rate: float, start: int) -> None:
    waits = [expected_wait(position, rate, Throughput(slots=1_000), 1_000) for position in range(start, 0, -1)]
    known = [wait for wait in waits if wait is not None]
    assert len(known) == len(waits)
    assert known == sorted(known, reverse=True)


@given(
    st.one_of(st.none(), st.tuples(st.integers(0, 10**7), st.integers(0, 10**7))),
    st.integers(1, 10**7),
    st.floats(0, 1, exclude_max=True),
)
def test_poll_intervals_are_within_bounds(eta: tuple[int, int] | None, position: int, jitter: float) -> None:
    assert 1 <= poll_after(eta, position, jitter) <= LONGEST_POLL_SECONDS


def test_polls_are_short_at_the_front_and_long_at_the_back() -> None:
    assert poll_after((3, 9), 4, 0.5) == 2
    assert poll_after((80, 120), 100, 0.5) == 10
    assert poll_after((3_000, 5_000), 5_000, 0.5) == 25
    assert poll_after(None, 4, 0.5) == 2
    assert poll_after(None, 5_000, 0.5) == 25
    assert {poll_after((3_000, 5_000), 5_000, jitter / 10) for jitter in range(10)} == {
        20,
        21,
        22,
        23,
        24,
        25,
        26,
        27,
        28,
        29,
    }
