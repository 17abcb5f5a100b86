"""Time by the store's clock."""

from __future__ import annotations

import pytest

from waitroom.timing import StoreTime


class Clocks:
    """A wall clock and a steady one, moved by hand."""

    def __init__(self) -> None:
        self.wall, self.ticks = 1_800_000_000.0, 500.0
        self.time = StoreTime(lambda: self.wall, lambda: self.ticks)

    def read_store(self, ahead: float, *, round_trip: float = 0.01) -> None:
        """A reading of a store's clock that is so far ahead of the wall clock."""
        sent = self.ticks
        self.ticks += round_trip
        self.wall += round_trip
        self.time.observe(self.wall - round_trip / 2 + ahead, sent, self.ticks)


def test_before_the_first_reading_the_local_clock_counts():
    clocks = Clocks()
    assert clocks.time.unix() == 1_800_000_000.0


def test_time_follows_the_clock_of_the_store():
    clocks = Clocks()
    clocks.read_store(-7 * 3600)
    assert clocks.time.unix() == pytest.approx(clocks.wall - 7 * 3600)
    clocks.ticks += 60
    assert clocks.time.unix() == pytest.approx(clocks.wall - 7 * 3600 + 60)


def test_a_jump_of_the_local_clock_changes_nothing():
    clocks = Clocks()
    clocks.read_store(0)
    before = clocks.time.unix()
    clocks.wall += 7 * 3600
    assert clocks.time.unix() == before


def test_a_reading_is_only_as_good_as_its_round_trip():
    clocks = Clocks()
    clocks.read_store(1.0, round_trip=3.0)
    assert clocks.time.unix() == pytest.approx(clocks.wall)
    clocks.read_store(1.0)
    assert clocks.time.unix() == pytest.approx(clocks.wall + 1)


def test_the_jitter_of_replies_does_not_move_the_time():
    clocks = Clocks()
    clocks.read_store(0)
    for ahead in (0.05, -0.05, 0.09):
        clocks.read_store(ahead)
        assert clocks.time.unix() == pytest.approx(clocks.wall)
