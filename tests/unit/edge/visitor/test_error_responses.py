"""Every error that a visitor can meet, in every language, as a page and as JSON, with the id of its request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from support.asyncio_fakes import Wire
from support.edge_world import LIMITS, World, get, room_settings, sent
from support.http_reader import Message, read_responses
from waitroom.edge.http.message import MAX_TARGET_BYTES
from waitroom.edge.pages.messages import ERROR_MESSAGES
from waitroom.edge.rooms.room import Room

LANGUAGES = ("de", "en", "es", "fr", "hi", "id")
SETTINGS = room_settings()
CAUSE = "refused by 10.9.8.7"


def not_a_request(world: World, *lines: bytes) -> Wire:
    wire = world.client()
    wire.send(get(b"/", b"Host: another.example", *lines))
    return wire


def broken_chunks(world: World, *lines: bytes) -> Wire:
    wire = sent(world, b"Transfer-Encoding: chunked", *lines, method=b"POST")
    wire.send(b"none\r\n")
    return wire


def nothing_there(world: World, *lines: bytes) -> Wire:
    wire = world.client()
    wire.send(get(b"/.waitroom/nothing", *lines))
    return wire


def slow_head(world: World, *lines: bytes) -> Wire:
    wire = world.client()
    wire.send(get(b"/", *lines)[:-2] + b"X-More: ")
    world.pass_time(LIMITS.head_seconds)
    return wire


def slow_body(world: World, *lines: bytes) -> Wire:
    wire = sent(world, b"Content-Length: 5", *lines, method=b"POST")
    world.pass_time(LIMITS.buffer_seconds)
    world.pass_time(LIMITS.body_seconds)
    return wire


def long_target(world: World, *lines: bytes) -> Wire:
    wire = world.client()
    wire.send(get(b"/" + b"a" * MAX_TARGET_BYTES, *lines))
    return wire


def another_expectation(world: World, *lines: bytes) -> Wire:
    wire = world.client()
    wire.send(get(b"/", b"Expect: miracles", *lines))
    return wire


def nobodys_host(world: World, *lines: bytes) -> Wire:
    wire = world.client()
    wire.send(get(b"/", *lines).replace(b"Host: shop.example", b"Host: elsewhere.example"))
    return wire


def long_head(world: World, *lines: bytes) -> Wire:
    wire = world.client()
    wire.send(get(b"/", *lines, b"Cookie: " + b"c" * LIMITS.head_bytes))
    return wire


def many_lines(world: World, *lines: bytes) -> Wire:
    wire = world.client()
    wire.send(get(b"/", *lines, *[b"X-A: 1"] * 200))
    return wire


def our_mistake(world: World, *lines: bytes) -> Wire:
    class Broken(dict[str, Room]):
        def __getitem__(self, name: str) -> Room:
            raise RuntimeError(CAUSE)

    world.edge.rooms = Broken()
    wire = world.client()
    wire.send(get(b"/", *lines))
    return wire


def shop_gone(world: World, *lines: bytes) -> Wire:
    world.shop.refuses = ConnectionRefusedError(CAUSE)
    return sent(world, *lines)


def shop_says_rubbish(world: World, *lines: bytes) -> Wire:
    wire = sent(world, *lines)
    world.shop.wire.send(b"Traceback of 10.9.8.7\r\n\r\n")
    return wire


def too_many(world: World, *lines: bytes) -> Wire:
    sent(world)
    wire = sent(world, *lines)
    world.pass_time(SETTINGS.upstream_wait_seconds)
    return wire


def shop_full(world: World, *lines: bytes) -> Wire:
    world.client().send(get(b"/", world.inside(91)))
    wire = sent(world, *lines)
    world.pass_time(SETTINGS.upstream_wait_seconds)
    return wire


def shop_silent(world: World, *lines: bytes) -> Wire:
    wire = sent(world, *lines)
    world.pass_time(SETTINGS.upstream_first_byte_seconds)
    return wire


Happens = Callable[..., Wire]
ERRORS: dict[Happens, int] = {
    not_a_request: 400,
    broken_chunks: 400,
    nothing_there: 404,
    slow_head: 408,
    slow_body: 408,
    long_target: 414,
    another_expectation: 417,
    nobodys_host: 421,
    too_many: 429,
    long_head: 431,
    many_lines: 431,
    our_mistake: 500,
    shop_gone: 502,
    shop_says_rubbish: 502,
    shop_full: 503,
    shop_silent: 504,
}
LOGGED = (our_mistake, shop_gone, shop_says_rubbish, shop_full, shop_silent)
NO_REQUESTS = (not_a_request, long_target, another_expectation, many_lines)
AT_THE_SHOP = (broken_chunks, slow_body, shop_says_rubbish, shop_silent)

every_error = pytest.mark.parametrize(
    ("happens", "status"), [pytest.param(*row, id=row[0].__name__) for row in ERRORS.items()]
)


def answered(world: World, happens: Happens, *lines: bytes) -> Message:
    """The error's answer, which gives nothing away."""
    wire = happens(world, *lines)
    (answer,) = read_responses(wire.got, [b"GET"], closed=wire.lost or wire.got_eof)
    assert answer[b"Cache-Control"] == b"no-store"
    for word in (b"Traceback", b"10.9.8.7", b"RuntimeError", b"shop.internal", b"miracles"):
        assert word not in answer.body
    return answer


def world_of_few() -> World:
    return World(hosts=("shop.example",), upstream_max_connections=1, session_requests_in_flight=1)


@every_error
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_browser_gets_a_page_in_its_language(happens: Happens, status: int, language: str) -> None:
    with world_of_few() as world:
        lines = (b"Accept: text/html,*/*;q=0.8", b"Accept-Language: %b-XX, tlh;q=0.5" % language.encode())
        answer = answered(world, happens, *lines)

        assert answer.status == status
        assert answer[b"Content-Type"] == b"text/html; charset=utf-8"
        assert answer[b"Vary"] == b"Accept-Language"
        assert b"Content-Security-Policy" in answer
        id_ = re.findall(rb"<code>([0-9a-f]+)</code>", answer.body)[0].decode()
        assert answer.body == world.edge._responder._pages.error_page(status, language, id_)


@every_error
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_gets_json_in_its_language(happens: Happens, status: int, language: str) -> None:
    with world_of_few() as world:
        lines = (b"Accept: application/json", b"Accept-Language: %b" % language.encode())
        answer = answered(world, happens, *lines)

        assert answer.status == status
        assert answer[b"Content-Type"] == b"application/json"
        told = json.loads(answer.body)
        assert told.keys() == {"error", "status", "request_id"}
        assert told["status"] == status
        assert told["error"] == world.edge._responder._pages.error_text(status, language)


@every_error
def test_the_log_and_the_shop_get_the_same_request_id(happens: Happens, status: int) -> None:
    with world_of_few() as world:
        id_ = json.loads(answered(world, happens).body)["request_id"]

        assert re.fullmatch("[0-9a-f]{16}", id_)
        (entry,) = (entry for entry in world.logs if entry.get("request_id") == id_)
        # What anybody can bring about is told to those who look for it, and fills no logs.
        assert (entry["log_level"] in ("warning", "error")) == (happens in LOGGED)
        if happens not in LOGGED:
            assert entry["log_level"] == "debug"
            assert entry["status"] == status
            assert bool(entry["cause"]) == (happens in NO_REQUESTS)
        assert entry["address"] == "203.0.113.9"
        at_shop = re.findall(rb"X-Request-Id: ([0-9a-f]+)", world.shop.got)
        assert (id_.encode() in at_shop) == (happens in AT_THE_SHOP)


def test_every_message_belongs_to_an_error() -> None:
    assert ERROR_MESSAGES.keys() <= set(ERRORS.values())


@pytest.mark.parametrize("happens", [not_a_request, long_head, long_target])
@pytest.mark.parametrize(
    "lines",
    [
        (b"Sec-Fetch-Mode: cors", b"Accept: text/html"),
        (b"X-Moz: prefetch", b"Accept: text/html"),
        (b"Sec-Purpose: prefetch", b"Accept: text/html"),
        (b"Accept: */*",),
        (b"X-Accept: text/html",),
        (),
    ],
)
def test_a_script_gets_no_page_for_a_malformed_request(happens: Happens, lines: tuple[bytes, ...]) -> None:
    with world_of_few() as world:
        assert answered(world, happens, *lines)[b"Content-Type"] == b"application/json"


@pytest.mark.parametrize(
    "head",
    [b"\xff\xfe\x00\r\n\r\n", b"\r\n: \r\n:\r\n\r\n", b"GET\r\naccept:\r\nACCEPT: text/html\r\n\r\n", b"x" * 70_000],
)
def test_malformed_requests_are_answered_in_english(head: bytes) -> None:
    with world_of_few() as world:
        wire = world.client()
        wire.send(head)
        (answer,) = read_responses(wire.got, [b"GET"], closed=True)
        assert json.loads(answer.body)["error"] == world.edge._responder._pages.error_text(answer.status, "en")
