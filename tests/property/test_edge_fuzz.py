"""The edge against random bytes: streams of requests and of answers, mutated and cut anywhere, and random lives.

Whatever comes, no exception escapes, nothing is left behind, every answer belongs to its request, and all that reaches
the shop reads there as it read where the client sent it. That is judged by an independent reader (`http_reader.py`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from edge_harness import PAGE, QUIET, SECRET, WALL, World, get
from http_reader import Message, read_requests, read_sent, read_whole_responses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from wires import HIGH_WATER, Wire

from waitroom.edge.client import READ_AHEAD
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
CUTS = st.lists(st.floats(0, 1), max_size=8)


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


def cut(data: bytes, cuts: Sequence[float]) -> list[bytes]:
    places = sorted({0, len(data), *(int(at * len(data)) for at in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


# A shop that answers what it reads.


@dataclass
class Answering:
    """Answers every request it can read with one that tells what was read.

    Attributes:
        kinds: What sort of answers, in turn.
        cuts: Where those are cut.
        early: Whether an answer comes before the body.
        seen: All requests, by their ids.
    """

    world: World
    kinds: Sequence[str]
    cuts: Sequence[float] = ()
    early: bool = False
    seen: dict[bytes, Message] = field(default_factory=dict)
    _answered: dict[Wire, int] = field(default_factory=dict)
    _count: int = 0

    def work(self) -> None:
        """Answers until there is nothing more to answer."""
        while any(self._answer(wire) for wire in list(self.world.shop.wires)):
            pass

    def _answer(self, wire: Wire) -> bool:
        messages, rest = read_requests(wire.got)
        for message in messages:
            self.seen[message[b"X-Request-Id"]] = message
        done = self._answered.get(wire, 0)
        if done < len(messages):
            message = messages[done]
        elif self.early and done == len(messages) and b"\r\n\r\n" in rest:
            head = rest.partition(b"\r\n\r\n")[0]
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"content-l", b"transfer-e"))]
            (message,), _ = read_requests(b"\r\n".join(lines) + b"\r\n\r\n")
        else:
            return False
        self._answered[wire] = done + 1
        for piece in cut(self._text(message), self.cuts):
            wire.send(piece)
        if self._closes and not wire.lost:
            wire.send_eof()
        return True

    def _text(self, message: Message) -> bytes:
        kind = self.kinds[self._count % len(self.kinds)] if self.kinds else "length"
        self._count += 1
        self._closes = kind in ("close", "old")
        body = message[b"X-Request-Id"] * 3
        lines = [b"X-Echo: " + echo(message), b"X-Id: " + message[b"X-Request-Id"]]
        framed = body
        before, start = b"", b"HTTP/1.1 200 OK"
        match kind:
            case "chunked":
                lines.append(b"Transfer-Encoding: chunked")
                framed = b"5;x\r\n%b\r\n%x\r\n%b\r\n0\r\nX-T: 1\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
            case "none":
                start, framed = b"HTTP/1.1 204 No Content", b""
            case "unchanged":
                start, framed = b"HTTP/1.1 304 Not Modified", b""
            case "close" | "old":
                start = b"HTTP/1.0 200 OK" if kind == "old" else start
            case "hint":
                before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                lines.append(b"Content-Length: %d" % len(body))
            case "last":
                lines += [b"Content-Length: %d" % len(body), b"Connection: close"]
            case _:
                lines.append(b"Content-Length: %d" % len(body))
        if message.method == b"HEAD":
            framed = b""
        return before + b"\r\n".join([start, *lines]) + b"\r\n\r\n" + framed


KIND = st.sampled_from(["length", "chunked", "none", "unchanged", "close", "old", "hint", "last"])
KINDS = st.lists(KIND, max_size=4)


def echo(message: Message) -> bytes:
    """What tells one request from another, and is known before its body has come."""
    target = message.target
    if target.startswith(b"http://"):
        target = b"/" + target.split(b"/", 3)[3]
    return b"%b %b" % (message.method, target)


# What the shop must get of a client's headers.

OURS = (b"x-forwarded-", b"x-request-id", b"waitroom-")
HOPS = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"expect", b"proxy-authorization"),
    *(b"proxy-authenticate", b"transfer-encoding", b"forwarded"),
}
KEPT = {b"host", b"content-length", b"cookie", b"authorization", b"content-type", b"set-cookie", b"cache-control"}


def expected(sent: Message) -> list[tuple[bytes, bytes]]:
    listed = {one.strip().lower() for value in sent.all(b"Connection") for one in value.split(b",")} - KEPT
    found, cookies = [], False
    for name, value in sent.headers:
        lower = name.lower()
        plain = lower.replace(b"_", b"-")
        if lower == b"cookie":
            found += [] if cookies else foreign(sent)
            cookies = True
        elif (
            lower in listed or plain.startswith(OURS) or plain in HOPS or plain in (b"transfer-encoding", b"forwarded")
        ):
            continue
        elif b"_" not in lower or plain not in KEPT:
            found.append((name, value))
    return found


def foreign(sent: Message) -> Iterator[tuple[bytes, bytes]]:
    for line in sent.all(b"Cookie"):
        if b"waitroom_" in line:
            pairs = [pair.strip() for pair in line.split(b";")]
            line = b"; ".join(pair for pair in pairs if pair and not pair.startswith(b"waitroom_"))
        if line:
            yield b"Cookie", line


def check_forwarded(sent: Sequence[Message], seen: dict[bytes, Message]) -> None:
    """Every request at the shop is one of the client's, at its place, and the same."""
    for id_, message in seen.items():
        index = int(id_[-8:], 16) - 1
        assert index < len(sent), "the shop got a request that the client didn't send"
        request = sent[index]
        assert echo(message) == echo(request)
        assert message.framing == request.framing
        assert message.body == request.body
        got = [(name, value) for name, value in message.headers if not name.lower().startswith(OURS)]
        added = (b"Transfer-Encoding", b"Connection", b"Upgrade")
        assert [(name, value) for name, value in got if name not in added] == expected(request)


def check_answers(wire: Wire, sent: Sequence[Message]) -> None:
    """What the client got are answers, each to its own request; only one that was cut short isn't whole."""
    closed = wire.got_eof or (wire.lost and not wire.aborted)
    answers, rest = read_whole_responses(wire.got, [*(message.method for message in sent), b"GET"], closed=closed)
    headless = rest.startswith(b"HTTP/1.1 4") and rest.endswith(b"\r\nConnection: close\r\n\r\n")
    assert not rest or wire.aborted or not wire.lost or headless, rest  # a refusal of what begins as a HEAD
    for index, answer in enumerate(answers):
        if b"X-Echo" in answer:
            assert answer[b"X-Echo"] == echo(sent[index])
            assert int(answer[b"X-Id"][-8:], 16) - 1 == index, "an answer to another request"
            if answer.body:
                assert answer.body == answer[b"X-Id"] * 3


def no_mistakes(world: World) -> None:
    """Where something went wrong that was nobody's fault but ours, the log says so."""
    assert [entry for entry in world.logs if entry["log_level"] == "error"] == []


END = st.sampled_from(["eof", "reset", "time"])


def end(world: World, wire: Wire, way: str) -> None:
    if way == "eof":
        wire.send_eof()
    elif way == "reset":
        wire.reset()
    for _ in range(8):
        world.pass_time(80)
    assert wire.lost


@settings(QUICK, max_examples=400)
@given(st.lists(requests(), min_size=1, max_size=4), MUTATIONS, CUTS, KINDS, CUTS, st.booleans(), END)
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
        end(world, wire, way)
        check_answers(wire, sent)
        no_mistakes(world)


@settings(QUICK, max_examples=150)
@given(st.lists(requests(), min_size=1, max_size=6), CUTS, KINDS, CUTS)
def test_random_requests_that_are_ones(messages, cuts, kinds, answer_cuts):
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


@settings(QUICK, max_examples=400)
@given(st.lists(ROUND, min_size=1, max_size=5), st.sampled_from([b"1.1", b"1.1", b"1.0"]), END)
def test_random_answers(rounds, version, way):
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
        self.world.store.fates[99] = Visited("admitted", 0)

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


def test_random_lives():
    run_state_machine_as_test(Lives, settings=settings(QUICK, max_examples=150, stateful_step_count=25))
