"""How one worker handles each request: where it is sent, what is personal, and what it costs the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.edge_world import BUSY, OK, PAGE, QUIET, WALL, World, answer, at_shop, get, room_settings, sent
from support.http_reader import Message, read_requests
from waitroom.edge.rooms import room as room_module
from waitroom.edge.rooms.bypass import Bypass
from waitroom.edge.rooms.sessions import UNCONFIRMED_END_SECONDS
from waitroom.queue.store import SessionChange, Visit, Visited
from waitroom.queue.view import RoomState
from waitroom.settings import BypassRule
from waitroom.tokens import TICKET_SECONDS, Pass, Ticket, Tokens

JSON = b"Accept: application/json"
FOREIGN = Tokens(["another secret than ours"], "shop")
PREFLIGHT = (b"Origin: https://a.example", b"Access-Control-Request-Method: POST")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def quiet() -> Iterator[World]:
    with World(view=QUIET) as world:
        yield world


def state(got: Message) -> str:
    return str(json.loads(got.body)["state"])


def is_page(got: Message) -> bool:
    """Whether it is a page, and if so one that nobody may keep."""
    page = got[b"Content-Type"].startswith(b"text/html")
    assert got[b"Cache-Control"] == b"no-store"
    return page


def ticket(world: World, place: int = 120, **how: int) -> bytes:
    return b"Cookie: waitroom_ticket_shop=" + world.ticket(place, **how)


def given(world: World, got: Message, kind: str) -> bytes | None:
    """The value of one of our cookies, None where it isn't set; empty where it is deleted."""
    prefix = f"waitroom_{kind}_shop=".encode()
    values = [
        value.removeprefix(prefix).partition(b";")[0] for value in got.all(b"Set-Cookie") if value.startswith(prefix)
    ]
    return values[-1] if values else None


# Who waits, who goes in.


def test_a_newcomer_takes_a_place(world):
    got = world.ask(get(b"/a", PAGE))
    assert got.status == 503
    assert is_page(got)
    assert int(got[b"Retry-After"]) >= 1
    assert b"Content-Security-Policy" in got
    found = world.tokens.read_ticket(given(world, got, "ticket") or b"")
    assert (found.place, found.generation, found.joined_at, found.start_position) == (
        151,
        7,
        int(world.unix_time()),
        51,
    )
    assert world.store.calls == [("join", 1)]
    assert world.shop.attempts == 0


def test_the_ticket_cookie_lasts_as_long_as_the_ticket(world):
    cookie, shown = world.ask(get(b"/a", PAGE)).all(b"Set-Cookie")
    assert shown.startswith(b"waitroom_shown_shop=")
    assert cookie.endswith(b"; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax" % TICKET_SECONDS)


def test_cookies_over_https_are_sent_across_sites():
    with World(trusted=["10.0.0.1"]) as world:
        wire = world.client("10.0.0.1")
        cookie, _ = world.ask(get(b"/a", PAGE, b"X-Forwarded-Proto: https"), wire=wire).all(b"Set-Cookie")
        assert cookie.endswith(b"; HttpOnly; SameSite=None; Secure")
        cookie, _ = world.ask(get(b"/a", PAGE, b"X-Forwarded-Proto: https")).all(b"Set-Cookie")
        assert cookie.endswith(b"; SameSite=Lax"), "headers of an untrusted peer are ignored"


@pytest.mark.parametrize("status", [503, 200])
def test_the_status_code_of_the_waiting_page_is_a_setting(status):
    with World(waiting_status=status) as world:
        assert world.ask(get(b"/a", PAGE)).status == status
        assert world.ask(get(b"/a", ticket(world))).status == status


def test_a_waiting_visitor_is_answered_from_memory(world):
    for line, page in ((PAGE, True), (JSON, False), (b"Sec-Fetch-Mode: cors", False)):
        got = world.ask(get(b"/a", line, ticket(world)))
        assert got.status == 503
        assert is_page(got) is page
        assert given(world, got, "ticket") is None
    assert world.store.calls == []
    assert world.shop.attempts == 0


def test_a_waiting_visitors_post_is_never_redirected(world):
    for line in (PAGE, JSON):
        got = world.ask(get(b"/a", line, ticket(world), method=b"POST", body=b"a=b"))
        assert got.status == 503
        assert b"Location" not in got


@pytest.mark.parametrize(
    "lines",
    [
        (JSON,),
        (b"Accept: image/webp,*/*",),
        (b"Sec-Fetch-Mode: no-cors", b"Sec-Fetch-Dest: image", PAGE),
        (b"Sec-Fetch-Mode: same-origin", b"Sec-Fetch-Dest: serviceworker"),
        (b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document", b"Sec-Purpose: prefetch"),
        (b"Purpose: prefetch", PAGE),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_only_navigations_take_a_place(world, lines, method):
    got = world.ask(get(b"/favicon.ico", *lines, method=method))
    assert (got.status, state(got)) == (503, "unknown")
    assert not got.all(b"Set-Cookie")
    assert world.store.calls == []
    assert world.shop.attempts == 0


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
def test_only_get_and_post_take_a_place(world, method):
    assert world.ask(get(b"/a", PAGE, method=method)).status == 503
    assert world.store.calls == []


def test_a_preflight_is_forwarded(world):
    wire = world.client()
    wire.send(get(b"/a", *PREFLIGHT, method=b"OPTIONS"))
    got = at_shop(world)
    assert b"Waitroom-Session" not in got
    world.shop.wire.send(OK)
    assert world.store.calls == []


def test_while_nobody_waits_other_requests_are_forwarded_without_a_session(quiet):
    quiet.client().send(get(b"/a.css"))
    assert b"Waitroom-Session" not in at_shop(quiet)
    quiet.shop.wire.send(OK)
    assert quiet.store.calls == []
    assert quiet.room.metrics.requests == {"without_pass": 1}


def test_while_nobody_waits_a_newcomer_is_admitted_immediately(quiet):
    quiet.store.admits = 1
    wire = quiet.client()
    wire.send(get(b"/a", PAGE))
    assert at_shop(quiet)[b"Waitroom-Session"] == b"%x" % 151
    quiet.shop.wire.send(OK)
    got = answer(wire)
    assert got.body == b"ok"
    assert quiet.tokens.read_pass(given(quiet, got, "pass") or b"").session == 151
    assert given(quiet, got, "ticket") == b""


def test_a_called_visitor_is_admitted_by_the_next_navigation(world):
    world.store.fates[99] = Visited("admitted", 14_400_000)
    wire = world.client()
    wire.send(get(b"/a", PAGE, ticket(world, 99)))
    assert at_shop(world)[b"Waitroom-Session"] == b"%x" % 99
    world.shop.wire.send(OK)
    assert world.tokens.read_pass(given(world, answer(wire), "pass") or b"").session == 99
    assert world.store.calls == [("visit", [Visit(99, 7, True, waited_seconds=60, promised_seconds=100)])]
    assert sum(world.room.metrics.wait_seconds.counts) == 1
    assert sum(world.room.metrics.eta_error_seconds.counts) == 1


def test_a_called_visitors_script_gets_the_status_and_is_not_admitted(world):
    world.store.fates[99] = Visited("called", 60_000)
    got = world.ask(get(b"/a", JSON, ticket(world, 99)))
    assert (got.status, state(got)) == (503, "called")
    assert world.store.calls == [("visit", [Visit(99, 7, False)])]


def test_a_visitor_who_is_not_called_yet_keeps_waiting(world):
    world.store.fates[99] = Visited("waiting", 0)
    got = world.ask(get(b"/a", PAGE, ticket(world, 99)))
    assert got.status == 503
    assert is_page(got)
    assert given(world, got, "ticket") is None


def test_a_waiting_ticket_of_an_older_generation_is_renewed(world):
    got = world.ask(get(b"/a", PAGE, ticket(world, 120, generation=6)))
    assert world.tokens.read_ticket(given(world, got, "ticket") or b"").generation == 7


def test_an_unknown_ticket_counts_as_none(world):
    world.store.fates[99] = Visited("unknown", 0)
    got = world.ask(get(b"/a", PAGE, ticket(world, 99)))
    assert world.tokens.read_ticket(given(world, got, "ticket") or b"").place == 151
    assert [name for name, _ in world.store.calls] == ["visit", "join"]


@pytest.mark.parametrize(
    "line",
    [
        b"Cookie: waitroom_ticket_shop=x",
        b"Cookie: waitroom_pass_shop=x",
        b"Waitroom-Ticket: " + FOREIGN.sign_ticket(Ticket(120, 7, WALL, 1, 0)).encode(),
        b"Waitroom-Pass: " + FOREIGN.sign_pass(Pass(90, WALL + 900, WALL + 900)).encode(),
    ],
)
def test_a_forged_token_counts_as_none(world, line):
    got = world.ask(get(b"/a", PAGE, line))
    assert world.tokens.read_ticket(given(world, got, "ticket") or b"").place == 151


@pytest.mark.parametrize("kind", [PAGE, b"Accept: */*"])
def test_a_session_that_has_ended_only_by_this_clock_continues(world, kind):
    world.store.left[90] = 600_000
    line = b"Cookie: waitroom_pass_shop=" + world.pass_(left=-7 * 3600, ends=-6 * 3600)
    wire = world.client()
    wire.send(get(b"/cart", kind, line))
    assert at_shop(world)[b"Waitroom-Session"] == b"5a"
    world.shop.wire.send(OK)
    now = int(world.unix_time())
    found = world.tokens.read_pass(given(world, answer(wire), "pass") or b"")
    assert (found.session, found.expires_at, found.ends_at) == (90, now + 600, now + 600)
    assert world.store.calls == [("change_sessions", [SessionChange("resume", 90, 0)])]
    wire.clear()
    wire.send(get(b"/cart", kind, line))
    world.shop.wire.send(OK)
    assert answer(wire).status == 200
    assert len(world.store.calls) == 1, "asked once, then remembered"


def test_a_session_that_has_ended_by_this_clock_ends_if_the_store_fails(world):
    world.store.broken = "all"
    line = b"Cookie: waitroom_pass_shop=" + world.pass_(left=-1, ends=-1)
    assert world.ask(get(b"/cart", PAGE, line)).status == 503
    assert world.shop.attempts == 0


def test_an_expired_ticket_counts_as_none(world):
    got = world.ask(get(b"/a", PAGE, ticket(world, age=TICKET_SECONDS, generation=6)))
    assert world.tokens.read_ticket(given(world, got, "ticket") or b"").place == 151


@pytest.mark.parametrize(("closed", "kind"), [(RoomState.CLOSED, b"closed"), (RoomState.SOLD_OUT, b"sold_out")])
def test_a_newcomer_to_a_room_that_accepts_nobody(world, closed, kind):
    world.view = replace(BUSY, state=closed)
    world.store.takes = False
    got = world.ask(get(b"/a", PAGE))
    assert got.status == 503
    assert is_page(got)
    assert b'data-state="%b"' % kind in got.body
    assert not got.all(b"Set-Cookie")


@pytest.mark.interpreted
def test_a_ticket_is_verified_once(world, monkeypatch):
    line = ticket(world)
    world.ask(get(b"/a", line))
    monkeypatch.setattr(world.tokens, "read_ticket", None)
    assert state(world.ask(get(b"/a", line))) == "waiting"


def test_verified_tickets_are_cached_within_a_bound(world, monkeypatch):
    monkeypatch.setattr(room_module, "MAX_CACHED_TICKETS", 4)
    for place in range(110, 130):
        assert state(world.ask(get(b"/a", ticket(world, place)))) == "waiting"
        assert len(world.room._tickets) <= 4
    assert world.room.read_ticket(b"x") is None
    assert len(world.room._tickets) <= 4


# Sessions.


def test_an_admitted_request_makes_no_store_call(world):
    for _ in range(3):
        wire = sent(world)
        world.shop.wire.send(OK)
        assert answer(wire).status == 200
    assert world.store.calls == []
    world.loop.wait(world.room.flush())
    assert world.store.calls == [("change_sessions", [SessionChange("keep", 90, 14400_000)])], "one report for all"


def test_requests_without_a_session_report_nothing(world):
    world.ask(get(b"/a", JSON))
    world.loop.wait(world.room.flush())
    assert world.store.calls == []


def test_an_expired_pass_is_checked_once_and_renewed(world):
    wire = world.client()
    wire.send(get(b"/a", b"Cookie: waitroom_pass_shop=" + world.pass_(left=-5)))
    assert at_shop(world)[b"Waitroom-Session"] == b"5a"
    world.shop.wire.send(OK)
    got = answer(wire)
    value = given(world, got, "pass") or b""
    now = int(world.unix_time())
    assert world.tokens.read_pass(value).expires_at == now + 900
    assert world.tokens.read_pass(value).ends_at == now + 14400
    assert got[b"Cache-Control"] == b"private, no-store"
    assert world.store.calls == [("change_sessions", [SessionChange("resume", 90, 14400_000)])]
    wire.clear()
    wire.send(get(b"/b", b"Cookie: waitroom_pass_shop=" + value))
    world.shop.wire.send(OK)
    assert len(world.store.calls) == 1


@pytest.mark.parametrize("line", [PAGE, JSON])
def test_a_pass_of_an_ended_session_counts_as_none(world, line):
    world.store.over.add(90)
    got = world.ask(get(b"/a", line, b"Cookie: waitroom_pass_shop=" + world.pass_(left=-5)))
    assert got.status == 503
    assert [name for name, _ in world.store.calls] == ["change_sessions", *(["join"] if line is PAGE else [])]
    assert world.shop.attempts == 0


def test_a_session_ended_in_the_store_ends_with_the_next_report(world):
    sent(world)
    world.shop.wire.send(OK)
    world.store.over.add(90)
    world.loop.wait(world.room.flush())
    assert world.ask(get(b"/a", world.inside(), method=b"POST")).status == 503
    world.pass_time(UNCONFIRMED_END_SECONDS)  # until then it may have been released, which the view will tell
    assert world.ask(get(b"/a", world.inside())).status == 503


def test_a_long_download_is_activity(world):
    wire = sent(world)
    world.shop.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
    for _ in range(4):
        world.loop.wait(world.room.flush())
        world.pass_time(10)
    assert len(world.store.calls) == 2, "at 0 and 20 seconds"
    world.shop.wire.send(b"x")
    assert answer(wire).body == b"x"


# Rooms and rules.


def test_each_request_goes_to_its_rooms_shop():
    rooms = (room_settings("a", hosts=("a.example",)), room_settings("b", hosts=("b.example",)))
    with World(*rooms, view=QUIET) as world:
        for host, name in ((b"a.example", b"a"), (b"B.example:80", b"b")):
            world.client().send(get(b"/x").replace(b"shop.example", host))
            (got,), _ = read_requests(world.shop.wires[-1].got)
            assert got[b"Waitroom-Room"] == name
            world.shop.wires[-1].send(OK)
        assert world.ask(get(b"/x")).status == 421


def test_another_rooms_pass_counts_as_none():
    rooms = (room_settings("a", hosts=("a.example",)), room_settings("b", hosts=("b.example",)))
    with World(*rooms) as world:
        value = world.rooms["b"].tokens.sign_pass(world.rooms["a"].tokens.read_pass(world.pass_())).encode()
        for name in (b"waitroom_pass_a", b"waitroom_pass_b"):
            got = world.ask(get(b"/x", b"Cookie: %b=%b" % (name, value)).replace(b"shop.example", b"a.example"))
            assert got.status == 503


def test_an_uncovered_path_is_forwarded_unchanged():
    with World(paths=("/sale",)) as world:
        wire = world.client()
        wire.send(get(b"/about", PAGE, world.inside()))
        got = at_shop(world)
        assert b"Waitroom-Session" not in got
        assert b"Cookie" not in got
        world.shop.wire.send(OK)
        assert not answer(wire).all(b"Set-Cookie")
        assert world.room.metrics.requests == {"uncovered": 1}
        assert world.ask(get(b"/Sale/../sale", PAGE)).status == 503


HOOK = BypassRule(paths=("/webhooks/",), methods=("POST",), max_per_second=2.0, max_per_second_per_address=1000.0)


def test_a_bypass_is_forwarded_and_capped():
    with World(bypass=(HOOK,)) as world:
        for expected in (200, 200, 503):
            wire = world.client()
            wire.send(get(b"/webhooks/pay", JSON, method=b"POST", body=b"{}"))
            if expected == 200:
                world.shop.wire.send(OK)
            assert answer(wire, b"POST").status == expected
        world.pass_time(0.5)
        wire = world.client()
        wire.send(get(b"/webhooks/pay", method=b"POST", body=b"{}"))
        world.shop.wire.send(OK)
        assert world.room.metrics.requests == {"bypass": 3, "bypass_capped": 1}
        assert world.store.calls == []


@pytest.mark.parametrize(
    ("path", "method"), [(b"/webhooks/pay", b"GET"), (b"/webhooks/../buy", b"POST"), (b"/webhooks/..;/buy", b"POST")]
)
def test_a_bypass_cannot_be_abused(path, method):
    with World(bypass=(HOOK,)) as world:
        assert world.ask(get(path, JSON, method=method)).status == 503
        assert world.shop.attempts == 0


def test_the_first_matching_rule_applies():
    with World(bypass=(replace(HOOK, methods=("GET",)), HOOK)) as world:
        for method in (b"GET", b"POST"):
            world.client().send(get(b"/webhooks/pay", method=method))
            world.shop.wire.send(OK)
        assert [rule.budget.left(world.loop.time()) for rule in world.room.bypass.rules] == [1.0, 1.0]


def test_the_budget_of_a_bypass():
    rule = Bypass(replace(HOOK, max_per_second=8.0), workers=4)
    spent = [rule.take("192.0.2.1", 100.0 + tick / 10) is None for tick in range(100)]
    assert 2 * 9.9 <= sum(spent) <= 2 * 9.9 + 2 + 1
    slow = Bypass(replace(HOOK, max_per_second=1.0), workers=4)
    refusals = [slow.take("192.0.2.1", now) for now in (100.0, 100.1, 103.9, 104.1)]
    assert [refusal and refusal.status for refusal in refusals] == [None, 503, 503, None]


# Errors.


@pytest.mark.parametrize(("line", "page"), [(PAGE, True), (JSON, False)])
def test_errors_are_pages_for_browsers_and_json_for_programs(world, line, page):
    world.shop.refuses = ConnectionRefusedError("refused by 10.9.8.7")
    wire = world.client()
    wire.send(get(b"/a", line, world.inside()))
    got = answer(wire)
    assert got.status == 502
    assert is_page(got) is page
    assert b"10.9.8.7" not in got.body
    assert wire.protocol.request_id.encode() in got.body
    if not page:
        assert json.loads(got.body).keys() == {"error", "status", "request_id"}


def test_request_ids_are_unique(world):
    wire = world.client()
    seen = set()
    for _ in range(50):
        sent(world, wire=wire)
        seen.add(read_requests(world.shop.wire.clear())[0][0][b"X-Request-Id"])
        world.shop.wire.send(OK)
    assert len(seen) == 50
