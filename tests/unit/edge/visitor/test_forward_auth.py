"""Forward-auth: what another proxy is told about its requests, and what that costs the store and the budgets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest

from support.edge_world import BUSY, PAGE, QUIET, World, get, room_settings
from support.endpoint_calls import cookie, inside, ticket, told
from support.http_reader import Message
from waitroom.queue.store import Visited
from waitroom.settings import BypassRule

PROXY = "203.0.113.9"  # the address that `World.ask` comes from
NAVIGATION = (b"X-Forwarded-Method: GET", PAGE)
PREFLIGHT = (
    b"X-Forwarded-Method: OPTIONS",
    b"Origin: https://app.example",
    b"Access-Control-Request-Method: PUT",
)
MODES = ("status", "redirect", "page")


def behind_proxy(*rooms: Any, **how: Any) -> World:
    return World(*rooms, trusted=(PROXY,), **how)


@pytest.fixture
def world() -> Iterator[World]:
    with behind_proxy() as world:
        yield world


@pytest.fixture
def quiet() -> Iterator[World]:
    with behind_proxy(view=QUIET) as world:
        yield world


def check(world: World, *lines: bytes, uri: bytes = b"/sale", answer: str = "", method: bytes = b"GET") -> Message:
    """The answer; the shop never hears of any of this."""
    query = b"?answer=" + answer.encode() if answer else b""
    named = () if any(line.lower().startswith(b"x-forwarded-uri") for line in lines) else (b"X-Forwarded-Uri: " + uri,)
    got = world.ask(get(b"/.waitroom/check" + query, *lines, *named, method=method))
    assert world.shop.attempts == 0
    if got.status >= 300:
        assert got[b"Cache-Control"] == b"no-store"
        assert not got.all(b"Waitroom-Session")
    return got


def refusals(world: World) -> list[str]:
    lines = [entry for entry in world.logs if entry["event"] == "forward-auth check refused"]
    assert all(entry["address"] == PROXY for entry in lines)
    return [entry["cause"] for entry in lines]


def operations(world: World) -> list[str]:
    world.loop.wait(world.room.flush())
    return [change.operation for changes in world.store.named("change_sessions") for change in changes]


# Requests that may proceed.


@pytest.mark.parametrize("answer", ["", *MODES])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD"])
def test_a_visitor_inside_proceeds(world: World, answer: str, method: bytes) -> None:
    got = check(world, inside(world), b"X-Forwarded-Method: " + method, answer=answer, method=method)
    assert (got.status, got.body) == (200, b"")
    assert (got[b"Waitroom-Room"], got[b"Waitroom-Session"], got[b"Cache-Control"]) == (b"shop", b"5a", b"no-store")
    assert not got.all(b"Set-Cookie")
    assert world.store.calls == []
    assert world.room.metrics.requests["admitted"] == 1
    assert operations(world) == ["keep"], "it is activity"


def test_the_pass_is_renewed_as_in_front_of_the_shop(world: World) -> None:
    session_seconds = 900
    got = check(world, inside(world, left=round(0.9 * session_seconds)))
    assert not got.all(b"Set-Cookie")
    got = check(world, inside(world, session=91, left=round(0.7 * session_seconds)))
    assert got.status == 200
    (line,) = got.all(b"Set-Cookie")
    renewed = cookie(got, b"waitroom_pass_shop")
    assert world.tokens.read_pass(renewed).expires_at == int(world.unix_time()) + session_seconds, line


def test_an_expired_pass_is_accepted_while_its_session_lasts(world: World) -> None:
    """The proxy may not be able to hand on a renewed one: the store is asked once, then the worker remembers."""
    expired = inside(world, left=-600)
    for _ in range(3):
        got = check(world, expired, b"X-Forwarded-Method: POST")
        assert (got.status, got[b"Waitroom-Session"]) == (200, b"5a")
        world.pass_time(300)
    assert operations(world).count("resume") == 1


def test_an_expired_pass_of_a_session_that_is_over(world: World) -> None:
    world.store.over.add(90)
    assert check(world, inside(world, left=-600)).status == 401


def test_a_session_that_is_ended_is_out_immediately(world: World) -> None:
    assert check(world, inside(world)).status == 200
    world.room.sessions.apply_ends((90,), (), world.unix_time(), 0)
    for answer, status in zip(MODES, (401, 302, 429), strict=True):
        assert check(world, inside(world), *NAVIGATION, answer=answer).status == status


def test_after_a_release_only_reads_proceed(world: World) -> None:
    session = world.room.sessions.find(world.pass_())
    world.loop.do(world.room.release, session, world.unix_time())
    world.loop.settle()
    for method, status in ((b"GET", 200), (b"HEAD", 200), (b"POST", 401)):
        got = check(world, inside(world), b"X-Forwarded-Method: " + method)
        assert got.status == status
        assert not got.all(b"Set-Cookie")
    assert check(world, inside(world)).status == 401, "its method is unknown"


def test_requests_per_second_of_a_session_are_limited() -> None:
    with behind_proxy(session_requests_per_second=2, upstream_wait_seconds=0.5) as world:
        statuses = []
        wires = [world.client(PROXY) for _ in range(8)]
        for wire in wires:
            wire.send(get(b"/.waitroom/check", inside(world), b"X-Forwarded-Uri: /"))
        world.pass_time(0.6)
        statuses = [int(bytes(wire.got).split(b" ")[1]) for wire in wires]
        assert statuses.count(200) in (4, 5), "two seconds' worth, and what came in while the others waited"
        assert statuses.count(403) == 8 - statuses.count(200)
        assert world.room.metrics.requests["session_limited"] == statuses.count(403)


def test_uncovered_paths_and_bypass_rules() -> None:
    rule = BypassRule(paths=("/sale/hook",), methods=("POST",), max_per_second=1.0)
    with behind_proxy(room_settings(paths=("/sale",), bypass=(rule,))) as world:
        got = check(world, uri=b"/about")
        assert (got.status, got[b"Waitroom-Room"], got.all(b"Waitroom-Session")) == (200, b"shop", [])
        post = b"X-Forwarded-Method: POST"
        assert check(world, post, uri=b"/sale/hook").status == 200
        assert check(world, post, uri=b"/sale/hook").status == 403
        assert check(world, post, uri=b"/sale/hook", answer="page").status in (429, 503)
        assert check(world, uri=b"/sale/hook").status == 401, "its method is unknown"
        assert check(world, b"X-Forwarded-Method: GET", uri=b"/sale/hook").status == 401
        counts = world.room.metrics.requests
        assert (counts["uncovered"], counts["bypass"], counts["bypass_capped"]) == (1, 1, 2)


def test_requests_without_a_pass_share_the_budget_of_the_room() -> None:
    with behind_proxy(view=QUIET, without_pass_per_second=1.0) as world:
        image = (b"X-Forwarded-Method: GET", b"Sec-Fetch-Mode: no-cors", b"Sec-Fetch-Dest: image")
        assert [check(world, *image).status for _ in range(2)] == [200, 401]
        world.pass_time(2)
        for method in (b"POST", b"DELETE"):
            assert check(world, b"X-Forwarded-Method: " + method).status == 401, "not safe"
        assert check(world).status == 401, "its method is unknown"
        assert check(world, b"X-Forwarded-Method: GET", b"Sec-WebSocket-Key: x").status == 401, "not safe"
        assert check(world, b"X-Forwarded-Method: HEAD").status == 200
        assert world.room.metrics.requests["without_pass"] == 2


def test_preflights_have_a_budget() -> None:
    with behind_proxy(preflights_per_second=1.0) as world:
        assert [check(world, *PREFLIGHT).status for _ in range(3)] == [200, 401, 401]
        counts = world.room.metrics.requests
        assert (counts["preflight"], counts["preflight_refused"]) == (1, 2)


def test_a_passthrough_room_lets_everything_proceed_but_pages_get_a_pass_first() -> None:
    with behind_proxy(view=replace(BUSY, method="passthrough")) as world:
        for lines in ((b"X-Forwarded-Method: POST",), (b"X-Forwarded-Method: GET",), ()):
            assert check(world, *lines).status == 200
        assert check(world, *NAVIGATION).status == 401


# Requests that may not.


@pytest.mark.parametrize("lines", [(), NAVIGATION, (b"Waitroom-Ticket: x",), (b"Waitroom-Pass: 5a.x",)])
def test_a_stranger_is_sent_to_the_waiting_page_by_status(world: World, lines: tuple[bytes, ...]) -> None:
    got = check(world, *lines, uri=b"/sale?a=b&c=\xc3\xa4//x")
    assert got.status == 401
    location = got[b"Location"]
    assert location.startswith(b"/.waitroom/wait?room=shop&to=")
    assert unquote(location.partition(b"&to=")[2].decode()) == "/sale?a=b&c=ä//x"
    assert json.loads(got.body) == {"waiting_page": location.decode()}
    assert int(got[b"Retry-After"]) > 0
    assert world.store.calls == []


def test_the_head_of_a_refusal_fits_into_small_buffers(world: World) -> None:
    got = check(world, *NAVIGATION, uri=b"/sale?" + b"q=%E0%A4%B9&" * 500)
    assert (got.status, got[b"Location"]) == (401, b"/.waitroom/wait?room=shop")
    assert len(got.body) < 200


def test_navigations_are_redirected_and_others_refused(world: World) -> None:
    lines = (b"X-Forwarded-Proto: https", b"X-Forwarded-Host: shop.example")
    got = check(world, *NAVIGATION, *lines, uri=b"/sale?" + b"q=1&" * 1500, answer="redirect")
    assert (got.status, got.body) == (302, b"")
    assert got[b"Location"].startswith(b"https://shop.example/.waitroom/wait?room=shop&to=/sale%3Fq%3D1%26q")
    assert len(got[b"Location"]) > 6000
    for method in (b"GET", b"POST"):
        got = check(world, b"X-Forwarded-Method: " + method, answer="redirect")
        assert got.status == 429
        assert int(got[b"Retry-After"]) > 0
        assert told(got)["state"] == "unknown"
    assert world.store.calls == []


def test_waiting_visitors_are_present_though_only_checked(world: World) -> None:
    for answer in ("status", "redirect"):
        assert check(world, ticket(world), *NAVIGATION, answer=answer).status in (401, 302)
    got = check(world, ticket(world), answer="redirect")
    assert told(got)["state"] == "waiting"
    world.loop.wait(world.room.flush())
    assert world.store.named("seen") == [[120]]


@pytest.mark.parametrize("answer", ["status", "redirect"])
def test_no_place_is_taken_and_no_turn_claimed_by_a_check(quiet: World, answer: str) -> None:
    quiet.store.admits = 5
    quiet.store.fates[99] = Visited("admitted", 14_400_000)
    for lines in (NAVIGATION, (*NAVIGATION, ticket(quiet, 99))):
        got = check(quiet, *lines, answer=answer)
        assert got.status in (401, 302)
        assert not got.all(b"Set-Cookie")
    assert quiet.store.calls == []


def test_the_waiting_page_itself(world: World) -> None:
    got = check(world, *NAVIGATION, answer="page")
    assert got.status == 429
    assert got[b"Content-Type"].startswith(b"text/html")
    assert b'data-state="waiting"' in got.body
    assert int(got[b"Retry-After"]) > 0
    value = cookie(got, b"waitroom_ticket_shop")
    assert world.store.named("join") == [1]
    again = check(world, b"Cookie: waitroom_ticket_shop=" + value, *NAVIGATION, answer="page")
    assert again.status == 429
    assert world.store.named("join") == [1], "one place"


@pytest.mark.parametrize("status", [200, 503])
def test_waiting_status_changes_no_check(status: int) -> None:
    with behind_proxy(waiting_status=status) as world:
        for answer, wanted in zip(MODES, (401, 302, 429), strict=True):
            assert check(world, *NAVIGATION, answer=answer).status == wanted


def test_what_takes_no_place_gets_json_instead_of_the_page(world: World) -> None:
    frame = (b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: iframe", b"Sec-Fetch-Site: cross-site")
    for lines in ((b"X-Forwarded-Method: POST",), (*NAVIGATION, b"Sec-Purpose: prefetch"), (), frame):
        got = check(world, *lines, answer="page")
        assert got.status == 429
        assert told(got)["state"] == "unknown"
    assert world.store.calls == []


def test_a_newcomer_admitted_by_a_check_gets_the_pass_by_a_redirect(quiet: World) -> None:
    quiet.store.admits = 1
    got = check(quiet, *NAVIGATION, uri=b"/sale?a=b", answer="page")
    assert (got.status, got[b"Location"]) == (303, b"/.waitroom/wait?room=shop&to=/sale%3Fa%3Db&entered=1")
    value = cookie(got, b"waitroom_pass_shop")
    had = b"Cookie: waitroom_pass_shop=" + value
    went = quiet.ask(get(got[b"Location"], PAGE, had))
    assert (went.status, went[b"Location"]) == (303, b"/sale?a=b")
    assert check(quiet, *NAVIGATION, had, uri=b"/sale?a=b", answer="page").status == 200


def test_a_called_visitor_enters_by_a_check(world: World) -> None:
    world.store.fates[99] = Visited("admitted", 14_400_000)
    got = check(world, *NAVIGATION, ticket(world, 99), answer="page")
    assert got.status == 303
    assert cookie(got, b"waitroom_pass_shop")
    assert cookie(got, b"waitroom_ticket_shop") == b""


@pytest.mark.parametrize("answer", MODES)
def test_a_client_without_cookies_comes_to_an_end_and_takes_one_place(quiet: World, answer: str) -> None:
    quiet.store.admits = 100
    got, hops = check(quiet, *NAVIGATION, answer=answer), 0
    while b"Location" in {name for name, _ in got.headers}:
        hops += 1
        assert hops < 5
        target = b"/" + got[b"Location"].removeprefix(b"http://shop.example").removeprefix(b"/")
        assert target.startswith(b"/.waitroom/wait")
        got = quiet.ask(get(target, PAGE))
    assert got.status == 403
    assert "allow cookies" in got.body.decode()
    assert quiet.store.named("join") == [1]


def test_a_request_that_cannot_wait_is_not_sent_back_and_forth() -> None:
    """An image at the waiting page's address, sent there while nobody waits."""
    with behind_proxy(view=QUIET) as world:
        got = world.ask(get(b"/.waitroom/wait?room=shop&to=/a.png", b"Sec-Fetch-Mode: no-cors"))
        assert got.status == 503
        assert told(got)["state"] == "unknown"


def test_a_page_served_in_place_knows_where_its_visitor_wants_to_go() -> None:
    rooms = (room_settings("a", paths=("/a",)), room_settings("b", paths=("/b",)))
    with behind_proxy(*rooms, view=QUIET) as world:
        store = world.rooms["b"]._store
        store.admits = 1  # type: ignore[attr-defined]
        got = world.ask(get(b"/.waitroom/wait", PAGE, b"X-Forwarded-Uri: /b?x=1", b"X-Forwarded-Method: POST"))
        assert (got.status, got[b"Location"]) == (303, b"/.waitroom/wait?room=b&to=/b%3Fx%3D1&entered=1")
        assert cookie(got, b"waitroom_pass_b")


@pytest.mark.parametrize("query", [b"", b"?room=shop"])
@pytest.mark.parametrize("uri", [b"/.waitroom/wait?room=shop", b"/.waitroom/wait", b"//.waitroom/%77ait"])
def test_a_page_at_its_own_address_does_not_lead_back_to_itself(world: World, query: bytes, uri: bytes) -> None:
    """Some proxies name the address of every request, not only of those that they serve in place."""
    got = world.ask(get(b"/.waitroom/wait" + query, PAGE, world.inside(), b"X-Original-URI: " + uri))
    assert (got.status, got[b"Location"]) == (303, b"/")


def test_a_visitors_own_header_leads_the_waiting_page_nowhere() -> None:
    with World(view=QUIET) as world:
        had = world.inside()
        got = world.ask(get(b"/.waitroom/wait", PAGE, had, b"X-Forwarded-Uri: /elsewhere"))
        assert (got.status, got[b"Location"]) == (303, b"/")


# Checks that are not believed.


def test_only_trusted_proxies_may_ask() -> None:
    with World() as world:
        got = world.ask(get(b"/.waitroom/check", world.inside(), b"X-Forwarded-Uri: /"))
        assert got.status == 403
        assert refusals(world) == ["the address is not in trusted_proxies"]


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ((b"X-Forwarded-Uri:",), "X-Forwarded-Uri isn't one path"),
        ((b"X-Forwarded-Uri: /free", b"X-Original-URI: /sale"), "X-Forwarded-Uri and X-Original-URI differ"),
        ((b"X-Forwarded-Uri: /free", b"X-Forwarded-Uri: /sale"), "X-Forwarded-Uri isn't one path"),
        ((b"X-Forwarded-Uri: http://shop.example/free",), "X-Forwarded-Uri isn't one path"),
    ],
)
@pytest.mark.parametrize("answer", MODES)
def test_what_cannot_be_read_for_certain_admits_nobody(lines: tuple[bytes, ...], cause: str, answer: str) -> None:
    with behind_proxy(paths=("/sale",)) as world:
        for had in ((), (inside(world),)):
            got = check(world, *lines, *had, answer=answer)
            assert got.status == 403
        assert refusals(world) == [cause], "logged once, not with each request"


def test_an_unknown_way_of_answering(world: World) -> None:
    assert check(world, inside(world), answer="json").status == 403
    assert refusals(world) == ["answer must be status, redirect or page"]


def test_the_room_is_that_of_the_original_host_and_path() -> None:
    rooms = (
        room_settings("a", hosts=("a.example",), paths=("/sale",)),
        room_settings("b", hosts=("b.example",)),
    )
    with behind_proxy(*rooms) as world:
        asked = [
            (b"a.example", b"/sale/x", 401, b"a"),
            (b"a.example", b"/other", 200, None),
            (b"a.example", b"/.waitroom/status", 403, None),
            (b"a.example", b"/other/../sale", 401, b"a"),
            (b"a.example", b"/SALE", 401, b"a"),
            (b"a.example", b"/%73ale", 401, b"a"),
            (b"b.example", b"/other", 401, b"b"),
            (b"b.example", b"/a%00", 403, None),
            (b"c.example", b"/", 403, None),
        ]
        for host, uri, status, name in asked:
            got = check(world, b"X-Forwarded-Host: " + host, uri=uri)
            assert got.status == status, (host, uri)
            if name:
                assert b"?room=%b&" % name in got[b"Location"]


def test_a_named_room(world: World) -> None:
    got = world.ask(get(b"/.waitroom/check?room=shop", b"X-Original-URI: /a"))
    assert got[b"Location"] == b"/.waitroom/wait?room=shop&to=/a"
    assert world.ask(get(b"/.waitroom/check?room=other", b"X-Original-URI: /a")).status == 404


def test_the_original_path_behind_the_check(world: World) -> None:
    for target in (b"/.waitroom/check/sale?x=1", b"/.waitroom/check?answer=status/sale?x=1"):
        assert world.ask(get(target, inside(world), method=b"POST")).status == 200
        got = world.ask(get(target, method=b"POST"))
        assert got[b"Location"] == b"/.waitroom/wait?room=shop&to=/sale%3Fx%3D1"
    got = world.ask(get(b"/.waitroom/check?answer=page/sale?x=1", PAGE))
    assert got.status == 429
    assert b'data-state="waiting"' in got.body


@pytest.mark.parametrize("method", [b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
def test_a_page_served_in_place_of_what_is_no_page_takes_no_place(method: bytes) -> None:
    """Proxies ask for the page with GET, whatever the visitor's method was."""
    with behind_proxy(view=QUIET) as world:
        lines = (PAGE, b"X-Forwarded-Uri: /sale", b"X-Forwarded-Method: " + method)
        got = world.ask(get(b"/.waitroom/wait", *lines))
        assert (got.status, got[b"Content-Type"]) == (503, b"application/json")
        assert not world.store.named("join")
        assert not got.all(b"Set-Cookie")
        assert world.shop.attempts == 0
