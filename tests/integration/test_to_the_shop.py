"""What goes on to the shop and what comes back: heads, cookies, framing, to the byte."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from support.gateway_process import Gateway, eventually, room
from support.upstreams.server import Seen, Shop, response
from support.visitor_client import Visitor, Wire, filled

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PROXY = "127.0.0.77"
ROOMS = [room("heads"), room("taken", max_active=1)]
SETTINGS = {"trusted_proxies": [PROXY], "workers": 1}


@pytest_asyncio.fixture(loop_scope="module")
async def inside(gateway: Gateway) -> Visitor:
    visitor = Visitor(gateway, "heads")
    await visitor.goes_in()
    return visitor


def cookie(visitor: Visitor) -> bytes:
    return f"{visitor.pass_cookie}={visitor.cookies[visitor.pass_cookie]}".encode()


async def sent(gateway: Gateway, *lines: bytes, body: bytes = b"", source: str | None = None) -> int:
    """Sends one request to the byte; returns the status."""
    async with Wire.open(gateway, source=source) as wire:
        await wire.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        return (await wire.answer()).status


async def test_our_cookies_are_removed_and_others_kept_byte_for_byte(
    gateway: Gateway, shop: Shop, inside: Visitor
) -> None:
    others = b'a="x y"; session=ab==; b=\xc3\xa9,:; c; =d; theme={"dark":true}'
    first, second = others.split(b"; session", 1)
    ours = cookie(inside) + b"; waitroom_ticket_heads=1.2.3; waitroom_ticket_elsewhere=x"

    for path, line in {
        "/between": first + b"; " + ours + b"; session" + second,
        "/before": ours + b"; " + others,
        "/behind": others + b"; " + ours,
    }.items():
        assert await sent(gateway, b"GET %b HTTP/1.1" % path.encode(), b"Host: heads.test", b"Cookie: " + line) == 200
        assert shop.last(path).all("Cookie") == [others.decode("latin-1")], path

    lines = (b"Host: heads.test", b"Cookie:   odd =  spaces ;;x=1", b"Cookie: " + ours, b"Cookie: y=2")
    assert await sent(gateway, b"GET /many HTTP/1.1", *lines) == 200
    assert shop.last("/many").all("Cookie") == ["odd =  spaces ;;x=1", "y=2"]

    assert await sent(gateway, b"GET /none HTTP/1.1", b"Host: heads.test", b"Cookie: " + ours) == 200
    assert shop.last("/none").all("Cookie") == []


FORGED = (
    b"X-Forwarded-For: 203.0.113.9",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: elsewhere.test",
    b"x-forwarded-for: 203.0.113.10",
    b"Forwarded: for=203.0.113.9",
    b"Waitroom-Session: 1",
    b"waitroom-room: vip",
    b"Waitroom_Session: 1",
    b"X_Forwarded_For: 203.0.113.11",
    b"X-Request-Id: mine",
)


async def test_our_headers_sent_by_a_client_are_dropped(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    lines = (b"Host: heads.test:8080", *FORGED, b"Waitroom-Ticket: x", b"Cookie: " + cookie(inside))

    assert await sent(gateway, b"GET /forged HTTP/1.1", *lines) == 200

    seen = shop.last("/forged")
    names = [name.lower().replace("_", "-") for name, _ in seen.headers]
    assert len(names) == len(set(names)), names
    assert seen.one("Host") == "heads.test:8080"
    assert seen.one("X-Forwarded-For") == "127.0.0.1"
    assert seen.one("X-Forwarded-Proto") == "http"
    assert seen.one("X-Forwarded-Host") == "heads.test:8080"
    assert seen.one("Forwarded") is None
    assert seen.one("Waitroom-Room") == "heads"
    assert seen.session == f"{inside.pass_.session:x}"
    assert seen.one("Waitroom-Ticket") is None
    assert seen.one("X-Request-Id") not in (None, "mine")


async def test_forwarding_headers_of_a_trusted_proxy_are_used(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    lines = (
        b"Host: heads.test",
        b"X-Forwarded-For: 198.51.100.7, 203.0.113.9",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: shop.example",
        b"Waitroom-Session: 1",
        b"Cookie: " + cookie(inside),
    )

    assert await sent(gateway, b"GET /trusted HTTP/1.1", *lines, source=PROXY) == 200

    seen = shop.last("/trusted")
    assert seen.one("X-Forwarded-For") == f"198.51.100.7, 203.0.113.9, {PROXY}"
    assert seen.one("X-Forwarded-Proto") == "https"
    assert seen.one("X-Forwarded-Host") == "shop.example"
    assert seen.session == f"{inside.pass_.session:x}"


@pytest.mark.parametrize(("source", "attributes"), [(PROXY, "SameSite=None; Secure"), ("127.0.0.78", "SameSite=Lax")])
async def test_a_pass_over_https_is_sent_on_cross_site_posts(gateway: Gateway, source: str, attributes: str) -> None:
    async with Wire.open(gateway, source=source) as wire:
        await wire.send(b"GET / HTTP/1.1\r\nHost: heads.test\r\nAccept: text/html\r\nX-Forwarded-Proto: https\r\n\r\n")
        answer = await wire.answer()

    (line,) = (line for line in answer.cookie_lines if line.startswith("waitroom_pass_heads="))
    assert line.endswith(f"; HttpOnly; {attributes}")


async def test_hop_by_hop_headers_end_here(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    lines = (
        *(
            b"Host: heads.test",
            b"Connection: X-Mine, Cookie, Host",
            b"X-Mine: 1",
            b"Keep-Alive: timeout=5",
            b"TE: trailers",
        ),
        *(
            b"Proxy-Authorization: Basic eA==",
            b"Authorization: Bearer y",
            b"X-Kept: 2",
            b"Cookie: k=v; " + cookie(inside),
        ),
    )

    assert await sent(gateway, b"GET /hops HTTP/1.1", *lines) == 200

    seen = shop.last("/hops")
    for name in ("X-Mine", "Keep-Alive", "TE", "Proxy-Authorization", "Connection"):
        assert seen.one(name) is None, name
    assert (seen.one("Authorization"), seen.one("X-Kept"), seen.one("Cookie")) == ("Bearer y", "2", "k=v")
    assert seen.one("Host") == "heads.test"


async def test_the_target_is_forwarded_as_sent(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    target = "/A//b/./c/../%2e%2E/%C3%A9;v=1?x=1&x=2&y=%20+~&&=?/"

    assert (
        await sent(gateway, b"GET %b HTTP/1.1" % target.encode(), b"Host: heads.test", b"Cookie: " + cookie(inside))
        == 200
    )

    assert shop.seen[-1].target == target


async def test_a_body_keeps_its_framing(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    head = (b"Host: heads.test", b"Cookie: " + cookie(inside), b"Content-Type: text/plain")

    assert await sent(gateway, b"POST /length HTTP/1.1", *head, b"Content-Length: 11", body=b"hello world") == 200
    assert await sent(gateway, b"POST /empty HTTP/1.1", *head, b"Content-Length: 0") == 200
    assert await sent(gateway, b"GET /nothing HTTP/1.1", *head) == 200
    chunks = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"
    assert await sent(gateway, b"POST /chunks HTTP/1.1", *head, b"Transfer-Encoding: chunked", body=chunks) == 200

    length, empty, nothing, chunked = (shop.last(path) for path in ("/length", "/empty", "/nothing", "/chunks"))
    assert (length.one("Content-Length"), length.one("Transfer-Encoding"), length.raw) == ("11", None, b"hello world")
    assert (empty.one("Content-Length"), empty.one("Transfer-Encoding")) == ("0", None)
    assert (nothing.one("Content-Length"), nothing.one("Transfer-Encoding")) == (None, None)
    assert (chunked.one("Content-Length"), chunked.one("Transfer-Encoding")) == (None, "chunked")
    assert chunked.body == b"hello world"
    assert chunked.raw.endswith(b"0\r\nX-Sum: 1\r\n\r\n")


async def test_a_newcomers_form_arrives_complete(gateway: Gateway, shop: Shop) -> None:
    """Its body waits here until the store has let the visitor in."""
    body = b"x" * 1_000_000

    answer = await Visitor(gateway, "heads").navigate("/newcomer", "POST", body)

    assert answer.status == 200
    seen = shop.last("/newcomer")
    assert (seen.one("Content-Length"), seen.body) == (str(len(body)), body)


async def test_a_client_that_expects_100_continue(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: %b\r\nExpect: 100-continue\r\nContent-Length: 4\r\n%b\r\n"
    async with Wire.open(gateway) as wire:
        await wire.send(head % (b"/leave", b"heads.test", b"Cookie: %b\r\n" % cookie(inside)))
        assert (await wire.head())[0] == 100
        await wire.send(b"body")
        assert (await wire.answer()).status == 200
    assert shop.last("/leave").body == b"body"
    assert shop.last("/leave").one("Expect") is None

    if not await gateway.members("taken", "active"):
        await filled(gateway, "taken")
    async with Wire.open(gateway) as wire:
        await wire.send(head % (b"/leave", b"taken.test", b""))
        assert (await wire.head())[0] == 503


async def test_a_dozen_cookies_come_back_in_order(gateway: Gateway, shop: Shop) -> None:
    lines = [
        f"Set-Cookie: {'same' if i % 3 else 'other'}={i}; Path=/{i}; Expires=Wed, 01 Jan 2031 00:00:00 GMT"
        for i in range(12)
    ]
    shop.answers["/cookies"] = response(b"ok", *lines)
    visitor = Visitor(gateway, "heads")

    answer = await visitor.goes_in("/cookies")

    theirs = [line for line in answer.cookie_lines if not line.startswith("waitroom_")]
    assert theirs == [line.removeprefix("Set-Cookie: ") for line in lines]
    assert len(answer.cookie_lines) == 14  # the pass, and the ticket taken back


async def test_a_response_keeps_its_framing(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    shop.answers["/length"] = response(b"hello", "Connection: X-Hop", "X-Hop: 1", "X-Kept: 2")
    shop.answers["/chunks"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    shop.answers["/until-close"] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"
    shop.answers["/old"] = b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nhello"
    shop.answers["/nothing"] = b"HTTP/1.1 204 No Content\r\n\r\n"
    shop.answers["/same"] = b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n"
    async with Wire.open(gateway) as wire:
        got = {}
        for path in ("/length", "/chunks", "/until-close", "/old", "/nothing", "/length"):
            request = b"GET %b HTTP/1.1\r\nHost: heads.test\r\nCookie: %b\r\n\r\n"
            await wire.send(request % (path.encode(), cookie(inside)))
            if path == "/nothing":
                got[path] = await wire.head()
            else:
                answer = await wire.answer()
                assert (answer.status, answer.body) == (200, b"hello"), path
                got[path] = answer.status, answer.headers

    assert got["/length"][1].get("Content-Length") == "5"
    assert "Transfer-Encoding" not in got["/length"][1]
    assert "X-Hop" not in got["/length"][1]
    assert got["/length"][1]["X-Kept"] == "2"
    for path in ("/chunks", "/until-close", "/old"):
        assert got[path][1].get("Transfer-Encoding") == "chunked"
        assert "Content-Length" not in got[path][1]
    assert got["/nothing"][0] == 204
    assert "Content-Length" not in got["/nothing"][1]


async def test_head_and_not_modified_have_no_body(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    shop.answers["/page"] = response(b"hello", "ETag: x")
    shop.answers["/same"] = b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n"
    async with Wire.open(gateway) as wire:
        for method, path, status in ((b"HEAD", b"/page", 200), (b"GET", b"/same", 304), (b"GET", b"/page", 200)):
            await wire.send(
                b"%b %b HTTP/1.1\r\nHost: heads.test\r\nCookie: %b\r\n\r\n" % (method, path, cookie(inside))
            )
            got, headers = await wire.head()
            assert (got, headers["ETag"], headers["Content-Length"]) == (status, "x", "5")
        async with asyncio.timeout(60):
            assert await wire.reader.readexactly(5) == b"hello"


async def test_requests_sent_together_are_answered_in_order(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    for number in range(5):
        shop.answers[f"/pipe/{number}"] = response(b"answer %d" % number)
    request = b"GET /pipe/%d HTTP/1.1\r\nHost: heads.test\r\nCookie: %b\r\n\r\n"
    async with Wire.open(gateway) as wire:
        await wire.send(b"".join(request % (number, cookie(inside)) for number in range(5)))

        assert [(await wire.answer()).body for _ in range(5)] == [b"answer %d" % number for number in range(5)]


async def test_an_http_1_0_client_gets_no_chunks(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    shop.answers["/old-client"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    async with Wire.open(gateway) as wire:
        await wire.send(b"GET /old-client HTTP/1.0\r\nHost: heads.test\r\nCookie: %b\r\n\r\n" % cookie(inside))
        answer = await wire.answer()

        assert (answer.status, answer.body) == (200, b"hello")
        assert "Transfer-Encoding" not in answer.headers


async def test_early_hints_are_forwarded(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    shop.answers["/hints"] = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + response(b"page")
    async with Wire.open(gateway) as wire:
        await wire.send(b"GET /hints HTTP/1.1\r\nHost: heads.test\r\nCookie: %b\r\n\r\n" % cookie(inside))

        status, headers = await wire.head()
        assert (status, headers["Link"]) == (103, "</a.css>; rel=preload")
        assert (await wire.answer()).body == b"page"


async def test_a_shop_that_closes_after_each_response(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    shop.answers["/closing"] = response(b"bye", "Connection: close")

    answers = [await inside.fetch("/closing") for _ in range(10)]

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"bye")] * 10
    assert len({one.connection for one in shop.seen if one.path == "/closing"}) == 10


async def test_a_shop_that_closes_idle_connections(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    for _ in range(5):
        assert (await inside.fetch("/idle", "POST", b"x")).status == 200
        shop.drop_connections()

    assert shop.paths().count("/idle") == 5


async def test_connections_to_the_shop_are_reused(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    for _ in range(10):
        assert (await inside.fetch("/again")).status == 200

    assert len({one.connection for one in shop.seen if one.path == "/again"}) == 1


async def test_malformed_requests_are_refused_and_not_forwarded(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    head = b"Host: heads.test\r\nCookie: %b\r\n" % cookie(inside)
    seen = len(shop.seen)

    for data in (
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: heads.test\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST / HTTP/1.1\r\n" + head + b"Content-Length: +5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\n" + head + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + head + b"X-Folded: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + head + b"X-Space : a\r\n\r\n",
        b"GET / HTTP/1.1\n" + head.replace(b"\r\n", b"\n") + b"\n",
        b"GET /\x00 HTTP/1.1\r\n" + head + b"\r\n",
        b"GET / HTTP/2.0\r\n" + head + b"\r\n",
    ):
        async with Wire.open(gateway) as wire:
            await wire.send(data)
            answer = await wire.answer()
            assert answer.status == 400, data
            assert answer.headers["Connection"] == "close"
            assert b"Traceback" not in answer.body
            async with asyncio.timeout(60):
                assert await wire.reader.read() == b"", data

    assert len(shop.seen) == seen


async def test_the_shop_stops_working_for_a_visitor_who_left(gateway: Gateway, shop: Shop, inside: Visitor) -> None:
    async def endless(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    shop.answers["/endless"] = endless
    async with Wire.open(gateway) as wire:
        await wire.send(b"GET /endless HTTP/1.1\r\nHost: heads.test\r\nCookie: %b\r\n\r\n" % cookie(inside))
        await eventually(lambda: "/endless" in shop.paths())
        before = shop.open

    await eventually(lambda: shop.open < before)
    shop.drop_connections()
