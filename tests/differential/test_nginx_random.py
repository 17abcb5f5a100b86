"""Random conversations, all of them well formed: nginx and the gateway make the same of each."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.reference_proxy import Forwarded, Proxies, Step, request
from support.upstreams.recording import Reply

pytestmark = pytest.mark.slow

TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
VISIBLE = bytes(range(0x21, 0x7F))
# Where a path leads above the root, or holds an escape that is none, nginx refuses it: see test_nginx_refusals.py.
IN_PATHS = [bytes([byte]) for byte in VISIBLE if byte not in b"#%?./"] + [
    b"%2F",
    b"%41",
    b"%c3%a9",
    b"%25",
    b"/",
    b"x.",
]


def text(alphabet: bytes, most: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(list(alphabet)), max_size=most).map(bytes)


PATHS = st.lists(st.sampled_from(IN_PATHS), max_size=30).map(lambda pieces: b"/" + b"".join(pieces))
QUERIES = st.one_of(st.just(b""), text(VISIBLE.replace(b"#", b""), 60).map(lambda query: b"?" + query))
METHODS = st.sampled_from(
    [b"GET", b"GET", b"POST", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"QUERY"]
)
# The prefixes keep these apart from what proxies read; cookies and such have rows of their own in the tables.
NAMES = st.tuples(st.sampled_from([b"X-", b"x-", b"Q", b"Sec-Ch-"]), text(TOKEN, 12)).map(b"".join)
VALUES = st.one_of(
    text(bytes((*range(0x20, 0x7F), 0x09, *range(0x80, 0x100))), 40),
    st.integers(0, 3000).map(lambda size: b"v" * size),
)
LINES = st.lists(st.tuples(NAMES, VALUES).map(b": ".join), max_size=12)
BODIES = st.one_of(
    st.binary(max_size=300), st.integers(0, 200_000).map(lambda size: (b"0\r\n\r\nGET / " * 20_000)[:size])
)
SIZES = st.lists(st.integers(1, 70_000), min_size=1, max_size=6)
PADDING = st.sampled_from([b"", b"", b" ", b"\t", b"      ", b";", b";a=b", b" ; a"])
REASONS = text(bytes((*range(0x20, 0x7F), *range(0x80, 0x100))), 20).map(lambda reason: b"W" + reason)
STATUSES = st.sampled_from(
    [200, 200, 200, 201, 203, 206, 207, 226, 301, 302, 400, 403, 404, 409, 422, 500, 502, 503, 599]
)


def chunked(body: bytes, sizes: list[int], padding: bytes = b"") -> bytes:
    """The body in chunks of these sizes, the last of which repeats. ``padding`` stands behind each size."""
    out, at = [], 0
    while at < len(body):
        size = sizes.pop(0) if len(sizes) > 1 else max(sizes[0], 1000)
        piece = body[at : at + size]
        out.append(b"%x%b\r\n%b\r\n" % (len(piece), padding, piece))
        at += size
    return b"".join((*out, b"0%b\r\n\r\n" % padding))


# Of heads that come again, the cookies and the dates differ: these marks stand for them.
COOKIE, DATE = b"@COOKIE", b"@DATE"
COOKIES = text(VISIBLE.replace(b"@", b""), 20)


class Round(NamedTuple):
    """A request, and what the shop says to it."""

    method: bytes
    steps: list[Step]
    reply: Reply

    def with_marks(self, cookie: bytes, date: bytes) -> Round:
        """The same with another cookie and another date."""
        head, *rest = self.steps
        assert isinstance(head, bytes)
        said = self.reply.data.partition(b"\r\n\r\n")
        data = said[0].replace(DATE, date) + said[1] + said[2]
        return Round(self.method, [head.replace(COOKIE, b"c=" + cookie), *rest], replace(self.reply, data=data))


@st.composite
def rounds(draw: st.DrawFn, number: int, last: bool) -> Round:
    """One round of a connection; only the last one may be of HTTP/1.0."""
    method = draw(METHODS)
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"])) if last else b"HTTP/1.1"
    lines = draw(LINES)
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), b"Cookie: " + COOKIE)
    body, framing = draw(BODIES), draw(st.sampled_from(["none", "length", "chunked"]))
    if framing == "chunked" and version == b"HTTP/1.1":
        lines.insert(draw(st.integers(0, len(lines))), b"Transfer-Encoding: chunked")
        sent = chunked(body, draw(SIZES))
    elif framing == "length":
        lines.insert(draw(st.integers(0, len(lines))), b"Content-Length: %d" % len(body))
        sent = body
    else:
        sent = b""
    head = request(draw(PATHS) + draw(QUERIES), *lines, method=method, version=version)
    return Round(method, [head, Forwarded(number), sent], draw(replies(method)))


@st.composite
def replies(draw: st.DrawFn, method: bytes) -> Reply:
    """What a shop says to a request with this method."""
    status = draw(st.one_of(STATUSES, st.sampled_from([204, 304])))
    lines = [b"X-Shop: 1", *draw(LINES)]
    lines.insert(draw(st.integers(0, len(lines))), b"Date: " + DATE)
    lines += [b"Set-Cookie: " + value for value in draw(st.lists(text(VISIBLE, 20), max_size=3))]
    body = b"" if status in (204, 304) else draw(BODIES)
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    then = draw(st.sampled_from(["keep", "keep", "close"]))
    sent = body
    if framing == "close" and body and method != b"HEAD":
        then = "close"
    elif status in (204, 304):
        pass
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        sent = chunked(body, draw(SIZES), draw(PADDING))
    else:
        lines.append(b"Content-Length: %d" % len(body))
    if then == "close":
        # Unsaid, it would depend on chance whether the next request meets a connection that is just ending.
        lines.append(b"Connection: close")
    start = b"HTTP/1.1 %d %b" % (status, draw(REASONS))
    head = b"\r\n".join((start, *lines, b"", b""))
    return Reply(head if method == b"HEAD" else head + sent, then=then)


@st.composite
def conversations(draw: st.DrawFn) -> list[Round]:
    count = draw(st.integers(1, 4))
    return [draw(rounds(number, number == count)) for number in range(1, count + 1)]


@settings(deadline=None, max_examples=examples(30, long=1000), suppress_health_check=list(HealthCheck), print_blob=True)
@given(conversations(), st.lists(COOKIES, min_size=3, max_size=3))
def test_random_conversations(proxies: Proxies, conversation: list[Round], cookies: list[bytes]) -> None:
    for number, cookie in enumerate(cookies):
        said = [one.with_marks(cookie, b"Wed, 21 Oct 2015 07:28:0%d GMT" % number) for one in conversation]
        steps = [step for one in said for step in one.steps]

        facts = proxies.compare(steps, [one.method for one in said], [one.reply for one in said], dates=())

        assert (facts["shop count"], facts["client count"]) == (len(said), len(said))
