"""The join rate of a neighbourhood, delayed newcomers, and the detection of an unlisted proxy."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.edge_world import BUSY, PAGE, World, get
from support.http_reader import Message
from waitroom.edge.rooms.joins import ARRIVAL_SECONDS, MAX_DEFERRED, MAX_PEERS, JoinLimiter, ProxyDetector

VISITOR = "203.0.113.9"


def cookie(got: Message, name: bytes) -> bytes | None:
    """The value that an answer sets a cookie to."""
    prefix = b"waitroom_%b_shop=" % name
    return next(
        (value[len(prefix) :].partition(b";")[0] for value in got.all(b"Set-Cookie") if value.startswith(prefix)), None
    )


# The limiter.


@given(st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=300))
def test_no_window_gets_more_places_than_the_rate_and_one_burst(steps: list[tuple[float, bool]]) -> None:
    limiter, now, joined = JoinLimiter(2.0, 1), 0.0, []
    for step, returning in steps:
        now += step
        wait = limiter.acquire("a", returning=returning, now=now)
        assert wait == 0 or 1 <= wait <= 30
        if not wait:
            joined.append(now)
    for i, first in enumerate(joined):
        assert all(count <= 20 + 2.0 * (at - first) + 1e-6 for count, at in enumerate(joined[i:], 1))


def test_a_returning_visitor_goes_before_newcomers() -> None:
    limiter = JoinLimiter(1.0, 1)
    for _ in range(10):
        assert limiter.acquire("a", returning=False, now=0.0) == 0
    waits = [limiter.acquire("a", returning=False, now=0.0) for _ in range(3)]
    assert all(waits)
    assert limiter.acquire("a", returning=False, now=1.0) > 0, "a newcomer must not take what the others came for"
    assert limiter.acquire("a", returning=True, now=1.0) == 0
    assert limiter.acquire("a", returning=True, now=1.0) > 0
    assert limiter.acquire("b", returning=False, now=1.0) == 0, "another neighbourhood has tokens of its own"


@given(st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=300))
def test_the_shortcut_for_neighbourhoods_without_delays_decides_alike(steps: list[tuple[float, bool]]) -> None:
    limiter, other, now = JoinLimiter(2.0, 1), JoinLimiter(2.0, 1), 0.0
    for step, returning in steps:
        now += step
        wait = limiter.acquire("a", returning=returning, now=now)
        shortcut = other.acquire_unless_deferred("a", now)
        assert wait == (0.0 if shortcut else other.acquire("a", returning=returning, now=now))


def test_visitors_who_do_not_return_do_not_block_others_for_long() -> None:
    limiter = JoinLimiter(1.0, 1)
    for _ in range(500):
        limiter.acquire("a", returning=False, now=0.0)
    assert limiter.acquire("a", returning=False, now=ARRIVAL_SECONDS + 1.0) == 0


def test_workers_share_the_rate() -> None:
    limiters = [JoinLimiter(50.0, 4) for _ in range(4)]
    joined = sum(not one.acquire("a", returning=True, now=0.0) for one in limiters for _ in range(1000))
    assert joined == 500


def test_many_neighbourhoods_use_bounded_memory() -> None:
    limiter = JoinLimiter(0.01, 1)
    for number in range(2 * MAX_DEFERRED):
        for _ in range(2):
            limiter.acquire(str(number), returning=False, now=0.0)
    assert len(limiter._deferred) <= MAX_DEFERRED


# Visitors.


@pytest.mark.parametrize("line", [PAGE, b"Accept: application/json"])
def test_a_flood_from_one_address_is_delayed(line: bytes) -> None:
    is_page = line is PAGE
    ask = get(b"/a", PAGE) if is_page else get(b"/.waitroom/join", line, method=b"POST")
    with World(join_rate=1.0) as world:
        for _ in range(10):
            assert cookie(world.ask(ask), b"ticket")
        got = world.ask(ask)
        assert got.status == (503 if is_page else 429)
        assert got[b"Content-Type"].startswith(b"text/html") is is_page
        assert got[b"Cache-Control"] == b"no-store"
        assert 1 <= int(got[b"Retry-After"]) <= 38
        assert cookie(got, b"ticket") is None
        assert (b'data-state="busy"' in got.body) is is_page
        if not is_page:
            assert json.loads(got.body)["state"] == "unknown"
        assert len(world.store.named("join")) == 10
        assert world.room.metrics.requests["join_limited"] == 1
        # Another address joins, and so does this one with the signed time of arrival as soon as there is a token.
        assert cookie(world.ask(ask, wire=world.client("203.0.113.10")), b"ticket")
        arrival = cookie(got, b"arrival") or b""
        assert arrival == got[b"Waitroom-Arrival"]
        world.pass_time(1.0)
        assert cookie(world.ask(ask), b"ticket") is None, "a newcomer waits behind those who were sent back"
        for back in (b"Cookie: waitroom_arrival_shop=" + arrival, b"Waitroom-Arrival: " + arrival):
            assert cookie(world.ask(ask.replace(b"\r\n\r\n", b"\r\n" + back + b"\r\n\r\n")), b"ticket")
            world.pass_time(1.0)


def test_visitors_who_return_too_early_keep_their_arrival_time() -> None:
    with World(join_rate=0.1) as world:
        assert cookie(world.ask(get(b"/a", PAGE)), b"ticket")
        first = world.ask(get(b"/a", PAGE))[b"Waitroom-Arrival"]
        world.pass_time(2.0)
        again = world.ask(get(b"/a", PAGE, b"Waitroom-Arrival: " + first))
        assert again[b"Waitroom-Arrival"] == first
        for made_up in (b"1.x", first[:-1], b"", first + b"0"):
            other = world.ask(get(b"/a", PAGE, b"Waitroom-Arrival: " + made_up))
            assert other[b"Waitroom-Arrival"] != first


def test_an_old_arrival_time_is_ignored() -> None:
    with World(join_rate=0.1) as world:
        world.ask(get(b"/a", PAGE))
        first = world.ask(get(b"/a", PAGE))[b"Waitroom-Arrival"]
        world.pass_time(float(ARRIVAL_SECONDS))
        world.ask(get(b"/a", PAGE, wire := b""))
        got = world.ask(get(b"/a", PAGE, b"Waitroom-Arrival: " + first, wire))
        assert got.status == 503
        assert got[b"Waitroom-Arrival"] != first


def test_holders_of_a_ticket_or_a_pass_are_not_limited() -> None:
    with World(join_rate=0.1) as world:
        world.ask(get(b"/a", PAGE))
        for _ in range(5):
            got = world.ask(get(b"/a", PAGE, b"Cookie: waitroom_ticket_shop=" + world.ticket()))
            assert b'data-state="waiting"' in got.body


def test_the_address_behind_a_trusted_proxy_counts() -> None:
    with World(join_rate=0.1, trusted=["10.0.0.1"]) as world:
        proxy = "10.0.0.1"
        for address in (b"198.51.100.7", b"2001:db8::1"):
            line = b"X-Forwarded-For: " + address
            assert cookie(world.ask(get(b"/a", PAGE, line), wire=world.client(proxy)), b"ticket")
            assert cookie(world.ask(get(b"/a", PAGE, line), wire=world.client(proxy)), b"ticket") is None
        same_network = b"X-Forwarded-For: 2001:db8::ffff"
        assert cookie(world.ask(get(b"/a", PAGE, same_network), wire=world.client(proxy)), b"ticket") is None


# A proxy that trusted_proxies does not name.


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "fd00::1"])
def test_a_crowd_behind_an_unlisted_proxy_is_served_and_the_setting_is_logged(address: str) -> None:
    with World(join_rate=1.0, view=replace(BUSY)) as world:
        crowd = [world.ask(get(b"/a", PAGE), wire=world.client(address)) for _ in range(150)]
        refused = sum(cookie(got, b"ticket") is None for got in crowd)
        assert refused <= 90, "only until there are joins enough to tell"
        assert cookie(crowd[-1], b"ticket")
        (entry,) = (entry for entry in world.logs if entry.get("setting") == "trusted_proxies")
        assert entry["address"] == address
        assert world.room.metrics.missing_proxy == address


def test_a_public_address_with_forwarding_headers_is_not_exempt() -> None:
    with World(join_rate=1.0) as world:
        line = b"X-Forwarded-For: 198.51.100.7"
        crowd = [world.ask(get(b"/a", PAGE, line), wire=world.client(VISITOR)) for _ in range(200)]
        assert sum(cookie(got, b"ticket") is not None for got in crowd) == 10
        assert world.room.metrics.missing_proxy == VISITOR, "it may be a proxy all the same"


def test_ordinary_crowds_do_not_look_like_a_proxy() -> None:
    detector = ProxyDetector(1)
    for number in range(1000):
        assert not detector.observe(f"203.0.113.{number % 250}", forwards=False, now=number / 100)
        if number % 3 == 0:
            detector.observe("10.0.0.9", forwards=False, now=number / 100)
    assert detector.found == ""


def test_a_proxy_is_cleared_once_it_is_one_of_many_peers() -> None:
    detector = ProxyDetector(1)
    for _ in range(200):
        detector.observe("10.0.0.9", forwards=True, now=0.0)
    assert detector.found == "10.0.0.9"
    for number in range(200):
        detector.observe_trusted(61.0 + number / 100)
    detector.observe_trusted(130.0)
    assert detector.found == ""
    assert not detector.observe("10.0.0.9", forwards=True, now=130.0)


def test_many_peers_use_bounded_memory() -> None:
    detector = ProxyDetector(1)
    for number in range(2 * MAX_PEERS):
        detector.observe(f"10.{number // 250}.{number % 250}.1", forwards=False, now=0.0)
    assert len(detector._by_peer) <= MAX_PEERS


def test_retry_times_are_whole_seconds() -> None:
    assert math.ceil(JoinLimiter(3.0, 7).acquire("a", returning=False, now=0.0)) in range(31)
