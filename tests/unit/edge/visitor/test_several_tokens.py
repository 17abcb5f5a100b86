"""Several cookies of one name, as a neighbouring site can cause: an invalid one never hides a valid one."""

from __future__ import annotations

import pytest

from support.edge_world import OK, World, answer, get
from support.http_reader import Message
from waitroom.edge.http.headers import MAX_SAME_COOKIES
from waitroom.tokens import Pass, Ticket, Tokens

JUNK = [b"", b"x", b'""', b"1.2.3." + b"A" * 43, b"stale"]


def cookies(kind: bytes, *values: bytes) -> bytes:
    return b"; ".join(b"waitroom_%b_shop=%b" % (kind, value) for value in values)


def session_of(world: World, *lines: bytes) -> int | None:
    """The session of the request that the shop receives; None if it receives none."""
    wire = world.client()
    wire.send(get(b"/x", *lines))
    if wire.got:
        assert answer(wire).status == 503
        return None
    (line,) = (line for line in world.shop.wire.got.split(b"\r\n") if line.startswith(b"Waitroom-Session: "))
    world.shop.wire.clear()
    world.shop.wire.send(OK)
    return int(line.partition(b": ")[2], 16)


def status(world: World, *lines: bytes) -> Message:
    return world.ask(get(b"/.waitroom/status", *lines))


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("first", [True, False])
def test_an_invalid_pass_does_not_hide_a_valid_one(junk, first):
    with World() as world:
        values = [junk, world.pass_()] if first else [world.pass_(), junk]
        assert session_of(world, b"Cookie: " + cookies(b"pass", *values)) == 90
        assert session_of(world, *[b"Cookie: a=b; " + cookies(b"pass", value) for value in values]) == 90


@pytest.mark.parametrize("junk", JUNK)
def test_an_invalid_cookie_does_not_hide_a_valid_header(junk):
    with World() as world:
        line = b"Cookie: " + cookies(b"pass", junk) + b"; " + cookies(b"ticket", junk)
        assert session_of(world, line, b"Waitroom-Pass: " + world.pass_()) == 90
        assert session_of(world, b"Waitroom-Pass: x, " + world.pass_()) == 90
        assert session_of(world, b"Waitroom-Pass: x", b"Waitroom-Pass: " + world.pass_()) == 90
        got = status(world, line, b"Waitroom-Ticket: " + world.ticket())
        assert b'"state":"waiting"' in got.body


def test_a_foreign_pass_does_not_hide_a_valid_one():
    with World() as world:
        foreign = [
            Tokens([secret], room).sign_pass(Pass(1, 1_900_000_000, 1_900_000_000)).encode()
            for secret, room in (("a secret of sixteen characters", "other"), ("another secret of sixteen", "shop"))
        ]
        assert session_of(world, b"Cookie: " + cookies(b"pass", *foreign, world.pass_())) == 90


def test_the_active_session_with_the_latest_end_counts():
    with World() as world:
        over, run_out, short, long = (
            world.pass_(70, ends=9000),
            world.pass_(71, left=-10, ends=9000),
            world.pass_(72, left=5, ends=500),
            world.pass_(73, left=5, ends=600),
        )
        world.room.sessions.apply_ends((70,), (), world.unix_time(), 0)
        for order in ((over, run_out, short, long), (long, short, run_out, over), (short, long, over, run_out)):
            assert session_of(world, b"Cookie: " + cookies(b"pass", *order)) == 73
        assert session_of(world, b"Cookie: " + cookies(b"pass", run_out, short)) == 72
        assert session_of(world, b"Cookie: " + cookies(b"pass", over, run_out)) == 71
        assert session_of(world, b"Cookie: " + cookies(b"pass", over)) is None


def test_the_valid_ticket_with_the_first_place_counts():
    with World() as world:
        old = world.tokens.sign_ticket(Ticket(102, 6, 1_700_000_000, 1, 0)).encode()
        first, second = world.ticket(111), world.ticket(130)
        for order in ((old, first, second), (second, first, old), (first, old, second)):
            world.store.calls.clear()
            assert b'"position":11,' in status(world, b"Cookie: " + cookies(b"ticket", *order)).body
        assert b'"state":"unknown"' in status(world, b"Cookie: " + cookies(b"ticket", old)).body


@pytest.mark.interpreted
def test_verified_tokens_are_bounded(monkeypatch):
    with World() as world:
        verified: list[bytes] = []
        junk = [b"1.2.%x." % number + b"A" * 43 for number in range(100)]
        monkeypatch.setattr(world.room.sessions, "find", verified.append)
        session_of(world, b"Cookie: " + cookies(b"pass", *junk, *junk), b"Waitroom-Pass: " + b", ".join(junk))
        assert verified == junk[:MAX_SAME_COOKIES] + junk[:MAX_SAME_COOKIES]
