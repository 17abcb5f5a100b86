"""What is no request, or may be read in two ways: refused by both, or by whom, and why.

Nothing of what is refused reaches the shop as a whole request, and behind it the connection ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from support.reference_proxy import Forwarded, Proxies, Step, request
from support.upstreams.recording import Reply

pytestmark = pytest.mark.slow

CHUNKED = b"Transfer-Encoding: chunked"
NO_CHUNKS = b"0\r\n\r\n"
FORWARDS = "forwards"

TO_THE_LETTER = "RFC 9112 to the letter: each leniency is a chance for two parsers to disagree"
NONE_OF_OURS = "the target goes on as it was sent; rooms are found by every way a shop may read it"


@dataclass(frozen=True)
class Verdict:
    """What becomes of some bytes: the status they are refused with, or that they are forwarded."""

    nginx: int | str
    waitroom: int | str
    why: str = ""


BOTH = Verdict(400, 400)


def stricter(waitroom: int = 400, why: str = TO_THE_LETTER, nginx: int | str = FORWARDS) -> Verdict:
    return Verdict(nginx, waitroom, why)


def post(*lines: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    return request(b"/", *lines, method=b"POST", version=version, body=body)


def get(*lines: bytes, target: bytes = b"/", host: bytes | None = b"pair.test") -> bytes:
    return request(target, *lines, host=host)


FRAMING: dict[str, tuple[bytes, Verdict]] = {
    "a length and chunks": (post(b"Content-Length: 5", CHUNKED, body=NO_CHUNKS), BOTH),
    "chunks and a length": (post(CHUNKED, b"Content-Length: 5", body=NO_CHUNKS), BOTH),
    "two lengths": (post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"), BOTH),
    "one length twice": (post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), BOTH),
    "a list of lengths": (post(b"Content-Length: 5, 5", body=b"hello"), BOTH),
    "a length with a sign": (post(b"Content-Length: +5", body=b"hello"), BOTH),
    "a length below nothing": (post(b"Content-Length: -5", body=b"hello"), BOTH),
    "a hexadecimal length": (post(b"Content-Length: 0x5", body=b"hello"), BOTH),
    "an empty length": (post(b"Content-Length:"), BOTH),
    "a length beyond all bounds": (post(b"Content-Length: 99999999999999999999", body=b"hello"), BOTH),
    "a length in two words": (post(b"Content-Length: 5 5", body=b"hello"), BOTH),
    "chunks twice": (post(CHUNKED, CHUNKED, body=NO_CHUNKS), BOTH),
    "chunks in HTTP/1.0": (post(CHUNKED, body=NO_CHUNKS, version=b"HTTP/1.0"), BOTH),
    "chunks behind a space": (post(b"Transfer-Encoding : chunked", body=NO_CHUNKS), BOTH),
    "chunks of chunks": (
        post(b"Transfer-Encoding: chunked, chunked", body=NO_CHUNKS),
        Verdict(501, 400, "it is the client's mistake"),
    ),
    "a coding before chunks": (
        post(b"Transfer-Encoding: gzip, chunked", body=NO_CHUNKS),
        Verdict(501, 400, "one answer for all that isn't chunked"),
    ),
    "no coding": (
        post(b"Transfer-Encoding: identity"),
        Verdict(501, 400, "one answer for all that isn't chunked"),
    ),
    "almost chunked": (
        post(b"Transfer-Encoding: xchunked", body=NO_CHUNKS),
        Verdict(501, 400, "one answer for all that isn't chunked"),
    ),
    "chunked behind a vertical tab": (
        post(b"Transfer-Encoding:\x0bchunked", body=NO_CHUNKS),
        Verdict(501, 400, "one answer for all that isn't chunked"),
    ),
    "another expectation": (
        post(b"Expect: a miracle", b"Content-Length: 0"),
        stricter(417, "RFC 9110, section 10.1.1: who can't meet it may say so"),
    ),
}

LINES: dict[str, tuple[bytes, Verdict]] = {
    "a folded line": (get(b"X-A: a\r\n b"), BOTH),
    "a folded first line": (b"GET / HTTP/1.1\r\n X: 1\r\nHost: pair.test\r\n\r\n", BOTH),
    "bare line feeds": (get().replace(b"\r\n", b"\n"), stricter()),
    "one bare line feed": (b"GET / HTTP/1.1\r\nHost: pair.test\nX-A: 1\r\n\r\n", stricter()),
    "a bare line feed behind the request line": (b"GET / HTTP/1.1\nHost: pair.test\r\n\r\n", stricter()),
    "a bare carriage return": (b"GET / HTTP/1.1\r\nHost: pair.test\rX-A: 1\r\n\r\n", BOTH),
    "a carriage return in a value": (get(b"X-A: a\rb"), BOTH),
    "a space before the colon": (get(b"X-A : a"), BOTH),
    "no colon": (get(b"X-A"), stricter()),
    "no name": (get(b": a"), BOTH),
    "a name that is no token": (get(b"X(A): a"), stricter()),
    "a space in a name": (get(b"X A: a"), BOTH),
    "a name above ASCII": (get(b"X\xe9: a"), stricter()),
    "a zero in a value": (get(b"X-A: a\0b"), BOTH),
    "a zero in a name": (get(b"X\0A: a"), BOTH),
    "a control character in a value": (get(b"X-A: a\x01b"), stricter()),
    "a delete in a value": (get(b"X-A: a\x7fb"), stricter()),
}

HOSTS: dict[str, tuple[bytes, Verdict]] = {
    "two hosts": (get(b"Host: other.test"), BOTH),
    "one host twice": (get(b"Host: pair.test"), BOTH),
    "no host": (get(host=None), BOTH),
    "an empty host": (get(host=b""), Verdict(400, 421, "RFC 9110, section 7.2 allows it; no room is meant by it")),
    "a host with a path": (get(host=b"pair.test/x"), BOTH),
    "a host with a space": (get(host=b"pair .test"), BOTH),
    "a host with a name before it": (get(host=b"a@pair.test"), stricter()),
    "a list of hosts": (get(host=b"pair.test, other"), BOTH),
    "a port that is none": (get(host=b"pair.test:x"), stricter()),
    "a port beyond all ports": (get(host=b"pair.test:65536"), stricter()),
    "a host and port with a name behind them": (get(host=b"127.0.0.1:80@pair.test"), stricter()),
    "an invalid IPv6 literal": (get(host=b"[1:2:3]"), stricter()),
    "a literal without an end": (get(host=b"[::1"), stricter()),
    "HTTP/1.0 without a host": (
        request(host=None, version=b"HTTP/1.0"),
        stricter(421, "no room is meant by no host, as this one has hosts"),
    ),
    "a host of nobody's here": (get(host=b"other.test"), stricter(421, "no room has it")),
    "a URL of another host": (
        get(target=b"http://other.test/"),
        stricter(why="which of the two the shop believes is up to it"),
    ),
    "a URL of another port": (
        get(target=b"http://pair.test:8080/"),
        stricter(why="which of the two the shop believes is up to it"),
    ),
    "a URL of HTTPS with HTTP's port": (
        get(target=b"https://pair.test:80/"),
        stricter(why="a port that isn't the scheme's own is another one"),
    ),
    "a URL with a name in it": (get(target=b"http://a@pair.test/"), BOTH),
    "a URL of another kind": (get(target=b"ftp://pair.test/"), stricter()),
}

REQUEST_LINES: dict[str, tuple[bytes, Verdict]] = {
    "a method in lower case": (request(method=b"get"), BOTH),
    "a method that is no token": (request(method=b"G(T"), BOTH),
    "a method with an underscore": (request(method=b"FOO_BAR"), stricter(why="registered methods have none")),
    "CONNECT": (request(b"pair.test:443", method=b"CONNECT"), Verdict(400, 405, "it is well formed, but not for us")),
    "TRACE": (request(method=b"TRACE"), Verdict(405, 405)),
    "no version": (b"GET /\r\nHost: pair.test\r\n\r\n", stricter(why="HTTP/0.9 knows no rooms")),
    "HTTP/2.0": (request(version=b"HTTP/2.0"), stricter(nginx=505, why="one answer for all that isn't HTTP/1")),
    "HTTP/1.2": (request(version=b"HTTP/1.2"), stricter()),
    "HTTP/1.10": (request(version=b"HTTP/1.10"), stricter()),
    "HTTP/0.9": (request(version=b"HTTP/0.9"), BOTH),
    "a version in lower case": (request(version=b"http/1.1"), BOTH),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: pair.test\r\n\r\n", stricter()),
    "a space behind it": (b"GET / HTTP/1.1 \r\nHost: pair.test\r\n\r\n", stricter()),
    "a space before it": (b" GET / HTTP/1.1\r\nHost: pair.test\r\n\r\n", BOTH),
    "a tab": (b"GET\t/ HTTP/1.1\r\nHost: pair.test\r\n\r\n", BOTH),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", BOTH),
    "HTTP/2's first words": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BOTH),
    "a word": (b"hello\r\n\r\n", BOTH),
}

TARGETS: dict[str, tuple[bytes, Verdict]] = {
    "a space": (get(target=b"/a b"), BOTH),
    "a zero": (get(target=b"/\0"), BOTH),
    "a control character": (get(target=b"/a\x01"), BOTH),
    "a delete": (get(target=b"/a\x7f"), BOTH),
    "no slash": (get(target=b"x"), BOTH),
    "a star": (get(target=b"*"), BOTH),
    "a star for OPTIONS": (
        request(b"*", method=b"OPTIONS"),
        Verdict(400, FORWARDS, "RFC 9110, section 9.3.7 knows it, and some shops answer it"),
    ),
    "a fragment": (get(target=b"/a#b"), stricter(why="some shops cut the target there, others don't")),
    "an escape that is none": (get(target=b"/%zz"), Verdict(400, FORWARDS, NONE_OF_OURS)),
    "half an escape": (get(target=b"/%"), Verdict(400, FORWARDS, NONE_OF_OURS)),
    "an escaped zero": (get(target=b"/%00"), BOTH),
    "an escaped control character": (get(target=b"/a%09"), stricter(why="some shops drop it, others don't")),
    "above the root": (get(target=b"/../x"), Verdict(400, FORWARDS, NONE_OF_OURS)),
    "above the root in escapes": (get(target=b"/%2e%2e/x"), Verdict(400, FORWARDS, NONE_OF_OURS)),
}

SIZES: dict[str, tuple[bytes, Verdict]] = {
    "a target of 40,000 bytes": (
        get(target=b"/" + b"a" * 40_000),
        stricter(414, "32 KiB are four times what is usual"),
    ),
    "a target of 70,000 bytes": (get(target=b"/" + b"a" * 70_000), Verdict(414, 414)),
    "a line of 70,000 bytes": (get(b"X: " + b"a" * 70_000), Verdict(400, 431, "the status that says what is wrong")),
    "a head of 600,000 bytes": (
        get(*(b"X-%d: " % number + b"a" * 60_000 for number in range(10))),
        Verdict(400, 431, "the status that says what is wrong"),
    ),
    "more than 200 lines": (get(*(b"X-%d: a" % number for number in range(200))), stricter(431, "a bound on work")),
}

# Sent when the head has reached the shop: it is cut off there, and the client told why.
CHUNKS: dict[str, tuple[bytes, Verdict]] = {
    "a size that is none": (b"xyz\r\n", BOTH),
    "a size below nothing": (b"-1\r\n", BOTH),
    "a size with a sign": (b"+5\r\nhello\r\n0\r\n\r\n", BOTH),
    "a size with a prefix": (b"0x5\r\nhello\r\n0\r\n\r\n", BOTH),
    "a size beyond all bounds": (b"fffffffffffffffff\r\nhello", BOTH),
    "no size": (b"\r\nhello\r\n0\r\n\r\n", BOTH),
    "more than the size": (b"3\r\nhello\r\n0\r\n\r\n", BOTH),
    "a bare carriage return behind a size": (b"5\rhello\r\n0\r\n\r\n", BOTH),
    "a bare line feed behind data": (b"5\r\nhello\n0\r\n\r\n", stricter()),
    "a bare line feed behind a size": (b"5\nhello\r\n0\r\n\r\n", stricter()),
    "bare line feeds": (b"5\nhello\n0\n\n", stricter()),
    "a space behind a size": (b"5 \r\nhello\r\n0\r\n\r\n", stricter()),
    "a tab behind a size": (b"5\t\r\nhello\r\n0\r\n\r\n", stricter()),
    "sixteen digits": (b"0000000000000005\r\nhello\r\n0\r\n\r\n", stricter()),
    "nothing behind a semicolon": (b"5;\r\nhello\r\n0\r\n\r\n", stricter()),
    "a space before an extension": (b"5 ;a=b\r\nhello\r\n0\r\n\r\n", stricter()),
    "spaces in an extension": (b"5 ; a=b\r\nhello\r\n0\r\n\r\n", stricter()),
    "an extension that is none": (b"5;\x01\r\nhello\r\n0\r\n\r\n", stricter()),
    "a trailer that is none": (b"0\r\nbad trailer\r\n\r\n", stricter()),
}

TABLES = {
    "framing": FRAMING,
    "line": LINES,
    "host": HOSTS,
    "request line": REQUEST_LINES,
    "target": TARGETS,
    "size": SIZES,
}


def judged(proxies: Proxies, steps: Sequence[Step], method: bytes, verdict: Verdict) -> None:
    assert bool(verdict.why) == (verdict.nginx != verdict.waitroom)
    got = Verdict(proxies.verdict("nginx", steps, method), proxies.verdict("waitroom", steps, method), verdict.why)
    assert got == verdict


@pytest.mark.parametrize(
    ("sent", "verdict"),
    [pytest.param(*row, id=f"{table}: {name}") for table, rows in TABLES.items() for name, row in rows.items()],
)
def test_invalid_requests(proxies: Proxies, sent: bytes, verdict: Verdict) -> None:
    judged(proxies, [sent], sent.partition(b" ")[0], verdict)


@pytest.mark.parametrize(("sent", "verdict"), CHUNKS.values(), ids=CHUNKS.keys())
def test_invalid_chunks(proxies: Proxies, sent: bytes, verdict: Verdict) -> None:
    head = request(b"/", CHUNKED, method=b"POST")
    judged(proxies, [head, Forwarded(), sent], b"POST", verdict)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(row[0], id=f"{table}: {name}")
        for table in ("framing", "line")
        for name, row in TABLES[table].items()
    ],
)
def test_a_refused_request_smuggles_no_other(proxies: Proxies, sent: bytes) -> None:
    """A whole request right behind one that may be read in two ways, as in smuggling: nobody sees it."""
    hidden = request(b"/hidden", b"X-Hidden: 1")

    facts, arrived, got = proxies.through("waitroom", [sent + hidden], [b"GET", b"GET"], [Reply(b"")])

    assert arrived == []
    assert b"hidden" not in got
    assert (facts["client count"], facts["client closed"]) == (1, True)
