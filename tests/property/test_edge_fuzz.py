"""The edge against random bytes: streams of requests and of answers, mutated and cut anywhere, and random lives.

Whatever comes, no exception escapes, nothing is left behind, every answer belongs to its request, and all that reaches
the shop reads there as it read where the client sent it. That is judged by an independent reader
(`support/http_reader.py`).
"""

from __future__ import annotations

import runpy
import zlib
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from support.asyncio_fakes import HIGH_WATER, Wire
from support.edge_oracle import (
    KINDS,
    Answering,
    check_answers,
    check_forwarded,
    check_nothing_is_left,
    cut,
    no_mistakes,
)
from support.edge_world import PAGE, QUIET, SECRET, WALL, World, get
from support.examples import examples
from support.http_reader import Message, read_sent, read_whole_responses
from waitroom.edge.client.request_cycle import READ_AHEAD
from waitroom.queue.store import Visited
from waitroom.tokens import Pass, Tokens

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
PASS = Tokens([SECRET], "shop").sign_pass(Pass(90, WALL + 100_000, WALL + 100_000)).encode()
INSIDE = b"Cookie: waitroom_pass_shop=" + PASS

# Streams of requests.

HEADERS = [
    *(
        b"X-A: 1",
        b"x-a:2",
        b"X-Empty:",
        b"Accept: text/html",
        b"Cookie: e=f",
        b"X-Long: " + b"z" * 300,
        b"TE: trailers",
    ),
    *(b"Cookie: a=b; waitroom_ticket_shop=x; c=d", b"Connection: close", b"Keep-Alive: 5"),
    b"Connection: keep-alive",
    *(b"Connection: x-a, host, cookie, content-length", b"Expect: 100-continue", b"X-Forwarded-For: 1.2.3.4"),
    *(b"Waitroom-Session: 1", b"Waitroom_Room: x", b"Upgrade: websocket", b"Connection: upgrade", b"Authorization: y"),
]
TARGETS = [
    b"/",
    b"//a",
    b"/a?b=c",
    b"/%2e%2e/;x=y/",
    b"http://shop.example/abs",
    b"/.waitroom/status",
    b"*",
    b"/'\"|^`",
]
BODIES = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.sampled_from([b"", b";a", b';a="b;c"'])), max_size=4),
)
# What another parser might take for the end of something.
BITS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n",
        b"\x00",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"0",
        b"0\r\n\r\n",
        b"5\r\n",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b" chunked",
    ),
    *(b"GET / HTTP/1.1\r\n", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"+", b"-", b"0x"),
    *(b"_", b"#", b"\\", b"%0d%0a", b" folded", b"\r\n folded: x", b"\x0b", b"\xff"),
]
MUTATION = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 12), st.sampled_from([b"", *BITS]))
MUTATIONS = st.lists(MUTATION, max_size=3)
CUTS = st.one_of(st.lists(st.floats(0, 1), max_size=8), st.sampled_from([1, 2, 3, 7, 50]))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.1", b"1.0"]))
    target = b"*" if method == b"OPTIONS" else draw(st.sampled_from(TARGETS))
    lines = [b"%b %b HTTP/%b" % (method, target, version), b"Host: shop.example"]
    lines += draw(st.lists(st.sampled_from(HEADERS), max_size=4))
    lines += draw(st.sampled_from([[INSIDE], [INSIDE], [INSIDE], []]))
    body = draw(BODIES)
    if body is None or (version == b"1.0" and isinstance(body, list)):
        return b"\r\n".join(lines) + b"\r\n\r\n"
    if isinstance(body, bytes):
        return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece, extension in body)
    trailer = draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"Content-Length: 3\r\n", b"waitroom-room: x\r\n"]))
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"


def mutated(data: bytes, mutations: Sequence[tuple[float, int, bytes]]) -> bytes:
    """The data with some bytes cut out, or written twice, and others put in."""
    for at, length, bit in mutations:
        start = int(at * len(data))
        end = start + length
        data = data[:start] + bit + data[end if bit else start - length if start >= length else start :]
    return data


ANSWERS = st.lists(st.sampled_from(KINDS), max_size=4)


END = st.sampled_from(["eof", "reset", "time"])


def end(world: World, wire: Wire, way: str) -> None:
    if way == "eof":
        wire.send_eof()
    elif way == "reset":
        wire.reset()
    for _ in range(8):
        world.pass_time(80)
    assert wire.lost


@settings(QUICK, max_examples=examples(100, long=2000))
@given(st.lists(requests(), min_size=1, max_size=4), MUTATIONS, CUTS, ANSWERS, CUTS, st.booleans(), END)
@example([b"GET /\xff HTTP/1.1\r\nHost: shop.example\r\n%b\r\n\r\n" % INSIDE], [], [], ["length"], [], False, "eof")
@example([b"GET / HTTP/1.0\r\n%b\r\n\r\n" % INSIDE], [], [], ["length"], [], False, "eof")
def test_random_requests(messages, mutations, cuts, kinds, answer_cuts, early, way):
    stream = mutated(b"".join(messages), mutations)
    with World() as world:
        shop = Answering(world, kinds, answer_cuts, early)
        wire = world.client()
        for piece in cut(stream, cuts):
            wire.send(piece)
            shop.work()
        sent = read_sent(stream)
        check_forwarded(sent, shop.seen)
        check_nothing_is_left(world, shop)
        end(world, wire, way)
        check_answers(wire, sent)
        no_mistakes(world)


@settings(QUICK, max_examples=examples(50, long=1000))
@given(st.lists(requests(), min_size=1, max_size=6), CUTS, ANSWERS, CUTS)
def test_random_valid_requests(messages, cuts, kinds, answer_cuts):
    """Nothing is wrong with them: all are answered, but those behind a last one."""
    stream = b"".join(messages)
    sent = read_sent(stream)
    assert len(sent) == len(messages)
    with World() as world:
        shop = Answering(world, kinds, answer_cuts)
        wire = world.client()
        for piece in cut(stream, cuts):
            wire.send(piece)
            shop.work()
        check_forwarded(sent, shop.seen)
        check_answers(wire, sent)
        closed = wire.got_eof or wire.lost
        answers, rest = read_whole_responses(wire.got, [message.method for message in sent] + [b"GET"], closed=closed)
        assert not rest
        assert len(answers) == len(sent) or closed
        end(world, wire, "eof")
        no_mistakes(world)


# Streams of answers.

RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%b",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n%.3b\r\n8\r\n%b\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000008 \r\n%b\r\n0; \r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n%b",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 8\r\n\r\n%b",
    b"HTTP/1.1 204 No Content\r\nX-M: %b\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nX-M: %b\r\n\r\n",
    b"HTTP/1.1 103 Hint\r\nLink: %b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%b",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX-M: %b\r\n\r\n",
    b"HTTP/1.1 500 No\r\nWaitroom-Command: release, hold=5, junk\r\nSet-Cookie: a=%b\r\nContent-Length: 0\r\n\r\n",
]
ROUND = st.tuples(
    st.sampled_from([b"GET", b"GET", b"HEAD", b"POST", b"OPTIONS"]),
    st.sampled_from(RESPONSES),
    MUTATIONS,
    CUTS,
    st.sampled_from(["stay", "stay", "eof", "reset", "both"]),
)


def whole(wire: Wire, method: bytes) -> tuple[list[Message], bytes]:
    return read_whole_responses(wire.got, [method], closed=wire.got_eof or (wire.lost and not wire.aborted))


@settings(QUICK, max_examples=examples(100, long=2000))
@given(st.lists(ROUND, min_size=1, max_size=5), st.sampled_from([b"1.1", b"1.1", b"1.0"]), END)
def test_random_responses(rounds, version, way):
    """A client asks one after the other, over one connection as long as it lasts; the marks must stay with theirs."""
    marks = [b"%08x" % zlib.crc32(b"mark %d" % number) for number in range(len(rounds))]
    with World() as world:
        wire = world.client()
        got: list[bytes] = []
        for number, (method, text, mutations, cuts, then) in enumerate(rounds):
            if wire.got_eof or wire.lost:
                wire = world.client()
            wire.clear()
            request = get(b"/%d" % number, INSIDE, b"Connection: keep-alive", method=method)
            wire.send(request.replace(b"HTTP/1.1", b"HTTP/" + version))
            pieces = cut(mutated(text.replace(b"%.3b", b"%b").replace(b"%b", marks[number]), mutations), cuts)
            for at, piece in enumerate(pieces):
                for shop in world.shop.open:
                    if then == "both" and at == len(pieces) - 1:
                        shop.send_and_close(piece)
                    else:
                        shop.send(piece)
            for shop in world.shop.open:
                if then == "eof":
                    shop.send_eof()
                elif then == "reset":
                    shop.reset()
            answers, rest = whole(wire, method)
            if not answers:
                world.pass_time(60)  # for those who wait for more
                answers, rest = whole(wire, method)
            assert len(answers) == 1 or wire.aborted
            assert not rest or wire.aborted
            got.append(wire.got)
            if wire.aborted:
                assert wire.lost
        for number, text in enumerate(got):
            for other, mark in enumerate(marks):
                assert mark not in text or other == number, "an answer to another request"
        end(world, wire, way)
        no_mistakes(world)


# Random lives.


class Lives(RuleBasedStateMachine):
    """Some visitors, a shop and a store, all of whom do as they please."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World

    @initialize(quiet=st.booleans(), most=st.integers(1, 3))
    def begin(self, quiet: bool, most: int) -> None:
        self.world = World(upstream_max_connections=most, on_store_error="hold").__enter__()
        if quiet:
            self.world.view = QUIET
        self.world.store.admits = 5
        self.world.store.fates[99] = Visited("admitted", 14_400_000)

    def clients(self) -> list[Wire]:
        return [wire for wire in self.world._wires if not wire.is_closing()]

    def one(self, wires: list[Wire], which: int) -> Wire | None:
        return wires[which % len(wires)] if wires else None

    @rule()
    def connect(self) -> None:
        if len(self.clients()) < 5:
            self.world.client()

    @rule(
        which=st.integers(0, 4),
        kind=st.sampled_from(
            ["inside", "post", "chunked", "page", "claim", "status", "upgrade", "big", "expects", "many"]
        ),
        share=st.sampled_from([1.0, 1.0, 1.0, 0.3, 0.9]),
    )
    def ask(self, which: int, kind: str, share: float) -> None:
        wire = self.one(self.clients(), which) or self.world.client()
        ticket = b"Waitroom-Ticket: " + self.world.ticket(99)
        chunked = b"Transfer-Encoding: chunked"
        upgrade = (b"Connection: Upgrade", b"Upgrade: websocket")
        data = {
            "inside": get(b"/a", INSIDE),
            "post": get(b"/a", INSIDE, method=b"POST", body=b"x" * 50),
            "chunked": get(b"/a", INSIDE, chunked, method=b"POST") + b"5\r\nhello\r\n0\r\n\r\n",
            "page": get(b"/a", PAGE),
            "claim": get(b"/a", PAGE, ticket),
            "status": get(b"/.waitroom/status", ticket),
            "upgrade": get(b"/ws", INSIDE, *upgrade) + b"frame",
            "big": get(b"/a", INSIDE, method=b"PUT", body=b"x" * 100_000),
            "expects": get(b"/a", INSIDE, b"Expect: 100-continue", method=b"POST", body=b"y" * 9),
            "many": get(b"/a", INSIDE) * 30,
        }[kind]
        wire.send(data[: int(len(data) * share)])

    @rule(which=st.integers(0, 4), way=st.sampled_from(["eof", "reset"]))
    def leave(self, which: int, way: str) -> None:
        wire = self.one(self.clients(), which)
        if wire is not None:
            wire.send_eof() if way == "eof" else wire.reset()

    @rule(which=st.integers(0, 4), size=st.sampled_from([None, 0, 0, 100, 30_000]))
    def take(self, which: int, size: int | None) -> None:
        wire = self.one(self.clients() + self.world.shop.open, which)
        if wire is None:
            return
        if size == 0:
            wire.taking = False
        else:
            wire.take(size)

    @rule(
        which=st.integers(0, 4),
        data=st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000,
                b"x" * 50_000,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                b"0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nframe",
                b"HTTP/1.1 103 Hint\r\n\r\n",
                b"HTTP/1.1 200",
                b"rubbish\r\n\r\n",
            ]
        ),
    )
    def shop_says(self, which: int, data: bytes) -> None:
        wire = self.one(self.world.shop.open, which)
        if wire is not None:
            wire.send(data)

    @rule(which=st.integers(0, 4), way=st.sampled_from(["eof", "reset", "both"]))
    def shop_ends(self, which: int, way: str) -> None:
        wire = self.one(self.world.shop.open, which)
        if wire is not None:
            if way == "both":
                wire.send_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            else:
                wire.send_eof() if way == "eof" else wire.reset()

    @rule(hangs=st.booleans(), refuses=st.booleans())
    def shop_door(self, hangs: bool, refuses: bool) -> None:
        self.world.shop.refuses = ConnectionRefusedError("refused") if refuses else None
        if hangs:
            self.world.shop.hangs = True
        else:
            self.world.shop.let_in()

    @rule(name=st.sampled_from(["join", "visit", "change_sessions"]))
    def store_hangs(self, name: str) -> None:
        if name not in self.world.store._held:
            self.world.store.hold(name)

    @precondition(lambda self: self.world.store._held)
    @rule()
    def store_goes_on(self) -> None:
        for name in list(self.world.store._held):
            self.world.store.let_go(name)

    @rule(broken=st.booleans())
    def store_breaks(self, broken: bool) -> None:
        self.world.store.broken = "all" if broken else set()
        if not self.world.store._held:
            self.world.loop.wait(self.world.room.refresh())
            self.world.loop.wait(self.world.room.flush())

    @rule(seconds=st.sampled_from([0.5, 2, 5, 30, 61, 700]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    def teardown(self) -> None:
        world = self.world
        for wire in [*self.world._wires, *world.shop.wires]:
            protocol = wire.protocol
            if not wire.lost and hasattr(protocol, "_buffer"):
                assert len(protocol._buffer) <= READ_AHEAD + 100_000
            assert wire.unsent <= HIGH_WATER + 2 * 100_000
        for name in list(world.store._held):
            world.store.let_go(name)
        world.store.broken = set()
        no_mistakes(world)
        world.__exit__(None, None, None)


def test_random_connections():
    run_state_machine_as_test(
        Lives, settings=settings(QUICK, max_examples=examples(50, long=1000), stateful_step_count=25)
    )


# The target that is fuzzed by hand.

FLAGS = st.integers(0, 255)


@settings(QUICK, max_examples=examples(10, long=200))
@given(FLAGS, FLAGS, st.one_of(st.lists(requests(), max_size=2), st.sampled_from(RESPONSES)))
def test_the_target_for_fuzzing_by_hand_still_works(flags, cuts, data):
    target = runpy.run_path(str(Path(__file__).parents[1] / "fuzz" / "edge_target.py"), run_name="target")
    target["one_input"](bytes([flags, cuts]) + (data if isinstance(data, bytes) else b"".join(data)))
