"""The visitor flow while the store fails: an unavailable store is not called, neither by pages nor by the API."""

from __future__ import annotations

import pytest

from support.edge_world import PAGE, World, get
from support.endpoint_calls import call, cookie, inside, ticket, told
from waitroom.tokens import Tokens

CALLED = 99  # a place that memory can't tell about


@pytest.mark.parametrize("setting", ["hold", "close", "admit"])
@pytest.mark.parametrize("name", ["join", "claim", "claim?more=1", "leave"])
@pytest.mark.parametrize("held", ["nothing", "ticket", "pass"])
def test_an_unavailable_store_is_not_called(setting, name, held):
    with World(on_store_error=setting, store_up=False) as world:
        world.store.broken = "all"
        lines = {"nothing": [], "ticket": [ticket(world, CALLED)], "pass": [inside(world)]}[held]
        for line in (b"", PAGE):
            world.ask(get(b"/.waitroom/" + name.encode(), *lines, line, method=b"POST", body=b""))
        assert world.store.calls == []
        assert world.room.metrics.store_errors == 0, "a call that wasn't made has not failed"


def test_leave_while_the_store_is_unavailable_keeps_the_cookies():
    with World(store_up=False) as world:
        line = inside(world)
        got = call(world, "leave", line)
        assert got.status == 503
        assert b"Set-Cookie" not in got
        assert told(call(world, "status", line))["state"] == "admitted"


@pytest.mark.parametrize(("asked", "lines"), [("join", False), ("visit", True)])
def test_visitors_batched_behind_a_failed_call_cost_no_other_call(asked, lines):
    with World() as world:
        world.store.hold(asked)
        first, second = world.client(), world.client()
        for wire in (first, second):
            wire.send(get(b"/a", PAGE, *([ticket(world, CALLED)] if lines else [])))
        world.store.broken = "all"
        world.store.let_go(asked)
        assert len(world.store.named(asked)) == 1
        assert b" 503 " in first.got
        assert b" 503 " in second.got
        assert world.room.metrics.store_errors == 1


def test_a_newcomer_uses_no_join_token_while_the_store_is_unavailable():
    with World(store_up=False, join_rate=1) as world:
        for _ in range(50):
            got = call(world, "join")
            assert (got.status, told(got)["state"]) == (503, "unknown")


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("name", "place"), [("join", None), ("join", CALLED), ("claim", CALLED), ("claim?more=1", CALLED), ("status", 98)]
)
def test_a_response_signs_its_ticket_once(monkeypatch, name, place):
    signed = []
    sign = Tokens.sign_ticket
    with World() as world:
        lines = [] if place is None else [ticket(world, place, generation=6)]
        monkeypatch.setattr(Tokens, "sign_ticket", lambda tokens, one: signed.append(one) or sign(tokens, one))
        name, _, more = name.partition("?")
        got = call(world, name, *lines, query=b"?room=shop&" + more.encode())
        assert cookie(got, b"waitroom_ticket_shop") == got[b"Waitroom-Ticket"] == sign(world.tokens, signed[0]).encode()
        assert len(signed) == 1
