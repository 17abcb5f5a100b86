"""Called visitors: more time, new places of late visitors, and the hard end of their sessions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.edge_world import OK, PAGE, World, answer, at_shop, get
from support.endpoint_calls import call, cookie, inside, ticket, told
from waitroom.queue.store import Visit, Visited

MORE = b"?room=shop&more=1&to=%2Fphones"
MOVED = Visited("waiting", 0, moved_to=160)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# More time.


def test_more_time_is_granted_and_nobody_admitted(world):
    world.store.fates[99] = Visited("called", 180_000)
    got = call(world, "claim", ticket(world, 99), query=MORE)
    body = told(got, "ticket")
    assert (got.status, body["state"]) == (200, "called")
    assert body["claim_by"] is not None
    assert cookie(got, b"waitroom_pass_shop") is None
    assert world.store.calls == [("visit", [Visit(99, 7, claim=False, more=True)])]


@pytest.mark.parametrize("fate", ["waiting", "unknown"])
def test_only_called_visitors_get_more_time(world, fate):
    world.store.fates[99] = Visited(fate, 0)
    got = call(world, "claim", ticket(world, 99), query=MORE)
    assert (got.status, told(got, "ticket")["state"]) == (409, fate)


def test_more_time_without_a_ticket(world):
    got = call(world, "claim", query=MORE)
    assert (got.status, told(got)["state"]) == (409, "unknown")
    got = call(world, "claim", inside(world), query=MORE)
    assert (got.status, told(got)["state"]) == (200, "admitted")
    assert world.store.calls == []


def test_more_time_when_the_store_fails(world):
    world.store.broken = "all"
    got = call(world, "claim", ticket(world, 99), query=MORE)
    assert (got.status, told(got)["state"]) == (503, "waiting")


def test_a_form_for_more_time_gets_the_page(world):
    world.store.fates[99] = Visited("called", 180_000)
    got = call(world, "claim", ticket(world, 99), PAGE, query=MORE)
    assert got[b"Content-Type"].startswith(b"text/html")
    assert b'data-state="called"' in got.body
    assert b"I need more time" in got.body
    # The page takes the visitor in by itself shortly before the time ends, be it in a hidden tab.
    assert b'data-poll-after="105"' in got.body
    assert b'http-equiv="refresh" content="105"' in got.body
    assert cookie(got, b"waitroom_ticket_shop") is None
    world.store.fates[99] = Visited("called", 180_000, moved_to=160)
    value = cookie(call(world, "claim", ticket(world, 99), PAGE, query=MORE), b"waitroom_ticket_shop")
    assert value
    assert world.tokens.read_ticket(value).place == 160


def test_the_page_for_more_time_leads_to_the_destination(world):
    world.store.fates[99] = Visited("admitted", 14_400_000)
    got = call(world, "claim", ticket(world, 99), PAGE, query=MORE, method=b"GET")
    assert (got.status, got[b"Location"]) == (303, b"/phones")
    assert cookie(got, b"waitroom_pass_shop")


@pytest.mark.parametrize("fate", ["waiting", "admitted", "unknown"])
def test_a_form_of_a_visitor_who_is_not_called(world, fate):
    world.store.fates[99] = Visited(fate, 14_400_000 if fate == "admitted" else 0)
    got = call(world, "claim", ticket(world, 99), PAGE, query=MORE)
    if fate == "admitted":
        assert (got.status, got[b"Location"]) == (303, b"/phones")
    else:
        assert b'data-state="waiting"' in got.body


def test_a_form_when_the_store_fails_gets_the_page(world):
    world.store.broken = "all"
    got = call(world, "claim", ticket(world, 99), PAGE, query=MORE)
    assert b'data-state="held"' in got.body


def test_a_form_from_another_site_is_refused(world):
    got = call(world, "claim", ticket(world, 99), PAGE, b"Sec-Fetch-Site: cross-site", query=MORE)
    assert got.status == 403
    assert world.store.calls == []


# Those who came too late.


@pytest.mark.parametrize("name", ["status", "join", "claim"])
def test_late_visitors_get_a_ticket_for_the_new_place(world, name):
    world.store.fates[99] = MOVED
    got = call(world, name, ticket(world, 99))
    old = world.tokens.read_ticket(world.ticket(99))
    new = world.tokens.read_ticket(got[b"Waitroom-Ticket"])
    assert (new.place, new.generation, new.joined_at) == (160, 7, old.joined_at)
    assert new.promised_seconds == 0, "the promise was for another place"
    assert cookie(got, b"waitroom_ticket_shop") == got[b"Waitroom-Ticket"]


def test_late_visitors_get_the_new_ticket_with_the_page(world):
    world.store.fates[99] = MOVED
    got = call(world, "wait", ticket(world, 99), PAGE)
    value = cookie(got, b"waitroom_ticket_shop")
    assert value
    assert world.tokens.read_ticket(value).place == 160


def test_the_session_has_the_new_places_number(world):
    world.store.fates[99] = Visited("admitted", 14_400_000, moved_to=160)
    got = call(world, "claim", ticket(world, 99))
    assert world.tokens.read_pass(got[b"Waitroom-Pass"]).session == 160
    wire = world.client()
    wire.send(get(b"/a", PAGE, ticket(world, 99)))
    assert at_shop(world)[b"Waitroom-Session"] == b"%x" % 160
    world.shop.wire.send(OK)
    assert answer(wire).status == 200


# The hard end.


def test_a_used_ticket_keeps_its_hard_end(world):
    for left in (14_400_000, 9_000_000, 100_000):
        world.store.fates[99] = Visited("admitted", left)
        world.room.sessions._by_id.clear()  # as another worker, which has never seen the session
        world.room.sessions._by_pass.clear()
        now = int(world.unix_time())
        found = world.tokens.read_pass(call(world, "claim", ticket(world, 99))[b"Waitroom-Pass"])
        assert found.ends_at == now + left // 1000
        assert found.expires_at == min(now + 900, found.ends_at)
