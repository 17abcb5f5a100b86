"""The newest state of a room that a client has seen, which shows whether the store has lost writes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.edge_world import BUSY
from waitroom.queue.store import Newest
from waitroom.queue.view import Recovery, RoomView

VIEW = replace(BUSY, generation=7, waiting=50, called=2, active=10, changes=20, newest_place=150)
RECOVERING = replace(VIEW, generation=8, recovery=Recovery(5000, 52, 10, 3, 1))


def newest_after(*views: RoomView) -> Newest:
    newest = Newest()
    for view in views:
        newest.add_view(view)
    return newest


def test_a_view_is_taken_as_it_is() -> None:
    assert newest_after(VIEW).arguments() == (7, 20, 150, 52, 10, "")
    fewer = replace(VIEW, waiting=5, called=0, active=1)
    assert newest_after(VIEW, fewer).arguments() == (7, 20, 150, 5, 1, "")


@pytest.mark.parametrize(
    ("waiting", "active", "known"),
    [(4, 1, (52, 10)), (90, 12, (92, 12))],
    ids=["those who haven't reported still count", "newcomers count"],
)
def test_a_second_loss_during_a_recovery_forgets_nobody(waiting: int, active: int, known: tuple[int, int]) -> None:
    newest = newest_after(VIEW, replace(RECOVERING, waiting=waiting, active=active))
    assert (newest.waiting, newest.active) == known


def test_an_older_view_takes_nothing_back() -> None:
    assert newest_after(VIEW, replace(VIEW, changes=19, newest_place=149)).arguments()[:3] == (7, 20, 150)


def test_a_place_counts_in_the_generation_that_issued_it() -> None:
    newest = newest_after(VIEW)
    newest.add_place(8, 900)
    assert newest.place == 150
    newest.add_place(7, 151)
    assert newest.place == 151


@pytest.mark.parametrize(
    ("opened", "behind"), [((20, 150), False), ((19, 150), True), ((20, 149), True), ((30, 200), False)]
)
def test_a_new_generation_that_began_with_less_has_lost_writes(opened: tuple[int, int], behind: bool) -> None:
    view = replace(VIEW, generation=8, opened_changes=opened[0], opened_place=opened[1])
    assert newest_after(VIEW).exceeds_start_of(view) is behind
    assert not newest_after(VIEW).exceeds_start_of(VIEW)
    assert not Newest().exceeds_start_of(view)
