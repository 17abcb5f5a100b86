"""What the shop answers comes back through the gateway as it does through Debian's nginx, and keeps its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from support.http_reader import UnreadableError
from support.reference_proxy import GO_ON, HALF_CLOSE, Await, Difference, Forwarded, Proxies, Step, look_round, request
from support.upstreams.recording import PAGE, Pairs, Reply

pytestmark = pytest.mark.slow

CHUNKED = b"Transfer-Encoding: chunked"
EVERY_BYTE = bytes(range(256)) * 4096
SHOP = (b"X-Shop", b"1")


def head(*lines: bytes, status: bytes = b"200 OK", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join((version + b" " + status, b"X-Shop: 1", *lines, b"", b""))


def page(*lines: bytes, body: bytes = b"fine\n", status: bytes = b"200 OK", version: bytes = b"HTTP/1.1") -> bytes:
    return head(*lines, b"Content-Length: %d" % len(body), status=status, version=version) + body


@dataclass(frozen=True)
class Case:
    """An answer, and where the two proxies differ on purpose."""

    reply: Reply
    differs: Sequence[Difference] = ()
    method: bytes = b"GET"


def whole(*lines: bytes, status: bytes = b"200 OK", differs: Sequence[Difference] = ()) -> Case:
    return Case(Reply(page(*lines, status=status)), differs)


def headers(nginx: Pairs, waitroom: Pairs, why: str) -> list[Difference]:
    return [Difference("client 1 headers", [SHOP, *nginx], [SHOP, *waitroom], why)]


def interim(nginx: list[tuple[bytes, Pairs]], waitroom: list[tuple[bytes, Pairs]], why: str) -> list[Difference]:
    return [Difference("client interim", nginx, waitroom, why)]


KEPT = (b"Connection", b"keep-alive")
HEADERS: dict[str, Case] = {
    "a page": Case(PAGE),
    "what every shop says": whole(
        *(b"Date: Wed, 21 Oct 2015 07:28:00 GMT", b"Server: shop/1.0", b"Content-Type: text/html; charset=utf-8"),
        *(b"Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT", b'ETag: W/"x"', b"Accept-Ranges: bytes", b"Vary: Accept"),
        *(b"Cache-Control: no-cache", b"Cache-Control: private", b"Expires: 0", b"Content-Encoding: gzip"),
        *(b"Link: </a>; rel=preload", b"Link: </b>; rel=preload", b"Vary: Cookie", b"Content-Language: de"),
        *(b"Strict-Transport-Security: max-age=1", b"X-Frame-Options: DENY", b"Refresh: 5", b"Alt-Svc: clear"),
    ),
    "a dozen cookies, several of one name": whole(
        *(b"Set-Cookie: %b=%d; Path=/%d; HttpOnly" % (name, at, at) for at, name in enumerate([b"a", b"b", b"a"] * 4))
    ),
    "cookies with others between": whole(b"Set-Cookie: a=1", b"X-Between: 1", b"set-cookie: b=2", b"SET-COOKIE: a=3"),
    "names keep their case and their order": whole(b"x-lower: 1", b"X-UPPER: 2", b"x-LOWER: 3", b"X-A: 4"),
    "every character of a token": whole(b"!#$%&'*+-.^_`|~09azAZ: 1"),
    "values that are empty": whole(b"X-Empty:", b"X-Spaces:   ", b"X-Next: 1"),
    "white space around values": whole(b"X-Spaces:   a  b  ", b"X-None:c", b"X-Tab:\td e\t"),
    "bytes above ASCII": whole(b"X-Latin: caf\xe9", b"X-Utf-8: caf\xc3\xa9"),
    "a head of 50 KB": whole(*(b"X-%d: " % number + b"v" * 1000 for number in range(50))),
    "no reason": whole(status=b"200 "),
    "a reason of its own": whole(status=b"299 What You Like"),
    "a reason above ASCII": whole(status=b"200 caf\xe9"),
    "a part": whole(b"Content-Range: bytes 0-4/10", status=b"206 Partial Content"),
    "a redirect": whole(b"Location: http://127.0.0.1/elsewhere?a=b", status=b"301 Moved Permanently"),
    "a redirect to a path": whole(b"Location: /elsewhere", status=b"303 See Other"),
    "who are you": whole(b"WWW-Authenticate: Basic", b"WWW-Authenticate: Digest", status=b"401 Unauthorized"),
    "not found": whole(status=b"404 Not Found"),
    "too many": whole(b"Retry-After: 5", status=b"429 Too Many Requests"),
    "broken": whole(status=b"500 Internal Server Error"),
    "the shop's own bad gateway": whole(status=b"502 Bad Gateway"),
    "the shop's own line": whole(b"Retry-After: 30", status=b"503 Service Unavailable"),
    "a status nobody knows": whole(status=b"599 Huh"),
    "a status of no hundred": whole(status=b"999 Go Away"),
    "what the Connection header names": whole(
        *(b"Connection: X-Hop", b"X-Hop: 1", b"Keep-Alive: timeout=5", b"X-Kept: 1"),
        differs=headers(
            [(b"X-Hop", b"1"), (b"X-Kept", b"1")], [(b"X-Kept", b"1")], "RFC 9110, section 7.6.1: it ends here"
        ),
    ),
    "what a proxy says": whole(
        *(b"Proxy-Authenticate: Basic", b"Upgrade: h2c", b"X-Kept: 1"),
        differs=headers(
            [(b"Proxy-Authenticate", b"Basic"), (b"Upgrade", b"h2c"), (b"X-Kept", b"1")],
            [(b"X-Kept", b"1")],
            "for the next hop alone; nobody here speaks h2c",
        ),
    ),
    "what nginx is told": whole(
        *(b"X-Accel-Limit-Rate: 0", b"X-Pad: 1", b"X-Accel-Expires: 3"),
        differs=headers(
            [],
            [(b"X-Accel-Limit-Rate", b"0"), (b"X-Pad", b"1"), (b"X-Accel-Expires", b"3")],
            "these mean something to nginx alone",
        ),
    ),
    "what the gateway is told": whole(
        *(b"Waitroom-Command: extend=5", b"X-Kept: 1"),
        differs=headers(
            [(b"Waitroom-Command", b"extend=5"), (b"X-Kept", b"1")], [(b"X-Kept", b"1")], "these are for us alone"
        ),
    ),
}

TRAILERS = Difference("client 1 trailers", [], [(b"X-Sum", b"1")], "nginx 1.22 has no trailers; a client may want them")
BODIES: dict[str, Case] = {
    "one megabyte of every byte": Case(Reply(page(body=EVERY_BYTE))),
    "nothing": Case(Reply(page(body=b""))),
    "bytes that look like the next answer": Case(Reply(page(body=page()))),
    "chunks": Case(Reply(head(CHUNKED) + b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n")),
    "chunks in other words": Case(Reply(head(b"transfer-encoding: Chunked") + b"00A\r\n0123456789\r\n000\r\n\r\n")),
    "no chunks": Case(Reply(head(CHUNKED) + b"0\r\n\r\n")),
    "a thousand chunks of one byte": Case(Reply(head(CHUNKED) + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")),
    "a chunk of one megabyte": Case(Reply(head(CHUNKED) + b"100000\r\n%b\r\n0\r\n\r\n" % EVERY_BYTE)),
    "extensions": Case(Reply(head(CHUNKED) + b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n')),
    # Old Java servers write such; of requests they are refused.
    "a blank behind a size": Case(Reply(head(CHUNKED) + b"5 \r\nhello\r\n0 \r\n\r\n")),
    "a tab behind a size": Case(Reply(head(CHUNKED) + b"5\t\r\nhello\r\n0\t\r\n\r\n")),
    "blanks up to eight columns": Case(Reply(head(CHUNKED) + b"5       \r\nhello\r\n0       \r\n\r\n")),
    "sixteen digits": Case(Reply(head(CHUNKED) + b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n")),
    "thirty digits": Case(Reply(head(CHUNKED) + b"%030d\r\nhello\r\n0\r\n\r\n" % 5)),
    "nothing behind a semicolon": Case(Reply(head(CHUNKED) + b"5;\r\nhello\r\n0;\r\n\r\n")),
    "a blank before an extension": Case(Reply(head(CHUNKED) + b"5 ; a = b\r\nhello\r\n0 ;c\r\n\r\n")),
    "trailers": Case(Reply(head(CHUNKED, b"Trailer: X-Sum") + b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n"), [TRAILERS]),
    "no length": Case(Reply(head() + b"hello", then="close")),
    "one megabyte without a length": Case(Reply(head() + EVERY_BYTE, then="close")),
    "no length and nothing": Case(Reply(head(), then="close")),
    "a shop that closes behind it": Case(Reply(page(b"Connection: close"), then="close")),
    "a shop that closes unsaid": Case(Reply(page(), then="close")),
    "HTTP/1.0": Case(Reply(page(version=b"HTTP/1.0"), then="close")),
    "HTTP/1.0 without a length": Case(Reply(head(version=b"HTTP/1.0") + b"hello", then="close")),
    "HTTP/1.0 that stays": Case(Reply(page(b"Connection: keep-alive", version=b"HTTP/1.0"))),
    "more than the length says": Case(Reply(head(b"Content-Length: 3") + b"hello", then="close")),
    "no content": Case(Reply(head(status=b"204 No Content"))),
    "no content, with a length": Case(
        Reply(head(b"Content-Length: 0", status=b"204 No Content")),
        [Difference("client 1 framing", ("none", [b"0"]), ("none", []), "RFC 9110, section 8.6: a 204 has none")],
    ),
    "reset content": Case(Reply(head(b"Content-Length: 0", status=b"205 Reset Content"))),
    "not modified": Case(Reply(head(b'ETag: "x"', status=b"304 Not Modified"))),
    "not modified, with a length": Case(Reply(head(b"Content-Length: 5", status=b"304 Not Modified"))),
    "a head": Case(Reply(head(b"Content-Length: 5")), method=b"HEAD"),
    "a head of chunks": Case(Reply(head(CHUNKED)), method=b"HEAD"),
    "a head of nothing": Case(Reply(head(status=b"204 No Content")), method=b"HEAD"),
    "a head without a length": Case(Reply(head()), method=b"HEAD"),
    "leave to send what has been sent": Case(
        Reply(b"HTTP/1.1 100 Continue\r\n\r\n" + page()),
        interim([(b"100", [KEPT])], [], "nobody here waits for it: that was ours to say"),
    ),
    "early hints": Case(
        Reply(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nlink: </b.css>\r\n\r\n" + page()),
        interim(
            [(b"103", [KEPT, (b"Link", b"</a.css>"), (b"link", b"</b.css>")])],
            [(b"103", [(b"Link", b"</a.css>"), (b"link", b"</b.css>")])],
            "no connection is kept or closed by hints",
        ),
    ),
    "still working": Case(
        Reply(b"HTTP/1.1 102 Processing\r\n\r\n" + page()),
        interim([(b"102", [KEPT])], [(b"102", [])], "as with early hints"),
    ),
}

CUT: dict[str, Reply] = {
    "half a body": Reply(head(b"Content-Length: 10") + b"hello", then="close"),
    "half a chunk": Reply(head(CHUNKED) + b"a\r\nhello", then="close"),
    "chunks without an end": Reply(head(CHUNKED) + b"5\r\nhello\r\n", then="close"),
    "a reset in a body without a length": Reply(head() + b"hello", then="reset"),
    "a reset in a body": Reply(head(b"Content-Length: 10") + b"hello", then="reset"),
}

PASSES, NO_HTTP, HANGS_UP = "passes on", "passes on what is no HTTP", "hangs up"
TO_THE_LETTER = "RFC 9112 to the letter: each leniency is a chance for two parsers to disagree"
# What is no answer: the reply, what becomes of it through nginx, and through Waitroom, and why where they differ.
NO_ANSWERS: dict[str, tuple[bytes, Any, str]] = {
    "nothing": (b"", 502, ""),
    "half a head": (b"HTTP/1.1 200 OK\r\nX-Shop: 1\r\n", 502, ""),
    "a word": (b"hello\r\n\r\n", NO_HTTP, "HTTP/0.9 is over"),
    "a status of two digits": (head(status=b"99 x"), NO_HTTP, TO_THE_LETTER),
    "a status of four digits": (head(status=b"1000 x"), NO_HTTP, TO_THE_LETTER),
    "HTTP/2.0": (head(b"Content-Length: 0", version=b"HTTP/2.0"), PASSES, TO_THE_LETTER),
    "a length and chunks": (head(b"Content-Length: 5", CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n", PASSES, TO_THE_LETTER),
    "two lengths": (head(b"Content-Length: 5", b"Content-Length: 6") + b"hello!", PASSES, TO_THE_LETTER),
    "one length twice": (head(b"Content-Length: 5", b"Content-Length: 5") + b"hello", PASSES, TO_THE_LETTER),
    "a length that is none": (head(b"Content-Length: 5x") + b"hello", PASSES, TO_THE_LETTER),
    "a length below nothing": (head(b"Content-Length: -5") + b"hello", PASSES, TO_THE_LETTER),
    "chunks in HTTP/1.0": (head(CHUNKED, version=b"HTTP/1.0") + b"0\r\n\r\n", PASSES, TO_THE_LETTER),
    "another coding": (head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", PASSES, "we couldn't undo it"),
    "no coding": (head(b"Transfer-Encoding: identity", b"Content-Length: 0"), PASSES, TO_THE_LETTER),
    "a space before the colon": (head(b"X-A : 1", b"Content-Length: 0"), 502, ""),
    "a zero in a value": (head(b"X-A: a\0b", b"Content-Length: 0"), 502, ""),
    "a folded line": (head(b"X-A: a\r\n b", b"Content-Length: 0"), 502, ""),
    "a bare carriage return": (head(b"X-A: a\rX-B: b", b"Content-Length: 0"), 502, ""),
    "a bare line feed": (head(b"X-A: a\nX-B: b", b"Content-Length: 0"), PASSES, TO_THE_LETTER),
    "a chunk size that is none": (head(CHUNKED) + b"xyz\r\nhello\r\n0\r\n\r\n", HANGS_UP, "it can still be said"),
    "a blank before a chunk size": (head(CHUNKED) + b" 5\r\nhello\r\n0\r\n\r\n", HANGS_UP, "it can still be said"),
    "a chunk size with a sign": (head(CHUNKED) + b"+5\r\nhello\r\n0\r\n\r\n", HANGS_UP, "it can still be said"),
    "a chunk size with a prefix": (head(CHUNKED) + b"0x5\r\nhello\r\n0\r\n\r\n", HANGS_UP, "it can still be said"),
    "two chunk sizes in a line": (head(CHUNKED) + b"5 5\r\nhello\r\n0\r\n\r\n", PASSES, TO_THE_LETTER),
    "a chunk longer than its size": (head(CHUNKED) + b"3\r\nhello\r\n0\r\n\r\n", HANGS_UP, "it can still be said"),
    "a change of protocol nobody asked for": (
        head(b"Connection: upgrade", b"Upgrade: x", status=b"101 Switching Protocols"),
        PASSES,
        "requests in such a tunnel would pass the gate by",
    ),
}


@pytest.mark.parametrize("case", HEADERS.values(), ids=HEADERS.keys())
def test_heads(proxies: Proxies, case: Case) -> None:
    proxies.compare([request(method=case.method)], [case.method], [case.reply], case.differs)


@pytest.mark.parametrize("case", BODIES.values(), ids=BODIES.keys())
def test_bodies(proxies: Proxies, case: Case) -> None:
    proxies.compare([request(method=case.method)], [case.method], [case.reply], case.differs)


@pytest.mark.parametrize("case", BODIES.values(), ids=BODIES.keys())
def test_bodies_for_an_http_1_0_client(proxies: Proxies, case: Case) -> None:
    # Hints are none of HTTP/1.0, nor are trailers.
    differs = [one for one in case.differs if one.fact not in ("client interim", "client 1 trailers")]
    if case.reply.data.startswith(b"HTTP/1.1 1"):
        status = case.reply.data[9:12]
        lines = [(b"Link", b"</a.css>"), (b"link", b"</b.css>")] if status == b"103" else []
        differs += interim([(status, [(b"Connection", b"close"), *lines])], [], "HTTP/1.0 has no interim answers")
        differs.append(Difference("client closed", False, True, "behind an interim answer nginx forgets to say so"))

    proxies.compare([request(method=case.method, version=b"HTTP/1.0")], [case.method], [case.reply], differs)


@pytest.mark.parametrize("reply", CUT.values(), ids=CUT.keys())
def test_truncated_responses_are_recognizable(proxies: Proxies, reply: Reply) -> None:
    facts = proxies.compare([request()], [b"GET"], [reply])

    assert facts["client count"] == 0
    assert facts["client closed"]


def became(proxies: Proxies, name: str, reply: Reply) -> int | str:
    """What the client gets for what the shop says."""
    try:
        facts, _, got = proxies.through(name, [request()], [b"GET"], [reply])
    except UnreadableError:
        return NO_HTTP
    if not got:
        return HANGS_UP
    return PASSES if "client 1 status" in facts else int(got[9:12])


@pytest.mark.parametrize(("said", "nginx", "why"), NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_invalid_responses(proxies: Proxies, said: bytes, nginx: int | str, why: str) -> None:
    reply = Reply(said, then="close")
    assert bool(why) == (nginx != 502)

    assert (became(proxies, "nginx", reply), became(proxies, "waitroom", reply)) == (nginx, 502)
    look_round(proxies.ports["nginx"])  # it must not take up a connection to the shop that has just been closed
    # Neither it nor what is left of it is anybody else's answer.
    proxies.compare([request()], [b"GET"], [PAGE])


UPLOAD = [request(b"/", b"Content-Length: 10", method=b"POST"), Await(b"fine\n")]
ENDS = Difference("client closed", False, True, "what is still to come of a body isn't waited for")


@pytest.mark.parametrize("then", ["keep", "close"])
@pytest.mark.parametrize("rest", [(), (b"01234",), (b"0123456789",)], ids=["nothing more", "half", "all"])
def test_responses_before_the_body(proxies: Proxies, then: Any, rest: tuple[bytes, ...]) -> None:
    close = (b"Connection: close",) if then == "close" else ()
    early = Reply(page(*close, status=b"413 Content Too Large"), at="head", then=then)

    proxies.compare([*UPLOAD, *rest], [b"POST"], [early], [ENDS])


def test_a_response_before_chunks(proxies: Proxies) -> None:
    early = Reply(page(status=b"413 Content Too Large"), at="head")
    head = request(b"/", CHUNKED, method=b"POST")

    proxies.compare([head, Forwarded(), Await(b"fine\n")], [b"POST"], [early], [ENDS])


IN_CHUNKS = head(CHUNKED) + b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"
ALL = 1 << 16
# What of an answer is still to come when the client closes its side; how it is framed, and its body.
SLOW: dict[str, tuple[Reply, tuple[str, list[bytes]], bytes]] = {
    "a small answer": (replace(PAGE, kept=ALL), ("length", [b"5"]), b"fine\n"),
    "the rest of a small one": (replace(PAGE, kept=3), ("length", [b"5"]), b"fine\n"),
    "chunks": (Reply(IN_CHUNKS, kept=ALL), ("chunked", []), b"helloworld"),
    "the rest of chunks": (Reply(IN_CHUNKS, kept=15), ("chunked", []), b"helloworld"),
}
slow_answers = pytest.mark.parametrize(("reply", "framing", "body"), SLOW.values(), ids=SLOW.keys())


def closing_one_side(reply: Reply, *lines: bytes) -> list[Step]:
    begun = Forwarded() if reply.kept == ALL else Await(reply.data[-reply.kept - 2 : -reply.kept])
    return [request(b"/", *lines), begun, HALF_CLOSE, GO_ON]


@slow_answers
def test_a_client_that_announced_a_half_close_gets_a_response(
    proxies: Proxies, reply: Reply, framing: tuple[str, list[bytes]], body: bytes
) -> None:
    why = "who says that it sends nothing more may stop sending (RFC 9112, section 9.6)"
    answer = {"status": (b"HTTP/1.1", b"200", b"OK"), "headers": [SHOP], "first headers": []}
    answer |= {"framing": framing, "body": body, "trailers": []}
    differs = [Difference(f"client 1 {name}", None, fact, why) for name, fact in answer.items()]
    differs.append(Difference("client count", 0, 1, why))
    if reply.kept != ALL:
        differs.append(Difference("client cut", True, False, why))

    proxies.compare(closing_one_side(reply, b"Connection: close"), [b"GET"], [reply], differs)


@slow_answers
def test_a_client_that_half_closes_unannounced_is_gone(
    proxies: Proxies, reply: Reply, framing: tuple[str, list[bytes]], body: bytes
) -> None:
    facts = proxies.compare(closing_one_side(reply), [b"GET"], [reply])

    assert (facts["client count"], facts["client cut"]) == (0, reply.kept != ALL)
    assert facts["client closed"]


def test_responses_keep_the_order_of_their_requests(proxies: Proxies) -> None:
    said = [
        head(CHUNKED) + b"1\r\na\r\n0\r\n\r\n",
        page(body=b"b"),
        head(status=b"204 No Content"),
        head(b"Content-Length: 4"),
    ]
    methods = [b"GET", b"POST", b"GET", b"HEAD", b"GET"]
    asked = [
        request(b"/%d" % at, *([b"Content-Length: 0"] if method == b"POST" else []), method=method)
        for at, method in enumerate(methods)
    ]
    replies = [*(Reply(data) for data in said), Reply(page(body=b"e" * 100_000))]

    facts = proxies.compare([b"".join(asked)], methods, replies)

    assert [facts[f"client {at} body"][:1] for at in range(1, 6)] == [b"a", b"b", b"", b"", b"e"]


def test_only_the_client_can_request_an_upgrade(proxies: Proxies) -> None:
    """Nginx is not told to change protocols here; that a tunnel goes through is shown with real WebSockets."""
    lines = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
    reply = Reply(page(status=b"426 Upgrade Required"))

    proxies.compare(
        [request(b"/chat", *lines)],
        [b"GET"],
        [reply],
        [
            Difference(
                "shop 1 headers",
                [(b"Sec-WebSocket-Version", b"13")],
                [(b"Sec-WebSocket-Version", b"13"), (b"Upgrade", b"websocket")],
                "a shop's WebSockets work without being told of",
            )
        ],
    )
