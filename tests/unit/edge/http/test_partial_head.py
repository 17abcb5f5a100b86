"""A head that arrives in small pieces gives the same result, and each byte is examined about once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.edge_world import LIMITS, World, get
from support.http_reader import read_responses
from waitroom.edge.client.connection import ClientConnection
from waitroom.edge.http import partial_head
from waitroom.edge.http.partial_head import PartialHead

STATUS = b"/.waitroom/status?room=shop"
LONG = [b"A%d: " % number + b"b" * 1000 for number in range(50)]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("lines", [[b"A: " + b"b" * 50_000], LONG, [b"A: b"] * 190])
def test_partial_head_examines_each_byte_once(lines):
    head = get(STATUS, *lines)
    partial = PartialHead(head[:1], 40_000, 65536)
    assert not any(partial.add(piece) for piece in pieces(head[1:-1], 1))
    assert partial.examined <= 4 * len(head)
    assert partial.add(head[-1:])
    assert partial.whole() == head


@pytest.mark.interpreted
def test_connection_searches_a_dripping_head_twice(monkeypatch):
    """When its first byte arrives, and when it is complete."""
    searched: list[int] = []
    begin = ClientConnection._begin_request

    def counting(client: ClientConnection) -> bool:
        searched.append(len(client._buffer))
        return begin(client)

    monkeypatch.setattr(ClientConnection, "_begin_request", counting)
    head = get(STATUS, *LONG)
    with World() as world:
        wire = world.client()
        wire.send(*pieces(head, 100))
        assert read_responses(wire.got, [b"GET"])[0].status == 200
    assert len(searched) == 2


@pytest.mark.interpreted
def test_line_feeds_of_a_long_head_are_searched_once(monkeypatch):
    looked_at = 0
    search = partial_head.has_bare_line_feed

    def counting(data: bytes, start: int = 0) -> bool:
        nonlocal looked_at
        looked_at += len(data) - start
        return search(data, start)

    monkeypatch.setattr(partial_head, "has_bare_line_feed", counting)
    head = get(STATUS, *LONG)
    with World() as world:
        world.client().send(*pieces(head, 10))
    assert looked_at < 2 * len(head)


BITS = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"A: b\r\n", b"Host: a\r\n", b"GET / HTTP/1.1\r\n", b"a", b" "]
    ),
    max_size=12,
)


@given(BITS, st.lists(st.integers(1, 5), max_size=30), st.sampled_from([20, 40, 1000]), st.sampled_from([30, 60, 1000]))
def test_partial_head_is_parsed_as_soon_as_it_is_complete_or_invalid(bits, sizes, longest_line, longest):
    """The expected result: the whole is examined again with each piece."""
    data = b"G" + b"".join(bits)
    partial = PartialHead(data[:1], longest_line, longest)
    at = 1
    for size in [*sizes, len(data)]:
        piece, at = data[at : at + size], at + size
        if not piece:
            break
        whole = data[: min(at, len(data))]
        again = partial.add(piece)
        bare = whole.replace(b"\r\n", b"").count(b"\n")
        line_too_long = len(whole) > longest_line and b"\r\n" not in whole
        assert again == (b"\r\n\r\n" in whole or bool(bare) or len(whole) >= longest or line_too_long)
        assert partial.whole() == whole
        if again:
            break


def test_dripping_empty_lines_are_ignored():
    with World() as world:
        wire = world.client()
        wire.send(get(STATUS), *[b"\r", b"\n"] * 3)
        wire.clear()
        world.pass_time(LIMITS.idle_seconds + 1)
        assert wire.got == b"", "the connection was idle: nothing timed out"
        wire = world.client()
        wire.send(b"\r", b"\n\r", b"\n" + get(STATUS))
        assert read_responses(wire.got, [b"GET"])[0].status == 200


def test_timeout_response_uses_the_partial_head():
    """By then it is known whether to respond with a page or JSON."""
    with World() as world:
        wire = world.client()
        wire.send(*pieces(b"GET /a HTTP/1.1\r\nHost: shop.example\r\nAccept: text/html\r\nA: b", 5))
        world.pass_time(LIMITS.head_seconds + 1)
        (answer,) = read_responses(wire.got, [b"GET"])
        assert (answer.status, answer[b"Content-Type"]) == (408, b"text/html; charset=utf-8")


def test_pipeline_after_a_dripping_head():
    with World() as world:
        wire = world.client()
        first = get(STATUS)
        wire.send(first[:40], first[40:60], first[60:] + get(STATUS) * 3 + first[:30], first[30:])
        assert len(read_responses(wire.got, [b"GET"] * 5)) == 5


def test_flood_after_a_dripping_head_pauses_reading():
    with World() as world:
        world.store.hold("visit")
        wire = world.client()
        request = get(b"/", b"Waitroom-Ticket: " + world.ticket(99))
        wire.send(request[:10], request[10:] + request * 1000, b"x")
        assert not wire.is_reading()
        assert wire.unread == 1
        world.store.let_go("visit")
