"""Judges what the edge makes of random bytes: an answering shop, and what must hold of what it and the client got."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from support.asyncio_fakes import Wire
from support.edge_world import World, get
from support.http_reader import Message, read_requests, read_whole_responses

KINDS = ("length", "chunked", "none", "unchanged", "close", "old", "hint", "last")


def cut(data: bytes, cuts: Sequence[float] | int) -> list[bytes]:
    """The data in pieces of one size, or cut at places between 0 and 1."""
    if isinstance(cuts, int):
        return [data[at : at + cuts] for at in range(0, len(data), cuts)]
    places = sorted({0, len(data), *(int(at * len(data)) for at in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@dataclass
class Answering:
    """Answers every request it can read with one that tells what was read.

    Attributes:
        kinds: What sort of answers, in turn; see `KINDS`.
        cuts: Where those are cut.
        early: Whether an answer comes before the body.
        seen: All requests, by their ids.
    """

    world: World
    kinds: Sequence[str]
    cuts: Sequence[float] | int = ()
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


def echo(message: Message) -> bytes:
    """What tells one request from another, and is known before its body has come."""
    target = message.target
    if target.startswith(b"http://"):
        target = b"/" + target.split(b"/", 3)[3]
    return b"%b %b" % (message.method, target)


# What the shop must get of a client's headers.

OURS = {
    *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"),
    *(b"waitroom-room", b"waitroom-session", b"waitroom-ticket", b"waitroom-pass", b"waitroom-proof"),
}
HOPS = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"expect", b"proxy-authorization"),
    *(b"proxy-authenticate", b"transfer-encoding", b"forwarded"),
}
NO_HOST = (b"Host", b"shop.internal:3000")  # what a request of HTTP/1.0 without a Host is sent with
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
        elif lower in listed or plain in OURS or plain in HOPS or plain in (b"transfer-encoding", b"forwarded"):
            continue
        elif b"_" not in lower or plain not in KEPT:
            found.append((name, value))
    return found if sent.all(b"Host") else [*found, NO_HOST]


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
        got = [(name, value) for name, value in message.headers if name.lower() not in OURS]
        added = (b"Transfer-Encoding", b"Connection", b"Upgrade")
        assert [(name, value) for name, value in got if name not in added] == expected(request)


def check_answers(wire: Wire, sent: Sequence[Message]) -> None:
    """What the client got are answers, each to its own request; only one that was cut short isn't whole."""
    closed = wire.got_eof or (wire.lost and not wire.aborted)
    answers, rest = read_whole_responses(wire.got, [*(message.method for message in sent), b"GET"], closed=closed)
    # What isn't a whole request may begin as a HEAD: then a head is a whole answer, the last one.
    bodiless = len(answers) == len(sent) and rest.find(b"\r\n\r\n") == len(rest) - 4
    assert not rest or wire.aborted or not wire.lost or bodiless, rest
    for index, answer in enumerate(answers):
        if b"X-Echo" in answer:
            # One that came early may be to a request whose body is broken, or still missing.
            assert index <= len(sent)
            assert index == len(sent) or answer[b"X-Echo"] == echo(sent[index])
            assert int(answer[b"X-Id"][-8:], 16) - 1 == index, "an answer to another request"
            if answer.body:
                assert answer.body == answer[b"X-Id"] * 3


def no_mistakes(world: World) -> None:
    """Where something went wrong that was nobody's fault but ours, the log says so."""
    assert [entry for entry in world.logs if entry["log_level"] == "error"] == []


def check_nothing_is_left(world: World, shop: Answering) -> None:
    """Another visitor's request gets its own answer, whatever came over the connections before."""
    wire = world.client()
    wire.send(get(b"/another", world.inside(91)))
    shop.work()
    (answer,), rest = read_whole_responses(wire.got, [b"GET"], closed=wire.got_eof or wire.lost)
    assert answer[b"X-Echo"] == b"GET /another"
    assert not rest
