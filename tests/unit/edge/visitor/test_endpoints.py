"""The visitor endpoints: their responses, and what they cost the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.edge_world import BUSY, PAGE, QUIET, World, get, room_settings
from support.endpoint_calls import CALLS, call, cookie, inside, ticket, told
from support.http_reader import Message
from waitroom.queue.store import Visit, Visited
from waitroom.queue.view import RoomState


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# What all of them have in common.


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"])
def test_the_methods_of_each_endpoint(world, name, method):
    wanted = (b"GET", b"HEAD") if CALLS[name] == b"GET" else (b"POST",)
    got = call(world, name, method=method)
    assert (got.status == 405) is (method not in wanted)
    if got.status == 405:
        assert got[b"Allow"] == b", ".join(wanted)
        assert world.store.calls == []


@pytest.mark.parametrize("name", CALLS)
def test_an_unknown_room(world, name):
    for query in (b"?room=other", b"?room=SHOP", b"?room=%73hops", b"?a=b&room=x"):
        assert call(world, name, query=query).status == 404
    assert world.store.calls == []


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "query", [b"", b"?", b"?a=b", b"?room=", b"?room=%73hop", b"?room=shop&room=other", b"?&&=&%zz"]
)
def test_the_only_room_needs_no_name(world, name, query):
    assert call(world, name, query=query).status not in (404, 400, 500)


def test_the_room_of_the_host_and_of_the_path():
    rooms = (room_settings("a", hosts=("a.example",)), room_settings("b", hosts=("b.example",), paths=("/sale",)))
    with World(*rooms) as world:
        for host, query, name in ((b"a.example", b"", "a"), (b"b.example", b"", "b"), (b"b.example", b"?room=b", "b")):
            request = get(b"/.waitroom/status" + query).replace(b"shop.example", host)
            assert told(world.ask(request))["room"] == name


@pytest.mark.parametrize("name", CALLS)
def test_a_host_names_only_rooms_of_its_own(name):
    rooms = (
        room_settings("a", hosts=("a.example",)),
        room_settings("b", hosts=("b.example", "*.b.example")),
        room_settings("any"),
    )
    with World(*rooms, trusted=["192.0.2.1"]) as world:

        def status(host: bytes, room: bytes, *lines: bytes, address: str = "203.0.113.9") -> int:
            target = b"/.waitroom/%b?room=%b" % (name.encode(), room)
            request = get(target, *lines, method=CALLS[name]).replace(b"shop.example", host)
            return world.ask(request, wire=world.client(address)).status

        for host in (b"a.example", b"www.b.example:8080", b"other.example"):
            assert status(host, b"any") != 404
        assert status(b"www.b.example:8080", b"b") != 404
        world.store.calls.clear()
        for host in (b"a.example", b"other.example"):
            assert status(host, b"b") == 404
            assert status(host, b"b", b"X-Forwarded-Host: b.example") == 404, "anybody may send this"
        assert world.store.calls == []
        # A proxy that doesn't keep the Host header.
        assert status(b"127.0.0.1", b"b", b"X-Forwarded-Host: b.example", address="192.0.2.1") != 404
        assert status(b"127.0.0.1", b"b", b"X-Forwarded-Host: a.example", address="192.0.2.1") == 404


@pytest.mark.parametrize(
    "path", [b"/.waitroom", b"/.waitroom/", b"/.waitroom/x", b"/.waitroom/status/", b"/.WAITROOM/join"]
)
@pytest.mark.parametrize("line", [b"", PAGE])
def test_unknown_paths_under_the_reserved_prefix(world, path, line):
    got = world.ask(get(path, world.inside(), line))
    assert got.status == 404
    assert got[b"Content-Type"].startswith(b"text/html" if line else b"application/json")
    assert world.shop.attempts == 0


SITES = [
    ((b"Sec-Fetch-Site: same-origin",), True),
    ((b"Sec-Fetch-Site: none",), True),
    ((b"Sec-Fetch-Site: same-site",), False),
    ((b"Sec-Fetch-Site: cross-site",), False),
    ((b"Sec-Fetch-Site: same-origin", b"Origin: https://evil.example"), True),
    ((b"Origin: http://shop.example",), True),
    ((b"Origin: https://shop.example",), True),
    ((b"Origin: https://evil.example",), False),
    ((b"Origin: https://shop.example.evil.example",), False),
    ((b"Origin: https://evil.example/shop.example",), False),
    ((b"Origin: null",), False),
    ((b"Origin: ",), False),
    ((), True),
]


@pytest.mark.parametrize("name", ["join", "claim", "leave"])
@pytest.mark.parametrize(("lines", "allowed"), SITES)
def test_another_sites_page_cannot_make_a_visitor_leave(world, name, lines, allowed):
    got = call(world, name, *lines, ticket(world, 99))
    assert (got.status != 403) is allowed
    if not allowed:
        assert world.store.calls == []
        assert b"Set-Cookie" not in got


def test_cookies_and_headers_are_equivalent(world):
    for line in (
        b"Cookie: waitroom_ticket_shop=%b",
        b"Waitroom-Ticket: %b",
        b'Cookie: a=b; waitroom_ticket_shop="%b"; c',
    ):
        assert told(call(world, "status", line % world.ticket()))["position"] == 20
    got = call(world, "status", ticket(world, 130), b"Cookie: waitroom_ticket_shop=" + world.ticket(120))
    assert told(got)["position"] == 20, "the cookie is the newer one"


# status


def test_status_of_a_waiting_visitor_comes_from_memory(world):
    got = told(call(world, "status", ticket(world)))
    assert (got["state"], got["position"], got["waiting"]) == ("waiting", 20, 50)
    assert got["eta_seconds"] is None
    assert world.store.calls == []
    world.loop.wait(world.room.flush())
    assert world.store.calls == [("seen", [120])], "their presence is reported later, together with others'"


def test_status_of_a_visitor_delayed_only_by_the_rate():
    with World(view=replace(BUSY, active=1, max_active=1000)) as world:
        low, high = told(call(world, "status", ticket(world)))["eta_seconds"]
        assert 0 < low < 20 < high


@pytest.mark.parametrize(
    ("fate", "state"),
    [
        (Visited("waiting", 0), "waiting"),
        (Visited("called", 60_000), "called"),
        (Visited("admitted", 14_400_000), "admitted"),
        (Visited("unknown", 0), "unknown"),
    ],
)
def test_status_of_a_possibly_called_visitor(world, fate, state):
    world.store.fates[99] = fate
    got = told(call(world, "status", ticket(world, 99)))
    assert got["state"] == state
    assert (got["claim_by"] is not None) is (state == "called")
    assert world.store.calls == [("visit", [Visit(99, 7, False)])]


def test_status_renews_a_waiting_ticket_of_an_older_generation(world):
    got = call(world, "status", ticket(world, 120, generation=6))
    assert told(got)["state"] == "waiting"
    renewed = world.tokens.read_ticket(got[b"Waitroom-Ticket"])
    assert (renewed.place, renewed.generation, renewed.start_position) == (120, 7, 30)
    assert cookie(got, b"waitroom_ticket_shop") == got[b"Waitroom-Ticket"]


def test_status_of_an_admitted_visitor(world):
    assert told(call(world, "status", inside(world)))["state"] == "admitted"
    assert told(call(world, "status", inside(world), ticket(world, 99)))["state"] == "admitted"
    assert world.store.calls == []


@pytest.mark.parametrize("line", [b"", b"Waitroom-Ticket: x", b"Waitroom-Pass: x", b"Cookie: waitroom_ticket_shop="])
def test_status_without_tokens(world, line):
    got = told(call(world, "status", line))
    assert (got["state"], got["position"], got["waiting"]) == ("unknown", None, 50)
    assert world.store.calls == []


def test_status_with_expired_tokens(world):
    for line in (
        ticket(world, age=7 * 86400, generation=6),
        inside(world, left=0, ends=100),
        inside(world, left=0, ends=0),
    ):
        assert told(call(world, "status", line))["state"] == "unknown"


@pytest.mark.parametrize("state", [RoomState.PAUSED, RoomState.CLOSED, RoomState.SOLD_OUT])
def test_status_while_the_room_is_not_open(world, state):
    world.view = replace(BUSY, state=state, message="Back at noon", remaining=3)
    got = told(call(world, "status", ticket(world)))
    assert (got["state"], got["message"], got["remaining"]) == (state.value, "Back at noon", 3)


@pytest.mark.parametrize("view", [BUSY, None])
def test_status_while_the_store_is_unavailable(view):
    with World(view=view, store_up=False) as world:
        for place in (120, 99):
            got = told(call(world, "status", ticket(world, place)))
            assert got["state"] == "waiting"
            assert (got["position"] is None) is (view is None)
        assert world.store.calls == []


def test_status_when_the_store_call_fails(world):
    world.store.broken = "all"
    assert told(call(world, "status", ticket(world, 99)))["state"] == "waiting"
    assert not world.room.store_up
    assert told(call(world, "status", ticket(world, 99)))["state"] == "waiting"
    assert len(world.store.calls) == 1, "it isn't asked again until it has been reached"


# join


def test_join_takes_a_place(world):
    got = call(world, "join")
    assert got.status == 201
    body = told(got, "ticket")
    assert (body["state"], body["position"], body["waiting"]) == ("waiting", 51, 51)
    assert body["ticket"].encode() == got[b"Waitroom-Ticket"] == cookie(got, b"waitroom_ticket_shop")
    found = world.tokens.read_ticket(got[b"Waitroom-Ticket"])
    assert (found.place, found.generation, found.start_position) == (151, 7, 51)
    assert world.store.calls == [("join", 1)]


def test_join_with_a_ticket_returns_the_same(world):
    got = call(world, "join", ticket(world))
    assert got.status == 200
    assert told(got, "ticket")["ticket"].encode() == world.ticket()
    assert world.store.calls == []


@pytest.mark.parametrize("fate", ["waiting", "called", "admitted"])
def test_join_with_a_ticket_that_must_be_looked_up(world, fate):
    world.store.fates[99] = Visited(fate, 0)
    got = call(world, "join", ticket(world, 99))
    assert got.status == 200
    assert told(got, "ticket")["state"] == fate
    assert world.store.named("join") == []


@pytest.mark.parametrize("how", ["unknown", "too old"])
def test_join_with_an_unknown_ticket(world, how):
    world.store.fates[99] = Visited("unknown", 0)
    got = call(world, "join", ticket(world, 99) if how == "unknown" else ticket(world, age=7 * 86400, generation=6))
    assert got.status == 201
    assert world.tokens.read_ticket(got[b"Waitroom-Ticket"]).place == 151


def test_join_admits_immediately_if_nobody_waits():
    with World(view=QUIET) as world:
        world.store.admits = 1
        got = call(world, "join")
        assert got.status == 201
        body = told(got, "pass")
        assert body["state"] == "admitted"
        assert body["pass"].encode() == got[b"Waitroom-Pass"] == cookie(got, b"waitroom_pass_shop")
        assert cookie(got, b"waitroom_ticket_shop") == b""
        assert world.tokens.read_pass(got[b"Waitroom-Pass"]).session == 151
        assert sum(world.room.metrics.wait_seconds.counts) == 1, "counted as on a page"


def test_join_with_a_pass_takes_no_place(world):
    got = call(world, "join", inside(world))
    assert (got.status, told(got)["state"]) == (200, "admitted")
    assert world.store.calls == []


@pytest.mark.parametrize("state", [RoomState.CLOSED, RoomState.SOLD_OUT])
def test_join_in_a_room_that_accepts_nobody(world, state):
    world.view = replace(BUSY, state=state)
    world.store.takes = False
    got = call(world, "join")
    assert (got.status, told(got)["state"]) == (503, state.value)
    assert b"Set-Cookie" not in got


@pytest.mark.parametrize("setting", ["hold", "close", "admit"])
def test_join_when_the_store_fails(setting):
    with World(on_store_error=setting) as world:
        world.store.broken = "all"
        got = call(world, "join")
        if setting == "admit":
            assert got.status == 201
            assert world.tokens.read_pass(told(got, "pass")["pass"].encode()).session >= 1 << 62
        else:
            state = "closed" if setting == "close" else "unknown"
            assert (got.status, told(got)["state"]) == (503, state)
            assert int(got[b"Retry-After"]) >= 1
        observed = sum(world.room.metrics.wait_seconds.counts)
        assert observed == 0, "a session without a place has not waited"


@pytest.mark.parametrize("store", ["fails just now", "is known to be down"])
@pytest.mark.parametrize("setting", ["hold", "close"])
def test_page_and_api_agree_when_the_store_fails(setting, store):
    def ask(request: bytes) -> Message:
        with World(on_store_error=setting, store_up=store == "fails just now") as world:
            world.store.broken = "all"
            return world.ask(request)

    page = ask(get(b"/", PAGE))
    api = ask(get(b"/.waitroom/join", method=b"POST", body=b""))
    assert page.status == api.status == 503
    shown = "closed" if setting == "close" else "held"
    assert b'data-state="%b"' % shown.encode() in page.body
    assert told(api)["state"] == ("closed" if setting == "close" else "unknown")
    assert page[b"Retry-After"] == api[b"Retry-After"]


@pytest.mark.parametrize("setting", ["hold", "close", "admit"])
def test_join_with_a_ticket_when_the_store_fails(setting):
    """Who has a place is no newcomer: it is kept."""
    with World(on_store_error=setting) as world:
        world.store.broken = "all"
        got = call(world, "join", ticket(world, 99))
        assert (got.status, told(got)["state"]) == (503, "waiting")
        assert int(got[b"Retry-After"]) >= 1


# claim


def test_claim_of_a_called_ticket(world):
    world.store.fates[99] = Visited("admitted", 14_400_000)
    got = call(world, "claim", ticket(world, 99))
    assert got.status == 200
    body = told(got, "pass")
    assert body["state"] == "admitted"
    assert body["pass"].encode() == got[b"Waitroom-Pass"] == cookie(got, b"waitroom_pass_shop")
    assert cookie(got, b"waitroom_ticket_shop") == b""
    found = world.tokens.read_pass(got[b"Waitroom-Pass"])
    now = int(world.unix_time())
    assert (found.session, found.expires_at, found.ends_at) == (99, now + 900, now + 14400)
    assert world.store.calls == [("visit", [Visit(99, 7, True, waited_seconds=60, promised_seconds=100)])]


def test_claiming_twice_starts_one_session(world):
    world.store.fates[99] = Visited("admitted", 14_400_000)
    first = call(world, "claim", ticket(world, 99))
    again = call(world, "claim", ticket(world, 99))
    assert again.status == 200
    assert first[b"Waitroom-Pass"] == again[b"Waitroom-Pass"]
    inside_again = call(world, "claim", b"Waitroom-Pass: " + first[b"Waitroom-Pass"])
    assert world.tokens.read_pass(inside_again[b"Waitroom-Pass"]).session == 99
    assert len(world.store.calls) == 2, "with a pass the store is not called"


@pytest.mark.parametrize(("fate", "state"), [("waiting", "waiting"), ("called", "called"), ("unknown", "unknown")])
def test_claim_before_the_turn(world, fate, state):
    world.store.fates[99] = Visited(fate, 0)
    got = call(world, "claim", ticket(world, 99))
    assert (got.status, told(got, "ticket")["state"]) == (409, state)
    assert cookie(got, b"waitroom_pass_shop") is None


@pytest.mark.parametrize("how", ["nothing", "too old"])
def test_claim_without_a_ticket(world, how):
    got = call(world, "claim", *([] if how == "nothing" else [ticket(world, age=7 * 86400, generation=6)]))
    assert (got.status, told(got)["state"]) == (409, "unknown")
    assert world.store.calls == []


def test_claim_when_the_store_fails(world):
    world.store.broken = "all"
    got = call(world, "claim", ticket(world, 99))
    assert (got.status, told(got)["state"]) == (503, "waiting")
    assert int(got[b"Retry-After"]) >= 1


# leave


def test_leave_gives_up_the_place(world):
    got = call(world, "leave", ticket(world))
    assert (got.status, told(got)["state"]) == (200, "unknown")
    assert cookie(got, b"waitroom_ticket_shop") == cookie(got, b"waitroom_pass_shop") == b""
    assert world.store.calls == [("leave", (120, 14400_000, False))]


def test_leave_gives_up_the_session(world):
    line = inside(world)
    assert call(world, "leave", line).status == 200
    assert world.store.calls == [("leave", (90, 14400_000, True))]
    assert told(call(world, "status", line))["state"] == "unknown"


def test_leave_without_tokens(world):
    assert call(world, "leave").status == 200
    assert world.store.calls == []


def test_leave_by_a_form_shows_a_page(world):
    got = call(world, "leave", ticket(world), PAGE)
    assert got.status == 200
    assert got[b"Content-Type"].startswith(b"text/html")


def test_leave_when_the_store_fails_keeps_the_cookies(world):
    world.store.broken = "all"
    line = inside(world)
    got = call(world, "leave", line)
    assert got.status == 503
    assert b"Set-Cookie" not in got
    assert told(call(world, "status", line))["state"] == "admitted"


# What is counted.


def test_requests_to_endpoints_are_counted(world):
    for name in CALLS:
        call(world, name)
    assert world.room.metrics.requests == {"status": 1, "join": 1, "claim": 1, "leave": 1, "refused": 1}
