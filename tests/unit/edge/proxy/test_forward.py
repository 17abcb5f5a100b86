"""Responses of the shop: renewed passes, and commands to the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.edge_world import BUSY, PAGE, QUIET, World, answer, get, sent
from support.http_reader import Message
from waitroom.edge.http.message import parse_request, parse_response
from waitroom.edge.proxy.forward import RoomForward
from waitroom.queue.store import SessionChange
from waitroom.queue.view import RoomState
from waitroom.tokens import Pass

PRIVATE = b"Cache-Control: private"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def reply(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, b"Content-Length: 0", *lines]) + b"\r\n\r\n"


def told(world: World, *lines: bytes, pass_: bytes | None = None, status: bytes = b"200 OK") -> Message:
    """The response that an admitted visitor gets."""
    wire = world.client()
    wire.send(get(b"/", b"Cookie: waitroom_pass_shop=" + (pass_ or world.pass_())))
    world.shop.wire.send(reply(*lines, status=status))
    return answer(wire)


def given(world: World, message: Message, age: int = 0) -> Pass | None:
    """The pass in its last cookie, which a browser keeps; None if it is removed or not set."""
    cookies = [value for value in message.all(b"Set-Cookie") if value.startswith(b"waitroom_pass_shop=")]
    if not cookies:
        return None
    value, *attributes = cookies[-1].split(b"; ")
    assert {b"Path=/", b"HttpOnly", b"SameSite=Lax"} < set(attributes)
    if b"Max-Age=0" in attributes:
        assert value == b"waitroom_pass_shop="
        return None
    found = world.tokens.read_pass(value.partition(b"=")[2])
    assert b"Max-Age=%d" % (found.ends_at - int(world.unix_time()) + age) in attributes
    return found


def changes(world: World) -> list[SessionChange]:
    """The changes that the next flush sends to the store."""
    world.store.calls.clear()
    world.loop.wait(world.room.flush())
    return [change for batch in world.store.named("change_sessions") for change in batch]


# Renewal.


@pytest.mark.parametrize(
    ("line", "left", "renewed"),
    [
        (PRIVATE, 100, True),
        (b"Cache-Control: no-store", 719, True),
        (PRIVATE, 721, False),
        (b"Cache-Control: max-age=0", 100, False),
        (b"Cache-Control: public, max-age=60", 100, False),
        (b"Cache-Control: max-age=60, x-private-cache=1", 100, False),
        (b"X: y", 100, False),
    ],
)
def test_pass_is_renewed_in_time_and_only_on_uncacheable_responses(world, line, left, renewed):
    got = told(world, line, pass_=world.pass_(left=left))
    now = int(world.unix_time())
    assert given(world, got) == (Pass(90, now + 900, now + 14400) if renewed else None)
    name, _, value = line.partition(b": ")
    assert got[name] == value, "the shop's own cache directive is kept"


def test_renewed_pass_ends_with_its_session(world):
    now = int(world.unix_time())
    assert given(world, told(world, PRIVATE, pass_=world.pass_(left=100, ends=200))) == Pass(90, now + 200, now + 200)


def test_pass_lifetime_follows_the_limits_in_force(world):
    world.view = replace(BUSY, session_ms=60_000)
    now = int(world.unix_time())
    assert given(world, told(world, PRIVATE, pass_=world.pass_(left=30))) == Pass(90, now + 60, now + 14400)


def test_request_without_a_session_gets_no_pass():
    with World(view=QUIET) as world:
        wire = world.client()
        wire.send(get(b"/api"))
        world.shop.wire.send(reply(PRIVATE))
        assert b"Set-Cookie" not in answer(wire)


def test_cookie_for_a_visitor_without_a_session_makes_the_response_uncacheable(world):
    request, response = parse_request(get())[0], parse_response(reply())
    cookies = b"Set-Cookie: a=b\r\n"
    forward = RoomForward(world.room, None, world.client().protocol, request, "bypass", 0.0, cookies)
    assert forward.on_response(response) == (cookies, True)
    forward.on_end("ok")


def test_newcomer_s_first_response_is_uncacheable():
    with World(view=QUIET) as world:
        world.store.admits = 1
        wire = world.client()
        wire.send(get(b"/", PAGE))
        world.shop.wire.send(reply(b"Cache-Control: public, max-age=3600", b"Expires: later", b"Set-Cookie: a=b"))
        got = answer(wire)
        now = int(world.unix_time())
        assert given(world, got) == Pass(151, now + 900, now + 14400)
        assert got[b"Cache-Control"] == b"private, no-store"
        assert b"Expires" not in got
        assert got.all(b"Set-Cookie")[0] == b"a=b"
        assert got.all(b"Set-Cookie")[-1].startswith(b"waitroom_ticket_shop=; Path=/; Max-Age=0")


@pytest.mark.parametrize("failure", ["refused", "malformed", "cut", "late"])
def test_newcomer_keeps_the_pass_when_the_shop_fails(failure):
    """Otherwise each retry would take another slot, and a shop that is down would be full."""
    with World(view=QUIET) as world:
        world.store.admits = 1
        if failure == "refused":
            world.shop.refuses = ConnectionRefusedError("refused")
        wire = world.client()
        wire.send(get(b"/", PAGE))
        if failure == "malformed":
            world.shop.wire.send(b"x\r\n\r\n")
        elif failure == "cut":
            world.shop.wire.send_eof()
        elif failure == "late":
            world.pass_time(60)
        got = answer(wire)
        assert got.status == (504 if failure == "late" else 502)
        assert given(world, got, 60 if failure == "late" else 0) is not None
        assert got[b"Cache-Control"] == b"no-store"


def test_error_response_renews_no_pass(world):
    world.shop.refuses = ConnectionRefusedError("refused")
    wire = sent(world)
    assert b"Set-Cookie" not in answer(wire)


# Commands.


def test_hold(world):
    got = told(world, b"Waitroom-Command: hold=9000", pass_=world.pass_(left=10, ends=20))
    now = int(world.unix_time())
    assert given(world, got) == Pass(90, now + 9000, now + 9000, held=8980)
    assert got[b"Cache-Control"] == b"private, no-store"
    assert changes(world) == [SessionChange("keep", 90, 9000_000), SessionChange("hold", 90, 9000_000)]


def test_repeated_holds_are_bounded(world):
    """In one response, in the next, and with a pass from another worker."""
    now = int(world.unix_time())
    longest = Pass(90, now + 14420, now + 14420, held=14400)
    got = told(world, b"Waitroom-Command: hold=10000, hold=99999", pass_=world.pass_(left=10, ends=20))
    assert given(world, got) == longest
    assert changes(world)[1:] == [SessionChange("hold", 90, 10000_000), SessionChange("hold", 90, 14420_000)]
    again = told(world, b"Waitroom-Command: hold=99999", pass_=world.tokens.sign_pass(longest).encode())
    assert given(world, again) == longest
    with World() as other:
        held = other.tokens.sign_pass(replace(longest, session=91)).encode()
        assert given(other, told(other, b"Waitroom-Command: hold=99999", pass_=held)) == replace(longest, session=91)


def test_short_hold_shortens_nothing(world):
    got = told(world, b"Waitroom-Command: hold=10")
    now = int(world.unix_time())
    assert given(world, got) == Pass(90, now + 900, now + 14400)
    assert SessionChange("hold", 90, 10_000) in changes(world)


@pytest.mark.parametrize(("seconds", "expires"), [(300, 900), (2000, 2000), (99999, 14400)])
def test_extend(world, seconds, expires):
    got = told(world, b"Waitroom-Command: extend=%d" % seconds)
    now = int(world.unix_time())
    assert given(world, got) == Pass(90, now + expires, now + 14400)
    assert SessionChange("extend", 90, min(seconds, 14400) * 1000) in changes(world)


def test_remaining(world):
    got = told(world, b"Waitroom-Command: remaining=1200", b"Cache-Control: public")
    assert b"Set-Cookie" not in got
    assert got[b"Cache-Control"] == b"public"
    changes(world)
    assert world.store.named("set_remaining") == [1200]
    assert changes(world) == []
    assert world.store.named("set_remaining") == [], "once"


@pytest.mark.parametrize(
    ("state", "sets"),
    [
        *((RoomState.OPEN, True), (RoomState.PAUSED, True)),
        *((RoomState.PREQUEUE, False), (RoomState.CLOSED, False), (RoomState.SOLD_OUT, False)),
    ],
)
def test_sold_out(world, state, sets):
    """Not before a sale, nor in a room that an operator has closed."""
    world.view = replace(BUSY, state=state)
    told(world, b"Waitroom-Command: sold-out")
    assert len(world.store.named("report_sold_out")) == sets, "at once"
    changes(world)
    assert world.store.named("report_sold_out") == []


@pytest.mark.parametrize(
    "lines",
    [
        (b"Waitroom-Command: remaining=0, sold-out , hold=100",),
        (b"Waitroom-Command: remaining=0", b"X: y", b"WAITROOM-COMMAND:sold-out,,hold=100,"),
    ],
)
def test_several_commands(world, lines):
    got = told(world, *lines)
    assert b"Waitroom-Command" not in got
    assert world.store.calls == [("report_sold_out", 0), ("set_remaining", 0)], "the stock doesn't lift the first"
    assert SessionChange("hold", 90, 100_000) in changes(world)
    assert world.store.named("report_sold_out") == world.store.named("set_remaining") == []
    assert world.logs == []


@pytest.mark.parametrize(
    "value",
    [
        *(b"explode", b"hold", b"hold=", b"hold=x", b"hold=-5", b"hold=+5", b"hold=5.0", b"hold=1e3", b"hold = 5"),
        *(b"hold=9999999999", b"remaining=many", b"remaining", b"extend=\xb2", b"Release", b"sold_out", b"\xff"),
    ],
)
def test_unknown_commands_are_logged_and_ignored(world, value):
    got = told(world, b"Waitroom-Command: " + value)
    assert b"Waitroom-Command" not in got
    assert b"Set-Cookie" not in got
    assert [change.operation for change in changes(world)] == ["keep"]
    assert world.store.named("set_remaining") == world.store.named("report_sold_out") == []
    assert [entry["log_level"] for entry in world.logs] == ["warning"]


@pytest.mark.parametrize("value", [b"release", b"hold=5", b"extend=5"])
def test_commands_without_a_session_are_ignored(value):
    """As a payment provider's webhook may, which bypasses the queue."""
    with World(view=QUIET) as world:
        wire = world.client()
        wire.send(get(b"/api"))
        world.shop.wire.send(reply(b"Waitroom-Command: %b, remaining=7" % value))
        assert b"Set-Cookie" not in answer(wire)
        assert changes(world) == []
        assert world.store.named("set_remaining") == [7]
        assert world.logs == []


def test_command_on_a_newcomer_s_first_response_is_executed():
    with World(view=QUIET) as world:
        world.store.admits = 1
        wire = world.client()
        wire.send(get(b"/", PAGE))
        world.shop.wire.send(reply(b"Waitroom-Command: hold=20000"))
        now = int(world.unix_time())
        assert given(world, answer(wire)) == Pass(151, now + 20000, now + 20000, held=5600)


def test_commands_in_interim_responses_and_trailers_are_ignored(world):
    wire = sent(world)
    world.shop.wire.send(
        b"HTTP/1.1 103 Hint\r\nWaitroom-Command: release\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\nWaitroom-Command: release\r\n\r\n"
    )
    assert b"ommand" not in wire.got
    assert [change.operation for change in changes(world)] == ["keep"]


def test_commands_are_retried_after_a_store_failure(world):
    world.store.broken = {"change_sessions", "report_sold_out", "set_remaining"}
    told(world, b"Waitroom-Command: remaining=5, hold=100, sold-out")
    assert not world.room.store_up
    world.room.store_up = True
    assert changes(world) != []
    assert not world.room.store_up
    world.store.broken = set()
    world.loop.wait(world.room.refresh())
    assert SessionChange("hold", 90, 100_000) in changes(world)
    assert world.store.named("set_remaining") == [5]
    assert len(world.store.named("report_sold_out")) == 1
