"""Tables within a bound."""

from __future__ import annotations

from waitroom.bounded import put


def test_the_first_is_forgotten_and_what_is_put_again_stands_last():
    table: dict[str, int] = {}
    for key in "abca":
        put(table, key, ord(key), 3)
    put(table, "d", 0, 3)
    assert list(table) == ["c", "a", "d"]


def test_what_is_there_is_replaced_and_pushes_nothing_out():
    table = {"a": 1, "b": 2}
    put(table, "a", 3, 2)
    assert table == {"b": 2, "a": 3}
