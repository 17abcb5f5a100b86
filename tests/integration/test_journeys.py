"""A visitor's way through the line, over HTTP alone, with either kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.gateway_process import Gateway, eventually, room, running_gateway
from support.redis_server import system_redis
from support.upstreams.server import Shop
from support.visitor_client import FETCH, NAVIGATE, Answer, Visitor, filled

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

FULL = {"max_active": 1}
ROOMS = [
    room("quiet"),
    room("line", **FULL),
    room("reload", **FULL),
    room("script", **FULL),
    room("asset", **FULL),
    room("preflight", **FULL),
    room("form", **FULL),
    room("leave", **FULL),
    room("cross", **FULL),
    room("app", **FULL),
    room("ok", **FULL, waiting_status=200),
    room("sizes", max_active=3),
    room("slow", max_active=50, rate_per_minute=1),
    room("free", **FULL, method="passthrough"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["embedded", "redis"])
async def gateway(
    request: pytest.FixtureRequest, shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    rooms = [{"upstream": shop.address, **one} for one in ROOMS]
    shop.seen.clear()
    if request.param == "embedded":
        async with running_gateway(folder, rooms, workers=1) as gateway:
            yield gateway
        return
    async with (
        system_redis(folder / "redis") as redis,
        running_gateway(folder, rooms, workers=1, redis_url=redis.url) as gateway,
    ):
        assert not gateway.children("valkey")
        yield gateway


async def test_a_newcomer_is_admitted_immediately_while_nobody_waits(gateway: Gateway, shop: Shop) -> None:
    shop.answers["/cached"] = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: public, max-age=600\r\nExpires: 0\r\n"
        b"Content-Length: 5\r\n\r\nhello"
    )
    visitor = Visitor(gateway, "quiet")

    answer = await visitor.goes_in("/cached?item=1")

    assert answer.body == b"hello"
    assert answer.headers.getall("Cache-Control") == ["private, no-store"]
    assert "Expires" not in answer.headers
    given, deleted = answer.cookie(visitor.pass_cookie), answer.cookie(visitor.ticket_cookie)
    assert given is not None
    assert deleted is not None
    assert given["path"] == "/"
    assert given["samesite"] == "Lax"
    assert "httponly" in given
    assert "secure" not in given
    assert int(given["max-age"]) > 0
    assert (deleted["value"], deleted["max-age"]) == ("", "0")
    seen = shop.last("/cached")
    assert seen.target == "/cached?item=1"
    assert seen.one("Waitroom-Room") == "quiet"
    assert seen.session == f"{visitor.pass_.session:x}"


async def test_a_session_continues_under_its_pass(gateway: Gateway, shop: Shop) -> None:
    visitor = Visitor(gateway, "quiet")
    await visitor.goes_in("/first")
    joined = await gateway.total("quiet")

    for number in range(6):  # more than there are workers
        answer = await visitor.fetch(f"/further/{number}")
        assert answer.status == 200

    sessions = {one.session for one in shop.seen if one.path == "/first" or one.path.startswith("/further/")}
    assert f"{visitor.pass_.session:x}" in sessions
    assert {shop.last(f"/further/{number}").session for number in range(6)} == {f"{visitor.pass_.session:x}"}
    assert await gateway.total("quiet") == joined


async def test_visitors_of_a_full_room_wait_and_are_admitted_in_order(gateway: Gateway, shop: Shop) -> None:
    inside = await filled(gateway, "line")
    second, third = Visitor(gateway, "line"), Visitor(gateway, "line")

    answer = await second.waits("/line/second?step=2")

    assert answer.is_page
    assert answer.headers["Cache-Control"] == "no-store"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.page_position == 1
    assert (await third.waits("/line/third")).page_position == 2
    assert not {"/line/second", "/line/third"} & set(shop.paths())
    status = await third.position(2)
    assert status["room"] == "line"
    assert status["waiting"] == 2
    assert status["poll_after"] >= 1
    assert status["claim_by"] is None

    assert (await second.call("leave")).status == 200
    await third.position(1)
    place = third.ticket.place
    assert (await inside.call("leave")).status == 200
    called = await third.state("called")

    assert called["claim_by"] is not None
    assert called["position"] is None
    await third.is_let_in("/line/third")
    assert third.pass_.session == place
    assert third.ticket_cookie not in third.cookies
    assert shop.last("/line/third").session == f"{place:x}"
    assert (await third.status())["state"] == "admitted"
    assert (await second.waits("/line/second")).page_position == 1  # a new place: the old one was given up
    await gateway_counts(gateway, "line", waiting_visitors=1, active_sessions=1, called_visitors=0)


async def gateway_counts(gateway: Gateway, name: str, **expected: float) -> None:
    async def look() -> bool:
        samples = await gateway.metrics_of(name)
        found = {key: samples[(f"waitroom_{key}",)] for key in expected}
        assert found == expected
        return True

    await eventually(look)


async def test_a_called_visitor_enters_without_a_script(gateway: Gateway, shop: Shop) -> None:
    inside = await filled(gateway, "form")
    other = Visitor(gateway, "form")
    await other.waits("/form")
    await inside.call("leave")

    async def post() -> Answer:
        answer = await other.navigate("/form", "POST", b"name=Ada", Content_Type="application/x-www-form-urlencoded")
        assert answer.status == 200
        return answer

    await eventually(post)

    assert shop.paths().count("/form") == 1
    assert shop.last("/form").method == "POST"
    assert shop.last("/form").body == b"name=Ada"
    assert shop.last("/form").one("Content-Length") == "8"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_waiting_visitors_are_never_redirected(gateway: Gateway, method: str) -> None:
    if not await gateway.members("script", "active"):
        await filled(gateway, "script")
    other = Visitor(gateway, "script")

    page = await other.navigate("/basket", method, b"x=1" if method == "POST" else None)
    told = await other.fetch("/api/basket", method, b"{}" if method == "POST" else None)
    plain = await other.request(
        method, "/api/basket", {"Accept": "application/json"}, b"{}" if method == "POST" else None
    )

    assert (page.status, page.is_page) == (503, True)
    for answer in (told, plain):
        assert answer.status == 503
        assert answer.json["state"] == "waiting"
        assert answer.headers["Cache-Control"] == "no-store"
        assert int(answer.headers["Retry-After"]) >= 1
    assert not any("Location" in answer.headers for answer in (page, told, plain))


async def test_the_status_of_the_waiting_page_is_a_setting(gateway: Gateway) -> None:
    await filled(gateway, "ok")
    visitor = Visitor(gateway, "ok")

    page = await visitor.navigate()

    assert (page.status, page.state, page.headers["Cache-Control"]) == (200, "waiting", "no-store")
    assert (await visitor.fetch()).json["state"] == "waiting"


NO_PLACE = {
    "favicon": ("GET", {**NAVIGATE, "Accept": "image/*", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}),
    "style": (
        "GET",
        {**NAVIGATE, "Accept": "text/css,*/*;q=0.1", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "style"},
    ),
    "script": ("GET", {**NAVIGATE, "Accept": "*/*", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}),
    "fetch": ("GET", FETCH),
    "fetch of html": ("GET", {**FETCH, "Accept": "text/html"}),
    "post of a script": ("POST", FETCH),
    "head": ("HEAD", NAVIGATE),
    "options": ("OPTIONS", NAVIGATE),
    "service worker": ("GET", {**FETCH, "Sec-Fetch-Mode": "same-origin", "Sec-Fetch-Dest": "serviceworker"}),
    "prefetch": ("GET", {**NAVIGATE, "Sec-Purpose": "prefetch"}),
    "prerender": ("GET", {**NAVIGATE, "Sec-Purpose": "prefetch;prerender"}),
    "older prefetch": ("GET", {**NAVIGATE, "Purpose": "prefetch"}),
    "curl": ("GET", {"Accept": "*/*"}),
    "app": ("GET", {"Accept": "application/json"}),
    "delete": ("DELETE", NAVIGATE),
}


async def test_only_navigations_take_a_place(gateway: Gateway, shop: Shop) -> None:
    await filled(gateway, "asset")
    seen = len(shop.seen)

    for name, (method, headers) in NO_PLACE.items():
        answer = await Visitor(gateway, "asset").request(method, "/thing", headers)
        assert answer.status == 503, name
        assert not answer.cookie_lines, name
        if method != "HEAD":
            assert answer.json["state"] == "unknown", name

    assert len(shop.seen) == seen
    assert await gateway.total("asset") == 1
    await Visitor(gateway, "asset").waits()
    await eventually(lambda: _metric_is(gateway, "asset", "waitroom_joined_total", 2))


async def _metric_is(gateway: Gateway, name: str, metric: str, value: float) -> bool:
    samples = await gateway.metrics_of(name)
    assert samples[(metric,)] == value
    return True


async def test_a_preflight_is_forwarded_and_takes_no_place(gateway: Gateway, shop: Shop) -> None:
    await filled(gateway, "preflight")
    shop.answers["/preflight"] = b"HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: *\r\n\r\n"

    asks = {"Origin": "http://elsewhere.test", "Access-Control-Request-Method": "POST"}
    answer = await Visitor(gateway, "preflight").request("OPTIONS", "/preflight", asks)

    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert not answer.cookie_lines
    assert shop.last("/preflight").session is None
    assert await gateway.total("preflight") == 1


async def test_reloading_and_a_second_tab_count_once(gateway: Gateway) -> None:
    await filled(gateway, "reload")
    visitor = Visitor(gateway, "reload")
    await visitor.waits()
    ticket = visitor.ticket
    await visitor.position(1)

    for _ in range(5):
        assert (await visitor.waits()).page_position == 1
    assert (await visitor.waits("/another/tab")).page_position == 1
    joined = await visitor.call("join")

    assert joined.status == 200
    assert visitor.ticket == ticket
    assert await gateway.total("reload") == 2
    assert list(await gateway.members("reload", "waiting")) == [ticket.place]


async def test_leaving_gives_up_place_and_session(gateway: Gateway) -> None:
    inside = await filled(gateway, "leave")
    first, second = Visitor(gateway, "leave"), Visitor(gateway, "leave")
    await first.waits()
    await second.waits()
    kept, left = dict(first.cookies), first.ticket.place

    page = await first.navigate("/.waitroom/leave?room=leave", "POST", Sec_Fetch_Site="same-origin")

    assert (page.status, page.is_page) == (200, True)
    assert not first.cookies
    assert list(await gateway.members("leave", "waiting")) == [second.ticket.place]

    went = dict(inside.cookies)
    await inside.call("leave")
    assert not inside.cookies
    await second.state("called")
    await second.is_let_in()
    # What they kept all the same is good for nothing.
    first.cookies, inside.cookies = kept, went
    await first.state("unknown")
    await inside.waits()
    await first.waits()
    assert first.ticket.place > inside.ticket.place > left


async def test_another_site_cannot_make_a_visitor_leave(gateway: Gateway) -> None:
    await filled(gateway, "cross")
    visitor = Visitor(gateway, "cross")
    await visitor.waits()
    address = "/.waitroom/leave?room=cross"

    answers = [
        await visitor.navigate(address, "POST", Sec_Fetch_Site="cross-site"),
        await visitor.navigate(address, "POST", Sec_Fetch_Site="same-site"),
        await visitor.request("POST", address, {"Origin": "http://elsewhere.test"}),
        await visitor.request("POST", address, {"Origin": "null"}),
    ]

    assert [answer.status for answer in answers] == [403] * 4
    assert (await visitor.navigate(address)).status == 405
    assert visitor.ticket_cookie in visitor.cookies
    assert visitor.ticket.place in await gateway.members("cross", "waiting")
    own = await visitor.request("POST", address, {"Origin": "http://cross.test"})
    assert own.status == 200
    assert not await gateway.members("cross", "waiting")


async def test_an_app_waits_and_enters_by_headers(gateway: Gateway, shop: Shop) -> None:
    def app(**headers: str) -> Visitor:
        return Visitor(gateway, "app", headers={name.replace("_", "-"): value for name, value in headers.items()})

    first = await app().call("join")
    assert first.status == 201
    assert first.json["state"] == "admitted"
    inside = app(Waitroom_Pass=first.json["pass"])
    assert (await inside.fetch("/api/one")).status == 200

    joined = await app().call("join")
    assert joined.status == 201
    assert joined.json["state"] == "waiting"
    assert joined.json["position"] == 1
    ticket = joined.json["ticket"]
    assert joined.headers["Waitroom-Ticket"] == ticket
    waiting = app(Waitroom_Ticket=ticket)
    again = await waiting.call("join")
    assert (again.status, again.json["ticket"]) == (200, ticket)
    assert (await waiting.call("claim")).status == 409
    asked = await app(Waitroom_Ticket=ticket).fetch("/api/two")
    assert (asked.status, asked.json["state"]) == (503, "waiting")
    assert await gateway.total("app") == 2

    assert (await app(Waitroom_Pass=first.json["pass"]).call("leave")).status == 200
    await app(Waitroom_Ticket=ticket).state("called")
    claims = [await app(Waitroom_Ticket=ticket).call("claim") for _ in range(3)]

    assert [claim.status for claim in claims] == [200] * 3
    tokens = gateway.tokens("app")
    assert {tokens.read_pass(claim.json["pass"].encode()).session for claim in claims} == {
        tokens.read_ticket(ticket.encode()).place
    }
    assert claims[0].headers["Waitroom-Pass"] == claims[0].json["pass"]
    assert len(await gateway.members("app", "active")) == 1
    assert (await app(Waitroom_Pass=claims[0].json["pass"]).fetch("/api/three")).status == 200
    assert shop.last("/api/three").one("Waitroom-Pass") is None
    assert (await app(Waitroom_Pass=claims[-1].json["pass"]).call("leave")).status == 200
    assert not await gateway.members("app", "active")


async def test_active_visitors_never_exceed_the_limit(gateway: Gateway) -> None:
    visitors = [Visitor(gateway, "sizes") for _ in range(10)]

    answers = [await visitor.navigate() for visitor in visitors]

    assert [answer.status for answer in answers] == [200] * 3 + [503] * 7
    assert [answer.page_position for answer in answers[3:]] == list(range(1, 8))
    assert len(await gateway.members("sizes", "active")) == 3


async def test_a_minutes_admissions_do_not_happen_in_a_burst(gateway: Gateway) -> None:
    answers = [await Visitor(gateway, "slow").navigate() for _ in range(5)]

    assert [answer.status for answer in answers] == [200] + [503] * 4


async def test_a_passthrough_room_admits_everybody(gateway: Gateway) -> None:
    answers = [await Visitor(gateway, "free").navigate() for _ in range(5)]

    assert [answer.status for answer in answers] == [200] * 5
    assert len(await gateway.members("free", "active")) == 5


async def test_unknown_endpoints(gateway: Gateway, shop: Shop) -> None:
    visitor = Visitor(gateway, "quiet")

    assert (await visitor.fetch("/.waitroom/status?room=nowhere")).status == 404
    assert (await visitor.fetch("/.waitroom/anything")).status == 404
    assert (await visitor.fetch("/.waitroom/join?room=quiet")).status == 405
    assert (await visitor.fetch("/.waitroom/status?room=quiet", "POST")).status == 405
    assert (await Visitor(gateway, "quiet", host="elsewhere.test").navigate()).status == 421
    assert not [path for path in shop.paths() if ".waitroom" in path]
