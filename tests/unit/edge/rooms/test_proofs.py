"""Proofs for the shop: what they say, how often they are made, and which requests carry them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jwt
import pytest

from support.edge_world import BUSY, OK, PAGE, QUIET, WALL, World, at_shop, get, room_settings, sent, warm
from support.http_reader import Message, read_requests
from waitroom.edge.rooms.proofs import Proofs
from waitroom.edge.rooms.session import Session
from waitroom.settings import BypassRule

SECRET = "a-secret-of-the-shop-0123456789-abcdefgh"


def claims(header: bytes) -> dict[str, Any]:
    name, _, value = header.removesuffix(b"\r\n").partition(b": ")
    assert name == b"Waitroom-Proof"
    options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}  # the time is that of the test
    return jwt.decode(value, SECRET, algorithms=["HS256"], options=options)


def proof(message: Message) -> dict[str, Any]:
    (value,) = message.all(b"Waitroom-Proof")
    return claims(b"Waitroom-Proof: " + value)


def session(number: int = 90) -> Session:
    return Session(number, WALL + 900, WALL + 14_400, WALL + 14_400)


def test_a_proof_names_room_session_and_way() -> None:
    proofs = Proofs(SECRET, "sale")
    header = proofs.header(session(0x1F4A), "session", WALL + 0.9)
    assert header.endswith(b"\r\n")
    assert claims(header) == {
        "iss": "waitroom",
        "aud": "sale",
        "sub": "1f4a",
        "via": "session",
        "iat": WALL,
        "exp": WALL + 120,
    }
    head = jwt.get_unverified_header(header.split()[1])
    assert head == {"alg": "HS256", "typ": "JWT"}
    assert claims(proofs.header(None, "bypass", WALL)) == {
        "iss": "waitroom",
        "aud": "sale",
        "via": "bypass",
        "iat": WALL,
        "exp": WALL + 120,
    }


@pytest.mark.parametrize("visitor", [session(), None])
def test_a_proof_is_made_once_a_minute(visitor: Session | None) -> None:
    proofs = Proofs(SECRET, "sale")
    first = proofs.header(visitor, "session", WALL)
    assert proofs.header(visitor, "session", WALL + 59.9) is first
    second = proofs.header(visitor, "session", WALL + 60)
    assert claims(second)["iat"] == WALL + 60
    assert proofs.header(visitor, "session", WALL + 119) is second
    # A clock that was set back: a proof of the future would be valid for too long.
    assert claims(proofs.header(visitor, "session", WALL + 59))["iat"] == WALL + 59


def test_sessions_and_ways_have_proofs_of_their_own() -> None:
    proofs = Proofs(SECRET, "sale")
    one, other = session(1), session(2)
    assert claims(proofs.header(one, "session", WALL))["sub"] == "1"
    assert claims(proofs.header(other, "session", WALL))["sub"] == "2"
    assert [claims(proofs.header(None, via, WALL))["via"] for via in ("bypass", "health")] == ["bypass", "health"]
    assert claims(proofs.header(one, "session", WALL))["sub"] == "1"
    assert "Proof" not in repr(one)  # it may be part of an error's text


def test_without_a_secret_there_is_no_proof() -> None:
    proofs = Proofs(None, "sale")
    visitor = session()
    assert not proofs.enabled
    assert proofs.header(visitor, "session", WALL) == proofs.header(None, "health", WALL) == b""
    assert visitor.proof == b""
    with World() as world:
        sent(world)
        assert b"Waitroom-Proof" not in at_shop(world)


def test_an_admitted_visitors_requests_share_a_proof() -> None:
    with World(shop_secret=SECRET) as world:
        sent(world)
        first = at_shop(world)
        assert proof(first) == {
            "iss": "waitroom",
            "aud": "shop",
            "sub": "5a",
            "via": "session",
            "iat": int(world.unix_time()),
            "exp": int(world.unix_time()) + 120,
        }
        assert first[b"Waitroom-Session"] == b"5a"
        world.shop.wire.send(OK)
        world.shop.wire.clear()
        sent(world)
        assert at_shop(world)[b"Waitroom-Proof"] == first[b"Waitroom-Proof"]


RULE = BypassRule(paths=("/hooks/",))
PASSTHROUGH = replace(BUSY, method="passthrough")


@pytest.mark.parametrize(
    ("view", "request_", "via"),
    [
        (BUSY, get(b"/hooks/pay", method=b"POST", body=b"paid"), "bypass"),
        (BUSY, get(b"/about", PAGE), "uncovered"),
        (QUIET, get(b"/sale/a.png"), "without_pass"),
        (PASSTHROUGH, get(b"/sale/a.png"), "without_pass"),
        (PASSTHROUGH, get(b"/sale/order", method=b"POST", body=b"x"), "without_pass"),
        (QUIET, get(b"/sale/", b"Origin: https://a.example", b"Access-Control-Request-Method: PUT", method=b"OPTIONS"),
         "preflight"),
    ],
)  # fmt: skip
def test_requests_without_a_session_say_how_they_come(view: Any, request_: bytes, via: str) -> None:
    with World(view=view, shop_secret=SECRET, paths=("/sale/", "/hooks/"), bypass=(RULE,)) as world:
        world.client().send(request_)
        got = at_shop(world)
        assert proof(got)["via"] == via
        assert "sub" not in proof(got)
        assert b"Waitroom-Session" not in got
        world.shop.wire.send(OK)


def test_a_websocket_handshake_carries_a_proof() -> None:
    with World(shop_secret=SECRET) as world:
        sent(world, b"Connection: Upgrade", b"Upgrade: websocket")
        assert proof(at_shop(world))["via"] == "session"


FORGED = jwt.encode({"iss": "waitroom", "aud": "shop"}, SECRET, algorithm="HS256").encode()


@pytest.mark.parametrize("name", [b"Waitroom-Proof", b"waitroom-proof", b"Waitroom_Proof", b"Waitroom.Proof"])
@pytest.mark.parametrize("secret", [SECRET, None])
def test_no_clients_proof_reaches_the_shop(name: bytes, secret: str | None) -> None:
    with World(shop_secret=secret, trusted=("203.0.113.9",)) as world:
        for lines in ((name + b": " + FORGED,), (name + b": " + FORGED, b"Connection: " + name)):
            sent(world, *lines)
            assert FORGED not in world.shop.wire.got
            assert world.shop.wire.got.lower().count(b"proof:") == (secret is not None)
            world.shop.wire.send(OK)
            world.shop.wire.clear()


def test_a_request_that_has_waited_gets_a_fresh_proof() -> None:
    with World(shop_secret=SECRET, upstream_max_connections=1, upstream_wait_seconds=300.0) as world:
        sent(world)
        shop = world.shop.wire
        shop.clear()
        waiting = world.client()
        waiting.send(get(b"/b", world.inside()))
        world.loop.now += 200
        shop.send(OK)
        assert proof(at_shop(world))["iat"] == int(world.unix_time())


def test_a_retried_request_keeps_a_proof() -> None:
    with World(shop_secret=SECRET) as world:
        shop = warm(world)
        sent(world)
        shop.reset()
        (message,), _ = read_requests(world.shop.wires[-1].got)
        assert proof(message)["via"] == "session"


def test_rooms_sign_with_their_own_secrets() -> None:
    other = room_settings("other", hosts=("other.example",), shop_secret="another-" + SECRET)
    with World(room_settings(shop_secret=SECRET), other) as world:
        a, b = (one.proofs.header(None, "health", WALL) for one in world.rooms.values())
        assert claims(a)["aud"] == "shop"
        with pytest.raises(jwt.InvalidSignatureError):
            claims(b)


CHECK = b"/.waitroom/check"
PREFLIGHT = (b"Origin: https://a.example", b"Access-Control-Request-Method: PUT")


@pytest.mark.parametrize(
    ("view", "uri", "lines", "via"),
    [
        (BUSY, b"/sale/", (b"X-Forwarded-Method: GET",), "session"),
        (BUSY, b"/hooks/pay", (b"X-Forwarded-Method: POST",), "bypass"),
        (BUSY, b"/about", (b"X-Forwarded-Method: GET",), "uncovered"),
        (QUIET, b"/sale/a.png", (b"X-Forwarded-Method: GET",), "without_pass"),
        (PASSTHROUGH, b"/sale/a.png", (b"X-Forwarded-Method: GET",), "without_pass"),
        (QUIET, b"/sale/a", (b"X-Forwarded-Method: OPTIONS", *PREFLIGHT), "preflight"),
    ],
)
def test_the_answer_to_a_check_carries_the_proof(view: Any, uri: bytes, lines: tuple[bytes, ...], via: str) -> None:
    settings: dict[str, Any] = {"shop_secret": SECRET, "paths": ("/sale/", "/hooks/"), "bypass": (RULE,)}
    with World(view=view, trusted=("203.0.113.9",), **settings) as world:
        cookies = (world.inside(),) if via == "session" else ()
        got = world.ask(get(CHECK, b"X-Forwarded-Uri: " + uri, *lines, *cookies))
        assert got.status == 200
        assert proof(got)["via"] == via
        assert proof(got).get("sub") == ("5a" if via == "session" else None)


def test_a_refused_check_carries_no_proof() -> None:
    with World(view=BUSY, trusted=("203.0.113.9",), shop_secret=SECRET) as world:
        for answer in (b"status", b"redirect", b"page"):
            got = world.ask(get(CHECK + b"?answer=" + answer, b"X-Forwarded-Uri: /", PAGE))
            assert got.status != 200
            assert b"Waitroom-Proof" not in got
