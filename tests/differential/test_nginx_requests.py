"""What arrives at the shop through the gateway is what arrives through Debian's nginx, request by request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from support.reference_proxy import HALF_CLOSE, Await, Difference, Forwarded, Proxies, Step, request
from support.upstreams.recording import PAGE, Reply

pytestmark = pytest.mark.slow

EVERY_BYTE = bytes(range(256)) * 4096
LENGTH = b"Content-Length: %d"
CHUNKED = b"Transfer-Encoding: chunked"
NO_BODY = Reply(PAGE.data[:-5])


@dataclass(frozen=True)
class Case:
    """What a client does, and where the two proxies differ on purpose."""

    steps: Sequence[Step]
    methods: Sequence[bytes] = (b"GET",)
    replies: Sequence[Reply] = (PAGE,)
    differs: Sequence[Difference] = ()


def post(*lines: bytes, body: bytes = b"", method: bytes = b"POST", differs: Sequence[Difference] = ()) -> Case:
    return Case([request(b"/form", *lines, method=method), Forwarded(), body], [method], differs=differs)


def get(*lines: bytes, target: bytes = b"/", differs: Sequence[Difference] = ()) -> Case:
    return Case([request(target, *lines)], differs=differs)


TARGETS = {
    "root": b"/",
    "two slashes": b"//",
    "slashes everywhere": b"//a///b//",
    "an encoded slash": b"/a%2Fb%2f",
    "an encoded percent sign": b"/100%25",
    "broken escapes in the query": b"/a?x=%zz&y=%",
    "an encoded zero in the query": b"/a?x=%00",
    "dots inside": b"/a/../b/./c/...",
    "dots in the query": b"/a?next=/../../etc",
    "an encoded dot inside": b"/a/%2e%2E/b",
    "parameters": b"/a;v=1;w=2/b;x",
    "a quote": b"/it's",
    "bytes above ASCII, as curl sends them": b"/caf\xc3\xa9?q=\xe4",
    "what should be encoded": b'/"<>\\^`{|}~[]',
    "a question mark alone": b"/a?",
    "question marks": b"/a??b=?c?",
    "an empty query with parameters": b"/a?&&=&==",
    "plus and commas": b"/a+b,c?d=e+f,g",
    "at signs and colons": b"/user:pass@host:80",
    "encoded letters": b"/%41%c3%a9%C3%A9",
    "a query of 16 KiB": b"/search?q=" + b"0123456789abcdef" * 1024,
    "a path of 16 KiB": b"/" + b"0123456789abcde/" * 1024,
}

HEADERS: dict[str, Case] = {
    "names keep their case": get(b"x-lower: 1", b"X-UPPER: 2", b"X-MiXeD: 3"),
    "names twice, others between": get(b"X-A: 1", b"X-B: 2", b"x-a: 3", b"X-A: 1"),
    "every character of a token": get(b"!#$%&'*+-.^_`|~09azAZ: 1"),
    "underscores": get(b"X_Under_Score: 1", b"_: 2"),
    "values that are empty": get(b"X-Empty:", b"X-Spaces:    ", b"X-Next: 1"),
    "white space around values": get(b"X-Spaces:   a  b   ", b"X-None:c", b"X-Tab:\td e\t "),
    "bytes above ASCII": get(b"X-Latin: caf\xe9", b"X-Utf-8: caf\xc3\xa9"),
    "quotes and commas": get(b'X-Quoted: "a, \\"b\\"", c; d="e;f"'),
    "many lines": get(*(b"X-%d: %d" % (number, number) for number in range(150))),
    "a line of 16 KiB": get(b"X-Long: " + b"v" * 16384),
    "what browsers send": get(
        *(
            b"Connection: keep-alive",
            b"Cache-Control: max-age=0",
            b'sec-ch-ua: "Chromium";v="128", "Not;A=Brand";v="24"',
        ),
        *(b"sec-ch-ua-mobile: ?0", b"Upgrade-Insecure-Requests: 1", b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)"),
        *(b"Accept: image/avif,image/webp,*/*;q=0.8", b"Accept-Encoding: gzip, deflate, br, zstd"),
        *(b"Accept-Language: de-DE,de;q=0.9", b"Referer: https://pair.test/a?b=c", b'If-None-Match: W/"x"'),
    ),
    "conditions and ranges": get(
        *(b"If-Modified-Since: Wed, 21 Oct 2015 07:28:00 GMT", b"If-Match: *", b"Range: bytes=0-499", b'If-Range: "x"')
    ),
    "credentials": get(b"Authorization: Basic dXNlcjpwYXNz"),
    "one cookie line": get(b'Cookie: a=1; b="x y"; c; =d; theme={"dark":true}; a=2'),
    "two hundred cookies": get(b"Cookie: " + b"; ".join(b"name%d=value%d" % (number, number) for number in range(200))),
    "cookie lines one after the other": get(b"X-Before: 1", b"Cookie: a=1", b"Cookie: b=2", b"Cookie: c=3"),
    "cookie lines with others between": get(
        *(b"Cookie: a=1", b"X-Between: 1", b"Cookie: b=2"),
        differs=[
            Difference(
                "shop 1 headers",
                [(b"Cookie", b"a=1"), (b"X-Between", b"1"), (b"Cookie", b"b=2")],
                [(b"Cookie", b"a=1"), (b"Cookie", b"b=2"), (b"X-Between", b"1")],
                "our own are taken out of all of them at once; their order among themselves is what counts",
            )
        ],
    ),
    "a cookie line in another case": get(
        b"cOOkIE: a=1",
        differs=[
            Difference("shop 1 headers", [(b"cOOkIE", b"a=1")], [(b"Cookie", b"a=1")], "cookie lines are written anew")
        ],
    ),
    "what is for the next hop": get(b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"TE: trailers", b"X-Kept: 1"),
    "an upgrade nobody waits for": get(b"Upgrade: h2c", b"X-Kept: 1"),
    "what the Connection header names": get(
        *(b"Connection: X-Hop", b"X-Hop: 1", b"X-Kept: 2"),
        differs=[
            Difference(
                "shop 1 headers",
                [(b"X-Hop", b"1"), (b"X-Kept", b"2")],
                [(b"X-Kept", b"2")],
                "RFC 9110, section 7.6.1: it ends at the next hop",
            )
        ],
    ),
    "credentials for a proxy": get(
        *(b"Proxy-Authorization: Basic eA==", b"Proxy-Connection: keep-alive", b"X-Kept: 1"),
        differs=[
            Difference(
                "shop 1 headers",
                [(b"Proxy-Authorization", b"Basic eA=="), (b"Proxy-Connection", b"keep-alive"), (b"X-Kept", b"1")],
                [(b"X-Kept", b"1")],
                "they are for us, or for nobody",
            )
        ],
    ),
    "what only a proxy may say": get(
        *(b"X-Forwarded-For: 203.0.113.9", b"Forwarded: for=203.0.113.9", b"Waitroom-Session: 1", b"X-Kept: 1"),
        differs=[
            Difference(
                "shop 1 headers",
                [(b"Forwarded", b"for=203.0.113.9"), (b"Waitroom-Session", b"1"), (b"X-Kept", b"1")],
                [(b"X-Kept", b"1")],
                "whoever isn't trusted speaks for nobody else",
            )
        ],
    ),
    "what moves a request": get(
        *(b"X-Original-URL: /admin", b"X-HTTP-Method-Override: DELETE", b"X_Real_IP: 203.0.113.9", b"Proxy: x"),
        b"X-Kept: 1",
        differs=[
            Difference(
                "shop 1 headers",
                [
                    *((b"X-Original-URL", b"/admin"), (b"X-HTTP-Method-Override", b"DELETE")),
                    *((b"X_Real_IP", b"203.0.113.9"), (b"Proxy", b"x"), (b"X-Kept", b"1")),
                ],
                [(b"X-Kept", b"1")],
                "only trusted proxies may say so",
            )
        ],
    ),
    "our own cookies and headers": get(
        *(b"Cookie: a=1; waitroom_ticket_pair=x; b=2", b"Waitroom-Ticket: x", b"X-Kept: 1"),
        differs=[
            Difference(
                "shop 1 headers",
                [
                    (b"Cookie", b"a=1; waitroom_ticket_pair=x; b=2"),
                    (b"Waitroom-Ticket", b"x"),
                    (b"X-Kept", b"1"),
                ],
                [(b"Cookie", b"a=1; b=2"), (b"X-Kept", b"1")],
                "the shop's header limits are near, and its logs are read",
            )
        ],
    ),
    "the host with a port": Case([request(host=b"pair.test:8080")]),
    "the host in another case": Case([request(host=b"PAIR.Test")]),
    "a URL as the target": get(b"X-Kept: 1", target=b"http://pair.test/a?b=c"),
    "a URL without a path": get(target=b"http://pair.test"),
    "a URL with the default port": get(target=b"http://pair.test:80/a"),
    "a URL, and a host with the default port": Case([request(b"http://pair.test/a", host=b"pair.test:80")]),
    "a URL of HTTPS with its default port": get(target=b"https://pair.test:443/a"),
    "a URL with another port": Case([request(b"http://pair.test:8080/a", host=b"pair.test:8080")]),
    "a URL in another case": get(target=b"http://PAIR.test/a"),
    "a URL with a query and no path": get(target=b"HTTP://pair.test?b=c"),
    "two empty lines first": Case([b"\r\n\r\n" + request()]),
}

DROPPED_TRAILERS = Difference(
    "shop 1 trailers", [], [(b"X-Sum", b"1"), (b"x-other", b"2")], "nginx 1.22 has no trailers; a shop may want them"
)
LINE_BY_LINE = request(b"/", b"Content-Length: 6", method=b"POST")
BODIES: dict[str, Case] = {
    "a length": post(b"Content-Length: 11", body=b"hello world"),
    "a length of nothing": post(b"Content-Length: 0"),
    "no body at all": post(),
    "a length with zeros in front": post(
        b"Content-Length: 005",
        body=b"hello",
        differs=[
            Difference("shop 1 framing", ("length", [b"5"]), ("length", [b"005"]), "a line goes on as it was sent")
        ],
    ),
    "one megabyte of every byte": post(LENGTH % len(EVERY_BYTE), body=EVERY_BYTE),
    "bytes that look like the next request": post(LENGTH % len(request()), body=request()),
    "a body of a GET": post(b"Content-Length: 3", body=b"abc", method=b"GET"),
    "a body of a DELETE": post(b"Content-Length: 3", body=b"abc", method=b"DELETE"),
    "a form": post(b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: 9", body=b"csrf=x&y="),
    "chunks": post(CHUNKED, body=b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n"),
    "chunks in other words": post(b"transfer-encoding: Chunked", body=b"A\r\n0123456789\r\n0\r\n\r\n"),
    "no chunks": post(CHUNKED, body=b"0\r\n\r\n"),
    "a thousand chunks of one byte": post(CHUNKED, body=b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n"),
    "a chunk of one megabyte": post(CHUNKED, body=b"100000\r\n%b\r\n0\r\n\r\n" % EVERY_BYTE),
    "zeros before sizes": post(CHUNKED, body=b"0005\r\nhello\r\n000\r\n\r\n"),
    "extensions": post(CHUNKED, body=b'5;a=b;c="d;e"\r\nhello\r\n0;f\r\n\r\n'),
    "trailers": post(
        CHUNKED, b"Trailer: X-Sum", body=b"2\r\nab\r\n0\r\nX-Sum: 1\r\nx-other: 2\r\n\r\n", differs=[DROPPED_TRAILERS]
    ),
    "chunks of a GET": post(CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n", method=b"GET"),
    "chunks that come with their head": Case(
        [request(b"/", CHUNKED, method=b"POST", body=b"5\r\nhello\r\n0\r\n\r\n")],
        [b"POST"],
        differs=[
            Difference("shop 1 framing", ("length", [b"5"]), ("chunked", []), "a body keeps the framing it came with")
        ],
    ),
    "in pieces": Case([LINE_BY_LINE[:20], LINE_BY_LINE[20:], b"a", b"bc", b"def"], [b"POST"]),
    "asks first": Case(
        [
            request(b"/", b"Expect: 100-continue", b"Content-Length: 4", method=b"PUT"),
            Await(b"HTTP/1.1 100 Continue\r\n\r\n"),
            b"body",
        ],
        [b"PUT"],
    ),
    "asks first, in chunks": Case(
        [
            request(b"/", b"Expect: 100-Continue", CHUNKED, method=b"POST"),
            Await(b"HTTP/1.1 100 Continue\r\n\r\n"),
            b"4\r\nbody\r\n0\r\n\r\n",
        ],
        [b"POST"],
    ),
}

PIPELINE = [request(b"/%d" % number, b"X-Number: %d" % number) for number in range(5)]
WITH_BODIES = [
    request(b"/a", b"Content-Length: 3", method=b"POST", body=b"one"),
    request(b"/b", CHUNKED, method=b"PUT", body=b"3\r\ntwo\r\n0\r\n\r\n"),
    request(b"/c"),
]
OLD = b"HTTP/1.0"
CONNECTIONS: dict[str, Case] = {
    "five at once": Case([b"".join(PIPELINE)], [b"GET"] * 5, [PAGE] * 5),
    "one hundred at once": Case([request(b"/x") * 100], [b"GET"] * 100, [PAGE] * 100),
    "bodies behind each other": Case(
        [b"".join(WITH_BODIES)],
        [b"POST", b"PUT", b"GET"],
        [PAGE] * 3,
        [Difference("shop 2 framing", ("length", [b"3"]), ("chunked", []), "a body keeps the framing it came with")],
    ),
    "cut anywhere": Case(
        [data[at : at + 7] for data in [b"".join(PIPELINE + WITH_BODIES[:1])] for at in range(0, len(data), 7)],
        [b"GET"] * 5 + [b"POST"],
        [PAGE] * 6,
    ),
    "one after the other": Case([PIPELINE[0], Await(b"fine\n"), PIPELINE[1]], [b"GET"] * 2, [PAGE] * 2),
    "one that is the last": Case([request(b"/", b"Connection: close"), PIPELINE[0]], [b"GET"], [PAGE] * 2),
    "close among other options": Case([request(b"/", b"Connection: x, Close")], [b"GET"]),
    "HTTP/1.0": Case([request(version=OLD)], [b"GET"]),
    "HTTP/1.0 that stays": Case([request(b"/", b"Connection: keep-alive", version=OLD)], [b"GET"]),
    "a form in HTTP/1.0": Case(
        [request(b"/", b"Content-Length: 3", method=b"POST", version=OLD, body=b"abc")], [b"POST"]
    ),
    "a client that goes in the middle of its body": Case(
        [request(b"/", b"Content-Length: 10", method=b"POST"), b"half", Forwarded(body=b"half"), HALF_CLOSE], [b"POST"]
    ),
    "a client that goes in the middle of its chunks": Case(
        [request(b"/", CHUNKED, method=b"POST"), Forwarded(), b"4\r\nhalf\r\n", Forwarded(body=b"half"), HALF_CLOSE],
        [b"POST"],
    ),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_targets(proxies: Proxies, target: bytes) -> None:
    facts = proxies.compare([request(target)], [b"GET"])

    assert facts["shop 1 line"] == b"GET %b HTTP/1.1" % target


@pytest.mark.parametrize(
    "method", [b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"PROPFIND", b"REPORT", b"M-SEARCH", b"FETCH"]
)
def test_methods(proxies: Proxies, method: bytes) -> None:
    facts = proxies.compare([request(b"/m", method=method)], [method])

    assert facts["shop 1 line"] == method + b" /m HTTP/1.1"


def test_a_head(proxies: Proxies) -> None:
    proxies.compare([request(method=b"HEAD")], [b"HEAD"], [NO_BODY])


@pytest.mark.parametrize("case", HEADERS.values(), ids=HEADERS.keys())
def test_headers(proxies: Proxies, case: Case) -> None:
    proxies.compare(case.steps, case.methods, case.replies, case.differs)


@pytest.mark.parametrize("case", BODIES.values(), ids=BODIES.keys())
def test_bodies(proxies: Proxies, case: Case) -> None:
    proxies.compare(case.steps, case.methods, case.replies, case.differs)


@pytest.mark.parametrize("case", CONNECTIONS.values(), ids=CONNECTIONS.keys())
def test_connections(proxies: Proxies, case: Case) -> None:
    proxies.compare(case.steps, case.methods, case.replies, case.differs)
