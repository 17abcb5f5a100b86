"""Shared passes: their detection, and binding to a browser or a network."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from support.edge_world import BUSY, OK, QUIET, World, answer, get
from support.http_reader import Message
from waitroom.control.monitoring.hints import hints
from waitroom.edge.rooms.session import Session
from waitroom.edge.rooms.sessions import MANY_NETWORKS, MAX_NETWORKS, NETWORK_SECONDS, Sessions
from waitroom.metrics.upstream_window import Observations
from waitroom.settings import RoomSettings
from waitroom.tokens import Tokens

PRIVATE_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: private\r\n\r\nok"
FIREFOX, CHROME = b"User-Agent: Firefox/140", b"User-Agent: Chrome/150"


def ask(world: World, pass_: bytes, *lines: bytes, address: str = "203.0.113.9", reply: bytes = OK) -> Message:
    """The answer to a request with a pass; of the shop, if it gets there."""
    wire = world.client(address)
    wire.send(get(b"/x", b"Cookie: waitroom_pass_shop=" + pass_, *lines))
    if not wire.got:
        world.shop.wire.send(reply)
    return answer(wire)


def renewed(message: Message) -> bytes:
    (cookie,) = (line for line in message.all(b"Set-Cookie") if line.startswith(b"waitroom_pass_shop="))
    return cookie.partition(b";")[0].partition(b"=")[2]


# Seen from many networks.


def seen(world: World) -> Sequence[int]:
    world.pass_time(0.5)
    return list(world.room.metrics.shared_sessions)


def test_a_session_seen_from_many_networks_is_reported_for_a_while():
    with World() as world:
        pass_ = world.pass_()
        for number in range(MANY_NETWORKS):
            ask(world, pass_, address=f"198.51.100.{number}")
        ask(world, pass_, address="198.51.100.0")
        assert seen(world) == []
        ask(world, pass_, address="198.51.100.99")
        assert seen(world) == [90]
        world.pass_time(NETWORK_SECONDS)
        assert seen(world) == []
        ask(world, pass_, address="198.51.100.99")
        assert seen(world) == []


def test_old_networks_do_not_count():
    with World() as world:
        pass_ = world.pass_()
        ask(world, pass_, address="198.51.100.99")
        ask(world, pass_, address="198.51.100.0")
        ask(world, pass_, address="198.51.100.99")
        world.pass_time(60)
        for number in range(MANY_NETWORKS):
            ask(world, pass_, address=f"198.51.100.{number}")
        assert seen(world) == [90]
        world.pass_time(NETWORK_SECONDS - 60)
        assert seen(world) == []


@pytest.mark.interpreted
def test_requests_from_an_unchanged_source_skip_the_network_check(monkeypatch):
    looked: list[str] = []
    record_network = Sessions.record_network

    def counting(sessions: Sessions, session: Session, network: str, now: float) -> None:
        looked.append(network)
        record_network(sessions, session, network, now)

    monkeypatch.setattr(Sessions, "record_network", counting)
    with World() as world:
        for address in ("198.51.100.1", "198.51.100.1", "198.51.100.1", "198.51.100.2"):
            ask(world, world.pass_(), address=address)
    assert looked == ["198.51.100.1", "198.51.100.2"]


def test_addresses_of_one_ipv6_network_count_as_one():
    with World() as world:
        for number in range(20):
            ask(world, world.pass_(), address=f"2001:db8::{number:x}")
        assert seen(world) == []
        for number in range(MANY_NETWORKS):
            ask(world, world.pass_(), address=f"2001:db8:{number + 1:x}::1")
        assert seen(world) == [90]


def test_behind_a_trusted_proxy_the_forwarded_addresses_count():
    with World(trusted=("10.0.0.0/8",)) as world:
        for number in range(20):
            ask(world, world.pass_(), b"X-Forwarded-For: 198.51.100.1", address=f"10.0.0.{number}")
        assert seen(world) == []
        for number in range(MANY_NETWORKS):
            line = b"X-Forwarded-For: 198.51.100.%d" if number % 2 else b"Forwarded: for=198.51.100.%d"
            ask(world, world.pass_(), line % (number + 2), address="10.0.0.1")
        assert seen(world) == [90]


def test_the_networks_of_a_session_are_bounded():
    sessions = Sessions(Tokens(["a secret of sixteen characters"], "shop"))
    session = Session(1, 0, 0, 0)
    sessions.record_network(session, "a", 0)
    assert session.networks is None, "most visitors stay in one network"
    for number in range(1000):
        sessions.record_network(session, f"n{number}", number)
    assert len(session.networks) == MAX_NETWORKS
    assert sessions.find_shared(1000) == [1]


def test_an_evicted_session_is_not_reported():
    with World() as world:
        sessions = world.room.sessions
        for number in range(9):
            ask(world, world.pass_(), address=f"198.51.100.{number}")
        session = sessions.find(world.pass_())
        session.passes = 0
        sessions._evict_unused(session)
        assert seen(world) == []


@pytest.mark.parametrize(
    ("sessions", "bind", "hint"),
    [
        ((), "none", None),
        (
            (90,),
            "none",
            "1 session is in use from many networks (5a): its pass may be shared or sold. End it by number, and "
            "bind_pass ties new passes to one browser or network.",
        ),
        (
            (1, 2, 3, 255),
            "agent",
            "4 sessions are in use from many networks (1, 2, 3, …): their passes may be shared or sold. End them by "
            "number.",
        ),
    ],
)
def test_the_hint_says_what_it_is_and_what_to_do(sessions, bind, hint):
    settings = RoomSettings(name="shop", upstream="http://a:1", bind_pass=bind)
    assert hints(settings, Observations(shared_sessions=frozenset(sessions)), 0.0) == ([] if hint is None else [hint])


# Bound.


def newcomer_s_pass(world: World, *lines: bytes, address: str = "203.0.113.9") -> bytes:
    world.view = QUIET
    world.store.admits = 1
    wire = world.client(address)
    wire.send(get(b"/", b"Accept: text/html", *lines))
    world.shop.wire.send(OK)
    world.view = BUSY
    return renewed(answer(wire))


def test_by_default_a_pass_is_not_bound():
    with World() as world:
        value = newcomer_s_pass(world, FIREFOX)
        assert world.tokens.read_pass(value).binding == 0
        assert ask(world, value, CHROME, address="198.51.100.7").status == 200


def test_a_pass_is_bound_to_the_browser():
    with World(bind_pass="agent") as world:
        value = newcomer_s_pass(world, FIREFOX)
        assert ask(world, value, FIREFOX, address="198.51.100.7").status == 200
        assert ask(world, value, CHROME).status == 503
        assert ask(world, value).status == 503


def test_a_pass_is_bound_to_the_network():
    with World(bind_pass="network") as world:
        value = newcomer_s_pass(world, FIREFOX, address="2001:db8::1")
        assert ask(world, value, CHROME, address="2001:db8::2").status == 200
        assert ask(world, value, FIREFOX, address="2001:db8:1::1").status == 503
        assert ask(world, value, FIREFOX).status == 503


def test_behind_a_trusted_proxy_a_pass_is_bound_to_the_forwarded_network():
    with World(bind_pass="network", trusted=("10.0.0.1",)) as world:
        here, there = b"X-Forwarded-For: 198.51.100.7", b"X-Forwarded-For: 198.51.100.8"
        value = newcomer_s_pass(world, here, address="10.0.0.1")
        assert ask(world, value, here, address="10.0.0.1").status == 200
        assert ask(world, value, there, address="10.0.0.1").status == 503


def test_an_unbound_pass_is_valid_until_it_is_renewed():
    with World(bind_pass="agent") as world:
        old = world.pass_(left=100)
        assert ask(world, old, CHROME).status == 200
        new = renewed(ask(world, old, FIREFOX, reply=PRIVATE_OK))
        assert world.tokens.read_pass(new).binding
        assert ask(world, new, CHROME).status == 503
        assert ask(world, old, CHROME).status == 503, "from then on the session is the browser's"
        assert ask(world, old, FIREFOX).status == 200, "whose requests of the moment still have the old one"


def test_a_pass_bound_by_an_earlier_setting_is_valid_until_it_is_renewed():
    with World(bind_pass="agent") as world:
        value = newcomer_s_pass(world, FIREFOX)
    with World(bind_pass="network") as world:
        assert ask(world, value, CHROME, address="198.51.100.7").status == 200
    with World() as world:
        assert ask(world, value, CHROME).status == 200


def test_claimed_and_resumed_passes_are_bound():
    with World(bind_pass="agent") as world:
        wire = world.client()
        wire.send(get(b"/x", b"Cookie: waitroom_pass_shop=" + world.pass_(left=-1), FIREFOX))
        world.shop.wire.send(OK)
        assert world.tokens.read_pass(renewed(answer(wire))).binding
        line = b"Cookie: waitroom_pass_shop=" + world.pass_(91)
        got = world.ask(get(b"/.waitroom/claim", line, FIREFOX, method=b"POST", body=b""))
        assert world.tokens.read_pass(got[b"Waitroom-Pass"]).binding
