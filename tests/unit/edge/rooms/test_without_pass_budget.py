"""Requests without a pass: their budget, and a hint for those that are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from support.edge_world import BUSY, OK, PAGE, QUIET, World, answer, get, room_settings
from support.http_reader import read_requests
from waitroom.edge.rooms.room import MAX_REFUSED_KINDS
from waitroom.edge.rooms.without_pass_budget import LOG_INTERVAL_SECONDS, MAX_KINDS, WithoutPassBudget
from waitroom.queue.view import RoomState

JSON = b"Accept: application/json"


def reached(world: World, request: bytes) -> bool:
    """Whether a request of a new client reaches the shop, which answers it."""
    wire = world.client()
    wire.send(request)
    for shop in world.shop.open:
        if shop.got:
            assert len(read_requests(shop.clear())[0]) == 1
            shop.send(OK)
            assert answer(wire).body == b"ok"
            return True
    assert answer(wire).status == 503
    return False


def test_the_budget_follows_the_rooms_rate() -> None:
    with World(view=replace(QUIET, rate_per_minute=3000.0), rate_per_minute=3000.0) as world:
        assert sum(reached(world, get(b"/a", JSON)) for _ in range(20)) == 5
        world.pass_time(1.0)
        assert sum(reached(world, get(b"/a", JSON)) for _ in range(20)) == 5
        assert world.room.metrics.requests == {"without_pass": 10, "refused": 30}
        # No admission is taken for it.
        assert not world.store.calls


def test_a_new_rate_changes_the_budget() -> None:
    with World(view=QUIET) as world:
        assert sum(reached(world, get(b"/a", JSON)) for _ in range(20)) == 1
        world.view = replace(QUIET, rate_per_minute=6000.0)
        assert sum(reached(world, get(b"/a", JSON)) for _ in range(20)) == 0, "what has gathered is used up"
        world.pass_time(10.0)
        assert sum(reached(world, get(b"/a", JSON)) for _ in range(20)) == 10


def test_the_setting_sets_the_budget() -> None:
    with World(view=QUIET, without_pass_per_second=2.0) as world:
        assert sum(reached(world, get(b"/a", JSON)) for _ in range(10)) == 2


def test_an_occasional_monitor_is_forwarded() -> None:
    with World(view=QUIET) as world:
        for _ in range(10):
            world.pass_time(10.0)
            assert reached(world, get(b"/healthz", b"User-Agent: monitor"))


def test_each_of_many_workers_has_enough_for_a_monitor() -> None:
    budget = WithoutPassBudget(room_settings(), 64)
    assert [budget.take(QUIET, 10.0 * number) for number in range(10)] == [True] * 10
    assert not budget.take(QUIET, 91.0)
    told = WithoutPassBudget(room_settings(without_pass_per_second=1.0), 64)
    assert [told.take(QUIET, 10.0 * number) for number in range(3)] == [True, False, False]


def test_workers_share_the_budget() -> None:
    budgets = [WithoutPassBudget(room_settings(without_pass_per_second=8.0), 4) for _ in range(4)]
    assert sum(budget.take(QUIET, 0.0) for budget in budgets for _ in range(100)) == 8


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH"])
@pytest.mark.parametrize("setting", ["refuse", "safe", "all"])
def test_unsafe_requests_need_a_pass_by_default(method: bytes, setting: str) -> None:
    with World(view=QUIET, without_pass=setting) as world:
        request = get(b"/api/order", JSON, method=method, body=b"1")
        assert reached(world, request) is (setting == "all")
        world.pass_time(5.0)
        assert reached(world, get(b"/api/order", JSON)) is (setting != "refuse")


def test_a_tunnel_needs_a_pass_by_default() -> None:
    upgrade = (b"Connection: Upgrade", b"Upgrade: websocket")
    with World(view=QUIET) as world:
        assert not reached(world, get(b"/socket", *upgrade))
    with World(view=QUIET, without_pass="all") as world:
        assert reached(world, get(b"/socket", *upgrade))


@pytest.mark.parametrize("state", [RoomState.PAUSED, RoomState.CLOSED, RoomState.SOLD_OUT])
def test_nothing_is_forwarded_while_nobody_is_admitted(state: RoomState) -> None:
    with World(view=replace(QUIET, state=state), without_pass="all") as world:
        assert not reached(world, get(b"/a", JSON))


def test_nothing_is_forwarded_while_the_store_is_unavailable() -> None:
    with World(view=QUIET, store_up=False, on_store_error="admit") as world:
        assert sum(reached(world, get(b"/a", JSON)) for _ in range(10)) == 1
        assert not reached(world, get(b"/order", JSON, method=b"POST", body=b"1"))


def test_without_the_store_newcomers_are_admitted_at_the_rooms_rate() -> None:
    with World(view=BUSY, store_up=False, on_store_error="admit") as world:
        assert [reached(world, get(b"/a", PAGE)) for _ in range(3)] == [True, False, False]
        world.pass_time(1.0)  # 60 a minute
        assert [reached(world, get(b"/a", PAGE)) for _ in range(3)] == [True, False, False]
        world.pass_time(100.0)
        assert [reached(world, get(b"/a", PAGE)) for _ in range(3)] == [True, False, False], "nothing gathers"
        held = world.ask(get(b"/a", PAGE))
        assert b'data-state="held"' in held.body


def test_without_the_store_apps_are_admitted_at_the_same_rate() -> None:
    with World(view=BUSY, on_store_error="admit") as world:
        world.store.broken = {"join"}
        ask = get(b"/.waitroom/join", JSON, method=b"POST")
        assert json.loads(world.ask(ask).body)["state"] == "admitted"
        got = world.ask(ask)
        assert got.status == 503
        assert got[b"Retry-After"]


# Prefetches and frames.


@pytest.mark.parametrize(
    "line", [b"Sec-Purpose: prefetch", b"Sec-Purpose: prefetch;prerender", b"Purpose: prefetch", b"X-Moz: prefetch"]
)
@pytest.mark.parametrize("view", [QUIET, BUSY])
@pytest.mark.parametrize("waiting_status", [200, 503])
def test_a_prefetch_without_a_pass_makes_the_browser_ask_again(view, line, waiting_status) -> None:
    with World(view=view, waiting_status=waiting_status) as world:
        got = world.ask(get(b"/sale", PAGE, line))
        assert got.status == 503
        assert got[b"Cache-Control"] == b"no-store"
        assert not got.all(b"Set-Cookie")
        assert not world.store.calls
        assert not world.shop.got
        ticket = b"Cookie: waitroom_ticket_shop=" + world.ticket(99)
        assert world.ask(get(b"/sale", PAGE, line, ticket)).status == 503
        assert not world.store.calls, "a prefetch takes no turn"


def test_a_prefetch_with_a_pass_is_forwarded() -> None:
    with World() as world:
        assert reached(world, get(b"/sale", PAGE, b"Sec-Purpose: prefetch", world.inside()))


def test_a_service_workers_navigation_gets_the_page_and_a_place() -> None:
    with World() as world:
        got = world.ask(get(b"/sale", PAGE, b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: empty"))
        assert got[b"Content-Type"].startswith(b"text/html")
        assert b"waitroom_ticket_shop=" in b"".join(got.all(b"Set-Cookie"))
        assert world.store.named("join") == [1]


FRAME = (PAGE, b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: iframe", b"Sec-Fetch-Site: cross-site")


def test_a_frame_on_another_site_takes_no_place() -> None:
    with World() as world:
        for _ in range(3):
            got = world.ask(get(b"/sale", *FRAME))
            assert got.status == 503
            assert got[b"Content-Type"].startswith(b"text/html")
            assert b"frame-ancestors 'self'" in got[b"Content-Security-Policy"]
            assert not got.all(b"Set-Cookie")
        assert not world.store.calls
    with World(view=QUIET) as world:
        assert reached(world, get(b"/sale", *FRAME))
        assert not world.store.calls


# What operators are told of what was refused.


def test_each_kind_of_refused_request_is_logged_once_an_hour_with_its_rule() -> None:
    with World() as world:
        for _ in range(3):
            world.ask(get(b"/hooks/payment/7?secret=1", JSON, method=b"POST", body=b""))
            world.ask(get(b"/hooks/payment/8", JSON))
        entries = [entry for entry in world.logs if entry["event"] == "request without a pass refused"]
        assert [(entry["method"], entry["path"]) for entry in entries] == [("POST", "/hooks"), ("GET", "/hooks")]
        assert entries[0]["rule"] == '[[rooms.bypass]] paths = ["/hooks"] methods = ["POST"]'
        assert "secret" not in str(entries)
        assert list(world.room.metrics.refused) == ["POST /hooks", "GET /hooks"]
        world.pass_time(LOG_INTERVAL_SECONDS)
        world.ask(get(b"/hooks/payment/7", JSON, method=b"POST", body=b""))
        assert len([entry for entry in world.logs if entry["event"] == "request without a pass refused"]) == 3


def test_a_scanner_fills_neither_the_log_nor_memory() -> None:
    with World() as world:
        for number in range(2 * MAX_KINDS):
            world.ask(get(b"/%d" % number + b"x" * 200, JSON))
        entries = [entry for entry in world.logs if entry["event"] == "request without a pass refused"]
        assert len(entries) == MAX_KINDS
        assert max(len(entry["path"]) for entry in entries) <= 65
        assert len(world.room.without_pass._logged) == MAX_KINDS
        assert len(world.room.metrics.refused) == MAX_REFUSED_KINDS
