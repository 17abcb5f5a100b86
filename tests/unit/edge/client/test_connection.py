"""A client connection: errors, the order of responses, deadlines, and limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.asyncio_fakes import HIGH_WATER
from support.edge_world import BUSY, LIMITS, PAGE, QUIET, World, get
from support.http_reader import read_responses
from waitroom.edge.client.connection import LINGER_SECONDS
from waitroom.edge.client.request_cycle import READ_AHEAD
from waitroom.edge.http.message import MAX_TARGET_BYTES
from waitroom.edge.rooms.room import Room

STATUS = b"/.waitroom/status?room=shop"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def refused(world: World, *pieces: bytes, method: bytes = b"GET") -> int:
    """The status of the response to a malformed request, after which the connection is closed."""
    wire = world.client()
    wire.send(*pieces)
    (answer,) = read_responses(wire.got, [method])
    assert answer[b"Connection"] == b"close"
    assert wire.got_eof
    assert not wire.lost, "input in transit must not cost the client our response"
    wire.send(b"GET /more HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
    world.pass_time(LINGER_SECONDS)
    assert wire.aborted
    assert world.shop.attempts == 0
    assert world.store.calls == []
    return answer.status


# Errors.


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", 417),
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * MAX_TARGET_BYTES), 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"A: b\r\n" * 200), 431),
        (b"\r\n\r\n\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ],
)
def test_malformed_requests_are_refused(world, request_, status):
    assert refused(world, request_) == status
    if len(request_) < 1000:
        half = len(request_) // 2
        assert refused(world, request_[:half], request_[half:]) == status
        assert refused(world, *(request_[at : at + 1] for at in range(len(request_)))) == status


@pytest.mark.parametrize("pieces", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 70_000), 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: %b\r\n\r\n" % (b"a" * 70_000), 431),
    ],
)
def test_overlong_heads_in_any_pieces(world, request_, status, pieces):
    size = -(-len(request_) // pieces)
    assert refused(world, *(request_[at : at + size] for at in range(0, len(request_), size))) == status


@pytest.mark.parametrize("rest", [b" / HTTP/1.1\r\n\r\n", b" / HTTP/1.1\n", b" /" + b"a" * MAX_TARGET_BYTES * 2])
def test_error_response_to_head_has_no_body(world, rest):
    wire = world.client()
    wire.send(b"HEAD" + rest)
    (answer,) = read_responses(wire.got, [b"HEAD"])
    assert int(answer[b"Content-Length"]) > 0


def test_error_response_has_its_own_request_id(world):
    wire = world.client()
    wire.send(get(STATUS))
    before = wire.protocol.request_id
    wire.send(b"GET /\n")
    assert wire.protocol.request_id not in ("", before)
    assert wire.protocol.request_id.encode() in wire.got


def test_overlong_head_is_refused_early(world):
    line = b"A: " + b"b" * 1000 + b"\r\n"
    assert refused(world, b"GET / HTTP/1.1\r\nHost: a\r\n" + line * 66) == 431
    assert refused(world, b"GET / HTTP/1.1\r\nHost: a\r\n", *[line] * 66) == 431


def test_longest_head(world):
    head = b"GET %b HTTP/1.1\r\nHost: shop.example\r\n" % STATUS
    left = LIMITS.head_bytes - len(head) - 4
    for filler, status in ((left - 3, 200), (left - 2, 431)):
        wire = world.client()
        data = head + b"A: " + b"b" * filler + b"\r\n\r\n"
        wire.send(*(data[at : at + 8192] for at in range(0, len(data), 8192)))
        assert read_responses(wire.got, [b"GET"])[0].status == status


def test_endless_request_line_is_refused_early(world):
    assert refused(world, b"GET /" + b"a" * (MAX_TARGET_BYTES + 64)) == 414
    assert refused(world, b"GET /" + b"a" * MAX_TARGET_BYTES, b"a" * 64) == 414


def test_bare_line_feed_in_a_head_is_refused_early(world):
    assert refused(world, b"GET / HTTP/1.1\n") == 400
    assert refused(world, b"GET / HTTP/1.1\r\nHost: a\r", b"\nA: b\n") == 400


def test_empty_line_before_a_request_is_ignored(world):
    assert world.ask(b"\r\n" + get(STATUS)).status == 200
    assert world.ask(b"\r\n" * 30_000 + get(STATUS)).status == 200
    wire = world.client()
    wire.send(get(STATUS), b"\r", b"\n", get(STATUS))
    assert [answer.status for answer in read_responses(wire.got, [b"GET"] * 2)] == [200, 200]


def test_input_after_an_error_is_discarded(world):
    wire = world.client()
    wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + get(b"/", PAGE) * 3)
    assert [answer.status for answer in read_responses(wire.got, [b"GET"])] == [400]
    assert world.store.calls == []


def test_malformed_body_of_an_answered_request_closes_the_connection(world):
    wire = world.client()
    wire.send(get(STATUS, b"Transfer-Encoding: chunked") + b"x\r\n" + get(STATUS))
    (answer,) = read_responses(wire.got, [b"GET"])
    assert answer[b"Connection"] == b"close"


# The order of responses.


def test_connection_is_reused(world):
    wire = world.client()
    for _ in range(3):
        answer = world.ask(get(STATUS), wire=wire)
        assert answer.status == 200
        assert b"Connection" not in answer
    assert not wire.got_eof


@pytest.mark.parametrize(
    ("version", "line", "kept", "shown"),
    [
        (b"1.1", b"Connection: close", False, b"close"),
        (b"1.0", b"A: b", False, b"close"),
        (b"1.0", b"Connection: keep-alive", True, b"keep-alive"),
    ],
)
def test_keep_alive_of_connections(world, version, line, kept, shown):
    wire = world.client()
    answer = world.ask(get(STATUS, line).replace(b"HTTP/1.1", b"HTTP/" + version), wire=wire)
    assert answer[b"Connection"] == shown
    assert (not wire.lost) is kept


def test_head_in_any_pieces(world):
    data = get(STATUS)
    for at in range(1, len(data)):
        wire = world.client()
        wire.send(data[:at], data[at:])
        assert read_responses(wire.got, [b"GET"])[0].status == 200


def test_pipelined_requests_are_answered_in_order(world):
    """Requests that call the store delay those that don't."""
    world.store.hold("join")
    wire = world.client()
    wire.send(get(STATUS) + get(b"/", PAGE) + get(STATUS, method=b"HEAD") + get(b"/x") + get(b"/.waitroom/none"))
    assert len(read_responses(wire.got, [b"GET"])) == 1
    world.store.let_go("join")
    answers = read_responses(wire.got, [b"GET", b"GET", b"HEAD", b"GET", b"GET"])
    assert [answer.status for answer in answers] == [200, 503, 200, 503, 404]


@pytest.mark.parametrize("pieces", [1, 7])
def test_thousand_pipelined_requests(world, pieces):
    """Nested calls would overflow the stack."""
    data = get(STATUS) * 1000
    size = -(-len(data) // pieces)
    wire = world.client()
    wire.send(*(data[at : at + size] for at in range(0, len(data), size)))
    assert len(read_responses(wire.got, [b"GET"] * 1000)) == 1000


def test_thousand_pipelined_requests_that_call_the_store():
    with World(join_rate=1000.0) as world:
        _join_a_thousand_times(world)


def _join_a_thousand_times(world: World) -> None:
    wire = world.client()
    wire.send(get(b"/.waitroom/join", method=b"POST", body=b"x=1") * 1000)
    answers = read_responses(wire.got, [b"POST"] * 1000)
    assert [answer.status for answer in answers] == [201] * 1000
    assert len({answer[b"Waitroom-Ticket"] for answer in answers}) == 1000


def asking(world: World) -> bytes:
    """Fifty pipelined requests that call the store."""
    return get(b"/", b"Waitroom-Ticket: " + world.ticket(99)) * 50


def test_flood_of_requests_pauses_reading(world):
    """A client that sends ahead of the responses fills the network's buffers rather than ours."""
    world.store.hold("visit")
    wire = world.client()
    requests = asking(world)
    wire.send(*[requests] * 20)
    assert wire.unread > 0
    assert len(wire.protocol._buffer) <= READ_AHEAD + len(requests)
    world.store.let_go("visit")
    assert wire.unread == 0
    assert len(read_responses(wire.got, [b"GET"] * 1000)) == 1000
    assert wire.is_reading()


def test_buffer_stays_bounded_during_a_flood(world):
    """Each response makes room for one request, but not for another read."""
    world.store.hold("visit")
    wire = world.client()
    requests = asking(world)
    wire.send(*[requests] * 40)
    for _ in range(100):
        gate = world.store._held.pop("visit")
        world.store.hold("visit")
        gate.set_result(None)
        world.loop.settle()
        assert len(wire.protocol._buffer) <= READ_AHEAD + len(requests)
    assert len(world.store.named("visit")) > 100
    world.store.let_go("visit")


def test_unread_responses_do_not_fill_the_memory(world):
    wire = world.client()
    wire.taking = False
    wire.send(*[get(STATUS) * 50] * 40)
    assert HIGH_WATER < wire.unsent < HIGH_WATER + 1000
    assert len(wire.protocol._buffer) <= READ_AHEAD + len(get(STATUS)) * 50
    assert wire.unread > 0
    wire.take()
    assert wire.unread == 0
    assert len(read_responses(wire.got, [b"GET"] * 2000)) == 2000


# Bodies of requests that the gateway answers itself.


@pytest.mark.parametrize("pieces", [1, 2])
def test_body_of_an_answered_request_is_skipped(world, pieces):
    data = get(b"/", method=b"POST", body=b"x" * 1000) + get(STATUS)
    wire = world.client()
    world.store.hold("visit")
    wire.send(*([data] if pieces == 1 else [data[:500], data[500:]]))
    world.store.let_go("visit")
    answers = read_responses(wire.got, [b"POST", b"GET"])
    if pieces == 1:
        assert [answer.status for answer in answers] == [503, 200]
    else:
        assert [answer.status for answer in answers] == [503]
        assert answers[0][b"Connection"] == b"close", "the rest of the body would be parsed as a request"


def test_body_that_arrives_during_a_store_call_is_skipped(world):
    world.store.hold("join")
    wire = world.client()
    wire.send(
        get(b"/", PAGE, b"Transfer-Encoding: chunked", method=b"POST"), b"3\r\nabc\r\n0\r\nA: b\r\n\r\n", get(STATUS)
    )
    world.store.let_go("join")
    assert [answer.status for answer in read_responses(wire.got, [b"POST", b"GET"])] == [503, 200]


def test_expecting_client_is_answered_immediately(world):
    wire = world.client()
    wire.send(get(b"/", b"Expect: 100-continue", b"Content-Length: 5", method=b"POST"))
    (answer,) = read_responses(wire.got, [b"POST"])
    assert wire.got.startswith(b"HTTP/1.1 503 ")
    assert answer[b"Connection"] == b"close"


def test_head_request_gets_no_body(world):
    page = world.ask(get(b"/", PAGE))
    assert len(page.body) == int(page[b"Content-Length"]) > 1000
    answer = world.ask(get(b"/", PAGE, method=b"HEAD"))
    assert not answer.body
    assert int(answer[b"Content-Length"]) > 0


# Internal errors.


def test_internal_error_is_answered_and_logged(world):
    class Broken(dict[str, Room]):
        def __getitem__(self, name: str) -> Room:
            raise RuntimeError("a mistake")

    rooms, world.edge.rooms = world.edge.rooms, Broken()
    wire = world.client()
    answer = world.ask(get(b"/", PAGE), wire=wire)
    assert answer.status == 500
    assert b"a mistake" not in answer.body
    (entry,) = world.logs
    assert entry["event"] == "request failed"
    assert entry["request_id"].encode() in answer.body
    world.edge.rooms = rooms
    assert world.ask(get(STATUS), wire=wire).status == 200


def test_internal_error_in_a_task_is_answered(world):
    world.tokens._tickets = None  # nobody's ticket can be signed
    wire = world.client()
    answer = world.ask(get(b"/", PAGE), wire=wire)
    assert answer.status == 500
    assert [entry["event"] for entry in world.logs] == ["request failed"]


# Draining.


def test_draining_worker_closes_connections_after_their_responses(world):
    world.store.hold("join")
    busy, idle, half, silent = (world.client() for _ in range(4))
    busy.send(get(b"/", PAGE) + get(STATUS))
    idle.send(get(STATUS))
    half.send(get(STATUS)[:9])
    drain = world.loop.create_task(world.edge.drain(30))
    world.loop.settle()
    assert idle.lost
    assert not half.lost  # its request is just coming in
    assert not silent.lost  # so may its be: it has only just connected
    half.send(get(STATUS)[9:])
    (answer,) = read_responses(half.got, [b"GET"])
    assert (answer.status, answer[b"Connection"]) == (200, b"close")
    assert half.lost
    late = world.client()
    assert late.aborted
    world.store.let_go("join")
    (answer,) = read_responses(busy.got, [b"GET"])
    assert answer.status == 503
    assert answer[b"Connection"] == b"close"
    assert busy.lost
    assert not drain.done()
    world.loop.now += 1
    world.loop.settle()
    assert silent.lost
    world.loop.now += 1
    world.loop.settle()
    assert drain.done()


def test_draining_worker_aborts_the_rest(world):
    world.store.hold("join")
    wire = world.client()
    wire.send(get(b"/", PAGE))
    drain = world.loop.create_task(world.edge.drain(30))
    world.loop.settle()
    for _ in range(31):
        world.loop.now += 1
        world.loop.settle()
    assert drain.done()
    assert wire.aborted
    world.store.let_go("join")


# Limits.


def test_connections_are_limited():
    with World(most_connections=4, most_per_address=2, trusted=["10.0.0.0/8"]) as world:
        first, second = world.client("192.0.2.1"), world.client("192.0.2.1")
        assert world.client("192.0.2.1").aborted, "too many from one neighbourhood"
        other = world.client("192.0.2.2")
        assert not other.lost
        assert world.client("192.0.2.3").aborted, "too many without a pass"
        assert world.client("10.0.0.1").aborted
        second.reset()
        proxy = world.client("10.0.0.1")
        assert not proxy.lost
        for wire in (first, other):
            wire.reset()
        assert not world.client("10.0.0.1").lost
        assert not world.client("10.0.0.1").lost, "a trusted proxy stands for many"
        assert world.client("10.0.0.1").aborted
        assert len(world.edge.clients) == 3


def test_rejected_connections_are_not_counted():
    with World(most_per_address=1) as world:
        kept = world.client("192.0.2.1")
        for _ in range(5):
            assert world.client("192.0.2.1").aborted
        kept.reset()
        assert not world.client("192.0.2.1").lost


def test_small_limits():
    limits = replace(LIMITS, head_bytes=200, head_seconds=1.0)
    with World(view=QUIET, limits=limits) as world:
        assert world.ask(get(STATUS)).status == 200
        wire = world.client()
        wire.send(get(STATUS, b"A: " + b"b" * 200))
        assert read_responses(wire.got, [b"GET"])[0].status == 431
        world.view = BUSY
        wire = world.client()
        world.pass_time(1.0)
        assert wire.lost
