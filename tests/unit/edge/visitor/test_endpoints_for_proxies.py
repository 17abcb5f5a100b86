"""The endpoints for other proxies: forward-auth, and the waiting page at its own address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from support.edge_world import PAGE, World, room_settings
from support.endpoint_calls import call, cookie, inside, ticket
from support.http_reader import Message
from waitroom.queue.store import Visited
from waitroom.settings import BypassRule


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# check


def check(world: World, *lines: bytes, query: bytes = b"") -> Message:
    return call(world, "check", *lines, query=query)


def test_check_with_a_pass(world):
    got = check(world, world.inside(), b"X-Forwarded-Uri: /sale")
    assert (got.status, got.body) == (204, b"")
    assert (got[b"Waitroom-Room"], got[b"Waitroom-Session"], got[b"Cache-Control"]) == (b"shop", b"5a", b"no-store")
    assert world.store.calls == []
    world.loop.wait(world.room.flush())
    assert [change.operation for change in world.store.named("change_sessions")[0]] == ["keep"], "it is activity"


@pytest.mark.parametrize("lines", [(), (b"Waitroom-Ticket: x",)])
def test_check_without_a_pass(world, lines):
    got = check(world, *lines, b"X-Forwarded-Uri: /sale?a=b&c=\xc3\xa4 //x")
    assert got.status == 401
    location = got[b"Location"]
    assert location.startswith(b"/.waitroom/wait?room=shop&to=")
    assert unquote(location.partition(b"&to=")[2].decode()) == "/sale?a=b&c=ä //x"
    assert json.loads(got.body) == {"waiting_page": location.decode()}
    assert got[b"Cache-Control"] == b"no-store"
    assert world.store.calls == []


def test_check_with_an_expired_pass(world):
    assert check(world, inside(world, left=0)).status == 401


def test_check_uses_the_host_and_path_of_the_original_request():
    rooms = (
        room_settings("a", hosts=("a.example",), paths=("/sale",), bypass=(BypassRule(paths=("/sale/hook",)),)),
        room_settings("b", hosts=("b.example",)),
    )
    with World(*rooms) as world:
        asked = [
            (b"a.example", b"/sale/x", 401, b"a"),
            (b"a.example", b"/other", 204, None),
            (b"a.example", b"/other/../sale", 401, b"a"),
            (b"b.example", b"/other", 401, b"b"),
            (b"c.example", b"/", 421, None),
        ]
        for host, uri, status, name in asked:
            got = check(world, b"X-Forwarded-Host: " + host, b"X-Forwarded-Uri: " + uri)
            assert got.status == status
            if name:
                assert b"?room=%b&" % name in got[b"Location"]


def test_check_of_a_named_room(world):
    assert b"?room=shop&to=/" in check(world, query=b"?room=shop")[b"Location"]
    got = check(world, b"X-Original-URI: /a", query=b"?room=shop")
    assert got[b"Location"].endswith(b"&to=/a")


# wait


def wait(world: World, to: bytes, *lines: bytes) -> Message:
    return call(world, "wait", PAGE, *lines, query=b"?room=shop&to=" + to)


def test_wait_shows_the_waiting_page(world):
    got = wait(world, b"/sale")
    assert got.status == 503
    assert got[b"Content-Type"].startswith(b"text/html")
    assert cookie(got, b"waitroom_ticket_shop")


def test_wait_redirects_an_admitted_visitor(world):
    got = wait(world, b"/sale%3Fa=b%26c", world.inside())
    assert (got.status, got[b"Location"], got[b"Cache-Control"]) == (303, b"/sale?a=b&c", b"no-store")


def test_wait_redirects_a_called_visitor(world):
    world.store.fates[99] = Visited("admitted", 14_400_000)
    got = wait(world, b"/sale", ticket(world, 99))
    assert (got.status, got[b"Location"]) == (303, b"/sale")
    assert cookie(got, b"waitroom_pass_shop")
    assert cookie(got, b"waitroom_ticket_shop") == b""


@pytest.mark.parametrize(
    "to",
    [
        *(b"https://evil.example/", b"//evil.example", b"/\\evil.example", b"\\\\evil.example", b"\\/evil.example"),
        *(
            b"/%09/evil.example",
            b"/%0a/evil.example",
            b"%20//evil.example",
            b"javascript:alert(1)",
            b"evil",
            b"?x",
            b"",
        ),
        *(
            b"/%0d%0aSet-Cookie:%20a=b",
            b"%2f%2fevil.example",
            b"%2F%5Cevil.example",
            b"/%00",
            b"/%E2%80%A8",
            b"data:,x",
        ),
        *(b"%09/x", b"http:evil.example", b"/%c2%85/evil.example"),
    ],
)
def test_wait_never_redirects_to_another_site(world, to):
    got = wait(world, to, world.inside())
    assert (got.status, got[b"Location"]) == (303, b"/")
    assert not any(value.startswith(b"a=b") for value in got.all(b"Set-Cookie"))


@pytest.mark.parametrize(
    ("to", "location"),
    [
        (b"/a%2520b", b"/a%20b"),
        (b"/a%20b", b"/a%20b"),
        (b"/%C3%A4", b"/%C3%A4"),
        (b"/a%5Cb", b"/a%5Cb"),
        (b"/a%23b", b"/a%23b"),
        (b"/a%22%3C%3E", b"/a%22%3C%3E"),
        (b"/a//b", b"/a//b"),
    ],
)
def test_wait_redirects_to_paths_unchanged(world, to, location):
    assert wait(world, to, world.inside())[b"Location"] == location
