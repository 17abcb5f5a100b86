"""Which connection of the admin listener has to go for another one."""

from __future__ import annotations

import pytest

from waitroom.control.connections import Connections


@pytest.fixture
def connections() -> Connections[str]:
    return Connections(4, 2)


def test_the_longest_idle_connection_of_a_neighbourhood_goes_first(connections: Connections[str]) -> None:
    assert [connections.add(one, "here", n) for n, one in enumerate(("a", "b"))] == [None, None]
    connections.mark_busy("a")
    connections.mark_idle("a", 5)
    assert connections.add("c", "here", 6) == "b"
    assert connections.add("d", "there", 6) is None
    assert len(connections) == 3


def test_a_connection_with_a_request_in_progress_stays(connections: Connections[str]) -> None:
    for one in ("a", "b"):
        connections.add(one, "here", 0)
        connections.mark_busy(one)
    assert connections.add("c", "here", 1) == "c"
    connections.mark_idle("b", 2)
    assert connections.add("c", "here", 3) == "b"
    connections.mark_busy("b")  # it ends after it was closed
    connections.remove("b")
    assert len(connections) == 2


def test_when_all_are_taken_the_longest_idle_of_all_goes(connections: Connections[str]) -> None:
    for n in range(4):
        connections.add(f"c{n}", f"place {n}", n)
    connections.mark_busy("c0")
    assert connections.add("new", "elsewhere", 9) == "c1"
    connections.remove("c2")
    assert connections.add("newer", "elsewhere", 9) is None


def test_a_proxy_has_no_maximum_of_its_own(connections: Connections[str]) -> None:
    assert [connections.add(f"p{n}", "", n) for n in range(5)] == [None, None, None, None, "p0"]
