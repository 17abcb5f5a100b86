"""Sessions whose end the shop has moved by the API: every worker learns of it from the view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.edge_world import BUSY, World, answer, get
from support.http_reader import Message
from waitroom.queue.store import SessionChange
from waitroom.tokens import Pass

PRIVATE = b"Cache-Control: private"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def look(world: World, **found: tuple[object, ...]) -> None:
    """The worker's next look at the room."""
    world.store.view_ = replace(BUSY, **found)
    world.loop.wait(world.room.refresh())
    world.store.view_ = BUSY


def fetch(world: World, pass_: bytes, *lines: bytes) -> Message:
    """The response that the holder of a pass gets."""
    wire = world.client()
    wire.send(get(b"/", b"Cookie: waitroom_pass_shop=" + pass_))
    head = b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: 0", *lines])
    world.shop.wire.send(head + b"\r\n\r\n")
    return answer(wire)


def given(world: World, message: Message) -> Pass | None:
    """The pass that a response sets."""
    cookies = [value for value in message.all(b"Set-Cookie") if value.startswith(b"waitroom_pass_shop=")]
    return world.tokens.read_pass(cookies[-1].partition(b"=")[2].partition(b";")[0]) if cookies else None


@pytest.mark.parametrize(("left", "ends"), [(10, 20), (600, 700)])
def test_a_hold_moves_the_end_and_the_next_response_has_the_new_pass(world: World, left: int, ends: int) -> None:
    pass_, now = world.pass_(left=left, ends=ends), int(world.unix_time())
    assert given(world, fetch(world, pass_)) is None
    look(world, prolonged=((90, 900_000),))
    assert given(world, fetch(world, pass_)) is None, "a cache may store this response"
    held = Pass(90, now + 900, now + 900, held=900 - ends)
    assert given(world, fetch(world, pass_, PRIVATE)) == held
    assert given(world, fetch(world, pass_, PRIVATE)) is None, "once is enough"


def test_the_old_pass_works_until_the_new_end(world: World) -> None:
    pass_ = world.pass_(left=10, ends=20)
    fetch(world, pass_)
    look(world, prolonged=((90, 60_000),))
    world.store.calls.clear()
    world.pass_time(30)
    assert fetch(world, pass_).status == 200
    assert world.store.named("change_sessions") == [], "nobody had to ask the store"


def test_an_extension_leaves_the_end_of_the_session(world: World) -> None:
    pass_, now = world.pass_(left=100), int(world.unix_time())
    fetch(world, pass_)
    look(world, prolonged=((90, 2_000_000),))
    assert given(world, fetch(world, pass_, PRIVATE)) == Pass(90, now + 2000, now + 14_400)


def test_an_end_never_moves_back(world: World) -> None:
    pass_, now = world.pass_(left=800), int(world.unix_time())
    fetch(world, pass_)
    look(world, prolonged=((90, 5_000),))
    found = given(world, fetch(world, pass_, PRIVATE))
    assert found is not None
    assert (found.expires_at, found.ends_at) == (now + 900, now + 14_400)


def test_sessions_that_are_over_or_were_never_seen_here_stay_as_they_are(world: World) -> None:
    pass_ = world.pass_(left=100)
    fetch(world, pass_)
    look(world, ended=(90,), prolonged=((90, 900_000), (91, 900_000)))
    session = world.room.sessions.find(pass_)
    assert session is not None
    assert session.over
    other = world.room.sessions.find(world.pass_(91, left=100))
    assert other is not None
    assert other.expires_at == int(world.unix_time()) + 100


def test_a_store_that_lost_its_data_is_told_of_the_new_end(world: World) -> None:
    fetch(world, world.pass_(left=10, ends=20))
    look(world, prolonged=((90, 900_000),))
    assert world.room.sessions.live_sessions(world.unix_time()) == [SessionChange("restore", 90, 900_000)]
