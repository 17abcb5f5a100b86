"""The queue of password checks: bounded, and fair between its sources."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from waitroom.control.auth.fair_queue import FairQueue


def filled(queue: FairQueue[str], *items: str) -> list[str | None]:
    """Adds items whose first letter is their source; returns who was refused each time."""
    return [queue.push(item[0], item) for item in items]


def drained(queue: FairQueue[str]) -> list[str]:
    found = []
    while (item := queue.pop()) is not None:
        found.append(item)
    return found


def test_sources_take_turns() -> None:
    queue = FairQueue[str](10, 10)
    assert filled(queue, "a1", "a2", "a3", "b1", "c1", "b2") == [None] * 6
    assert drained(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_source_has_a_maximum() -> None:
    queue = FairQueue[str](10, 2)
    assert filled(queue, "a1", "a2", "a3", "b1") == [None, None, "a3", None]
    assert drained(queue) == ["a1", "b1", "a2"]


def test_in_a_full_queue_the_source_with_the_most_gives_way() -> None:
    queue = FairQueue[str](4, 4)
    assert filled(queue, "a1", "a2", "a3", "b1") == [None] * 4
    assert filled(queue, "c1") == ["a3"]
    assert filled(queue, "d1") == ["a2"]
    assert filled(queue, "e1", "a2") == ["e1", "a2"], "nobody has more than one"
    assert drained(queue) == ["a1", "b1", "c1", "d1"]


def test_a_removed_item_gives_its_place_up() -> None:
    queue = FairQueue[str](2, 2)
    filled(queue, "a1", "b1")
    queue.remove("a1")
    queue.remove("a1")
    assert filled(queue, "c1") == [None]
    assert (len(queue), drained(queue)) == (2, ["b1", "c1"])


@given(st.lists(st.sampled_from("aaaaaaaab"), max_size=examples(60, long=400)), st.integers(1, 12), st.integers(1, 12))
def test_a_source_waits_for_no_more_than_one_item_of_each_other(sources: list[str], most: int, each: int) -> None:
    queue = FairQueue[str](most, each)
    for number, source in enumerate(sources):
        queue.push(source, f"{source}{number}")
        assert len(queue) <= most
    refused = queue.push("z", "z")
    if refused != "z":
        assert "z" in drained(queue)[: len(set(sources)) + 1]
