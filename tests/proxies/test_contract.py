"""The same promises behind every proxy, in each of its modes, with the files in deploy/."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from support.admin_client import Operator
from support.gateway_process import Gateway, eventually
from support.proxies import FRONTS, HOST, REDIRECTS, Behind, Front, Proxies, Proxy
from support.upstreams.server import Seen, Shop, response
from support.visitor_client import Answer, Wire
from waitroom.queue.store import QueueStore
from waitroom.shop import ProofVerifier
from waitroom.tokens import Pass

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SECRET = "shared-by-the-gateway-and-the-shop-of-these-tests"
ROOMS = [
    {
        "name": "shop",
        "paths": ["/shop/"],
        "shop_secret": SECRET,
        "rate_per_minute": 600_000,
        "max_active": 10_000,
        "without_pass_per_second": 100.0,
        "bypass": [{"exact_paths": ["/shop/hook"], "methods": ["POST"]}],
    },
    {"name": "other", "hosts": ["other.example"], "paths": ["/other/"]},
    {"name": "full", "paths": ["/full/"], "rate_per_minute": 600_000, "max_active": 1},
    {"name": "short", "paths": ["/short/"], "rate_per_minute": 600_000, "max_active": 1000, "session_seconds": 60},
]
MEGABYTE = 1_000_000
# The proxies that can't remove single cookies, or headers by a part of their names.
KEEPS_COOKIES = ("traefik",)
KEEPS_UNKNOWN = ("nginx",)
# Those whose checks show a WebSocket by its key only.
JUDGES_BY_KEY = ("traefik",)
# Headers that some caches obey instead of Cache-Control.
TARGETED = ("CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Surrogate-Control", "Edge-Control")
# Those that renew passes on every response, whatever it says about caches.
RENEWS_ON_ALL = ("traefik",)
SESSION_LENGTHS, FETCH_SECONDS = 10, 5.0


@pytest.fixture(params=FRONTS, ids=str)
def front(request: pytest.FixtureRequest) -> Front:
    return request.param


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(proxies: Proxies, front: Front) -> Proxy:
    return await proxies.get(front)


Comes = Callable[[str], Behind]


@pytest.fixture
def comes(gateway: Gateway, proxies: Proxies, proxy: Proxy) -> Comes:
    """A new visitor of a room."""
    return lambda room: Behind(gateway, room, host=HOST, http=proxies.http, proxy=proxy)


@asynccontextmanager
async def inside(visitor: Behind, path: str) -> AsyncIterator[Behind]:
    """The visitor in the shop, who leaves in the end."""
    await visitor.is_let_in(path)
    try:
        yield visitor
    finally:
        await visitor.call("leave")


def assert_refused(answer: Answer) -> None:
    """A refusal for a program: JSON, and not a redirect that would lose a body."""
    assert answer.status in (401, 429, 503), answer
    assert answer.json


def all_of(shop: Shop, path: str) -> list[Seen]:
    return [one for one in shop.seen if one.path == path]


def proven(seen: Seen) -> dict[str, Any]:
    """The claims of the proof that reached the shop."""
    return ProofVerifier(room="shop", secrets=[SECRET]).verify(seen.all("Waitroom-Proof"))


async def test_a_newcomer_waits_is_called_and_goes_in(comes: Comes, front: Front, shop: Shop) -> None:
    first, second = comes("full"), comes("full")
    path = f"/full/{front}"
    async with inside(first, f"{path}/first"):
        waiting = await second.navigate(f"{path}?a=b&c=%20d")
        assert waiting.status == (429 if front.asks and front.name != "nginx" else 503)
        assert (waiting.is_page, waiting.state, waiting.page_position) == (True, "waiting", 1)
        assert int(waiting.headers["Retry-After"]) > 0
        assert "no-store" in waiting.headers["Cache-Control"]
        place = second.ticket.place
        assert (await second.navigate(path)).state == "waiting"
        assert second.ticket.place == place
        assert (await second.status())["state"] == "waiting"
        assert_refused(await second.fetch(f"{path}/data"))
        assert not [one for one in shop.seen if one.path.startswith(path) and "first" not in one.path]
    await second.state("called")
    async with inside(second, f"{path}?a=b&c=%20d"):
        assert shop.last(path).target == f"{path}?a=b&c=%20d"


async def test_every_kind_of_request_of_a_shopper(comes: Comes, front: Front, shop: Shop) -> None:
    path = f"/shop/{front}/kinds"
    visitor = comes("shop")
    await visitor.is_let_in(f"{path}/in")
    removes_cookies = not front.asks or front.name not in KEEPS_COOKIES
    assert shop.last(f"{path}/in").one("Cookie") is None or not removes_cookies
    visitor.cookies |= {"basket": "7", "waitroom_arrival_shop": "x", "after": "8"}
    session = f"{visitor.pass_.session:x}"
    shop.answers[path] = response(
        b"fine\n", "Cache-Control: no-store", "Waitroom-Command: remaining=5", "Set-Cookie: a=1", "Set-Cookie: b=2"
    )
    body = bytes(range(250)) * (MEGABYTE // 250)

    for method, sent in (("GET", None), ("POST", body), ("PUT", b"x"), ("DELETE", None), ("HEAD", None)):
        answer = await visitor.fetch(f"{path}?x=%C3%A4&y=a+b", method, sent)
        assert answer.status == 200, (method, answer)
        assert answer.body == (b"" if method == "HEAD" else b"fine\n")
        assert [line.partition(";")[0] for line in answer.cookie_lines if "waitroom" not in line] == ["a=1", "b=2"]
        assert "Waitroom-Command" not in answer.headers
        seen = shop.last(path)
        assert (seen.method, seen.target, seen.body) == (method, f"{path}?x=%C3%A4&y=a+b", sent or b"")
        assert (seen.one("Waitroom-Session"), seen.one("Waitroom-Room")) == (session, "shop")
        assert proven(seen)["sub"] == session
        assert (seen.one("Host"), seen.one("X-Forwarded-Host")) == (HOST, HOST)
        assert seen.one("X-Forwarded-Proto") == "https"
        # Envoy has its machine's address for a visitor on the same machine.
        assert set((seen.one("X-Forwarded-For") or "").split(", ")) == {"127.0.0.1"} or front.name == "envoy"
        cookies = {one.strip() for one in (seen.one("Cookie") or "").split(";")}
        assert {"basket=7", "after=8"} <= cookies
        assert not any(one.startswith("waitroom_") for one in cookies) or not removes_cookies


async def test_a_long_address(comes: Comes, front: Front, shop: Shop) -> None:
    """Campaign parameters, or a search in a script that takes nine bytes for a character."""
    path = f"/full/{front}/long"
    query = "q=" + "%E0%A4%95" * 660
    first, second = comes("full"), comes("full")
    async with inside(first, f"{path}?{query}"):
        assert shop.last(path).target == f"{path}?{query}"
        assert (await second.navigate(f"{path}?{query}&second=1")).state == "waiting"
    await second.state("called")
    async with inside(second, f"{path}?{query}&second=1"):
        assert shop.last(path).target == f"{path}?{query}&second=1"


async def test_preflights_and_webhooks_need_no_pass(comes: Comes, front: Front, shop: Shop) -> None:
    stranger = comes("shop")
    path = f"/shop/{front}/preflight"
    shop.answers[path] = response(b"", "Access-Control-Allow-Methods: PUT", "Access-Control-Max-Age: 60")
    asks = {"Origin": "https://app.example", "Access_Control_Request_Method": "PUT"}

    async def allowed() -> bool:
        answer = await stranger.fetch(path, "OPTIONS", **asks)
        assert answer.status in (200, 204), answer
        return answer.headers["Access-Control-Allow-Methods"] == "PUT"

    await eventually(allowed, every=0.5)  # a budget for all proxies together
    assert shop.last(path).session is None

    answer = await stranger.fetch("/shop/hook", "POST", b"paid=1", X_From=str(front))
    assert answer.status == 200
    seen = shop.last("/shop/hook")
    assert (seen.one("X-From"), seen.method, seen.body) == (str(front), "POST", b"paid=1")
    assert not seen.session
    assert proven(seen)["via"] == "bypass"
    assert not stranger.cookies
    assert_refused(await stranger.fetch(f"/shop/{front}/order", "POST", b"x=1"))
    assert not all_of(shop, f"/shop/{front}/order")


FORGED = {
    "X-Forwarded-Uri": "/free",
    "X-Original-URI": "/free",
    "X-Original-URL": "/free",
    "X-Rewrite-URL": "/free",
    "X-Forwarded-Method": "OPTIONS",
    "X-Original-Method": "OPTIONS",
    "X-Forwarded-For": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;host=free.example",
    "X-Forwarded-Proto": "http",
    "Waitroom-Session": "deadbeef",
    "Waitroom-Room": "vip",
    "Waitroom-Proof": "e30.e30.",
    "Waitroom-Anything": "x",
    "Waitroom_Session": "deadbeef",
    "X_Forwarded_For": "6.6.6.6",
    "X_Original_URL": "/free",
}
# Some spellings of a covered path; a proxy may take them for addresses of the gateway.
SPELLED = (
    "/.waitroom/../{}",
    "/.waitroom/%2e%2e/{}",
    "/.waitroom/..%2f{}",
    "/.waitroom/x/..;/../{}",
    "/.waitroom/check/../../{}",
)


async def test_forged_headers_and_foreign_passes_are_worth_nothing(
    comes: Comes, front: Front, shop: Shop, gateway: Gateway
) -> None:
    path = f"/shop/{front}/forged"
    stranger, other, visitor = comes("shop"), comes("full"), comes("shop")
    async with inside(other, f"/full/{front}/other"):
        foreign = other.cookies[other.pass_cookie]
    await visitor.is_let_in(f"/shop/{front}/in")
    good = visitor.cookies[visitor.pass_cookie]
    forged = gateway.tokens("shop", "a secret of somebody else's").sign_pass(visitor.pass_)
    for headers in (
        *({name: value} for name, value in FORGED.items()),
        *({"Waitroom-Pass": value} for value in (foreign, forged, good[:-1], "")),
        *({"Cookie": f"{visitor.pass_cookie}={value}"} for value in (foreign, forged, good[:-1], "")),
    ):
        answer = await stranger.request("POST", path, {"Accept": "*/*", **headers}, b"x=1")
        assert answer.status in (400, 401, 403, 429, 503), (headers, answer)
        assert not stranger.cookies
    for spelled in SPELLED:
        await stranger.fetch(spelled.format(path[1:]), "POST", b"x=1")
    assert not [one for one in shop.seen if one.path.endswith(path[1:])]

    for name, value in FORGED.items():
        if name == "Waitroom-Anything" and front.asks and front.name in KEEPS_UNKNOWN:
            continue
        answer = await visitor.request("POST", path, {"Accept": "*/*", name: value}, b"x=1")
        assert answer.status == 200, (name, answer)
        seen = shop.seen.pop()
        assert seen.path == path
        assert seen.session == proven(seen)["sub"] == f"{visitor.pass_.session:x}"
        assert value not in [one for _, one in seen.headers], name


async def test_the_check_is_not_for_visitors(comes: Comes, front: Front) -> None:
    visitor = comes("shop")
    await visitor.is_let_in(f"/shop/{front}/in")
    for path in (
        *("/.waitroom/check", "/.waitroom/check?answer=page", "/.waitroom/check/shop/x", "/.waitroom/%63heck"),
        *("/.waitroom/check;answer=page", "/.waitroom/check;answer=page/shop/x"),
        *("/.waitroom/./check", "/x/../.waitroom/check", "//.waitroom/check", "/.waitroom//check"),
        # These begin like a check, and a proxy that resolves them takes them for another address of ours.
        *("/.waitroom/check/../x", "/.waitroom/check//../x", "/.waitroom/check/%2e%2e/x"),
        *("/.waitroom/check;answer=page/../x", "/.waitroom/check/a/../../x", "/.waitroom/check/..%2fx"),
    ):
        answer = await visitor.fetch(path, X_Forwarded_Uri="/shop/x", X_Forwarded_Method="GET")
        assert answer.status in (*REDIRECTS, 400, 403, 404) or answer.body == b"<p>The shop.\n", (path, answer)
        assert "Waitroom-Session" not in answer.headers


@pytest.mark.parametrize("front", [one for one in FRONTS if one.asks], ids=str, indirect=True)
async def test_the_host_of_the_check_is_the_one_that_the_proxy_serves(
    front: Front, proxy: Proxy, proxies: Proxies, shop: Shop
) -> None:
    """A visitor names this host in the request line, and in Host another one where the path needs no pass.

    In front of the shop Waitroom itself decides by Host.
    """
    path = f"/shop/{front}/hosts"
    for scheme in ("http", "https"):
        side = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=proxies.tls, server_hostname=HOST)
        wire = Wire(*side)
        await wire.send(
            f"POST {scheme}://{HOST}{path} HTTP/1.1\r\nHost: other.example\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert (await wire.head())[0] in (400, 401, 403, 404, 421, 429, 503)
        side[1].transport.abort()
    assert not all_of(shop, path)


async def test_a_websocket_needs_a_pass(comes: Comes, front: Front, shop: Shop, proxies: Proxies) -> None:
    path = f"/shop/{front}/socket"
    visitor = comes("shop")
    await visitor.is_let_in(f"/shop/{front}/in")

    async def echo(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello"
        )

    shop.answers[path] = echo
    head = (
        f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\n"
    )
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    assert visitor.proxy is not None
    cookie = f"Cookie: {visitor.pass_cookie}={visitor.cookies[visitor.pass_cookie]}\r\n"
    strangers = [(key, 0)] if front.asks and front.name in JUDGES_BY_KEY else [(key, 0), ("", 0)]
    for lines, status in ((key + cookie, 101), *strangers):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", visitor.proxy.port, ssl=proxies.tls, server_hostname=HOST
        )
        wire = Wire(reader, writer)
        try:
            await wire.send(f"{head}{lines}\r\n".encode())
            got, _ = await wire.head()
            if status:
                assert got == status
                assert await reader.readexactly(5) == b"hello"
                assert shop.last(path).session == f"{visitor.pass_.session:x}"
            else:
                assert got in (400, 401, 429, 503)
                assert len(all_of(shop, path)) == 1
        finally:
            writer.transport.abort()


async def test_no_tunnel_carries_http(comes: Comes, front: Front, shop: Shop) -> None:
    """In a tunnel of HTTP/2, a visitor's further requests would reach the shop without a check."""
    path = f"/shop/{front}/tunnel"
    visitor = comes("shop")
    await visitor.is_let_in(f"/shop/{front}/in")
    for protocol in ("h2c", "H2C", "websocket, h2c", "h2c, websocket"):
        shop.seen.clear()
        answer = await visitor.request(
            "GET",
            path,
            {
                "Accept": "*/*",
                "Connection": "Upgrade, HTTP2-Settings",
                "Upgrade": protocol,
                "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA",
            },
        )
        assert answer.status in (200, 400, 403, 426), (protocol, answer)
        assert not [seen for seen in all_of(shop, path) if seen.one("Upgrade")], protocol


async def with_an_old_pass(visitor: Behind) -> int:
    """Gives a visitor a pass older than its end, of a session that lasts and that the worker doesn't know."""
    async with visitor.gateway.store() as redis:
        session = (await QueueStore(redis, visitor.room).join(1)).first_place
    now = int(time.time())
    old = visitor.gateway.tokens(visitor.room).sign_pass(Pass(session, now - 5, now + 3600))
    visitor.cookies[visitor.pass_cookie] = old
    return session


async def test_a_pass_older_than_its_end_is_good_while_the_session_lasts(
    comes: Comes, front: Front, shop: Shop
) -> None:
    """As where the proxy loses renewed passes: the order of somebody active must not be lost."""
    path = f"/shop/{front}/old"
    shop.answers[path] = response(b"fine\n", "Cache-Control: private, no-store")
    visitor = comes("shop")
    session = await with_an_old_pass(visitor)
    answer = await visitor.navigate(path, "POST", b"order=1")
    assert answer.status == 200, answer
    assert (shop.last(path).body, shop.last(path).session) == (b"order=1", f"{session:x}")
    assert visitor.pass_.session == session
    assert visitor.pass_.expires_at > time.time(), "renewed"


async def test_no_cache_may_store_a_response_with_a_renewed_pass(comes: Comes, front: Front, shop: Shop) -> None:
    path = f"/shop/{front}/cached"
    targeted = [("Cache-Control: private", f"{name}: max-age=60") for name in TARGETED]
    for lines in (("Cache-Control: max-age=60",), (), *targeted):
        shop.answers[path] = response(b"fine\n", *lines)
        visitor = comes("shop")
        session = await with_an_old_pass(visitor)
        answer = await visitor.navigate(path)
        assert (answer.status, shop.last(path).session) == (200, f"{session:x}")
        stored = "no-store" not in answer.headers.get("Cache-Control", "") or any(
            name in answer.headers for name in TARGETED
        )
        assert not (answer.cookie_lines and stored) or (front.asks and front.name in RENEWS_ON_ALL), (lines, answer)


@pytest.mark.long
async def test_active_shoppers_stay_for_ten_session_lengths(gateway: Gateway, proxies: Proxies, shop: Shop) -> None:
    """A fetch every few seconds and an order now and then, behind all proxies, also where renewed passes are lost."""

    async def goes_shopping(front: Front, keeps_passes: bool) -> None:
        visitor = Behind(gateway, "short", host=HOST, http=proxies.http, proxy=await proxies.get(front))
        path = f"/short/{front}/{keeps_passes}"
        await visitor.is_let_in(path)
        first, session = dict(visitor.cookies), visitor.pass_.session
        end, number = time.monotonic() + 60 * SESSION_LENGTHS, 0
        while time.monotonic() < end:
            await asyncio.sleep(FETCH_SECONDS)  # the time itself is what is tested
            number += 1
            visitor.cookies = visitor.cookies if keeps_passes else dict(first)
            body = b"order=%d" % number if number % 5 == 0 else None
            answer = await visitor.fetch(path, "GET" if body is None else "POST", body)
            assert answer.status == 200, (front, keeps_passes, number, answer)
            seen = shop.last(path)
            assert (seen.session, seen.body) == (f"{session:x}", body or b""), (front, keeps_passes, number)

    for front in FRONTS:
        await proxies.get(front)
    async with asyncio.TaskGroup() as tasks:
        for front in FRONTS:
            for keeps_passes in (True, False):
                tasks.create_task(goes_shopping(front, keeps_passes))


async def test_nginx_buffers_the_whole_body_before_it_forwards_a_request(
    gateway: Gateway, proxies: Proxies, shop: Shop
) -> None:
    proxy = await proxies.get(Front("nginx", "plain"))
    sides = [
        await asyncio.open_connection("127.0.0.1", proxy.port, ssl=proxies.tls, server_hostname=HOST) for _ in "ab"
    ]
    wire, other = (Wire(*side) for side in sides)
    head = f"POST /free/slow HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {2 * MEGABYTE}\r\n\r\n".encode()
    await wire.send(head + b"x" * (2 * MEGABYTE - 1))
    await other.send(f"GET /free/other HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    assert (await other.answer()).status == 200
    assert not all_of(shop, "/free/slow")
    await wire.send(b"x")
    assert (await wire.answer()).status == 200
    assert len(shop.last("/free/slow").body) == 2 * MEGABYTE
    for _, writer in sides:
        writer.transport.abort()


async def test_a_session_ended_by_an_operator_is_out(comes: Comes, front: Front, shop: Shop, gateway: Gateway) -> None:
    path = f"/shop/{front}/ended"
    visitor = comes("shop")
    await visitor.is_let_in(path)
    operator = Operator(gateway, "shop")
    assert (await operator.end_session(f"{visitor.pass_.session:x}")).status == 204

    async def refused() -> bool:
        answer = await visitor.fetch(path, "POST", b"x=1")
        assert answer.status in (401, 429, 503), answer
        return True

    await eventually(refused, seconds=10)
    reached = len(shop.seen)
    assert_refused(await visitor.fetch(path, "POST", b"x=1"))
    assert len(shop.seen) == reached


async def test_a_client_without_cookies_comes_to_an_end(comes: Comes, front: Front, gateway: Gateway) -> None:
    client = comes("shop")
    joined = await gateway.total("shop")
    answer = await client.follow(f"/shop/{front}/without-cookies", keeps_cookies=False)
    assert answer.status not in REDIRECTS
    assert await gateway.total("shop") - joined <= 1


async def test_without_the_gateway_the_shop_gets_nothing(
    comes: Comes, front: Front, shop: Shop, gateway: Gateway
) -> None:
    visitor = comes("shop")
    if gateway.process is not None and gateway.process.returncode is None:
        await gateway.stop()
    reached = len(shop.seen)
    for answer in (
        await visitor.navigate(f"/shop/{front}/down"),
        await visitor.fetch(f"/shop/{front}/down", "POST", b"x=1"),
        await visitor.navigate("/free"),
    ):
        assert answer.status == DOWN[front.name, front.mode], answer
    assert len(shop.seen) == reached


# The status while the gateway is down, as the comments in the files and the docs say.
DOWN = {
    ("nginx", "plain"): 502,
    ("nginx", "forward-auth"): 500,
    ("haproxy", "plain"): 503,
    ("haproxy", "forward-auth"): 503,
    ("caddy", "plain"): 502,
    ("caddy", "forward-auth"): 502,
    ("traefik", "plain"): 502,
    ("traefik", "forward-auth"): 500,
    ("envoy", "plain"): 503,
    ("envoy", "forward-auth"): 503,
}
