"""The same bytes through Debian's nginx and through a gateway, to one shop that keeps them: what came out of each.

What came out is a `Facts`, a flat table of what arrived at the shop and what came back. The two tables are compared
line by line. Where they differ on purpose, a test says so by a `Difference`, which pins both and gives the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support.gateway_process import Gateway, eventually, room
from support.http_reader import Message, read_whole_responses
from support.nginx import nginx_command
from support.ports import free_port, port_is_free
from support.upstreams.recording import MARK, PAGE, Arrived, Pairs, RecordingShop, Reply, pairs

HOST = b"pair.test"
SECONDS = 20.0
DATES = [b"Wed, 21 Oct 2015 07:28:0%d GMT" % second for second in range(3)]
NGINX = """
    # As little of its own as it can be told to: what is sent goes on, whatever it looks like.
    merge_slashes off;
    underscores_in_headers on;
    ignore_invalid_headers off;
    large_client_header_buffers 8 64k;
    client_max_body_size 0;
    keepalive_requests 1000000;

    upstream shop {{ server 127.0.0.1:{shop}; keepalive 16; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://shop;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_buffer_size 64k;
            proxy_buffers 8 64k;
            proxy_next_upstream off;
            proxy_redirect off;
            proxy_pass_header Date;
            proxy_pass_header Server;
        }}
    }}
"""

# What each proxy adds by design, and nothing of this was sent by a client here.
ADDED_BY_WAITROOM = frozenset(
    (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id", b"waitroom-room")
)
FRAMING = frozenset((b"content-length", b"transfer-encoding"))
# Nginx writes these before all others, in an order and spelling of its own.
NGINX_MOVES = frozenset((b"server", b"date", b"content-type", b"last-modified", b"location"))
HOP = frozenset((b"connection", b"keep-alive"))


@dataclass(frozen=True)
class Await:
    """The client sends nothing more until it has received these bytes."""

    mark: bytes


@dataclass(frozen=True)
class Forwarded:
    """The client sends nothing more until so many heads have arrived at the shop, and ``body`` behind the last.

    Nginx gives a body a length if all of its chunks come with the head, and leaves it in chunks else.
    """

    heads: int = 1
    body: bytes = b""


class HalfClose:
    """The client closes its side, and goes on when the proxy has seen it."""


class GoOn:
    """The client has the shop send what it keeps back of an answer."""


HALF_CLOSE, GO_ON = HalfClose(), GoOn()
Step = bytes | Await | Forwarded | HalfClose | GoOn
Facts = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """Where Waitroom isn't nginx, on purpose.

    Attributes:
        fact: Of the table.
        nginx, waitroom: What it is with each; None where there is no such fact.
        why: The reason.
    """

    fact: str
    nginx: Any
    waitroom: Any
    why: str


def talk(shop: RecordingShop, port: int, steps: Sequence[Step], methods: Sequence[bytes]) -> tuple[bytes, bool]:
    """Does as a client does, and reads until all is answered. Returns what came, and whether the proxy closed."""
    got = bytearray()
    with socket.create_connection(("127.0.0.1", port), SECONDS) as line:
        sending = threading.Thread(target=_send, args=(shop, line, port, steps, got, changed := threading.Condition()))
        sending.start()
        closed = False
        try:
            while not closed and not _answered(bytes(got), methods):
                piece = _receive(line)
                with changed:
                    got += piece
                    closed = not piece
                    changed.notify()
            sending.join(SECONDS)
            if not closed and _says_close(bytes(got), methods):
                while piece := _receive(line):
                    got += piece
                closed = True
        finally:
            if not closed:
                line.shutdown(socket.SHUT_RDWR)
            with changed:
                changed.notify()
            sending.join(SECONDS)
    return bytes(got), closed


def _receive(line: socket.socket) -> bytes:
    try:
        return line.recv(1 << 18)
    except ConnectionError:
        return b""


def _send(
    shop: RecordingShop,
    line: socket.socket,
    port: int,
    steps: Sequence[Step],
    got: bytearray,
    changed: threading.Condition,
) -> None:
    with contextlib.suppress(OSError):  # whoever refuses a request may close before it is all sent
        for step in steps:
            if isinstance(step, Await):
                with changed:
                    if not changed.wait_for(lambda mark=step.mark: mark in got, SECONDS):
                        return
            elif isinstance(step, Forwarded):
                if not shop.wait_for(step.heads, step.body):
                    return
            elif isinstance(step, HalfClose):
                line.shutdown(socket.SHUT_WR)
                look_round(port)
            elif isinstance(step, GoOn):
                shop.go_on()
            else:
                line.sendall(step)


def look_round(port: int) -> None:
    """Returns when the proxy has seen all that came to it before: what comes later is refused later.

    Without it, what the shop says next could be read first: between two sockets there is no order.
    """
    with socket.create_connection(("127.0.0.1", port), SECONDS) as line:
        line.sendall(b"GET / HTTP/1.1\r\n\r\n")  # has no host, so that no shop is asked
        while _receive(line):
            pass


def _answered(got: bytes, methods: Sequence[bytes]) -> bool:
    answers, _ = read_whole_responses(got, methods, closed=False)
    return len(answers) == len(methods) or bool(
        answers and _own(answers[-1]) and b"close" in answers[-1].all(b"Connection")
    )


def _says_close(got: bytes, methods: Sequence[bytes]) -> bool:
    answers, _ = read_whole_responses(got, methods, closed=False)
    return bool(answers) and b"close" in [value.lower() for value in answers[-1].all(b"Connection")]


def _own(answer: Message) -> bool:
    """Whether the proxy itself has said it."""
    return MARK not in answer


def _arrived(facts: Facts, at: int, request: Arrived) -> None:
    where = f"shop {at}"
    facts[f"{where} line"] = request.line
    facts[f"{where} host"] = request.all(b"Host")
    facts[f"{where} headers"] = [
        (name, value)
        for name, value in request.headers
        if name.lower() not in FRAMING | ADDED_BY_WAITROOM | HOP | {b"host"}
    ]
    facts[f"{where} framing"] = (request.framing, request.all(b"Content-Length"))
    facts[f"{where} body"] = request.body
    facts[f"{where} whole"] = request.whole
    facts[f"{where} trailers"] = request.trailers


def _came_back(facts: Facts, at: int, answer: Message) -> None:
    where = f"client {at}"
    if _own(answer):
        facts[f"{where} own"] = f"{answer.status // 100}xx"
        return
    version, status, *reason = answer.start.split(b" ", 2)
    facts[f"{where} status"] = (version, status, b"".join(reason))
    others = [(name, value) for name, value in answer.headers if name.lower() not in HOP | FRAMING]
    facts[f"{where} all headers"] = others
    facts[f"{where} headers"] = [pair for pair in others if pair[0].lower() not in NGINX_MOVES]
    facts[f"{where} first headers"] = sorted(
        (name.lower(), value) for name, value in others if name.lower() in NGINX_MOVES
    )
    facts[f"{where} framing"] = (answer.framing, answer.all(b"Content-Length"))
    facts[f"{where} body"] = answer.body
    facts[f"{where} trailers"] = answer.trailers


def _interim(got: bytes) -> list[tuple[bytes, Pairs]]:
    found = []
    while got[:10] == b"HTTP/1.1 1" and got[9:12] != b"101":
        head, _, got = got.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        found.append((start.split(b" ")[1], pairs(lines)))
    return found


@dataclass
class Proxies:
    """Nginx and a gateway before one shop."""

    shop: RecordingShop
    ports: dict[str, int]

    def through(
        self, name: str, steps: Sequence[Step], methods: Sequence[bytes], replies: Sequence[Reply] = ()
    ) -> tuple[Facts, list[Arrived], bytes]:
        """What came of it: the facts, what arrived, and the bytes the client got."""
        self.shop.replies.extend(replies)
        try:
            got, closed = talk(self.shop, self.ports[name], steps, methods)
        finally:
            arrived = self.shop.take()
        facts: Facts = {"shop count": len(arrived)}
        for at, request in enumerate(arrived, 1):
            _arrived(facts, at, request)
        answers, rest = read_whole_responses(got, methods, closed=closed)
        facts |= {"client count": len(answers), "client cut": bool(rest), "client closed": closed}
        facts["client interim"] = _interim(got)
        for at, answer in enumerate(answers, 1):
            _came_back(facts, at, answer)
        return facts, arrived, got

    def verdict(self, name: str, steps: Sequence[Step], method: bytes = b"GET") -> int | str:
        """What becomes of a request that may be none: ``forwards``, or the status it is refused with.

        Raises:
            AssertionError: It is refused, and the shop gets it all the same, or the client may go on behind it.
        """
        facts, arrived, got = self.through(name, steps, [method])
        if any(request.whole for request in arrived):
            return "forwards"
        assert MARK not in got, got
        status = int(got[9:12])
        # Of a host that nobody here has, nothing is ambiguous.
        assert facts["client closed"] or status == 421, facts
        return status

    def compare(
        self,
        steps: Sequence[Step],
        methods: Sequence[bytes],
        replies: Sequence[Reply] = (PAGE,),
        differs: Sequence[Difference] = (),
        *,
        dates: Sequence[bytes] = DATES,
    ) -> Facts:
        """Sends the same through both, and judges. Returns what came of it through Waitroom.

        For each of the dates it is sent through Waitroom once more, and the shop answers with that date.

        Raises:
            AssertionError: They differ where they shouldn't, or don't where they should.
        """
        nginx, _, _ = self.through("nginx", steps, methods, replies)
        waitroom = self._waitroom(steps, methods, replies, differs)
        judge(nginx, waitroom, differs)
        if bodies_whole(steps):
            # Held until they are all there, they reach the shop as if nothing had happened.
            held = [step for step in steps if not isinstance(step, Forwarded)]
            assert _undated(self._waitroom(held, methods, replies, differs, "holding")) == _undated(waitroom)
        # Heads that come again are remembered, but for their dates: that must not change what is made of them.
        for date in dates:
            again = self._waitroom(steps, methods, [_dated(reply, date) for reply in replies], differs)
            assert _undated(again) == _undated(waitroom)
        return waitroom

    def _waitroom(
        self,
        steps: Sequence[Step],
        methods: Sequence[bytes],
        replies: Sequence[Reply],
        differs: Sequence[Difference],
        name: str = "waitroom",
    ) -> Facts:
        facts, arrived, _ = self.through(name, steps, methods, replies)
        for request in arrived:
            missing = ADDED_BY_WAITROOM - {name.lower() for name, _ in request.headers}
            assert not missing or missing == {b"x-forwarded-host"}, missing
        meant = {one.fact for one in differs}
        for at, reply in enumerate(replies, 1):
            if f"client {at} status" in facts and not _has_date(_end_to_end(reply)):
                # A gateway that has a clock tells the date where the shop doesn't (RFC 9110, section 6.6.1).
                assert _has_date(facts[f"client {at} all headers"])
                for name in ("all headers", "headers", "first headers"):
                    facts[f"client {at} {name}"] = [
                        pair for pair in facts[f"client {at} {name}"] if pair[0].lower() != b"date"
                    ]
            if f"client {at} status" in facts and f"client {at} headers" not in meant:
                # Nginx moves some to the front; here all keep their places.
                assert facts[f"client {at} all headers"] == _end_to_end(reply)
        return facts


def bodies_whole(steps: Sequence[Step]) -> bool:
    """Whether a client waits for the shop only where that has all it needs, but for a body."""
    waits = [step for step in steps if isinstance(step, Forwarded)]
    return bool(waits) and not any(step.body for step in waits) and GO_ON not in steps and HALF_CLOSE not in steps


def _dated(reply: Reply, date: bytes) -> Reply:
    """The reply with a date, if it has none; behind the mark, so that it is in the final answer."""
    if b"\r\nDate:" in reply.data:
        return reply
    return replace(reply, data=reply.data.replace(b"X-Shop: 1\r\n", b"X-Shop: 1\r\nDate: %b\r\n" % date, 1))


def _undated(facts: Facts) -> Facts:
    return {
        name: [pair for pair in value if pair[0].lower() != b"date"] if name.endswith("headers") else value
        for name, value in facts.items()
    }


def _has_date(headers: Pairs) -> bool:
    return any(name.lower() == b"date" for name, _ in headers)


def _end_to_end(reply: Reply) -> Pairs:
    """The header lines of a reply but those of its framing."""
    data = reply.data
    while data[9:10] == b"1":
        data = data.partition(b"\r\n\r\n")[2]
    lines = data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [pair for pair in pairs(lines) if pair[0].lower() not in HOP | FRAMING]


def judge(nginx: Facts, waitroom: Facts, differs: Sequence[Difference]) -> None:
    """Compares two tables, but for the differences that are meant."""
    meant = {one.fact: one for one in differs}
    for one in differs:
        assert one.why
        assert one.nginx != one.waitroom, f"{one.fact} is no difference"
        assert nginx.get(one.fact) == one.nginx, f"nginx: {one.fact}"
        assert waitroom.get(one.fact) == one.waitroom, f"Waitroom: {one.fact}"
    found = {
        name: (nginx.get(name), waitroom.get(name))
        for name in sorted(nginx.keys() | waitroom.keys())
        if nginx.get(name) != waitroom.get(name) and name not in meant and not name.endswith("all headers")
    }
    assert not found, "\n".join(f"{name}: nginx {one!r}, Waitroom {two!r}" for name, (one, two) in found.items())


def request(
    target: bytes = b"/",
    *lines: bytes,
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
    host: bytes | None = HOST,
    body: bytes = b"",
) -> bytes:
    """A request to the byte; ``body`` with its framing."""
    first = () if host is None else (b"Host: " + host,)
    return b"\r\n".join((b"%b %b %b" % (method, target, version), *first, *lines, b"", b"")) + body


@contextlib.contextmanager
def running_nginx(folder: Path, shop: int) -> Iterator[int]:
    """Debian's nginx before a shop; gives its port."""
    port = free_port()
    process = subprocess.Popen(nginx_command(folder, NGINX.format(shop=shop, port=port)))

    async def started() -> None:
        await eventually(lambda: process.poll() is not None or not port_is_free(port))

    try:
        asyncio.run(started())
        assert process.poll() is None, (folder / "error.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(SECONDS)


@contextlib.contextmanager
def two_proxies(folder: Path) -> Iterator[Proxies]:
    """Both, ready. The gateways' rooms only count, so that requests are let by as they are.

    One gateway passes bodies on as they come, as this nginx does; another, ``holding``, does what gateways do by
    default.
    """
    for name in ("gateway", "holding"):
        os.makedirs(folder / name, exist_ok=True)
    with (
        RecordingShop() as shop,
        running_nginx(folder / "nginx", shop.port) as port,
        asyncio.Runner() as runner,
    ):
        rooms = [room("pair", hosts=[HOST.decode()], upstream=f"http://127.0.0.1:{shop.port}", method="passthrough")]
        common = {"workers": 1, "log_level": "error"}
        gateway = Gateway(folder / "gateway", {**common, "client_body_buffer_bytes": 0}, rooms)
        holding = Gateway(folder / "holding", common, rooms)
        try:
            runner.run(gateway.start())
            runner.run(holding.start())
            yield Proxies(shop, {"nginx": port, "waitroom": gateway.port, "holding": holding.port})
        finally:
            runner.run(holding.close())
            runner.run(gateway.close())
