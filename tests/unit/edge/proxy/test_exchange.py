"""A forwarded request and its response, byte by byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.edge_world import LIMITS, OK, PAGE, QUIET, World, answer, at_shop, get, sent
from support.http_reader import read_requests, read_responses
from waitroom.edge.client.connection import LINGER_SECONDS
from waitroom.edge.proxy.exchange import MAX_RESPONSE_HEAD_BYTES
from waitroom.settings.validators import header_line


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# Requests.


def test_request_is_forwarded_unchanged(world):
    target = b"//a/%2F..;b='c'?d=%zz&" + b"x" * 16384
    wire = world.client()
    wire.send(
        b"GET %b HTTP/1.1\r\nx-b: 1\r\nHOST: shop.example:80\r\nAccept:*/*\r\nX-B: 2\r\nx-b: 3\r\n%b\r\n"
        % (target, world.inside())
    )
    got = at_shop(world)
    assert got.start == b"GET %b HTTP/1.1" % target
    assert got.headers[:5] == [
        (b"x-b", b"1"),
        (b"HOST", b"shop.example:80"),
        (b"Accept", b"*/*"),
        (b"X-B", b"2"),
        (b"x-b", b"3"),
    ]
    assert dict(got.headers[5:]) == {
        b"Waitroom-Room": b"shop",
        b"Waitroom-Session": b"5a",
        b"X-Request-Id": wire.protocol.request_id.encode(),
        b"X-Forwarded-For": b"203.0.113.9",
        b"X-Forwarded-Proto": b"http",
        b"X-Forwarded-Host": b"shop.example:80",
    }


def test_absolute_target_is_forwarded_as_a_path(world):
    wire = world.client()
    wire.send(get(b"http://shop.example/a?b", world.inside()))
    assert at_shop(world).target == b"/a?b"


def test_http_1_0_request_without_a_host(world):
    wire = world.client()
    wire.send(b"GET /a HTTP/1.0\r\n%b\r\n" % world.inside())
    assert at_shop(world)[b"Host"] == b"shop.internal:3000"
    world.shop.wire.send(OK)
    assert answer(wire)[b"Connection"] == b"close"
    assert wire.lost


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"DELETE"])
def test_body_with_a_length_keeps_its_length(world, method):
    sent(world, b"X: 1", method=method, body=b"hello")
    got = at_shop(world)
    assert (got.framing, got.body) == ("length", b"hello")


def test_empty_form_keeps_its_length(world):
    sent(world, method=b"POST", body=b"")
    assert at_shop(world)[b"Content-Length"] == b"0"


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_chunked_body_stays_chunked(world, cut):
    wire = sent(world, b"Transfer-Encoding: chunked", method=b"POST")
    body = b"5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n"
    wire.send(body[:cut], body[cut:])
    got = at_shop(world)
    assert (got.framing, got.body, got.trailers) == ("chunked", b"hello0123456789", [(b"X-Sum", b"1")])
    assert b"Content-Length" not in got


def test_body_byte_by_byte(world):
    wire = sent(world, b"Content-Length: 9", method=b"POST")
    for byte in b"123456789":
        wire.send(bytes([byte]))
    assert at_shop(world).body == b"123456789"


def test_body_waits_for_a_connection(world):
    world.shop.hangs = True
    wire = sent(world, method=b"POST", body=b"x" * 1000)
    assert world.shop.got == b""
    world.shop.let_in()
    assert at_shop(world).body == b"x" * 1000
    world.shop.wire.send(OK)
    assert answer(wire, b"POST").status == 200


def test_malformed_chunked_body_is_never_completed(world):
    wire = sent(world, b"Transfer-Encoding: chunked", method=b"POST")
    wire.send(b"5\r\nhello\r\n", b"x\r\n", b"0\r\n\r\n")
    requests, rest = read_requests(world.shop.got)
    assert requests == []
    assert rest
    assert world.shop.wires[0].aborted
    assert answer(wire, b"POST").status == 400
    assert answer(wire, b"POST")[b"Connection"] == b"close"
    assert repr(world.pool) == "<UpstreamPool in_use=0 idle=0 connecting=0 wait=0>"


def test_continue_is_sent_once_the_request_is_forwarded(world):
    world.view = QUIET
    world.store.admits = 1
    world.store.hold("join")
    wire = world.client()
    wire.send(get(b"/", PAGE, b"Expect: 100-continue", b"Content-Length: 5", method=b"POST"))
    assert wire.got == b""
    world.store.let_go("join")
    assert wire.got == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(b"hello")
    got = at_shop(world)
    assert got.body == b"hello"
    assert b"Expect" not in got
    world.shop.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert wire.got.count(b" 100 ") == 1
    assert answer(wire, b"POST").status == 200


def test_expecting_client_that_sends_its_body_gets_no_continue(world):
    wire = sent(world, b"Expect: 100-continue", method=b"POST", body=b"")
    assert wire.got == b""


# Responses.


def test_response_is_forwarded_unchanged(world):
    wire = sent(world)
    world.shop.wire.send(
        b"HTTP/1.1 404 Nichts da\r\nset-cookie: a=1\r\nX-a: 1\r\nSet-Cookie: a=2\r\nConnection: keep-alive, X-Hop\r\n"
        b"X-Hop: 1\r\nKeep-Alive: timeout=5\r\nWaitroom-Command: remaining=3\r\nContent-Length: 5\r\nDate: then\r\n\r\n"
        b"hello"
    )
    got = answer(wire)
    assert got.start == b"HTTP/1.1 404 Nichts da"
    assert got.headers == [
        (b"set-cookie", b"a=1"),
        (b"X-a", b"1"),
        (b"Set-Cookie", b"a=2"),
        (b"Content-Length", b"5"),
        (b"Date", b"then"),
    ]
    assert got.body == b"hello"


@pytest.mark.parametrize(
    ("response", "framing", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "length", b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "length", b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            "chunked",
            b"hello",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "chunked", b""),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", "none", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "none", b""),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "none", b""),
    ],
)
def test_response_bodies_in_any_pieces_keep_the_connection(response, framing, body):
    for at in range(1, len(response)):
        with World() as world:
            wire = sent(world)
            world.shop.wire.send(response[:at], response[at:])
            got = answer(wire)
            assert (got.framing, got.body) == (framing, body)
            assert not wire.got_eof
            assert repr(world.pool) == "<UpstreamPool in_use=0 idle=1 connecting=0 wait=0>"
            if b"304" in got.start and b"Length" in response:
                assert got[b"Content-Length"] == b"7"
            if b"204" in got.start:
                assert b"Content-Length" not in got


def test_response_trailers(world):
    wire = sent(world)
    world.shop.wire.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n"
    )
    assert answer(wire).trailers == [(b"X-Sum", b"1")]


@pytest.mark.parametrize("line", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_response_to_head_has_no_body(world, line):
    wire = sent(world, method=b"HEAD")
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\n%b\r\n" % line)
    got = answer(wire, b"HEAD")
    assert got.all(b"Content-Length") == ([b"5"] if b"Length" in line else [])
    sent(world, wire=wire)
    world.shop.wire.send(OK)
    assert [one.status for one in read_responses(wire.got, [b"HEAD", b"GET"])] == [200, 200]
    assert len(world.shop.wires) == 1


def test_chunked_response_to_http_1_0(world):
    wire = world.client()
    wire.send(get(b"/", world.inside(), b"Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"))
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n")
    got = answer(wire)
    assert (got.framing, got.body, got[b"Connection"]) == ("close", b"hello", b"close")
    assert wire.lost
    assert not wire.aborted


@pytest.mark.parametrize(("version", "framing"), [(b"1.0", "close"), (b"1.1", "chunked")])
@pytest.mark.parametrize("shop", [b"1.0", b"1.1"])
def test_response_that_ends_with_the_connection(world, version, framing, shop):
    wire = world.client()
    wire.send(get(b"/", world.inside()).replace(b"HTTP/1.1", b"HTTP/" + version))
    world.shop.wire.send(b"HTTP/%b 200 OK\r\nX: y\r\n\r\nhel" % shop, b"lo")
    world.shop.wire.send_eof()
    got = answer(wire)
    assert (got.framing, got.body) == (framing, b"hello")
    assert wire.lost is (version == b"1.0")
    assert not wire.aborted
    assert repr(world.pool) == "<UpstreamPool in_use=0 idle=0 connecting=0 wait=0>"


def test_interim_responses(world):
    wire = sent(world)
    world.shop.wire.send(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nWaitroom-Command: x\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\n\r\n" + OK
    )
    assert wire.got == (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + world.edge.date_header() + b"\r\nok"
    )


def test_no_interim_responses_to_http_1_0(world):
    wire = world.client()
    wire.send(get(b"/", world.inside()).replace(b"HTTP/1.1", b"HTTP/1.0"))
    world.shop.wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK)
    assert b"103" not in wire.got
    assert answer(wire).status == 200


def test_longest_response_head(world):
    for more, status in ((0, 200), (1, 502)):
        line = b"A: " + b"b" * (MAX_RESPONSE_HEAD_BYTES - 43 + more) + b"\r\n"
        response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + line + b"\r\n"
        assert len(response) == MAX_RESPONSE_HEAD_BYTES + more
        for cut in (8192, MAX_RESPONSE_HEAD_BYTES - 2, len(response)):
            wire = sent(world)
            world.shop.wire.send(*(response[at : at + cut] for at in range(0, len(response), cut)))
            assert answer(wire).status == status


def test_pipelined_responses_are_in_order(world):
    wire = world.client()
    wire.send(b"".join(get(b"/%d" % number, world.inside()) for number in range(5)))
    for number in range(5):
        requests, _ = read_requests(world.shop.wire.clear())
        assert [request.target for request in requests] == [b"/%d" % number], "one at a time"
        world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
    assert [one.body for one in read_responses(wire.got, [b"GET"] * 5)] == [b"%d" % number for number in range(5)]
    assert len(world.shop.wires) == 1


# Early responses.


def test_response_before_the_body(world):
    wire = sent(world, b"Content-Length: 100", method=b"POST")
    world.pass_time(LIMITS.buffer_seconds)
    shop = world.shop.wire
    shop.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
    got = answer(wire, b"POST")
    assert (got.status, got.body, got[b"Connection"]) == (413, b"big", b"close")
    assert shop.aborted, "it is still waiting for the rest of the body"
    assert wire.got_eof
    wire.send(b"x" * 100, get(b"/b", world.inside()))
    assert len(world.shop.wires) == 1, "the rest of the body is not parsed as a request"
    world.pass_time(LINGER_SECONDS)
    assert wire.lost


def test_response_that_begins_early_and_ends_late(world):
    wire = sent(world, b"Content-Length: 4", method=b"POST")
    world.pass_time(LIMITS.buffer_seconds)
    shop = world.shop.wire
    shop.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    wire.send(b"wxyz")
    assert at_shop(world).body == b"wxyz"
    shop.send(b"cd")
    assert answer(wire, b"POST").body == b"abcd"


def test_connection_with_an_unsent_request_is_not_reused(world):
    """A response has arrived, but the unread rest of the request would precede the next one."""
    wire = sent(world, method=b"POST", body=b"")
    shop = world.shop.wire
    shop.send(OK)
    shop.taking = False
    sent(world, wire=wire, method=b"POST", body=b"x" * 1000)
    shop.send(OK)
    assert shop.aborted
    assert [one.status for one in read_responses(wire.got, [b"POST"] * 2)] == [200, 200]


# Metrics.


@pytest.mark.parametrize(
    ("response", "outcome"),
    [(OK, "admitted"), (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "admitted"), (b"x", "failed")],
)
def test_exchanges_are_counted_once(world, response, outcome):
    sent(world)
    assert world.room.metrics.in_flight == 1
    world.shop.wire.send(response)
    if response == b"x":
        world.shop.wire.send_eof()
    assert world.room.metrics.requests == {outcome: 1}
    assert world.room.metrics.upstream_failures == (response != OK)
    assert world.room.metrics.in_flight == 0
    assert sum(world.room.metrics.upstream_request_seconds.counts) == 1


@pytest.mark.parametrize(
    ("named", "line", "failures"),
    [
        ("X-Order: failed", b"x-order: failed", 1),
        ("X-Order: failed", b"X-Order: placed", 0),
        ("X-Failed", b"X-Failed: whatever", 1),
        ("X-Failed", b"X-Fine: yes", 0),
    ],
)
def test_failure_header(named, line, failures):
    with World(failure_header=header_line(named)) as world:
        sent(world)
        world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%b\r\n\r\n" % line)
        assert world.room.metrics.upstream_failures == failures
        assert world.room.metrics.requests == {"admitted": 1}


FAILED = b'{"success":false}'


def told(body: bytes, *lines: bytes, length: int | None = None) -> bytes:
    """An answer of 200."""
    length = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (
        *(length, b"".join(line + b"\r\n" for line in lines)),
        body,
    )


JSON = b"Content-Type: application/json"
SPACED = FAILED.ljust(4096)


@pytest.mark.parametrize(
    ("response", "failures"),
    [
        (told(FAILED, JSON), 1),
        (told(FAILED, b"content-type: Application/JSON ; charset=utf-8"), 1),
        (told(FAILED, b"Content-Type: application/vnd.shop+json"), 1),
        (told(b'{"success":true}', JSON), 0),
        (told(b"{}", JSON), 0),
        (told(b"", JSON), 0),
        (told(FAILED, b"Content-Type: text/html"), 0),
        (told(FAILED, b"Content-Type: application/jsonl"), 0),
        (told(FAILED), 0),
        (told(FAILED, JSON, b"Content-Encoding: br"), 0),
        (told(SPACED, JSON), 1),
        (told(SPACED + b" ", JSON), 0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n\r\n11\r\n%b\r\n0\r\n\r\n" % (JSON, FAILED), 0),
        (told(FAILED, JSON).replace(b"200 OK", b"500 No"), 1),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_failure_text_in_small_json(response, failures, piece):
    with World(failure_text='"success":false') as world:
        wire = sent(world)
        for start in range(0, len(response), piece):
            world.shop.wire.send(response[start : start + piece])
        assert world.room.metrics.upstream_failures == failures
        assert world.room.metrics.requests == {"admitted": 1}
        (got,) = read_responses(wire.got, [b"GET"])
        assert got.body == response.partition(b"\r\n\r\n")[2] or b"chunked" in response


def test_searched_body_is_forwarded_as_it_arrives():
    with World(failure_text='"success":false') as world:
        wire = sent(world)
        world.shop.wire.send(told(FAILED[:10], JSON, length=len(FAILED)))
        assert wire.got.endswith(FAILED[:10])
        assert world.room.metrics.in_flight == 1
        world.shop.wire.send(FAILED[10:])
        assert wire.got.endswith(FAILED)
        assert world.room.metrics.upstream_failures == 1


def test_no_body_is_searched_without_a_failure_text(world):
    sent(world)
    world.shop.wire.send(told(FAILED, JSON))
    assert world.room.metrics.upstream_failures == 0


def test_head_without_a_body_is_no_failure():
    with World(failure_text='"success":false') as world:
        sent(world, method=b"HEAD")
        world.shop.wire.send(told(b"", JSON, length=len(FAILED)))
        assert world.room.metrics.upstream_failures == 0
        assert world.room.metrics.in_flight == 0
