"""The waiting page at its own address, to which other proxies send visitors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.edge_world import PAGE, World
from support.endpoint_calls import call, cookie, ticket
from support.http_reader import Message
from waitroom.queue.store import Visited


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


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
